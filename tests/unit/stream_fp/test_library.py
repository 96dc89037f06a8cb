from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from stream_fp import library as library_module
from stream_fp.errors import FeatureDimensionError, ModelLoadError, ModelNotFoundError
from stream_fp.features import FEATURE_NAMES, N_FEATURES
from stream_fp.library import load_library
from tests.support.builders import tiny_metadata, tiny_stats, write_library, write_tiny_library

if TYPE_CHECKING:
    from collections.abc import Callable

FILES = ("metadata.json", "cluster_stats.json", "kmeans_model.pkl", "scaler.pkl")
FAILED = "Failed to load clustering artifacts: "
VERIFY = "Please verify the offline library build completed successfully."


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return write_tiny_library(tmp_path / "v0.0.1")


def load_error(path: Path) -> str:
    with pytest.raises(ModelLoadError) as caught:
        load_library(path)
    text = str(caught.value)
    assert isinstance(caught.value, RuntimeError)
    assert text.startswith(FAILED)
    assert text.endswith(f"\n{VERIFY}")
    return text


def test_valid_library_is_loaded(directory: Path) -> None:
    library, metadata = load_library(directory), tiny_metadata()
    assert (library.path, library.version) == (directory, "0.0.1")
    assert library.centroids.shape == (3, 30)
    np.testing.assert_array_equal(library.centroids, metadata["centroids"])
    np.testing.assert_array_equal(library.center, metadata["scaler"]["center"])
    assert [model.checkpoint_pct for model in library.prefix_models] == [30.0, 50.0]
    assert library.prefix_models[0].precision is not None
    assert library.prefix_models[1].precision is None
    assert sorted(library.archetypes) == [0, 1, 2]
    assert library.typical_events == {"ny_am": 60.0}
    assert {"ny_am", "asia", "london"} <= set(library.schedules)


def test_fingerprint_changes_with_the_metadata(tmp_path: Path, directory: Path) -> None:
    other = write_library(tmp_path / "other", {**tiny_metadata(), "seed": 8}, tiny_stats())
    same = write_tiny_library(tmp_path / "same")
    assert load_library(same).fingerprint == load_library(directory).fingerprint
    assert load_library(other).fingerprint != load_library(directory).fingerprint
    assert len(load_library(directory).fingerprint) == 16


@pytest.mark.parametrize(
    ("checkpoint_pct", "used"), [(30.0, 30.0), (1.0, 30.0), (40.0, 30.0), (40.1, 50.0), (99.0, 50.0)]
)
def test_prefix_model_of_the_nearest_checkpoint_is_given(directory: Path, checkpoint_pct: float, used: float) -> None:
    assert load_library(directory).prefix_model(checkpoint_pct).checkpoint_pct == used


def test_missing_directory_is_said_word_for_word(tmp_path: Path) -> None:
    path = tmp_path / "none"
    with pytest.raises(ModelNotFoundError) as caught:
        load_library(path)
    assert isinstance(caught.value, FileNotFoundError)
    assert str(caught.value) == (
        f"Model path does not exist: {path}\n"
        "Please ensure the offline library has been built (Stage 2) before enabling online classification."
    )


def test_file_in_place_of_the_directory_counts_as_missing(directory: Path) -> None:
    with pytest.raises(ModelNotFoundError):
        load_library(directory / "metadata.json")


@pytest.mark.parametrize("name", FILES)
def test_missing_file_is_named(directory: Path, name: str) -> None:
    (directory / name).unlink()
    assert f"{name}: No such file" in load_error(directory)


@pytest.mark.parametrize("name", FILES)
def test_directory_in_place_of_a_file_is_named(directory: Path, name: str) -> None:
    (directory / name).unlink()
    (directory / name).mkdir()
    assert f"{name}: Is a directory" in load_error(directory)


@pytest.mark.parametrize("name", FILES)
def test_symlink_to_itself_is_named(directory: Path, name: str) -> None:
    (directory / name).unlink()
    (directory / name).symlink_to(name)
    assert f"{name}: " in load_error(directory)


