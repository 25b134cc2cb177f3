"""Every metric of every run in one table: its value, its interval and, where it has one, its ratio to base."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd

from mmie import intervals
from mmie.detector_error import Quality, corrected_rate, quality_of
from mmie.equivalence import area, true_positives
from mmie.gate.membership import ATTACKS, strata_of
from mmie.gate.parts import bounded_exp
from mmie.gate.probes import sides
from mmie.statistics import auc_contrast, paired_table, t_test
from mmie.units import Array, Key, Paired, Run, Units

COLUMNS = (
    "arm", "seed", "variant", "metric", "where", "layer", "n", "value", "low", "high", "interval", "low_exact",
    "high_exact", "corrected", "corrected_low", "corrected_high", "ratio", "ratio_low", "ratio_high",
)  # fmt: skip
DETECTED = ("les",)
"""Rates that the detector's measured errors correct: those of the class they were measured for."""
PER_PROMPT = ("les", "les_broad", "line_pass", "word_pass", "und", "repetitive", "target_share", "prefix_es")
Row = dict[str, Any]


def metric_table(metrics: pd.DataFrame, lid_quality: pd.DataFrame, arms: Sequence[str]) -> pd.DataFrame:
    """
    In the order of ``arms``, one row per run, metric, layer and place: prompt family, language of texts or contrast.

    ``value`` with its 95 % interval (``low``, ``high``; ``interval`` names the method). Rates: Wilson, and beside it
    Clopper–Pearson (``_exact``), the rate corrected for the detector's errors (Rogan–Gladen, for LES), and the ratio to
    base by inversion of the gate's score test. Continuous metrics: BCa, none below 50 units. AUCs: DeLong.
    """
    quality = quality_of(lid_quality)
    variants = sorted(set(metrics["variant"].unique()) - {"plain"})
    rows = []
    for variant in ("plain", *variants):
        paired = Paired(metrics, variant)
        for run in paired.runs:
            if run[0] != "base" or variant == "plain":
                for row in _of_run(paired, run, quality):
                    rows.append({"arm": run[0], "seed": run[1], "variant": variant, **row})
    table = pd.DataFrame(rows, columns=list(COLUMNS)).astype({"n": "Int64", "layer": "Int64"})
    places = {arm: i for i, arm in enumerate(arms)}
    return table.sort_values("arm", key=lambda column: column.map(places), kind="stable", ignore_index=True)


def _of_run(paired: Paired, run: Run, quality: Quality | None) -> Iterator[Row]:
    for metric in PER_PROMPT:
        for key in paired.keys(metric):
            yield _per_prompt(key, _units(paired, key), run, paired.base, quality)
    for key in paired.keys("nll"):
        yield from _of_texts(paired, key, run)
    for key in paired.keys("kl"):
        yield _mean("kl", key[2], _units(paired, key).values[run])
    for key in paired.keys("probe_score"):
        yield from _of_probe(paired, key, run)
    yield from _of_canaries(paired, run)


def _per_prompt(key: Key, units: Units, run: Run, base: Run, quality: Quality | None) -> Row:
    """A rate or, for a share or a mean over several samples, a mean."""
    metric, family, _, _ = key
    u, b = units.values[run], units.values[base]
    if not (np.isin(u, (0, 1)).all() and np.isin(b, (0, 1)).all()) or metric in (
        "target_share",
        "word_pass",
        "prefix_es",
    ):
        return _mean(metric, family, u)
    row = _rate(metric, family, int(u.sum()), len(u))
    if quality is not None and metric in DETECTED and quality.youden > 0:
        row["corrected"], row["corrected_low"], row["corrected_high"] = corrected_rate(int(u.sum()), len(u), quality)
    if run != base and metric in ("les", "les_broad") and b.any():
        n11, n10, n01, _ = paired_table(u, b)
        row["ratio"] = float(u.mean() / b.mean())
        row["ratio_low"], row["ratio_high"] = intervals.ratio_interval(n11, n10, n01, len(u))
    return row


