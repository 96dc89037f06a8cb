"""Clusters of full sessions: what has no weight plays no part, and numbers mean the same in every run."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from offline.clusters import Clusters, fit_clusters, weighted_features
from offline.dataset import Dataset
from offline.profiles import NO_WEIGHT, PROFILES, profile_weights
from offline.scalers import ScalerKind
from stream_fp.errors import ConfigError
from stream_fp.features import FEATURE_NAMES, N_FEATURES, RANGE
from tests.support.datasets import blobs

Array = npt.NDArray[np.float64]
ALL = np.ones(N_FEATURES)


def fit(
    vectors: Array, n_archetypes: int = 4, weights: Array = ALL, scaler: ScalerKind = "standard", seed: int = 0
) -> Clusters:
    return fit_clusters(vectors, n_archetypes=n_archetypes, weights=weights, scaler=scaler, seed=seed)


def some_weights(**by_name: float) -> Array:
    weights = np.full(N_FEATURES, NO_WEIGHT)
    for name, weight in by_name.items():
        weights[FEATURE_NAMES.index(name)] = weight
    return weights


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("scaler", ["standard", "robust"])
def test_separate_groups_are_numbered_in_order_of_range(scaler: ScalerKind, seed: int) -> None:
    vectors, labels = blobs(60, 4)
    clusters = fit(vectors, scaler=scaler, seed=seed)
    assert clusters.kmeans.labels_.tolist() == (3 - labels).tolist()
    assert clusters.labels(vectors).tolist() == (3 - labels).tolist()


@pytest.mark.parametrize("profile", PROFILES)
def test_archetypes_of_every_profile_are_numbered_by_ascending_median_range(simulated: Dataset, profile: str) -> None:
    clusters = fit(simulated.full, 5, profile_weights(profile))
    labels = clusters.labels(simulated.full)
    medians = [float(np.median(simulated.full[labels == label, RANGE])) for label in range(5)]
    assert medians == sorted(medians)
    assert labels.tolist() == clusters.kmeans.labels_.tolist()


@pytest.mark.parametrize("scaler", ["standard", "robust"])
def test_features_without_weight_cannot_change_labels(simulated: Dataset, scaler: ScalerKind) -> None:
    weights = profile_weights("pace")
    left_out = np.setdiff1d(np.arange(N_FEATURES), [*weighted_features(weights), RANGE])
    other = simulated.full.copy()
    other[:, left_out] = np.random.default_rng(1).permutation(other[:, left_out]) * 7.0 - 3.0
    first, second = (fit(vectors, 5, weights, scaler) for vectors in (simulated.full, other))
    assert first.kmeans.labels_.tolist() == second.kmeans.labels_.tolist()
    assert first.labels(other).tolist() == first.kmeans.labels_.tolist()


def test_heavier_feature_decides() -> None:
    rng = np.random.default_rng(2)
    vectors = rng.normal(5.0, 0.1, (80, N_FEATURES))
    slow, wide = np.arange(80) % 2, np.arange(80) // 40
    pace = FEATURE_NAMES.index("log_path_per_hour")
    vectors[:, pace] += slow
    vectors[:, RANGE] += wide
    by_pace = fit(vectors, 2, some_weights(log_path_per_hour=1.0, log_range=0.2)).labels(vectors)
    by_range = fit(vectors, 2, some_weights(log_path_per_hour=0.2, log_range=1.0)).labels(vectors)
    assert len(set(zip(by_pace, slow, strict=True))) == 2
    assert by_range.tolist() == wide.tolist()


def test_weight_is_in_the_scale_and_the_center_is_left_alone() -> None:
    vectors, _ = blobs(60, 3)
    weights = profile_weights("pace_trend")
    clusters = fit(vectors, 3, weights)
    expected = (vectors - vectors.mean(axis=0)) / vectors.std(axis=0) * weights
    np.testing.assert_allclose(clusters.scaled(vectors), expected, rtol=1e-9, atol=1e-12)


def test_too_few_different_sessions_names_both_numbers() -> None:
    same = np.repeat(blobs(3, 3)[0], 10, axis=0)
    with pytest.raises(ConfigError, match=r"at most 3.*got 4"):
        fit(same)
    assert len(np.unique(fit(same, 3).kmeans.labels_)) == 3


def test_sessions_that_differ_only_in_features_without_weight_are_no_different_sessions() -> None:
    weights = profile_weights("pace")
    vectors = np.random.default_rng(3).normal(5.0, 1.0, (40, N_FEATURES))
    vectors[:, weighted_features(weights)] = np.array([[1.0, 2.0], [3.0, 1.0]])[np.arange(40) % 2]
    with pytest.raises(ConfigError, match=r"at most 2.*got 3"):
        fit(vectors, 3, weights)


def test_every_profile_names_features_that_exist() -> None:
    for profile, by_name in PROFILES.items():
        weights = profile_weights(profile)
        assert set(by_name) <= set(FEATURE_NAMES)
        assert weighted_features(weights) == sorted(FEATURE_NAMES.index(name) for name in by_name)
        assert [weights[FEATURE_NAMES.index(name)] for name in by_name] == list(by_name.values())
    assert weighted_features(profile_weights("all")) == list(range(N_FEATURES))
