from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from stream_fp.classifier import (
    Assignment,
    AssignmentMethod,
    Classifier,
    ConfidenceMethod,
    DistanceMetric,
    distances,
    nearest,
    resolve_assignment,
)
from stream_fp.features import N_FEATURES
from stream_fp.library import Library
from tests.support.builders import tiny_library

if TYPE_CHECKING:
    import numpy.typing as npt

METRICS = get_args(DistanceMetric)
CONFIDENCES = get_args(ConfidenceMethod)
Recommended = Literal["prefix_model", "prefix_centroid", "full_centroid"]
RECOMMENDED: tuple[Recommended, ...] = get_args(Recommended)
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
@pytest.mark.parametrize("assignment", ["prefix_centroid", "full_centroid"])
@given(vector=vectors)
@settings(max_examples=25, deadline=None)
def test_any_vector_gets_the_archetype_of_the_nearest_centroid_and_probabilities(
    library: Library,
    metric: DistanceMetric,
    confidence: ConfidenceMethod,
    assignment: AssignmentMethod,
    vector: npt.NDArray[np.float64],
) -> None:
    classifier = Classifier(library, distance_metric=metric, confidence_method=confidence, assignment=assignment)
    found = classifier.classify(vector, 30.0)
    away = away_from(library, vector, found.metric, assignment)
    assert (found.method, found.confidence_method) == (assignment, confidence)
    assert found.archetype_id == int(away.argmin())
    assert found.distance == away.min()
    check_probabilities(found)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("confidence", CONFIDENCES)
@given(vector=vectors, session_type=st.sampled_from(("ny_am", "lunch", "unheard of", "")))
@settings(max_examples=25, deadline=None)
def test_prefix_model_assigns_by_its_own_probabilities_whatever_the_metric(
    library: Library,
    metric: DistanceMetric,
    confidence: ConfidenceMethod,
    vector: npt.NDArray[np.float64],
    session_type: str,
) -> None:
    classifier = Classifier(library, distance_metric=metric, confidence_method=confidence, assignment="prefix_model")
    found = classifier.classify(vector, 30.0, session_type)
    model = library.prefix_model(30.0)
    expected = model.probabilities(model.inputs(vector, session_type))
    assert list(found.probabilities.values()) == expected.tolist()
    assert found.archetype_id == int(expected.argmax())
    assert found.confidence == expected.max()
    assert found.distance == pytest.approx(
        away_from(library, vector, metric, "prefix_centroid")[found.archetype_id], rel=1e-12, abs=1e-12
    )
    assert (found.metric, found.method) == (metric, "prefix_model")
    # It is a softmax, and calibrated, but no share of 1/distance.
    assert found.confidence_method == ("calibrated" if confidence == "inverse_distance" else confidence)
    check_probabilities(found)


def away_from(
    library: Library, vector: npt.NDArray[np.float64], metric: DistanceMetric, assignment: AssignmentMethod
) -> npt.NDArray[np.float64]:
    model = library.prefix_model(30.0)
    if assignment == "full_centroid":
        return distances((vector - library.center) / library.scale, library.centroids, metric)
    return distances((vector - model.center) / model.scale, model.centroids, metric, model.precision)


def check_probabilities(found: Assignment) -> None:
    assert sum(found.probabilities.values()) == pytest.approx(1.0)
    assert found.confidence == found.probabilities[found.archetype_id] == max(found.probabilities.values())
    assert 0 < found.confidence <= 1
    assert list(found.probabilities) == [0, 1, 2]


@pytest.mark.parametrize("recommended", RECOMMENDED)
@pytest.mark.parametrize("confidence", ["softmax", "calibrated"])
def test_auto_is_what_the_library_recommends(
    library: Library, recommended: Recommended, confidence: ConfidenceMethod
) -> None:
    advised = replace(library, assignment=recommended)
    assert resolve_assignment(advised, "auto", confidence) == recommended
    classifier = Classifier(advised, confidence_method=confidence)
    assert classifier.assignment == recommended
    assert classifier.classify(np.zeros(N_FEATURES), 30.0).method == recommended


