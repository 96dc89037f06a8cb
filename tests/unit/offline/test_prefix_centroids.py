"""Centroids of prefixes: covariance, temperatures, and what a few sessions leave undone."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from offline.prefix_centroids import fit_centroids
from stream_fp.features import N_FEATURES

Array = npt.NDArray[np.float64]
EVEN = np.ones(N_FEATURES)


def days_of(labels: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return a day for each session, far enough apart for any embargo."""
    return np.arange(len(labels)) * 9


def blobs(n: int, n_blobs: int) -> tuple[Array, npt.NDArray[np.int64]]:
    """Features around `n_blobs` centres, in turn."""
    rng = np.random.default_rng(0)
    labels = np.arange(n) % n_blobs
    return rng.uniform(5.0, 10.0, (n_blobs, N_FEATURES))[labels] + rng.normal(0.0, 0.1, (n, N_FEATURES)), labels


def test_covariance_of_too_few_sessions_is_null_with_a_note() -> None:
    vectors, labels = blobs(4, 3)
    fit = fit_centroids(vectors, labels, days_of(labels), scaler="standard", weights=EVEN)
    assert fit.precision is None
    assert fit.shrinkage is None
    assert any("no covariance" in note for note in fit.notes)


def test_covariance_without_any_spread_is_null_with_a_note() -> None:
    vectors = np.repeat(blobs(2, 2)[0], 20, axis=0)
    fit = fit_centroids(vectors, np.repeat([0, 1], 20), np.arange(40), scaler="standard", weights=EVEN)
    assert fit.precision is None
    assert any("no covariance" in note for note in fit.notes)


def test_temperatures_of_few_sessions_are_one_with_a_note() -> None:
    vectors, labels = blobs(12, 2)
    fit = fit_centroids(vectors, labels, days_of(labels), scaler="standard", weights=EVEN)
    assert {found.temperature for found in fit.calibration.values()} == {1.0}
    assert any("temperature of euclidean is 1" in note for note in fit.notes)


def test_temperature_is_lower_where_archetypes_are_further_apart() -> None:
    rng = np.random.default_rng(5)
    labels = np.arange(300) % 3
    noise = rng.normal(0.0, 1.0, (300, N_FEATURES))
    shift = np.zeros((3, N_FEATURES))
    shift[:, 0] = (-1.0, 0.0, 1.0)
    near, far = (
        fit_centroids(
            noise + size * shift[labels], labels, days_of(labels), scaler="standard", weights=EVEN
        ).calibration["euclidean"]
        for size in (0.3, 3.0)
    )
    assert far.temperature < near.temperature
    assert far.agreement > near.agreement
    assert far.log_loss < near.log_loss < math.log(3) + 0.05


def test_fitted_temperature_is_no_worse_than_its_neighbours() -> None:
    from offline.prefix_centroids import _held_out_distances, _log_loss  # noqa: PLC0415 - looks inside

    rng = np.random.default_rng(8)
    labels = np.arange(200) % 3
    vectors = rng.normal(0.0, 1.0, (200, N_FEATURES)) + 0.8 * labels[:, None]
    found = fit_centroids(vectors, labels, days_of(labels), scaler="standard", weights=EVEN).calibration["mahalanobis"]
    away = _held_out_distances(vectors, labels, days_of(labels), "standard", EVEN)["mahalanobis"]
    losses = [_log_loss(away, labels, found.temperature * factor) for factor in (0.9, 1.0, 1.1)]
    assert losses[1] == found.log_loss == min(losses)


def test_archetype_seen_in_one_fold_only_is_not_judged_and_counts_as_missed() -> None:
    vectors, labels = blobs(50, 2)
    labels[:3] = 2
    found = fit_centroids(vectors, labels, days_of(labels), scaler="standard", weights=EVEN).calibration["euclidean"]
    assert found.n_sessions == 47
    assert found.agreement <= 47 / 50
