from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream_fp.checks import MAX_SESSION_ID_LENGTH
from stream_fp.engine import Engine
from stream_fp.outcomes import DeadLetter, Published
from stream_fp.sessions import BYTES_PER_EVENT, BYTES_PER_EVENT_ID, BYTES_PER_SESSION
from stream_fp.times import MINUTE_US
from tests.support.builders import (
    SESSION_ID,
    Record,
    RecordingForecaster,
    describe,
    end,
    event,
    make_engine,
    record,
    records,
    run,
    start,
    us_at,
)

OTHER = "LUNCH_2025-07-29"
FREE = "free text"


@dataclass
class Ran:
    """What a stream of messages came to."""

    forecaster: RecordingForecaster
    engine: Any
    outcomes: list[Any]

    @property
    def predicted(self) -> list[tuple[str, float, int]]:
        return [(seen.session_id, seen.checkpoint_pct, len(seen.times_us)) for seen in self.forecaster.seen]


def ran(*messages: dict[str, Any], **settings_: Any) -> Ran:  # noqa: ANN401
    forecaster = RecordingForecaster()
    engine = make_engine(forecaster, **settings_)
    found = Ran(forecaster, engine, run(engine, records(messages)))
    assert engine.counts.reconciles
    assert engine.counts.consumed == len(messages)
    return found


def events(*minutes: float, session_id: str = SESSION_ID) -> list[dict[str, Any]]:
    return [event(session_id, minute) for minute in minutes]


# ------------------------------------------------------------------------------------------------------ checkpoints


def test_event_that_reaches_the_checkpoint_triggers_one_prediction_and_is_part_of_it() -> None:
    done = ran(*events(0, 10, 20, 30, 44.6, 44.7, 50, 60))
    assert done.predicted == [(SESSION_ID, 30.0, 6)]
    (published,) = done.outcomes
    assert isinstance(published, Published)
    assert (published.record.offset, published.key) == (5, SESSION_ID.encode())
    assert done.engine.counts.ignored == {"after_last_checkpoint": 2}
    assert done.engine.counts.predictions == 1


def test_columns_shown_hold_the_events_as_they_came() -> None:
    forecaster = ran(
        event(minute=3, event_type="fvg", price=5.0, intensity=0.5, htf_regime=2),
        event(minute=1, event_type="news", price=None),
        event(minute=50, event_type="sweep", price=7.0),
        min_events=2,
    ).forecaster
    (seen,) = forecaster.seen
    assert seen.times_us.tolist() == [us_at(3), us_at(1), us_at(50)]
    assert seen.prices.tolist()[0::2] == [5.0, 7.0]
    assert seen.codes.tolist() == [0 * 4 + 2, 6 * 4 + 3, 5 * 4 + 3]


def test_each_checkpoint_gives_one_prediction() -> None:
    done = ran(*events(*range(0, 150, 5)), checkpoints_pct=(25.0, 30.0, 50.0))
    assert [(pct, n) for _, pct, n in done.predicted] == [(25.0, 9), (30.0, 10), (50.0, 16)]


def test_event_that_crosses_two_checkpoints_triggers_both() -> None:
    done = ran(*events(0, 1, 2, 3, 70, 80), checkpoints_pct=(25.0, 30.0, 50.0))
    assert done.predicted == [(SESSION_ID, 25.0, 5), (SESSION_ID, 30.0, 5), (SESSION_ID, 50.0, 6)]
    assert [outcome.record.offset for outcome in done.outcomes] == [4, 4, 5]


def test_too_few_events_at_the_checkpoint_give_no_prediction_then_or_later() -> None:
    done = ran(*events(0, 10, 20, 50, 60, 61, 62))
    assert done.outcomes == []
    assert done.engine.counts.unpredicted == {"too_few_events": 1}
    assert done.engine.counts.ignored == {"after_last_checkpoint": 3}


def test_count_is_used_where_no_time_is_known() -> None:
    done = ran(start(FREE, expected_events=20), *events(*range(8), session_id=FREE))
    assert done.predicted == [(FREE, 30.0, 6)]


