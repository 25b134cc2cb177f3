"""
Power of the gates' tests: how likely a good arm is to be seen as good with n units, and how many units would do.

Every function returns a probability. Rates are enumerated or drawn 4000 times from one fixed stream, so the same
question always has the same answer.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np
from scipy.special import gammaln, nctdtr, stdtrit, xlogy

from mmie.statistics import EXACT_UP_TO, ratio_test, rise_table, rise_test

DRAWS = 4000
LADDER = (*range(20, 300, 10), *range(300, 1000, 50), *range(1000, 3000, 250), *range(3000, 10001, 1000))


@lru_cache(maxsize=4096)
def ratio_power(n: int, base: float, arm: float, rho: float, alpha: float) -> float:
    """Power of ``ratio_test`` where base answers 1 at rate ``base`` and the arm, independently, at rate ``arm``."""
    draws = _draws(n, (base * arm, (1 - base) * arm, base * (1 - arm)))
    return float((ratio_test(draws[:, 0], draws[:, 1], draws[:, 2], n, rho) <= alpha).mean())


@lru_cache(maxsize=4096)
def rise_power(n: int, up: float, down: float, delta: float, alpha: float) -> float:
    """Power of ``rise_test`` where a share ``up`` of units turns from 0 to 1 and a share ``down`` from 1 to 0."""
    if n > EXACT_UP_TO:
        draws = _draws(n, (up, down))
        return float((rise_test(draws[:, 0], draws[:, 1], n, delta) <= alpha).mean())
    n10, n01 = np.nonzero(rise_table(n, delta) <= alpha)
    rest = n - n10 - n01
    ways = gammaln(n + 1) - gammaln(n10 + 1) - gammaln(n01 + 1) - gammaln(rest + 1)
    return float(np.exp(ways + xlogy(n10, up) + xlogy(n01, down) + xlogy(rest, 1 - up - down)).sum())


def mean_power(n: int, mean: float, spread: float, alpha: float) -> float:
    """Power of a one-sided t test of H0: mean ≥ 0 at the true ``mean`` and standard deviation ``spread``."""
    return t_power(mean, spread / float(np.sqrt(n)), n - 1, alpha)


def t_power(mean: float, error: float, df: int, alpha: float) -> float:
    """Power of a one-sided t test of H0: mean ≥ 0 at the true ``mean``, with that standard error."""
    if mean >= 0:
        return alpha
    if error <= 0 or mean / error < -30:
        return 1.0
    return float(np.clip(nctdtr(df, mean / error, stdtrit(df, alpha)), 0.0, 1.0))


def units_needed(power: Callable[[int], float], target: float, at_least: int = 0) -> int | None:
    """Smallest number of units on a ladder (20, 30 … 10 000) with that power; None when none of them has it."""
    steps = [n for n in LADDER if n >= at_least]
    if power(steps[-1]) < target:
        return None
    low, high = -1, len(steps) - 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if power(steps[middle]) >= target else (middle, high)
    return steps[high]


def _draws(n: int, rates: tuple[float, ...]) -> np.ndarray:
    """Counts of ``n`` units per class and for the rest, [draw, class]."""
    p = np.clip(rates, 0, 1)
    return np.random.default_rng(0).multinomial(n, [*p, max(0.0, 1 - p.sum())], DRAWS)
