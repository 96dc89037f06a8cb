"""Simulated trading sessions as messages of the input topic, for the demo, tests and benchmarks.

Stands before everything else: it takes a seed and gives messages, with no I/O. A day has a volatility
regime, a session has a hidden character, the character shapes a one-minute price path, and `offline.detect`
reads the events from the path as a producer would. A character can be guessed from how a session begins, but
not from its type alone.

Invariant: session ``i`` depends on the seed and on sessions before it, never on how many are asked for.
"""

from __future__ import annotations

import datetime as dt
import heapq
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple
from zoneinfo import ZoneInfo

import numpy as np

from offline.detect import REGIME_BARS, Bars, DetectedEvent, detect_events, on_tick, trailing_mean, true_range

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from numpy.random import Generator
    from numpy.typing import NDArray

__all__ = ["CHARACTERS", "EVENT_ALIASES", "SESSION_WINDOWS", "UNKNOWN_EVENT_TYPES", "SessionWindow",
           "SimulatedSession", "interleave", "simulate_large", "simulate_sessions"]  # fmt: skip

TIMEZONE = "America/New_York"
ANCHOR_PRICE = 20_000.0  # points
ANCHOR_PULL = 0.04  # of the distance to the anchor, per session: keeps long runs near it
WARMUP_BARS = 30  # unseen bars before the start, so that the first minute already has a recent range
MAX_JITTER_S = 45.0  # from a bar's close to its message; must stay below the next close
HISTORY_SESSIONS = 20  # of the same type: what the regime's terciles are taken from
MISSING_FRACTION = 0.1  # of the starts, and of the ends
UNKNOWN_PER_MINUTE = 0.0165  # about 4 % of the events
PERSISTENCE = 0.3  # chance that a session keeps the character of the one before

# The hidden characters, in the order of the weights below.
CHARACTERS = ("trend", "range", "reversal", "sweep_expansion", "quiet_drift", "two_way")
_CHARACTER_VOLATILITY = (1.0, 0.85, 1.05, 0.9, 0.55, 1.45)
_CHARACTER_TAIL = (5.0, 8.0, 4.5, 5.0, 12.0, 3.5)  # Student t degrees of freedom: fewer is fatter
# How a low, middle or high volatility day favours each character.
_REGIME_TILT = np.array(
    [[0.9, 1.4, 0.8, 0.9, 1.9, 0.4], [1.0, 1.0, 1.0, 1.0, 1.0, 1.0], [1.3, 0.6, 1.3, 1.1, 0.4, 2.0]]
)
_REGIME_VOLATILITY = (0.7, 1.0, 1.6)
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


class SessionWindow(NamedTuple):
    """When a session type trades, and how it usually behaves.

    `start` and `end` are New York wall-clock times, and no message of the session is later than `end`.
    `volatility` is the usual standard deviation of a one-minute change in points, `opening` and `closing` the
    extra at the first and last minute as a fraction of it; `weights` go with `CHARACTERS`.
    """

    session_type: str
    start: dt.time
    end: dt.time
    volatility: float
    opening: float
    closing: float
    weights: tuple[float, ...]

    @property
    def n_bars(self) -> int:
        """Whole minutes from start to end."""
        return (self.end.hour - self.start.hour) * 60 + self.end.minute - self.start.minute


