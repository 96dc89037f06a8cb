"""The buffer of one open session: rows of 24 bytes, one an event.

Pure state between `messages` and `features`. A hundred thousand open sessions fit in memory because a session's events
are one block of bytes, and most of what is known of it is shared with others of its type and day.

Invariant: a `Columns` view holds the events up to and including the one just appended, in arrival order, and nothing
that came or could be known later.
"""

from __future__ import annotations

import struct
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from datetime import date, tzinfo
from typing import Final

import numpy as np
import numpy.typing as npt

from stream_fp.completion import SessionFacts, Yardstick
from stream_fp.times import parse_timestamp_us, zone_of

__all__ = ["BYTES_PER_EVENT", "BYTES_PER_EVENT_ID", "BYTES_PER_SESSION", "CODE_BITS", "CODE_MASK", "NO_REGIME",
           "Columns", "Session", "pack_row"]  # fmt: skip

#: What an event takes: a word, price and intensity (NaN where there is none), 8 bytes each in the order of the machine.
#: The word is the time (us since 1970) and, in the lowest bits, the code (see `Columns`).
BYTES_PER_EVENT: Final = 24
CODE_BITS: Final = 5
CODE_MASK: Final = 2**CODE_BITS - 1
#: Makes a row of time shifted by `CODE_BITS` and code, price, and intensity.
pack_row: Final = struct.Struct("=qdd").pack
#: What an open session takes beside its events: object, key, dictionary entry and deadline, and facts and yardstick
#: where no other session shares them (measured with tracemalloc, rounded up).
BYTES_PER_SESSION: Final = 1200
#: What a remembered event id takes: a text of 64 characters and its place in a set, rounded up.
BYTES_PER_EVENT_ID: Final = 200
#: Regime code of an event that names none.
NO_REGIME: Final = 3

#: Shared by all sessions without ids: an empty set of its own would cost each of them 216 bytes.
_NO_IDS: Final[frozenset[str | int]] = frozenset()
_NO_FACTS: Final = SessionFacts(session_type="", day=None, timezone="UTC")
_NO_YARDSTICK: Final = Yardstick(method="unknown")
_NEVER: Final = float("inf")
_NAN: Final = float("nan")


@dataclass(frozen=True, slots=True, eq=False)
class Columns:
    """Events of a session so far, one array a field, in arrival order.

    Attributes
    ----------
    times_us : ndarray of shape (n_events,), int64
        Event times in microseconds since 1970.
    prices : ndarray of shape (n_events,), float64
        Prices; NaN where an event has none.
    intensities : ndarray of shape (n_events,), float64
        Intensities; NaN where an event has none.
    codes : ndarray of shape (n_events,), uint8
        Phase times four plus regime, where phase 6 and regime 3 stand for "none".
    start_us : int
        Start of the session, or the time of its first event where no start is known.
    """

    times_us: npt.NDArray[np.int64]
    prices: npt.NDArray[np.float64]
    intensities: npt.NDArray[np.float64]
    codes: npt.NDArray[np.uint8]
    start_us: int


