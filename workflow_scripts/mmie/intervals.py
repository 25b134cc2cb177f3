"""95 % intervals: proportions, means, and ratios and differences of paired rates by inversion of their tests."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from scipy.optimize import brentq
from scipy.special import ndtr, ndtri, stdtrit
from statsmodels.stats.proportion import proportion_confint

from mmie.statistics import ratio_score, rise_score

Interval = tuple[float | None, float | None]

LEVEL = 0.95
UNITS_FOR_BCA = 50
UNITS_FOR_JACKKNIFE = 500
DECIMALS = 6
"""Of the bootstrap's interval."""
LARGEST_RATIO = 1e4


def proportion_interval(count: int, n: int, method: str = "wilson") -> tuple[float, float]:
    """Interval of a proportion: ``wilson``, or ``beta`` for Clopper–Pearson (conservative); by statsmodels."""
    if not 0 <= count <= n or n < 1:
        raise ValueError(f"a proportion needs 0 ≤ count ≤ n and n ≥ 1, got {count} of {n}.")
    low, high = proportion_confint(count, n, 1 - LEVEL, method)
    # At 0 and 1 the ends are exact; the arithmetic leaves 1e-17 there.
    return float(np.clip(low, 0, 1)) if count else 0.0, float(np.clip(high, 0, 1)) if count < n else 1.0


@lru_cache(maxsize=4096)
def ratio_interval(n11: int, n10: int, n01: int, n: int) -> Interval:
    """
    Interval of E[u] / E[b] for paired 0/1 answers: every ratio that Nam and Blackwelder's score test does not reject.

    The upper end is None when it is beyond 10 000 (base never answers 1); both are None for a table without a 1.
    """
    if n11 + n10 + n01 == 0:
        return None, None
    width = float(ndtri((1 + LEVEL) / 2))
    estimate = (n11 + n10) / max(n11 + n01, 1e-9)

    def score(ratio: float) -> float:
        return float(ratio_score(n11, n10, n01, n, ratio, 0.0))

    low = (
        0.0
        if n11 + n10 == 0
        else _root(lambda x: score(np.exp(x)) - width, np.log(1e-6), np.log(min(estimate, LARGEST_RATIO)))
    )
    high = None
    if n11 + n01:
        high = _root(lambda x: score(np.exp(x)) + width, np.log(max(estimate, 1e-6)), np.log(LARGEST_RATIO))
    return (float(np.exp(low)) if low else 0.0), (None if high is None else float(np.exp(high)))


@lru_cache(maxsize=4096)
def rise_interval(n10: int, n01: int, n: int) -> tuple[float, float]:
    """Interval of E[u] − E[b] for paired 0/1 answers: Tango's score interval (1998, Stat. Med. 17:891–908)."""
    width = float(ndtri((1 + LEVEL) / 2))
    estimate = (n10 - n01) / n

    def score(delta: float) -> float:
        return float(rise_score(n10, n01, n, delta, 0.0))

    edge = 1 - 1e-9
    low = _root(lambda d: score(d) - width, -edge, min(estimate, edge))
    high = _root(lambda d: score(d) + width, max(estimate, -edge), edge)
    return -1.0 if low is None else low, 1.0 if high is None else high


def mean_interval(values: npt.ArrayLike) -> Interval:
    """
    Interval of a mean: bias-corrected and accelerated bootstrap (Efron 1987) by pingouin; order does not matter.

    Beyond 500 units, where pingouin's n × n jackknife takes most of a gate's time, by the same formula with the
    jackknife of a mean known: the ends are pingouin's. None below 50 units, where it covers too little. All values the
    same: that value twice.
    """
    x = np.sort(np.asarray(values, float))
    if not np.isfinite(x).all():
        raise ValueError("an interval needs finite values, and got missing or infinite ones.")
    if len(x) < UNITS_FOR_BCA:
        return None, None
    if np.ptp(x) <= 1e-12 * max(1.0, float(np.abs(x).max())):
        return float(x[0]), float(x[0])
    if len(x) > UNITS_FOR_JACKKNIFE:
        return _many_units(x)
    from pingouin import compute_bootci  # loads pyplot: only where it is needed

    with warnings.catch_warnings():
        warnings.simplefilter("error")  # scipy warns where it returns NaN
        try:
            low, high = compute_bootci(
                x, func="mean", method="bca", confidence=LEVEL, n_boot=_resamples(len(x)), decimals=DECIMALS, seed=0
            )
        except Warning:
            return None, None
    return (float(low), float(high)) if np.isfinite([low, high]).all() else (None, None)


def normal_interval(estimate: float, error: float, n: int) -> tuple[float, float]:
    """Student's t interval around an estimate with standard error ``error`` over ``n`` units."""
    half = float(stdtrit(n - 1, (1 + LEVEL) / 2)) * error
    return estimate - half, estimate + half


def _many_units(x: npt.NDArray[np.float64]) -> Interval:
    """``mean_interval`` of many values: leaving one out moves a mean by its distance from it, over n − 1."""
    n, mean = len(x), x.mean()
    means = x[_drawn(n)].mean(axis=1)
    below = ((means < mean).mean() + (means <= mean).mean()) / 2
    if not 0 < below < 1:
        return None, None
    distance = x - mean
    acceleration = (distance**3).sum() / (distance**2).sum() ** 1.5 / 6
    bias, width = ndtri(below), ndtri((1 + LEVEL) / 2)
    shifted = bias + np.array([-width, width])
    low, high = np.quantile(means, ndtr(bias + shifted / (1 - acceleration * shifted))).round(DECIMALS)
    return float(low), float(high)


@lru_cache(maxsize=2)
def _drawn(n: int) -> npt.NDArray[np.int64]:
    """Units in each bootstrap resample, [resample, unit], from the stream that pingouin draws with seed 0."""
    return np.random.RandomState(0).randint(0, n, (_resamples(n), n))


def _resamples(n: int) -> int:
    return int(np.clip(200_000 // n, 500, 2000))


def _root(function: Callable[[float], float], low: float, high: float) -> float | None:
    """Where a decreasing function crosses 0 between the ends (Brent's method); None when it does not."""
    first, last = function(low), function(high)
    if first <= 0 or last >= 0:
        return low if first == 0 else high if last == 0 else None
    return float(brentq(function, low, high, xtol=1e-10, rtol=1e-12))
