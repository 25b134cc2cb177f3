"""
The tests of means and areas over many simulated experiments at once, axis 0: the same formulas as the library's.

`test_vectorised.py` holds the two together, experiment by experiment.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.special import stdtr

from mmie.simulation import Moments
from mmie.statistics import SMALLEST_P, resample_counts

Array = np.ndarray
CHUNK = 500


def mean_tests(values: Array) -> Array:
    """``statistics.mean_test`` of every row of [sim, unit]; rows that are constant are not expected."""
    return np.concatenate([_mean_tests(values[i : i + CHUNK]) for i in range(0, len(values), CHUNK)])


def _mean_tests(values: Array) -> Array:
    x = np.sort(values, axis=1)
    n = x.shape[1]
    mean, spread = x.mean(axis=1), x.std(axis=1, ddof=1)
    statistic = mean * np.sqrt(n) / spread
    resamples = resample_counts(n).T
    centred = x - mean[:, None]
    means, squares = centred @ resamples / n, centred**2 @ resamples / n
    spreads = np.sqrt(np.maximum(squares - means**2, 0) * n / (n - 1))
    with np.errstate(divide="ignore", invalid="ignore"):
        bootstrap = np.where(spreads > 1e-6 * spread[:, None], means * np.sqrt(n) / spreads, -np.inf)
    exceeding = (bootstrap <= statistic[:, None] + 1e-12).sum(axis=1)
    return np.maximum(stdtr(n - 1, statistic), (exceeding + 1) / (resamples.shape[1] + 1))


def auc_tests(u: tuple[Array, Array], b: tuple[Array, Array], delta: float) -> Array:
    """P-values of ``statistics.auc_test``; scores [sim, group] of positive and of negative texts, without ties."""
    return Moments.of(auc_contrasts(u, b, delta)[:, :, None]).t_tests[:, 0]


def auc_contrasts(u: tuple[Array, Array], b: tuple[Array, Array], delta: float) -> Array:
    """``statistics.auc_contrast``, [sim, group + 2]: AUC(u) − AUC(b) − delta as the mean of these values."""
    (auc_u, placed_u), (auc_b, placed_b) = _summed(*u), _summed(*b)
    difference = placed_u - placed_b
    centred = difference - difference.mean(axis=1, keepdims=True)
    more = np.ones((len(centred), 1))
    return np.concatenate([centred, more, -more], axis=1) + (auc_u - auc_b - delta)[:, None]


def area_tests(strata: Sequence[tuple[Array, Array]], margin: float) -> Array:
    """P-values of ``equivalence.area(strata).p(margin)``; scores [sim, member] and [sim, non-member], without ties."""
    aucs, terms, freedom = [], [], []
    for members, others in strata:
        below, above = placements(members, others)
        aucs.append(below.mean(axis=1))
        for side in (below, above):
            n = side.shape[1]
            squares = ((side - side.mean(axis=1, keepdims=True)) ** 2).sum(axis=1) + 0.5
            terms.append(squares / (n + 1) / (n + 2) / len(strata) ** 2)
            freedom.append(n + 1)
    term, auc = np.stack(terms), np.mean(aucs, axis=0)
    df = term.sum(axis=0) ** 2 / (term**2 / np.array(freedom)[:, None]).sum(axis=0)
    return np.clip(stdtr(df, (np.abs(auc - 0.5) - margin) / np.sqrt(term.sum(axis=0))), SMALLEST_P, 1)


def placements(high: Array, low: Array) -> tuple[Array, Array]:
    """Share of ``low`` below each of ``high``, and share of ``high`` above each of ``low``, row by row."""
    m, k = high.shape[1], low.shape[1]
    order = np.argsort(np.concatenate([high, low], axis=1), axis=1)
    is_low = order >= m
    lows = np.cumsum(is_low, axis=1)
    placed = np.empty(order.shape)
    highs = np.arange(1, m + k + 1) - lows
    np.put_along_axis(placed, order, np.where(is_low, 1 - highs / m, lows / k), axis=1)
    return placed[:, :m], placed[:, m:]


def _summed(high: Array, low: Array) -> tuple[Array, Array]:
    below, above = placements(high, low)
    return below.mean(axis=1), below + above