def test_session_of_which_nothing_is_known_is_never_predicted() -> None:
    done = ran(*events(*range(0, 900, 10), session_id=FREE), end(FREE))
    assert done.outcomes == []
    assert done.engine.counts.unpredicted == {"completion_unknown": 1}


def test_start_that_comes_late_is_measured_by_from_then_on() -> None:
    done = ran(*events(*range(8), session_id=FREE), start(FREE, expected_events=20), *events(9, session_id=FREE))
    assert done.predicted == [(FREE, 30.0, 8)]
    assert [outcome.record.offset for outcome in done.outcomes] == [8]


def test_start_sent_again_changes_nothing_that_was_predicted() -> None:
    again = start(FREE, expected_events=20)
    done = ran(again, *events(*range(7), session_id=FREE), again, *events(8, 9, session_id=FREE))
    assert done.predicted == [(FREE, 30.0, 6)]


def test_late_event_does_not_set_completion_back() -> None:
    done = ran(*events(0, 30, 5, 6, 7, 44, 8), event(minute=45))
    assert done.predicted == [(SESSION_ID, 30.0, 8)]


def test_sessions_do_not_mix() -> None:
    done = ran(
        *(message for minute in range(0, 50, 5) for message in events(minute) + events(150 + minute, session_id=OTHER))
    )
    assert [name for name, _, _ in done.predicted] == [OTHER, SESSION_ID]
    assert {seen.times_us.max() - seen.times_us.min() for seen in done.forecaster.seen} == {
        45 * MINUTE_US,
        20 * MINUTE_US,
    }


def test_unreadable_times_go_by_the_order_of_events() -> None:
    messages = [start(FREE, expected_events=20), *(event(FREE, timestamp="?") for _ in range(7))]
    (seen,) = ran(*messages).forecaster.seen
    assert [int(gap) for gap in seen.times_us[1:] - seen.times_us[:-1]] == [MINUTE_US] * 5


def test_unreadable_time_among_readable_ones_is_that_of_the_event_before() -> None:
    done = ran(*events(0, 10), event(timestamp="soon"), *events(20, 30, 50))
    (seen,) = done.forecaster.seen
    assert seen.times_us.tolist() == [us_at(minute) for minute in (0, 10, 10, 20, 30, 50)]


def test_years_at_the_end_of_time_do_not_stop_the_engine() -> None:
    for day in ("9999-12-31", "0001-01-01", "2199-12-31", "1971-01-01"):
        name = f"ASIA_{day}"
        done = ran(start(name, expected_events=20), *(event(name, timestamp="?") for _ in range(8)))
        assert [session_id for session_id, _, _ in done.predicted] == [name]


def test_partial_session_is_forecast_on_demand() -> None:
    done = ran(*events(0, 1, 2, 3, 4))
    assert done.engine.finish_partial(SESSION_ID.encode()) is not None
    assert done.engine.finish_partial(b"unknown") is None
    assert ran(*events(0, 1, 2, 3)).engine.finish_partial(SESSION_ID.encode()) is None
    assert ran(*events(0, 1, 2, 3, 4, 50)).engine.finish_partial(SESSION_ID.encode()) is None


# --------------------------------------------------------------------------------------------------- opening, closing


def test_end_closes_the_session_and_later_events_open_it_anew() -> None:
    done = ran(*events(0, 1), end(), *events(2), end())
    assert done.forecaster.closures == [(SESSION_ID, "ended"), (SESSION_ID, "ended")]
    assert done.engine.counts.sessions_opened == 2
    assert done.engine.counts.unpredicted == {"closed_before_checkpoint": 2}
    assert done.engine.n_open_sessions == 0


def test_session_past_its_last_checkpoint_stays_open_without_events() -> None:
    done = ran(*events(0, 10, 20, 30, 50, 60))
    assert (done.engine.n_open_sessions, done.engine.n_buffered_events) == (1, 0)
    assert done.engine.low_offset == (0, None)


