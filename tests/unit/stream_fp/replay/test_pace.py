"""The pure part of a rehearsal: order over several sources, and when each record is due."""

from __future__ import annotations

import itertools
import json
from datetime import UTC
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_fp.replay.pace import Merge, Pace, event_time_us, parse_speed
from tests.support.builders import SESSION_ID, at, end, event, start, us_at

NEW_YORK = ZoneInfo("America/New_York")

# -------------------------------------------------------------------------------------------------------------- speed


@pytest.mark.parametrize(
    ("text", "speed"),
    [("1x", 1.0), ("10x", 10.0), ("0.5x", 0.5), (".25X", 0.25), (" 60 ", 60.0), ("max", None), ("MAX", None),
     ("0.01x", 0.01), ("100000x", 100_000.0)],
)  # fmt: skip
def test_speed_is_a_factor_or_max(text: str, speed: float | None) -> None:
    assert parse_speed(text) == speed


@pytest.mark.parametrize(
    "text",
    ["", "x", "0x", "-1x", "fast", "1e3x", "nan", "inf", "10 x", "0.009x", "100001x", "\N{ARABIC-INDIC DIGIT ONE}x"],
)
def test_other_speeds_are_refused_with_what_was_expected(text: str) -> None:
    with pytest.raises(ValueError, match=r"expected a speed such as 1x, .*0\.01x to 100000x, or max; got"):
        parse_speed(text)


# --------------------------------------------------------------------------------------------------------- event time


@pytest.mark.parametrize(
    ("message", "time_us"),
    [
        (event(minute=3.5), us_at(3.5)),
        (event(timestamp=us_at(3) // 1_000), us_at(3)),
        (event(timestamp=us_at(3) / 1e6), us_at(3)),
        (event(timestamp="2025-07-29T09:33:00"), us_at(3)),
        (event(timestamp="09:33:00"), us_at(3)),
        (event(session_id=None, timestamp="09:33:00"), us_at(3)),
        (event(timestamp="soon"), None),
        (event(timestamp=None), None),
        (event(timestamp=True), None),
        (event(timestamp=[1]), None),
        ({**event(minute=3), "price": "high", "htf_regime": 7}, us_at(3)),
        (start(), None),
        (end(minute=60), None),
        ({"kind": "unheard of", "timestamp": at(3)}, None),
        ([at(3)], None),
    ],
    ids=str,
)
def test_event_time_is_that_of_events_as_the_engine_reads_it(message: object, time_us: int | None) -> None:
    assert event_time_us(SESSION_ID.encode(), json.dumps(message).encode(), NEW_YORK) == time_us


@pytest.mark.parametrize("value", [None, b"", b"{", b"\xff", b"[" * 100_000, b'{"timestamp": "14:00:00"}'], ids=str)
@pytest.mark.parametrize("key", [None, b"", b"\xff", b"no date"])
def test_record_that_is_no_message_has_no_event_time(key: bytes | None, value: bytes | None) -> None:
    assert event_time_us(key, value, UTC) is None


# -------------------------------------------------------------------------------------------------------------- order

times = st.none() | st.integers(0, 50)
sources = st.lists(st.lists(times, max_size=12), max_size=5)


@given(sources, st.data())
def test_merge_keeps_the_order_of_each_source_and_loses_nothing(
    times_of: list[list[int | None]], data: st.DataObject
) -> None:
    merge: Merge[tuple[int, int]] = Merge()
    firsts = [next((time for time in one if time is not None), 0) for one in times_of]
    for source, first_us in enumerate(firsts):
        merge.expect(source, first_us)
    n_fed = [0] * len(times_of)
    popped: list[tuple[int, int, int]] = []
    reached_us = 0
    while True:
        while (wanted := merge.wanted) is not None:
            # It is not asked for before it may be its turn, so that whatever it reads from need not be open yet.
            assert n_fed[wanted] or firsts[wanted] >= reached_us
            rest = times_of[wanted][n_fed[wanted] :]
            if not rest:
                merge.end()
                continue
            n = data.draw(st.integers(1, len(rest)))
            merge.feed((time, (wanted, n_fed[wanted] + i)) for i, time in enumerate(rest[:n]))
            n_fed[wanted] += n
        next_us = merge.next_us
        if next_us is None:
            break
        reached_us = next_us
        source, (origin, number) = merge.pop()
        assert source == origin
        popped.append((next_us, source, number))
    for source, one in enumerate(times_of):
        assert [number for _, origin, number in popped if origin == source] == list(range(len(one)))
    assert len(popped) == sum(map(len, times_of))
    assert all(before[0] <= after[0] for before, after in itertools.pairwise(popped))
    for time_us, source, number in popped:
        # The latest of its source so far: on time where it is in order, right behind the one before where it is not.
        known = [time for time in times_of[source][: number + 1] if time is not None]
        assert time_us == max(known, default=firsts[source])


def test_merge_of_nothing_is_over() -> None:
    merge: Merge[object] = Merge()
    assert (merge.wanted, merge.next_us) == (None, None)


def test_records_of_one_time_come_in_the_order_of_their_sources() -> None:
    merge: Merge[str] = Merge()
    for source in (2, 0, 1):
        merge.expect(source, 7)
    found = []
    for source in range(3):
        assert merge.wanted == source
        merge.feed([(7, f"{source}a"), (7, f"{source}b")])
        found += [merge.pop(), merge.pop()]
        merge.end()
    assert found == [(source, f"{source}{part}") for source in range(3) for part in "ab"]


# --------------------------------------------------------------------------------------------------------------- pace


@given(st.lists(st.integers(10**9, 10**15), min_size=1).map(sorted), st.floats(0.01, 100_000))
def test_due_times_never_run_backwards_and_begin_at_the_start(moments: list[int], speed: float) -> None:
    pace = Pace(first_us=moments[0], start_s=5.0, speed=speed)
    due = [pace.due_s(moment_us) for moment_us in moments]
    assert due[0] == 5.0
    assert due == sorted(due)
    assert due[-1] - 5.0 == pytest.approx((moments[-1] - moments[0]) / 1e6 / speed)


def test_without_a_speed_everything_is_due_at_once() -> None:
    assert Pace(first_us=0, start_s=5.0, speed=None).due_s(10**15) == 5.0
