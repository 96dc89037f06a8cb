from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_fp.documents import adapt_document, is_document
from stream_fp.errors import DocumentError, RecordError
from stream_fp.files import find_files, read_document
from stream_fp.messages import decode_message
from stream_fp.outcomes import DeadLetter
from tests.support.builders import make_engine, record, run

METADATA = {"session_type": "NY_AM", "date": "2025-07-29", "start_time": "09:30:00", "end_time": "11:59:00",
            "timezone": "America/New_York"}  # fmt: skip


def document(*events: object, **metadata: object) -> dict[str, Any]:
    return {"events": list(events), "session_metadata": {**METADATA, **metadata}}


def only(event: dict[str, object], **metadata: object) -> dict[str, Any]:
    """Adapt a document of one event and return that event's message."""
    messages = adapt_document(document({"timestamp": "10:00:00", **event}, **metadata)).messages
    assert len(messages) == 3
    return messages[1]


@pytest.mark.parametrize(
    ("fields", "event_type"),
    [
        ({"event_type": "a", "type": "b", "original_type": "c"}, "a"),
        ({"type": "b", "original_type": "c"}, "b"),
        ({"original_type": "c"}, "c"),
        ({"event_type": "", "type": "b"}, "b"),
        ({"event_type": None, "type": 5, "original_type": "c"}, "c"),
        ({}, ""),
    ],
)
def test_event_type_is_the_first_that_is_not_empty(fields: dict[str, object], event_type: str) -> None:
    assert only(fields)["event_type"] == event_type


@pytest.mark.parametrize(
    ("fields", "price"),
    [
        ({"price": 5, "price_level": 6}, 5.0), ({"price_level": 6.5}, 6.5), ({"price": None, "price_level": 6}, 6.0),
        ({"price": "7"}, None), ({"price": True}, None), ({}, None), ({"price": math.nan, "price_level": 6}, 6.0),
        ({"price": math.inf}, None), ({"price": 10**400}, None),
    ],
)  # fmt: skip
def test_price_is_the_first_finite_number(fields: dict[str, object], price: float | None) -> None:
    assert only(fields)["price"] == price


@pytest.mark.parametrize(
    ("fields", "intensity"),
    [
        ({"intensity": 0.5, "magnitude": 0.9}, 0.5),
        ({"magnitude": 0.9}, 0.9),
        ({"intensity": math.nan}, None),
        ({}, None),
    ],
)
def test_intensity_falls_back_to_magnitude(fields: dict[str, object], intensity: float | None) -> None:
    assert only(fields)["intensity"] == intensity


@pytest.mark.parametrize(
    ("fields", "regime"),
    [
        ({"htf_regime": 2, "htf_confluence": 0.1}, 2), ({"htf_regime": 0}, 0),
        ({"htf_regime": 7, "htf_confluence": 0.1}, 0),
        ({"htf_regime": True, "htf_confluence": 0.9}, 2), ({"htf_confluence": 0.329}, 0), ({"htf_confluence": 0.33}, 1),
        ({"htf_confluence": 0.669}, 1), ({"htf_confluence": 0.67}, 2), ({"htf_confluence": math.nan}, None), ({}, None),
    ],
)  # fmt: skip
def test_regime_falls_back_to_confluence(fields: dict[str, object], regime: int | None) -> None:
    assert only(fields)["htf_regime"] == regime


def test_numbers_that_are_not_finite_are_counted() -> None:
    adapted = adapt_document(
        document(
            {"timestamp": "10:00", "price": math.nan, "intensity": math.inf},
            {"timestamp": "10:01", "price": 1.0, "intensity": -math.inf, "htf_confluence": math.nan},
        )
    )
    assert adapted.n_imputed == 4


@pytest.mark.parametrize(
    "metadata",
    [
        {"session_type": "A", "date": "2025-07-29", "start_time": "10:00", "end_time": "11:00", "timezone": "UTC"},
        {"session_type": "A", "session_date": "2025-07-29", "session_start": "10:00", "session_end": "11:00",
         "timezone": "UTC"},
    ],
)  # fmt: skip
def test_metadata_is_read_under_either_name(metadata: dict[str, str]) -> None:
    adapted = adapt_document({"events": [], "session_metadata": {**metadata, "expected_events": 7, "mood": "good"}})
    assert adapted.session_id == "A_2025-07-29"
    assert adapted.messages == [
        {
            "kind": "session_start",
            "session_id": "A_2025-07-29",
            "session_metadata": {
                "session_type": "A", "date": "2025-07-29", "start_time": "10:00", "end_time": "11:00",
                "timezone": "UTC", "expected_events": 7,
            },
        },
        {"kind": "session_end", "session_id": "A_2025-07-29"},
    ]  # fmt: skip


