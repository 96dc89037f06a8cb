"""One variant in a replay: the engine that runs live, what it says, and the rows that wait for what comes.

Pure. Beneath `stream_fp.replay.follower`, which feeds records to lanes and tells them what became of sessions.
"""

from __future__ import annotations

import bisect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

import msgspec
from msgspec import Struct, field

from stream_fp.classifier import Classifier
from stream_fp.engine import Engine
from stream_fp.engine_settings import EngineSettings
from stream_fp.features import fingerprint
from stream_fp.messages import Record, encode_prediction
from stream_fp.outcomes import Counts, DeadLetter, Outcome, Published
from stream_fp.predictor import Forecast, Predictor
from stream_fp.replay.results import Edges
from stream_fp.replay.rows import BacktestRow, encode_row
from stream_fp.replay.truth import SessionTruth
from stream_fp.sessions import Session
from stream_fp.times import zone_of

__all__ = [
    "N_DEAD_LETTERS_SHOWN",
    "EngineStart",
    "Lane",
    "LaneState",
    "Place",
    "Variant",
    "is_over",
    "offset_of",
    "since",
]

#: Enough to see what is wrong, few enough to read.
N_DEAD_LETTERS_SHOWN: Final = 20
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """A set of settings, as far as predictions depend on it."""

    classifier: Classifier
    settings: EngineSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where records come from.

    Attributes
    ----------
    name : str
        Topic and partition, or file.
    first : int
        First offset whose outcomes count; records below rebuild the state in silence.
    lacks_older : bool
        There are, or were, older records than those that come, which may have begun some of the sessions.
    counts_from : int
        What is added to an offset where a place is named: 1 for lines of files.
    """

    name: str
    first: int = 0
    lacks_older: bool = False
    counts_from: int = 0

    def of(self, offset: int) -> str:
        """Return the name of one record's place."""
        return f"{self.name}:{offset + self.counts_from}" if self.counts_from else f"{self.name}@{offset}"


class EngineStart(Struct, frozen=True):
    """From which record on an engine has to be fed to be where it was."""

    offset: int
    watermark_us: int | None


class LaneState(Struct, kw_only=True):
    """Where one variant stands."""

    start: EngineStart
    counts: Counts
    pending: list[BacktestRow] = field(default_factory=list)
    """Predictions whose sessions are open."""
    dead_letters: list[str] = field(default_factory=list)
    edges: Edges = field(default_factory=Edges)
    predicted: list[int] = field(default_factory=list)
    """First offsets of open sessions that have a prediction."""


