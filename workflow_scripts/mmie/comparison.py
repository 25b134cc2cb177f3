"""The page docs/comparison.md: every arm of a run side by side, from its tables."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from safetensors import safe_open
from snakemake.utils import update_config

from mmie import files, prose, report_tables, summary, tables
from mmie.config import PROJECT, check_config
from mmie.contrasts import contrasts
from mmie.labels import GATES, family_name, number, sentence

FORGET_SCRIPTS = {"both": "lora", "Devanagari": "lora_native", "Latin": "lora_roman"}
"""Which arm was trained on which script, for the matrix of scripts."""


def compare(folder: Path, overlay: str) -> str:
    """
    The page on a finished run of config.yaml with ``overlay`` in ``folder``, as Markdown.

    Raises ValueError when a table of the run is missing.
    """
    config = _config(overlay)
    metrics = tables.read(folder / "results/metrics.parquet", tables.METRICS)
    tests = tables.read(folder / "results/gate/tests.parquet", tables.TESTS)
    decision = files.read_json(folder / "results/gate/decision.json")
    arms = [arm for arm in config["arms"] if arm in set(metrics["arm"])]
    pairs = [pair for pair in config["report"]["contrasts"] if set(pair) <= set(arms)]
    found = contrasts(metrics, pairs, config["data"])
    lines = [
        "# Every method on one bench",
        "",
        f"Written by `workflow_scripts/comparison.py` from a run of `{Path(overlay).as_posix()}`: "
        f"{len(arms)} arms, seeds {', '.join(map(str, config['seeds']))}, "
        f"{config['data']['splits']['test']} groups a prompt family, on {prose.model_name(config['model'])} with "
        f"{config['canaries']['members']} canaries planted. "
        f"{decision['scope_note']} All seeds share the sparse autoencoders, their latents and the planted model. "
        "Parameters are the defaults unless the overlay names them; what was ever tuned was tuned on the tune split.",
        *_verdicts(decision, arms),
        *_numbers(report_tables.glance(metrics, tests, arms, config["data"])),
        *_scripts(metrics, config["data"]),
        *_contrasts(report_tables.contrasts(found, config["data"])),
        *_costs(folder, arms),
    ]
    return "\n".join(lines) + "\n"


def _config(overlay: str) -> dict[str, Any]:
    config = yaml.safe_load((PROJECT / "config.yaml").read_text(encoding="utf-8"))
    update_config(config, yaml.safe_load((PROJECT / overlay).read_text(encoding="utf-8")))
    return check_config(config)


def _verdicts(decision: Mapping[str, Any], arms: Sequence[str]) -> Iterator[str]:
    shown = [gate for gate in GATES if any(gate in found["gates"] for found in decision["arms"].values())]
    yield from (
        "",
        "## Verdicts",
        "",
        "✓ passed, ✗ failed, ? the data cannot tell, – not tested; with the worst part's estimate.",
    )
    yield ""
    yield from _header("arm", "verdict", *(f"{gate} {GATES[gate]}" for gate in shown))
    marks = {"pass": "✓", "fail": "✗", "unclear": "?", "missing": "–"}
    for arm in arms:
        if found := decision["arms"].get(arm):
            gates = [found["gates"].get(gate, {"outcome": "missing", "estimate": None}) for gate in shown]
            cells = [f"{marks[gate['outcome']]} {number(gate['estimate'])}".removesuffix(" –") for gate in gates]
            yield _row(f"`{arm}`", found["verdict"], *cells)


def _numbers(table: Mapping[str, Any]) -> Iterator[str]:
    yield from ("", "## Rates and perplexities", "", str(table["caption"]), "")
    yield from _header(*table["header"])
    for row in table["rows"]:
        yield _row(*row)


def _scripts(metrics: pd.DataFrame, data: Mapping[str, Any]) -> Iterator[str]:
    """The matrix of the script that was trained on against the script that is asked in."""
    rates = summary.over_seeds(summary.rates(metrics), ["arm", "family"])
    found = summary.lookup(rates, "arm", "family")
    asked = ("forget_native", "forget_roman", "mixed")
    if not all((arm, family) in found for arm in FORGET_SCRIPTS.values() for family in asked):
        return
    yield from (
        "",
        "## One script or both",
        "",
        "Continuations still in Hindi, by the script trained on (LoRA) and the script of the prompt.",
        "",
    )
    yield from _header("trained on", *(sentence(family_name(family, data)) for family in asked))
    for script, arm in {"nothing (base)": "base", **FORGET_SCRIPTS}.items():
        cells = (found[arm, family] for family in asked)
        yield _row(script, *(f"{number(c['value'])} ({number(c['low'])} to {number(c['high'])})" for c in cells))


def _contrasts(found: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    if found:
        yield from ("", "## One method against another")
    for table in found:
        yield from ("", str(table["caption"]), "")
        yield from _header(*table["header"])
        for row in table["rows"]:
            yield _row(*row)


def _costs(folder: Path, arms: Sequence[str]) -> Iterator[str]:
    """What training cost, from the run's benchmarks, and how large an edit is."""
    size = sum(_elements(path) for path in (folder / "results/model").glob("*.safetensors"))
    yield from (
        "",
        "## Cost",
        "",
        "Training on the machine of this run, the slowest seed; what an edit stores, as a share of the model.",
    )
    yield ""
    yield from _header("arm", "seconds", "peak memory", "numbers stored", "share of the model")
    for arm in arms:
        runs = [pd.read_csv(path, sep="\t").iloc[-1] for path in (folder / "benchmarks/unlearn" / arm).glob("*.tsv")]
        cards = sorted((folder / "results/adapters" / arm).glob("seed*/plain/arm.json"))
        if runs and cards:
            stored = sum(_elements(path) for path in cards[0].parent.rglob("*.safetensors"))
            slowest, peak = max(float(run["s"]) for run in runs), max(float(run["max_rss"]) for run in runs)
            yield _row(f"`{arm}`", f"{slowest:.0f}", f"{peak / 1000:.1f} GB", f"{stored:,}", f"{stored / size:.2%}")


def _elements(path: Path) -> int:
    with safe_open(path, framework="pt") as file:
        names = file.keys()  # not a mapping: it cannot be iterated itself
        return sum(math.prod(file.get_slice(name).get_shape()) for name in names)


def _header(*cells: str) -> list[str]:
    return [_row(*cells), "|" + "---|" * len(cells)]


def _row(*cells: str) -> str:
    return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"
