"""Intervals hold what they promise, and calibration is what its paper says."""

import numpy as np
import pytest

from falconet.report.evidence.calibration import calibrate
from falconet.report.evidence.intervals import ends_of, intervals, resampled


def test_the_interval_of_a_share_is_that_of_the_binomial_distribution() -> None:
    right = np.arange(400) < 300
    low, high = intervals(lambda weights: np.array([weights @ right / weights.sum()]), 400, draws=4000)[:, 0]
    expected = 1.96 * (0.75 * 0.25 / 400) ** 0.5
    assert low == pytest.approx(0.75 - expected, abs=0.005)
    assert high == pytest.approx(0.75 + expected, abs=0.005)


def test_intervals_are_the_same_every_time_and_draw_no_numbers_of_others() -> None:
    def score(weights: np.ndarray) -> np.ndarray:
        return np.array([weights[:10].sum() / weights.sum()])

    state = np.random.get_state()[1].copy()  # type: ignore[union-attr]
    assert np.array_equal(intervals(score, 30), intervals(score, 30))
    assert np.array_equal(np.random.get_state()[1], state)  # type: ignore[arg-type]


def test_every_draw_has_as_many_pictures() -> None:
    assert {int(weights.sum()) for weights in resampled(7, 50)} == {7}


def test_too_few_pictures_have_no_interval() -> None:
    assert ends_of(intervals(lambda weights: np.ones(2), 4), 1) == (None, None)
    assert ends_of(intervals(lambda weights: np.ones(2), 0), 1) == (None, None)


def test_a_score_that_most_draws_lack_has_no_interval() -> None:
    def score(weights: np.ndarray) -> np.ndarray:
        return np.array([np.nan if weights[0] else 1.0, weights[0] / 9])

    ends = intervals(score, 9)
    assert ends_of(ends, 0) == (None, None)
    assert ends_of(ends, 1) != (None, None)


def test_calibration_error_is_the_mean_gap_weighted_by_answers() -> None:
    scores = np.array([0.9, 0.9, 0.9, 0.9, 0.5, 0.5])
    found = calibrate(scores, np.array([1, 1, 1, 0, 1, 1], dtype=bool))
    assert found.error == pytest.approx((4 * abs(0.9 - 0.75) + 2 * abs(0.5 - 1.0)) / 6)
    assert found.too_sure == pytest.approx((4 * (0.9 - 0.75) + 2 * (0.5 - 1.0)) / 6)


def test_scores_that_are_probabilities_are_calibrated() -> None:
    generator = np.random.default_rng(0)
    scores = generator.random(200_000)
    assert calibrate(scores, generator.random(200_000) < scores).error < 0.005  # type: ignore[operator]


def test_scores_of_0_and_1_have_a_bin() -> None:
    assert calibrate(np.array([0.0, 1.0]), np.array([False, True])).error == 0.0
    assert calibrate(np.zeros(0), np.zeros(0, dtype=bool)).error is None
