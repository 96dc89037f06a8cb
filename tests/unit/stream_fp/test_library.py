from __future__ import annotations

import errno
import hashlib
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import joblib
import numpy as np
import pytest

from stream_fp import library as library_module
from stream_fp.classifier import Classifier
from stream_fp.disk import may_pass
from stream_fp.errors import FeatureDimensionError, ModelLoadError, ModelNotFoundError
from stream_fp.features import FEATURE_NAMES, N_FEATURES
from stream_fp.library import load_library, load_metadata
from stream_fp.prefix_model import OUTCOMES
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


def test_folder_that_is_away_is_an_error_that_may_pass(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(_: Path) -> bool:
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))

    monkeypatch.setattr(Path, "is_dir", gone)
    with pytest.raises(ModelLoadError, match="Stale file handle") as caught:
        load_library(directory)
    cause = caught.value.__cause__
    assert isinstance(cause, OSError)
    assert may_pass(cause)


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


@pytest.mark.parametrize(
    ("one", "other"), [("kmeans_model.pkl", "scaler.pkl"), ("cluster_stats.json", "metadata.json")]
)
def test_files_that_were_exchanged_are_refused(directory: Path, one: str, other: str) -> None:
    contents = [(directory / name).read_bytes() for name in (one, other)]
    for name, content in zip((other, one), contents, strict=True):
        (directory / name).write_bytes(content)
    load_error(directory)


@pytest.mark.parametrize("name", FILES)
def test_file_of_another_library_is_refused(directory: Path, tmp_path: Path, name: str) -> None:
    other = write_library(tmp_path / "other", {**tiny_metadata(), "created_at": "another day"}, tiny_stats())
    for pickle_file in ("kmeans_model.pkl", "scaler.pkl"):
        write_bomb(other / pickle_file, tmp_path / "of the other library")
    stats = other / "cluster_stats.json"
    stats.write_bytes(stats.read_bytes() + b" ")
    seal(other)
    load_library(other)
    (directory / name).write_bytes((other / name).read_bytes())
    load_error(directory)


def test_pickle_that_would_do_harm_is_never_opened(directory: Path, tmp_path: Path) -> None:
    harm = tmp_path / "harm"
    for name in ("kmeans_model.pkl", "scaler.pkl"):
        write_bomb(directory / name, harm)
    load_error(directory)  # the hashes are those of the former files
    seal(directory)
    classifier = Classifier(load_library(directory))
    classifier.classify(np.zeros(N_FEATURES), 30.0)
    load_metadata(directory)
    assert not harm.exists()
    joblib.load(directory / "scaler.pkl")
    assert harm.exists()  # it would have been done


class Bomb:
    """Pickled, it makes a folder when it is opened."""

    def __init__(self, harm: Path) -> None:
        self.harm = harm

    def __reduce__(self) -> tuple[Any, ...]:
        return os.makedirs, (str(self.harm), 0o777, True)


def write_bomb(path: Path, harm: Path) -> None:
    joblib.dump(Bomb(harm), path)


