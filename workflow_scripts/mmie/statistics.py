"""
The tests behind the gates: paired rates, means and areas under the curve, one-sided, against a margin.

Every function takes values of one run paired with base and returns a p-value in (0, 1] for "the margin is reached or
exceeded". No p-value is ever 0; missing values are refused.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt
from scipy.special import bdtr, gammaln, ndtr, stdtr
from scipy.stats import rankdata
from statsmodels.stats.multitest import multipletests

Array = npt.NDArray[np.float64]

SMALLEST_P = 1e-12
EXACT_UP_TO = 300
RESAMPLES = 1999
CORRECTION = 0.25  # of one count


def paired_table(u: npt.ArrayLike, b: npt.ArrayLike) -> tuple[int, int, int, int]:
    """
    Counts (n11, n10, n01, n00) of paired answers, ``u`` first: n10 units answer 1 in the arm and 0 in base.

    Raises ValueError for values other than 0 and 1, for unequal lengths and for no units at all.
    """
    arm, base = np.asarray(u, float), np.asarray(b, float)
    if arm.shape != base.shape or arm.ndim != 1 or not len(arm):
        raise ValueError(f"a rate needs paired values, got {arm.shape} for the arm and {base.shape} for base.")
    if not (np.isin(arm, (0, 1)).all() and np.isin(base, (0, 1)).all()):
        raise ValueError("rates are tested on answers that are 0 or 1: generate one greedy continuation per prompt.")
    both = int((arm * base).sum())
    return both, int(arm.sum()) - both, int(base.sum()) - both, int(((1 - arm) * (1 - base)).sum())


def ratio_test(n11: npt.ArrayLike, n10: npt.ArrayLike, n01: npt.ArrayLike, n: int, rho: float) -> Array:
    """
    P-values for H0: E[u] ≥ rho·E[b] on paired 0/1 answers; the counts may be arrays of tables with ``n`` pairs each.

    The larger of two p-values. One is the score test with the variance at the restricted maximum-likelihood estimate
    (Nam and Blackwelder 2002, Statistics in Medicine 21:689–699) and a quarter of a count as continuity correction:
    score tests stay valid where a table is degenerate (0 of n after, n of n before) and a t test or bootstrap is not.
    The other is the exact binomial test of u's count given base's, which holds when u adds nothing that base lacks.
    The score test alone has size up to .0605 where base always answers 1 (rho .7, n 54: enumerated); the larger of the
    two stays at or below .05 in every setting enumerated, at the same power.
    """
    x11, x10, x01 = (np.asarray(x) for x in (n11, n10, n01))
    z = ratio_score(x11, x10, x01, n, rho, CORRECTION)
    exact = bdtr(x11 + x10, np.maximum(x11 + x01, x11 + x10), rho)
    return np.where(z < 0, np.maximum(_tail(z), _bounded(exact)), 1.0)


def ratio_score(
    n11: npt.ArrayLike, n10: npt.ArrayLike, n01: npt.ArrayLike, n: int, rho: npt.ArrayLike, correction: float
) -> Array:
    """Z-value of E[u] = rho·E[b]: negative below it, 0 for a table without a single 1."""
    x11, x10, x01, r = np.broadcast_arrays(
        np.asarray(n11, float), np.asarray(n10, float), np.asarray(n01, float), np.asarray(rho, float)
    )
    total = x11 + x10 + x01
    share = total / n
    # p10 maximises x11·log(rS − (1+r)y) + x10·log(y) + x01·log((1−r)S + ry): the positive root of Ay² + By + C = 0.
    a = -r * (1 + r) * total
    b = share * (x10 * (2 * r**2 - 1) + x01 * r**2 - x11 * (1 - r**2))
    c = x10 * r * (1 - r) * share**2
    with np.errstate(divide="ignore", invalid="ignore"):
        y = (-b - np.sqrt(np.maximum(b * b - 4 * a * c, 0))) / (2 * a)
    variance = n * r * ((1 + r) * y + (1 - r) * share)
    return np.where(total == 0, 0.0, _z(x11 + x10 - r * (x11 + x01) + correction, variance))


def rise_test(n10: npt.ArrayLike, n01: npt.ArrayLike, n: int, delta: float) -> Array:
    """
    P-values for H0: E[u] − E[b] ≥ delta on paired 0/1 answers; the counts may be arrays of tables of ``n`` pairs.

    Up to 300 pairs exact and unconditional: the largest probability, over the nuisance parameter, of a table at least
    as far below the margin, in the order of Tango's score (1998, Stat. Med. 17:891–908; Chan and Zhang 1999).
    Beyond, Tango's score with a continuity correction of a quarter of a count. An exact p may rise a little with the
    margin where it is above .05, because the order of the tables changes.
    """
    if n <= EXACT_UP_TO:
        return rise_table(n, delta)[np.asarray(n10, int), np.asarray(n01, int)]
    return _tail(rise_score(n10, n01, n, delta, CORRECTION))


def rise_score(n10: npt.ArrayLike, n01: npt.ArrayLike, n: int, delta: npt.ArrayLike, correction: float) -> Array:
    """Tango's z-value of E[u] − E[b] = delta, −1 < delta < 1: negative below it."""
    x10, x01, d = np.broadcast_arrays(np.asarray(n10, float), np.asarray(n01, float), np.asarray(delta, float))
    b = (2 * n - x10 + x01) * d - x10 - x01
    q01 = (np.sqrt(np.maximum(b * b + 8 * n * x01 * d * (1 - d), 0)) - b) / (4 * n)
    variance = n * (2 * q01 + d * (1 - d))
    return _z(x10 - x01 - n * d + correction, variance)