@pytest.mark.parametrize(
    ("recommended", "expected"),
    [
        ("prefix_model", "prefix_centroid"),
        ("prefix_centroid", "prefix_centroid"),
        ("full_centroid", "full_centroid"),
    ],
)
def test_auto_with_inverse_distance_is_an_assignment_that_has_distances(
    library: Library, recommended: Recommended, expected: AssignmentMethod
) -> None:
    advised = replace(library, assignment=recommended)
    found = Classifier(advised, confidence_method="inverse_distance").classify(np.ones(N_FEATURES), 30.0)
    assert found.method == expected
    shares = 1 / away_from(library, np.ones(N_FEATURES), "euclidean", expected)
    np.testing.assert_allclose(list(found.probabilities.values()), shares / shares.sum(), rtol=1e-10)


@pytest.mark.parametrize("recommended", RECOMMENDED)
@pytest.mark.parametrize("confidence", CONFIDENCES)
@pytest.mark.parametrize("assignment", RECOMMENDED)
def test_assignment_that_is_asked_for_is_the_one_used(
    library: Library, recommended: Recommended, confidence: ConfidenceMethod, assignment: Recommended
) -> None:
    advised = replace(library, assignment=recommended)
    classifier = Classifier(advised, confidence_method=confidence, assignment=assignment)
    assert classifier.assignment == assignment


@pytest.mark.parametrize("row", [0, 1, 2])
@pytest.mark.parametrize("confidence", CONFIDENCES)
def test_vector_on_a_centroid_is_assigned_to_it(library: Library, row: int, confidence: ConfidenceMethod) -> None:
    model = library.prefix_model(30.0)
    vector = model.centroids[row] * model.scale + model.center
    classifier = Classifier(library, confidence_method=confidence, assignment="prefix_centroid")
    found = classifier.classify(vector, 30.0)
    assert found.archetype_id == row
    assert found.distance == pytest.approx(0, abs=1e-9)
    assert found.notes == ()


def test_confidence_methods_follow_their_formulas(library: Library) -> None:
    vector = np.linspace(-1, 1, N_FEATURES)
    away = away_from(library, vector, "euclidean", "prefix_centroid")
    inverse = (1 / away) / (1 / away).sum()
    softmax = np.exp(-away) / np.exp(-away).sum()
    calibrated = np.exp(-away / 0.5) / np.exp(-away / 0.5).sum()
    expected: dict[ConfidenceMethod, npt.NDArray[np.float64]] = {
        "inverse_distance": inverse, "softmax": softmax, "calibrated": calibrated,
    }  # fmt: skip
    for method, shares in expected.items():
        classifier = Classifier(library, confidence_method=method, assignment="prefix_centroid")
        found = classifier.classify(vector, 30.0)
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


@pytest.mark.parametrize("assignment", ["prefix_model", "prefix_centroid"])
def test_archetypes_without_a_prefix_are_never_assigned(library: Library, assignment: AssignmentMethod) -> None:
    model = library.prefix_models[0]
    kept = [0, 2]
    without = replace(
        model,
        archetype_ids=np.array(kept),
        centroids=model.centroids[kept],
        membership=replace(model.membership, logits=model.membership.logits[:, kept]),
    )
    classifier = Classifier(replace(library, prefix_models=(without,)), assignment=assignment)
    rng = np.random.default_rng(4)
    for vector in (model.centroids[1] * model.scale + model.center, *rng.normal(scale=3, size=(50, N_FEATURES))):
        found = classifier.classify(vector, 30.0, "ny_am")
        assert found.archetype_id in kept
        assert list(found.probabilities) == kept
        assert found.confidence == found.probabilities[found.archetype_id]