def test_session_id_is_the_one_given_then_the_documents_then_made_from_type_and_date() -> None:
    named = {**document(session_id="IN_META"), "session_id": "IN_DOCUMENT"}
    assert adapt_document(named, session_id="GIVEN").session_id == "GIVEN"
    assert adapt_document(named).session_id == "IN_DOCUMENT"
    assert adapt_document(document(session_id="IN_META")).session_id == "IN_META"
    assert adapt_document(document(session_type="ny_am")).session_id == "NY_AM_2025-07-29"


def test_unfinished_document_has_no_session_end() -> None:
    kinds = [message.get("kind", "event") for message in adapt_document(document({}), finished=False).messages]
    assert kinds == ["session_start", "event"]


def test_events_are_put_in_order_of_time_and_equal_times_keep_theirs() -> None:
    adapted = adapt_document(
        document(
            {"timestamp": "10:30", "type": "c"}, {"timestamp": "10:00", "type": "a"},
            {"timestamp": "10:30", "type": "d"}, {"timestamp": "10:00", "type": "b"},
        )
    )  # fmt: skip
    assert [message["event_type"] for message in adapted.messages[1:-1]] == ["a", "b", "c", "d"]


def test_event_without_a_readable_time_keeps_its_place() -> None:
    adapted = adapt_document(
        document(
            {"timestamp": "10:00", "type": "a"}, {"timestamp": "?", "type": "b"}, {"timestamp": "10:30", "type": "c"}
        )
    )
    assert [message["event_type"] for message in adapted.messages[1:-1]] == ["a", "b", "c"]


def test_time_of_day_is_on_the_date_of_the_session() -> None:
    assert only({"timestamp": "10:00:00"})["timestamp"] == "2025-07-29T10:00:00"
    assert only({"timestamp": "2025-07-29T14:00:00Z"})["timestamp"] == "2025-07-29T14:00:00Z"


@pytest.mark.parametrize(
    ("clock", "stamp"),
    [("22:30:00", "2025-07-29T22:30:00"), ("00:10:00", "2025-07-30T00:10:00"), ("21:59:00", "2025-07-30T21:59:00")],
)
def test_time_of_day_past_midnight_is_on_the_next_day(clock: str, stamp: str) -> None:
    assert only({"timestamp": clock}, start_time="22:00:00", end_time="02:00:00")["timestamp"] == stamp


@pytest.mark.parametrize("stamp", [None, True, math.nan, math.inf, [], {}, 10**400, 10**30, -(10**30), "soon", ""])
def test_unusable_time_stamp_is_passed_on_as_unreadable(stamp: object) -> None:
    message = adapt_document(document({"timestamp": stamp, "price": 1.0})).messages[1]
    assert message["timestamp"] in {"", "soon"}


LOOKAHEAD_FIELDS = (
    "range_position", "pct_from_open", "pct_from_high", "pct_from_low", "normalized_time", "time_to_next_event",
    "session_position", "phase_open", "phase_mid", "phase_close", "total_events", "final_range",
)  # fmt: skip


@given(data=st.data())
def test_lookahead_fields_change_nothing(data: st.DataObject) -> None:
    plain = document(*({"timestamp": f"10:{i:02d}:00", "type": "fvg", "price": 100.0 + i} for i in range(8)))
    spoiled = copy.deepcopy(plain)
    for event in spoiled["events"]:
        for field in LOOKAHEAD_FIELDS:
            event[field] = data.draw(st.floats() | st.text(max_size=3) | st.none())
    assert adapt_document(spoiled) == adapt_document(plain)


@pytest.mark.parametrize(
    "event",
    [
        {"type": "session_high"}, {"event_type": "session_low"}, {"original_type": "session_extremes"},
        {"event_type": "expansion", "original_type": "session_high"},
        {"type": "fvg", "source": "archaeological_zone_detection"},
    ],
)  # fmt: skip
def test_markers_of_the_finished_session_are_dropped_and_counted(event: dict[str, str]) -> None:
    adapted = adapt_document(
        document({"timestamp": "10:00", "price": 5.0, **event}, {"timestamp": "10:01", "type": "fvg"})
    )
    assert adapted.n_lookahead == 1
    assert [message.get("event_type") for message in adapted.messages] == [None, "fvg", None]


def test_level_of_the_finished_session_is_no_price() -> None:
    assert only({"type": "liquidity_sweep", "price": 5.0, "source": "session_liquidity_events"})["price"] is None
    assert only({"type": "liquidity_sweep", "price": 5.0, "source": "price_movements"})["price"] == 5.0


@pytest.mark.parametrize("source", [[], {}, 5, None, True])
def test_source_of_another_type_is_no_source(source: object) -> None:
    assert only({"type": "fvg", "price": 5.0, "source": source})["price"] == 5.0


