"""The power of an experiment that has not run, from its config alone: rows, and the same as text."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from mmie import tables
from mmie.assumptions import TARGET, Assumptions
from mmie.power import units_needed
from mmie.power_parts import Part, Plan, parts

CORE = ("G1", "G2", "G3", "G4", "G5", "G6")
SIZES = (60, 100, 150, 200, 300, 400, 600)
"""Held-out groups for which the power is stated, beside the config's."""
SEEDS = (1, 5)
"""Numbers of seeds for which the power of PROCEED is stated, beside the config's."""
SIMULATIONS = 4000
WHOLE, PROCEED = "whole gate", "PROCEED"


def power_rows(
    plan: Plan,
    groups: int,
    seeds: int,
    assumed: Assumptions | None = None,
    sizes: Sequence[int] = SIZES,
    sims: int = SIMULATIONS,
) -> pd.DataFrame:
    """
    Rows of ``tables.POWER``: every part with one seed; every gate and PROCEED with one, five and the config's seeds.

    ``groups`` and ``seeds`` are the config's. Parts are computed; gates and PROCEED are simulated with a fixed stream,
    parts independent of each other, which understates the chance that all pass if anything.
    """
    found = parts(plan, assumed or Assumptions())
    per_gate = {gate: sum(p.alike for p in found if p.gate == gate) for gate in {p.gate for p in found}}
    ladder = sorted({*sizes, groups})
    rows = []
    for part in found:
        share = 1 - (1 - TARGET) / per_gate[part.gate]
        needed = units_needed(lambda n, part=part: part.power(n, part.good), share, part.at_least)  # type: ignore[misc]
        limits: dict[int, float | None] = {}
        for size in ladder:
            n = part.size(size)
            if n not in limits:
                limits[n] = detectable(part, n)
            rows.append(
                {
                    **_row(part.gate, part.name, size, size == groups, 1, part.power(n, part.good)),
                    "test": part.test, "units": part.units, "n": n, "alike": part.alike, "margin": part.margin,
                    "alternative": part.good, "detectable": limits[n], "needed": needed,
                }
            )  # fmt: skip
    for count in sorted({*SEEDS, seeds}):
        rows += list(_whole(found, plan.alpha, ladder, groups, count, sims))
    order = {gate: i for i, gate in enumerate([*sorted(per_gate), PROCEED])}
    rows.sort(key=lambda row: (order[row["gate"]], row["part"] == WHOLE, row["seeds"]))
    return pd.DataFrame(rows, columns=tables.POWER.names)


def detectable(part: Part, n: int) -> float | None:
    """The value nearest to the margin at which an arm still passes with 80 % power; None when there is none."""
    low, high = part.lowest, part.margin
    if part.power(n, low) < TARGET:
        return None
    for _ in range(20):
        middle = (low + high) / 2
        low, high = (middle, high) if part.power(n, middle) >= TARGET else (low, middle)
    return round(low, 4)


def draws(found: Sequence[Part], groups: int, seeds: int, sims: int) -> dict[str, npt.NDArray[np.float64]]:
    """The largest p-value of every gate in each simulated experiment of a good arm, [sim]."""
    largest: dict[str, npt.NDArray[np.float64]] = {}
    for part in found:
        n = part.size(groups)
        for copy in range(part.alike if part.gate != "G6" else 1):
            # A stream of its own, so that one part more or less changes no other.
            rng = np.random.default_rng([zlib.crc32(f"{part.gate}:{part.name}:{copy}".encode()), groups, seeds])
            p = part.draw(rng, sims, n, seeds)
            largest[part.gate] = np.maximum(largest.get(part.gate, 0.0), p)
    return largest


def _whole(
    found: Sequence[Part], alpha: float, ladder: Sequence[int], configured: int, seeds: int, sims: int
) -> Iterator[dict[str, Any]]:
    chance: dict[str, dict[int, float]] = {}
    for groups in ladder:
        largest = draws(found, groups, seeds, sims)
        for gate, p in largest.items():
            chance.setdefault(gate, {})[groups] = float((p <= alpha).mean())
        core = [largest[gate] for gate in CORE if gate in largest]
        passed = float((np.max(core, axis=0) <= alpha).mean()) if "G6" in largest else 0.0
        chance.setdefault(PROCEED, {})[groups] = passed
    for gate, of_groups in chance.items():
        needed = next((groups for groups in ladder if of_groups[groups] >= TARGET), None)
        for groups, value in of_groups.items():
            yield {**_row(gate, WHOLE, groups, groups == configured, seeds, value), "needed": needed}


def _row(gate: str, part: str, groups: int, configured: bool, seeds: int, chance: float) -> dict[str, Any]:
    return {
        "gate": gate, "part": part, "test": "", "units": "groups", "groups": groups, "n": groups,
        "configured": configured, "seeds": seeds, "alike": 1, "margin": None, "alternative": None, "power": chance,
        "detectable": None, "needed": None,
    }  # fmt: skip
