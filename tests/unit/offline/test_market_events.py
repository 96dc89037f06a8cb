"""Messages of recorded bars: what belongs to which session, when it is known, and that nothing looks ahead."""

from __future__ import annotations

import datetime as dt
from collections import Counter
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from offline.bars import MarketBars, read_bars
from offline.market_events import find_events, find_sessions, session_messages
from offline.stretches import find_stretches
from stream_fp.completion import DEFAULT_SCHEDULES, Schedule, resolve_facts
from stream_fp.files import read_records
from stream_fp.phases import PHASES
from stream_fp.times import MINUTE_US, zone_of
from tests.support.builders import RecordingForecaster, make_engine
from tests.support.market import first_bars, random_market, utc

if TYPE_CHECKING:
    from pathlib import Path

NEW_YORK = zone_of("America/New_York")
DAY = 1440
ALL_DAY = {"day": Schedule(start="00:00:00", end="23:59:00")}


def messages_of(
    market: MarketBars, schedules: dict[str, Schedule] = DEFAULT_SCHEDULES, instrument: str = ""
) -> list[dict[str, Any]]:
    events = find_events(market, zone=NEW_YORK)
    return list(session_messages(find_sessions(market, events, schedules, instrument=instrument)))


def stamp_us(message: dict[str, Any]) -> int:
    return utc(message["timestamp"])


