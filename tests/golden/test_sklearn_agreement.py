"""Our arithmetic against scikit-learn's and scipy's, on trained libraries: the service has its own of everything."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from scipy.spatial import distance
from sklearn.cluster import KMeans
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.neighbors import NearestCentroid
from sklearn.preprocessing import OneHotEncoder, PolynomialFeatures, StandardScaler

from offline.artifacts import write_library
from offline.dataset import Dataset, load_dataset
from offline.inputs import make_inputs
from offline.membership import predict_membership
from offline.scalers import ScalerKind
from offline.simulate import interleave, simulate_sessions
from offline.train import TrainedLibrary, TrainingOptions, train
from stream_fp.artifacts import PrefixModelArrays
from stream_fp.classifier import Classifier, DistanceMetric, distances, nearest
from stream_fp.features import N_FEATURES, RANGE
from stream_fp.library import Library, load_library
from stream_fp.prefix_model import OUTCOMES, PrefixModel

Array = npt.NDArray[np.float64]
N_RANDOM = 500


class Trained:
    """A dataset, what was learned from it, and what the service reads of that."""

    def __init__(self, source: Path, output: Path, scaler: ScalerKind, profile: str) -> None:
        self.dataset: Dataset = load_dataset(source)
        options = TrainingOptions(model_version="1", n_archetypes=4, profile=profile, scaler=scaler)
        self.trained: TrainedLibrary = train(self.dataset, options)
        write_library(self.trained, output)
        self.library: Library = load_library(output)

    def random_vectors(self) -> Array:
        """Unscaled vectors in and far around the training data."""
        rng = np.random.default_rng(17)
        return rng.normal(0.0, 3.0, (N_RANDOM, N_FEATURES)) * self.library.spread + self.library.center

    def session_types(self, checkpoint_pct: float) -> list[str]:
        """Types of the sessions that reached a checkpoint."""
        return [self.dataset.session_types[row] for row in self.dataset.prefixes[checkpoint_pct].rows]


@pytest.fixture(
    scope="module", params=[("standard", "pace_range"), ("robust", "pace_phases")], ids=lambda param: param[0]
)
def simulated(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    folder = tmp_path_factory.mktemp("golden")
    path = folder / "sessions.jsonl"
    path.write_text("".join(json.dumps(message) + "\n" for message in interleave(simulate_sessions(210, seed=23))))
    return Trained(path, folder / "v1", *request.param)


@pytest.fixture(scope="module")
def real(real_sessions_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return Trained(real_sessions_dir, tmp_path_factory.mktemp("golden") / "v1", "standard", "pace")


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


# -------------------------------------------------------------------------------------------------- the prefix model


class Reference:
    """Scikit-learn's own estimators, made from the arrays that are stored of one prefix model."""

    def __init__(self, arrays: PrefixModelArrays) -> None:
        self._arrays = arrays
        self._scaler = StandardScaler()
        self._scaler.mean_, self._scaler.scale_ = np.array(arrays.inputs.center), np.array(arrays.inputs.scale)
        self._scaler.n_features_in_ = N_FEATURES
        types = np.array(arrays.inputs.session_types, dtype=object)
        self._one_hot = OneHotEncoder(categories=[types], handle_unknown="ignore", sparse_output=False)
        self._one_hot.fit(types[:, None])
        self._fingerprint = _linear(np.array(arrays.membership.fingerprint))
        # Products of the forecast with itself come in the order of this, too.
        self._products = PolynomialFeatures(degree=2, include_bias=False)
        logits = np.array(arrays.membership.logits)
        self._logistic = LogisticRegression()
        self._logistic.intercept_, self._logistic.coef_ = logits[0], logits[1:].T
        self._logistic.classes_ = np.array(arrays.archetype_ids)

    def inputs(self, vectors: Array, session_types: list[str]) -> Array:
        """Return the inputs without the leading 1."""
        clip = self._arrays.inputs.clip
        is_type = self._one_hot.transform(np.array(session_types, dtype=object)[:, None])
        return np.hstack((np.clip(self._scaler.transform(vectors), -clip, clip), is_type))

    def probabilities(self, inputs: Array) -> Array:
        """Return the probabilities that the logistic regression gives."""
        terms = self._products.fit_transform(self._fingerprint.predict(inputs))
        found: Array = self._logistic.predict_proba(np.hstack((terms, inputs[:, N_FEATURES:])))
        return found

    def labels(self, inputs: Array) -> list[int]:
        """Return the archetypes that the logistic regression assigns."""
        terms = self._products.fit_transform(self._fingerprint.predict(inputs))
        found: list[int] = self._logistic.predict(np.hstack((terms, inputs[:, N_FEATURES:]))).tolist()
        return found

    def forecast(self, vectors: Array, inputs: Array) -> tuple[Array, Array]:
        """Return outcomes and quantiles of the final range of all sessions at once."""
        rest = self._arrays.rest
        known = np.hstack((inputs, self.probabilities(inputs)))
        outcomes = _linear(np.array(rest.coefficients)).predict(known)
        assert tuple(rest.outcomes) == OUTCOMES
        outcomes[:, 3:] = outcomes[:, 3:].clip(0, 1)
        outcomes[:, 4:] /= np.maximum(outcomes[:, 4:].sum(axis=1, keepdims=True), 1)
        so_far, unit = np.expm1(vectors[:, RANGE]) / 100, np.exp(outcomes[:, 0])
        ratio = np.minimum(so_far / unit, 100)
        terms = np.column_stack((known, ratio, np.log(np.maximum(ratio, 0.01))))
        growth = _linear(np.array(rest.quantile_coefficients)).predict(terms) + rest.quantile_shifts
        ranges = so_far[:, None] + unit[:, None] * np.sort(growth.clip(0), axis=1)
        outcomes[:, 0] = np.minimum(outcomes[:, 0], np.log(ranges[:, 1]))  # the whole is no narrower than its rest
        return outcomes, ranges


