"""How far a session is, judged only from what is known at that moment.

Pure: facts about a session in, a `Yardstick` out. A yardstick measures completion either by event time against a
window or by events against an expected count; the rule is chosen once the facts are known, never from the finished
session. Training cuts its prefixes with the same yardsticks that the live service uses.
"""

from __future__ import annotations

import re
from datetime import date, time, timedelta
from functools import lru_cache
from typing import Final, Literal, get_args

from msgspec import Struct

from stream_fp.errors import RecordInvalidError
from stream_fp.messages import SessionMetadata
from stream_fp.times import local_us, parse_date, parse_time_of_day, zone_of

__all__ = [
    "DEFAULT_SCHEDULES",
    "CompletionPolicy",
    "Schedule",
    "SessionFacts",
    "Yardstick",
    "choose_yardstick",
    "resolve_facts",
]

CompletionPolicy = Literal["auto", "declared", "schedule", "count"]
POLICIES: Final = get_args(CompletionPolicy)

#: Windows remembered: sessions of many instruments have the same few windows on a day, and to reckon one takes as long
#: as ten events. Half a megabyte at the most.
_N_WINDOWS: Final = 1024
_NO_METADATA: Final = SessionMetadata()

#: ``<TYPE>_<YYYY-MM-DD>``, also with the ``Lvl-1`` and underscores of older file names, and with a suffix.
_SESSION_ID: Final = re.compile(r"(?P<type>.+?)(?:_lvl-\d+)?_(?P<date>\d{4}[-_]\d{2}[-_]\d{2})(?!\d)", re.IGNORECASE)


class Schedule(Struct, frozen=True, kw_only=True, gc=False):
    """The usual window of a session type, as wall-clock times; an end at or before the start is on the next day."""

    start: str
    end: str
    timezone: str = "America/New_York"

    def window_us(self, day: date) -> tuple[int, int]:
        """Return start and end on `day` in microseconds since 1970.

        Examples
        --------
        >>> start, end = Schedule(start="09:30", end="11:59").window_us(date(2025, 7, 29))
        >>> (end - start) / 60e6
        149.0
        """
        return _window_us(day, self.start, self.end, self.timezone)


#: Usual in the trade; training learns them anew from the metadata of its sessions.
DEFAULT_SCHEDULES: Final[dict[str, Schedule]] = {
    "asia": Schedule(start="19:00:00", end="23:59:00"),
    "midnight": Schedule(start="00:00:00", end="00:29:00"),
    "london": Schedule(start="02:00:00", end="04:59:00"),
    "premarket": Schedule(start="07:00:00", end="09:29:00"),
    "ny_am": Schedule(start="09:30:00", end="11:59:00"),
    "lunch": Schedule(start="12:00:00", end="12:59:00"),
    "ny_pm": Schedule(start="13:30:00", end="16:09:00"),
}


class SessionFacts(Struct, frozen=True, kw_only=True, gc=False):
    """What is known of a session without its events; times in microseconds since 1970."""

    session_type: str
    day: date | None
    timezone: str
    declared_start_us: int | None = None
    declared_end_us: int | None = None
    expected_events: int | None = None
    schedule_us: tuple[int, int] | None = None
    typical_events: float | None = None

    @property
    def start_us(self) -> int | None:
        """Start of the session: declared, else scheduled."""
        if self.declared_start_us is not None:
            return self.declared_start_us
        return None if self.schedule_us is None else self.schedule_us[0]

    @property
    def end_us(self) -> int | None:
        """Latest end that anything known gives: a session is not over while one of them says it goes on."""
        if self.schedule_us is None:
            return self.declared_end_us
        scheduled_us = self.schedule_us[1]
        return scheduled_us if self.declared_end_us is None else max(self.declared_end_us, scheduled_us)


class Yardstick(Struct, frozen=True, kw_only=True, gc=False):
    """Measures completion: by time between two instants, or by events against a count, or not at all."""

    method: str
    start_us: int = 0
    length_us: int = 0
    n_expected: float = 0.0

    def completion_pct(self, *, n_events: int, latest_us: int) -> float:
        """Return the completion in per cent, in [0, 100]; 0 where nothing is known.

        Examples
        --------
        >>> Yardstick(method="count", n_expected=73).completion_pct(n_events=21, latest_us=0)
        28.767123287671232
        """
        if self.n_expected:
            return min(100.0, 100.0 * n_events / self.n_expected)
        if self.length_us:
            return min(100.0, max(0.0, 100.0 * (latest_us - self.start_us) / self.length_us))
        return 0.0

    def crossing(self, checkpoint_pct: float) -> tuple[float, float]:
        """Return the event count and the event time (us) at which `checkpoint_pct` is reached; infinity for never.

        `completion_pct` is at or above the checkpoint exactly from there on, but for rounding in the last digit.
        """
        never = float("inf")
        if self.n_expected:
            return self.n_expected * checkpoint_pct / 100.0, never
        if self.length_us:
            return never, self.start_us + self.length_us * checkpoint_pct / 100.0
        return never, never