@lru_cache(maxsize=64)
def rise_table(n: int, delta: float) -> Array:
    """Exact p-values of ``rise_test`` for every table of ``n`` pairs, at [n10, n01]; 1 where n10 + n01 > n."""
    up, down = (axis.ravel() for axis in np.indices((n + 1, n + 1)))
    keep = up + down <= n
    up, down = up[keep], down[keep]
    # Rounded, so that tables tied in theory are tied here.
    z = rise_score(up, down, n, delta, 0.0).round(9)
    order = np.argsort(z, kind="stable")
    up, down, z = up[order], down[order], z[order]
    last_of_tie = np.searchsorted(z, z, "right") - 1
    rest = n - up - down
    ways = gammaln(n + 1) - gammaln(up + 1) - gammaln(down + 1) - gammaln(rest + 1)
    p = np.zeros(len(z))
    for q in _nuisance(delta):
        # 1e-300 stands for 0: to the power of any count but 0, it is a probability of 0 beside all others.
        log_up, log_down, log_rest = np.log(np.maximum([q + delta, q, 1 - delta - 2 * q], 1e-300))
        total = np.cumsum(np.exp(ways + up * log_up + down * log_down + rest * log_rest))
        np.maximum(p, total[last_of_tie], out=p)
    table = np.ones((n + 1, n + 1))
    table[up, down] = np.clip(p, SMALLEST_P, 1.0)
    table.setflags(write=False)
    return table


def mean_test(values: npt.ArrayLike) -> float:
    """
    P-value for H0: mean ≥ 0 from one value per unit, [unit].

    The larger of Student's t and the studentised bootstrap (Hall 1988, Annals of Statistics 16:927–953): each alone is
    too sure under skew in one direction. No test of an unbounded mean is valid for every distribution; use 150 units.
    The same values in any order give the same p.
    """
    x = np.sort(_finite(values))
    n, mean = len(x), float(x.mean())
    if n < 2:
        return 1.0
    resamples = resample_counts(n)
    floor = 1 / (len(resamples) + 1)
    spread = x.std(ddof=1)
    if spread <= 1e-12 * max(1.0, abs(mean)):
        return floor if mean < 0 else 1.0
    statistic = mean * np.sqrt(n) / spread
    centred = x - mean
    powers = np.column_stack([centred, centred**2])
    # A hundred resamples at a time: BLAS would copy the whole matrix for two columns.
    sums = [resamples[start : start + 100] @ powers for start in range(0, len(resamples), 100)]
    means, squares = np.concatenate(sums).T / n
    spreads = np.sqrt(np.maximum(squares - means**2, 0) * n / (n - 1))
    with np.errstate(divide="ignore", invalid="ignore"):
        bootstrap = np.where(spreads > 1e-6 * spread, means * np.sqrt(n) / spreads, -np.inf)
    exceeding = int((bootstrap <= statistic + 1e-12).sum())
    return float(max(stdtr(n - 1, statistic), (exceeding + 1) / (len(resamples) + 1)))