def test_session_closes_when_the_watermark_has_passed_its_end_and_grace() -> None:
    before = ran(*events(0, 1), *events(178.9, session_id=OTHER))
    assert before.engine.n_open_sessions == 2
    after = ran(*events(0, 1), *events(179, session_id=OTHER))
    assert after.forecaster.closures == [(SESSION_ID, "expired")]
    assert after.engine.n_open_sessions == 1


def test_session_without_an_end_closes_after_the_idle_timeout() -> None:
    limit = {"idle_timeout_us": 60 * MINUTE_US}
    assert ran(*events(0, session_id=FREE), *events(59.9), **limit).engine.n_open_sessions == 2
    assert ran(*events(0, session_id=FREE), *events(60), **limit).forecaster.closures == [(FREE, "expired")]


def test_session_whose_events_come_hours_late_is_heard_out() -> None:
    late = [
        message for minute in range(0, 60, 5) for message in (*events(300 + minute, session_id=FREE), *events(minute))
    ]
    done = ran(*late)
    assert done.predicted == [(SESSION_ID, 30.0, 10)]
    assert done.engine.counts.sessions_opened == 2


def test_start_before_any_time_is_known_survives_the_first_event_of_another_session() -> None:
    done = ran(start(FREE, expected_events=20), *events(1), *events(*range(2, 8), session_id=FREE))
    assert done.predicted == [(FREE, 30.0, 6)]


def test_declared_end_does_not_decide_when_a_session_closes() -> None:
    # An engine that starts again after the declaration could not know it, and has to come to the same end.
    custom = "CUSTOM_2025-07-29"
    done = ran(
        *events(1, session_id=custom),
        start(custom, date="2025-07-29", start_time="13:30", end_time="13:50"),
        *events(51, session_id=FREE),
    )
    assert done.forecaster.closures == []
    assert done.engine.n_open_sessions == 2


def test_event_after_end_and_grace_is_ignored_and_closes_nothing() -> None:
    done = ran(*events(0, 1), *events(5000), *events(5000, session_id=OTHER))
    assert done.engine.counts.ignored == {"after_close": 2}
    assert done.engine.watermark_us == us_at(1)
    assert done.forecaster.closures == []


def test_end_of_a_session_does_not_move_the_watermark() -> None:
    done = ran(*events(0), end(minute=100))
    assert done.engine.watermark_us == us_at(0)


def test_end_of_input_closes_what_is_open_as_unfinished() -> None:
    done = ran(*events(0, 1), *events(2, session_id=FREE))
    done.engine.close()
    assert done.engine.counts.sessions_closed == {"input_ended": 2}
    assert (done.engine.n_open_sessions, done.engine.n_buffered_events) == (0, 0)


def test_kept_events_are_all_there_when_the_session_closes() -> None:
    done = ran(*events(*range(0, 100, 10)), end(), keep_events=True)
    assert done.predicted == [(SESSION_ID, 30.0, 6)]
    assert len(done.forecaster.full[SESSION_ID].times_us) == 10
    assert done.engine.counts.ignored == {}
    assert done.engine.n_buffered_events == 0


# ------------------------------------------------------------------------------------------- dead letters and ignored

GOOD = event(minute=1)


def without(name: str) -> dict[str, Any]:
    return {key: value for key, value in GOOD.items() if key != name}


@pytest.mark.parametrize("price", [None, 0, 0.0])
def test_event_without_a_quote_is_an_event(price: float | None) -> None:
    done = ran(*events(0, 1, 2, 3), {**event(minute=50), "price": price})
    (seen,) = done.forecaster.seen
    assert np.isnan(seen.prices[-1])
    assert not np.isnan(seen.prices[:-1]).any()


