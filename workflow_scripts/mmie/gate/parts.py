"""A gate's part: one row of the table of tests, and how it is judged once its numbers are known."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from mmie import intervals, power, tables
from mmie.detector_error import Quality, quality_of
from mmie.statistics import paired_table
from mmie.units import Array, Paired, Run, Units

UNITS_FOR_MEANS = 150
"""Fewer leave the test of an unbounded mean too sure under skew: size .06 to .08 at 60."""
POWER = 0.80
"""Of a whole gate; a part's share is 1 − (1 − POWER) / parts, which guarantees it (Bonferroni)."""


@dataclass(frozen=True)
class Evidence:
    """Everything the gates read: the metrics, the detector's measured errors, the config's ``gate`` and ``data``."""

    metrics: pd.DataFrame
    lid_quality: pd.DataFrame
    settings: Mapping[str, Any]

    @cached_property
    def paired(self) -> Paired:
        """Edited models that nobody attacked, with base."""
        return Paired(self.metrics)

    @cached_property
    def attacked(self) -> dict[str, Paired]:
        """Attacked models by variant, with base, which nobody attacked; their extraction and likelihood alone."""
        rows = self.metrics[self.metrics["metric"].isin(["les", "nll"]).to_numpy()]
        return {name: Paired(rows, name) for name in sorted(set(self.metrics["variant"].unique()) - {"plain"})}

    @cached_property
    def quality(self) -> Quality | None:
        """The detector's errors; None when they were not measured."""
        return quality_of(self.lid_quality)

    @property
    def data(self) -> Mapping[str, Any]:
        """Config ``data``."""
        found: Mapping[str, Any] = self.settings["data"]
        return found

    @property
    def alpha(self) -> float:
        """Level of every test."""
        return float(self.settings["gate"]["alpha"])

    def margin(self, name: str) -> float:
        """A margin of the config; raises ValueError naming the key when it is not there."""
        margins = self.settings["gate"]["margins"]
        if name not in margins:
            raise ValueError(f"config `gate.margins` lacks `{name}`: give it a value.")
        return float(margins[name])


@dataclass(frozen=True)
class Contrast:
    """
    A continuous part as one value per unit, with H0: mean ≥ 0.

    The estimate is ``mean / scale + offset``, or its exponential where it is a ratio to base.
    """

    values: Array
    good: float
    """The mean in a good arm, below 0."""
    offset: float
    scale: float = 1.0
    ratio: bool = False

    def estimate(self, mean: float) -> float:
        """The tested quantity, on the margin's scale."""
        level = mean / self.scale + self.offset
        return bounded_exp(level) if self.ratio else level


@dataclass
class Part:
    """One row of ``tables.TESTS``, before it is judged."""

    gate: str
    part: str
    null: str
    n: int = 0
    test: str = ""
    base: float | None = None
    value: float | None = None
    estimate: float | None = None
    ci_low: float | None = None
    ci_high: float | None = None
    margin: float | None = None
    p: float | None = None
    alternative: float | None = None
    power: float | None = None
    needed: int | None = None
    vacuous: bool = False
    reason: str = ""
    note: str = ""
    outcome: str = ""
    power_at: Callable[[int], float] | None = None
    """Power with so many units, from which ``power`` and ``needed`` are found."""
    at_least: int = 0
    """Units below which the test is not trusted."""
    weak: str = ""
    """Why the data cannot show what the gate asks; empty when they can."""
    failing: bool | None = None
    """Whether the estimate is on the failing side, where ``estimate`` and ``margin`` alone do not tell."""
    unit: str = "groups"
    """What ``n`` counts."""
    too_hard: str = "more than 10 000 would be needed"
    """What to say where no number of units suffices."""
    contrast: Contrast | None = field(default=None, repr=False)

    def missing(self, reason: str) -> Part:
        """This part, not measured."""
        self.reason, self.outcome = reason, "missing"
        return self


def judge(part: Part, alpha: float, tests: int) -> None:
    """
    Set ``outcome``, ``power``, ``needed`` and ``reason``; ``tests``: how many must reject for the gate to pass.

    fail: the estimate is on the failing side, or H0 stands although the gate had 80 % power to reject it. unclear: H0
    stands and a good arm might not have been recognised either, or the test cannot be trusted here.
    """
    if part.outcome == "missing":
        return
    target = 1 - (1 - POWER) / tests
    if part.power_at is not None:
        part.power = part.power_at(part.n)
        part.needed = power.units_needed(part.power_at, target, part.at_least)
    failing = part.failing
    if failing is None:
        failing = part.estimate is not None and part.margin is not None and part.estimate >= part.margin
    too_few = part.n < part.at_least
    rejected = part.p is not None and part.p <= alpha
    would_do = f"about {part.needed} would do" if part.needed else part.too_hard
    if part.weak:
        part.outcome, part.reason = "unclear", part.weak
    elif failing:
        part.outcome, part.reason = "fail", "the estimate is on the failing side of the margin"
    elif rejected and not too_few:
        part.outcome = "pass"
    elif too_few:
        part.outcome = "unclear"
        part.reason = f"the test needs {part.at_least} {part.unit} to be trusted and has {part.n}"
        part.reason += "" if part.needed == part.at_least else f"; {would_do}"
    elif part.power is not None and part.power >= target:
        part.outcome = "fail"
        part.reason = (
            f"not shown to be within the margin, although a good arm would have been with probability {part.power:.2f}"
        )
    else:
        part.outcome = "unclear"
        chance = "" if part.power is None else f": a good arm would be recognised with probability {part.power:.2f}"
        part.reason = f"{part.n} {part.unit} are too few{chance}; {would_do}"


def row(part: Part, arm: str, seed: int) -> dict[str, Any]:
    """The part as a row of ``tables.TESTS``."""
    found = {name: getattr(part, name) for name in tables.TESTS.names if name not in ("arm", "seed", "passes")}
    return {"arm": arm, "seed": seed, **found, "passes": part.outcome == "pass"}


def counts(units: Units, base: Run, run: Run) -> tuple[int, int, int, int]:
    """Paired counts (n11, n10, n01, n00) of a rate; raises ValueError where units are not independent."""
    one_per_group(units, "a rate")
    return paired_table(units.values[run], units.values[base])


def one_per_group(units: Units, what: str) -> None:
    """Raise ValueError when two units share a group."""
    if not units.alone:
        raise ValueError(f"{what}: two units share a group, and are not independent. Keep one per group and family.")


def weak_assay(count: int, n: int, what: str) -> str:
    """Why the assay is weak: base itself must do what the arm is tested for, surely more often than not."""
    low, _ = intervals.proportion_interval(count, n)
    if low > 0.5:
        return ""
    return f"the assay is weak: base {what} in only {count} of {n} (lower 95 % bound {low:.2f}, needs > 0.5)"


def bounded_exp(log: float) -> float:
    """exp, where a model so broken that it overflows is infinitely perplexed only in theory."""
    return float(np.exp(min(log, 700.0)))