class Session:
    """One open session: its events, its yardstick and where it stands between checkpoints.

    Compiled, its numbers are C's own and the garbage collector does not see it (it is part of no cycle): a hundred
    thousand of them would be walked through again and again. Two sessions are equal if they are the same.

    Attributes
    ----------
    id : str
    first_offset : int
        Offset of the record that opened it.
    opened_at_watermark_us : int or None
        Event-time watermark of the partition just before that record.
    touched_us : int
        Watermark of the partition when the session last got a record.
    reach_us : float
        How far its events may move the watermark.
    step_us : int
        By how much one of them may.
    over_us : float
        Latest end that anything known gives, plus grace: later events are left out.
    n_events, n_untimed : int
    is_spent : bool
        No checkpoint is left, and its events are needed no more.
    latest_us : int
        Latest event time seen, 0 while no time stamp could be read.
    event_time_us : int
        Of the event appended last, in order of arrival.
    rows : bytearray
    trigger_n, trigger_us : float
        Number of events, and event time, at which the next checkpoint is crossed.
    facts : SessionFacts
    yardstick : Yardstick
    id_day : date or None
        What the id alone says, here and below, decides when the session closes, so that whoever sees only a part of
        its records comes to the same end.
    id_end_us : int or None
    closes_us : float
        Scheduled end plus grace.
    tells_time : bool
        Whether a time stamp reads the same with and without what was declared.
    event_ids : set of str or int
        Of the events held, where the producer sends any.
    n_checkpoints_done : int
    """

    # What every event asks for comes first, close together: of a hundred thousand sessions none is in the processor's
    # caches, and each line of 64 bytes that is looked at costs as much as ten steps.
    __slots__ = (
        "closes_us",
        "event_ids",
        "event_time_us",
        "facts",
        "first_offset",
        "id",
        "id_day",
        "id_end_us",
        "is_spent",
        "latest_us",
        "n_checkpoints_done",
        "n_events",
        "n_untimed",
        "opened_at_watermark_us",
        "over_us",
        "reach_us",
        "rows",
        "step_us",
        "tells_time",
        "touched_us",
        "trigger_n",
        "trigger_us",
        "yardstick",
    )  # fmt: skip

    def __init__(self, id: str, *, first_offset: int, opened_at_watermark_us: int | None) -> None:  # noqa: A002
        self.id: str = id
        self.first_offset: int = first_offset
        self.opened_at_watermark_us: int | None = opened_at_watermark_us
        self.touched_us: int = 0
        self.reach_us: float = _NEVER
        self.step_us: int = 0
        self.over_us: float = _NEVER
        self.n_events: int = 0
        self.n_untimed: int = 0
        self.is_spent: bool = False
        self.latest_us: int = 0
        self.event_time_us: int = 0
        self.rows: bytearray = bytearray()
        self.trigger_n: float = _NEVER
        self.trigger_us: float = _NEVER
        self.facts: SessionFacts = _NO_FACTS
        self.yardstick: Yardstick = _NO_YARDSTICK
        self.id_day: date | None = None
        self.id_end_us: int | None = None
        self.closes_us: float = _NEVER
        self.tells_time: bool = True
        self.event_ids: AbstractSet[str | int] = _NO_IDS
        self.n_checkpoints_done: int = 0

    def read_time(self, stamp: str | float, default_zone: tzinfo) -> tuple[int | None, int | None]:
        """Read a time stamp that leaves zone or day open: as the session declared them, and as its id alone says."""
        time_us = parse_timestamp_us(stamp, zone_of(self.facts.timezone), self.facts.day)
        if self.tells_time:
            return time_us, time_us
        return time_us, parse_timestamp_us(stamp, default_zone, self.id_day)

    @property
    def n_held(self) -> int:
        """Events that the rows hold."""
        return len(self.rows) // BYTES_PER_EVENT

    def append(self, time_us: int, price: float | None, intensity: float | None, code: int) -> None:
        """Add one event; its time has to be known, price and intensity need not be."""
        known_price = _NAN if price is None else price
        self.rows += pack_row(time_us << CODE_BITS | code, known_price, _NAN if intensity is None else intensity)

    def remember(self, event_id: str | int) -> None:
        """Remember the id of an event that was appended, to know it when it comes again."""
        if isinstance(self.event_ids, set):
            self.event_ids.add(event_id)
        else:
            self.event_ids = {event_id}

    def release(self) -> int:
        """Drop the events, once no checkpoint is left to cross; return how many were held."""
        n_held = self.n_held
        self.rows = bytearray()
        self.event_ids = _NO_IDS
        return n_held

    def columns(self) -> Columns:
        """Return the events so far, field by field."""
        # Copies: a view would forbid `append`.
        words = np.frombuffer(self.rows, dtype=np.int64)[::3].copy()
        numbers = np.frombuffer(self.rows, dtype=np.float64)
        times_us = words >> CODE_BITS
        return Columns(
            times_us=times_us,
            prices=numbers[1::3].copy(),
            intensities=numbers[2::3].copy(),
            codes=(words & CODE_MASK).astype(np.uint8),
            start_us=self.start_us,
        )

    @property
    def start_us(self) -> int:
        """Start of the session, or the time of its first event where no start is known."""
        start_us = self.facts.start_us
        if start_us is not None:
            return start_us
        (first_word,) = struct.unpack_from("=q", self.rows)
        return int(first_word) >> CODE_BITS

    @property
    def completion_pct(self) -> float:
        """Completion at the latest event, in per cent."""
        return self.yardstick.completion_pct(n_events=self.n_events, latest_us=self.latest_us)

    @property
    def all_untimed(self) -> bool:
        """Whether no time stamp of the session could be read so far."""
        return self.latest_us == 0
