"""Training: what the library says follows from the sessions, and the same sessions give the same bytes."""

from __future__ import annotations

import dataclasses
import json
from datetime import date, timedelta
from pathlib import Path

import joblib
import msgspec
import numpy as np
import numpy.typing as npt
import pytest
from sklearn.covariance import LedoitWolf

from offline.artifacts import check_output, write_library
from offline.dataset import Dataset, Prefixes, load_dataset
from offline.prefix_models import guess_agreement
from offline.simulate import interleave, simulate_sessions
from offline.train import TrainedLibrary, TrainingOptions, train
from stream_fp.completion import DEFAULT_SCHEDULES
from stream_fp.errors import ConfigError, DocumentError
from stream_fp.features import FEATURE_NAMES, N_FEATURES, RANGE
from stream_fp.library import load_library
from stream_fp.prefix_model import OUTCOMES
from stream_fp.rest import N_PATH_POINTS

Array = npt.NDArray[np.float64]
FILES = ["cluster_stats.json", "kmeans_model.pkl", "metadata.json", "scaler.pkl"]


def prefixes_of(rows: npt.NDArray[np.int64], vectors: Array) -> Prefixes:
    """Prefixes of which nothing is known afterwards but the number of events."""
    rests = np.full((len(rows), len(OUTCOMES)), np.nan)
    rests[:, 2] = np.log(20.0)
    return Prefixes(rows=rows, vectors=vectors, rests=rests)


def dataset_of(full: Array, prefixes: dict[float, Prefixes] | None = None) -> Dataset:
    """Sessions with given features, one a day."""
    n = len(full)
    if prefixes is None:
        prefixes = {30.0: prefixes_of(np.arange(n), full * 0.5)}
    days = [(date(2025, 1, 1) + timedelta(days=i)).isoformat() for i in range(n)]
    return Dataset(
        session_ids=tuple(f"NY_AM_{day}" for day in days),
        session_types=tuple("ny_am" if i % 3 else "asia" for i in range(n)),
        dates=tuple(days),
        starts_us=np.arange(n, dtype=np.int64),
        n_events=np.full(n, 40, dtype=np.int64),
        full=full,
        paths=np.zeros((n, N_PATH_POINTS)),
        prefixes=prefixes,
        completion="auto",
        min_events=5,
        schedules=DEFAULT_SCHEDULES,
        typical_events={"ny_am": 40.0},
        n_unfinished=0,
        skipped={},
        remarks=(),
    )


