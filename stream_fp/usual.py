"""The hot loop: records that are one more event of an open session, and need nothing but to be noted.

Nearly every record is one: an event of a session that is open, that closes nothing, crosses nothing, and whose time
stamp says by itself when it was. Such are dealt with here, without a call for each and with the state in local
variables. Whatever is not as usual is left to the engine, which can do all that is done here, and the rest, and would
come to the same (`tests/contract/test_batches.py`).

Pure, and compiled where a C compiler was there at installation (`usual.pxd` has the types): less than half the time.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from msgspec import UNSET
from msgspec.structs import astuple

from stream_fp.checks import MAX_INTENSITY, MAX_PRICE, MIN_PRICE
from stream_fp.messages import MAX_JSON_DEPTH, UNDECODABLE, Record, decode_unchecked, may_be_too_deep
from stream_fp.phases import PHASE_CODES
from stream_fp.sessions import CODE_BITS, NO_REGIME, Session, pack_row
from stream_fp.stamps import IS_COMPILED, digits_us
from stream_fp.times import absolute_us

__all__ = ["Stretch", "take_usual"]

_NAN: Final = float("nan")
_MIN_PRICE: float = MIN_PRICE
_MAX_PRICE: float = MAX_PRICE
_MAX_INTENSITY: float = MAX_INTENSITY
_MAX_JSON_DEPTH: int = MAX_JSON_DEPTH
#: What a record that is not as usual may raise where it is taken for one, beside `UNDECODABLE`: it has no value.
_NOT_USUAL: Final = TypeError


class Stretch:
    """What a stretch of usual records starts from, and what it comes to.

    Attributes
    ----------
    watermark_us : int
        Event-time watermark; -1 where there is none yet, and then no record is usual.
    deadline_us : float
        Watermark at which the next session closes.
    n_events, n_room : int
        Events held, and how many may be.
    n_applied, n_late : int
        Records that were applied, and those of sessions that have had their last checkpoint.
    error : Exception or None
        Where the first record that was not taken is no message: what decoding it has raised.
    """

    __slots__ = ("deadline_us", "error", "n_applied", "n_events", "n_late", "n_room", "watermark_us")

    def __init__(self) -> None:
        self.watermark_us: int = -1
        self.deadline_us: float = 0.0
        self.n_events: int = 0
        self.n_room: int = 0
        self.n_applied: int = 0
        self.n_late: int = 0
        self.error: Exception | None = None


def take_usual(  # noqa: C901, PLR0912, PLR0915, PLR0917 - the hot loop
    records: Sequence[Record],
    first: int,
    sessions: dict[bytes, Session],
    stretch: Stretch,
    max_bytes: int,
    max_events: int,
) -> int:
    """Take records from the one at `first` on, as long as they are usual.

    Parameters
    ----------
    records : sequence of Record
    first : int
    sessions : dict of bytes to Session
        The open ones, by record key.
    stretch : Stretch
        Is brought up to date.
    max_bytes, max_events : int
        Settings `max_record_bytes` and `max_events_per_session`.

    Returns
    -------
    int
        Index of the first record that was not taken; or minus one minus the index of the record that was taken last
        and took its session across a checkpoint.
    """
    watermark_us, deadline_us = stretch.watermark_us, stretch.deadline_us
    n_events, n_room, n_applied, n_late = stretch.n_events, stretch.n_room, 0, 0
    index, n_records, n_bytes, crossed = first, len(records), 0, False
    stretch.error = None
    while index < n_records:
        record = records[index]
        try:
            # Nothing is certain of these types: what does not fit raises one of `_NOT_USUAL`.
            value: Any = record.value
            n_bytes = len(value)
            if n_bytes > _MAX_JSON_DEPTH and may_be_too_deep(value):
                break
            message: Any = decode_unchecked(value if n_bytes <= max_bytes else b"")
            key: Any = record.key
            session = sessions.get(key)
            if session is None:
                break
            # All fields at once, in the order of `Message`: one by one they take a third longer.
            kind, session_id, stamp, event_type, price, intensity, regime, event_id, _ = astuple(message)
            time_us = digits_us(stamp) if IS_COMPILED and type(stamp) is str else -1
            if time_us < 0:
                time: Any = absolute_us(stamp)
                if time is None:
                    break
                time_us = time
            if watermark_us < 0:
                break
            if time_us <= watermark_us or time_us > session.reach_us:
                moved_us = watermark_us
            elif time_us - watermark_us <= session.step_us:
                moved_us = time_us
            else:
                moved_us = watermark_us + session.step_us
            if (
                moved_us >= deadline_us
                or time_us > session.over_us
                or n_events >= n_room
                or session.n_events >= max_events
                or session.n_untimed
            ):
                break
            if session_id is not None and session_id != session.id:
                break
            if event_type is None or event_id is not None or kind != "event":
                break
            if price is UNSET:
                break
            price_known = _NAN
            if price is not None:
                price_known = price
                if not _MIN_PRICE <= price_known <= _MAX_PRICE:
                    break
            intensity_known = _NAN
            if intensity is not None:
                intensity_known = intensity
                if not -_MAX_INTENSITY <= intensity_known <= _MAX_INTENSITY:
                    break
        except _NOT_USUAL:
            break
        except UNDECODABLE as error:
            if 0 < n_bytes <= max_bytes:
                stretch.error = error
            break
        index += 1
        watermark_us = moved_us
        session.touched_us = moved_us
        if session.is_spent:
            n_late += 1
            continue
        session.latest_us = max(session.latest_us, time_us)
        session.event_time_us = time_us
        session.n_events += 1
        code = PHASE_CODES[event_type] << 2 | (NO_REGIME if regime is None else regime)
        session.rows += pack_row(time_us << CODE_BITS | code, price_known, intensity_known)
        n_events += 1
        n_applied += 1
        if session.n_events >= session.trigger_n or session.latest_us >= session.trigger_us:
            crossed = True
            break
    stretch.watermark_us = watermark_us
    stretch.n_events = n_events
    stretch.n_applied += n_applied
    stretch.n_late += n_late
    return -index if crossed else index