@lru_cache(maxsize=4)
def resample_counts(n: int) -> Array:
    """How often each of ``n`` units is in each bootstrap resample, [resample, unit]; the same for all tests."""
    rows = int(np.clip(4_000_000 // n, 999, RESAMPLES))
    drawn = np.random.default_rng(0).integers(0, n, (rows, n))
    drawn += n * np.arange(rows)[:, None]
    counts = np.bincount(drawn.ravel(), minlength=rows * n).reshape(rows, n).astype(float)
    counts.setflags(write=False)
    return counts


def auc_test(
    u: tuple[npt.ArrayLike, npt.ArrayLike], b: tuple[npt.ArrayLike, npt.ArrayLike], delta: float
) -> tuple[float, float, float, float]:
    """
    Test H0: AUC(u) − AUC(b) ≥ delta on scores of the same texts; returns p, AUC(u), AUC(b), standard error.

    ``u`` and ``b`` as for ``auc_contrast``; Student's t on its values.
    """
    values, auc_u, auc_b = auc_contrast(u, b, delta)
    p, error = t_test(values)
    return p, auc_u, auc_b, error


def t_test(values: Array) -> tuple[float, float]:
    """P-value for H0: mean ≥ 0 by Student's t, and the mean's standard error; the values must differ."""
    n = len(values)
    error = float(values.std(ddof=1) / np.sqrt(n))
    return float(np.clip(stdtr(n - 1, values.mean() / error), SMALLEST_P, 1)), error


def auc_contrast(
    u: tuple[npt.ArrayLike, npt.ArrayLike], b: tuple[npt.ArrayLike, npt.ArrayLike], delta: float
) -> tuple[Array, float, float]:
    """
    AUC(u) − AUC(b) − delta as the mean of one value per group and two more, [group + 2]; AUC(u); AUC(b).

    ``u`` and ``b`` are (scores of the positive texts, scores of the negative texts), one of each per group, [group] in
    the same order. DeLong's placements (1988, Biometrics 44:837–845), summed within groups, since the two texts of a
    group have one meaning (Obuchowski 1997, Biometrics 53:567–578). The two more, at mean + 1 and mean − 1, make the
    variance larger: without them the size is .06 to .09 near an AUC of 1, and a run equal to base has variance 0.
    """
    (auc_u, placed_u), (auc_b, placed_b) = _placements(*u), _placements(*b)
    if len(placed_u) != len(placed_b):
        raise ValueError(f"an AUC test needs the same groups twice, got {len(placed_u)} and {len(placed_b)}.")
    difference = placed_u - placed_b
    return np.r_[difference - difference.mean(), 1.0, -1.0] + (auc_u - auc_b - delta), auc_u, auc_b


def _placements(positive: npt.ArrayLike, negative: npt.ArrayLike) -> tuple[float, Array]:
    """AUC; and per group, share of negatives below its positive + share of positives above its negative."""
    high, low = _finite(positive), _finite(negative)
    if len(high) != len(low) or len(high) < 2:
        raise ValueError(f"an AUC needs one positive and one negative text per group, got {len(high)} and {len(low)}.")
    n = len(high)
    ranks = rankdata(np.r_[high, low])
    below = (ranks[:n] - rankdata(high)) / n
    above = 1 - (ranks[n:] - rankdata(low)) / n
    return float(below.mean()), below + above


def adjust(p: npt.ArrayLike, method: str = "fdr_bh") -> Array:
    """
    Adjusted p-values by statsmodels: ``fdr_bh`` (Benjamini–Hochberg), ``fdr_by`` (Benjamini–Yekutieli) or ``holm``.

    Raises ValueError for p-values that are missing or outside (0, 1].
    """
    values = _finite(p)
    if not len(values):
        return values
    if not ((values > 0) & (values <= 1)).all():
        raise ValueError(f"p-values must lie in (0, 1], got {values.tolist()}.")
    return np.asarray(multipletests(values, method=method)[1], float)


def _finite(values: npt.ArrayLike) -> Array:
    array = np.asarray(values, float)
    if array.ndim != 1 or not len(array) or not np.isfinite(array).all():
        raise ValueError("a test needs one finite value per unit, and got missing, infinite or no values.")
    return array


def _z(distance: Array, variance: Array) -> Array:
    """Distance in standard errors; a large number stands for infinity where the variance is 0."""
    error = np.sqrt(np.maximum(np.nan_to_num(variance), 0))
    return np.clip(distance / np.maximum(error, 1e-9), -1e6, 1e6)


def _tail(z: Array) -> Array:
    return _bounded(ndtr(z))


def _bounded(p: Array) -> Array:
    """No p-value is 0: none is known to be smaller than the arithmetic is exact."""
    return np.asarray(np.clip(p, SMALLEST_P, 1.0))


def _nuisance(delta: float) -> Array:
    """Values of P(u = 0, b = 1) where E[u] − E[b] = delta, so dense that a finer grid finds no size above .05."""
    largest = (1 - delta) / 2
    return np.r_[0.0, np.geomspace(1e-5, 0.1, 60), np.linspace(0.1, largest, 140)[1:]]