@pytest.mark.parametrize("name", FILES)
def test_symlink_to_the_right_content_is_followed(directory: Path, tmp_path: Path, name: str) -> None:
    moved = (directory / name).rename(tmp_path / name)
    (directory / name).symlink_to(moved)
    assert load_library(directory).version == "0.0.1"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
@pytest.mark.parametrize("name", FILES)
def test_unreadable_file_is_named(directory: Path, name: str) -> None:
    (directory / name).chmod(0)
    assert f"{name}: Permission denied" in load_error(directory)


@pytest.mark.parametrize("name", ["cluster_stats.json", "kmeans_model.pkl", "scaler.pkl"])
def test_changed_file_has_another_hash_than_the_metadata_says(directory: Path, name: str) -> None:
    path = directory / name
    path.write_bytes(path.read_bytes() + b" ")
    assert f"{name}: expected SHA-256 " in load_error(directory)


@pytest.mark.parametrize("name", ["cluster_stats.json", "kmeans_model.pkl", "scaler.pkl"])
def test_metadata_without_the_hash_of_a_file_is_refused(directory: Path, name: str) -> None:
    path = directory / "metadata.json"
    metadata = json.loads(path.read_bytes())
    del metadata["sha256"][name]
    path.write_text(json.dumps(metadata))
    assert f"expected a SHA-256 of {name}, got none" in load_error(directory)


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"null", b"{}", b"\xff", b"[" * 100_000, b'{"model_version": 1}']
)
def test_metadata_of_another_shape_is_refused(directory: Path, content: bytes) -> None:
    (directory / "metadata.json").write_bytes(content)
    assert "metadata.json: " in load_error(directory)


