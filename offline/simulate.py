"""Simulated trading sessions as messages of the input topic, for the demo, tests and benchmarks.

Stands before everything else: it takes a seed and gives messages, with no I/O. A day has a volatility
regime, a session has a hidden character, the character shapes a one-minute price path (`offline.price_paths`), and
`offline.detect` reads the events from the path as a producer would. A character can be guessed from how a session
begins, but not from its type alone.

Invariant: session ``i`` depends on the seed and on sessions before it, never on how many are asked for.
"""

from __future__ import annotations

import datetime as dt
import heapq
import math
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import numpy as np

from offline.detect import DetectedEvent, detect_events
from offline.measures import trailing_mean, true_range
from offline.price_paths import (
    ANCHOR_PRICE,
    CHARACTERS,
    SESSION_WINDOWS,
    TICK,
    USUAL_RANGE,
    WARMUP_BARS,
    SessionWindow,
    draw_bars,
    on_tick,
)
from offline.stretches import DAY_MINUTES

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from numpy.random import Generator
    from numpy.typing import NDArray

    from offline.measures import Bars

__all__ = ["CHARACTERS", "EVENT_ALIASES", "SESSION_WINDOWS", "UNKNOWN_EVENT_TYPES", "SessionWindow",
           "SimulatedSession", "interleave", "simulate_large", "simulate_sessions"]  # fmt: skip

TIMEZONE = "America/New_York"
REGIME_BARS = 30  # bars whose mean true range the regime is judged by
MAX_JITTER_S = 45.0  # from a bar's close to its message; must stay below the next close
HISTORY_SESSIONS = 20  # of the same type: what the regime's terciles are taken from
MISSING_FRACTION = 0.1  # of the starts, and of the ends
UNKNOWN_PER_MINUTE = 0.0235  # about 4 % of the events
PERSISTENCE = 0.3  # chance that a session keeps the character of the one before

# How a low, middle or high volatility day favours each character.
_REGIME_TILT = np.array(
    [[0.9, 1.4, 0.8, 0.9, 1.9, 0.4], [1.0, 1.0, 1.0, 1.0, 1.0, 1.0], [1.3, 0.6, 1.3, 1.1, 0.4, 2.0]]
)
_REGIME_STEPS = np.array([[0.92, 0.08, 0.0], [0.05, 0.9, 0.05], [0.0, 0.12, 0.88]])

# Free text as producers write it, by phase.
EVENT_ALIASES: dict[str, tuple[str, ...]] = {
    "fvg_interaction": ("fvg", "fair_value_gap", "fvg_interaction"),
    "expansion_phase": ("expansion", "expansion_phase"),
    "consolidation_phase": ("consolidation", "consolidation_phase"),
    "retracement_event": ("retracement", "retracement_event"),
    "reversal_signal": ("reversal", "reversal_signal"),
    "liquidity_sweep": ("liquidity_sweep",),
}
UNKNOWN_EVENT_TYPES = ("news_print", "session_marker", "opening_auction")


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatedSession:
    """One session's messages in time order: its start and end where the producer sent them, events between.

    The id is ``<TYPE>_<YYYY-MM-DD>`` with the type in upper case, ``-<instrument>`` behind it where there are several;
    `session_type` is in lower case.
    `character` is the hidden truth, one of `CHARACTERS`; no message shows it.
    """

    session_id: str
    session_type: str
    messages: tuple[dict[str, Any], ...]
    character: str = ""


@dataclass(slots=True)
class _Market:
    """What one session hands to the next."""

    price: float = ANCHOR_PRICE
    regime: int = 1
    character: int = 0
    # Trailing mean true ranges by type, in points.
    history: dict[str, deque[NDArray[np.float64]]] = field(default_factory=dict)
    # True ranges, in points, of the last trading day of bars; at first those of a usual day.
    spreads: deque[float] = field(default_factory=lambda: deque(_usual_day(), maxlen=DAY_MINUTES))


