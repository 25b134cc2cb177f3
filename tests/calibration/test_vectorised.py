"""What the calibration suite simulates is what the library computes."""

import itertools

import numpy as np
import pytest
from scipy.special import gammaln, xlogy

from calibration import enumeration, vectorised
from mmie.equivalence import area, equivalence_power
from mmie.power_parts import UNITS_FOR_MEANS
from mmie.simulation import Area, Change, Moments, Pair
from mmie.statistics import auc_test, mean_test, ratio_test
from mmie.two_way import two_way

SAMPLES = 200


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.mark.parametrize("n", [20, 150])
def test_mean_tests(rng, n):
    values = np.concatenate([rng.normal(-0.1, 1, (SAMPLES // 2, n)), 0.9 - rng.exponential(size=(SAMPLES // 2, n))])
    assert vectorised.mean_tests(values) == pytest.approx([mean_test(row) for row in values], rel=1e-9, abs=1e-12)


def test_auc_tests(rng):
    b = rng.normal(size=(2, SAMPLES, 40))
    u = 0.6 * b + 0.8 * rng.normal(size=b.shape)
    u[0] += 1
    expected = [auc_test((u[0, i], u[1, i]), (b[0, i], b[1, i]), 0.1)[0] for i in range(SAMPLES)]
    assert vectorised.auc_tests((u[0], u[1]), (b[0], b[1]), 0.1) == pytest.approx(expected, rel=1e-9)


def test_area_tests(rng):
    strata = [(rng.normal(0.2, 1, (SAMPLES, 15)), rng.normal(size=(SAMPLES, 40))) for _ in range(2)]
    expected = [area([(high[i], low[i]) for high, low in strata]).p(0.1) for i in range(SAMPLES)]
    assert vectorised.area_tests(strata, 0.1) == pytest.approx(expected, rel=1e-9)


def test_two_way_tests(rng):
    values = (
        rng.normal(-0.2, 1, (SAMPLES, 12, 5)) + rng.normal(size=(SAMPLES, 12, 1)) + rng.normal(size=(SAMPLES, 1, 5))
    )
    assert Moments.of(values).two_way_tests == pytest.approx([two_way(x).p for x in values], rel=1e-9)


def test_drawn_moments_are_those_of_drawn_units(rng):
    """Mean and spread of everything a test reads, from units and from Bartlett's decomposition."""
    change, n, seeds = Change(-0.1, 1.0, 0.4, 0.2), 30, 3
    short = change.draw(rng, 20_000, n, seeds)
    units = rng.standard_normal((20_000, n, seeds)) * np.sqrt(0.6) + rng.standard_normal((20_000, n, 1)) * np.sqrt(0.4)
    units += -0.1 + 0.2 * rng.standard_normal((20_000, 1, seeds))
    long = Moments.of(units)
    for one, other in ((short.means, long.means), (short.covariances, long.covariances)):
        assert one.mean(axis=0) == pytest.approx(other.mean(axis=0), abs=0.01)
        assert one.std(axis=0) == pytest.approx(other.std(axis=0), abs=0.01)
    assert np.cov(short.means.T) == pytest.approx(np.cov(long.means.T), abs=0.005)


def test_enumeration_is_that_of_all_tables():
    """For 14 pairs against the multinomial probability of every table; for seeds against a simulation."""
    n, pair = 14, Pair(0.8, 0.5, 0.3)
    counts = np.array([t for t in itertools.product(range(n + 1), repeat=3) if sum(t) <= n])
    rates = np.array([pair.base * pair.stay, (1 - pair.base) * pair.up, pair.base * (1 - pair.stay)])
    rest, left = n - counts.sum(axis=1), 1 - rates.sum()
    log = gammaln(n + 1) - gammaln(counts + 1).sum(axis=1) - gammaln(rest + 1)
    probability = np.exp(log + xlogy(counts, rates).sum(axis=1) + xlogy(rest, left))
    rejected = ratio_test(*counts.T, n, 0.9) <= 0.2
    of_counts = lambda n11, n10, n01: ratio_test(n11, n10, n01, n, 0.9)  # noqa: E731
    assert enumeration.size(of_counts, pair, n, 0.2) == pytest.approx(probability @ rejected, abs=1e-8)
    n11, n10, n01 = pair.draw(np.random.default_rng(0), 40_000, n, 3)
    simulated = (ratio_test(n11, n10, n01, n, 0.9) <= 0.2).all(axis=1).mean()
    assert enumeration.size(of_counts, pair, n, 0.2, seeds=3) == pytest.approx(simulated, abs=0.01)


def test_membership_is_as_precise_as_delong_says(rng):
    """The normal draws of the power table against DeLong's test on scores, at no difference."""
    strata = [(rng.normal(size=(4000, 100)), rng.normal(size=(4000, 300))) for _ in range(2)]
    seen = (vectorised.area_tests(strata, 0.1) <= 0.05).mean()
    truth = Area(0.5, 1, 0.0, 3.0, 2)
    assert seen == pytest.approx(equivalence_power(200, 600, 2, 0.1, 0.05), abs=0.01)
    drawn = truth.draw(rng, 4000, 200).mean(axis=2)
    aucs = np.mean([vectorised.placements(*stratum)[0].mean(axis=1) for stratum in strata], axis=0)
    assert drawn.std() == pytest.approx(aucs.std(), rel=0.05)


def test_constants_are_those_of_the_gate():
    from mmie.assumptions import TARGET
    from mmie.gate import parts

    assert parts.UNITS_FOR_MEANS == UNITS_FOR_MEANS and parts.POWER == TARGET
