"""Means over units and seeds: the size holds where pooling's does not."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmie.statistics import SMALLEST_P
from mmie.two_way import two_way


def drawn(rng, units=60, seeds=5, of_unit=1.0, of_seed=0.3, noise=1.0, mean=0.0):
    return (
        mean
        + of_unit * rng.standard_normal((units, 1))
        + of_seed * rng.standard_normal((1, seeds))
        + noise * rng.standard_normal((units, seeds))
    )


@pytest.mark.parametrize("seeds", [5, 10])
@pytest.mark.parametrize(("of_unit", "of_seed"), [(0.0, 0.0), (1.0, 0.0), (0.0, 0.5), (1.0, 0.3)])
def test_size(seeds, of_unit, of_seed):
    """At mean 0, the boundary; 4000 draws, so that a true .05 is not above .05 + 3 standard errors."""
    rng = np.random.default_rng(0)
    rejected = np.mean([two_way(drawn(rng, 40, seeds, of_unit, of_seed)).p <= 0.05 for _ in range(4000)])
    assert rejected <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 4000)


def test_pooling_would_be_far_too_sure():
    rng = np.random.default_rng(0)
    worlds = [drawn(rng, 60, 5, 1.0, 0.3) for _ in range(1000)]
    pooled = [x.mean() / (x.std() / np.sqrt(x.size)) < -1.65 for x in worlds]
    assert np.mean(pooled) > 0.2 > np.mean([two_way(x).p <= 0.05 for x in worlds]) * 3


def test_a_good_method_is_seen():
    rng = np.random.default_rng(0)
    found = two_way(drawn(rng, 200, 5, mean=-1.0))
    assert found.p < 0.01 and found.interval[1] < 0


def test_the_variance_is_the_largest_of_three():
    rng = np.random.default_rng(3)
    for of_unit, of_seed, noise in ((2, 0, 1), (0, 2, 1), (0, 0, 1), (1, 1, 3)):
        x = drawn(rng, 12, 6, of_unit, of_seed, noise)
        unit, seed, cell = x.mean(1).var(ddof=1) / 12, x.mean(0).var(ddof=1) / 6, x.var(ddof=1) / x.size
        assert two_way(x).error ** 2 == pytest.approx(max(unit, seed, unit + seed - cell))


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 20), st.integers(2, 8), st.floats(0, 2))
def test_p_is_a_probability_monotone_and_orderless(seed, units, seeds, shift):
    rng = np.random.default_rng(seed)
    x = drawn(rng, units, seeds)
    p = two_way(x).p
    assert 0 < two_way(x - shift).p <= p + 1e-12 <= 1 + 1e-12
    mixed = x[rng.permutation(units)][:, rng.permutation(seeds)]
    assert two_way(mixed).p == pytest.approx(p, rel=1e-9)


def test_constants_and_missing_values():
    assert two_way(np.full((5, 5), -1.0)).p == SMALLEST_P
    assert two_way(np.zeros((5, 5))).p == 1.0
    for bad in (np.zeros((5, 1)), np.zeros(5), np.full((5, 5), np.nan)):
        with pytest.raises(ValueError, match="finite values"):
            two_way(bad)