def events_in(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [message for message in messages if "kind" not in message]


def known_until(messages: list[dict[str, Any]], moment_us: int) -> list[dict[str, Any]]:
    """Return what is stamped up to a moment; a start is stamped by the event that it comes before."""
    stamps = [
        stamp_us(after if message.get("kind") == "session_start" else message)
        for message, after in zip(messages, [*messages[1:], {}], strict=True)
    ]
    return [message for message, stamp in zip(messages, stamps, strict=True) if stamp <= moment_us]


def test_every_session_has_a_start_its_events_and_an_end_in_order_of_time() -> None:
    messages = messages_of(random_market(1, 3 * DAY))
    by_session: dict[str, list[dict[str, Any]]] = {}
    for message in messages:
        by_session.setdefault(message["session_id"], []).append(message)
    assert list(by_session)[:3] == ["LONDON_2025-07-01", "PREMARKET_2025-07-01", "NY_AM_2025-07-01"]
    assert {session_id.rsplit("_", 1)[0].lower() for session_id in by_session} == set(DEFAULT_SCHEDULES)
    for session_id, own in by_session.items():
        kinds = Counter(message.get("kind", "event") for message in own)
        assert (kinds["session_start"], kinds["session_end"]) == (1, 1), session_id
        assert own[0]["kind"] == "session_start"
        assert own[-1]["kind"] == "session_end"
    stamps = [stamp_us(message) for message in messages if "timestamp" in message]
    assert all(before <= after for before, after in pairwise(stamps))


def test_messages_have_the_shape_of_the_topic() -> None:
    messages = messages_of(random_market(1, DAY))
    start = next(message for message in messages if message["session_id"] == "NY_AM_2025-07-01")
    assert start == {
        "kind": "session_start",
        "session_id": "NY_AM_2025-07-01",
        "session_metadata": {
            "session_type": "NY_AM", "date": "2025-07-01", "start_time": "09:30:00", "end_time": "11:59:00",
            "timezone": "America/New_York",
        },
    }  # fmt: skip
    end = next(message for message in messages if message.get("kind") == "session_end" and "NY_AM" in str(message))
    assert end == {"kind": "session_end", "session_id": "NY_AM_2025-07-01", "timestamp": "2025-07-01T11:59:00-04:00"}
    for event in events_in(messages):
        assert list(event) == ["session_id", "timestamp", "event_type", "price", "intensity", "htf_regime"]
        assert event["event_type"] in PHASES
        assert event["timestamp"].endswith(":00-04:00")
        assert 0 <= event["intensity"] <= 6
        assert len(f"{event['price']:.9f}".rstrip("0").partition(".")[2]) <= 3
    assert {event["event_type"] for event in events_in(messages)} == set(PHASES)


def test_event_belongs_to_the_window_that_holds_the_close_of_its_bar() -> None:
    market = random_market(1, DAY)
    schedules = {"first": Schedule(start="10:00", end="10:30"), "second": Schedule(start="10:30", end="11:00")}
    everything = events_in(messages_of(market, ALL_DAY))
    for name, first, last in (("first", "10:00", "10:30"), ("second", "10:30", "11:00")):
        own = [
            event for event in events_in(messages_of(market, schedules)) if event["session_id"].startswith(name.upper())
        ]
        expected = [event for event in everything if first < event["timestamp"][11:16] <= last]
        assert [event["timestamp"] for event in own] == [event["timestamp"] for event in expected]
        assert own


def test_event_is_in_every_window_that_overlaps_there() -> None:
    market = random_market(1, DAY)
    schedules = {"long": Schedule(start="09:00", end="12:00"), "short": Schedule(start="10:00", end="11:00")}
    counts = Counter(event["session_id"] for event in events_in(messages_of(market, schedules)))
    alone = messages_of(market, {"short": schedules["short"]})
    assert counts["SHORT_2025-07-01"] == len(events_in(alone))
    assert counts["LONG_2025-07-01"] > counts["SHORT_2025-07-01"] > 0


def test_window_over_midnight_belongs_to_the_day_on_which_it_starts() -> None:
    schedules = {"night": Schedule(start="22:00", end="02:00")}
    messages = messages_of(random_market(1, 2 * DAY), schedules)
    night = [message for message in messages if message["session_id"] == "NIGHT_2025-07-01"]
    days = Counter(event["timestamp"][:10] for event in events_in(night))
    assert set(days) == {"2025-07-01", "2025-07-02"}
    assert night[-1]["timestamp"] == "2025-07-02T02:00:00-04:00"
    # The night that the data begins in.
    assert any(message["session_id"] == "NIGHT_2025-06-30" for message in messages)


@pytest.mark.parametrize(
    ("start", "day", "offset", "n_hours"),
    [("2025-03-09T03:00", "2025-03-08", "-04:00", 3), ("2025-11-02T02:00", "2025-11-01", "-05:00", 5)],
)
def test_window_over_a_change_of_clocks_is_an_hour_shorter_or_longer(
    start: str, day: str, offset: str, n_hours: int
) -> None:
    market = random_market(1, 600, start=start)
    sessions = find_sessions(
        market, find_events(market, zone=NEW_YORK), {"night": Schedule(start="23:30", end="03:30")}
    )
    (session,) = [session for session in sessions if session.day.isoformat() == day]
    assert session.end_us - session.start_us == n_hours * 60 * MINUTE_US
    assert session.bars_fraction == 1.0
    messages = list(session_messages([session]))
    assert messages[-1]["timestamp"].endswith(f"03:30:00{offset}")
    first_offset = "-05:00" if offset == "-04:00" else "-04:00"
    assert events_in(messages)[0]["timestamp"].endswith(first_offset)


def test_first_bars_give_no_events() -> None:
    events = find_events(random_market(1, 500), zone=NEW_YORK)
    assert min(event.bar for event in events) >= 60


def test_session_that_the_data_cuts_off_has_no_end() -> None:
    market = random_market(1, DAY)
    half = int(np.searchsorted(market.close_us, utc("2025-07-01T11:58:00-04:00"), side="right"))
    cut, whole = messages_of(first_bars(market, half)), messages_of(first_bars(market, half + 1))
    assert cut[-1].get("kind") is None
    assert [message.get("kind") for message in whole[len(cut) :]][-1] == "session_end"


def test_end_is_known_once_a_bar_closes_after_it_and_goes_before_what_follows() -> None:
    messages = messages_of(random_market(1, DAY, holes={690: 200}))  # from 11:30 to 14:50
    ids = [message["session_id"] for message in messages]
    end = next(i for i, message in enumerate(messages) if message.get("kind") == "session_end" and "NY_AM" in ids[i])
    assert ids[end + 1] == "NY_PM_2025-07-01"
    assert not any("LUNCH" in session_id for session_id in ids)


def test_session_without_events_has_no_messages() -> None:
    market = random_market(1, DAY)
    assert messages_of(market, {"closed": Schedule(start="00:00", end="00:30")}) == []  # all of it is warm-up


def test_hole_and_roll_are_crossed_by_no_event() -> None:
    """What follows a break is what a market would show that had been at that price all along."""
    plain = random_market(3, DAY, holes={700: 30})
    raised = random_market(3, DAY, holes={700: 30}, steps={700: 4000.0})
    there, then = (find_events(market, zone=NEW_YORK) for market in (plain, raised))
    assert [event._replace(price=0.0) for event in there] == [event._replace(price=0.0) for event in then]
    rolled = find_events(random_market(3, DAY, steps={700: 4000.0}), zone=NEW_YORK)
    assert all(event.price > 22_000 for event in rolled if event.bar >= 700)
    assert not any(event.intensity == 6.0 and event.bar == 700 for event in rolled)


def test_flat_bars_give_finite_messages() -> None:
    market = random_market(1, DAY)
    for prices in (market.bars.open, market.bars.high, market.bars.low, market.bars.close):
        prices[:] = 20_000.0
    messages = messages_of(market)
    assert {event["event_type"] for event in events_in(messages)} <= {"consolidation_phase"}
    msgspec.json.decode(msgspec.json.encode(messages))


def test_five_minute_bars_are_known_at_their_close() -> None:
    messages = messages_of(random_market(1, 3 * DAY // 5, bar_minutes=5))
    assert events_in(messages)
    assert all(int(event["timestamp"][14:16]) % 5 == 0 for event in events_in(messages))
    assert {message["session_id"] for message in messages if "NY_AM" in message["session_id"]} == {
        "NY_AM_2025-07-01", "NY_AM_2025-07-02", "NY_AM_2025-07-03",
    }  # fmt: skip


def test_small_prices_keep_their_digits() -> None:
    market = random_market(1, DAY)
    for prices in (market.bars.open, market.bars.high, market.bars.low, market.bars.close):
        np.divide(prices, 2**40, out=prices)
    large, small = messages_of(random_market(1, DAY)), messages_of(market)
    assert len(large) == len(small)
    for before, after in zip(events_in(large), events_in(small), strict=True):
        assert after["price"] == pytest.approx(before["price"] / 2**40, rel=1e-5)
        assert (after["event_type"], after["intensity"]) == (before["event_type"], before["intensity"])


LOOKAHEAD = random_market(
    7,
    9 * DAY,
    start="2025-03-06T05:00:00",  # over the change of clocks on the 9th
    holes={1000: 4, 1300: 6, 3000: 61, 5000: 1, 5002: 30, 5003: 30, 9000: 600},
    steps={2000: 80.0, 2003: -80.0, 5003: 300.0, 7777: -90.0, 9000: 500.0},
)
LOOKAHEAD_SCHEDULES = DEFAULT_SCHEDULES | {
    "night": Schedule(start="21:00:00", end="02:30:00"), "day": Schedule(start="09:00:00", end="17:00:00"),
}  # fmt: skip
ALL_MESSAGES = messages_of(LOOKAHEAD, LOOKAHEAD_SCHEDULES)


@given(n_bars=st.integers(1, len(LOOKAHEAD)))
@example(n_bars=5002)
@example(n_bars=5003)
@example(n_bars=5004)
@example(n_bars=9000)
@example(n_bars=9001)
@example(n_bars=len(LOOKAHEAD))
@settings(max_examples=60, deadline=None)
def test_cut_bars_give_the_messages_stamped_up_to_the_cut(n_bars: int) -> None:
    cut = first_bars(LOOKAHEAD, n_bars)
    assert messages_of(cut, LOOKAHEAD_SCHEDULES) == known_until(ALL_MESSAGES, int(cut.close_us[-1]))


@pytest.mark.parametrize(("instrument", "suffix"), [("", ""), ("NQ", "-NQ"), ("6E", "-6E")])
def test_engine_reads_the_messages_back(tmp_path: Path, instrument: str, suffix: str) -> None:
    messages = messages_of(random_market(1, 2 * DAY), instrument=instrument)
    path = tmp_path / "events.jsonl"
    path.write_bytes(b"".join(msgspec.json.encode(message) + b"\n" for message in messages))
    forecaster = RecordingForecaster()
    engine = make_engine(forecaster)
    for record in read_records(path):
        engine.process(record)
    ids = {message["session_id"] for message in messages}
    assert "NY_AM_2025-07-01" + suffix in ids
    assert engine.counts.sessions_closed == {"ended": len(ids)}
    assert engine.counts.sessions_opened == len(ids)
    assert engine.counts.dead_lettered == {}
    assert {seen.session_id for seen in forecaster.seen} == ids
    for session_id in ids:
        facts = resolve_facts(session_id, None, schedules=DEFAULT_SCHEDULES, typical_events={}, default_timezone="UTC")
        assert facts.session_type.upper() == session_id.partition("_2025")[0]
        assert facts.schedule_us is not None


@pytest.mark.timeout(120)
def test_real_bars_give_sessions_and_nothing_across_a_roll(real_bars_file: Path) -> None:
    market = read_bars(real_bars_file)
    events = find_events(market, zone=NEW_YORK)
    sessions = find_sessions(market, events, DEFAULT_SCHEDULES)
    assert (len(market), market.dropped, market.n_unsorted) == (516_608, {}, 0)
    assert 2_650 < len(sessions) < 2_700
    assert 2_640 < sum(session.bars_fraction >= 0.9 for session in sessions) < 2_680
    assert sum(session.is_over for session in sessions) == len(sessions) - 1
    assert 60 < np.mean([len(session.events) for session in sessions]) < 110
    shares = Counter(event.phase for session in sessions for event in session.events)
    assert min(shares.values()) > 0.03 * shares.total()
    starts = find_stretches(market.open_us, market.bars, bar_us=market.bar_us).starts.tolist()
    for day in (dt.date(2018, 3, 15), dt.date(2018, 6, 14), dt.date(2018, 9, 20)):
        first = int(np.searchsorted(market.open_us, utc(f"{day}T20:30:00")))
        assert abs(market.bars.open[first] - market.bars.close[first - 1]) > 20
        assert first in starts
        near = [event for event in events if first <= event.bar < first + 30]
        low, high = market.bars.low[first : first + 30].min(), market.bars.high[first : first + 30].max()
        assert all(low <= event.price <= high for event in near), day