def test_json_cut_short_anywhere_is_refused(directory: Path) -> None:
    path = directory / "metadata.json"
    whole = path.read_bytes()
    for n in range(0, len(whole), len(whole) // 40):
        path.write_bytes(whole[:n])
        assert "metadata.json: " in load_error(directory)


def test_file_far_too_large_is_refused_unread(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library_module, "MAX_JSON_BYTES", 100)
    assert "metadata.json: expected at most 100 bytes" in load_error(directory)


@pytest.mark.parametrize("literal", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_number_that_is_not_finite_is_refused(directory: Path, literal: str) -> None:
    path = directory / "metadata.json"
    text = path.read_text()
    number = repr(json.loads(text)["centroids"][1][4])
    assert number in text
    path.write_text(text.replace(number, literal, 1))
    load_error(directory)


def spoil_features(metadata: dict[str, Any]) -> None:
    metadata["feature_names"] = metadata["feature_names"][:17]


def spoil_centroids(metadata: dict[str, Any]) -> None:
    metadata["centroids"] = [row[:17] for row in metadata["centroids"]]


def spoil_scaler(metadata: dict[str, Any]) -> None:
    metadata["scaler"]["scale"] = metadata["scaler"]["scale"][:17]


def spoil_prefix(metadata: dict[str, Any]) -> None:
    model = metadata["prefix_models"][0]
    model["centroids"] = [row[:17] for row in model["centroids"]]


def spoil_precision(metadata: dict[str, Any]) -> None:
    model = metadata["prefix_models"][1]
    model["precision"] = [row[:17] for row in model["precision"][:17]]


@pytest.mark.parametrize("spoil", [spoil_features, spoil_centroids, spoil_scaler, spoil_prefix, spoil_precision])
def test_seventeen_features_are_said_word_for_word(tmp_path: Path, spoil: Callable[[dict[str, Any]], None]) -> None:
    metadata = tiny_metadata()
    spoil(metadata)
    with pytest.raises(FeatureDimensionError) as caught:
        load_library(write_library(tmp_path, metadata, tiny_stats()))
    assert isinstance(caught.value, ValueError)
    assert str(caught.value) == (
        "Feature dimension mismatch: expected 30D, got 17D\n"
        "Please rebuild offline library with matching feature extraction configuration."
    )
    assert (caught.value.expected, caught.value.got) == (30, 17)


def changed(path: tuple[str | int, ...], value: object) -> Callable[[dict[str, Any]], None]:
    def change(document: dict[str, Any]) -> None:
        target: Any = document
        for step in path[:-1]:
            target = target[step]
        target[path[-1]] = value

    return change


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (changed(("feature_schema_version",), 99), "schema 99"),
        (changed(("feature_names",), list(reversed(FEATURE_NAMES))), "other names or order"),
        (changed(("prefix_models",), []), "at least one prefix model"),
        (changed(("n_archetypes",), 4), "expected archetypes 0 to 3"),
        (changed(("centroids",), []), "centroids: expected shape (3, 30)"),
        (changed(("centroids", 0, 0), "x"), "Expected `float`, got `str` - at `$.centroids[0][0]`"),
        (changed(("scaler", "scale", 3), 0.0), "scaler.scale: expected numbers above 0"),
        (changed(("scaler", "scale", 3), -1.0), "scaler.scale: expected numbers above 0"),
        (changed(("prefix_models", 0, "scaler", "scale", 0), 0.0), "prefix model of 50 %.scale"),
        (changed(("prefix_models", 0, "archetype_ids"), [0, 1, 3]), "known archetypes"),
        (changed(("prefix_models", 0, "archetype_ids"), [1, 0, 2]), "ascending order"),
        (changed(("prefix_models", 0, "archetype_ids"), [0, 0, 1]), "ascending order"),
        (changed(("prefix_models", 0, "archetype_ids"), []), "known archetypes"),
        (changed(("prefix_models", 0, "archetype_ids"), [0, 1]), "expected shape (2, 30)"),
        (changed(("prefix_models", 0, "centroids"), [[0.0] * 30] * 2), "expected shape (3, 30)"),
        (changed(("prefix_models", 0, "centroids", 1), [0.0] * 29), "prefix model of 50 %"),
        (changed(("prefix_models", 1, "precision"), [[0.0] * 30] * 29), "expected shape (30, 30)"),
        (changed(("prefix_models", 0, "temperatures"), {"euclidean": 0.0}), "temperatures above 0"),
        (changed(("schedules", "ny_am", "start"), "noon"), "expected a time of day"),
        (changed(("schedules", "ny_am", "timezone"), "Nowhere"), "expected an IANA time zone"),
        (changed(("schedules", "ny_am"), {"start": "10:00"}), "schedules: "),
        (changed(("training",), None), "$.training"),
    ],
)
def test_damaged_metadata_is_refused_with_what_was_expected(
    tmp_path: Path, spoil: Callable[[dict[str, Any]], None], words: str
) -> None:
    metadata = tiny_metadata()
    spoil(metadata)
    assert words in load_error(write_library(tmp_path, metadata, tiny_stats()))


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (changed(("archetypes",), []), "expected archetypes 0 to 2, got []"),
        (changed(("archetypes", 1, "archetype_id"), 2), "expected archetypes 0 to 2"),
        (changed(("archetypes", 1, "archetype_id"), 7), "expected archetypes 0 to 2"),
        (changed(("archetypes", 0, "natural_units"), {}), "$.archetypes[0].natural_units"),
        (changed(("archetypes", 0, "range_p50"), None), "$.archetypes[0].range_p50"),
    ],
)
def test_damaged_statistics_are_refused_with_what_was_expected(
    tmp_path: Path, spoil: Callable[[dict[str, Any]], None], words: str
) -> None:
    stats = tiny_stats()
    spoil(stats)
    assert words in load_error(write_library(tmp_path, tiny_metadata(), stats))


def test_arrays_of_a_library_have_the_length_of_the_features(directory: Path) -> None:
    library = load_library(directory)
    assert library.scale.shape == (N_FEATURES,)
    for model in library.prefix_models:
        assert model.center.shape == model.scale.shape == (N_FEATURES,)
        assert model.centroids.shape == (len(model.archetype_ids), N_FEATURES)