class Lane:
    """One variant: the engine that runs live, and its predictions whose outcome is still to come.

    Attributes
    ----------
    predictions : list of bytes
        As they are published, in order; whoever takes them empties the list.
    rows : list of bytes
        What came of predictions, in the order in which their sessions closed; to be emptied too.
    head_us : int or None
        First event time of records that lack older ones.
    """

    def __init__(
        self, variant: Variant, place: Place, silent_until: int, with_outcomes: bool, state: LaneState | None
    ) -> None:
        self.variant = variant
        library = variant.classifier.library
        self._place = place
        self._start = EngineStart(0, None) if state is None else state.start
        self._noting = _Noting(variant.classifier, with_outcomes, self._predicted_now, self._closed)
        self.engine = Engine(
            self._noting,
            variant.settings,
            schedules=library.schedules,
            typical_events=library.typical_events,
            published_offset=silent_until,
            watermark_us=self._start.watermark_us,
        )
        self.predictions: list[bytes] = []
        self.rows: list[bytes] = []
        self.edges = Edges() if state is None else state.edges
        self.dead_letters: list[str] = [] if state is None else state.dead_letters
        self._earlier = Counts() if state is None else state.counts
        self._is_silent = silent_until > 0
        self._silent_until = silent_until
        self._predicted: set[int] = set() if state is None else set(state.predicted)
        self.head_us: int | None = None
        self._pending: dict[int, list[BacktestRow]] = {}
        for row in () if state is None else state.pending:
            self._pending.setdefault(row.first_offset, []).append(row)

    @property
    def counts(self) -> Counts:
        """Books of the records since `first`."""
        return self._earlier if self._is_silent else self._earlier + self.engine.counts

    def feed(self, records: Sequence[Record]) -> None:
        """Take records in offset order; those that the engine does not need are passed over."""
        records = since(records, self._start.offset)
        if not records:
            return
        self._is_silent = records[-1].offset < self._silent_until
        outcomes = self.engine.process_all(records)
        notes = iter(self._noting.taken())
        for outcome in outcomes:
            self._take(outcome, notes)

    def _take(self, outcome: Outcome, notes: Iterator[_Note]) -> None:
        match outcome:
            case Published():
                self.predictions.append(encode_prediction(outcome.prediction) + b"\n")
                if (note := next(notes, None)) is not None:
                    row = self._row(outcome, note)
                    self._pending.setdefault(row.first_offset, []).append(row)
            case DeadLetter() if len(self.dead_letters) < N_DEAD_LETTERS_SHOWN:
                self.dead_letters.append(f"{self._place.of(outcome.record.offset)}: {outcome.message}")
            case DeadLetter():
                pass

    def enter(self) -> None:
        """Begin the range: sessions that are open now began before it."""
        self.edges.n_before += self.engine.n_open_sessions
        self.edges.n_at_start += self.engine.n_open_sessions

    def close(self) -> None:
        """End the records: the engine closes what is open."""
        self._is_silent = False
        self.engine.speak()
        self.engine.close()

    def _predicted_now(self, session: Session) -> None:
        if session.first_offset < self._place.first and session.first_offset not in self._predicted:
            self.edges.n_at_start_predicted += 1
        self._predicted.add(session.first_offset)

    def _closed(self, session: Session, reason: str) -> None:
        """Count a session that an end of the records cut."""
        was_predicted = session.first_offset in self._predicted
        self._predicted.discard(session.first_offset)
        if self._is_silent:
            return
        if not is_over(session, reason, self.engine.watermark_us):
            self.edges.n_at_end += 1
            self.edges.n_at_end_predicted += was_predicted
        if session.first_offset >= self._place.first and self.may_be_cut(session):
            self.edges.n_at_start += 1
            self.edges.n_at_start_predicted += was_predicted

    def may_be_cut(self, session: Session) -> bool:
        """Whether older records than those that came may have held the beginning of a session.

        Those may that were scheduled to start before the first event time that came, or, where no start is known,
        came within the idle timeout of it. A declaration is a beginning.
        """
        if self.head_us is None or session.facts.declared_start_us is not None:
            return False
        start_us = session.facts.start_us
        if start_us is not None:
            return start_us < self.head_us
        return (session.opened_at_watermark_us or 0) < self.head_us + self.variant.settings.idle_timeout_us

    def _row(self, outcome: Published, note: _Note) -> BacktestRow:
        prediction = outcome.prediction
        probabilities = prediction.classification_metadata.probabilities
        forecast = prediction.predicted_stats.natural_units
        return BacktestRow(
            source=self._place.name,
            offset=outcome.record.offset,
            first_offset=note.first_offset,
            is_cut_at_start=note.first_offset < self._place.first,
            outcome="open",
            session_id=prediction.session_id,
            session_type=note.session_type,
            date=prediction.date,
            checkpoint_pct=prediction.classification_metadata.checkpoint_pct,
            pct_seen=prediction.pct_seen,
            predicted_us=note.predicted_us,
            local_hour=note.local_hour,
            start_us=note.start_us,
            archetype_id=prediction.archetype_id,
            confidence=prediction.confidence,
            probabilities=[
                probabilities.get(str(archetype_id), 0.0)
                for archetype_id in range(len(self.variant.classifier.library.centroids))
            ],
            range_so_far_pct=forecast.range_so_far_pct,
            range_p10_pct=forecast.range_pct.p10,
            range_p50_pct=forecast.range_pct.p50,
            range_p90_pct=forecast.range_pct.p90,
            n_seen=note.n_seen,
            features=note.features,
        )

    def finish(self, truth: SessionTruth, *, is_over: bool) -> None:
        """Take what became of a session."""
        rows = self._pending.pop(truth.session.first_offset, ())
        may_be_cut = self.may_be_cut(truth.session)
        library = self.variant.classifier.library
        for row in rows:
            is_cut = row.is_cut_at_start or may_be_cut
            known = msgspec.structs.replace(
                row, is_cut_at_start=is_cut, outcome="unheld" if not truth.is_whole else "known" if is_over else "open"
            )
            if known.outcome == "known":
                known = msgspec.structs.replace(
                    known,
                    true_archetype_id=truth.archetype_of(library),
                    final_range_pct=truth.range_pct,
                    n_events=truth.session.n_events,
                    start_us=truth.columns.start_us,
                    final_phase_rates=truth.phase_rates,
                    rest=truth.rest_after(row.n_seen).tolist(),
                    end_us=truth.end_us,
                    path_pct=truth.path.tolist(),
                )
            self.rows.append(encode_row(known) + b"\n")

    def has_pending(self, first_offset: int) -> bool:
        """Whether a session has predictions that wait for its end."""
        return first_offset in self._pending

    def flush(self) -> None:
        """Give the rows of sessions that nothing more is known of."""
        for rows in self._pending.values():
            self.rows += [encode_row(msgspec.structs.replace(row, outcome="unheld")) + b"\n" for row in rows]
        self._pending.clear()

    def state(self) -> LaneState:
        """Return where it stands."""
        return LaneState(
            start=EngineStart(*(self.engine.low_offset or (0, None))),
            counts=self.counts.copy(),
            pending=[row for rows in self._pending.values() for row in rows],
            dead_letters=self.dead_letters,
            edges=self.edges,
            predicted=sorted(self._predicted),
        )