def seal(directory: Path) -> None:
    """Let the metadata say the hashes that the files have now."""
    path = directory / "metadata.json"
    metadata = json.loads(path.read_bytes())
    metadata["sha256"] = {name: hashlib.sha256((directory / name).read_bytes()).hexdigest() for name in FILES[1:]}
    path.write_text(json.dumps(metadata))


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
        (changed(("prefix_models", 0, "temperatures"), {"euclidean": 5e-324}), "temperatures above 0"),
        (changed(("schedules", "ny_am", "start"), "noon"), "expected a time of day"),
        (changed(("schedules", "ny_am", "timezone"), "Nowhere"), "expected an IANA time zone"),
        (changed(("schedules", "ny_am"), {"start": "10:00"}), "schedules: "),
        (changed(("training",), None), "$.training"),
        (changed(("assignment",), "auto"), "Invalid enum value 'auto' - at `$.assignment`"),
        (changed(("assignment",), None), "$.assignment"),
        (changed(("range_terciles_pct",), [0.8, 0.4]), "expected ascending range terciles, got 0.8 and 0.4"),
        (changed(("range_terciles_pct",), [-0.1, 0.4]), "expected ascending range terciles, got -0.1 and 0.4"),
        (changed(("range_terciles_pct",), [0.4, 1e30]), "expected ascending range terciles"),
        (changed(("range_terciles_pct",), [0.4]), "$.range_terciles_pct"),
        (changed(("range_terciles_pct",), None), "$.range_terciles_pct"),
        (changed(("feature_weights", 3), 0.0), "feature_weights: expected numbers above 0"),
        (changed(("feature_weights", 3), -1.0), "feature_weights: expected numbers above 0"),
        (changed(("prefix_models", 0, "inputs", "scale", 7), 0.0), "inputs.scale: expected numbers above 0"),
        (changed(("prefix_models", 0, "inputs", "clip"), 0.0), "different session types and a clip above 0"),
        (changed(("prefix_models", 0, "inputs", "clip"), -4.0), "different session types and a clip above 0"),
        (changed(("prefix_models", 0, "inputs", "clip"), 1e30), "different session types and a clip above 0"),
        (changed(("prefix_models", 0, "inputs", "session_types"), ["ny_am", "ny_am"]), "different session types"),
        (changed(("prefix_models", 0, "inputs", "session_types"), ["ny_am"]), "expected shape (32, 3), got (33, 3)"),
        (changed(("prefix_models", 0, "membership", "features"), []), "places of features in ascending order"),
        (changed(("prefix_models", 0, "membership", "features"), [9, 2, 13]), "places of features in ascending order"),
        (changed(("prefix_models", 0, "membership", "features"), [2, 2, 13]), "places of features in ascending order"),
        (changed(("prefix_models", 0, "membership", "features"), [-1, 2, 13]), "places of features in ascending order"),
        (changed(("prefix_models", 0, "membership", "features"), [2, 9, 30]), "places of features in ascending order"),
        (
            changed(("prefix_models", 0, "membership", "features"), [2, 9]),
            "membership.fingerprint: expected shape (33, 2)",
        ),
        (changed(("prefix_models", 0, "rest", "outcomes", 9), "panic"), "expected outcomes of range, volatility"),
        (changed(("prefix_models", 0, "rest", "outcomes", 9), "range"), "expected outcomes of range, volatility"),
        (changed(("prefix_models", 0, "rest", "outcomes"), list(reversed(OUTCOMES))), "expected outcomes of range"),
        (
            changed(("prefix_models", 0, "rest", "outcomes"), list(OUTCOMES[1:])),
            "the outcome range beside its quantiles",
        ),
        (changed(("prefix_models", 0, "rest", "outcomes"), list(OUTCOMES[:9])), "expected shape (36, 9), got (36, 10)"),
        (changed(("prefix_models", 0, "typical_confidence"), 1.2), "typical confidence from 0 to 1, got 1.2"),
        (changed(("prefix_models", 0, "typical_confidence"), -0.1), "typical confidence from 0 to 1, got -0.1"),
        (changed(("prefix_models", 0, "membership"), None), "$.prefix_models[0].membership"),
        (changed(("prefix_models", 0, "rest"), None), "$.prefix_models[0].rest"),
        (changed(("prefix_models", 0, "baselines"), None), "$.prefix_models[0].baselines"),
        (changed(("stability",), None), "$.stability"),
        (changed(("completion",), "guess"), "$.completion"),
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
        (changed(("archetypes", 0, "name"), None), "$.archetypes[0].name"),
        (changed(("archetypes", 0, "natural_units", "efficiency"), None), "natural_units.efficiency"),
        (
            changed(("archetypes", 2, "natural_units", "range_pct", "p10"), 0.6),
            "archetype 2: expected ascending quantiles",
        ),
        (
            changed(("archetypes", 2, "natural_units", "range_pct", "p90"), 0.4),
            "archetype 2: expected ascending quantiles",
        ),
        (changed(("archetypes", 2, "natural_units", "range_pct", "p10"), -0.1), "archetype 2: expected ascending"),
        (changed(("archetypes", 2, "natural_units", "range_pct", "p90"), 1e300), "archetype 2: expected ascending"),
    ],
)
def test_damaged_statistics_are_refused_with_what_was_expected(
    tmp_path: Path, spoil: Callable[[dict[str, Any]], None], words: str
) -> None:
    stats = tiny_stats()
    spoil(stats)
    assert words in load_error(write_library(tmp_path, tiny_metadata(), stats))


