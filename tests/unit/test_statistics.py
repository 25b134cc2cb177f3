"""The gates' tests against known answers, exact enumeration and their own invariants."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import gammaln, xlogy
from scipy.stats import binom, norm

from mmie import intervals, power
from mmie.statistics import adjust, auc_test, mean_test, paired_table, ratio_test, rise_score, rise_table, rise_test

FAST = settings(max_examples=60, deadline=None)
TABLES = st.lists(st.integers(0, 40), min_size=4, max_size=4).filter(lambda cells: sum(cells) > 1)


def enumerated(n):
    """All (n11, n10, n01) with n pairs, and the log of the ways to get each."""
    x11, x10, x01 = (axis.ravel() for axis in np.indices((n + 1,) * 3))
    keep = x11 + x10 + x01 <= n
    x11, x10, x01 = x11[keep], x10[keep], x01[keep]
    rest = n - x11 - x10 - x01
    ways = gammaln(n + 1) - sum(gammaln(x + 1) for x in (x11, x10, x01, rest))
    return x11, x10, x01, rest, ways


def ratio_size(n, rho, base_rates, shares):
    x11, x10, x01, rest, ways = enumerated(n)
    rejected = ratio_test(x11, x10, x01, n, rho) <= 0.05
    x11, x10, x01, rest, ways = (x[rejected] for x in (x11, x10, x01, rest, ways))
    sizes = []
    for base in base_rates:
        for share in shares:
            p10 = share * min(rho * base, 1 - base)
            p11 = rho * base - p10
            p01 = base - p11
            p00 = max(0.0, 1 - p11 - p10 - p01)
            log = ways + xlogy(x11, p11) + xlogy(x10, p10) + xlogy(x01, p01) + xlogy(rest, p00)
            sizes.append(np.exp(log).sum())
    return max(sizes)


@pytest.mark.parametrize(("n", "rho"), [(20, 0.5), (54, 0.7), (60, 0.5), (60, 0.1), (80, 0.7)])
def test_ratio_test_keeps_its_size(n, rho):
    """Type-I error by exact enumeration, also where base always answers 1 and the score alone errs in up to 6.05 %."""
    size = ratio_size(n, rho, (0.2, 0.5, 0.8, 0.95, 0.99, 1.0), (0.0, 0.2, 1.0))
    assert size <= 0.05


def test_ratio_reference():
    """p-values of the reviewed reference implementation of the score test; the binomial's may only raise them."""
    for table, n, rho, p in (
        ((20, 4, 36), 80, 0.5, 0.19361893519),
        ((10, 6, 30), 60, 0.5, 0.18397290040),
        ((30, 5, 25), 80, 0.7, 0.23272216957),
        ((15, 0, 39), 54, 0.7, 1.1643697e-6),
    ):
        assert ratio_test(*table, n, rho) == pytest.approx(p, rel=1e-6)
    assert ratio_test(20, 0, 40, 60, 0.5) == pytest.approx(binom.cdf(20, 60, 0.5))  # the score alone: 0.00591
    assert ratio_size(60, 0.5, (1.0,), (1.0,)) == pytest.approx(0.046, abs=0.0005)
    assert ratio_test(57, 0, 0, 60, 0.5) == 1.0
    assert ratio_test(0, 0, 0, 60, 0.5) == 1.0


def test_rise_reference():
    """The figures that the specification states for the exact test."""
    assert rise_table(60, 0.05)[0, 0] == pytest.approx(0.95**60, rel=1e-6)
    assert rise_table(60, 0.05)[0, 0] == pytest.approx(0.046, abs=0.0005)
    for n, stated in ((60, 0.59), (150, 0.93), (200, 0.99)):
        assert power.rise_power(n, 0.01, 0.01, 0.05, 0.05) == pytest.approx(stated, abs=0.006)


@pytest.mark.parametrize(("n", "delta"), [(20, 0.1), (60, 0.05), (60, 0.1), (150, 0.05), (300, 0.02)])
def test_exact_rise_test_keeps_its_size(n, delta):
    """On a grid of nuisance values much finer than the test's own."""
    up, down = np.nonzero(rise_table(n, delta) <= 0.05)
    rest = n - up - down
    ways = gammaln(n + 1) - gammaln(up + 1) - gammaln(down + 1) - gammaln(rest + 1)
    for q in np.r_[0, np.geomspace(1e-6, 0.1, 90), np.linspace(0.1, (1 - delta) / 2, 211)]:
        size = np.exp(ways + xlogy(up, q + delta) + xlogy(down, q) + xlogy(rest, max(0.0, 1 - delta - 2 * q))).sum()
        assert size <= 0.05, q


