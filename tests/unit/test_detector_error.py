"""The detector's own errors: corrected rates cover the truth, and the margin of a leak shrinks by what it misses."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metrics_tables import NO_QUALITY, make_quality
from mmie.detector_error import Quality, corrected_rate, quality_of


@pytest.mark.parametrize(("se", "sp"), [(0.99, 0.999), (0.95, 0.99), (0.85, 0.98), (0.7, 0.9)])
@pytest.mark.parametrize(("n", "positives"), [(25, 60), (200, 100)])
def test_coverage(se, sp, n, positives):
    """At least .93 of the intervals hold the true rate, also near 0 and 1 (measured: .936 at worst)."""
    rng, draws = np.random.default_rng(0), 600
    for true in (0.0, 0.02, 0.5, 0.98, 1.0):
        said = rng.binomial(n, true * se + (1 - true) * (1 - sp), draws)
        hits, wrong = rng.binomial(positives, se, draws), rng.binomial(3 * positives, 1 - sp, draws)
        covered = 0
        for count, hit, alarm in zip(said, hits, wrong, strict=True):
            _, low, high = corrected_rate(int(count), n, Quality(positives, int(hit), 3 * positives, int(alarm)))
            covered += low - 1e-12 <= true <= high + 1e-12
        assert covered / draws >= 0.93 - 2 * np.sqrt(0.05 * 0.95 / draws)


def test_a_perfect_detector_corrects_nothing():
    rate, low, high = corrected_rate(30, 100, Quality(10**7, 10**7, 10**7, 0))
    assert rate == pytest.approx(0.3)
    assert (low, high) == pytest.approx((0.219, 0.396), abs=0.002)  # Wilson


def test_missed_answers_are_added_and_false_ones_taken_away():
    quality = Quality(100, 80, 100, 10)
    assert corrected_rate(80, 100, quality)[0] == pytest.approx(1.0)
    assert corrected_rate(10, 100, quality)[0] == pytest.approx(0.0)
    assert corrected_rate(45, 100, quality)[0] == pytest.approx(0.5)


def test_uncertain_errors_widen_the_interval():
    few, many = (corrected_rate(50, 200, Quality(k, round(0.9 * k), k, round(0.05 * k))) for k in (40, 4000))
    assert few[2] - few[1] > 1.1 * (many[2] - many[1])


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 300), st.integers(0, 300), st.integers(30, 300), st.floats(0.6, 1.0), st.floats(0.6, 1.0))
def test_the_interval_holds_the_rate_within_0_and_1(n, count, size, se, sp):
    quality = Quality(size, round(se * size), size, round((1 - sp) * size))
    rate, low, high = corrected_rate(min(count, n), n, quality)
    assert 0 <= low <= rate <= high <= 1
    assert quality.youden_low < quality.youden


def test_youdens_lower_end_is_below_the_truth_often_enough():
    """The margin rests on it: at most 2.5 % of labelled sets, plus chance, may promise more than the detector has."""
    rng, draws = np.random.default_rng(0), 4000
    hits, wrong = rng.binomial(100, 0.95, draws), rng.binomial(300, 0.01, draws)
    over = [Quality(100, int(h), 300, int(w)).youden_low > 0.94 for h, w in zip(hits, wrong, strict=True)]
    assert np.mean(over) <= 0.05


def test_the_right_row_is_read_and_an_empty_table_is_none():
    assert quality_of(NO_QUALITY) is None
    assert quality_of(make_quality(0.95, 0.99, 200)) == Quality(200, 190, 600, 6)
    with pytest.raises(ValueError, match=r"lid\.labelled"):
        quality_of(pd.concat([make_quality(), make_quality()]))


def test_a_useless_detector_is_refused():
    with pytest.raises(ValueError, match="no better than chance"):
        corrected_rate(5, 10, Quality(100, 50, 100, 50))
    with pytest.raises(ValueError, match="count"):
        corrected_rate(5, 4, Quality(100, 90, 100, 5))
