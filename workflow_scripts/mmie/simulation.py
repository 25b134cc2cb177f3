"""
Draws of what an experiment would measure, many experiments at once: axis 0 is always the simulated experiment.

Answers and texts are shared by all seeds of an experiment and by base, as they are in a real one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import stdtr

from mmie.statistics import SMALLEST_P

Array = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Pair:
    """Paired 0/1 answers: how often base answers 1, and how often the arm does where base does and where it does not."""

    base: float
    stay: float
    """P(arm 1 | base 1)."""
    up: float
    """P(arm 1 | base 0)."""

    @classmethod
    def independent(cls, base: float, arm: float) -> Pair:
        """The arm answers 1 at rate ``arm``, whatever base does."""
        return cls(base, arm, arm)

    @classmethod
    def discordant(cls, base: float, up: float, down: float) -> Pair:
        """A share ``up`` of units turns from 0 to 1 and a share ``down`` from 1 to 0."""
        if not (0 <= down <= base and 0 <= up <= 1 - base and 0 < base < 1):
            raise ValueError(f"base answers 1 at rate {base}: {up} cannot turn to 1 and {down} to 0. Give smaller ones.")
        return cls(base, 1 - down / base, up / (1 - base))

    @property
    def arm(self) -> float:
        """Rate of the arm."""
        return self.base * self.stay + (1 - self.base) * self.up

    def draw(self, rng: np.random.Generator, sims: int, n: int, seeds: int = 1) -> tuple[Counts, Counts, Counts]:
        """Counts (n11, n10, n01) of ``n`` units, the arm first, each [sim, seed]; base is the same for all seeds."""
        ones = rng.binomial(n, self.base, (sims, 1))
        both = rng.binomial(ones, self.stay, (sims, seeds))
        gained = rng.binomial(n - ones, self.up, (sims, seeds))
        return both, gained, ones - both


@dataclass(frozen=True)
class Change:
    """
    A mean change per unit with normal spread between units and between seeds.

    ``share`` of the units' variance is a unit's own, the same in all seeds; the rest is new with every seed.
    """

    mean: float
    spread: float
    share: float = 0.0
    seed_spread: float = 0.0

    def draw(self, rng: np.random.Generator, sims: int, n: int, seeds: int = 1) -> Array:
        """Changes, [sim, unit, seed]."""
        values = rng.standard_normal((sims, n, seeds))
        if seeds > 1:
            values *= np.sqrt(1 - self.share)
            values += np.sqrt(self.share) * rng.standard_normal((sims, n, 1))
        values *= self.spread
        values += self.mean + self.seed_spread * rng.standard_normal((sims, 1, seeds))
        return values


def t_tests(values: Array) -> Array:
    """P-values of Student's t for H0: mean ≥ 0 over axis 1 of [sim, unit] or [sim, unit, seed]."""
    n = values.shape[1]
    error = values.std(axis=1, ddof=1) / np.sqrt(n)
    return np.asarray(np.clip(stdtr(n - 1, values.mean(axis=1) / error), SMALLEST_P, 1.0))


def two_way_tests(values: Array) -> Array:
    """P-values of ``two_way.two_way`` over units and seeds, for each experiment of [sim, unit, seed]."""
    _, n, s = values.shape
    mean = values.mean(axis=(1, 2))
    v_unit = values.mean(axis=2).var(axis=1, ddof=1) / n
    v_seed = values.mean(axis=1).var(axis=1, ddof=1) / s
    v_cell = values.reshape(len(values), -1).var(axis=1, ddof=1) / (n * s)
    error = np.sqrt(np.maximum(np.maximum(v_unit, v_seed), v_unit + v_seed - v_cell))
    return np.asarray(np.clip(stdtr(s - 1, mean / error), SMALLEST_P, 1.0))