@pytest.mark.parametrize("n", [301, 600])
def test_corrected_rise_test_keeps_its_size(n):
    up, down = (axis.ravel() for axis in np.indices((n // 2, n // 2)))
    rejected = rise_test(up, down, n, 0.05) <= 0.05
    up, down = up[rejected], down[rejected]
    rest = n - up - down
    ways = gammaln(n + 1) - gammaln(up + 1) - gammaln(down + 1) - gammaln(rest + 1)
    for q in (0, 0.001, 0.01, 0.05, 0.1):
        size = np.exp(ways + xlogy(up, q + 0.05) + xlogy(down, q) + xlogy(rest, 0.95 - 2 * q)).sum()
        assert size <= 0.0505, q


def test_exact_rejection_is_nested_in_the_margin():
    """What is rejected at one margin is rejected at every larger one."""
    tables = [rise_table(60, delta) <= 0.05 for delta in (0.02, 0.03, 0.05, 0.08, 0.1, 0.15, 0.2)]
    assert all((larger | ~smaller).all() for smaller, larger in itertools.pairwise(tables))


@FAST
@given(TABLES, st.floats(0.05, 0.95), st.floats(0.05, 0.95))
def test_ratio_p_is_a_probability_and_monotone(cells, one, other):
    n11, n10, n01, _n00 = cells
    n = sum(cells)
    low, high = sorted((one, other))
    p_low, p_high = (float(ratio_test(n11, n10, n01, n, rho)) for rho in (low, high))
    assert 0 < p_high <= p_low + 1e-9 <= 1 + 1e-9


@FAST
@given(TABLES, st.floats(0.01, 0.9), st.floats(0.01, 0.9))
def test_rise_p_is_a_probability_and_its_score_monotone(cells, one, other):
    _, n10, n01, _ = cells
    n = sum(cells)
    low, high = sorted((one, other))
    assert 0 < float(rise_test(n10, n01, n, 0.05)) <= 1
    z_low, z_high = (float(rise_score(n10, n01, n, delta, 0.0)) for delta in (low, high))
    assert z_high <= max(z_low, 0) + 1e-9


@FAST
@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=50), st.randoms())
def test_tables_do_not_depend_on_row_order(pairs, rnd):
    mixed = pairs.copy()
    rnd.shuffle(mixed)
    assert paired_table(*zip(*pairs, strict=True)) == paired_table(*zip(*mixed, strict=True))


@FAST
@given(st.lists(st.floats(-5, 5), min_size=3, max_size=60), st.floats(0, 2), st.randoms())
def test_mean_p_is_a_probability_monotone_and_orderless(values, shift, rnd):
    p = mean_test(values)
    assert 0 < p <= 1
    assert mean_test(np.array(values) - shift) <= p + 1e-9
    mixed = values.copy()
    rnd.shuffle(mixed)
    assert mean_test(mixed) == p


@FAST
@given(st.integers(5, 40), st.integers(0, 10**6), st.floats(0.01, 0.3), st.floats(0.01, 0.3))
def test_auc_p_is_a_probability_monotone_and_orderless(n, seed, one, other):
    rng = np.random.default_rng(seed)
    scores = rng.normal(size=(4, n)).round(1)  # rounded, to have ties
    low, high = sorted((one, other))
    p_low, p_high = (auc_test((scores[0], scores[1]), (scores[2], scores[3]), d)[0] for d in (low, high))
    assert 0 < p_high <= p_low <= 1
    order = rng.permutation(n)
    mixed = scores[:, order]
    assert auc_test((mixed[0], mixed[1]), (mixed[2], mixed[3]), low)[0] == pytest.approx(p_low, rel=1e-9)


@pytest.mark.parametrize("bad", [[0.0, np.nan], [0.0, np.inf], []])
def test_missing_values_are_refused(bad):
    with pytest.raises(ValueError, match="missing"):
        mean_test(bad)
    with pytest.raises(ValueError, match="missing"):
        adjust(bad) if len(bad) else mean_test(bad)
    with pytest.raises(ValueError):
        paired_table(bad, bad)


def test_rates_of_several_samples_are_refused():
    with pytest.raises(ValueError, match="greedy"):
        paired_table([0.5, 1], [0, 1])


def test_mean_test_keeps_its_size_under_skew():
    """Shifted exponentials, as hurt documents are: at 150 units within .06, where the t test alone is not."""
    rng = np.random.default_rng(1)
    draws = 1 - rng.exponential(size=(1000, 150))  # left-skewed: the harmless side
    assert np.mean([mean_test(x) <= 0.05 for x in draws]) < 0.06
    right = rng.exponential(size=(1000, 150)) - 1
    assert np.mean([mean_test(x) <= 0.05 for x in right]) < 0.075


def test_mean_test_knows_constants():
    assert mean_test(np.full(60, -1.0)) == pytest.approx(1 / 2000)
    assert mean_test(np.full(60, 1.0)) == 1.0


def auc_size(n, auc_b, correlation, draws=1000):
    rng = np.random.default_rng(2)
    base, arm = (norm.ppf(auc) * np.sqrt(2) for auc in (auc_b, auc_b + 0.1))
    rejected = 0
    for _ in range(draws):
        b = rng.normal(size=(2, n))
        u = correlation * b + np.sqrt(1 - correlation**2) * rng.normal(size=(2, n))
        rejected += auc_test((u[0] + arm, u[1]), (b[0] + base, b[1]), 0.1)[0] <= 0.05
    return rejected / draws


@pytest.mark.parametrize("auc", [0.55, 0.89])
def test_auc_test_keeps_its_size(auc):
    """Also near an AUC of 1, where DeLong's normal test errs in 8 to 9 % of cases at 60 groups."""
    for correlation in (0.3, 0.9):
        assert auc_size(60, auc, correlation) <= 0.06


def test_auc_is_that_of_scikit_learn():
    from sklearn.metrics import roc_auc_score

    rng = np.random.default_rng(0)
    high, low = rng.normal(1, 1, 50).round(1), rng.normal(0, 1, 50).round(1)
    _, auc, _, _ = auc_test((high, low), (low, high), 0.1)
    assert auc == pytest.approx(roc_auc_score(np.repeat([1, 0], 50), np.r_[high, low]))


def test_adjusted_p_values():
    p = [0.01, 0.02, 0.03, 0.5]
    assert adjust(p) == pytest.approx([0.04, 0.04, 0.04, 0.5])
    assert (adjust(p, "fdr_by") >= adjust(p)).all()
    assert adjust(p, "holm") == pytest.approx([0.04, 0.06, 0.06, 0.5])


def test_bh_rejects_all_exactly_when_the_largest_does():
    rng = np.random.default_rng(0)
    for _ in range(200):
        p = rng.uniform(1e-6, 0.1, 6)
        assert (adjust(p) <= 0.05).all() == (p.max() <= 0.05)


def test_intervals_of_degenerate_tables():
    """0 of 60 after, 60 of 60 before: an upper end away from 0, as a bootstrap would not have."""
    low, high = intervals.ratio_interval(0, 0, 60, 60)
    assert low == 0 and 0.05 < high < 0.08
    assert intervals.ratio_interval(0, 3, 0, 60)[1] is None
    assert intervals.ratio_interval(0, 0, 0, 60) == (None, None)
    low, high = intervals.rise_interval(0, 0, 60)
    assert low == pytest.approx(-0.06, abs=0.001) and high == pytest.approx(0.06, abs=0.001)


@FAST
@given(TABLES)
def test_intervals_hold_their_estimates(cells):
    n11, n10, n01, _ = cells
    n = sum(cells)
    low, high = intervals.rise_interval(n10, n01, n)
    assert -1 <= low <= (n10 - n01) / n + 1e-9 and (n10 - n01) / n <= high + 1e-9 and high <= 1
    if n11 + n01:
        low, high = intervals.ratio_interval(n11, n10, n01, n)
        assert low - 1e-9 <= (n11 + n10) / (n11 + n01) <= (np.inf if high is None else high + 1e-9)


def test_proportion_intervals():
    assert intervals.proportion_interval(0, 60)[1] == pytest.approx(0.0602, abs=0.0002)
    assert intervals.proportion_interval(0, 60, "beta")[1] == pytest.approx(1 - 0.025 ** (1 / 60), abs=1e-6)
    with pytest.raises(ValueError, match="proportion"):
        intervals.proportion_interval(3, 2)


def test_mean_interval_is_guarded():
    rng = np.random.default_rng(0)
    assert intervals.mean_interval(rng.normal(size=49)) == (None, None)
    assert intervals.mean_interval(np.full(60, 0.3)) == (0.3, 0.3)
    x = rng.normal(1, 2, 200)
    low, high = intervals.mean_interval(x)
    assert (low, high) == intervals.mean_interval(rng.permutation(x))
    assert low == pytest.approx(x.mean() - 1.96 * 2 / np.sqrt(200), abs=0.06)
    assert high == pytest.approx(x.mean() + 1.96 * 2 / np.sqrt(200), abs=0.06)


@pytest.mark.parametrize("n", [60, 501, 2000])
def test_many_units_have_the_interval_of_pingouin(n, monkeypatch):
    rng = np.random.default_rng(n)
    for x in (rng.normal(0.1, 1, n), rng.lognormal(0, 1.5, n), 100 * rng.standard_t(2, n), (rng.random(n) < 0.1) * 1.0):
        monkeypatch.setattr(intervals, "UNITS_FOR_JACKKNIFE", n)
        expected = intervals.mean_interval(x)
        monkeypatch.setattr(intervals, "UNITS_FOR_JACKKNIFE", n - 1)
        assert intervals.mean_interval(x) == pytest.approx(expected, abs=1.5e-6)


def test_power_of_the_mean_test_is_that_of_simulation():
    rng = np.random.default_rng(3)
    seen = np.mean([mean_test(x) <= 0.05 for x in rng.normal(-0.25, 1, (800, 100))])
    assert power.mean_power(100, -0.25, 1.0, 0.05) == pytest.approx(seen, abs=0.05)
    assert power.mean_power(100, 0.1, 1.0, 0.05) == 0.05


def test_needed_units_have_the_power_asked_for():
    def leak(n):
        return power.rise_power(n, 0.01, 0.01, 0.05, 0.05)

    n = power.units_needed(leak, 0.8)
    assert leak(n) >= 0.8 > leak(n - 20)
    assert power.units_needed(lambda n: 0.5, 0.8) is None
    assert power.units_needed(lambda n: 1.0, 0.8, at_least=150) == 150