@pytest.mark.parametrize(
    "bad",
    [
        {}, {"events": None}, {"events": "text"}, {"events": {}}, {"events": [], "session_metadata": []},
        {"events": [], "session_metadata": None}, {"events": []},
        {"events": [], "session_metadata": {"date": "2025-07-29"}},
        {"events": [], "session_id": 5}, {"events": [5], "session_id": "S"}, {"events": [None], "session_id": "S"},
        {"events": [], "session_id": "S", "session_metadata": {"timezone": "Nowhere"}},
    ],
)  # fmt: skip
def test_document_of_another_shape_is_refused_with_its_place(bad: dict[str, Any]) -> None:
    with pytest.raises(DocumentError, match=r"^here\.json: expected ") as caught:
        adapt_document(bad, where="here.json")
    assert isinstance(caught.value, ValueError)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=5,
)
READ_FIELDS = ("timestamp", "event_type", "type", "original_type", "price", "price_level", "intensity", "magnitude",
               "htf_regime", "htf_confluence", "source")  # fmt: skip


@given(
    events=st.lists(st.dictionaries(st.sampled_from(READ_FIELDS), json_values), max_size=6),
    metadata=st.dictionaries(
        st.sampled_from(("session_type", "date", "start_time", "end_time", "timezone", "expected_events")), json_values
    ),
)
def test_any_json_is_adapted_or_refused(events: list[dict[str, Any]], metadata: dict[str, Any]) -> None:
    try:
        adapted = adapt_document({"events": events, "session_metadata": metadata, "session_id": "S"})
    except DocumentError:
        return
    for message in adapted.messages[1:]:
        one = record(0, message)
        assert one.value is not None
        decode_message(one.value)


def test_adapted_messages_are_accepted_by_the_engine() -> None:
    adapted = adapt_document(document(*({"timestamp": f"10:{i:02d}", "type": "fvg", "price": 9.0} for i in range(30))))
    engine = make_engine()
    outcomes = run(engine, [record(i, message) for i, message in enumerate(adapted.messages)])
    assert not [outcome for outcome in outcomes if isinstance(outcome, DeadLetter)]
    assert engine.counts.consumed == 32
    assert engine.counts.dead_lettered == {}
    assert engine.counts.sessions_closed == {"ended": 1}


@pytest.mark.parametrize(
    ("value", "expected"), [({"events": []}, True), ({"kind": "event"}, False), ([], False), ("events", False)]
)
def test_document_is_told_from_a_message(value: object, *, expected: bool) -> None:
    assert is_document(value) is expected


def test_document_errors_are_no_record_errors() -> None:
    assert not issubclass(DocumentError, RecordError)


WINDOW = {
    "session_type": "asia", "session_date": "2025-07-29", "session_start": "19:00:00", "session_end": "23:59:00",
    "timezone": "ET",
}  # fmt: skip


def test_entry_with_a_default_for_a_time_is_dropped() -> None:
    liquidity = {"type": "rebalance", "price_level": 5.0, "source": "session_liquidity_events"}
    events = [{**liquidity, "timestamp": clock} for clock in ("12:00:00", "12:30:00", "19:30:00")]
    adapted = adapt_document({"session_metadata": WINDOW, "events": events})
    assert [message["timestamp"] for message in adapted.messages[1:-1]] == ["2025-07-29T19:30:00"]
    assert adapted.n_lookahead == 2


@pytest.mark.parametrize(
    ("name", "value", "place"),
    [
        ("session_end", "noon", "session_metadata"),
        ("session_date", "soon", "session_metadata.date"),
        ("timezone", "Nowhere", "session_metadata"),
        ("expected_events", "many", "session_metadata.expected_events"),
        ("expected_events", 0, "session_metadata.expected_events"),
        ("expected_events", 7.5, "session_metadata.expected_events"),
    ],
)
def test_wrong_metadata_is_refused_and_not_passed_over(name: str, value: object, place: str) -> None:
    with pytest.raises(DocumentError, match=place.replace(".", r"\.")):
        adapt_document({"session_metadata": {**WINDOW, name: value}, "events": []})


@pytest.mark.parametrize("value", [37, 37.0, "37"])
def test_whole_number_of_expected_events_is_taken_in_any_form(value: object) -> None:
    adapted = adapt_document({"session_metadata": {**WINDOW, "expected_events": value}, "events": []})
    assert adapted.messages[0]["session_metadata"]["expected_events"] == 37


def test_real_documents_have_no_event_long_before_their_session(real_sessions_dir: Path) -> None:
    # One recording has a price ten minutes early; defaults for a time would be hours away.
    for path in find_files(real_sessions_dir):
        adapted = adapt_document(read_document(path))
        opens = adapted.messages[0]["session_metadata"]["start_time"]
        early = [_minutes(opens) - _minutes(message["timestamp"][11:]) for message in adapted.messages[1:-1]]
        assert max(early) <= 10, path.name


def _minutes(clock: str) -> int:
    hours, minutes, _ = clock.split(":")
    return 60 * int(hours) + int(minutes)
