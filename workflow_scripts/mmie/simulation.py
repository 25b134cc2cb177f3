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
    """Paired 0/1 answers: how often base says 1, and how often the arm does where base does and where it does not."""

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
            raise ValueError(
                f"base answers 1 at rate {base}: {up} cannot turn to 1 and {down} to 0. Give smaller ones."
            )
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
class Moments:
    """What tests of a mean read of values [sim, unit, seed]."""

    n: int
    means: Array
    """Mean of every seed, [sim, seed]."""
    covariances: Array
    """Covariance of the seeds over units, [sim, seed, seed]."""

    @classmethod
    def of(cls, values: Array) -> Moments:
        """The moments of values [sim, unit, seed]."""
        means = values.mean(axis=1)
        centred = values - means[:, None]
        n = values.shape[1]
        return cls(n, means, np.einsum("kis,kit->kst", centred, centred) / (n - 1))

    @property
    def t_tests(self) -> Array:
        """P-values of Student's t for H0: mean ≥ 0, for each seed, [sim, seed]."""
        error = np.sqrt(np.einsum("kss->ks", self.covariances) / self.n)
        return np.asarray(np.clip(stdtr(self.n - 1, self.means / error), SMALLEST_P, 1.0))

    @property
    def two_way_tests(self) -> Array:
        """P-values of ``two_way.two_way`` over units and seeds, [sim]."""
        n, s = self.n, self.means.shape[1]
        mean, v_seed = self.means.mean(axis=1), self.means.var(axis=1, ddof=1) / s
        v_unit = self.covariances.mean(axis=(1, 2)) / n
        squares = (n - 1) * np.einsum("kss->k", self.covariances) + n * s * (s - 1) * v_seed
        v_cell = squares / (n * s - 1) / (n * s)
        error = np.sqrt(np.maximum(np.maximum(v_unit, v_seed), v_unit + v_seed - v_cell))
        return np.asarray(np.clip(stdtr(s - 1, mean / error), SMALLEST_P, 1.0))


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

    def draw(self, rng: np.random.Generator, sims: int, n: int, seeds: int = 1) -> Moments:
        """
        Moments of ``n`` units, n > seeds, without drawing the units: the covariance of normal values is Wishart's,
        drawn by Bartlett's decomposition (1934, Proc. R. Soc. Edinb. 53:260–283).
        """
        own = np.full((seeds, seeds), self.share) + (1 - self.share) * np.eye(seeds)
        root = self.spread * np.linalg.cholesky(own)
        bartlett = np.tril(rng.standard_normal((sims, seeds, seeds)), -1)
        diagonal = np.arange(seeds)
        bartlett[:, diagonal, diagonal] = np.sqrt(rng.chisquare(n - 1 - diagonal, (sims, seeds)))
        factor = root @ bartlett
        means = self.mean + rng.standard_normal((sims, seeds)) @ root.T / np.sqrt(n)
        means += self.seed_spread * rng.standard_normal((sims, seeds))
        return Moments(n, means, factor @ factor.swapaxes(1, 2) / (n - 1))


@dataclass(frozen=True)
class Area:
    """
    The AUC of ``attacks`` membership attacks, all the same, whose estimates are normal and correlated.

    There are ``ratio`` non-members to a member, and both are in ``strata`` of the same size.
    """

    auc: float
    attacks: int
    correlation: float
    ratio: float
    strata: int

    def error(self, members: int) -> float:
        """Standard error where members and non-members do not differ (Mann and Whitney 1947)."""
        m, n = members / self.strata, members * self.ratio / self.strata
        return float(np.sqrt((m + n + 1) / (12 * m * n) / self.strata))

    def draw(self, rng: np.random.Generator, sims: int, members: int, seeds: int = 1) -> Array:
        """Estimates of the AUC, [sim, attack × seed, stratum]; their mean over strata has the error above."""
        shared = rng.standard_normal((sims, 1, self.strata))
        own = rng.standard_normal((sims, self.attacks * seeds, self.strata))
        noise = np.sqrt(self.correlation) * shared + np.sqrt(1 - self.correlation) * own
        return self.auc + self.error(members) * np.sqrt(self.strata) * noise
