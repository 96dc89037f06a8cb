"""The buffer of one open session: columns that grow by one row an event.

Pure state between `messages` and `features`. Columns are typed arrays, 25 bytes an event, so that a hundred thousand
open sessions fit in memory and the feature extraction reads them through numpy without a copy.

Invariant: a `Columns` view holds the events up to and including the one just appended, in arrival order, and nothing
that came or could be known later.
"""

from __future__ import annotations

from array import array
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from datetime import date, tzinfo
from typing import Final

import numpy as np
import numpy.typing as npt

from stream_fp.completion import SessionFacts, Yardstick
from stream_fp.times import parse_timestamp_us

__all__ = ["BYTES_PER_EVENT", "BYTES_PER_EVENT_ID", "BYTES_PER_SESSION", "NO_REGIME", "Columns", "Session"]

#: What an event takes in the columns: time, price, intensity (8 bytes each), phase and regime (1 byte).
BYTES_PER_EVENT: Final = 25
#: What an open session takes beside its events: object, four arrays, facts, yardstick, dictionary entry and deadline
#: (measured with tracemalloc, rounded up).
BYTES_PER_SESSION: Final = 2600
#: What a remembered event id takes: a text of 64 characters and its place in a set, rounded up.
BYTES_PER_EVENT_ID: Final = 200
#: Regime code of an event that names none.
NO_REGIME: Final = 3

#: Shared by all sessions without ids: an empty set of its own would cost each of them 216 bytes.
_NO_IDS: Final[frozenset[str | int]] = frozenset()
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
    """One open session: its columns, its yardstick and where it stands between checkpoints.

    Parameters
    ----------
    session_id : str
        Identity of the session.
    first_offset : int
        Offset of the record that opened it.
    opened_at_watermark_us : int or None
        Event-time watermark of the partition just before that record.
    """

    __slots__ = (
        "closes_us", "codes", "event_ids", "event_time_us", "facts", "first_offset", "id", "id_day", "id_end_us",
        "intensities", "latest_us", "n_checkpoints_done", "n_events", "n_untimed", "opened_at_watermark_us", "over_us",
        "prices", "tells_time", "times", "touched_us", "trigger_n", "trigger_us", "yardstick", "zone",
    )  # fmt: skip

    def __init__(self, session_id: str, *, first_offset: int, opened_at_watermark_us: int | None) -> None:
        self.id = session_id
        self.first_offset = first_offset
        self.opened_at_watermark_us = opened_at_watermark_us
        self.facts: SessionFacts
        self.yardstick: Yardstick
        self.zone: tzinfo
        # What the id alone says: it decides when the session closes, so that whoever sees only a part of the
        # session's records comes to the same end.
        self.id_day: date | None = None
        self.id_end_us: int | None = None
        self.closes_us: int | None = None  # scheduled end plus grace
        self.over_us: int | None = None  # latest end that anything known gives, plus grace: later events are left out
        self.tells_time = True  # whether a time stamp reads the same with and without what was declared
        self.times = array("q")
        self.prices = array("d")
        self.intensities = array("d")
        self.codes = array("B")
        self.event_ids: AbstractSet[str | int] = _NO_IDS  # of the events held, where the producer sends any
        self.n_events = 0
        self.n_untimed = 0
        self.event_time_us = 0  # of the event appended last, in order of arrival
        self.latest_us = 0  # latest event time seen, 0 while no time stamp could be read
        self.touched_us = 0  # watermark of the partition when the session last got a record
        self.n_checkpoints_done = 0
        self.trigger_n = _NEVER
        self.trigger_us = _NEVER

    def read_time(self, stamp: str | float, default_zone: tzinfo) -> tuple[int | None, int | None]:
        """Read a time stamp that leaves zone or day open: as the session declared them, and as its id alone says."""
        time_us = parse_timestamp_us(stamp, self.zone, self.facts.day)
        if self.tells_time:
            return time_us, time_us
        return time_us, parse_timestamp_us(stamp, default_zone, self.id_day)

    def append(self, time_us: int, price: float | None, intensity: float | None, code: int) -> None:
        """Add one event to the columns; its time has to be known, price and intensity need not be."""
        self.times.append(time_us)
        self.prices.append(_NAN if price is None else price)
        self.intensities.append(_NAN if intensity is None else intensity)
        self.codes.append(code)

    def remember(self, event_id: str | int) -> None:
        """Remember the id of an event that was appended, to know it when it comes again."""
        if isinstance(self.event_ids, set):
            self.event_ids.add(event_id)
        else:
            self.event_ids = {event_id}

    def release(self) -> int:
        """Drop the columns, once no checkpoint is left to cross; return how many events they held."""
        n_held = len(self.times)
        self.times, self.prices = array("q"), array("d")
        self.intensities, self.codes = array("d"), array("B")
        self.event_ids = _NO_IDS
        return n_held

    def columns(self) -> Columns:
        """Return the events so far without copying; valid until the next `append`."""
        times_us = np.frombuffer(self.times, dtype=np.int64)
        start_us = self.facts.start_us
        return Columns(
            times_us=times_us,
            prices=np.frombuffer(self.prices, dtype=np.float64),
            intensities=np.frombuffer(self.intensities, dtype=np.float64),
            codes=np.frombuffer(self.codes, dtype=np.uint8),
            start_us=int(times_us[0]) if start_us is None else start_us,
        )

    @property
    def completion_pct(self) -> float:
        """Completion at the latest event, in per cent."""
        return self.yardstick.completion_pct(n_events=self.n_events, latest_us=self.latest_us)

    @property
    def all_untimed(self) -> bool:
        """Whether no time stamp of the session could be read so far."""
        return self.latest_us == 0