@pytest.mark.parametrize(
    ("message", "words"),
    [
        (without("timestamp"), "expected an event with `timestamp`, got one without - at `$`"),
        (without("event_type"), "expected an event with `event_type`"),
        (without("price"), "expected an event with `price`"),
        ({"session_id": SESSION_ID}, "expected an event with `timestamp`, `event_type`, `price`"),
        ({**GOOD, "price": -5.0}, "`$.price`"),
        ({**GOOD, "price": 1.1e12}, "`$.price`"),
        ({**GOOD, "price": 9e-10}, "`$.price`"),
        ({**GOOD, "intensity": 1.1e9}, "`$.intensity`"),
        ({**GOOD, "intensity": -1.1e9}, "`$.intensity`"),
        ({**GOOD, "kind": "session_pause"}, "got 'session_pause' - at `$.kind`"),
        ({**GOOD, "session_id": "OTHER"}, "got 'OTHER' - at `$.session_id`"),
        (start(timezone="Nowhere"), "`$.session_metadata`"),
        (start(date="soon"), "`$.session_metadata.date`"),
        (start(date="2025-07-29", start_time="noon"), "`$.session_metadata`"),
    ],
)
@pytest.mark.parametrize("opened", [False, True])
def test_message_that_cannot_be_applied_is_a_dead_letter(message: dict[str, Any], words: str, *, opened: bool) -> None:
    engine = make_engine()
    run(engine, records([GOOD] * opened))
    bad = record(7, message, key=SESSION_ID.encode())
    (outcome,) = engine.process(bad)
    assert isinstance(outcome, DeadLetter)
    assert outcome.record is bad
    assert (outcome.stage, outcome.error_class) == ("apply", "RecordInvalidError")
    assert words in outcome.message
    assert engine.n_open_sessions == int(opened)
    assert engine.counts.dead_lettered == {"RecordInvalidError": 1}


@pytest.mark.parametrize("value", [None, b"", b"{", b"[]", b"\xff", b'{"price": "x"}'])
def test_bytes_that_are_no_message_are_a_dead_letter(value: bytes | None) -> None:
    (outcome,) = make_engine().process(Record(0, b"S", value))
    assert isinstance(outcome, DeadLetter)
    assert (outcome.stage, outcome.error_class) == ("decode", "RecordDecodeError")


def test_record_above_the_size_limit_is_a_dead_letter_that_names_the_setting() -> None:
    (outcome,) = run(make_engine(max_record_bytes=100), [record(0, event(note="x" * 100))])
    assert isinstance(outcome, DeadLetter)
    assert "`max_record_bytes`" in outcome.message
    assert outcome.stage == "decode"


@pytest.mark.parametrize("key", [None, b"", b"\xff\xfe", b"a\nb", b"\x00", b"x" * (MAX_SESSION_ID_LENGTH + 1)])
def test_key_that_is_no_session_id_is_a_dead_letter(key: bytes | None) -> None:
    engine = make_engine()
    (outcome,) = engine.process(Record(0, key, msgspec.json.encode(event(None, 1))))
    assert isinstance(outcome, DeadLetter)
    assert outcome.error_class == "RecordInvalidError"
    assert engine.n_open_sessions == 0


def test_longest_session_id_is_accepted_and_may_come_from_the_key_alone() -> None:
    engine = make_engine()
    assert not engine.process(Record(0, b"x" * MAX_SESSION_ID_LENGTH, msgspec.json.encode(event(None, 1))))
    assert engine.counts.applied == 1


def test_end_of_a_session_that_is_not_open_is_ignored() -> None:
    assert ran(end(), end()).engine.counts.ignored == {"end_of_unknown_session": 2}


def test_unknown_event_type_counts_as_an_event() -> None:
    assert ran(event(event_type="news")).engine.counts.applied == 1


# ---------------------------------------------------------------------------------------------------------- the caps


def test_session_beyond_the_cap_is_not_opened_until_another_closes() -> None:
    done = ran(
        *events(0, session_id="A"), *events(1, session_id="B"), start("C"), *events(2, session_id="C"), end("A"),
        *events(3, session_id="C"), max_open_sessions=2,
    )  # fmt: skip
    assert done.engine.counts.ignored == {"open_sessions_cap": 2}
    assert done.engine.counts.sessions_opened == 3
    assert done.engine.n_open_sessions == 2


