"""A prediction depends on the records up to the one that triggered it, and on nothing that came later."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream_fp.classifier import Classifier
from stream_fp.engine import Engine
from stream_fp.library import Library
from stream_fp.messages import Prediction
from stream_fp.predictor import Predictor
from tests.support.builders import (
    SESSION_ID,
    Record,
    at,
    describe,
    event,
    make_engine,
    records,
    run,
    start,
    tiny_library,
)

OTHERS: Final = ("NY_AM_2025-07-30", "LUNCH_2025-07-29", "anything")
EVENT_TYPES: Final = ("expansion", "consolidation", "retracement", "reversal", "sweep", "fvg", "news")


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Library:
    return tiny_library(tmp_path_factory.mktemp("library"))


@pytest.fixture(scope="module", params=["prefix_model", "prefix_centroid", "full_centroid"])
def advised(request: pytest.FixtureRequest, library: Library) -> Library:
    """A library that recommends one of the ways to assign."""
    return replace(library, assignment=request.param)


def engine_of(library: Library) -> Engine:
    return make_engine(
        Predictor(Classifier(library)),
        schedules=library.schedules,
        typical_events=library.typical_events,
        checkpoints_pct=(25.0, 30.0, 50.0),
    )


messages = st.builds(
    event,
    st.sampled_from((SESSION_ID, *OTHERS)),
    st.floats(-20, 200).map(lambda minute: round(minute, 3)),
    event_type=st.sampled_from(EVENT_TYPES),
    price=st.none() | st.floats(90, 110),
    intensity=st.none() | st.floats(0, 5),
    htf_regime=st.none() | st.integers(0, 2),
)
controls = st.one_of(
    st.builds(lambda name: {"kind": "session_end", "session_id": name}, st.sampled_from((SESSION_ID, *OTHERS))),
    st.builds(
        lambda name, session_type, n: start(name, session_type=session_type, expected_events=n),
        st.sampled_from((SESSION_ID, *OTHERS)),
        st.sampled_from((None, "ny_am", "lunch", "unheard of")),
        st.integers(1, 60),
    ),
    st.builds(lambda name: event(name, timestamp="?"), st.sampled_from((SESSION_ID, *OTHERS))),
    st.just({"kind": "nonsense", "session_id": SESSION_ID}),
    st.builds(lambda minute: event(SESSION_ID, minute), st.floats(-1e5, 1e7)),
)


def in_time(minutes: list[float]) -> list[dict[str, Any]]:
    return [
        event(SESSION_ID, minute, event_type=EVENT_TYPES[i % 7], price=100 + (i * 37 % 11) / 10, intensity=i % 5)
        for i, minute in enumerate(sorted(minutes))
    ]


def check_says_all(told: tuple[int, bytes | None, bytes]) -> None:
    """Check that the bytes to be compared hold every part of a prediction, none of them empty."""
    prediction = msgspec.json.decode(told[2], type=Prediction)
    units, how = prediction.predicted_stats.natural_units, prediction.classification_metadata
    assert how.archetype_name
    assert len(how.probabilities) == 3
    assert units.range_so_far_pct <= units.range_pct.p10 <= units.range_pct.p50 <= units.range_pct.p90
    assert len(units.phase_rates_per_100_events) == 6
    assert b"null" not in msgspec.json.encode(units.rest)


#: A session that surely gets a prediction, then whatever may come.
pasts = st.lists(st.floats(0, 40), min_size=5, max_size=30).map(in_time)
futures = st.lists(messages | controls, max_size=25)


@given(past=pasts, trigger=st.floats(45, 140), future=futures)
@settings(max_examples=150, deadline=None)
def test_records_after_the_trigger_leave_the_prediction_bytes_identical(
    advised: Library, past: list[dict[str, Any]], trigger: float, future: list[dict[str, Any]]
) -> None:
    stream = records([*past, event(SESSION_ID, trigger)])
    alone = [describe(outcome) for outcome in run(engine_of(advised), stream)]
    assert alone
    check_says_all(alone[-1])
    more = records(future, first_offset=len(stream))
    both = [describe(outcome) for outcome in run(engine_of(advised), [*stream, *more])]
    assert both[: len(alone)] == alone


@given(stream=st.lists(messages | controls, min_size=1, max_size=60), data=st.data())
@settings(max_examples=150, deadline=None)
def test_outcomes_of_a_prefix_are_a_prefix_of_the_outcomes(
    advised: Library, stream: list[dict[str, Any]], data: st.DataObject
) -> None:
    n = data.draw(st.integers(0, len(stream)))
    whole = [describe(outcome) for outcome in run(engine_of(advised), records(stream))]
    prefix = [describe(outcome) for outcome in run(engine_of(advised), records(stream[:n]))]
    assert whole[: len(prefix)] == prefix
    assert all(offset >= n for offset, _, _ in whole[len(prefix) :])


@given(past=pasts, garbage=st.lists(st.binary(max_size=40), min_size=1, max_size=10))
@settings(max_examples=50, deadline=None)
def test_garbage_after_the_trigger_changes_nothing(
    library: Library, past: list[dict[str, Any]], garbage: list[bytes]
) -> None:
    stream = records([*past, event(SESSION_ID, 60.0)])
    alone = [describe(outcome) for outcome in run(engine_of(library), stream)]
    more = [Record(len(stream) + i, SESSION_ID.encode(), value) for i, value in enumerate(garbage)]
    assert [describe(outcome) for outcome in run(engine_of(library), [*stream, *more])][: len(alone)] == alone


@pytest.mark.parametrize("field", ["range_position", "pct_from_high", "normalized_time", "session_high", "final_range"])
def test_fields_of_the_finished_session_in_messages_are_not_read(library: Library, field: str) -> None:
    plain = in_time([2.0 * i for i in range(30)])
    spoiled = [{**message, field: i * 0.01} for i, message in enumerate(plain)]
    expected = [describe(outcome) for outcome in run(engine_of(library), records(plain))]
    assert expected
    assert [describe(outcome) for outcome in run(engine_of(library), records(spoiled))] == expected


#: What would tell how a session goes on, if it were read.
FORESIGHT: Final[dict[str, Any]] = {
    "rest": {"range_pct": 9.0, "n_events": 900},
    "range_pct": {"p50": 9.0},
    "archetype_id": 2,
    "n_events": 900,
    "final_range_pct": 9.0,
}


@pytest.mark.parametrize("field", FORESIGHT)
def test_forecasts_in_messages_are_not_read(advised: Library, field: str) -> None:
    plain = [start(), *in_time([2.0 * i for i in range(30)])]
    spoiled = [{**message, field: FORESIGHT[field]} for message in plain]
    spoiled[0]["session_metadata"] = {field: FORESIGHT[field]}
    expected = [describe(outcome) for outcome in run(engine_of(advised), records(plain))]
    assert expected
    assert [describe(outcome) for outcome in run(engine_of(advised), records(spoiled))] == expected


def test_forecast_of_the_rest_changes_with_what_was_seen_and_not_with_what_comes(library: Library) -> None:
    """The same prefix with other futures, and another prefix with the same future."""

    def rest_of(seen: list[dict[str, Any]], future: list[dict[str, Any]]) -> bytes:
        outcome = run(engine_of(library), records([*seen, *future]))[1]
        return describe(outcome)[2]

    calm = in_time([2.0 * i for i in range(30)])
    wild = [{**message, "price": 100.0 + 5 * (i % 2)} for i, message in enumerate(calm)]
    quiet, busy = in_time([100.0, 120.0]), [event(minute=60 + i / 4, price=90 + i % 20) for i in range(200)]
    assert rest_of(calm, quiet) == rest_of(calm, busy) == rest_of(calm, [])
    assert rest_of(wild, quiet) == rest_of(wild, busy) != rest_of(calm, quiet)


def test_prediction_time_is_the_event_time_of_the_trigger(library: Library) -> None:
    outcomes = run(
        engine_of(library), records([*in_time([1, 2, 3, 4, 5]), event(SESSION_ID, 50.0), event(minute=51.0)])
    )
    content = msgspec.json.decode(describe(outcomes[-1])[2])
    assert content["classification_metadata"]["timestamp"] == f"{at(50.0)[:19]}.000000"
