"""Membership attacks: the AUC's test keeps its size on both boundaries, and means what scikit-learn's AUC means."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm
from sklearn.metrics import roc_auc_score

from mmie.equivalence import area, equivalence_power, true_positives

FAST = settings(max_examples=40, deadline=None)


def drawn(rng, m, n, aucs, spread=1.0):
    """Strata with these true AUCs; members' scores spread ``spread`` times as far as non-members'."""
    shifts = norm.ppf(aucs) * np.sqrt(1 + spread**2)
    return [(rng.normal(shift, spread, m), rng.normal(size=n)) for shift in shifts]


def rejected(m, n, aucs, spread, draws=500, margin=0.1):
    rng = np.random.default_rng(0)
    return np.mean([area(drawn(rng, m, n, aucs, spread)).p(margin) <= 0.05 for _ in range(draws)])


@pytest.mark.parametrize("aucs", [(0.6, 0.6), (0.4, 0.4), (0.65, 0.55)])
@pytest.mark.parametrize(("m", "n"), [(10, 30), (100, 300)])
def test_size_on_the_boundary(aucs, m, n):
    """True .05 is exceeded by 3 standard errors of 500 draws in none of the cases; few canaries are conservative."""
    for spread in (0.2, 3.0):
        assert rejected(m, n, aucs, spread) <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 500)


def test_size_where_a_few_members_give_everything_away():
    """A fifth of the members above all others and the rest like them: AUC .6, as far from normal as scores get."""
    rng, hits = np.random.default_rng(1), 0
    for _ in range(500):
        strata = [(rng.normal(size=100) + 10 * (rng.random(100) < 0.2), rng.normal(size=300)) for _ in range(2)]
        hits += area(strata).p(0.1) <= 0.05
    assert hits / 800 <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 500)


def test_auc_is_the_mean_of_scikit_learns_within_strata():
    """Scripts on different levels: pooled, the levels would pass for membership."""
    rng = np.random.default_rng(0)
    strata = [
        (rng.normal(0.5, 1, 40).round(1), rng.normal(0, 1, 90).round(1)),
        (rng.normal(9, 1, 30), rng.normal(9, 1, 60)),
    ]
    each = [roc_auc_score(np.r_[np.ones(len(a)), np.zeros(len(b))], np.r_[a, b]) for a, b in strata]
    found = area(strata)
    assert found.strata == pytest.approx(each) and found.auc == pytest.approx(np.mean(each))


def test_perfect_separation_has_an_error():
    found = area([(np.full(20, 1.0), np.zeros(60))])
    assert found.auc == 1.0 and found.error > 0.02 and found.p(0.1) > 0.99


def test_power_is_that_of_simulation():
    seen = rejected(100, 300, (0.5, 0.5), 1.0, draws=400, margin=0.08)
    assert equivalence_power(200, 600, 2, 0.08, 0.05) == pytest.approx(seen, abs=0.05)
    assert equivalence_power(200, 600, 2, 0.10, 0.05) > 0.95
    assert equivalence_power(20, 60, 2, 0.10, 0.05) == 0.0


@FAST
@given(st.integers(0, 10**6), st.integers(2, 30), st.integers(2, 30), st.floats(0.01, 0.4), st.floats(0.01, 0.4))
def test_p_is_a_probability_monotone_and_orderless(seed, m, n, one, other):
    rng = np.random.default_rng(seed)
    high, low = rng.normal(size=m).round(1), rng.normal(size=n).round(1)
    found = area([(high, low)])
    small, large = sorted((one, other))
    assert 0 < found.p(large) <= found.p(small) <= 1
    mirrored = area([(-high, -low)])
    assert mirrored.p(small) == pytest.approx(found.p(small))
    mixed = area([(rng.permutation(high), rng.permutation(low))])
    assert mixed.p(small) == pytest.approx(found.p(small), rel=1e-9)
    assert found.interval[0] <= found.auc <= found.interval[1]


def test_true_positives_keep_one_percent_false():
    members, others = np.array([5.0, 2.5, 0.0]), np.arange(300.0) / 100
    hits, total = true_positives([(members, others)])
    assert (hits, total) == (1, 3)
    assert (others > 2.96).sum() == 3  # what 1 % of 300 is
    assert true_positives([(np.array([2.965, 3.5]), others)]) == (2, 2)


@pytest.mark.parametrize("bad", [[], [([1.0], [0.0, 1.0])], [([1.0, np.nan], [0.0, 1.0])]])
def test_missing_scores_are_refused(bad):
    with pytest.raises(ValueError, match="AUC needs"):
        area(bad)