def simulate_sessions(
    n_sessions: int,
    *,
    seed: int,
    first_date: dt.date = dt.date(2025, 1, 6),
    declare_expected_events: bool = False,
) -> Iterator[SimulatedSession]:
    """Simulate sessions one after another, seven each weekday.

    Parameters
    ----------
    n_sessions
        How many to yield. A longer run begins with the shorter one.
    seed
        Not negative. The same seed gives the same messages.
    first_date
        New York date of the first session; a weekend moves to the Monday after it.
    declare_expected_events
        Put the true number of events into ``session_start``: knowledge that a live producer seldom has.

    Yields
    ------
    SimulatedSession
        In time order; sessions do not overlap.

    Examples
    --------
    >>> [session.session_id for session in simulate_sessions(2, seed=1)]
    ['MIDNIGHT_2025-01-06', 'LONDON_2025-01-06']
    """
    market = _Market()
    days = _weekdays(first_date)
    date = first_date
    for index in range(n_sessions):
        rng = np.random.default_rng([seed, index])
        window = SESSION_WINDOWS[index % len(SESSION_WINDOWS)]
        if index % len(SESSION_WINDOWS) == 0:
            date = next(days)
            market.regime = int(rng.choice(3, p=_REGIME_STEPS[market.regime]))
        if rng.random() >= PERSISTENCE:
            weights = np.asarray(window.weights) * _REGIME_TILT[market.regime]
            market.character = int(rng.choice(len(CHARACTERS), p=weights / weights.sum()))
        bars = draw_bars(
            window, rng, character=CHARACTERS[market.character], regime=market.regime, last_price=market.price
        )
        spread = true_range(bars)
        recent = trailing_mean(spread, REGIME_BARS)
        regime = np.searchsorted(np.asarray(_regime_bounds(window, market)), recent)
        events = detect_events(bars, unit=_unit(market, spread), regime=regime, first_bar=WARMUP_BARS)
        market.price = float(bars.close[-1])
        market.spreads.extend(spread.tolist())
        past = market.history.setdefault(window.session_type, deque(maxlen=HISTORY_SESSIONS))
        past.append(recent[WARMUP_BARS:])
        events = _with_unknown(events, bars, rng)
        yield SimulatedSession(
            session_id=f"{window.session_type.upper()}_{date.isoformat()}",
            session_type=window.session_type,
            messages=tuple(_messages(window, date, events, rng, declare_expected_events)),
            character=CHARACTERS[market.character],
        )


def simulate_instrument(
    name: str, n_sessions: int, *, seed: int, first_date: dt.date = dt.date(2025, 1, 6)
) -> Iterator[SimulatedSession]:
    """Simulate the sessions of one of several instruments; its name ends their ids.

    Examples
    --------
    >>> [session.session_id for session in simulate_instrument("NQ", 1, seed=1)]
    ['MIDNIGHT_2025-01-06-NQ']
    """
    for session in simulate_sessions(n_sessions, seed=seed, first_date=first_date):
        session_id = f"{session.session_id}-{name}"
        yield SimulatedSession(
            session_id=session_id,
            session_type=session.session_type,
            messages=tuple({**message, "session_id": session_id} for message in session.messages),
            character=session.character,
        )


def interleave(sessions: Iterable[SimulatedSession]) -> Iterator[dict[str, Any]]:
    """Merge the messages of several sessions by time.

    A ``session_start`` counts at its start time and a ``session_end`` at its timestamp; at equal times the
    session given first goes first.
    """
    return heapq.merge(*(session.messages for session in sessions), key=_message_time)


def simulate_large(n_sessions: int, n_events_each: int, seed: int) -> Iterator[dict[str, Any]]:
    """Simulate events of many New York mornings at once, for load tests: cheap, and without structure.

    Yields events only, in time order: one of every session, then the next of every session, all evenly spaced.

    Examples
    --------
    >>> [event["session_id"] for event in simulate_large(2, 1, seed=1)]
    ['NY_AM_2025-01-06-000000', 'NY_AM_2025-01-06-000001']
    """
    rng = np.random.default_rng(seed)
    window = next(window for window in SESSION_WINDOWS if window.session_type == "ny_am")
    start = _local(dt.date(2025, 1, 6), window.start)
    step = dt.timedelta(minutes=window.n_bars) / max(n_sessions * n_events_each, 1)
    names = [f"NY_AM_2025-01-06-{number:06d}" for number in range(n_sessions)]
    kinds = np.array([alias for aliases in EVENT_ALIASES.values() for alias in aliases])
    price = np.full(n_sessions, ANCHOR_PRICE)
    for turn in range(n_events_each):
        price = on_tick(price + window.volatility * rng.standard_normal(n_sessions))
        columns = (
            rng.choice(kinds, n_sessions).tolist(),
            price.tolist(),
            np.minimum(rng.exponential(1.0, n_sessions), 6.0).round(3).tolist(),
            rng.integers(0, 3, n_sessions).tolist(),
        )
        for number, (kind, at, size, regime) in enumerate(zip(*columns, strict=True)):
            time = start + (turn * n_sessions + number) * step
            yield _event(names[number], time, kind, price=at, intensity=size, regime=regime)


def _weekdays(first_date: dt.date) -> Iterator[dt.date]:
    """Yield Monday to Friday from `first_date` on, without end.

    Examples
    --------
    >>> days = _weekdays(dt.date(2025, 1, 4))
    >>> next(days).isoformat()
    '2025-01-06'
    """
    date = first_date
    while True:
        if date.weekday() < 5:
            yield date
        date += dt.timedelta(days=1)


