"""One file of sessions in, feature vectors out: of each whole session, and of its prefix at each checkpoint.

The file goes through the same `Engine` that runs live, with a forecaster that collects vectors instead of making
predictions. So a prefix is cut at the very record at which the live service would have been asked, and holds the very
columns that it would have seen.

Everything here is picklable, and a function of the file and the request alone: it may run in any process.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import msgspec
import numpy as np
import numpy.typing as npt
from threadpoolctl import ThreadpoolController  # type: ignore[import-untyped]

from stream_fp.completion import CompletionPolicy, Schedule, SessionFacts
from stream_fp.documents import adapt_document
from stream_fp.engine import Engine, EngineSettings
from stream_fp.errors import DocumentError
from stream_fp.features import extract
from stream_fp.files import FileRecord, is_document_file, read_document, read_records
from stream_fp.outcomes import DeadLetter
from stream_fp.rest import price_path, rest_outcomes
from stream_fp.sessions import Session
from stream_fp.times import format_us, zone_of

__all__ = ["ExtractedSession", "ExtractionRequest", "FileExtract", "extract_file"]

Array = npt.NDArray[np.float64]

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExtractionRequest:
    """How sessions are followed: what the engine needs beside the records.

    Attributes
    ----------
    checkpoints_pct : tuple of float
        Ascending, each once.
    completion : {"auto", "declared", "schedule", "count"}
    min_events : int
        Prefixes and sessions with fewer events are left out.
    schedules : dict of str to Schedule
    typical_events : dict of str to float
    """

    checkpoints_pct: tuple[float, ...]
    completion: CompletionPolicy
    min_events: int
    schedules: dict[str, Schedule]
    typical_events: dict[str, float]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ExtractedSession:
    """What training keeps of one session.

    Attributes
    ----------
    session_id, session_type, date : str
        The type is empty where nothing names it; the date is that of the session, else of its first event.
    start_us : int
        Start of the session, else its first event; microseconds since 1970.
    n_events : int
    full : ndarray of shape (30,)
        Features of the whole session.
    prefixes : dict of float to ndarray of shape (30,)
        Features at each checkpoint that was reached with enough events.
    rests : dict of float to ndarray of shape (10,)
        What the events after each of these checkpoints were like (`stream_fp.rest`).
    path : ndarray of shape (41,)
        Its price in steps of time, for pictures.
    declared_window : Schedule or None
        Start and end that its metadata declared.
    completion_method : str
        How its completion was measured when it closed.
    n_untimed : int
        Events whose time could not be read.
    is_unfinished : bool
        Whether it was still open when the file ended.
    """

    session_id: str
    session_type: str
    date: str
    start_us: int
    n_events: int
    full: Array
    prefixes: dict[float, Array]
    rests: dict[float, Array]
    path: Array
    declared_window: Schedule | None
    completion_method: str
    n_untimed: int
    is_unfinished: bool


@dataclass(slots=True, kw_only=True, eq=False)
class FileExtract:
    """What came of one file.

    Attributes
    ----------
    path : Path
    sessions : list of ExtractedSession
        In the order in which they closed.
    skipped : Counter of str
        What was left out, by reason; see `Dataset.skipped`.
    remarks : list of str
        One sentence for each thing wrong with the file as a whole, and one for its first unusable record.
    """

    path: Path
    sessions: list[ExtractedSession] = field(default_factory=list)
    skipped: Counter[str] = field(default_factory=Counter)
    remarks: list[str] = field(default_factory=list)


def extract_file(path: Path, request: ExtractionRequest) -> FileExtract:
    """Extract all sessions of one file; what cannot be used is counted, never raised."""
    found = FileExtract(path=path)
    collector = _Collector(found, request.min_events)
    engine = Engine(
        collector,
        EngineSettings(
            checkpoints_pct=request.checkpoints_pct,
            completion=request.completion,
            min_events=request.min_events,
            keep_events=True,
        ),
        schedules=request.schedules,
        typical_events=request.typical_events,
    )
    first_dead: DeadLetter | None = None
    # Sums over long sessions differ in the last digit with the number of threads, which differs between workers.
    with _threads().limit(limits=1):
        try:
            for record in _records(path, found.skipped):
                for outcome in engine.process(record):
                    if isinstance(outcome, DeadLetter):
                        first_dead = first_dead or outcome
        except (DocumentError, UnicodeError, RecursionError) as error:
            found.skipped[f"file: {_kind_of(error)}"] += 1
            found.remarks.append(str(error) if isinstance(error, DocumentError) else f"{path}: {error}")
        else:
            if engine.position is None:
                found.skipped["file: empty"] += 1
                found.remarks.append(f"{path}: expected sessions, got an empty file")
        engine.close()
    if first_dead is not None:
        n_more = sum(engine.counts.dead_lettered.values()) - 1
        more = f" (and {n_more} more unusable record{'s' * (n_more != 1)} in this file)" if n_more else ""
        found.remarks.append(f"{path}:{first_dead.record.offset + 1}: {first_dead.message}{more}")
    _count(found.skipped, "record: dead letter, {}", engine.counts.dead_lettered)
    _count(found.skipped, "record: ignored, {}", engine.counts.ignored)
    _count(found.skipped, "checkpoint: {}", engine.counts.unpredicted)
    return found


class _Collector:
    """A forecaster that keeps the vectors, and after how many events they were asked for; it forecasts nothing."""

    def __init__(self, found: FileExtract, min_events: int) -> None:
        self._found = found
        self._min_events = min_events
        self._prefixes: dict[str, dict[float, tuple[Array, int]]] = {}

    def forecast(self, session: Session, checkpoint_pct: float) -> None:
        """Keep the vector of the events so far."""
        columns = session.columns()
        self._prefixes.setdefault(session.id, {})[checkpoint_pct] = extract(columns), len(columns.times_us)

    def closed(self, session: Session, reason: str) -> None:
        """Keep the vector of the whole session, and what belongs to it."""
        prefixes = self._prefixes.pop(session.id, {})
        if session.n_held < self._min_events:
            self._found.skipped[f"session: fewer than {self._min_events} events"] += 1
            return
        facts, columns = session.facts, session.columns()
        first_us = int(columns.times_us.min())
        self._found.sessions.append(
            ExtractedSession(
                session_id=session.id,
                session_type=facts.session_type,
                date=facts.day.isoformat() if facts.day is not None else format_us(first_us)[:10],
                start_us=first_us if facts.start_us is None else facts.start_us,
                n_events=session.n_events,
                full=extract(columns),
                prefixes={checkpoint_pct: vector for checkpoint_pct, (vector, _) in prefixes.items()},
                rests={
                    checkpoint_pct: rest_outcomes(columns, n_seen) for checkpoint_pct, (_, n_seen) in prefixes.items()
                },
                path=price_path(columns, facts.end_us),
                declared_window=_declared_window(facts),
                completion_method=session.yardstick.method,
                n_untimed=session.n_untimed,
                is_unfinished=reason == "input_ended",
            )
        )


def _records(path: Path, skipped: Counter[str]) -> Iterator[FileRecord]:
    if not is_document_file(path):
        yield from read_records(path)
        return
    adapted = adapt_document(read_document(path), where=str(path))
    _count(
        skipped,
        "{}",
        {
            "event: lookahead, known only once the session is over": adapted.n_lookahead,
            "value: not finite, taken as missing": adapted.n_imputed,
        },
    )
    key = adapted.session_id.encode("utf-8", "surrogatepass")
    for offset, message in enumerate(adapted.messages):
        yield FileRecord(offset, key, msgspec.json.encode(message))


def _count(counter: Counter[str], label: str, counts: dict[str, int]) -> None:
    for name, n in counts.items():
        if n:
            counter[label.format(name)] += n


def _kind_of(error: Exception) -> str:
    cause = error.__cause__ if isinstance(error, DocumentError) else error
    if isinstance(cause, OSError):
        return "unreadable"
    is_malformed = isinstance(cause, msgspec.DecodeError) and not isinstance(cause, msgspec.ValidationError)
    return "broken JSON" if is_malformed or isinstance(cause, UnicodeError | RecursionError) else "wrong shape"


def _declared_window(facts: SessionFacts) -> Schedule | None:
    if facts.declared_start_us is None or facts.declared_end_us is None:
        return None
    # The key of the zone rather than the name given, so that `ET` and `America/New_York` are one window.
    zone = zone_of(facts.timezone)
    start, end = (
        (_EPOCH + timedelta(microseconds=moment_us)).astimezone(zone).time().isoformat()
        for moment_us in (facts.declared_start_us, facts.declared_end_us)
    )
    return Schedule(start=start, end=end, timezone=zone.key)


@functools.cache
def _threads() -> ThreadpoolController:
    return ThreadpoolController()