def test_events_beyond_the_cap_of_a_session_are_left_out_but_count_towards_completion() -> None:
    done = ran(start(FREE, expected_events=20), *events(*range(8), session_id=FREE), max_events_per_session=5)
    assert done.predicted == [(FREE, 30.0, 5)]
    assert done.engine.counts.ignored == {"session_events_cap": 1, "after_last_checkpoint": 2}


def test_events_beyond_the_cap_on_bytes_are_left_out_and_never_more_are_held() -> None:
    limit = 12 * BYTES_PER_EVENT + 2 * BYTES_PER_SESSION
    done = ran(*events(*range(10)), *events(*range(10), session_id=FREE), max_buffered_bytes=limit)
    assert done.engine.n_buffered_events == 12
    assert done.engine.counts.ignored == {"buffered_bytes_cap": 8}
    assert done.engine.n_buffered_bytes == limit


def test_session_beyond_the_cap_on_bytes_is_not_opened() -> None:
    done = ran(*events(0, 1), *events(2, session_id=FREE), max_buffered_bytes=BYTES_PER_SESSION)
    assert (done.engine.n_open_sessions, done.engine.n_buffered_events) == (1, 0)
    assert done.engine.counts.ignored == {"buffered_bytes_cap": 3}


def test_event_of_a_far_date_and_no_day_in_its_id_moves_time_by_one_idle_timeout() -> None:
    far = event("anything", timestamp="2190-01-01T00:00:00Z")
    done = ran(*events(0, 1, 2), far, idle_timeout_us=7 * MINUTE_US)
    assert done.engine.watermark_us == us_at(2) + 7 * MINUTE_US
    assert done.forecaster.closures == []


WRONG_YEAR = "NY_AM_2052-07-29"


def test_session_of_a_far_year_that_is_only_announced_does_not_hold_the_low_offset_for_ever() -> None:
    later = [event(f"NY_AM_2025-08-{day:02d}", minute=24 * 60 * (day + 2)) for day in range(1, 8)]
    done = ran(start(WRONG_YEAR), *events(0), *later)
    assert (WRONG_YEAR, "expired") in done.forecaster.closures
    assert done.engine.low_offset[0] >= 6


def test_event_of_a_far_year_moves_time_by_three_days_at_most() -> None:
    stamp = "2052-07-29T14:00:00Z"
    done = ran(*events(0), event(WRONG_YEAR, timestamp=stamp))
    assert done.engine.watermark_us == us_at(3 * 24 * 60)


def test_time_goes_on_after_a_true_gap_within_a_few_events() -> None:
    after = "NY_AM_2025-08-28"
    done = ran(*events(0), *(event(after, minute=30 * 24 * 60 + i) for i in range(15)))
    assert done.engine.watermark_us == us_at(30 * 24 * 60 + 14)
    assert done.forecaster.closures == [(SESSION_ID, "expired")]


def test_metadata_on_an_event_means_nothing() -> None:
    bad = {"start_time": "nonsense", "timezone": "Nowhere/Land", "expected_events": 2}
    done = ran(*(event(minute=minute, session_metadata=bad) for minute in range(40, 46)))
    assert done.predicted == [(SESSION_ID, 30.0, 6)]


def test_records_that_do_not_exist_are_passed_over() -> None:
    found = []
    engine = make_engine()
    engine.pass_over(7)
    found.append(engine.low_offset)
    run(engine, records([*events(0), end()]))
    for position in (9, 4):
        engine.pass_over(position)
        found.append(engine.low_offset)
    assert found == [None, (9, us_at(0)), (9, us_at(0))]


def test_time_goes_on_after_a_weekend() -> None:
    monday = "NY_AM_2025-08-04"
    later = [event(monday, 6 * 24 * 60 + minute) for minute in range(30)]
    done = ran(*events(0, 1, 2), *later)
    assert done.forecaster.closures == [(SESSION_ID, "expired")]
    assert done.engine.watermark_us == us_at(6 * 24 * 60 + 29)