def resolve_facts(
    session_id: str,
    metadata: SessionMetadata | None,
    *,
    schedules: dict[str, Schedule],
    typical_events: dict[str, float],
    default_timezone: str,
) -> SessionFacts:
    """Gather what is known of a session from its metadata, its id and the schedules.

    Parameters
    ----------
    session_id : str
        Fallback for type and date (``<TYPE>_<YYYY-MM-DD>``).
    metadata : SessionMetadata or None
        What ``session_start`` said.
    schedules : dict of str to Schedule
        Usual window by session type, in lower case.
    typical_events : dict of str to float
        Usual number of events by session type.
    default_timezone : str
        Zone of time stamps without offset where the metadata names none.

    Raises
    ------
    RecordInvalidError
        When the metadata holds a zone, date or time of day that cannot be read.
    """
    given = _NO_METADATA if metadata is None else metadata
    match = _SESSION_ID.match(session_id)
    session_type = (given.session_type or (match["type"] if match else "")).strip().lower()
    zone = given.timezone or default_timezone
    return _resolved(
        session_type,
        given.date,
        match["date"] if match else None,
        given.start_time,
        given.end_time,
        zone,
        given.expected_events,
        schedules.get(session_type),
        typical_events.get(session_type),
    )


@lru_cache(_N_WINDOWS)
def _resolved(  # noqa: PLR0917 - positional, for the cache
    session_type: str,
    declared_date: str | None,
    date_of_id: str | None,
    start_time: str | None,
    end_time: str | None,
    zone: str,
    expected_events: int | None,
    schedule: Schedule | None,
    typical_events: float | None,
) -> SessionFacts:
    """Resolve what sessions of the same type and day have in common; they share the result."""
    day = _checked_date(declared_date) or (None if date_of_id is None else parse_date(date_of_id))
    try:
        schedule_us = schedule.window_us(day) if schedule is not None and day is not None else None
        declared_start_us, declared_end_us = _declared_us(day, start_time, end_time, zone, schedule_us)
    except (ValueError, OverflowError) as error:
        raise RecordInvalidError(f"{error} - at `$.session_metadata`") from error
    return SessionFacts(
        session_type=session_type,
        day=day,
        timezone=zone,
        declared_start_us=declared_start_us,
        declared_end_us=declared_end_us,
        expected_events=expected_events,
        schedule_us=schedule_us,
        typical_events=typical_events,
    )


def _checked_date(text: str | None) -> date | None:
    if text is None:
        return None
    day = parse_date(text)
    if day is None:
        raise RecordInvalidError(f"expected a date `YYYY-MM-DD`, got {text[:64]!r} - at `$.session_metadata.date`")
    return day


@lru_cache(_N_WINDOWS)
def _declared_us(
    day: date | None, start_time: str | None, end_time: str | None, zone: str, schedule_us: tuple[int, int] | None
) -> tuple[int | None, int | None]:
    place = zone_of(zone)
    start = None if start_time is None else _clock(start_time)
    end = None if end_time is None else _clock(end_time)
    if day is None:
        return None, None
    start_us = None if start is None else local_us(day, start, place)
    if end is None:
        return start_us, None
    end_us = local_us(day, end, place)
    begins_us = schedule_us[0] if start_us is None and schedule_us is not None else start_us
    if begins_us is not None and end_us <= begins_us:
        end_us = local_us(day + timedelta(days=1), end, place)
    return start_us, end_us


@lru_cache(_N_WINDOWS)
def _window_us(day: date, start: str, end: str, zone: str) -> tuple[int, int]:
    place = zone_of(zone)
    start_us, end_us = local_us(day, _clock(start), place), local_us(day, _clock(end), place)
    if end_us <= start_us:
        end_us = local_us(day + timedelta(days=1), _clock(end), place)
    return start_us, end_us


def _clock(text: str) -> time:
    clock = parse_time_of_day(text)
    if clock is None:
        msg = f"expected a time of day `HH:MM:SS`, got {text[:64]!r}"
        raise ValueError(msg)
    return clock


@lru_cache(_N_WINDOWS)
def choose_yardstick(facts: SessionFacts, policy: CompletionPolicy, *, timed: bool = True) -> Yardstick:
    """Choose how a session's completion is measured.

    Parameters
    ----------
    facts : SessionFacts
        What is known of the session.
    policy : {"auto", "declared", "schedule", "count"}
        ``auto`` takes the first that is known, in the order declared, schedule, count.
    timed : bool
        False where the session's time stamps cannot be read: windows are useless then.

    Returns
    -------
    Yardstick
        Its `method` is ``"unknown"`` where the policy finds nothing to measure by.
    """
    wanted = ("declared", "schedule", "count") if policy == "auto" else (policy,)
    for method in wanted:
        if method == "declared" and facts.expected_events:
            return Yardstick(method="declared", n_expected=float(facts.expected_events))
        if method == "declared" and timed and facts.declared_end_us is not None and facts.start_us is not None:
            return _timed("declared", facts.start_us, facts.declared_end_us)
        if method == "schedule" and timed and facts.schedule_us is not None:
            start_us, end_us = facts.schedule_us
            return _timed("schedule", start_us, end_us)
        if method == "count" and facts.typical_events:
            return Yardstick(method="count", n_expected=facts.typical_events)
    return Yardstick(method="unknown")


def _timed(method: str, start_us: int, end_us: int) -> Yardstick:
    return Yardstick(method=method, start_us=start_us, length_us=max(1, end_us - start_us))
