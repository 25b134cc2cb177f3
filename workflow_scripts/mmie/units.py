"""Values of every run, paired with base's by unit: what the gate's tests take."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

Array = npt.NDArray[np.float64]
Places = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
Run = tuple[str, int]
"""Arm and seed."""
Key = tuple[str, str, str, int]
"""Metric, family, language, layer."""
ROWS = 2**20
"""Of a metrics table, worked on at once: it may have a hundred million."""


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
    def by_language(self) -> dict[str, Places]:
        """Places of the units by what their doc_id says after its colon, in the order of their groups."""
        order = np.argsort(self.groups, kind="stable")
        languages = np.array([str(unit).rpartition(":")[2] for unit in self.unit_ids])[order]
        return {str(language): order[languages == language] for language in np.unique(languages)}


class Paired:
    """
    A metrics table by metric, family, language and layer: runs of one variant, with base, which nobody attacked.

    Attacked models are measured on part of what base is: what none of them was measured on is left out.

    Raises ValueError when base is missing or doubled, or a run does not have exactly base's units.
    """

    def __init__(self, metrics: pd.DataFrame, variant: str = "plain") -> None:
        variants, base = metrics["variant"], (metrics["arm"] == "base").to_numpy()
        kept = np.where(base, (variants == "plain").to_numpy(), (variants == variant).to_numpy())
        run_of = _Numbers(metrics, "arm", "seed")
        seen = np.zeros(run_of.size, bool)
        for rows in _blocks(kept):
            seen[run_of[rows]] = True
        self.runs: list[Run] = [(str(arm), int(seed)) for arm, seed in map(run_of.values, np.flatnonzero(seen))]
        bases = [run for run in self.runs if run[0] == "base"]
        if len(bases) != 1:
            raise ValueError(f"the gate needs one plain run of the arm `base` to compare with, and has {len(bases)}.")
        self.base = bases[0]
        card = kept & (metrics["metric"] == "first_edited_layer").to_numpy()
        firsts = metrics.loc[card, ["arm", "seed", "value"]].itertuples(index=False)
        self._first = {(str(arm), int(seed)): int(layer) for arm, seed, layer in firsts}
        place = np.cumsum(seen) - 1  # in self.runs, by number among all arms × seeds
        kept &= ~card
        self._units = self._split(metrics, kept, kept & base, lambda rows: place[run_of[rows]], variant != "plain")

    def first_layer(self, run: Run) -> int:
        """First edited layer of a run; 0 when the card names none, so that all probed layers count."""
        return self._first.get(run, 0)

    def get(self, metric: str, family: str, language: str, layer: int = -1) -> Units | None:
        """The units of a metric, or None when nothing was measured."""
        return self._units.get((metric, family, language, layer))

    def keys(self, metric: str) -> list[Key]:
        """What a metric was measured on, in order."""
        return sorted(key for key in self._units if key[0] == metric)

    def _split(
        self, metrics: pd.DataFrame, kept: Mask, base: Mask, run_of: Callable[[Places], Places], partial: bool
    ) -> dict[Key, Units]:
        """
        All values in one matrix, [run, unit of base], its columns in order; views of it, key by key.

        Base's rows alone are sorted; those of other runs look their columns up.
        """
        number_of = _Numbers(metrics, "metric", "family", "language", "layer", "unit_id")
        values, of_base = metrics["value"].to_numpy(float), np.flatnonzero(base)
        numbers, first = np.unique(number_of[of_base], return_index=True)
        groups = metrics["group_id"].iloc[of_base[first]].to_numpy(object)
        columns, shape = pd.Index(numbers), (len(self.runs), len(numbers))
        matrix, filled, rows_of = np.empty(shape), np.zeros(shape, bool), np.zeros(len(self.runs), int)
        for rows in _blocks(kept):
            run, column = run_of(rows), columns.get_indexer(number_of[rows])
            if (column < 0).any():
                stray = int(np.argmin(column))
                raise self._not_paired(run[stray], "has what base lacks", number_of.values(number_of[rows][stray]))
            matrix[run, column], filled[run, column] = values[rows], True
            rows_of += np.bincount(run, minlength=len(self.runs))
        for run in np.flatnonzero(rows_of > filled.sum(axis=1)):
            raise self._not_paired(run, "has a unit twice")
        names = number_of.values(numbers)
        of_key = numbers // number_of.shape[-1]
        edges = [*np.unique(of_key, return_index=True)[1].tolist(), len(numbers)]
        others = np.array([run != self.base for run in self.runs])
        found = {}
        for start, stop in pairwise(edges):
            block = slice(start, stop)
            if partial and not filled[others, block].any():
                continue
            metric, family, language, layer, _ = (name[start] for name in names)
            if not filled[:, block].all():
                run, column = np.argwhere(~filled[:, block])[0]
                raise self._not_paired(run, "lacks a unit", tuple(name[start + column] for name in names))
            if not np.isfinite(matrix[:, block]).all():
                raise ValueError(f"{metric} on {family} ({language}) has missing or infinite values.")
            found[str(metric), str(family), str(language), int(layer)] = Units(
                names[-1][block], groups[block], dict(zip(self.runs, matrix[:, block], strict=True))
            )
        return found

    def _not_paired(self, run: int, problem: str, unit: tuple[Any, ...] = ()) -> ValueError:
        (arm, seed), where = self.runs[run], f" ({', '.join(map(str, unit))})" if unit else ""
        return ValueError(
            f"{arm}, seed {seed} {problem}{where}: metrics.parquet is not paired. Run the metrics stage again."
        )


class _Numbers:
    """Numbers of rows by the values of some columns, in order; fast for text that is categorical."""

    def __init__(self, table: pd.DataFrame, *names: str) -> None:
        self._columns: list[tuple[npt.NDArray[Any], Places]] = []
        self._distinct: list[npt.NDArray[Any]] = []
        for name in names:
            column = table[name].array
            coded = column if isinstance(column, pd.Categorical) else pd.Categorical(column)
            distinct = np.asarray(coded.categories, dtype=object)
            order = np.argsort(distinct, kind="stable")
            rank = np.empty(len(order), np.int64)
            rank[order] = np.arange(len(order))
            self._columns.append((coded.codes, rank))
            self._distinct.append(distinct[order])
        self.shape = tuple(map(len, self._distinct))
        self.size = int(np.prod(self.shape))

    def __getitem__(self, rows: Places) -> Places:
        return np.ravel_multi_index([rank[codes[rows]] for codes, rank in self._columns], self.shape)

    def values(self, numbers: Any) -> tuple[Any, ...]:
        """The values of each column behind one number, or behind an array of them."""
        places = np.unravel_index(numbers, self.shape)
        return tuple(distinct[place] for distinct, place in zip(self._distinct, places, strict=True))


def _blocks(kept: Mask) -> Iterator[Places]:
    """The places of the rows to keep, ``ROWS`` rows at a time."""
    for start in range(0, len(kept), ROWS):
        yield start + np.flatnonzero(kept[start : start + ROWS])