def _of_texts(paired: Paired, key: Key, run: Run) -> Iterator[Row]:
    _, family, language, _ = key
    losses = _units(paired, key).values
    tokens = _units(paired, ("n_tokens", family, language, -1)).values[run]
    row = _ratio_of_sums("perplexity", language, losses[run], tokens, exp=True)
    if run != paired.base:
        change = _ratio_of_sums("", language, losses[run] - losses[paired.base], tokens, exp=True)
        row |= {"ratio": change["value"], "ratio_low": change["low"], "ratio_high": change["high"]}
    yield row
    if lengths := paired.get("n_bytes", family, language):
        yield _ratio_of_sums("nats_per_byte", language, losses[run], lengths.values[run], exp=False)


def _of_probe(paired: Paired, key: Key, run: Run) -> Iterator[Row]:
    _, family, contrast, layer = key
    scores = _units(paired, key)
    high, low = (scores.values[run][side] for side in sides(scores, contrast))
    # Against scores that tell nothing, whose AUC is one half: what is left is the AUC's own variance.
    values, auc, _ = auc_contrast((high, low), (np.zeros(len(high)), np.zeros(len(low))), 0.0)
    low_end, high_end = intervals.normal_interval(auc, t_test(values)[1], len(values))
    ends = max(0.0, low_end), min(1.0, high_end)
    yield _row("probe_auc", contrast, len(high), auc, ends, "DeLong, by group") | {"layer": layer}
    nats = _units(paired, ("probe_nats", family, contrast, layer))
    per_group = nats.values[run][np.stack(sides(nats, contrast))].mean(axis=0)
    yield _mean("probe_nats", contrast, per_group) | {"layer": layer}


def _of_canaries(paired: Paired, run: Run) -> Iterator[Row]:
    for attack, metric in ATTACKS.items():
        if strata := strata_of(paired, run, metric):
            found = area(list(strata.values()))
            hits, members = true_positives(list(strata.values()))
            yield _row(f"mia_auc_{attack}", "canaries", members, found.auc, found.interval, "DeLong, by script")
            yield _rate(f"mia_tpr_{attack}", "canaries", hits, members)


def _rate(metric: str, where: str, hits: int, n: int) -> Row:
    low, high = intervals.proportion_interval(hits, n, "beta")
    row = _row(metric, where, n, hits / n, intervals.proportion_interval(hits, n), "Wilson")
    return row | {"low_exact": low, "high_exact": high}


def _mean(metric: str, where: str, values: Array) -> Row:
    return _row(metric, where, len(values), float(values.mean()), intervals.mean_interval(values), "BCa")


def _ratio_of_sums(metric: str, where: str, above: Array, below: Array, exp: bool) -> Row:
    """Σ above / Σ below as the mean of one value per unit (linearised), so that its interval is that of a mean."""
    ratio = float(above.sum() / below.sum())
    ends = intervals.mean_interval(ratio + (above - ratio * below) / float(below.mean()))
    if exp:
        low, high = (None if end is None else bounded_exp(end) for end in ends)
        ratio, ends = bounded_exp(ratio), (low, high)
    return _row(metric, where, len(above), ratio, ends, "BCa")


def _row(metric: str, where: str, n: int, value: float, ends: intervals.Interval, interval: str) -> Row:
    known = ends != (None, None)
    shown = {"low": ends[0], "high": ends[1], "interval": interval if known else ""}
    return {"metric": metric, "where": where, "n": n, "value": value, **shown}


def _units(paired: Paired, key: Key) -> Units:
    """The units of a metric that must be there; raises ValueError when it is not."""
    found = paired.get(*key)
    if found is None:
        raise ValueError(f"the metrics lack {key[0]} on {key[1]} ({key[2]}). Run the metrics stage again.")
    return found
