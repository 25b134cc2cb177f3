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
from mmie.labels import CORE
from mmie.power import units_needed
from mmie.power_parts import Part, Plan, parts

SIZES = (40, 60, 80, 100, 125, 150, 175, 200, 250, 300, 400, 500, 600)
"""Held-out groups (for G6: members) for which the power is stated, beside the config's."""
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
    parts independent of each other, which understates the chance that all pass if anything. Rows of G6 differ in the
    number of members, all other rows in the number of groups.
    """
    found = parts(plan, assumed or Assumptions())
    of_gate = {gate: [p for p in found if p.gate == gate] for gate in sorted({p.gate for p in found})}
    rows: list[dict[str, Any]] = []
    for gate, members in of_gate.items():
        share = 1 - (1 - TARGET) / sum(part.alike for part in members)
        for part in members:
            rows += _of_part(part, groups, sizes, share)
        rows += _of_whole(gate, members, plan.alpha, groups, sizes, {*SEEDS, seeds}, sims)
    core = [part for part in found if part.gate in CORE] if "G6" in of_gate else []
    rows += _of_whole(PROCEED, core, plan.alpha, groups, sizes, {*SEEDS, seeds}, sims)
    return pd.DataFrame(rows, columns=tables.POWER.names)


def _of_part(part: Part, groups: int, sizes: Sequence[int], share: float) -> Iterator[dict[str, Any]]:
    needed = units_needed(lambda n: part.chance(n, part.good), share, part.at_least)
    for size, n, configured in _ladder([part], groups, sizes):
        row = _row(part.gate, part.name, size, n, configured, 1, part.chance(n, part.good))
        yield row | {
            "test": part.test, "units": part.units, "alike": part.alike, "margin": part.margin,
            "alternative": part.good, "detectable": detectable(part, n), "needed": needed,
        }  # fmt: skip


def _of_whole(
    gate: str, found: Sequence[Part], alpha: float, groups: int, sizes: Sequence[int], seeds: set[int], sims: int
) -> Iterator[dict[str, Any]]:
    """Without a part, nothing can pass."""
    units = found[0].units if gate == "G6" else "groups"
    for count in sorted(seeds):
        rows = []
        for size, n, configured in _ladder(found if gate == "G6" else [], groups, sizes):
            passed = (largest_p(found, n, count, sims) <= alpha).mean() if found else 0.0
            rows.append(_row(gate, WHOLE, size, n, configured, count, float(passed)) | {"units": units})
        needed = next((row["n"] for row in rows if row["power"] >= TARGET), None)
        yield from (row | {"needed": needed} for row in rows)


def _ladder(found: Sequence[Part], groups: int, sizes: Sequence[int]) -> list[tuple[int, int, bool]]:
    """Held-out groups, units, and whether the config has so many."""
    fixed = found[0].fixed if found else None
    if fixed is None:
        return [(size, size, size == groups) for size in sorted({*sizes, groups})]
    if found[0].units == "members":
        return [(groups, size, size == fixed) for size in sorted({*sizes, fixed})]
    return [(groups, fixed, True)]


def detectable(part: Part, n: int) -> float | None:
    """The value nearest to the margin at which an arm still passes with 80 % power; None when there is none."""
    low, high = part.lowest, part.margin
    if part.chance(n, low) < TARGET:
        return None
    for _ in range(20):
        middle = (low + high) / 2
        low, high = (middle, high) if part.chance(n, middle) >= TARGET else (low, middle)
    return round(low, 4)


def largest_p(found: Sequence[Part], n: int, seeds: int, sims: int) -> npt.NDArray[np.float64]:
    """
    The largest p-value of these parts in each simulated experiment of a good arm with ``n`` groups, [sim].

    Where all parts are of G6, ``n`` counts members.
    """
    canaries_alone = all(part.units == "members" for part in found)
    largest = np.zeros(sims)
    for part in found:
        size = n if part.fixed is None or canaries_alone else part.fixed
        for copy in range(1 if part.together else part.alike):
            # A stream of its own, so that one part more or less changes no other.
            rng = np.random.default_rng([zlib.crc32(f"{part.gate}:{part.name}:{copy}".encode()), size, seeds])
            np.maximum(largest, part.draw(rng, sims, size, seeds), out=largest)
    return largest


def _row(gate: str, part: str, groups: int, n: int, configured: bool, seeds: int, chance: float) -> dict[str, Any]:
    return {
        "gate": gate, "part": part, "test": "", "units": "groups", "groups": groups, "n": n,
        "configured": configured, "seeds": seeds, "alike": 1, "margin": None, "alternative": None, "power": chance,
        "detectable": None, "needed": None,
    }  # fmt: skip


def as_text(rows: pd.DataFrame) -> str:
    """The configured experiment's rows for a terminal, and what holds it back."""
    shown = rows[rows["configured"]]
    lines = [
        "Power before anything has run: the chance of a good arm to pass, from the config and stated assumptions.",
        f"{'':9}{'part':36}{'units':>13}{'margin':>8}{'good arm':>9}{'passes to':>10}{'power':>7}{'needed':>8}",
    ]
    for row in shown[shown["gate"] != PROCEED].itertuples():
        if row.part != WHOLE:
            name = f"{row.part} (×{row.alike})" if row.alike > 1 else row.part
            numbers = f"{row.margin:8.3g}{row.alternative:9.3g}{_or_dash(row.detectable, '.3g'):>10}"
        else:
            name, numbers = f"all of it, {_seeds(row.seeds)}", " " * 27
        units = f"{row.n} {row.units}"
        lines.append(f"{row.gate:9}{name:36}{units:>13}{numbers}{row.power:7.2f}{_or_dash(row.needed, '.0f'):>8}")
    for row in shown[shown["gate"] == PROCEED].itertuples():
        enough = f"{row.needed:.0f} groups would do" if row.needed == row.needed else "no size in the table would do"
        enough = "enough" if row.power >= TARGET else enough
        lines.append(f"{PROCEED}, {_seeds(row.seeds)}: {row.power:.2f} with {row.groups} groups ({enough}).")
    if not (rows["gate"] == "G6").any():
        lines.append("No canaries are planted (`canaries.members: 0`): G6 cannot be tested, and no arm can PROCEED.")
    return "\n".join(lines)


def _seeds(count: int) -> str:
    return "one seed" if count == 1 else f"all of {count} seeds"


def _or_dash(value: float, form: str) -> str:
    return "–" if value != value else format(value, form)