class ArrayPlace(NamedTuple):
    """Where an array is in the metadata, what errors call it, and its shape in the tiny library."""

    path: tuple[str | int, ...]
    name: str
    shape: tuple[int, ...]


ARRAYS = (
    ArrayPlace(("feature_weights",), "feature_weights", (30,)),
    *(
        ArrayPlace(("prefix_models", 1, *name.split(".")), f"prefix model of 30 %: {name}", shape)
        for name, shape in {
            "inputs.center": (30,),
            "inputs.scale": (30,),
            "membership.fingerprint": (33, 3),
            "membership.logits": (12, 3),
            "rest.coefficients": (36, 10),
            "rest.quantile_coefficients": (38, 3),
            "rest.quantile_shifts": (3,),
        }.items()
    ),
)
of_each_array = pytest.mark.parametrize("place", ARRAYS, ids=[place.name for place in ARRAYS])


def part_of(document: dict[str, Any], path: tuple[str | int, ...]) -> Any:  # noqa: ANN401 - any part of a JSON document
    part: Any = document
    for step in path:
        part = part[step]
    return part


@of_each_array
def test_array_of_the_tiny_library_has_the_shape_that_is_documented(place: ArrayPlace) -> None:
    assert np.shape(part_of(tiny_metadata(), place.path)) == place.shape


@pytest.mark.parametrize("change", [-1, 1], ids=["shorter", "longer"])
@pytest.mark.parametrize(
    ("place", "axis"),
    [
        pytest.param(place, axis, id=f"{place.name}, axis {axis}")
        for place in ARRAYS
        for axis in range(len(place.shape))
    ],
)
def test_array_of_another_shape_is_refused_with_both_shapes(
    tmp_path: Path, place: ArrayPlace, change: int, axis: int
) -> None:
    metadata = tiny_metadata()
    array = np.array(part_of(metadata, place.path))
    bent = np.delete(array, -1, axis) if change < 0 else np.append(array, np.take(array, [0], axis), axis)
    changed(place.path, bent.tolist())(metadata)
    directory = write_library(tmp_path, metadata, tiny_stats())
    if place.shape == (N_FEATURES,):
        with pytest.raises(FeatureDimensionError, match=f"got {N_FEATURES + change}D"):
            load_library(directory)
    else:
        assert f"metadata.json: {place.name}: expected shape {place.shape}, got {bent.shape}" in load_error(directory)


@pytest.mark.parametrize("place", [place for place in ARRAYS if len(place.shape) == 2], ids=lambda place: place.name)
def test_ragged_array_is_refused_by_name(tmp_path: Path, place: ArrayPlace) -> None:
    metadata = tiny_metadata()
    part_of(metadata, place.path)[1].pop()
    assert f"metadata.json: {place.name}: " in load_error(write_library(tmp_path, metadata, tiny_stats()))


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (float("nan"), "malformed"),
        (float("inf"), "malformed"),
        (None, "Expected `float`, got `null` - at `$."),
        ("1", "Expected `float`, got `str` - at `$."),
        (1.1e30, "{name}: expected finite numbers of at most 1e+30 only"),
        (-1.1e30, "{name}: expected finite numbers of at most 1e+30 only"),
    ],
)
@of_each_array
def test_number_that_comes_from_no_data_is_refused(
    tmp_path: Path, place: ArrayPlace, number: object, words: str
) -> None:
    metadata = tiny_metadata()
    changed((*place.path, *(size - 1 for size in place.shape)), number)(metadata)
    error = load_error(write_library(tmp_path, metadata, tiny_stats()))
    assert words.format(name=place.name) in error


@pytest.mark.parametrize("assignment", ["prefix_model", "prefix_centroid", "full_centroid"])
def test_recommended_assignment_is_that_of_the_metadata(tmp_path: Path, assignment: str) -> None:
    directory = write_library(tmp_path, {**tiny_metadata(), "assignment": assignment}, tiny_stats())
    assert load_library(directory).assignment == assignment


