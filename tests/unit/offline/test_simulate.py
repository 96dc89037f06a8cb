from __future__ import annotations

import datetime as dt
import json
from collections import Counter, defaultdict
from itertools import chain, pairwise
from typing import Any

import numpy as np
import pytest

from offline.detect import MAX_INTENSITY
from offline.simulate import (
    CHARACTERS,
    EVENT_ALIASES,
    SESSION_WINDOWS,
    UNKNOWN_EVENT_TYPES,
    SimulatedSession,
    interleave,
    simulate_large,
    simulate_sessions,
)
from stream_fp.phases import PHASES, UNKNOWN, phase_of

WINDOWS = {window.session_type: window for window in SESSION_WINDOWS}
EVENT_KEYS = ["session_id", "timestamp", "event_type", "price", "intensity", "htf_regime"]


@pytest.fixture(scope="module")
def sessions() -> list[SimulatedSession]:
    return list(simulate_sessions(700, seed=11))


def events_of(session: SimulatedSession) -> list[dict[str, Any]]:
    return [message for message in session.messages if "kind" not in message]


def time_of(message: dict[str, Any]) -> dt.datetime:
    return dt.datetime.fromisoformat(message["timestamp"])


def first_of_type(session_type: str, first_date: dt.date) -> SimulatedSession:
    found = simulate_sessions(7, seed=3, first_date=first_date)
    return next(session for session in found if session.session_type == session_type)


def test_same_seed_gives_same_sessions() -> None:
    assert list(simulate_sessions(30, seed=5)) == list(simulate_sessions(30, seed=5))


def test_other_seed_gives_other_sessions() -> None:
    assert list(simulate_sessions(3, seed=5)) != list(simulate_sessions(3, seed=6))


@pytest.mark.parametrize("n_sessions", [0, 1, 7, 20])
def test_longer_run_begins_with_shorter_run(n_sessions: int) -> None:
    longer = list(simulate_sessions(40, seed=5))
    assert longer[:n_sessions] == list(simulate_sessions(n_sessions, seed=5))


def test_days_pass_in_time_order_without_weekends() -> None:
    ids = [session.session_id for session in simulate_sessions(42, seed=1)]
    order = [window.session_type.upper() for window in SESSION_WINDOWS]
    assert ids[:7] == [f"{name}_2025-01-06" for name in order]
    assert ids[28] == "MIDNIGHT_2025-01-10"
    assert ids[35] == "MIDNIGHT_2025-01-13"


def test_first_date_on_weekend_moves_to_monday() -> None:
    session = next(simulate_sessions(1, seed=1, first_date=dt.date(2025, 1, 11)))
    assert session.session_id == "MIDNIGHT_2025-01-13"


def test_messages_have_the_contract_shape(sessions: list[SimulatedSession]) -> None:
    for session in sessions:
        window = WINDOWS[session.session_type]
        for message in session.messages:
            assert message["session_id"] == session.session_id
            if message.get("kind") == "session_start":
                assert message["session_metadata"] == {
                    "session_type": session.session_type.upper(),
                    "date": session.session_id[-10:],
                    "start_time": window.start.isoformat(),
                    "end_time": window.end.isoformat(),
                    "timezone": "America/New_York",
                }
            elif message.get("kind") == "session_end":
                assert set(message) == {"kind", "session_id", "timestamp"}
                assert time_of(message).time() == window.end
            else:
                assert list(message) == EVENT_KEYS


def test_messages_survive_json(sessions: list[SimulatedSession]) -> None:
    for session in sessions[:14]:
        assert tuple(json.loads(json.dumps(session.messages))) == session.messages


def test_event_values_lie_in_their_ranges(sessions: list[SimulatedSession]) -> None:
    events = [event for session in sessions for event in events_of(session)]
    assert all(0 <= event["intensity"] <= MAX_INTENSITY for event in events)
    assert {event["htf_regime"] for event in events} == {0, 1, 2}
    assert all(event["price"] % 0.25 == 0 for event in events)
    assert all(15_000 < event["price"] < 25_000 for event in events)


def test_events_lie_within_their_window(sessions: list[SimulatedSession]) -> None:
    for session in sessions:
        window = WINDOWS[session.session_type]
        for event in events_of(session):
            local = time_of(event)
            assert local.date().isoformat() == session.session_id[-10:]
            assert window.start < local.time() <= window.end


def test_sessions_do_not_overlap_and_time_never_runs_back(sessions: list[SimulatedSession]) -> None:
    timed = (message for session in sessions for message in session.messages if "timestamp" in message)
    assert all(time_of(before) <= time_of(after) for before, after in pairwise(timed))


@pytest.mark.parametrize(
    ("first_date", "offset_h"),
    [(dt.date(2025, 1, 6), -5), (dt.date(2025, 7, 1), -4), (dt.date(2025, 3, 10), -4), (dt.date(2025, 11, 3), -5)],
)
def test_season_sets_the_utc_offset(first_date: dt.date, offset_h: int) -> None:
    session = first_of_type("ny_am", first_date)
    offsets = {time_of(event).utcoffset() for event in events_of(session)}
    assert offsets == {dt.timedelta(hours=offset_h)}


def test_about_a_tenth_lacks_start_or_end(sessions: list[SimulatedSession]) -> None:
    n_starts = sum(session.messages[0].get("kind") == "session_start" for session in sessions)
    n_ends = sum(session.messages[-1].get("kind") == "session_end" for session in sessions)
    assert 0.85 < n_starts / len(sessions) < 0.95
    assert 0.85 < n_ends / len(sessions) < 0.95


