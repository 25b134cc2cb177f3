"""
Means over units and training seeds at once: a claim about the method, not about the checkpoints that were trained.

All units are measured in every seed, so neither is nested in the other, and values that share a unit or a seed depend
on each other. Pooling them as independent has a size of .25 to .35.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import stdtr, stdtrit

from mmie.statistics import SMALLEST_P

Array = npt.NDArray[np.float64]

SEEDS_FOR_METHOD = 5
"""Fewer seeds say too little of how seeds vary; each of them is then tested on its own."""
ALL_SEEDS = -1
"""In the column ``seed`` of a table of tests: a test over all seeds at once."""
LEVEL = 0.95


@dataclass(frozen=True)
class TwoWay:
    """Mean of a value over units and seeds, and its variance, in two parts."""

    mean: float
    seeds: int
    units: int
    of_seeds: float
    """Variance of the mean that more units would not lessen."""
    of_units: float
    """Variance of the mean that falls as 1 / units."""

    @property
    def error(self) -> float:
        """Standard error of the mean."""
        return float(np.sqrt(self.of_seeds + self.of_units))

    @property
    def p(self) -> float:
        """P-value for H0: mean ≥ 0, by Student's t with seeds − 1 degrees of freedom."""
        if self.error == 0:
            return SMALLEST_P if self.mean < 0 else 1.0
        return float(np.clip(stdtr(self.seeds - 1, self.mean / self.error), SMALLEST_P, 1.0))

    @property
    def interval(self) -> tuple[float, float]:
        """95 % interval of the mean."""
        half = float(stdtrit(self.seeds - 1, (1 + LEVEL) / 2)) * self.error
        return self.mean - half, self.mean + half


def two_way(values: npt.ArrayLike) -> TwoWay:
    """
    Mean and variance of ``values``, [unit, seed], where both units and seeds are samples.

    The variance is the larger of V_unit, V_seed and V_unit + V_seed − V_cell, each as if only units, only seeds, or
    single values were independent (Cameron, Gelbach and Miller 2011, J. Bus. Econ. Stat. 29:238–249). Raises ValueError
    for fewer than two units or two seeds, or values that are not finite.
    """
    x = np.asarray(values, float)
    if x.ndim != 2 or min(x.shape) < 2 or not np.isfinite(x).all():
        raise ValueError(f"a test over seeds needs finite values of two or more units and seeds, got {x.shape}.")
    n, s = x.shape
    v_unit = float(x.mean(axis=1).var(ddof=1)) / n
    v_seed = float(x.mean(axis=0).var(ddof=1)) / s
    v_cell = float(x.var(ddof=1)) / (n * s)
    # Both parts add up to the largest of the three; V_seed − V_cell is what stays when units are many.
    of_seeds = max(0.0, v_seed - v_cell)
    return TwoWay(float(x.mean()), s, n, of_seeds, max(v_unit, min(v_seed, v_cell)))
