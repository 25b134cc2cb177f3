"""Values of every run, paired with base's by unit: what the gate's tests take."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

Array = npt.NDArray[np.float64]
Run = tuple[str, int]
"""Arm and seed."""
Key = tuple[str, str, str, int]
"""Metric, family, language, layer."""


@dataclass(frozen=True)
class Units:
    """Values of one metric on one set of units, in the same order for every run."""

    unit_ids: npt.NDArray[Any]
    groups: npt.NDArray[Any]
    values: dict[Run, Array]

    @cached_property
    def alone(self) -> bool:
        """Whether no two units share a group."""
        return len(set(self.groups)) == len(self.groups)

    @cached_property
    def languages(self) -> npt.NDArray[Any]:
        """What a doc_id says after its colon, for each unit."""
        return np.array([str(unit).rpartition(":")[2] for unit in self.unit_ids])


class Paired:
    """
    A metrics table by metric, family, language and layer: runs of one variant, with base, which nobody attacked.

    Attacked models are measured on part of what base is: what none of them was measured on is left out.

    Raises ValueError when base is missing or doubled, or a run does not have exactly base's units.
    """

    def __init__(self, metrics: pd.DataFrame, variant: str = "plain") -> None:
        variants, base = metrics["variant"], (metrics["arm"] == "base").to_numpy()
        kept = np.where(base, (variants == "plain").to_numpy(), (variants == variant).to_numpy())
        table = metrics if kept.all() else metrics[kept]
        arms, arm_names = _codes(table["arm"])
        seeds, seed_values = _codes(table["seed"])
        pairs = arms * len(seed_values) + seeds
        seen = np.flatnonzero(np.bincount(pairs))
        runs = np.searchsorted(seen, pairs)
        places = (divmod(int(pair), len(seed_values)) for pair in seen)
        self.runs: list[Run] = [(str(arm_names[arm]), int(seed_values[seed])) for arm, seed in places]
        bases = [run for run in self.runs if run[0] == "base"]
        if len(bases) != 1:
            raise ValueError(f"the gate needs one plain run of the arm `base` to compare with, and has {len(bases)}.")
        self.base = bases[0]
        card = (table["metric"] == "first_edited_layer").to_numpy()
        firsts = table["value"].to_numpy(float)[card]
        self._first = {self.runs[run]: int(layer) for run, layer in zip(runs[card], firsts, strict=True)}
        self._units = self._split(table[~card], runs[~card], partial=variant != "plain")

    def first_layer(self, run: Run) -> int:
        """First edited layer of a run; 0 when the card names none, so that all probed layers count."""
        return self._first.get(run, 0)

    def get(self, metric: str, family: str, language: str, layer: int = -1) -> Units | None:
        """The units of a metric, or None when nothing was measured."""
        return self._units.get((metric, family, language, layer))

    def keys(self, metric: str) -> list[Key]:
        """What a metric was measured on, in order."""
        return sorted(key for key in self._units if key[0] == metric)

    def _split(self, table: pd.DataFrame, run_codes: npt.NDArray[np.int64], partial: bool) -> dict[Key, Units]:
        columns = [_codes(table[name]) for name in ("metric", "family", "language")]
        layer_of, layers = _codes(table["layer"])
        shape = (*(len(names) for _, names in columns), len(layers))
        key_of = np.ravel_multi_index((*(codes for codes, _ in columns), layer_of), shape)
        unit_codes, unit_names = _codes(table["unit_id"])
        # One number to sort by is several times faster than three keys.
        order = np.argsort((key_of * len(self.runs) + run_codes) * len(unit_names) + unit_codes)
        key_of, run_codes, unit_codes = key_of[order], run_codes[order], unit_codes[order]
        groups, values = table["group_id"].astype(object).to_numpy()[order], table["value"].to_numpy(float)[order]
        starts = np.flatnonzero(np.r_[True, (np.diff(key_of) != 0) | (np.diff(run_codes) != 0)])
        blocks: dict[int, dict[Run, slice]] = {}
        for start, stop in zip(starts, [*starts[1:], len(key_of)], strict=True):
            blocks.setdefault(int(key_of[start]), {})[self.runs[run_codes[start]]] = slice(int(start), int(stop))
        found = {}
        for code, of_run in blocks.items():
            if partial and set(of_run) == {self.base}:
                continue
            places = np.unravel_index(code, shape)
            metric, family, language = (str(names[i]) for (_, names), i in zip(columns, places[:3], strict=True))
            what = f"{metric} on {family} ({language})"
            expected = unit_codes[of_run[self.base]] if self.base in of_run else None
            for run in self.runs:
                have = unit_codes[of_run[run]] if run in of_run else np.empty(0, int)
                if expected is None or not np.array_equal(have, expected) or (np.diff(have) == 0).any():
                    raise ValueError(
                        f"{what}: {run[0]}, seed {run[1]} has {len(have)} units and base "
                        f"{0 if expected is None else len(expected)}, or others: metrics.parquet is not paired. "
                        "Run the metrics stage again."
                    )
            block = of_run[self.base]
            if not all(np.isfinite(values[s]).all() for s in of_run.values()):
                raise ValueError(f"{what} has missing or infinite values.")
            found[metric, family, language, int(layers[places[3]])] = Units(
                unit_names[unit_codes[block]], groups[block], {run: values[s] for run, s in of_run.items()}
            )
        return found


def _codes(column: pd.Series) -> tuple[npt.NDArray[np.int64], npt.NDArray[Any]]:
    """Each value's place among the sorted distinct values, and these; fast for text that is categorical."""
    codes, names = pd.factorize(column)
    distinct = np.asarray(names, dtype=object)
    order = np.argsort(distinct, kind="stable")
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    return rank[codes], distinct[order]
