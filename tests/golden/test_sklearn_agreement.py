"""Our assignment against scikit-learn's and scipy's, on trained libraries: the service has its own arithmetic."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from scipy.spatial import distance
from sklearn.cluster import KMeans
from sklearn.neighbors import NearestCentroid

from offline.artifacts import write_library
from offline.dataset import Dataset, load_dataset
from offline.scalers import ScalerKind
from offline.simulate import interleave, simulate_sessions
from offline.train import TrainedLibrary, TrainingOptions, train
from stream_fp.classifier import Classifier, DistanceMetric, distances, nearest
from stream_fp.features import N_FEATURES
from stream_fp.library import Library, load_library

Array = npt.NDArray[np.float64]
N_RANDOM = 500


class Trained:
    """A dataset, what was learned from it, and what the service reads of that."""

    def __init__(self, source: Path, output: Path, scaler: ScalerKind) -> None:
        self.dataset: Dataset = load_dataset(source)
        self.trained: TrainedLibrary = train(self.dataset, TrainingOptions(model_version="1", scaler=scaler))
        write_library(self.trained, output)
        self.library: Library = load_library(output)

    def random_vectors(self) -> Array:
        """Unscaled vectors in and far around the training data."""
        rng = np.random.default_rng(17)
        return rng.normal(0.0, 3.0, (N_RANDOM, N_FEATURES)) * self.library.scale + self.library.center


@pytest.fixture(scope="module", params=["standard", "robust"])
def simulated(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    folder = tmp_path_factory.mktemp("golden")
    path = folder / "sessions.jsonl"
    path.write_text("".join(json.dumps(message) + "\n" for message in interleave(simulate_sessions(210, seed=23))))
    return Trained(path, folder / "v1", request.param)


@pytest.fixture(scope="module")
def real(real_sessions_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return Trained(real_sessions_dir, tmp_path_factory.mktemp("golden") / "v1", "standard")


def assert_full_assignment_is_that_of_kmeans(case: Trained) -> None:
    kmeans, scaler = case.trained.kmeans, case.trained.scaler
    classifier = Classifier(case.library, assignment="full_centroid")
    for vectors in (case.dataset.full, case.random_vectors()):
        expected = kmeans.predict(scaler.transform(vectors)).tolist()
        scaled = (vectors - case.library.center) / case.library.scale
        assert [nearest(vector, case.library.centroids) for vector in scaled] == expected
        assert [classifier.classify(vector, 30.0).archetype_id for vector in vectors] == expected
    assert case.trained.labels.tolist() == kmeans.predict(scaler.transform(case.dataset.full)).tolist()


def assert_prefix_assignment_is_that_of_nearest_centroid(case: Trained) -> None:
    classifier = Classifier(case.library, assignment="prefix_centroid")
    for model in case.library.prefix_models:
        cut = case.dataset.prefixes[model.checkpoint_pct]
        scaled = (cut.vectors - model.center) / model.scale
        reference = NearestCentroid().fit(scaled, case.trained.labels[cut.rows])
        np.testing.assert_allclose(model.centroids, reference.centroids_, atol=1e-10)
        started = KMeans(n_clusters=len(model.centroids), init=model.centroids, n_init=1, max_iter=1).fit(
            model.centroids
        )
        for vectors in (cut.vectors, case.random_vectors()):
            scaled = (vectors - model.center) / model.scale
            found = [classifier.classify(vector, model.checkpoint_pct).archetype_id for vector in vectors]
            assert found == reference.predict(scaled).tolist()
            assert found == model.archetype_ids[started.predict(scaled)].tolist()


def test_full_centroid_assignment_of_simulated_sessions_is_that_of_kmeans(simulated: Trained) -> None:
    assert_full_assignment_is_that_of_kmeans(simulated)


def test_full_centroid_assignment_of_real_sessions_is_that_of_kmeans(real: Trained) -> None:
    assert_full_assignment_is_that_of_kmeans(real)


def test_prefix_assignment_of_simulated_sessions_is_that_of_nearest_centroid(simulated: Trained) -> None:
    assert_prefix_assignment_is_that_of_nearest_centroid(simulated)


@pytest.mark.filterwarnings("ignore:self.within_class_std_dev_ has at least 1 zero")  # regime 0 never occurs
def test_prefix_assignment_of_real_sessions_is_that_of_nearest_centroid(real: Trained) -> None:
    assert_prefix_assignment_is_that_of_nearest_centroid(real)


def test_distances_are_those_of_scipy(simulated: Trained) -> None:
    for model in simulated.library.prefix_models:
        assert model.precision is not None
        scaled = (simulated.random_vectors()[:50] - model.center) / model.scale
        for vector in scaled:
            expected: dict[DistanceMetric, list[float]] = {
                "euclidean": [distance.euclidean(vector, row) for row in model.centroids],
                "cosine": [distance.cosine(vector, row) for row in model.centroids],
                "mahalanobis": [distance.mahalanobis(vector, row, model.precision) for row in model.centroids],
            }
            for metric, away in expected.items():
                found = distances(vector, model.centroids, metric, model.precision)
                np.testing.assert_allclose(found, away, rtol=1e-10, atol=1e-12)


def test_mahalanobis_assignment_is_the_nearest_by_scipy(simulated: Trained) -> None:
    classifier = Classifier(simulated.library, distance_metric="mahalanobis", assignment="prefix_centroid")
    model = simulated.library.prefix_model(30.0)
    for vector in simulated.dataset.prefixes[30.0].vectors:
        scaled = (vector - model.center) / model.scale
        away = [distance.mahalanobis(scaled, row, model.precision) for row in model.centroids]
        found = classifier.classify(vector, 30.0)
        assert found.archetype_id == model.archetype_ids[int(np.argmin(away))]
        assert found.distance == pytest.approx(min(away))
        assert found.metric == "mahalanobis"
