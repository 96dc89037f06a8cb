from __future__ import annotations

import math
from dataclasses import replace
from itertools import count
from typing import TYPE_CHECKING, Any, get_args

import msgspec
import numpy as np
import pytest

import stream_fp.predictor
from stream_fp.classifier import AssignmentMethod, Classifier, ConfidenceMethod, DistanceMetric
from stream_fp.features import FEATURE_NAMES, extract, fingerprint
from stream_fp.forecast import predicted_stats
from stream_fp.library import Library, load_library
from stream_fp.messages import Prediction, encode_prediction
from stream_fp.outcomes import Published
from stream_fp.predictor import Forecast, Predictor
from tests.support.builders import (
    SESSION_ID,
    event,
    make_engine,
    records,
    run,
    start,
    tiny_library,
    tiny_stats,
    write_library,
)
from tests.support.hostile_library import hostile_metadata

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt

    from stream_fp.sessions import Session

TYPES = ("expansion", "fvg", "retracement", "reversal", "sweep", "consolidation", "news")
METHODS: tuple[AssignmentMethod, ...] = get_args(AssignmentMethod)


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Library:
    return tiny_library(tmp_path_factory.mktemp("library"))


def messages(session_id: str = SESSION_ID, **fields: object) -> list[dict[str, Any]]:
    return [
        event(
            session_id,
            3.0 * i,
            event_type=TYPES[i % 7],
            price=100 + (i * 37 % 11) / 10,
            intensity=i % 5,
            htf_regime=i % 3,
            **fields,
        )
        for i in range(20)
    ]


def predictions(predictor: Predictor, stream: list[dict[str, Any]], library: Library) -> list[Prediction]:
    engine = make_engine(predictor, schedules=library.schedules, typical_events=library.typical_events)
    return [outcome.prediction for outcome in run(engine, records(stream)) if isinstance(outcome, Published)]


def predicted(library: Library, stream: list[dict[str, Any]] | None = None, **choices: Any) -> Prediction:  # noqa: ANN401
    (prediction,) = predictions(
        Predictor(Classifier(library, **choices)), messages() if stream is None else stream, library
    )
    return prediction


class Keeping:
    """A predictor that keeps the columns which it was shown."""

    def __init__(self, predictor: Predictor) -> None:
        self._predictor = predictor
        self.vector: npt.NDArray[np.float64] | None = None
        self.n_events = 0

    def forecast(self, session: Session, checkpoint_pct: float) -> Forecast:
        columns = session.columns()
        self.vector, self.n_events = extract(columns), len(columns.times_us)
        return self._predictor.forecast(session, checkpoint_pct)

    def closed(self, session: Session, reason: str) -> None:
        self._predictor.closed(session, reason)


@pytest.mark.parametrize("assignment", METHODS)
def test_prediction_is_put_together_from_features_assignment_and_forecast(
    library: Library, assignment: AssignmentMethod
) -> None:
    classifier = Classifier(library, assignment=assignment)
    keeping = Keeping(Predictor(classifier))
    engine = make_engine(keeping, schedules=library.schedules, typical_events=library.typical_events)
    (outcome,) = run(engine, records(messages()))
    assert isinstance(outcome, Published)
    assert keeping.vector is not None
    model = library.prefix_model(30.0)
    inputs = model.inputs(keeping.vector, "ny_am")
    rest = model.forecast_rest(keeping.vector, inputs, model.probabilities(inputs))
    assigned = classifier.classify(keeping.vector, 30.0, "ny_am")
    archetype = library.archetypes[assigned.archetype_id]
    found, how = outcome.prediction, outcome.prediction.classification_metadata
    assert found.predicted_stats == predicted_stats(library, archetype, keeping.vector.tolist(), keeping.n_events, rest)
    assert found.archetype_id == assigned.archetype_id
    assert found.confidence == pytest.approx(assigned.confidence, abs=1e-6)
    assert how.archetype_name == archetype.name
    assert how.assignment == classifier.assignment == ("prefix_model" if assignment == "auto" else assignment)
    assert how.distance_to_centroid == pytest.approx(assigned.distance, abs=1e-6)
    assert {int(k): p for k, p in how.probabilities.items()} == pytest.approx(assigned.probabilities, abs=1e-6)


def test_forecast_of_the_rest_does_not_depend_on_how_the_session_is_assigned(library: Library) -> None:
    """It comes from the prefix model even where the archetype comes from a centroid."""
    units = [predicted(library, assignment=method).predicted_stats.natural_units for method in METHODS]
    assert all(unit == units[0] for unit in units)


def test_type_of_the_session_goes_into_probabilities_and_forecast(library: Library) -> None:
    types = ("ny_am", "lunch", "unheard of")
    told = [predicted(library, [start(session_type=name, expected_events=60), *messages()]) for name in types]
    found = [p.classification_metadata.probabilities for p in told]
    rests = [p.predicted_stats.natural_units.rest for p in told]
    assert len({str(probabilities) for probabilities in found}) == len({str(rest) for rest in rests}) == 3


