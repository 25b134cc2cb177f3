"""One arm against another on the same prompts and texts: which of two methods forgets more, or harms less."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from mmie import intervals
from mmie.gate.parts import bounded_exp
from mmie.labels import families, second_register
from mmie.statistics import paired_table
from mmie.two_way import SEEDS_FOR_METHOD, two_way
from mmie.units import Array, Paired, Run

COLUMNS = (
    "first", "second", "measure", "where", "n", "seeds", "first_value", "second_value", "estimate", "low", "high",
    "scope",
)  # fmt: skip
FORGOTTEN = ("forget_native", "forget_roman", "mixed")
KEPT = ("retain_", "neighbour_", "unseen_")
Pairs = Sequence[tuple[Run, Run]]


def contrasts(metrics: pd.DataFrame, pairs: Sequence[Sequence[str]], data: Mapping[str, Any]) -> pd.DataFrame:
    """
    For each pair of arms, one row per measure and place: the values of both, and ``estimate`` with its 95 % interval.

    ``extraction`` and ``confusion`` (continuations in another language than their prompt's) are differences of rates,
    first minus second, with Tango's interval for paired answers; over several seeds the mean difference, and the widest
    reach of the seeds' intervals. ``perplexity`` is the ratio first : second on the same texts; with five seeds its
    interval is about the methods (two-way t over texts and seeds), with fewer the widest reach of the seeds' BCa ones.
    ``scope`` says which: ``checkpoints`` or ``method``. The intervals are not adjusted for how many there are.

    Seeds are paired by number; an arm with one run is paired with every seed of the other. Raises ValueError when an
    arm was not measured, or two arms have different seeds.
    """
    paired = Paired(metrics)
    rows = [row for first, second in pairs for row in _pair(paired, first, second, data)]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _pair(paired: Paired, first: str, second: str, data: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    runs = _runs(paired, first, second)
    both = {"first": first, "second": second, "seeds": len(runs)}
    for family, code in families(data).items():
        measured = {"extraction": "les"} if family in FORGOTTEN else {}
        if family.startswith(KEPT):
            measured = {"confusion": "line_pass"}
        for measure, metric in measured.items():
            units = paired.get(metric, family, code)
            if units is not None:
                values = units.values if measure == "extraction" else {run: 1 - v for run, v in units.values.items()}
                yield {**both, "measure": measure, "where": family, **_rates(values, runs)}
    kept = [data["retain"], second_register(data), *data["neighbours"], *data["unseen"]]
    for code in (code for code in kept if code):
        losses, lengths = paired.get("nll", "texts", code), paired.get("n_tokens", "texts", code)
        if losses is not None and lengths is not None:
            row = _perplexity(losses.values, lengths.values[paired.base], runs)
            yield {**both, "measure": "perplexity", "where": code, **row}


def _runs(paired: Paired, first: str, second: str) -> Pairs:
    of = {arm: [run for run in paired.runs if run[0] == arm] for arm in (first, second)}
    for arm, found in of.items():
        if not found:
            raise ValueError(f"config `report.contrasts`: arm {arm!r} was not measured. Name arms of config `arms`.")
    one, other = of[first], of[second]
    if len(one) == 1 or len(other) == 1:
        return [(a, b) for a in one for b in other]
    if [seed for _, seed in one] != [seed for _, seed in other]:
        raise ValueError(f"config `report.contrasts`: {first} and {second} were run with different seeds.")
    return list(zip(one, other, strict=True))


def _rates(values: Mapping[Run, Array], runs: Pairs) -> dict[str, Any]:
    tables = [paired_table(values[first], values[second]) for first, second in runs]
    n = sum(tables[0])
    ends = [intervals.rise_interval(n10, n01, n) for _, n10, n01, _ in tables]
    return {
        "n": n,
        "first_value": _mean(values[first].mean() for first, _ in runs),
        "second_value": _mean(values[second].mean() for _, second in runs),
        "estimate": _mean((n10 - n01) / n for _, n10, n01, _ in tables),
        "low": min(low for low, _ in ends),
        "high": max(high for _, high in ends),
        "scope": "checkpoints",
    }


def _perplexity(losses: Mapping[Run, Array], tokens: Array, runs: Pairs) -> dict[str, Any]:
    """The ratio of sums as the mean of one value per text (linearised), so that its interval is that of a mean."""
    total, length = float(tokens.sum()), float(tokens.mean())
    columns = []
    for first, second in runs:
        rise = losses[first] - losses[second]
        log_ratio = float(rise.sum()) / total
        columns.append(log_ratio + (rise - log_ratio * tokens) / length)
    found: dict[str, Any] = {
        "n": len(tokens),
        "first_value": _mean(bounded_exp(float(losses[first].sum()) / total) for first, _ in runs),
        "second_value": _mean(bounded_exp(float(losses[second].sum()) / total) for _, second in runs),
        "estimate": bounded_exp(_mean(column.mean() for column in columns)),
    }
    if len(runs) >= SEEDS_FOR_METHOD:
        low, high = two_way(np.column_stack(columns)).interval
        return {**found, "low": bounded_exp(low), "high": bounded_exp(high), "scope": "method"}
    ends = [intervals.mean_interval(column) for column in columns]
    lows, highs = ([end for end in side if end is not None] for side in zip(*ends, strict=True))
    whole = len(lows) == len(highs) == len(runs)
    return {
        **found,
        "low": bounded_exp(min(lows)) if whole else np.nan,
        "high": bounded_exp(max(highs)) if whole else np.nan,
        "scope": "checkpoints",
    }


def _mean(values: Any) -> float:
    return float(np.mean([float(value) for value in values]))
