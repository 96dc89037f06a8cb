"""Scores against scikit-learn and plain loops."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
from sklearn.metrics import log_loss, mean_pinball_loss, mean_squared_error, r2_score

from offline.scores import (
    LEAST_PROBABILITY,
    brier_scores,
    expected_calibration_error,
    log_losses,
    pinball_losses,
    r2_scores,
)

Array = npt.NDArray[np.float64]


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(3)


def predictions(rng: np.random.Generator, n: int = 300) -> tuple[Array, npt.NDArray[np.int64]]:
    return rng.dirichlet(np.ones(4), n), rng.integers(0, 4, n)


def test_log_loss_is_that_of_scikit_learn(rng: np.random.Generator) -> None:
    probabilities, labels = predictions(rng)
    probabilities = 0.98 * probabilities + 0.005
    losses = log_losses(probabilities, labels)
    assert losses.shape == (300,)
    assert losses.mean() == pytest.approx(log_loss(labels, probabilities, labels=[0, 1, 2, 3]), rel=1e-12)


def test_log_loss_of_the_impossible_is_bounded() -> None:
    assert log_losses(np.array([[1.0, 0.0]]), np.array([1])).tolist() == [-math.log(LEAST_PROBABILITY)]


def test_brier_score_is_the_squared_distance_to_what_came(rng: np.random.Generator) -> None:
    probabilities, labels = predictions(rng)
    came = np.eye(4)[labels]
    scores = brier_scores(probabilities, labels)
    assert scores.mean() == pytest.approx(4 * mean_squared_error(came, probabilities), rel=1e-12)
    assert brier_scores(np.array([[1.0, 0.0], [1.0, 0.0]]), np.array([0, 1])).tolist() == [0.0, 2.0]


@pytest.mark.parametrize("quantile", [0.1, 0.5, 0.9])
def test_pinball_loss_is_that_of_scikit_learn(rng: np.random.Generator, quantile: float) -> None:
    values, forecasts = rng.normal(0.0, 1.0, (2, 200))
    losses = pinball_losses(values, forecasts, quantile)
    assert losses.mean() == pytest.approx(mean_pinball_loss(values, forecasts, alpha=quantile), rel=1e-12)
    assert (losses >= 0).all()


def test_r2_against_the_mean_of_the_same_sessions_is_that_of_scikit_learn(rng: np.random.Generator) -> None:
    truth = rng.normal(0.0, 1.0, (200, 3))
    found = truth + rng.normal(0.0, (0.2, 1.0, 2.0), (200, 3))
    expected = r2_score(truth, found, multioutput="raw_values")
    np.testing.assert_allclose(r2_scores(truth, found, truth.mean(axis=0)), expected, rtol=1e-12)


def test_r2_is_out_of_sample_and_skips_what_is_unknown(rng: np.random.Generator) -> None:
    truth, found = rng.normal(0.0, 1.0, (2, 50, 2))
    truth[rng.random(truth.shape) < 0.3] = np.nan
    mean = np.array([0.5, -0.2])
    expected = []
    for column in range(2):
        errors = spread = 0.0
        for row in range(50):
            if not math.isnan(truth[row, column]):
                errors += (truth[row, column] - found[row, column]) ** 2
                spread += (truth[row, column] - mean[column]) ** 2
        expected.append(1 - errors / spread)
    np.testing.assert_allclose(r2_scores(truth, found, mean), expected, rtol=1e-12)


def test_r2_without_a_session_or_without_spread_is_nan() -> None:
    truth = np.array([[np.nan, 2.0, 1.0], [np.nan, 2.0, 2.0]])
    found = r2_scores(truth, np.zeros((2, 3)), np.array([0.0, 2.0, 0.0]))
    assert np.isnan(found).tolist() == [True, True, False]


def test_calibration_error_is_that_of_a_plain_loop(rng: np.random.Generator) -> None:
    confidences = np.round(rng.uniform(0.25, 1.0, 500), 2)
    confidences[:5] = 1.0
    is_right = rng.random(500) < confidences**2
    expected = 0.0
    for i in range(10):
        inside = [
            j for j, confidence in enumerate(confidences)
            if i == min(9, int(confidence * 10))
        ]  # fmt: skip
        if inside:
            confidence, accuracy = (sum(float(x[j]) for j in inside) / len(inside) for x in (confidences, is_right))
            expected += len(inside) / 500 * abs(confidence - accuracy)
    assert expected > 0.05
    assert expected_calibration_error(confidences, is_right) == pytest.approx(expected, rel=1e-12)


def test_calibration_error_of_nothing_and_of_certainty_that_is_right_is_zero() -> None:
    assert expected_calibration_error(np.empty(0), np.empty(0, dtype=np.bool_)) == 0.0
    assert expected_calibration_error(np.ones(7), np.ones(7, dtype=np.bool_)) == 0.0