# In time order within a day. An asia session belongs to the date on which it starts.
SESSION_WINDOWS = (
    SessionWindow("midnight", dt.time(0, 0), dt.time(0, 29), 2.6, 0.3, 0.0, (2, 4, 2, 1, 5, 1)),
    SessionWindow("london", dt.time(2, 0), dt.time(4, 59), 4.5, 0.6, 0.1, (4, 3, 3, 4, 2, 2)),
    SessionWindow("premarket", dt.time(7, 0), dt.time(9, 29), 5.0, 0.2, 0.4, (3, 4, 2, 4, 3, 2)),
    SessionWindow("ny_am", dt.time(9, 30), dt.time(11, 59), 11.0, 1.0, 0.3, (4, 2, 4, 3, 1, 5)),
    SessionWindow("lunch", dt.time(12, 0), dt.time(12, 59), 6.5, 0.2, 0.2, (2, 5, 2, 2, 4, 2)),
    SessionWindow("ny_pm", dt.time(13, 30), dt.time(16, 9), 8.0, 0.4, 0.8, (4, 2, 4, 4, 2, 3)),
    SessionWindow("asia", dt.time(19, 0), dt.time(23, 59), 3.2, 0.5, 0.0, (2, 5, 2, 2, 4, 1)),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatedSession:
    """One session's messages in time order: its start and end where the producer sent them, events between.

    The id is ``<TYPE>_<YYYY-MM-DD>`` with the type in upper case; `session_type` is in lower case.
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
        bars = _bars(window, market, rng)
        events = detect_events(bars, first_bar=WARMUP_BARS, regime_bounds=_regime_bounds(window, market))
        market.price = float(bars.close[-1])
        past = market.history.setdefault(window.session_type, deque(maxlen=HISTORY_SESSIONS))
        past.append(trailing_mean(true_range(bars), REGIME_BARS)[WARMUP_BARS:])
        events = _with_unknown(events, bars, rng)
        yield SimulatedSession(
            session_id=f"{window.session_type.upper()}_{date.isoformat()}",
            session_type=window.session_type,
            messages=tuple(_messages(window, date, events, rng, declare_expected_events)),
            character=CHARACTERS[market.character],
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
        return 1.1 * window.volatility, 1.6 * window.volatility  # a usual bar spans about 1.3
    low, high = np.quantile(np.concatenate(past), (1 / 3, 2 / 3))
    return float(low), float(high)


def _bars(window: SessionWindow, market: _Market, rng: Generator) -> Bars:
    """Draw the session's bars after `WARMUP_BARS` bars of plain random walk, in points."""
    n_bars = window.n_bars
    plan = _character_path(CHARACTERS[market.character], n_bars, rng)
    before = np.tile([[0.0], [0.97], [1.0], [0.0]], WARMUP_BARS)
    drift, memory, scale, lean = np.concatenate((before, plan), axis=1)
    place = np.clip(np.arange(-WARMUP_BARS, n_bars) / n_bars, 0.0, 1.0)
    shape = 0.85 + window.opening * np.exp(-place / 0.12) + window.closing * np.exp((place - 1.0) / 0.12)
    total = len(place)
    cloud = _autoregress(np.full(total, 0.95), 0.1 * rng.standard_normal(total))
    level = window.volatility * _REGIME_VOLATILITY[market.regime] * _CHARACTER_VOLATILITY[market.character]
    sigma = level * rng.lognormal(0.0, 0.15) * shape * scale * np.exp(cloud)
    tail = _CHARACTER_TAIL[market.character]
    noise = np.clip(rng.standard_t(tail, total) * np.sqrt(1.0 - 2.0 / tail), -7.0, 7.0)  # unit variance
    path = np.cumsum(drift * sigma) + _autoregress(memory, sigma * noise)
    gap = rng.normal(0.0, 4.0 * window.volatility) + ANCHOR_PULL * (ANCHOR_PRICE - market.price)
    close = market.price + gap + path - path[WARMUP_BARS - 1]
    up, down = 0.4 * sigma * np.abs(rng.standard_normal((2, total)))
    up += np.maximum(lean, 0.0) * sigma
    down += np.maximum(-lean, 0.0) * sigma
    return Bars.around(close, up, down)


def _character_path(character: str, n_bars: int, rng: Generator) -> NDArray[np.float64]:
    """Draw how a character unfolds.

    Returns
    -------
    ndarray of shape (4, n_bars)
        Drift: mean change per minute in standard deviations. Memory: share of the distance from the mean path
        that survives a minute. Scale: factor on volatility. Lean: extra wick in standard deviations, up if
        positive.
    """
    side = float(rng.choice((-1.0, 1.0)))
    strength = rng.lognormal(0.0, 0.25)
    turn = int(n_bars * rng.uniform(0.35, 0.6))
    later = np.arange(n_bars) >= turn
    # Impulses of three minutes, about four an hour: they are what leaves gaps behind.
    impulse = np.convolve(rng.random(n_bars) < 1 / 15, np.ones(3))[:n_bars] * strength * side
    plan = np.stack((np.zeros(n_bars), np.full(n_bars, 0.98), np.ones(n_bars), np.zeros(n_bars)))
    drift, memory, scale, lean = plan
    if character == "trend":
        drift += 0.05 * side + 0.8 * impulse
    elif character == "range":
        memory[:] = 0.8
    elif character == "reversal":
        drift += np.where(later, -0.1 * side - 0.8 * impulse, 0.2 * strength * side)
        scale[turn - 2 : turn + 3] = 1.4
    elif character == "sweep_expansion":
        memory[~later] = 0.86
        scale[:] = np.where(later, 1.35, 0.8)
        drift[later] = 0.1 * side + 0.8 * impulse[later]
        # Stops are taken on the wrong side: now and then while the range holds, and just before it breaks.
        lean[:turn] = np.where(rng.random(turn) < 0.15, -2.5, 0.0) * side
        lean[turn - 2 : turn] = -3.0 * side
    elif character == "quiet_drift":
        drift += 0.07 * strength * side
        memory[:] = 0.95
    else:  # two_way: legs of about ten minutes, one against the other
        legs = np.cumsum(rng.random(n_bars) < 1 / 10)
        drift += np.where(legs % 2 == 0, 0.4, -0.4) * strength * side
    return plan


def _autoregress(memory: NDArray[np.float64], shocks: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return ``x[t] = memory[t] * x[t - 1] + shocks[t]`` from rest.

    Examples
    --------
    >>> _autoregress(np.array([0.5, 0.5, 0.5]), np.array([4.0, 0.0, 1.0])).tolist()
    [4.0, 2.0, 2.0]
    """
    values, value = [], 0.0
    for keep, shock in zip(memory.tolist(), shocks.tolist(), strict=True):
        value = keep * value + shock
        values.append(value)
    return np.array(values)


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
        yield _event(session_id, time, name, price=event.price, intensity=size, regime=event.htf_regime)
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