def _linear(table: Array) -> LinearRegression:
    """Return the linear regression whose constants are the first row of a table, and its coefficients the others."""
    model = LinearRegression()
    model.intercept_, model.coef_ = table[0], table[1:].T
    return model


def assert_prefix_model_is_that_of_scikit_learn(case: Trained) -> None:
    classifier = Classifier(case.library, assignment="prefix_model")
    n_judged = 0
    for arrays in case.trained.metadata.prefix_models:
        vectors = case.dataset.prefixes[arrays.checkpoint_pct].vectors
        # Those of training, and one that it did not see.
        for session_types in (case.session_types(arrays.checkpoint_pct), ["unheard of"] * len(vectors)):
            reference, model = Reference(arrays), case.library.prefix_model(arrays.checkpoint_pct)
            inputs = reference.inputs(vectors, session_types)
            online = [model.inputs(v, name) for v, name in zip(vectors, session_types, strict=True)]
            np.testing.assert_allclose(np.array(online)[:, 1:], inputs, rtol=1e-12, atol=1e-12)
            expected = reference.probabilities(inputs)
            assigned = [
                classifier.classify(v, arrays.checkpoint_pct, name)
                for v, name in zip(vectors, session_types, strict=True)
            ]
            found = np.array([list(assignment.probabilities.values()) for assignment in assigned])
            np.testing.assert_allclose(found, expected, rtol=1e-8, atol=1e-12)
            assert [assignment.archetype_id for assignment in assigned] == reference.labels(inputs)
            assert [assignment.confidence for assignment in assigned] == found.max(axis=1).tolist()
            at_once = predict_membership(arrays.membership, make_inputs(arrays.inputs, vectors, session_types))
            np.testing.assert_allclose(found, at_once, rtol=1e-8, atol=1e-12)
            n_judged += len(vectors)
    assert n_judged > 50


def assert_forecasts_are_those_of_all_sessions_at_once(case: Trained) -> None:
    for arrays in case.trained.metadata.prefix_models:
        model = case.library.prefix_model(arrays.checkpoint_pct)
        vectors = case.dataset.prefixes[arrays.checkpoint_pct].vectors
        session_types = case.session_types(arrays.checkpoint_pct)
        reference = Reference(arrays)
        outcomes, ranges = reference.forecast(vectors, reference.inputs(vectors, session_types))
        for vector, session_type, outcome, expected in zip(vectors, session_types, outcomes, ranges, strict=True):
            assert_forecast_is(model, vector, session_type, outcome, expected)


def assert_forecast_is(
    model: PrefixModel, vector: Array, session_type: str, outcomes: Array, final_range_pct: Array
) -> None:
    inputs = model.inputs(vector, session_type)
    found = model.forecast_rest(vector, inputs, model.probabilities(inputs))
    np.testing.assert_allclose(found.outcomes, outcomes, rtol=1e-8, atol=1e-10)
    assert found.final_range_pct is not None
    np.testing.assert_allclose(found.final_range_pct, final_range_pct, rtol=1e-8, atol=1e-10)


def test_prefix_model_of_simulated_sessions_is_that_of_scikit_learn(simulated: Trained) -> None:
    assert_prefix_model_is_that_of_scikit_learn(simulated)


def test_prefix_model_of_real_sessions_is_that_of_scikit_learn(real: Trained) -> None:
    assert_prefix_model_is_that_of_scikit_learn(real)


def test_forecasts_of_simulated_sessions_are_those_of_all_at_once(simulated: Trained) -> None:
    assert_forecasts_are_those_of_all_sessions_at_once(simulated)


def test_forecasts_of_real_sessions_are_those_of_all_at_once(real: Trained) -> None:
    assert_forecasts_are_those_of_all_sessions_at_once(real)
