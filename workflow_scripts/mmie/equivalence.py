"""
Membership attacks as a statistical test: is an attack's area under the curve (AUC) shown to be near one half?

An AUC below one half gives members away as surely as one above, so the test is two-sided: two one-sided tests, TOST
(Schuirmann 1987, J. Pharmacokinet. Biopharm. 15:657–680).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import starmap

import numpy as np
import numpy.typing as npt
from scipy.special import stdtr, stdtrit
from scipy.stats import rankdata

from mmie.statistics import SMALLEST_P

Array = npt.NDArray[np.float64]
Stratum = tuple[npt.ArrayLike, npt.ArrayLike]
"""Scores of members and of non-members; larger says member."""

LEVEL = 0.95


@dataclass(frozen=True)
class Area:
    """AUC averaged over strata, with its standard error and degrees of freedom."""

    auc: float
    error: float
    df: float
    strata: tuple[float, ...]
    """AUC of each stratum."""

    @property
    def interval(self) -> tuple[float, float]:
        """95 % interval, Student's t, within [0, 1]."""
        half = float(stdtrit(self.df, (1 + LEVEL) / 2)) * self.error
        return max(0.0, self.auc - half), min(1.0, self.auc + half)

    def p(self, margin: float) -> float:
        """P-value for H0: |AUC − 0.5| ≥ margin: the larger of the two one-sided ones."""
        return float(np.clip(stdtr(self.df, (abs(self.auc - 0.5) - margin) / self.error), SMALLEST_P, 1.0))


def area(strata: Sequence[Stratum]) -> Area:
    """
    AUC of a score, the mean over ``strata``: a member is compared with non-members of its own stratum alone.

    DeLong's variance (1988, Biometrics 44:837–845) with Satterthwaite's degrees of freedom. Two more placements, 0 and
    1, enter each side's variance: without them it is 0 where a score separates perfectly. Raises ValueError for fewer
    than two members or non-members in a stratum, or scores that are not finite.
    """
    parts = list(starmap(_placed, strata))
    if not parts:
        raise ValueError("an AUC needs at least one stratum of members and non-members.")
    variances = [side for _, sides in parts for side in sides]
    terms = np.array([variance / len(parts) ** 2 for variance, _ in variances])
    freedom = np.array([df for _, df in variances])
    aucs = tuple(auc for auc, _ in parts)
    df = float(terms.sum() ** 2 / (terms**2 / freedom).sum())
    return Area(float(np.mean(aucs)), float(np.sqrt(terms.sum())), df, aucs)


def equivalence_power(members: int, nonmembers: float, strata: int, margin: float, alpha: float) -> float:
    """
    Power of the test where members and non-members do not differ, with so many of each over all strata.

    There the AUC's variance is (m + n + 1) / 12mn in a stratum of m and n (Mann and Whitney 1947); normal
    approximation.
    """
    m, n = members / strata, nonmembers / strata
    if m < 2 or n < 2:
        return 0.0
    error = np.sqrt((m + n + 1) / (12 * m * n) / strata)
    df = members - strata
    return float(max(0.0, 2 * stdtr(df, margin / error - stdtrit(df, 1 - alpha)) - 1))


def true_positives(strata: Sequence[Stratum], rate: float = 0.01) -> tuple[int, int]:
    """
    Members that score above all but a share ``rate`` of the non-members of their stratum; and members in all.

    The threshold is a sample quantile: an interval of this rate alone leaves the threshold's own error out.
    """
    found = total = 0
    for members, nonmembers in strata:
        high, low = np.asarray(members, float), np.sort(np.asarray(nonmembers, float))[::-1]
        found += int((high > low[min(int(rate * len(low)), len(low) - 1)]).sum())
        total += len(high)
    return found, total


def _placed(members: npt.ArrayLike, nonmembers: npt.ArrayLike) -> tuple[float, list[tuple[float, int]]]:
    """AUC of one stratum; variance and degrees of freedom from its members and from its non-members."""
    high, low = np.asarray(members, float), np.asarray(nonmembers, float)
    if min(len(high), len(low)) < 2 or not np.isfinite(np.r_[high, low]).all():
        raise ValueError(
            f"an AUC needs finite scores of two or more members and non-members, got {len(high)} and {len(low)}."
        )
    ranks = rankdata(np.r_[high, low])
    below = (ranks[: len(high)] - rankdata(high)) / len(low)
    above = 1 - (ranks[len(high) :] - rankdata(low)) / len(high)
    return float(below.mean()), [_variance(below), _variance(above)]


def _variance(placements: Array) -> tuple[float, int]:
    n = len(placements)
    squares = float(((placements - placements.mean()) ** 2).sum()) + 0.5
    return squares / (n + 1) / (n + 2), n + 1
