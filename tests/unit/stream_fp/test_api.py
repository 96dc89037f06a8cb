from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

import pytest

import stream_fp
from stream_fp import OnlineClassifier, create_online_classifier
from stream_fp.classifier import Classifier
from stream_fp.documents import adapt_document
from stream_fp.errors import ConfigError, DocumentError
from stream_fp.library import load_library
from stream_fp.messages import encode_prediction
from stream_fp.outcomes import Published
from stream_fp.predictor import Predictor
from tests.support.builders import (
    SESSION_ID,
    at,
    make_engine,
    make_prediction,
    records,
    run,
    write_tiny_library,
)

if TYPE_CHECKING:
    from pathlib import Path

TYPES = ("expansion", "fvg", "retracement", "reversal", "sweep", "consolidation", "news")


def document(n: int = 30, *, step_min: float = 5.0, **metadata: object) -> dict[str, Any]:
    return {
        "events": [
            {
                "timestamp": at(i * step_min),
                "event_type": TYPES[i % 7],
                "price": 100 + (i * 37 % 11) / 10,
                "intensity": i % 5,
            }
            for i in range(n)
        ],
        "session_metadata": {"session_type": "NY_AM", "date": "2025-07-29", "timezone": "UTC", **metadata},
    }


@pytest.fixture
def model_path(tmp_path: Path) -> Path:
    return write_tiny_library(tmp_path / "v0.0.1")


@pytest.fixture
def classifier(model_path: Path) -> OnlineClassifier:
    return create_online_classifier(enabled=True, model_path=model_path)


def test_disabled_is_the_default_answers_none_and_loads_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path) -> None:
        raise AssertionError(path)

    monkeypatch.setattr(stream_fp.api, "load_library", refuse)
    for off in (create_online_classifier(), create_online_classifier(enabled=False, model_path=tmp_path / "none")):
        assert off.config.enabled is False
        assert off.classify_partial_session(document()) is None
        assert off.classify_partial_session({"events": "nonsense"}) is None


def test_missing_model_is_said_word_for_word(tmp_path: Path) -> None:
    path = tmp_path / "none"
    with pytest.raises(FileNotFoundError) as caught:
        create_online_classifier(enabled=True, model_path=path)
    assert str(caught.value) == (
        f"Model path does not exist: {path}\n"
        "Please ensure the offline library has been built (Stage 2) before enabling online classification."
    )


def test_damaged_model_is_said_word_for_word(model_path: Path) -> None:
    (model_path / "scaler.pkl").unlink()
    with pytest.raises(RuntimeError) as caught:
        create_online_classifier(enabled=True, model_path=model_path)
    assert str(caught.value) == (
        "Failed to load clustering artifacts: scaler.pkl: No such file or directory\n"
        "Please verify the offline library build completed successfully."
    )


def test_model_of_other_features_is_said_word_for_word(model_path: Path) -> None:
    path = model_path / "metadata.json"
    metadata = json.loads(path.read_bytes())
    metadata["feature_names"] = metadata["feature_names"][:17]
    path.write_text(json.dumps(metadata))
    with pytest.raises(ValueError, match="Feature") as caught:
        create_online_classifier(enabled=True, model_path=model_path)
    assert str(caught.value) == (
        "Feature dimension mismatch: expected 30D, got 17D\n"
        "Please rebuild offline library with matching feature extraction configuration."
    )


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("distance_metric", "manhattan"), ("confidence_method", "certain"), ("assignment", "random"),
        ("completion", "guess"), ("completion_threshold", 0.0), ("completion_threshold", 101.0),
        ("completion_threshold", math.nan), ("min_events", 0),
    ],
)  # fmt: skip
def test_wrong_choice_is_a_config_error_that_names_the_setting(model_path: Path, name: str, value: object) -> None:
    choice: dict[str, Any] = {name: value}
    with pytest.raises(ConfigError, match=f"`{name}`"):
        create_online_classifier(enabled=True, model_path=model_path, **choice)


def test_enabled_without_a_model_path_is_a_config_error() -> None:
    with pytest.raises(ConfigError, match="`model_path`"):
        create_online_classifier(enabled=True)


def test_prediction_is_made_at_the_event_that_reaches_the_target(classifier: OnlineClassifier) -> None:
    prediction = classifier.classify_partial_session(document())
    assert prediction is not None
    assert (prediction.session_id, prediction.date) == (SESSION_ID, "2025-07-29")
    assert prediction.pct_seen == 30.2
    how = prediction.classification_metadata
    assert (how.timestamp, how.completion_method, how.checkpoint_pct) == (
        "2025-07-29T14:15:00.000000",
        "schedule",
        30.0,
    )
    assert prediction.notes == ["Early classification at 30.2% completion"]
    assert prediction.artifact_path.endswith("/v0.0.1")
    assert sum(how.probabilities.values()) == pytest.approx(1, abs=1e-5)


def test_library_call_equals_the_engine_on_the_same_messages(classifier: OnlineClassifier, model_path: Path) -> None:
    library = load_library(model_path)
    engine = make_engine(
        Predictor(Classifier(library)), schedules=library.schedules, typical_events=library.typical_events
    )
    (outcome,) = run(engine, records(adapt_document(document()).messages))
    assert isinstance(outcome, Published)
    prediction = classifier.classify_partial_session(document())
    assert prediction is not None
    assert encode_prediction(prediction) == encode_prediction(outcome.prediction)