def test_start_sent_again_without_metadata_changes_nothing() -> None:
    bare = {"kind": "session_start", "session_id": FREE}
    done = ran(start(FREE, expected_events=20), *events(*range(5), session_id=FREE), bare, *events(5, session_id=FREE))
    assert done.predicted == [(FREE, 30.0, 6)]


@pytest.mark.parametrize("zone", ["a/" * 600 + "a", "../../etc/passwd", "localtime", "/etc/localtime", "a\x00b"])
def test_zone_that_is_no_zone_is_a_dead_letter(zone: str) -> None:
    (outcome,) = make_engine().process(record(0, start(timezone=zone)))
    assert isinstance(outcome, DeadLetter)


def test_memory_is_given_back_when_sessions_close() -> None:
    done = ran(*(message for i in range(50) for message in (*events(i, session_id=f"S{i}"), end(f"S{i}"))))
    assert (done.engine.n_open_sessions, done.engine.n_buffered_events, done.engine.n_buffered_bytes) == (0, 0, 0)


# ------------------------------------------------------------------------------------------------ silence and offsets


def test_records_below_the_published_offset_rebuild_in_silence() -> None:
    stream = records(
        [*events(0, 10, 20, 30, 50), *events(*range(0, 60, 10), session_id=OTHER), {"kind": "?", "session_id": "x"}]
    )
    forecaster = RecordingForecaster()
    engine = make_engine(forecaster, published_offset=len(stream))
    assert run(engine, stream) == []
    assert forecaster.seen == []
    assert engine.n_open_sessions == 2


def test_books_begin_at_the_published_offset() -> None:
    stream = records(events(0, 10, 20, 30, 50))
    engine = make_engine(published_offset=3)
    outcomes = run(engine, stream)
    assert [outcome.record.offset for outcome in outcomes] == [4]
    assert (engine.n_rebuilt, engine.counts.consumed) == (3, 2)
    assert engine.counts.reconciles


def test_low_offset_is_that_of_the_oldest_open_session() -> None:
    engine = make_engine()
    assert engine.low_offset is None
    seen: list[tuple[int, int | None] | None] = []
    for one in records(
        [*events(0, session_id="A"), *events(5, session_id="B"), end("A"), end("B"), *events(7, session_id="C")]
    ):
        engine.process(one)
        seen.append(engine.low_offset)
    assert seen == [(0, None), (0, None), (1, us_at(0)), (4, us_at(5)), (4, us_at(5))]


def test_offsets_with_gaps_are_taken_as_they_are() -> None:
    engine = make_engine()
    run(engine, [record(10, event(minute=0)), record(20, event(minute=1)), record(35, end())])
    assert engine.position == 36
    assert engine.low_offset == (36, us_at(1))


def test_decoding_is_timed_once_a_batch_and_the_clock_only_measures() -> None:
    ticks = iter(range(0, 1_000_000, 10))
    timed, plain = make_engine(), make_engine()
    timed._clock = lambda: next(ticks)
    stream = records(events(*[i / 10 for i in range(130)]))
    for first in range(0, len(stream), 50):
        assert timed.process_all(stream[first : first + 50]) == plain.process_all(stream[first : first + 50])
    assert timed.decode_ns == [10] * len(range(0, len(stream), 50))


# ------------------------------------------------------------------------------------------------------- every stream

names = st.sampled_from((SESSION_ID, OTHER, FREE))
legal = st.one_of(
    st.builds(event, names, st.floats(-100, 400), price=st.none() | st.floats(1, 100)),
    st.builds(event, names, timestamp=st.text(max_size=5) | st.integers() | st.floats(allow_nan=False)),
    st.builds(start, names, expected_events=st.integers(1, 30)),
    st.builds(
        lambda name, end_time: start(name, start_time="13:30", end_time=end_time, date="2025-07-29"),
        names,
        st.sampled_from(("14:00", "18:00", "x")),
    ),
    st.builds(end, names, st.none() | st.floats(0, 400)),
    st.builds(lambda name: {"session_id": name, "kind": "other"}, names),
)  # fmt: skip
raw = st.one_of(
    legal.map(msgspec.json.encode),
    st.binary(max_size=30),
    st.none(),
    st.dictionaries(
        st.sampled_from(("kind", "timestamp", "event_type", "price", "session_metadata")),
        st.none() | st.text(max_size=5) | st.integers(-10, 10) | st.just("event") | st.just({}),
    ).map(msgspec.json.encode),
)