def test_equal_terciles_are_accepted(tmp_path: Path) -> None:
    directory = write_library(tmp_path, {**tiny_metadata(), "range_terciles_pct": [0.0, 0.0]}, tiny_stats())
    assert load_library(directory).range_terciles_pct == (0.0, 0.0)


def test_arrays_of_the_prefix_model_are_those_of_the_metadata(directory: Path) -> None:
    arrays, model = tiny_metadata()["prefix_models"][1], load_library(directory).prefix_model(30.0)
    np.testing.assert_array_equal(model.input_center, arrays["inputs"]["center"])
    np.testing.assert_array_equal(model.input_scale, arrays["inputs"]["scale"])
    assert (model.input_clip, model.session_types) == (4.0, {"lunch": 0, "ny_am": 1})
    assert model.membership.features.tolist() == arrays["membership"]["features"]
    np.testing.assert_array_equal(model.membership.fingerprint, arrays["membership"]["fingerprint"])
    np.testing.assert_array_equal(model.membership.logits, arrays["membership"]["logits"])
    assert model.rest.columns.tolist() == list(range(len(OUTCOMES)))
    np.testing.assert_array_equal(model.rest.coefficients, arrays["rest"]["coefficients"])
    assert model.rest.quantile_coefficients is not None
    np.testing.assert_array_equal(model.rest.quantile_coefficients, arrays["rest"]["quantile_coefficients"])
    np.testing.assert_array_equal(model.rest.quantile_shifts, arrays["rest"]["quantile_shifts"])


@pytest.mark.parametrize("coefficients", [[], [[]] * 36])
def test_library_that_learned_nothing_of_the_rest_is_loaded(tmp_path: Path, coefficients: list[Any]) -> None:
    metadata = tiny_metadata()
    metadata["prefix_models"][1]["rest"] |= {
        "outcomes": [], "coefficients": coefficients, "quantile_coefficients": [], "quantile_shifts": [0, 0, 0],
    }  # fmt: skip
    rest = load_library(write_library(tmp_path, metadata, tiny_stats())).prefix_model(30.0).rest
    assert rest.coefficients.shape == (36, 0)
    assert rest.quantile_coefficients is None


def test_outcomes_that_were_learned_have_their_places(tmp_path: Path) -> None:
    metadata = tiny_metadata()
    rest = metadata["prefix_models"][1]["rest"]
    rest["coefficients"] = [[row[2], row[5]] for row in rest["coefficients"]]
    rest |= {"outcomes": [OUTCOMES[2], OUTCOMES[5]], "quantile_coefficients": []}
    loaded = load_library(write_library(tmp_path, metadata, tiny_stats())).prefix_model(30.0).rest
    assert loaded.columns.tolist() == [2, 5]
    np.testing.assert_array_equal(loaded.coefficients, rest["coefficients"])


def test_metadata_alone_is_read_without_the_other_files(directory: Path) -> None:
    (directory / "cluster_stats.json").unlink()
    metadata = load_metadata(directory)
    assert (metadata.model_version, metadata.assignment) == ("0.0.1", "prefix_model")
    assert metadata.selection[0].is_chosen
    assert metadata.prefix_models[0].baselines.session_types == ["ny_am"]


def test_metadata_alone_is_refused_as_with_the_library(directory: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError):
        load_metadata(tmp_path / "none")
    path = directory / "metadata.json"
    path.write_text(path.read_text().replace('"feature_schema_version": 2', '"feature_schema_version": 1'))
    with pytest.raises(ModelLoadError, match="got schema 1 with other names or order: train the library again"):
        load_metadata(directory)


def test_arrays_of_a_library_have_the_length_of_the_features(directory: Path) -> None:
    library = load_library(directory)
    assert library.scale.shape == (N_FEATURES,)
    for model in library.prefix_models:
        assert model.center.shape == model.scale.shape == (N_FEATURES,)
        assert model.centroids.shape == (len(model.archetype_ids), N_FEATURES)