def test_target_of_the_call_goes_before_the_threshold(classifier: OnlineClassifier) -> None:
    prediction = classifier.classify_partial_session(document(), target_completion_pct=50.0)
    assert prediction is not None
    assert prediction.classification_metadata.checkpoint_pct == 50.0
    assert prediction.pct_seen == 50.3


@pytest.mark.parametrize("target", [0.0, -1.0, 100.1, math.nan, math.inf])
def test_target_out_of_range_is_a_config_error(classifier: OnlineClassifier, target: float) -> None:
    with pytest.raises(ConfigError, match="target_completion_pct"):
        classifier.classify_partial_session(document(), target_completion_pct=target)


@pytest.mark.parametrize("n", [0, 1, 4])
def test_fewer_than_five_events_give_no_prediction(classifier: OnlineClassifier, n: int) -> None:
    assert classifier.classify_partial_session(document(n)) is None
    assert classifier.classify_partial_session(document(n, step_min=20.0)) is None


def test_four_events_before_the_target_give_none_however_many_follow(classifier: OnlineClassifier) -> None:
    assert classifier.classify_partial_session(document(8, step_min=15.0)) is None


def test_session_that_ends_before_the_target_is_classified_with_a_note(classifier: OnlineClassifier) -> None:
    prediction = classifier.classify_partial_session(document(6))
    assert prediction is not None
    assert prediction.pct_seen == 16.8
    assert "The events given end before the 30% checkpoint" in prediction.notes


def test_session_id_of_the_call_goes_before_the_documents(classifier: OnlineClassifier) -> None:
    prediction = classifier.classify_partial_session(document(), session_id="MINE")
    assert prediction is not None
    assert prediction.session_id == "MINE"


def test_unreadable_times_are_noted(classifier: OnlineClassifier) -> None:
    spoiled = document(expected_events=40)
    for event in spoiled["events"][:3]:
        event["timestamp"] = "?"
    prediction = classifier.classify_partial_session(spoiled)
    assert prediction is not None
    assert "3 unreadable timestamps: event order used for these" in prediction.notes


def test_numbers_that_are_not_finite_are_noted(classifier: OnlineClassifier) -> None:
    spoiled = document()
    spoiled["events"][2]["price"] = math.nan
    prediction = classifier.classify_partial_session(spoiled)
    assert prediction is not None
    assert "1 non-finite values imputed" in prediction.notes


@pytest.mark.parametrize(
    "later",
    [
        {"timestamp": at(140), "event_type": "fvg", "price": 1e6},
        {"timestamp": at(140), "event_type": "fvg", "price": math.nan},
        {"timestamp": at(140), "event_type": "session_high", "price": 5.0},
        {"timestamp": at(14000), "event_type": "fvg", "price": 5.0},
        {"timestamp": "?", "event_type": "fvg", "price": -5.0},
    ],
    ids=["event", "not finite", "marker", "far", "refused"],
)
def test_events_after_the_target_do_not_matter(classifier: OnlineClassifier, later: dict[str, object]) -> None:
    plain, longer = document(), document()
    longer["events"].append(later)
    assert classifier.classify_partial_session(longer) == classifier.classify_partial_session(plain)


def test_document_of_another_shape_is_a_document_error(classifier: OnlineClassifier) -> None:
    with pytest.raises(DocumentError):
        classifier.classify_partial_session({"events": "nonsense"})


def test_session_id_that_is_no_unicode_text_is_a_document_error(classifier: OnlineClassifier) -> None:
    with pytest.raises(DocumentError):
        classifier.classify_partial_session(document(), session_id="\ud800")


def test_sidecar_holds_the_prediction(classifier: OnlineClassifier, tmp_path: Path) -> None:
    prediction = classifier.classify_partial_session(document())
    assert prediction is not None
    path = classifier.write_sidecar(prediction, str(tmp_path / "run"))
    assert path == tmp_path / "run" / "session_fingerprint.json"
    assert path.read_bytes() == encode_prediction(prediction)


def test_minidash_row_is_written_where_it_is_asked_for(model_path: Path, tmp_path: Path) -> None:
    classifier = create_online_classifier(enabled=True, model_path=str(model_path), write_minidash_row=True)
    assert classifier.config.write_minidash_row
    classifier.write_minidash_row(make_prediction(), tmp_path / "dash.html")
    assert SESSION_ID in (tmp_path / "dash.html").read_text()


@pytest.mark.parametrize("metric", ["euclidean", "cosine", "mahalanobis"])
@pytest.mark.parametrize("confidence", ["inverse_distance", "softmax", "calibrated"])
def test_choices_are_said_in_the_prediction(model_path: Path, metric: Any, confidence: Any) -> None:  # noqa: ANN401
    classifier = create_online_classifier(
        enabled=True, model_path=model_path, distance_metric=metric, confidence_method=confidence
    )
    prediction = classifier.classify_partial_session(document())
    assert prediction is not None
    how = prediction.classification_metadata
    # Shares of 1/distance can only be had from distances; otherwise it is what the library recommends.
    assignment = "prefix_centroid" if confidence == "inverse_distance" else "prefix_model"
    assert (how.distance_metric, how.confidence_method, how.assignment) == (metric, confidence, assignment)


@pytest.mark.parametrize("assignment", ["prefix_model", "prefix_centroid", "full_centroid"])
def test_assignment_that_is_asked_for_is_said_in_the_prediction(model_path: Path, assignment: Any) -> None:  # noqa: ANN401
    classifier = create_online_classifier(enabled=True, model_path=model_path, assignment=assignment)
    prediction = classifier.classify_partial_session(document())
    assert prediction is not None
    assert prediction.classification_metadata.assignment == assignment