def test_name_is_that_of_the_archetype(library: Library) -> None:
    names = {}
    for archetype_id in library.archetypes:
        model = library.prefix_model(30.0)
        logits = np.zeros_like(model.membership.logits)
        logits[0, archetype_id] = 3.0
        certain = replace(model, membership=replace(model.membership, logits=logits))
        found = predicted(replace(library, prefix_models=(certain,)))
        assert found.archetype_id == archetype_id
        names[archetype_id] = found.classification_metadata.archetype_name
    assert names == {0: "calm drift", 1: "steady trend", 2: "wild swings"}


@pytest.mark.parametrize("method", get_args(ConfidenceMethod))
def test_confidence_method_is_said_as_it_was_asked_for(library: Library, method: ConfidenceMethod) -> None:
    how = predicted(library, confidence_method=method).classification_metadata
    assert how.confidence_method == method
    assert how.assignment == ("prefix_centroid" if method == "inverse_distance" else "prefix_model")


def test_clock_measures_and_reaches_no_byte_of_the_prediction(library: Library) -> None:
    ticks = count(0, 250)
    timed = Predictor(Classifier(library), clock=lambda: next(ticks))
    bare = Predictor(Classifier(library))
    forecasts: dict[str, Forecast] = {}

    class Timed:
        def forecast(self, session: Session, checkpoint_pct: float) -> Forecast:
            forecasts["timed"] = timed.forecast(session, checkpoint_pct)
            forecasts["bare"] = bare.forecast(session, checkpoint_pct)
            return forecasts["timed"]

        def closed(self, session: Session, reason: str) -> None:
            timed.closed(session, reason)

    run(make_engine(Timed(), schedules=library.schedules), records(messages()))
    one, other = forecasts["timed"], forecasts["bare"]
    assert (one.extraction_ns, one.classification_ns) == (250, 250)
    assert (other.extraction_ns, other.classification_ns) == (0, 0)
    assert encode_prediction(one.prediction) == encode_prediction(other.prediction)


def test_date_is_that_of_the_session_else_of_its_latest_event(library: Library) -> None:
    assert predicted(library).date == "2025-07-29"
    (prediction,) = predictions(
        Predictor(Classifier(library)), [start("anything", expected_events=30), *messages("anything")], library
    )
    assert prediction.date == "2025-07-29"


def test_features_that_are_not_finite_are_imputed_with_a_note(
    library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    # No legal event leads there; what the guard is for is a feature that somebody adds.
    def spoiled(rows: bytearray, start_us: int) -> list[float]:
        values = fingerprint(rows, start_us)
        values[3], values[20] = math.nan, math.inf
        return values

    def mended(rows: bytearray, start_us: int) -> list[float]:
        values = fingerprint(rows, start_us)
        values[3], values[20] = library.prefix_model(30.0).center[[3, 20]].tolist()
        return values

    monkeypatch.setattr(stream_fp.predictor, "fingerprint", spoiled)
    found = predicted(library)
    monkeypatch.setattr(stream_fp.predictor, "fingerprint", mended)
    expected = predicted(library)
    note = f"Non-finite features imputed with the training center: {FEATURE_NAMES[3]}, {FEATURE_NAMES[20]}"
    assert note in found.notes
    assert msgspec.structs.replace(found, notes=[]) == msgspec.structs.replace(expected, notes=[])


@pytest.mark.parametrize("assignment", ["prefix_model", "prefix_centroid", "full_centroid"])
@pytest.mark.parametrize("confidence", get_args(ConfidenceMethod))
@pytest.mark.parametrize("metric", get_args(DistanceMetric))
def test_largest_numbers_of_a_library_give_finite_predictions_without_a_warning(
    tmp_path: Path, assignment: AssignmentMethod, confidence: ConfidenceMethod, metric: DistanceMetric
) -> None:
    for seed in range(3):
        library = load_library(write_library(tmp_path / str(seed), hostile_metadata(seed), tiny_stats()))
        choices: dict[str, Any] = {"assignment": assignment, "confidence_method": confidence, "distance_metric": metric}
        # msgspec writes what is not finite as null, and whoever reads it back refuses that.
        encoded = encode_prediction(predicted(library, **choices))
        found = msgspec.json.decode(encoded, type=Prediction)
        assert b"null" not in encoded
        assert 0 < found.confidence <= 1
        units = found.predicted_stats.natural_units
        assert units.range_so_far_pct <= units.range_pct.p10 <= units.range_pct.p50 <= units.range_pct.p90


def test_prediction_survives_the_way_over_the_wire(library: Library) -> None:
    prediction = predicted(library)
    assert msgspec.json.decode(encode_prediction(prediction), type=Prediction) == prediction