@given(
    stream=st.lists(
        st.tuples(st.sampled_from((SESSION_ID.encode(), OTHER.encode(), FREE.encode(), b"", b"\xff", None)), raw),
        max_size=60,
    )
)
@settings(max_examples=300, deadline=None)
def test_every_record_of_any_stream_is_accounted_for(stream: list[tuple[bytes | None, bytes | None]]) -> None:
    caps: dict[str, Any] = {
        "max_open_sessions": 2,
        "max_events_per_session": 10,
        "max_buffered_bytes": 15 * BYTES_PER_EVENT,
    }
    forecaster = RecordingForecaster()
    engine = make_engine(forecaster, checkpoints_pct=(30.0, 50.0), min_events=2, **caps)
    n_published = n_dead = 0
    for offset, (key, value) in enumerate(stream):
        for outcome in engine.process(Record(offset, key, value)):
            n_published += isinstance(outcome, Published)
            n_dead += isinstance(outcome, DeadLetter)
        counts = engine.counts
        assert counts.reconciles
        assert (counts.consumed, counts.predictions) == (offset + 1, n_published)
        assert sum(counts.dead_lettered.values()) == n_dead
        assert engine.n_open_sessions == counts.sessions_opened - sum(counts.sessions_closed.values()) <= 2
        assert engine.n_buffered_events == sum(session.n_held for session in engine._open.by_key.values()) <= 15
        assert list(engine._open.by_key.values()) == sorted(engine._open.by_key.values(), key=lambda s: s.first_offset)
        assert engine.position == offset + 1
    engine.close()
    assert (engine.n_open_sessions, engine.n_buffered_events) == (0, 0)
    done = engine.counts.predictions + sum(engine.counts.unpredicted.values())
    assert done == 2 * engine.counts.sessions_opened


@given(stream=st.lists(legal, max_size=40))
@settings(max_examples=100, deadline=None)
def test_memory_is_the_events_of_open_sessions_without_grace_too(stream: list[dict[str, Any]]) -> None:
    engine = make_engine(min_events=2, grace_us=0, idle_timeout_us=0)
    run(engine, records(stream))
    engine.close()
    assert (engine.n_open_sessions, engine.n_buffered_events) == (0, 0)


# ----------------------------------------------------------------------------------------------------- what comes twice


def test_event_that_comes_twice_under_one_id_is_counted_once() -> None:
    messages = [event(minute=minute, event_id=f"e{minute}") for minute in range(5)]
    once, twice = RecordingForecaster(), RecordingForecaster()
    stream = records([*messages, event(minute=46)])
    again = records([*messages, *messages, messages[0], event(minute=46)])
    first, second = make_engine(once), make_engine(twice)
    run(first, stream)
    run(second, again)
    assert len(once.seen) == len(twice.seen) == 1
    assert once.seen[0].times_us.tolist() == twice.seen[0].times_us.tolist()
    assert second.counts.ignored == {"repeated": 6}
    assert second.counts.reconciles


def test_event_that_comes_twice_does_not_count_towards_completion() -> None:
    engine = make_engine()
    outcomes = run(
        engine,
        records(
            [start(expected_events=20), *(event(minute=1, event_id=7) for _ in range(50)), event(minute=2, event_id=8)]
        ),
    )
    assert outcomes == []
    assert engine.n_buffered_events == 2


def test_events_without_an_id_are_all_counted() -> None:
    engine = make_engine()
    run(engine, records([event(minute=1) for _ in range(4)]))
    assert engine.n_buffered_events == 4
    assert engine.counts.ignored == {}


def test_id_of_a_session_means_nothing_in_another_or_after_its_end() -> None:
    engine = make_engine()
    run(engine, records([event(event_id=1), event(OTHER, event_id=1), end(), event(event_id=1)]))
    assert engine.counts.ignored == {}


