"""The input topic is the changelog: an engine fed from the low offset again is the engine that crashed."""

from __future__ import annotations

import random
from typing import Any, Final

import msgspec
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from stream_fp.engine import Engine
from stream_fp.times import MINUTE_US
from tests.support.builders import Record, at, describe, end, event, make_engine, records, run, start

#: Two scheduled types that overlap with the grace of each other, a type without schedule, an id without type or date.
SESSIONS: Final = ("NY_AM_2025-07-29", "LUNCH_2025-07-29", "NY_PM_2025-07-29", "CUSTOM_2025-07-29", "free text")
SETTINGS: Final[dict[str, Any]] = {
    "checkpoints_pct": (30.0, 50.0),
    "min_events": 2,
    "grace_us": 30 * MINUTE_US,
    "idle_timeout_us": 60 * MINUTE_US,
}
TYPICAL_EVENTS: Final = {"custom": 8.0, "": 10.0}

METADATA: Final[tuple[dict[str, Any], ...]] = (
    {},
    {"expected_events": 9},
    {"session_type": "custom", "expected_events": 4},
    {"date": "2025-07-29", "start_time": "13:30:00", "end_time": "14:10:00"},
    {"date": "2025-07-29", "start_time": "14:30:00", "end_time": "17:00:00", "timezone": "UTC"},
    {"date": "2025-07-29", "start_time": "09:30", "end_time": "16:00", "timezone": "America/New_York"},
    {"date": "2025-07-29", "start_time": "22:30:00", "end_time": "03:00:00", "timezone": "Asia/Tokyo"},
)


#: One step of a stream: minutes to go forward, whose record, of what kind, and how late or how declared.
Step = tuple[int, int, str, int]
KINDS: Final = ("event", "event", "event", "untimed", "far", "local", "end", "timed_end", "garbage")
GAPS_MIN: Final = (0, 0, 1, 3, 8, 25, 70)
LATENESS_MIN: Final = (0, 0, 0, 4, 40, 100, -45)


def steps(*, kinds: tuple[str, ...]) -> st.SearchStrategy[list[Step]]:
    """Draw streams whose times mostly go forward, with jumps, late events, ends, starts sent again and garbage."""
    step = st.tuples(
        st.sampled_from(GAPS_MIN), st.integers(0, len(SESSIONS) - 1), st.sampled_from(kinds), st.integers(0, 6)
    )
    return st.lists(step, min_size=2, max_size=45)


def stream_of(plan: list[Step]) -> list[Record]:
    minute, stream = 0, []
    for offset, (gap, whose, kind, variant) in enumerate(plan):
        minute += gap
        message: dict[str, Any] = {"timestamp": at(minute), "event_type": "range", "price": 100.0 + offset}
        match kind:
            case "event":
                message["timestamp"] = at(minute - LATENESS_MIN[variant])
            case "untimed":
                message["timestamp"] = "?"
            case "far":
                message["timestamp"] = at(minute + 3000)
            case "local":  # read in the zone of the session
                message["timestamp"] = at(minute)[:19]
            case "start":
                message = {"kind": "session_start", "session_metadata": METADATA[variant]}
            case "end":
                message = {"kind": "session_end"}
            case "timed_end":
                message = {"kind": "session_end", "timestamp": at(minute + LATENESS_MIN[variant])}
        content = b"{" if kind == "garbage" else msgspec.json.encode(message)
        stream.append(Record(offset, SESSIONS[whose].encode(), content))
    return stream


def engine_at(published_offset: int = 0, watermark_us: int | None = None, **changes: Any) -> Engine:  # noqa: ANN401
    return make_engine(
        typical_events=TYPICAL_EVENTS,
        published_offset=published_offset,
        watermark_us=watermark_us,
        **{**SETTINGS, **changes},
    )


def state_of(engine: Engine) -> dict[str, object]:
    return {
        "low": engine.low_offset,
        "position": engine.position,
        "watermark": engine.watermark_us,
        "n_open": engine.n_open_sessions,
        "n_events": engine.n_buffered_events,
    }


def rebuilt_from(crashed: Engine, stream: list[Record], crash: int, **changes: Any) -> Engine:  # noqa: ANN401
    """Return a new engine that has read again what was read before the crash; it must have said nothing."""
    assert crashed.low_offset is not None
    low, watermark_us = crashed.low_offset
    again = engine_at(crash, watermark_us, **changes)
    assert run(again, stream[low:crash]) == []
    return again


def check_one_crash(stream: list[Record], crash: int, **changes: Any) -> None:  # noqa: ANN401
    """Compare the engine that crashed, had it lived, with its successor after every further record."""
    crashed = engine_at(**changes)
    run(crashed, stream[:crash])
    again = rebuilt_from(crashed, stream, crash, **changes)
    if again.position is None:  # nothing was to be read again
        assert crashed.n_open_sessions == 0
    else:
        assert state_of(again) == state_of(crashed)
    for one in stream[crash:]:
        expected = [describe(outcome) for outcome in crashed.process(one)]
        assert [describe(outcome) for outcome in again.process(one)] == expected
        assert state_of(again) == state_of(crashed)


