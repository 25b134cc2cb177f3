"""Continuous parts over all seeds of an arm at once: about the method, where the seeds are enough to say so."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from mmie import power
from mmie.gate.parts import Contrast, Part
from mmie.two_way import SEEDS_FOR_METHOD, TwoWay, two_way


def method_parts(by_seed: Mapping[int, Sequence[Part]], alpha: float) -> list[Part]:
    """
    One more part for every continuous part that all seeds have; none with fewer than five seeds.

    Rates get none: a t test over seeds has a size of up to .31 for rates near 0. They must pass in every seed.
    """
    if len(by_seed) < SEEDS_FOR_METHOD:
        return []
    named: dict[str, list[Part]] = {}
    for parts in by_seed.values():
        for part in parts:
            if part.contrast is not None:
                named.setdefault(part.part, []).append(part)
    return [_method(parts, alpha) for parts in named.values() if len(parts) == len(by_seed)]


def _method(parts: Sequence[Part], alpha: float) -> Part:
    """The part of the method, from those of its seeds, which have the same units in the same order."""
    first = parts[0]
    contrasts = [part.contrast for part in parts if part.contrast is not None]
    one: Contrast = contrasts[0]
    found = two_way(np.column_stack([contrast.values for contrast in contrasts]))
    row = Part(first.gate, first.part, first.null, first.n, base=first.base)
    row.test = f"{first.test.partition(':')[0]} over groups and seeds: two-way t"
    row.margin, row.alternative, row.at_least = first.margin, first.alternative, first.at_least
    row.vacuous, row.too_hard = first.vacuous, "more seeds would be needed"
    row.estimate, row.p = one.estimate(found.mean), found.p
    row.ci_low, row.ci_high = (one.estimate(end) for end in found.interval)
    if row.base is not None:
        row.value = row.base * row.estimate if one.ratio else row.base + row.estimate
    row.power_at = lambda size: _power(found, one.good, size, alpha)
    estimates = [part.estimate for part in parts if part.estimate is not None]
    row.note = f"{len(parts)} seeds: {min(estimates):.3g} to {max(estimates):.3g}"
    return row


def _power(found: TwoWay, good: float, size: int, alpha: float) -> float:
    """With more groups and the same seeds, only the units' part of the variance becomes smaller."""
    error = float(np.sqrt(found.of_seeds + found.of_units * found.units / size))
    return power.t_power(good, error, found.seeds - 1, alpha)
