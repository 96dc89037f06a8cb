"""From bars to the messages of the input topic: sessions with a start, their events, and an end.

The last station of ``stream-fp-offline events``: `offline.bars` has read the bars, `offline.stretches` has found
where they break, `offline.detect` which events they hold; here the events become those of sessions, in the order in
which they become known.

Invariant: what the first bars say does not depend on later ones. Cut the bars anywhere, and the messages are those of
all bars that are stamped up to the close of the last one left. No session is left out for what comes later.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from offline.detect import DetectedEvent, detect_events
from offline.regimes import market_regimes
from offline.stretches import WARMUP_BARS, find_stretches
from stream_fp.times import zone_of

if TYPE_CHECKING:
    from zoneinfo import ZoneInfo

    from numpy.typing import NDArray

    from offline.bars import MarketBars
    from stream_fp.completion import Schedule

__all__ = ["MarketSession", "find_events", "find_sessions", "session_messages", "timed_messages"]

_STAGE: Final = "Finding events"
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
#: Decimals of prices; of smaller ones than 0.1 as many significant digits.
_PRICE_DIGITS: Final = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class MarketSession:
    """One session of recorded bars that has events.

    Attributes
    ----------
    session_id, session_type
        ``<TYPE>_<YYYY-MM-DD>`` with or without ``-<INSTRUMENT>``; the type in lower case.
    day
        Date of the window's start, in the window's zone.
    schedule
        The window.
    start_us, end_us
        Of the window on that day, in microseconds since 1970.
    events
        In order of time, each known at a close after the start and not after the end.
    close_us
        When each event became known: close of its bar, in microseconds since 1970.
    bars_fraction
        Bars within the window, as a share of those that fit into it.
    is_over
        Whether a bar closed at or after the end.
    """

    session_id: str
    session_type: str
    day: date
    schedule: Schedule
    start_us: int
    end_us: int
    events: list[DetectedEvent] = field(repr=False)
    close_us: list[int] = field(repr=False)
    bars_fraction: float
    is_over: bool


def find_events(
    market: MarketBars, *, zone: ZoneInfo, progress: Callable[[str, int, int], None] | None = None
) -> list[DetectedEvent]:
    """Find the events of all bars, in order of bars.

    Parameters
    ----------
    market
        Bars of one instrument.
    zone
        Where half hours of the day are counted, for the regime.
    progress
        Told the stage, how many bars are done, and of how many.
    """
    stretches = find_stretches(market.open_us, market.bars, bar_us=market.bar_us)
    regime = market_regimes(market.open_us, stretches.spread, market.bars.close, bar_us=market.bar_us, zone=zone)
    found: list[DetectedEvent] = []
    for first, end in stretches:
        events = detect_events(
            market.bars.between(first, end),
            unit=stretches.unit[first:end],
            regime=regime[first:end],
            first_bar=WARMUP_BARS - first,
        )
        found += [event._replace(bar=event.bar + first) for event in events]
        if progress is not None:
            progress(_STAGE, end, len(market))
    return found


def find_sessions(
    market: MarketBars,
    events: list[DetectedEvent],
    schedules: Mapping[str, Schedule],
    *,
    instrument: str = "",
) -> list[MarketSession]:
    """Sort events into the sessions whose windows hold them.

    Parameters
    ----------
    market, events
        Bars, and what `find_events` found in them.
    schedules
        Window by session type, in lower case. Windows may cross midnight, and may overlap: an event may belong to
        several sessions.
    instrument
        Goes into the ids, so that several instruments may share a topic.

    Returns
    -------
    list of MarketSession
        Those that have events, in order of start, end and type.
    """
    bar_close_us = market.close_us
    event_close_us = bar_close_us[np.fromiter((event.bar for event in events), np.int64, len(events))]
    last_close_us = int(bar_close_us[-1])
    sessions = []
    for day, session_type, schedule in _windows(market.open_us, schedules):
        start_us, end_us = schedule.window_us(day)
        first, end = np.searchsorted(event_close_us, (start_us, end_us), side="right").tolist()
        if first == end:
            continue
        # Bars that lie within, not those that only end there.
        first_bar, end_bar = np.searchsorted(bar_close_us, (start_us + market.bar_us, end_us + 1)).tolist()
        n_fit = max(1, (end_us - start_us) // market.bar_us)
        sessions.append(
            MarketSession(
                session_id=f"{session_type.upper()}_{day.isoformat()}{f'-{instrument}' if instrument else ''}",
                session_type=session_type,
                day=day,
                schedule=schedule,
                start_us=start_us,
                end_us=end_us,
                events=events[first:end],
                close_us=event_close_us[first:end].tolist(),
                bars_fraction=(end_bar - first_bar) / n_fit,
                is_over=end_us <= last_close_us,
            )
        )
    return sorted(sessions, key=lambda session: (session.start_us, session.end_us, session.session_type))


def session_messages(sessions: list[MarketSession]) -> Iterator[dict[str, Any]]:
    """Yield the messages of all sessions in the order in which they become known.

    A ``session_start`` comes just before the session's first event. A ``session_end`` is stamped with the end of the
    window and follows what is stamped up to then: it is known once a bar closes at or after it. Sessions that the
    data cut off have none.
    """
    return (message for _, message in timed_messages(sessions))


def timed_messages(sessions: list[MarketSession]) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield `session_messages`, each with its time in microseconds since 1970: that of a start is its first event's."""
    for session, place in _in_order(sessions):
        if place < 0:
            yield session.end_us, {"kind": "session_end", "session_id": session.session_id,
                                   "timestamp": _iso(session.end_us, session.schedule.timezone)}  # fmt: skip
            continue
        known_us = session.close_us[place]
        if place == 0:
            yield known_us, _start(session)
        event = session.events[place]
        message = {
            "session_id": session.session_id,
            "timestamp": _iso(known_us, session.schedule.timezone),
            "event_type": event.phase,
            "price": _rounded(event.price),
            "intensity": round(event.intensity, 3),
            "htf_regime": event.htf_regime,
        }
        yield known_us, message


