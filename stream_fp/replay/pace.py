"""When recorded records come again: their order over several sources, and the moment each is due.

The pure part of a rehearsal (`stream_fp.replay.rehearsal`): no clock, no files, no Kafka. Each source (a partition, a
file) has a clock of its own, the latest event time so far: a late event comes right behind the one before it, and so
does whatever names no time.

Invariant: the records of a source keep their order, none is lost or comes twice, and over all sources what is due never
runs backwards.
"""

from __future__ import annotations

import heapq
import re
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import tzinfo
from typing import Final, Generic, TypeVar

import msgspec

from stream_fp.completion import resolve_facts
from stream_fp.times import SECOND_US, absolute_us, parse_timestamp_us

__all__ = ["MAX_SPEED", "MIN_SPEED", "Merge", "Pace", "event_time_us", "parse_speed"]

#: Slower, a session of two hours would take a week; faster, a year takes five minutes, and `max` is what is meant.
MIN_SPEED: Final = 0.01
MAX_SPEED: Final = 100_000.0
_SPEED: Final = re.compile(r"(\d+(?:\.\d+)?|\.\d+)x?", re.ASCII)
_MALFORMED: Final = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)

T = TypeVar("T")


def parse_speed(text: str) -> float | None:
    """Read a speed: how many times as fast as it was, or None for ``max``.

    Raises
    ------
    ValueError
        When it is neither, or out of bounds; says what was expected.

    Examples
    --------
    >>> parse_speed("10x"), parse_speed("0.5x"), parse_speed("max")
    (10.0, 0.5, None)
    """
    word = text.strip().lower()
    if word == "max":
        return None
    match = _SPEED.fullmatch(word)
    speed = float(match[1]) if match else 0.0
    if not MIN_SPEED <= speed <= MAX_SPEED:
        msg = f"expected a speed such as 1x, 10x or 0.5x, from {MIN_SPEED:g}x to {MAX_SPEED:.0f}x, or max; got {text!r}"
        raise ValueError(msg)
    return speed


class _Stamped(msgspec.Struct, gc=False):
    """What of a message says when it was."""

    kind: str = "event"
    session_id: str | None = None
    timestamp: str | int | float | None = None


_decode: Final = msgspec.json.Decoder(_Stamped).decode


def event_time_us(key: bytes | None, value: bytes | None, zone: tzinfo) -> int | None:
    """Return the event time of a record in microseconds since 1970, None for what is no event or names no time.

    Parameters
    ----------
    key, value : bytes or None
        Of the record.
    zone : tzinfo
        Of time stamps without an offset.

    Examples
    --------
    >>> from datetime import UTC
    >>> event_time_us(b"NY_AM_2025-07-29", b'{"timestamp": "14:35:00"}', UTC)
    1753799700000000
    >>> event_time_us(None, b'{"kind": "session_end", "timestamp": 1753799700}', UTC) is None
    True
    """
    if not value:
        return None
    try:
        message = _decode(value)
    except _MALFORMED:
        return None
    stamp = message.timestamp
    if message.kind != "event" or stamp is None:
        return None
    time_us = absolute_us(stamp)
    if time_us is None:
        time_us = parse_timestamp_us(stamp, zone)
    if time_us is None:
        # Only a time of day needs the day, which costs more to find.
        session_id = message.session_id or (key or b"").decode("utf-8", "replace")
        facts = resolve_facts(session_id, None, schedules={}, typical_events={}, default_timezone="UTC")
        time_us = parse_timestamp_us(stamp, zone, facts.day)
    return time_us


class Merge(Generic[T]):
    """The records of several sources in order of event time, some at a time of each.

    Whoever drives it asks which source is `wanted`, and feeds or ends that one, until none is; then takes the next
    record. A source is wanted only when its next record may be the next of all: so as long as the others are earlier,
    nothing of it needs to be read, or even opened.
    """

    def __init__(self) -> None:
        #: No source's next record is earlier than what stands here: that of its next record, or its clock.
        self._next_us: list[tuple[int, int]] = []
        self._queues: dict[int, deque[tuple[int, T]]] = {}
        self._clocks_us: dict[int, int] = {}

    def expect(self, source: int, first_us: int) -> None:
        """Take up a source whose first event is at `first_us`; until then its clock stands there."""
        heapq.heappush(self._next_us, (first_us, source))
        self._queues[source] = deque()
        self._clocks_us[source] = first_us

    @property
    def wanted(self) -> int | None:
        """The source to feed or to end before the next record is known; None where it is, or all are over."""
        if not self._next_us or self._queues[source := self._next_us[0][1]]:
            return None
        return source

    def feed(self, records: Iterable[tuple[int | None, T]]) -> None:
        """Give the next records of the source that is wanted, each with its event time."""
        _, source = self._next_us[0]
        queue, clock_us = self._queues[source], self._clocks_us[source]
        for time_us, record in records:
            if time_us is not None and time_us > clock_us:
                clock_us = time_us
            queue.append((clock_us, record))
        self._clocks_us[source] = clock_us
        if queue:
            heapq.heapreplace(self._next_us, (queue[0][0], source))

    def end(self) -> None:
        """Say that the source that is wanted has no more records."""
        _, source = heapq.heappop(self._next_us)
        del self._queues[source], self._clocks_us[source]

    @property
    def next_us(self) -> int | None:
        """The source's clock at the next record; None where all are over. Only while no source is wanted."""
        return self._next_us[0][0] if self._next_us else None

    def pop(self) -> tuple[int, T]:
        """Return the next record of all and its source. Only while no source is wanted."""
        now_us, source = self._next_us[0]
        queue = self._queues[source]
        _, record = queue.popleft()
        heapq.heapreplace(self._next_us, (queue[0][0] if queue else now_us, source))
        return source, record


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How event time becomes time that passes.

    Attributes
    ----------
    first_us : int
        The earliest event time, microseconds since 1970.
    start_s : float
        When it is due, in seconds of any clock.
    speed : float or None
        Seconds of event time in a second; None for all of them at once.
    """

    first_us: int
    start_s: float
    speed: float | None

    def due_s(self, time_us: int) -> float:
        """Return when an event time is due, in seconds of that clock.

        Examples
        --------
        >>> Pace(first_us=0, start_s=100.0, speed=10.0).due_s(60_000_000)
        106.0
        """
        if self.speed is None:
            return self.start_s
        return self.start_s + (time_us - self.first_us) / SECOND_US / self.speed
