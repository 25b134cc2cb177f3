"""
Exact rejection rates of tests on paired 0/1 answers, for one seed and for several that share base's answers.

Given base's number of ones, the arm's answers of different seeds are independent: a sum over that number is exact.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.stats import binom

from mmie.simulation import Pair

TestOfCounts = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
"""P-values from counts (n11, n10, n01) of ``n`` pairs."""

NEGLIGIBLE = 1e-10
"""Probability left out at each end of a count, so that sums run over what can happen."""


def rejection(test: TestOfCounts, pair: Pair, n: int, alpha: float, base: np.ndarray) -> np.ndarray:
    """Probability that one seed rejects, given each of base's counts of ones ``base``."""
    found = []
    for ones in base:
        n11, n10 = _support(int(ones), pair.stay), _support(n - int(ones), pair.up)
        rejected = test(n11[:, None], n10[None], ones - n11[:, None]) <= alpha
        found.append(binom.pmf(n11, ones, pair.stay) @ rejected @ binom.pmf(n10, n - ones, pair.up))
    return np.array(found)


def size(test: TestOfCounts, pair: Pair, n: int, alpha: float = 0.05, seeds: int = 1) -> float:
    """Probability that ``seeds`` runs all reject."""
    base = _support(n, pair.base)
    return float(binom.pmf(base, n, pair.base) @ rejection(test, pair, n, alpha, base) ** seeds)


def size_beside(test: TestOfCounts, pair: Pair, others: Pair, n: int, alpha: float, seeds: int) -> float:
    """Probability that one run like ``pair`` and ``seeds`` − 1 like ``others`` all reject."""
    base = _support(n, pair.base)
    rest = rejection(test, others, n, alpha, base) ** (seeds - 1)
    return float(binom.pmf(base, n, pair.base) @ (rejection(test, pair, n, alpha, base) * rest))


def _support(n: int, p: float) -> np.ndarray:
    low, high = binom.ppf([NEGLIGIBLE, 1 - NEGLIGIBLE], n, p)
    return np.arange(max(0, int(low)), int(high) + 1)