def test_declaring_expected_events_adds_the_count_and_changes_nothing_else() -> None:
    plain = list(simulate_sessions(14, seed=2))
    declared = list(simulate_sessions(14, seed=2, declare_expected_events=True))
    for before, after in zip(plain, declared, strict=True):
        assert events_of(before) == events_of(after)
        if after.messages[0].get("kind") == "session_start":
            assert after.messages[0]["session_metadata"]["expected_events"] == len(events_of(after))


def test_every_alias_and_some_unknown_types_occur(sessions: list[SimulatedSession]) -> None:
    seen = Counter(event["event_type"] for session in sessions for event in events_of(session))
    assert set(seen) == {*chain.from_iterable(EVENT_ALIASES.values()), *UNKNOWN_EVENT_TYPES}
    unknown = sum(seen[name] for name in UNKNOWN_EVENT_TYPES)
    assert 0.03 < unknown / seen.total() < 0.05


def test_aliases_mean_to_the_consumer_what_they_mean_here() -> None:
    assert set(EVENT_ALIASES) == set(PHASES)
    for phase, aliases in EVENT_ALIASES.items():
        assert {PHASES[phase_of(alias)] for alias in aliases} == {phase}
    assert {phase_of(name) for name in UNKNOWN_EVENT_TYPES} == {UNKNOWN}


@pytest.mark.parametrize(
    ("session_type", "fewest", "most"),
    [("midnight", 8, 20), ("lunch", 25, 45), ("ny_am", 70, 130), ("london", 70, 125), ("asia", 110, 190)],
)
def test_typical_event_count_fits_the_session_length(
    sessions: list[SimulatedSession], session_type: str, fewest: int, most: int
) -> None:
    counts = [len(events_of(session)) for session in sessions if session.session_type == session_type]
    assert fewest <= np.median(counts) <= most
    assert min(counts) > 0


def test_characters_differ_in_range_efficiency_and_mix(sessions: list[SimulatedSession]) -> None:
    spans: dict[str, list[float]] = defaultdict(list)
    efficiency: dict[str, list[float]] = defaultdict(list)
    mix: dict[str, Counter[int]] = defaultdict(Counter)
    for session in sessions:
        events = events_of(session)
        prices = np.array([event["price"] for event in events])
        usual = WINDOWS[session.session_type].volatility * np.sqrt(WINDOWS[session.session_type].n_bars)
        spans[session.character].append(float(np.ptp(prices) / usual))
        efficiency[session.character].append(float(abs(prices[-1] - prices[0]) / max(np.ptp(prices), 1.0)))
        mix[session.character].update(phase_of(event["event_type"]) for event in events)
    span = {name: float(np.median(spans[name])) for name in CHARACTERS}
    share = {name: {k: mix[name][k] / mix[name].total() for k in range(6)} for name in CHARACTERS}
    quiet, sweep = PHASES.index("consolidation_phase"), PHASES.index("liquidity_sweep")
    assert span["two_way"] > 2 * span["range"]
    assert span["trend"] > 2 * span["quiet_drift"]
    assert np.mean(efficiency["trend"]) > np.mean(efficiency["range"]) + 0.2
    assert np.mean(efficiency["sweep_expansion"]) > np.mean(efficiency["reversal"]) + 0.2
    assert share["range"][quiet] > 1.2 * share["two_way"][quiet]
    assert share["sweep_expansion"][sweep] > 1.2 * share["range"][sweep]


def test_session_type_alone_does_not_tell_the_character(sessions: list[SimulatedSession]) -> None:
    by_type: dict[str, Counter[str]] = defaultdict(Counter)
    for session in sessions:
        by_type[session.session_type][session.character] += 1
    best_guess = sum(counts.most_common(1)[0][1] for counts in by_type.values()) / len(sessions)
    assert best_guess < 0.5
    assert all(len(counts) >= 5 for counts in by_type.values())


def test_character_tends_to_persist(sessions: list[SimulatedSession]) -> None:
    n_kept = sum(before.character == after.character for before, after in pairwise(sessions))
    shares = np.array(list(Counter(session.character for session in sessions).values())) / len(sessions)
    assert n_kept / len(sessions) > float(np.sum(shares**2)) + 0.1


def test_interleaving_merges_by_time_and_loses_nothing() -> None:
    chosen = [*simulate_sessions(14, seed=1), *simulate_sessions(14, seed=2)]
    merged = list(interleave(chosen))
    times = [time_of(message) for message in merged if "timestamp" in message]
    assert times == sorted(times)
    assert Counter(map(repr, merged)) == Counter(repr(message) for one in chosen for message in one.messages)


def test_interleaving_places_session_starts_at_their_start_time() -> None:
    merged = list(interleave(reversed(list(simulate_sessions(35, seed=1)))))
    in_order = [message for session in simulate_sessions(35, seed=1) for message in session.messages]
    assert merged == in_order


def test_large_run_has_every_event_of_every_session_in_time_order() -> None:
    events = list(simulate_large(300, 12, seed=4))
    assert set(Counter(event["session_id"] for event in events).values()) == {12}
    assert events[123]["session_id"] == "NY_AM_2025-01-06-000123"
    assert all(list(event) == EVENT_KEYS for event in events[:10])
    times = [time_of(event) for event in events]
    assert times == sorted(times)
    assert times[0].isoformat() == "2025-01-06T09:30:00-05:00"
    assert times[-1].time() < dt.time(11, 59)
    assert events == list(simulate_large(300, 12, seed=4))