def _windows(open_us: NDArray[np.int64], schedules: Mapping[str, Schedule]) -> Iterator[tuple[date, str, Schedule]]:
    """Yield every day and type whose window may hold a bar; one that crosses midnight begins on the day before."""
    first = (_EPOCH + timedelta(microseconds=int(open_us[0]))).date() - timedelta(days=2)
    last = (_EPOCH + timedelta(microseconds=int(open_us[-1]))).date() + timedelta(days=1)
    for day in range((last - first).days + 1):
        for session_type, schedule in schedules.items():
            yield first + timedelta(days=day), session_type, schedule


def _in_order(sessions: list[MarketSession]) -> Iterator[tuple[MarketSession, int]]:
    """Yield session and place of each event, and -1 at each end, by time; at one time events go before ends."""
    n_entries = [len(session.events) + session.is_over for session in sessions]
    number = np.repeat(np.arange(len(sessions)), n_entries)
    ends = [[session.end_us] if session.is_over else [] for session in sessions]
    time_us = np.array([us for session, end in zip(sessions, ends, strict=True) for us in (*session.close_us, *end)])
    place = np.array(
        [at for session in sessions for at in (*range(len(session.events)), *([-1] if session.is_over else []))]
    )
    for entry in np.lexsort((place, number, place < 0, time_us)).tolist() if sessions else []:
        yield sessions[number[entry]], int(place[entry])


def _start(session: MarketSession) -> dict[str, Any]:
    return {
        "kind": "session_start",
        "session_id": session.session_id,
        "session_metadata": {
            "session_type": session.session_type.upper(),
            "date": session.day.isoformat(),
            "start_time": session.schedule.start,
            "end_time": session.schedule.end,
            "timezone": session.schedule.timezone,
        },
    }


def _iso(moment_us: int, timezone: str) -> str:
    return (_EPOCH + timedelta(microseconds=moment_us)).astimezone(zone_of(timezone)).isoformat()


def _rounded(price: float) -> float:
    """Return a price without the noise of floats.

    Examples
    --------
    >>> _rounded(6383.2500000001), _rounded(0.1 + 0.2), _rounded(0.0000123456789)
    (6383.25, 0.3, 1.23457e-05)
    """
    return round(price, max(_PRICE_DIGITS, _PRICE_DIGITS - 1 - math.floor(math.log10(price))))