class _Note(Struct, frozen=True, kw_only=True, gc=False):
    """What a prediction does not say of its session, and a row needs."""

    first_offset: int
    session_type: str
    predicted_us: int
    local_hour: int
    start_us: int
    n_seen: int
    features: list[float | None]


class _Noting:
    """A forecaster that predicts, and notes what a row needs of the session at that moment."""

    def __init__(
        self,
        classifier: Classifier,
        with_outcomes: bool,
        predicted: Callable[[Session], object],
        closed: Callable[[Session, str], object],
    ) -> None:
        self._predictor = Predictor(classifier)
        self._schedules = classifier.library.schedules
        self._with_outcomes = with_outcomes
        self._predicted = predicted
        self._closed = closed
        self._notes: list[_Note] = []

    def forecast(self, session: Session, checkpoint_pct: float) -> Forecast:
        """Predict; see `Predictor.forecast`."""
        self._predicted(session)
        if self._with_outcomes:
            features: list[float | None] = [*fingerprint(session.rows, session.start_us)]
            self._notes.append(
                _Note(
                    first_offset=session.first_offset,
                    session_type=session.facts.session_type,
                    predicted_us=session.event_time_us,
                    local_hour=_local_hour(session.event_time_us, self._zone_of(session)),
                    start_us=session.start_us,
                    n_seen=session.n_held,
                    features=features,
                )
            )
        return self._predictor.forecast(session, checkpoint_pct)

    def closed(self, session: Session, reason: str) -> None:
        """Pass it on; predictions need nothing of a session that is over."""
        self._closed(session, reason)

    def _zone_of(self, session: Session) -> str:
        """Return the zone in which a session's hours are counted: that of its schedule, else its own."""
        schedule = self._schedules.get(session.facts.session_type)
        return session.facts.timezone if schedule is None else schedule.timezone

    def taken(self) -> list[_Note]:
        """Return the notes since the last call, one a prediction, in order."""
        notes, self._notes = self._notes, []
        return notes


def is_over(session: Session, reason: str, watermark_us: int | None) -> bool:
    """Whether a session that closed is complete: closed in event time, or no later event of it would have counted."""
    return reason != "input_ended" or (watermark_us is not None and watermark_us > session.over_us)


def since(records: Sequence[Record], offset: int) -> Sequence[Record]:
    """Return the records at or above an offset."""
    if not records or records[0].offset >= offset:
        return records
    return records[bisect.bisect_left(records, offset, key=offset_of) :]


def offset_of(record: Record) -> int:
    """Return the offset of a record, as a key to search by."""
    return record.offset


def _local_hour(time_us: int, timezone: str) -> int:
    return (_EPOCH + timedelta(microseconds=time_us)).astimezone(zone_of(timezone)).hour