PHASES: Final = (Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink)  # explaining would take minutes


@given(plan=steps(kinds=KINDS), crash_fraction=st.floats(0, 1))
@settings(max_examples=400, deadline=None, phases=PHASES)
def test_crash_among_sessions_known_by_their_id_changes_no_outcome(plan: list[Step], crash_fraction: float) -> None:
    check_one_crash(stream_of(plan), 1 + int(crash_fraction * (len(plan) - 1)))


@given(plan=steps(kinds=(*KINDS, "start", "start")), crash_fraction=st.floats(0, 1))
@settings(max_examples=600, deadline=None, phases=PHASES)
def test_crash_among_sessions_with_starts_changes_no_outcome(plan: list[Step], crash_fraction: float) -> None:
    check_one_crash(stream_of(plan), 1 + int(crash_fraction * (len(plan) - 1)))


def test_crash_in_two_thousand_histories_changes_no_outcome() -> None:
    kinds = (*KINDS, "start", "start")
    for seed in range(2000):
        rng = random.Random(seed)
        plan: list[Step] = [
            (rng.choice(GAPS_MIN), rng.randrange(len(SESSIONS)), rng.choice(kinds), rng.randrange(7))
            for _ in range(rng.randint(2, 45))
        ]
        check_one_crash(stream_of(plan), rng.randint(1, len(plan)))


CUSTOM: Final = "CUSTOM_2025-07-29"
WINDOW: Final = {"date": "2025-07-29", "start_time": "13:30:00", "end_time": "14:10:00"}


def test_end_of_a_session_opened_before_the_low_offset_leaves_no_trace() -> None:
    stream = records([event("free text", 0), event(CUSTOM, 0), end("free text", 5), event(CUSTOM, 1)])
    check_one_crash(stream, 3)


def test_declared_window_from_before_the_low_offset_is_still_known_after_a_crash() -> None:
    # Offset 6 is ignored, because it lies after the declared end of its session, which is closed at offset 8.
    stream = records(
        [
            start(CUSTOM, **WINDOW),
            *(event(minute=minute) for minute in (0, 10, 20, 30, 40)),
            event(CUSTOM, 3000),
            *(event(minute=minute) for minute in (44, 71, 75)),
        ]
    )
    check_one_crash(stream, 9, min_events=5)


def test_declared_zone_from_before_the_low_offset_is_still_known_after_a_crash() -> None:
    stream = records(
        [
            start(CUSTOM, timezone="Asia/Tokyo"),
            *(event(minute=minute) for minute in (0, 10, 20, 30, 40)),
            event(CUSTOM, timestamp="2025-07-29T22:50:00"),
            end(CUSTOM),
            *(event(minute=minute) for minute in (44, 71, 75)),
        ]
    )
    for crash in range(1, len(stream) + 1):
        check_one_crash(stream, crash, min_events=5)


def test_start_that_makes_a_session_shorter_counts_from_then_on_as_after_a_crash() -> None:
    stream = records(
        [
            event("NY_PM_2025-07-29", 0),
            start("NY_PM_2025-07-29", session_type="custom"),
            event(minute=70),
            end("NY_PM_2025-07-29"),
            event(minute=71),
        ]
    )
    for crash in range(1, len(stream) + 1):
        check_one_crash(stream, crash)


def test_record_sent_again_after_its_session_ended_begins_the_same_ghost_before_and_after_a_crash() -> None:
    stream = records(
        [*(event(minute=minute) for minute in (0, 10, 20, 30, 46)), event("LUNCH_2025-07-29", 47), end()]
        + [event(minute=minute) for minute in (40, 41, 42, 47, 48)]
        + [event("LUNCH_2025-07-29", 300), event(minute=49)]
    )
    for crash in range(1, len(stream) + 1):
        check_one_crash(stream, crash)


def test_second_crash_while_rebuilding_or_later_changes_no_outcome() -> None:
    stream = stream_of([(8, i % 5, ("event", "event", "local", "end")[i * 7 % 4], i % 7) for i in range(40)])
    for first in range(1, 40, 3):
        for second in range(first, 40, 4):
            crashed = engine_at()
            run(crashed, stream[:first])
            again = rebuilt_from(crashed, stream, first)
            run(again, stream[first:second])
            run(crashed, stream[first:second])
            if again.low_offset is None:
                continue
            third = rebuilt_from(again, stream, second)
            for one in stream[second:]:
                expected = [describe(outcome) for outcome in crashed.process(one)]
                assert [describe(outcome) for outcome in third.process(one)] == expected
                assert state_of(third) == state_of(crashed)
