from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from stream_fp.classifier import (
    AssignmentMethod,
    Classifier,
    ConfidenceMethod,
    DistanceMetric,
    distances,
    nearest,
)
from stream_fp.features import N_FEATURES
from stream_fp.library import Library
from tests.support.builders import tiny_library

if TYPE_CHECKING:
    import numpy.typing as npt

METRICS = get_args(DistanceMetric)
CONFIDENCES = get_args(ConfidenceMethod)
vectors = arrays(np.float64, N_FEATURES, elements=st.floats(-1e6, 1e6))


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Library:
    return tiny_library(tmp_path_factory.mktemp("library"))


def test_euclidean_distance_is_the_length_of_the_difference() -> None:
    rng = np.random.default_rng(1)
    vector, centroids = rng.normal(size=30), rng.normal(size=(4, 30))
    expected = [np.linalg.norm(vector - centroid) for centroid in centroids]
    np.testing.assert_allclose(distances(vector, centroids, "euclidean"), expected, rtol=1e-12)


def test_cosine_distance_is_one_minus_the_cosine() -> None:
    centroids = np.array([[2.0, 0.0], [0.0, 5.0], [-3.0, 0.0], [1.0, 1.0], [0.0, 0.0]])
    found = distances(np.array([7.0, 0.0]), centroids, "cosine")
    np.testing.assert_allclose(found, [0.0, 1.0, 2.0, 1 - np.sqrt(0.5), 1.0], atol=1e-12)
    np.testing.assert_array_equal(distances(np.zeros(2), centroids, "cosine"), np.ones(5))


def test_mahalanobis_distance_weighs_by_the_precision() -> None:
    rng = np.random.default_rng(2)
    vector, centroids = rng.normal(size=6), rng.normal(size=(3, 6))
    spread = rng.normal(size=(6, 6))
    precision = np.asarray(np.linalg.inv(spread @ spread.T + np.eye(6)), dtype=np.float64)
    expected = [float(np.sqrt((vector - c) @ precision @ (vector - c))) for c in centroids]
    np.testing.assert_allclose(distances(vector, centroids, "mahalanobis", precision), expected, rtol=1e-10)
    np.testing.assert_allclose(
        distances(vector, centroids, "mahalanobis", np.eye(6)), distances(vector, centroids, "euclidean"), rtol=1e-12
    )


def test_mahalanobis_without_a_precision_is_a_value_error() -> None:
    with pytest.raises(ValueError, match="precision"):
        distances(np.zeros(2), np.zeros((1, 2)), "mahalanobis")


def test_nearest_is_the_row_of_the_least_distance() -> None:
    assert nearest(np.array([0.0, 0.9]), np.array([[3.0, 4.0], [0.0, 1.0], [5.0, 5.0]])) == 1


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("confidence", CONFIDENCES)
@pytest.mark.parametrize("assignment", get_args(AssignmentMethod))
@given(vector=vectors)
@settings(max_examples=25, deadline=None)
def test_any_vector_gets_the_nearest_archetype_and_probabilities(
    library: Library,
    metric: DistanceMetric,
    confidence: ConfidenceMethod,
    assignment: AssignmentMethod,
    vector: npt.NDArray[np.float64],
) -> None:
    classifier = Classifier(library, distance_metric=metric, confidence_method=confidence, assignment=assignment)
    found = classifier.classify(vector, 30.0)
    model = library.prefix_model(30.0)
    prefix = assignment == "prefix_centroid"
    center, scale = (model.center, model.scale) if prefix else (library.center, library.scale)
    centroids = model.centroids if prefix else library.centroids
    away = distances((vector - center) / scale, centroids, found.metric, model.precision)
    assert found.archetype_id == int(away.argmin())
    assert found.distance == away.min()
    assert sum(found.probabilities.values()) == pytest.approx(1.0)
    assert found.confidence == found.probabilities[found.archetype_id] == max(found.probabilities.values())
    assert 0 < found.confidence <= 1
    assert list(found.probabilities) == [0, 1, 2]


@pytest.mark.parametrize("row", [0, 1, 2])
@pytest.mark.parametrize("confidence", CONFIDENCES)
def test_vector_on_a_centroid_is_assigned_to_it(library: Library, row: int, confidence: ConfidenceMethod) -> None:
    model = library.prefix_model(30.0)
    vector = model.centroids[row] * model.scale + model.center
    found = Classifier(library, confidence_method=confidence).classify(vector, 30.0)
    assert found.archetype_id == row
    assert found.distance == pytest.approx(0, abs=1e-9)
    assert found.notes == ()


def test_confidence_methods_follow_their_formulas(library: Library) -> None:
    vector = np.linspace(-1, 1, N_FEATURES)
    model = library.prefix_model(30.0)
    away = distances((vector - model.center) / model.scale, model.centroids, "euclidean")
    inverse = (1 / away) / (1 / away).sum()
    softmax = np.exp(-away) / np.exp(-away).sum()
    calibrated = np.exp(-away / 0.5) / np.exp(-away / 0.5).sum()
    expected: dict[ConfidenceMethod, npt.NDArray[np.float64]] = {
        "inverse_distance": inverse, "softmax": softmax, "calibrated": calibrated,
    }  # fmt: skip
    for method, shares in expected.items():
        found = Classifier(library, confidence_method=method).classify(vector, 30.0)
        np.testing.assert_allclose(list(found.probabilities.values()), shares, rtol=1e-10)


def test_missing_covariance_falls_back_to_euclidean_with_a_note(library: Library) -> None:
    classifier = Classifier(library, distance_metric="mahalanobis")
    assert classifier.classify(np.zeros(N_FEATURES), 30.0).metric == "mahalanobis"
    found = classifier.classify(np.zeros(N_FEATURES), 50.0)
    assert found.metric == "euclidean"
    assert [note for note in found.notes if "euclidean distance used instead of mahalanobis" in note]
    full = Classifier(library, distance_metric="mahalanobis", assignment="full_centroid")
    assert full.classify(np.zeros(N_FEATURES), 30.0).metric == "euclidean"


@pytest.mark.parametrize(
    ("checkpoint_pct", "used"), [(30.0, 30.0), (25.0, 30.0), (40.0, 30.0), (41.0, 50.0), (90.0, 50.0)]
)
def test_nearest_trained_checkpoint_is_used_and_noted(library: Library, checkpoint_pct: float, used: float) -> None:
    found = Classifier(library).classify(np.zeros(N_FEATURES), checkpoint_pct)
    noted = [f"Prefix model of the {used:g}% checkpoint used for {checkpoint_pct:g}%"]
    assert list(found.notes) == ([] if used == checkpoint_pct else noted)


def test_archetypes_without_a_prefix_are_never_assigned(library: Library) -> None:
    model = library.prefix_models[0]
    without = replace(model, archetype_ids=np.array([0, 2]), centroids=model.centroids[[0, 2]])
    classifier = Classifier(replace(library, prefix_models=(without,)))
    vector = model.centroids[1] * model.scale + model.center
    found = classifier.classify(vector, 30.0)
    assert found.archetype_id in {0, 2}
    assert list(found.probabilities) == [0, 2]
