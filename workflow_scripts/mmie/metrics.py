"""Everything that was measured, as one tidy table: a row per run, metric and unit, checked to be paired with base."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from mmie import tables

PROMPT_METRICS = ("les", "les_broad", "target_share", "prefix_es", "line_pass", "word_pass", "und", "repetitive")
TEXT_METRICS = {"nll_sum": "nll", "n_tokens": "n_tokens", "n_bytes": "n_bytes", "kl_to_base": "kl"}
PROBE_METRICS = {"score": "probe_score", "nats": "probe_nats"}
CANARY_METRICS = {name: f"mia_{name}" for name in ("loss", "zlib", "min_k", "min_k_plus", "reference", "gradnorm")}
RUN = ["arm", "seed", "variant"]


def gather(
    prompts: pd.DataFrame,
    corpus: pd.DataFrame,
    lid: pd.DataFrame,
    likelihood: pd.DataFrame,
    probes: pd.DataFrame,
    membership: pd.DataFrame,
    cards: Sequence[dict[str, Any]],
    scripts: Mapping[str, str],
) -> pd.DataFrame:
    """
    Rows of ``tables.METRICS`` from the tables of all runs; ``scripts`` is config `data.scripts`.

    Raises ValueError when a prompt or text is unknown, or a run does not cover exactly base's units.
    """
    parts = [
        _prompt_rows(prompts, lid),
        _text_rows(corpus, likelihood),
        _probe_rows(probes),
        _canary_rows(membership, scripts),
        _card_rows(cards),
    ]
    table = pd.concat([part for part in parts if len(part)], ignore_index=True)[tables.METRICS.names]
    check_paired(table)
    order = [*RUN, "metric", "family", "language", "layer", "unit_id"]
    return table.sort_values(order, ignore_index=True)


def _prompt_rows(prompts: pd.DataFrame, lid: pd.DataFrame) -> pd.DataFrame:
    """Metrics of continuations; several samples of a prompt are averaged."""
    lid = lid.assign(und=(lid["language"] == "und").astype(int))
    means = lid.groupby([*RUN, "prompt_id"], sort=False)[list(PROMPT_METRICS)].mean().reset_index()
    long = means.melt([*RUN, "prompt_id"], list(PROMPT_METRICS), "metric", "value")
    about = prompts[["prompt_id", "family", "language", "script", "group_id"]]
    attacked = prompts["attack"] != ""
    # An attack may ask in both scripts, and is one set of units all the same.
    about = about.assign(
        family=about["family"].where(~attacked, about["family"] + ":" + prompts["attack"]),
        language=about["language"].where(~attacked, ""),
    )
    rows = long.merge(about, "left", "prompt_id", validate="many_to_one")
    _refuse_unknown(rows, "prompt_id", "results/data/prompts.parquet")
    return rows.assign(layer=-1).rename(columns={"prompt_id": "unit_id"})


def _text_rows(corpus: pd.DataFrame, likelihood: pd.DataFrame) -> pd.DataFrame:
    renamed = likelihood.rename(columns=TEXT_METRICS)
    long = renamed.melt([*RUN, "doc_id"], list(TEXT_METRICS.values()), "metric", "value")
    # Only KL may be missing: it is measured on a sample of the texts.
    long = long[long["value"].notna() | (long["metric"] != "kl")]
    about = corpus[["doc_id", "language", "script", "group_id"]]
    rows = long.merge(about, "left", "doc_id", validate="many_to_one")
    _refuse_unknown(rows, "doc_id", "results/data/corpus.parquet")
    return rows.assign(family="texts", layer=-1).rename(columns={"doc_id": "unit_id"})


def _probe_rows(probes: pd.DataFrame) -> pd.DataFrame:
    renamed = probes.rename(columns={**PROBE_METRICS, "contrast": "language", "doc_id": "unit_id"})
    keys = [*RUN, "layer", "language", "unit_id", "group_id"]
    return renamed.melt(keys, list(PROBE_METRICS.values()), "metric", "value").assign(family="probe", script="")


def _canary_rows(membership: pd.DataFrame, scripts: Mapping[str, str]) -> pd.DataFrame:
    """Scores of the membership attacks; a canary is its own unit and its own group."""
    renamed = membership.rename(columns={**CANARY_METRICS, "canary_id": "unit_id"})
    keys = [*RUN, "member", "language", "unit_id"]
    long = renamed.melt(keys, list(CANARY_METRICS.values()), "metric", "value")
    # Only the gradient may be missing: it is measured on some canaries.
    long = long[long["value"].notna() | (long["metric"] != CANARY_METRICS["gradnorm"])]
    return long.assign(
        family=long.pop("member").map({True: "member", False: "nonmember"}),
        script=long["language"].map(scripts),
        group_id=long["unit_id"],
        layer=-1,
    )


def _card_rows(cards: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """The first edited layer of each run, where an edit can first be seen; no row where no layer is edited."""
    rows = []
    for card in cards:
        layers = [int(layer) for edit in card["edits"] for layer in edit.get("layers") or []]
        if layers:
            rows.append(
                {
                    **{key: card[key] for key in RUN},
                    "metric": "first_edited_layer",
                    "family": "card",
                    "language": "",
                    "script": "",
                    "layer": min(layers),
                    "unit_id": "card",
                    "group_id": "card",
                    "value": float(min(layers)),
                }
            )
    return pd.DataFrame(rows, columns=tables.METRICS.names)


def read_card(path: str | Path) -> dict[str, Any]:
    """
    An arm's card.

    Raises ValueError naming the file when it is missing or is not a card.
    """
    try:
        card = json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"{path} is missing. Run `snakemake --cores 2 {path}` to make it.") from None
    except ValueError as error:
        raise ValueError(f"{path} cannot be read ({error}): delete it, and Snakemake makes it again.") from None
    if not isinstance(card, dict) or not {*RUN, "edits"} <= card.keys():
        raise ValueError(f"{path} is not a card: it needs {[*RUN, 'edits']}. Delete it, and Snakemake makes it again.")
    return card


def check_paired(table: pd.DataFrame) -> None:
    """
    Raise ValueError unless every run has exactly base's units, once each, for every metric paired with base.

    An attacked model is measured on some families and languages only: on these, on all of base's units.
    """
    paired = table[table["family"] != "card"]
    unit = ["metric", "family", "language", "layer", "unit_id"]
    twice = paired.duplicated([*RUN, *unit])
    if twice.any():
        raise ValueError(f"measured twice: {_example(paired[twice], [*RUN, *unit])}.")
    if paired["value"].isna().any():
        raise ValueError(f"no value: {_example(paired[paired['value'].isna()], [*RUN, *unit])}.")
    runs = dict(tuple(paired.groupby(RUN)))
    bases = [run for run in runs if run[0] == "base" and run[2] == "plain"]
    if len(bases) != 1:
        raise ValueError(f"the metrics need one plain run of the arm `base` to compare with, and have {len(bases)}.")
    of_base = pd.MultiIndex.from_frame(runs[bases[0]][unit])
    for run, rows in runs.items():
        found, expected = pd.MultiIndex.from_frame(rows[unit]), of_base
        if run[2] != "plain":
            expected = of_base[of_base.droplevel("unit_id").isin(found.droplevel("unit_id"))]
        lacking, extra = expected.difference(found), found.difference(expected)
        if len(lacking) or len(extra):
            what = (
                f"lacks {len(lacking)} of base's units" if len(lacking) else f"has {len(extra)} units that base lacks"
            )
            example = (lacking if len(lacking) else extra)[0]
            raise ValueError(
                f"{run[0]}, seed {run[1]}, {run[2]} {what}, for example {dict(zip(unit, example, strict=True))}: "
                "it was made from other prompts or texts. Delete its outputs, and Snakemake makes them again."
            )


def _refuse_unknown(rows: pd.DataFrame, key: str, path: str) -> None:
    unknown = rows[rows["group_id"].isna()]
    if len(unknown):
        raise ValueError(f"{key} {unknown[key].iloc[0]!r} of {unknown['arm'].iloc[0]} is not in {path}.")


def _example(rows: pd.DataFrame, keys: list[str]) -> dict[str, Any]:
    return {key: rows[key].iloc[0] for key in keys}