def blobs(n: int, n_blobs: int, seed: int = 0) -> tuple[Array, npt.NDArray[np.int64]]:
    """Positive features around `n_blobs` centres, in turn, with the range falling from one to the next."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % n_blobs
    centers = rng.uniform(5.0, 10.0, (n_blobs, N_FEATURES))
    centers[:, RANGE] = np.arange(n_blobs, 0, -1)
    return centers[labels] + rng.normal(0.0, 0.1, (n, N_FEATURES)), labels


@pytest.fixture(scope="module")
def simulated_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("simulated") / "sessions.jsonl"
    messages = interleave(simulate_sessions(140, seed=11))
    path.write_text("".join(json.dumps(message) + "\n" for message in messages))
    return path


@pytest.fixture(scope="module")
def dataset(simulated_file: Path) -> Dataset:
    return load_dataset(simulated_file)


@pytest.fixture(scope="module")
def trained(dataset: Dataset) -> TrainedLibrary:
    return train(dataset, TrainingOptions(model_version="1.0.2"))


def test_archetypes_are_numbered_by_ascending_median_range(dataset: Dataset, trained: TrainedLibrary) -> None:
    medians = [float(np.median(dataset.range_pct[trained.labels == label])) for label in range(4)]
    assert medians == sorted(medians)
    assert [stats.archetype_id for stats in trained.stats.archetypes] == [0, 1, 2, 3]


def test_separate_groups_become_archetypes_in_order_of_range() -> None:
    full, labels = blobs(60, 4)
    trained = train(dataset_of(full), TrainingOptions(model_version="1", profile="all", n_archetypes=4))
    assert trained.labels.tolist() == (3 - labels).tolist()


@pytest.mark.parametrize("seed", [1, 2])
def test_another_seed_finds_the_same_separate_groups(seed: int) -> None:
    full, labels = blobs(60, 4)
    trained = train(dataset_of(full), TrainingOptions(model_version="1", profile="all", n_archetypes=4, seed=seed))
    assert trained.labels.tolist() == (3 - labels).tolist()


def test_pickled_models_predict_the_archetype_ids(dataset: Dataset, trained: TrainedLibrary, tmp_path: Path) -> None:
    write_library(trained, tmp_path / "v1")
    # The service never reads these two; who does, reads what was written a line before.
    kmeans, scaler = (joblib.load(tmp_path / "v1" / name) for name in ("kmeans_model.pkl", "scaler.pkl"))
    assert kmeans.predict(scaler.transform(dataset.full)).tolist() == trained.labels.tolist()
    assert kmeans.labels_.tolist() == trained.labels.tolist()


def test_more_archetypes_than_sessions_names_both_numbers(dataset: Dataset) -> None:
    with pytest.raises(ConfigError, match=r"at most 8.*got 9"):
        train(dataset.select(np.arange(8)), TrainingOptions(model_version="1", n_archetypes=9))


def test_equal_sessions_are_no_archetypes() -> None:
    full = np.repeat(blobs(2, 2)[0], 10, axis=0)
    with pytest.raises(ConfigError, match=r"at most 2.*got 3"):
        train(dataset_of(full), TrainingOptions(model_version="1", profile="all", n_archetypes=3))


def test_robust_scaler_says_which_features_it_scales_otherwise() -> None:
    vectors = blobs(40, 2)[0]
    vectors[:, 4] = 0.0
    vectors[:6, 4] = 50.0
    trained = train(
        dataset_of(vectors), TrainingOptions(model_version="1", profile="all", n_archetypes=2, scaler="robust")
    )
    assert any(note.startswith(FEATURE_NAMES[4]) for note in trained.notes)
    assert trained.metadata.scaler.scale[4] == pytest.approx(vectors[:, 4].std())


@pytest.mark.parametrize("n_before", [130, 180])
def test_sessions_after_the_period_change_nothing_that_is_learned(n_before: int, tmp_path: Path) -> None:
    """The file of the whole year and the one that ends with the period give the same library."""
    sessions = list(simulate_sessions(220, seed=8))
    last_date = sessions[n_before - 1].session_id[-10:]
    files = {
        "past": [session for session in sessions if session.session_id[-10:] <= last_date],
        "whole": sessions,
    }
    learned = []
    for name, told in files.items():
        path = tmp_path / f"{name}.jsonl"
        path.write_text("".join(json.dumps(message) + "\n" for message in interleave(told)))
        dataset = load_dataset(path, checkpoints_pct=(30.0, 50.0), last_date=last_date)
        metadata = train(dataset, TrainingOptions(model_version="1")).metadata
        # What was left out is counted by file, not by period.
        training = msgspec.structs.replace(metadata.training, n_skipped={})
        learned.append(msgspec.json.encode(msgspec.structs.replace(metadata, training=training)))
    assert learned[0] == learned[1]


def test_checkpoint_that_was_not_cut_is_refused(dataset: Dataset) -> None:
    with pytest.raises(ConfigError, match=r"25, 30, 40, 50.*got 35"):
        train(dataset, TrainingOptions(model_version="1", checkpoints_pct=(30.0, 35.0)))


def test_some_checkpoints_of_the_dataset_can_be_learned(dataset: Dataset) -> None:
    trained = train(dataset, TrainingOptions(model_version="1", checkpoints_pct=(50.0, 30.0)))
    assert [model.checkpoint_pct for model in trained.metadata.prefix_models] == [30.0, 50.0]


def test_checkpoint_that_no_session_reached_is_left_out_with_a_note() -> None:
    full, _ = blobs(30, 2)
    nothing = prefixes_of(np.empty(0, dtype=np.int64), np.empty((0, N_FEATURES)))
    reached = {30.0: prefixes_of(np.arange(30), full), 50.0: nothing}
    trained = train(dataset_of(full, reached), TrainingOptions(model_version="1", profile="all", n_archetypes=2))
    assert [model.checkpoint_pct for model in trained.metadata.prefix_models] == [30.0]
    assert any(note.startswith("50% checkpoint: left out") for note in trained.notes)


def test_no_checkpoint_reached_at_all_is_an_error() -> None:
    full, _ = blobs(30, 2)
    nothing = {30.0: prefixes_of(np.empty(0, dtype=np.int64), np.empty((0, N_FEATURES)))}
    with pytest.raises(DocumentError, match="reach a checkpoint"):
        train(dataset_of(full, nothing), TrainingOptions(model_version="1", n_archetypes=2))


def test_archetype_without_prefix_is_left_out_of_the_checkpoint() -> None:
    full, labels = blobs(60, 3)
    rows = np.flatnonzero(labels != 1)
    trained = train(
        dataset_of(full, {30.0: prefixes_of(rows, full[rows])}),
        TrainingOptions(model_version="1", n_archetypes=3, profile="all"),
    )
    model = trained.metadata.prefix_models[0]
    assert model.archetype_ids == [0, 2]
    assert len(model.centroids) == 2
    assert any("no session of archetype 1" in note for note in trained.notes)


def test_prefix_model_holds_class_means_and_the_inverse_of_the_shrunk_covariance(dataset: Dataset) -> None:
    trained = train(dataset, TrainingOptions(model_version="1", checkpoints_pct=(30.0,)))
    model, cut = trained.metadata.prefix_models[0], dataset.prefixes[30.0]
    scaled = (cut.vectors - model.scaler.center) / model.scaler.scale
    labels = trained.labels[cut.rows]
    means = np.array([scaled[labels == label].mean(axis=0) for label in model.archetype_ids])
    np.testing.assert_allclose(model.centroids, means, atol=1e-12)
    residuals = scaled - means[np.searchsorted(model.archetype_ids, labels)]
    weights = np.array(trained.metadata.feature_weights)
    covariance = LedoitWolf(assume_centered=True).fit(residuals / weights).covariance_
    unweighted = np.array(model.precision) * np.outer(weights, weights)
    np.testing.assert_allclose(unweighted @ covariance, np.eye(N_FEATURES), atol=1e-9)
    assert model.precision is not None
    assert np.array_equal(np.array(model.precision), np.array(model.precision).T)
    assert 0 <= (model.covariance_shrinkage or 0) <= 1


def test_guess_from_an_unseen_type_is_the_most_frequent_archetype() -> None:
    types = ["asia"] * 8 + ["lunch"] * 2
    assert guess_agreement(types, np.array([1] * 10), np.arange(10) * 9) == 1.0
    assert guess_agreement(types, np.array([1] * 8 + [0] * 2), np.arange(10) * 9) == 0.8


def test_statistics_describe_the_members(dataset: Dataset, trained: TrainedLibrary) -> None:
    for stats in trained.stats.archetypes:
        members = trained.labels == stats.archetype_id
        ranges = dataset.range_pct[members]
        units = stats.natural_units
        assert stats.n_sessions == members.sum()
        found = (units.range_pct.p10, units.range_pct.p50, units.range_pct.p90)
        np.testing.assert_allclose(found, np.quantile(ranges, (0.1, 0.5, 0.9)), atol=1e-4)
        assert sum(stats.session_type_probabilities.values()) == pytest.approx(1.0, abs=1e-3)
        assert set(stats.session_type_probabilities) == set(np.array(dataset.session_types)[members])
        assert stats.dominant_htf_regime == dataset.regime_shares[members].mean(axis=0).argmax()
        scores = [z for _, z in stats.top_phases]
        assert scores == sorted(scores, reverse=True)
        assert len(scores) <= 3
        weights = np.array(trained.metadata.feature_weights)
        median = np.median((trained.scaler.transform(dataset.full) / weights)[members, RANGE])
        assert stats.range_p50 == pytest.approx(median, abs=1e-4)


def test_volatility_classes_follow_the_terciles_of_all_sessions() -> None:
    full, _ = blobs(90, 3)
    stats = train(dataset_of(full), TrainingOptions(model_version="1", profile="all", n_archetypes=3)).stats.archetypes
    assert [archetype.volatility_class for archetype in stats] == ["low", "medium", "high"]


def test_phase_that_never_occurs_is_no_top_phase() -> None:
    full, _ = blobs(40, 2)
    full[:, 2:6] = 0.0
    stats = train(dataset_of(full), TrainingOptions(model_version="1", profile="all", n_archetypes=2)).stats.archetypes
    assert {name for archetype in stats for name, _ in archetype.top_phases} == {"fvg_interaction", "expansion_phase"}


def test_sessions_without_regime_count_as_normal() -> None:
    full, _ = blobs(40, 2)
    full[:, 6:9] = 0.0
    stats = train(dataset_of(full), TrainingOptions(model_version="1", profile="all", n_archetypes=2)).stats.archetypes
    assert [archetype.dominant_htf_regime for archetype in stats] == [1, 1]


def test_written_library_is_what_the_service_loads(dataset: Dataset, trained: TrainedLibrary, tmp_path: Path) -> None:
    metadata = write_library(trained, tmp_path / "models" / "v1.0.2")
    library = load_library(tmp_path / "models" / "v1.0.2")
    assert sorted(path.name for path in library.path.iterdir()) == FILES
    assert library.version == "1.0.2"
    assert np.array_equal(library.centroids, trained.kmeans.cluster_centers_)
    assert np.array_equal((dataset.full - library.center) / library.scale, trained.scaler.transform(dataset.full))
    assert [model.checkpoint_pct for model in library.prefix_models] == [25.0, 30.0, 40.0, 50.0]
    assert library.schedules == dataset.schedules
    assert library.typical_events == dataset.typical_events
    assert metadata.training.n_sessions == len(dataset)
    assert metadata.training.n_events == dataset.n_events.sum()
    assert metadata.training.feature_ranges["log_range"] == (dataset.full[:, RANGE].min(), dataset.full[:, RANGE].max())
    assert set(metadata.libraries) >= {"python", "numpy", "scikit-learn", "joblib", "stream_fp"}


def test_existing_folder_is_refused_without_force(trained: TrainedLibrary, tmp_path: Path) -> None:
    write_library(trained, tmp_path / "v1")
    with pytest.raises(ConfigError, match="--force"):
        write_library(trained, tmp_path / "v1")


def test_forced_writing_replaces_the_library_and_leaves_nothing_behind(
    dataset: Dataset, trained: TrainedLibrary, tmp_path: Path
) -> None:
    write_library(trained, tmp_path / "v1")
    write_library(
        train(dataset, TrainingOptions(model_version="2", n_archetypes=3, profile="pace", checkpoints_pct=(30.0,))),
        tmp_path / "v1",
        force=True,
    )
    assert load_library(tmp_path / "v1").version == "2"
    assert [path.name for path in tmp_path.iterdir()] == ["v1"]


def test_forced_writing_never_replaces_a_folder_of_other_files(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(ConfigError, match=r"thesis\.txt"):
        check_output(tmp_path, force=True)


def test_failed_writing_leaves_nothing_behind(trained: TrainedLibrary, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="output"):
        write_library(trained, tmp_path / "file" / "v1")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_same_input_gives_the_same_bytes_for_any_number_of_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1753799700")
    sessions = list(simulate_sessions(70, seed=2))
    for number in range(5):
        messages = interleave(sessions[number::5])
        path = tmp_path / "input" / f"{number}.jsonl"
        path.parent.mkdir(exist_ok=True)
        path.write_text("".join(json.dumps(message) + "\n" for message in messages))
    for name, n_jobs in (("a", 1), ("b", 1), ("c", 2)):
        dataset = load_dataset(tmp_path / "input", n_jobs=n_jobs)
        write_library(train(dataset, TrainingOptions(model_version="1")), tmp_path / name)
    first, *others = ({name: (tmp_path / run / name).read_bytes() for name in FILES} for run in "abc")
    assert json.loads(first["metadata.json"])["created_at"] == "2025-07-29T14:35:00Z"
    assert all(other == first for other in others)


def test_without_the_variable_only_the_time_of_creation_differs(
    trained: TrainedLibrary, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SOURCE_DATE_EPOCH", raising=False)
    now = write_library(trained, tmp_path / "now")
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "0")
    then = write_library(trained, tmp_path / "then")
    assert now.created_at > then.created_at == "1970-01-01T00:00:00Z"
    assert now.sha256 == then.sha256


@pytest.mark.parametrize("value", ["yesterday", "99999999999999999999"])
def test_unreadable_source_date_is_refused(
    trained: TrainedLibrary, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", value)
    with pytest.raises(ConfigError, match="SOURCE_DATE_EPOCH"):
        write_library(trained, tmp_path / "v1")


def test_labels_and_vectors_stay_aligned_when_sessions_are_missing_at_a_checkpoint(dataset: Dataset) -> None:
    rows = dataset.prefixes[25.0].rows
    assert len(rows) < len(dataset)
    reversed_types = dataclasses.replace(dataset, session_types=dataset.session_types[::-1])
    left, right = (train(data, TrainingOptions(model_version="1")) for data in (dataset, reversed_types))
    for one, other in zip(left.metadata.prefix_models, right.metadata.prefix_models, strict=True):
        assert (one.centroids, one.precision) == (other.centroids, other.precision)


def test_real_documents_give_a_library(real_sessions_dir: Path, tmp_path: Path) -> None:
    dataset = load_dataset(real_sessions_dir)
    trained = train(dataset, TrainingOptions(model_version="1"))
    write_library(trained, tmp_path / "v1")
    library = load_library(tmp_path / "v1")
    assert len(library.archetypes) == 4
    assert sum(stats.n_sessions for stats in library.archetypes.values()) == len(dataset)
    assert all(model.precision is not None for model in library.prefix_models)
