"""Session documents, the older shape of a whole session in one file, as messages of the input topic.

Pure adapter, for the library call, replay and training. A document is
``{"events": [...], "session_metadata": {...}}``. Real ones are messy, so this is what is read and what is not:

===================  =========================================================================================
message field        read from, in this order
===================  =========================================================================================
``timestamp``        ``timestamp``: full, or a time of day on the session's date (past midnight: the next day)
``event_type``       ``event_type``, ``type``, ``original_type``; the first that is not empty
``price``            ``price``, ``price_level``; null where neither is a number
``intensity``        ``intensity``, ``magnitude``
``htf_regime``       ``htf_regime``; else ``htf_confluence``: under 0.33 is 0, under 0.67 is 1, above is 2
session type         ``session_type``
date                 ``date``, ``session_date``
start and end        ``start_time``, ``session_start``; ``end_time``, ``session_end``
``timezone``         ``timezone``
``expected_events``  ``expected_events``
===================  =========================================================================================

Lookahead is left out. Fields computed from the finished session (``range_position``, ``pct_from_*``,
``normalized_time`` ...) are never read. Events that exist only because the session is finished are dropped: session
extremes, and zones of the final range. Events of the source ``session_liquidity_events`` carry the level of the
finished session as their price, so they keep their place and lose the price; where they lie outside the session's
window, their time is a default (noon, half past twelve) and no time, so they are dropped too.

Events are put in order of time; those of equal or unreadable time keep the order of the document.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from numbers import Real
from typing import Any, Final

import msgspec

from stream_fp.completion import DEFAULT_SCHEDULES, SessionFacts, resolve_facts
from stream_fp.errors import DocumentError, RecordInvalidError
from stream_fp.messages import SessionMetadata
from stream_fp.times import parse_time_of_day, parse_timestamp_us, zone_of

__all__ = ["AdaptedDocument", "adapt_document", "is_document"]

_LOOKAHEAD_TYPES: Final = frozenset({"session_extremes", "session_high", "session_low"})
_LOOKAHEAD_SOURCES: Final = frozenset({"archaeological_zone_detection"})
_LOOKAHEAD_PRICE_SOURCES: Final = frozenset({"session_liquidity_events"})
#: Confluence below the first is regime 0, below the second regime 1, else 2.
_CONFLUENCE_BOUNDS: Final = (0.33, 0.67)
_REGIMES: Final = (0, 1, 2)
_MAX_COUNT: Final = 10_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class AdaptedDocument:
    """A document as messages.

    Attributes
    ----------
    session_id : str
    messages : list of dict
        ``session_start``, the events in order of time, and ``session_end`` where the document is a finished session.
    n_imputed_by_message : tuple of int
        How many numbers of each message were not finite and count as missing.
    n_lookahead : int
        Events left out because only the finished session could know them.
    """

    session_id: str
    messages: list[dict[str, Any]]
    n_imputed_by_message: tuple[int, ...]
    n_lookahead: int

    @property
    def n_imputed(self) -> int:
        """Numbers of the whole document that were not finite."""
        return sum(self.n_imputed_by_message)


def is_document(value: object) -> bool:
    """Tell a session document from a message.

    Examples
    --------
    >>> is_document({"events": [], "session_metadata": {}})
    True
    >>> is_document({"kind": "session_start", "session_metadata": {}})
    False
    """
    return isinstance(value, Mapping) and "events" in value


def adapt_document(
    document: Mapping[str, Any], *, session_id: str | None = None, finished: bool = True, where: str = "document"
) -> AdaptedDocument:
    """Turn a session document into messages of the input topic.

    Parameters
    ----------
    document : mapping
        ``events`` and ``session_metadata``.
    session_id : str, optional
        Else ``session_id`` of the document or its metadata, else ``<TYPE>_<date>``.
    finished : bool
        Whether the document holds a whole session, so that a ``session_end`` belongs to it.
    where : str
        Named in errors.

    Raises
    ------
    DocumentError
        When events or metadata are not of the documented shape, or no session id can be made.
    """
    if not isinstance(document, Mapping):
        raise DocumentError(where, f"expected a session document as a mapping, got {type(document).__name__}")
    events = document.get("events")
    metadata = document.get("session_metadata", {})
    if not isinstance(events, Sequence) or isinstance(events, str) or not isinstance(metadata, Mapping):
        raise DocumentError(where, "expected `events` as a list and `session_metadata` as an object")
    session_type, date = _text(metadata, "session_type"), _text(metadata, "date", "session_date")
    found = {
        "session_type": session_type,
        "date": date,
        "start_time": _text(metadata, "start_time", "session_start"),
        "end_time": _text(metadata, "end_time", "session_end"),
        "timezone": _text(metadata, "timezone"),
        "expected_events": _count(metadata, "expected_events", where),
    }
    given = {name: value for name, value in found.items() if value is not None}
    name = session_id or document.get("session_id") or metadata.get("session_id")
    if not name and session_type and date:
        name = f"{session_type.upper()}_{date}"
    if not isinstance(name, str) or not name:
        raise DocumentError(where, "expected a session id, or `session_type` and `date` in `session_metadata`")
    try:
        # The document's own window and zone decide what its times mean: a wrong one must not be passed over.
        facts = resolve_facts(
            name,
            msgspec.convert(given, SessionMetadata),
            schedules=DEFAULT_SCHEDULES,
            typical_events={},
            default_timezone="UTC",
        )
    except (RecordInvalidError, msgspec.ValidationError) as error:
        raise DocumentError(where, str(error)) from error
    if any("\ud800" <= letter <= "\udfff" for letter in name):
        raise DocumentError(where, f"expected a session id of Unicode characters, got {name[:64]!r}")
    reader = _EventReader(given, facts, where)
    rows = [row for i, event in enumerate(events) if (row := reader.read(event, i)) is not None]
    rows.sort(key=_row_time)
    messages: list[dict[str, Any]] = [{"kind": "session_start", "session_id": name, "session_metadata": given}]
    messages += [{"session_id": name, **event} for _, event, _ in rows]
    n_imputed = [0, *(n for _, _, n in rows), *([0] if finished else [])]
    if finished:
        messages.append({"kind": "session_end", "session_id": name})
    return AdaptedDocument(
        session_id=name,
        messages=messages,
        n_imputed_by_message=tuple(n_imputed),
        n_lookahead=reader.n_lookahead,
    )


def _row_time(row: _Row) -> int:
    return row[0]


#: Time in us, message, and how many of its numbers were not finite.
_Row = tuple[int, dict[str, Any], int]


class _EventReader:
    """Reads the events of one document, and counts what it had to leave out."""

    def __init__(self, given: Mapping[str, Any], facts: SessionFacts, where: str) -> None:
        self._where = where
        self._facts = facts
        self._zone = zone_of(facts.timezone)
        start, end = (parse_time_of_day(given.get(name, "")) for name in ("start_time", "end_time"))
        self._rolls_over_before = start if start is not None and end is not None and end <= start else None
        self._latest_us = 0
        self._n_imputed = 0
        self.n_lookahead = 0

    def read(self, event: object, index: int) -> _Row | None:
        """Return the row of one event; None where only the finished session could know it."""
        if not isinstance(event, Mapping):
            raise DocumentError(self._where, f"expected an object, got {type(event).__name__} - at `$.events[{index}]`")
        kinds = [event.get(name) for name in ("event_type", "type", "original_type")]
        source = event.get("source")
        if not isinstance(source, str):
            source = None
        if source in _LOOKAHEAD_SOURCES or not _LOOKAHEAD_TYPES.isdisjoint(k for k in kinds if isinstance(k, str)):
            self.n_lookahead += 1
            return None
        stamp = self._stamp(event.get("timestamp"))
        time_us = parse_timestamp_us(stamp, self._zone, self._facts.day)
        if time_us is None:
            time_us = self._latest_us
        elif source in _LOOKAHEAD_PRICE_SOURCES and not self._in_window(time_us):
            # Entries without a time of their own stand at noon or half past, whatever the session.
            self.n_lookahead += 1
            return None
        self._latest_us = time_us
        self._n_imputed = 0
        message = {
            "timestamp": stamp,
            "event_type": _clean(next((kind for kind in kinds if isinstance(kind, str) and kind), "")),
            "price": None if source in _LOOKAHEAD_PRICE_SOURCES else self._number(event, "price", "price_level"),
            "intensity": self._number(event, "intensity", "magnitude"),
            "htf_regime": self._regime(event),
        }
        return time_us, message, self._n_imputed

    def _in_window(self, time_us: int) -> bool:
        start_us, end_us = self._facts.start_us, self._facts.end_us
        return (start_us is None or time_us >= start_us) and (end_us is None or time_us <= end_us)

    def _stamp(self, value: object) -> str | float:
        if isinstance(value, datetime):
            return value.isoformat()
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            return ""
        if not isinstance(value, str):
            return value if abs(value) < 2**63 else ""  # infinities, NaN and what JSON cannot carry
        clock = parse_time_of_day(value)
        if clock is None or self._facts.day is None:
            return _clean(value)
        late = self._rolls_over_before is not None and clock < self._rolls_over_before
        return f"{self._facts.day + timedelta(days=int(late))}T{clock.isoformat()}"

    def _number(self, event: Mapping[str, Any], *names: str) -> float | None:
        for name in names:
            value = event.get(name)
            if isinstance(value, bool) or not isinstance(value, Real):
                continue
            try:
                number = float(value)
            except OverflowError:
                number = math.inf
            if math.isfinite(number):
                return number
            self._n_imputed += 1
        return None

    def _regime(self, event: Mapping[str, Any]) -> int | None:
        regime = event.get("htf_regime")
        if not isinstance(regime, bool) and regime in _REGIMES:
            return _REGIMES.index(regime)
        confluence = self._number(event, "htf_confluence")
        return None if confluence is None else sum(confluence >= bound for bound in _CONFLUENCE_BOUNDS)


def _clean(text: str) -> str:
    """Return a text that can be encoded: halves of surrogate pairs become question marks."""
    return text.encode("utf-8", "replace").decode()


def _count(metadata: Mapping[str, Any], name: str, where: str) -> int | None:
    value = metadata.get(name)
    if value is None:
        return None
    try:
        count = int(value)
        if not isinstance(value, bool) and count == float(value) and 1 <= count <= _MAX_COUNT:
            return count
    except (TypeError, ValueError, OverflowError):
        pass
    raise DocumentError(where, f"expected a whole number above 0, got {value!r:.64} - at `$.session_metadata.{name}`")


def _text(metadata: Mapping[str, Any], *names: str) -> str | None:
    return next((value for name in names if isinstance(value := metadata.get(name), str) and value), None)