def _local(date: dt.date, time: dt.time) -> dt.datetime:
    """Return a New York wall-clock time with its UTC offset fixed, so that adding minutes is exact.

    Examples
    --------
    >>> _local(dt.date(2025, 7, 1), dt.time(9, 30)).isoformat()
    '2025-07-01T09:30:00-04:00'
    """
    local = dt.datetime.combine(date, time, ZoneInfo(TIMEZONE))
    return local.replace(tzinfo=dt.timezone(local.utcoffset() or dt.timedelta()))


def _regime_bounds(window: SessionWindow, market: _Market) -> tuple[float, float]:
    """Return the terciles, in points, of trailing true range in earlier sessions of the same type."""
    past = market.history.get(window.session_type)
    if not past:
        return 1.1 * window.volatility, 1.6 * window.volatility  # a usual bar spans USUAL_RANGE
    low, high = np.quantile(np.concatenate(past), (1 / 3, 2 / 3))
    return float(low), float(high)


def _usual_day() -> list[float]:
    """Return true ranges, in points, of a day on which every session has its usual volatility."""
    return [USUAL_RANGE * window.volatility for window in SESSION_WINDOWS for _ in range(WARMUP_BARS + window.n_bars)]


def _unit(market: _Market, spread: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the mean true range, in points, of the trading day of bars before each bar of a session."""
    known = np.concatenate((market.spreads, spread[:-1]))
    return trailing_mean(known, DAY_MINUTES)[len(market.spreads) - 1 :]


def _with_unknown(events: list[DetectedEvent], bars: Bars, rng: Generator) -> list[DetectedEvent]:
    """Add a few events that belong to no phase, in bar order; they carry the regime of the event before."""
    odd_bars = WARMUP_BARS + np.flatnonzero(rng.random(len(bars) - WARMUP_BARS) < UNKNOWN_PER_MINUTE)
    odd = []
    for bar in odd_bars.tolist():
        regime = next((event.htf_regime for event in reversed(events) if event.bar < bar), 1)
        name = UNKNOWN_EVENT_TYPES[int(rng.integers(len(UNKNOWN_EVENT_TYPES)))]
        odd.append(DetectedEvent(bar, name, float(bars.close[bar]), min(rng.exponential(0.8), 6.0), regime))
    return sorted(events + odd, key=lambda event: event.bar)


def _messages(
    window: SessionWindow, date: dt.date, events: list[DetectedEvent], rng: Generator, declare: bool
) -> Iterator[dict[str, Any]]:
    """Yield the session's messages: start and end unless left out, and events between."""
    session_id = f"{window.session_type.upper()}_{date.isoformat()}"
    has_start, has_end = rng.random(2) >= MISSING_FRACTION
    start, end = _local(date, window.start), _local(date, window.end)
    if has_start:
        metadata: dict[str, Any] = {
            "session_type": window.session_type.upper(),
            "date": date.isoformat(),
            "start_time": window.start.isoformat(),
            "end_time": window.end.isoformat(),
            "timezone": TIMEZONE,
        }
        if declare:
            metadata["expected_events"] = len(events)
        yield {"kind": "session_start", "session_id": session_id, "session_metadata": metadata}
    # A bar closes a minute after it opens. The delay is shorter, so sorting swaps times within a bar only.
    closes = np.array([event.bar - WARMUP_BARS + 1 for event in events])
    delay = rng.uniform(0.0, MAX_JITTER_S, len(events))
    seconds = np.sort(np.round(60.0 * closes + delay, 3))
    picks = rng.random(len(events)).tolist()
    for event, second, pick in zip(events, seconds.tolist(), picks, strict=True):
        aliases = EVENT_ALIASES.get(event.phase, (event.phase,))
        name = aliases[int(pick * len(aliases))]
        time = min(start + dt.timedelta(seconds=second), end)
        size = round(event.intensity, 3)
        price = TICK * math.floor(event.price / TICK)  # the middle of a gap may lie between two ticks
        yield _event(session_id, time, name, price=price, intensity=size, regime=event.htf_regime)
    if has_end:
        yield {"kind": "session_end", "session_id": session_id, "timestamp": end.isoformat()}


def _event(
    session_id: str, time: dt.datetime, kind: str, *, price: float, intensity: float, regime: int
) -> dict[str, Any]:
    return {
        "session_id": session_id,
        "timestamp": time.isoformat(timespec="milliseconds"),
        "event_type": kind,
        "price": price,
        "intensity": intensity,
        "htf_regime": regime,
    }


def _message_time(message: dict[str, Any]) -> float:
    """Return the time at which a message belongs on the topic, in seconds since 1970."""
    if "session_metadata" not in message:
        return dt.datetime.fromisoformat(message["timestamp"]).timestamp()
    metadata = message["session_metadata"]
    start = dt.time.fromisoformat(metadata["start_time"])
    return _local(dt.date.fromisoformat(metadata["date"]), start).timestamp()