@pytest.mark.parametrize("event_id", ["x" * 65, 1.5, True, ["x"], {}])
def test_event_id_of_another_kind_is_a_dead_letter(event_id: object) -> None:
    (outcome,) = run(make_engine(), records([event(event_id=event_id)]))
    assert isinstance(outcome, DeadLetter)
    assert "$.event_id" in outcome.message


def test_memory_of_event_ids_is_counted_bounded_and_given_back() -> None:
    engine = make_engine(max_events_per_session=10)
    without = make_engine(max_events_per_session=10)
    run(engine, records([event(minute=1, event_id=i) for i in range(50)]))
    run(without, records([event(minute=1) for _ in range(50)]))
    assert engine.n_buffered_bytes - without.n_buffered_bytes == 10 * BYTES_PER_EVENT_ID
    run(engine, [record(50, event(minute=50, event_id=50))])  # the last checkpoint: events are let go
    assert engine.n_buffered_events == 0
    assert engine.n_buffered_bytes == BYTES_PER_SESSION


# -------------------------------------------------------------------------------------- settings that changed meanwhile


def owed_by(engine: Engine, stream: list[Record], published: int) -> list[tuple[str, float]]:
    assert run(engine, stream[:published]) == []
    outcomes = engine.speak()
    assert all(isinstance(outcome, Published) and outcome.is_owed for outcome in outcomes)
    return [
        (outcome.prediction.session_id, outcome.prediction.classification_metadata.checkpoint_pct)
        for outcome in outcomes
        if isinstance(outcome, Published)
    ]


def test_checkpoint_crossed_before_the_published_offset_is_owed_where_nobody_was_told() -> None:
    stream = records([*(event(minute=minute) for minute in range(40, 50)), event(minute=60)])
    engine = make_engine(published_offset=11, already_told=lambda *_: False)
    assert owed_by(engine, stream, 11) == [(SESSION_ID, 30.0)]
    assert engine.counts.predictions == 1
    assert engine.counts.consumed == 0
    assert engine.n_rebuilt == 11


def test_owed_prediction_is_the_one_that_the_record_would_have_brought_about() -> None:
    stream = records([*(event(minute=minute, price=100.0 + minute) for minute in range(40, 50))])
    (live,) = run(make_engine(), stream)
    engine = make_engine(published_offset=10, already_told=lambda *_: False)
    run(engine, stream)
    (owed,) = engine.speak()
    assert describe(owed) == describe(live)


def test_nothing_is_owed_to_who_was_told_or_is_gone() -> None:
    stream = records([*(event(minute=minute) for minute in range(40, 50)), end()])
    assert owed_by(make_engine(published_offset=10, already_told=lambda *_: True), stream, 10) == []
    assert owed_by(make_engine(published_offset=11, already_told=lambda *_: False), stream, 11) == []
    assert owed_by(make_engine(published_offset=10), stream, 10) == []


def test_session_told_under_former_settings_is_not_told_again_when_it_crosses_later() -> None:
    # By the former settings it had crossed before the published offset; by the new ones it does after it.
    stream = records([event(minute=minute) for minute in range(30, 60)])
    engine = make_engine(published_offset=10, already_told=lambda *_: True)
    assert run(engine, stream) == []
    assert engine.counts.unpredicted == {"already_told": 1}


def test_owed_prediction_is_not_made_again_by_later_records() -> None:
    stream = records([*(event(minute=minute) for minute in range(40, 60))])
    engine = make_engine(published_offset=10, already_told=lambda *_: False)
    assert len(owed_by(engine, stream, 10)) == 1
    assert run(engine, stream[10:]) == []


def test_first_record_that_counts_brings_what_is_owed_with_it() -> None:
    stream = records([*(event(minute=minute) for minute in range(40, 50))])
    engine = make_engine(published_offset=9, already_told=lambda *_: False)
    (outcome,) = run(engine, stream)
    assert isinstance(outcome, Published)
    assert outcome.is_owed
