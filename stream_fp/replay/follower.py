"""One partition of recorded sessions, followed: records in, predictions and what came of them out.

Pure: no files, no Kafka. For each variant (a set of settings) the very engine that runs live, fed with the very
records; beside them an engine that keeps sessions whole to the end, which no prediction sees. Its state at any record
can be written down and taken up again, by the rule of the service: the records from the low offset on rebuild it.

Invariant: what comes out depends neither on how the records were cut into batches, nor on where work was taken up.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

import msgspec
from msgspec import Struct, field

from stream_fp.classifier import Classifier
from stream_fp.completion import Schedule
from stream_fp.engine import Engine
from stream_fp.engine_settings import EngineSettings
from stream_fp.features import fingerprint
from stream_fp.messages import Record, encode_prediction
from stream_fp.outcomes import Counts, DeadLetter, Outcome, Published
from stream_fp.predictor import Forecast, Predictor
from stream_fp.replay.results import Edges
from stream_fp.replay.rows import BacktestRow, encode_row
from stream_fp.replay.truth import SessionTruth, truth_engine, truth_settings
from stream_fp.sessions import Session
from stream_fp.times import zone_of

__all__ = ["EngineStart", "Follower", "FollowerState", "LaneState", "Place", "Variant"]

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
    older_gone : bool
        Older records than those that come were there once; sessions may have lost their start.
    counts_from : int
        What is added to an offset where a place is named: 1 for lines of files.
    """

    name: str
    first: int = 0
    older_gone: bool = False
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


class FollowerState(Struct, kw_only=True):
    """Where a follower stands, at a record."""

    position: int
    """Offset of the next record."""
    head_us: int | None
    """First event time that was seen."""
    lanes: list[LaneState]
    truths: list[EngineStart]

    @property
    def read_from(self) -> int:
        """Offset of the first record that any engine needs."""
        return min(start.offset for start in (*(lane.start for lane in self.lanes), *self.truths))


class Follower:
    """Follows one partition, or one file.

    Parameters
    ----------
    variants : sequence of Variant
        At least one.
    place : Place
    with_outcomes : bool
        Whether to find out what came of the sessions, and give rows.
    state : FollowerState, optional
        Where to go on; records have to come from its `read_from` on.

    Attributes
    ----------
    lanes : list of Lane
        One a variant, in their order.
    """

    def __init__(
        self, variants: Sequence[Variant], place: Place, *, with_outcomes: bool, state: FollowerState | None = None
    ) -> None:
        self._place = place
        self._silent_until = place.first if state is None else state.position
        #: Whether sessions open at `first` have still to be counted.
        self._before_range = state is None and place.first > 0
        self._head_us = None if state is None else state.head_us
        self.lanes = [
            Lane(variant, place, self._silent_until, with_outcomes, None if state is None else state.lanes[i])
            for i, variant in enumerate(variants)
        ]
        self._truths = _truths(self.lanes, self._silent_until, state) if with_outcomes else []

    def feed(self, records: Sequence[Record]) -> None:
        """Take records in offset order, from the first on that any engine needs."""
        n_told = 0
        if records and records[0].offset < self._silent_until:
            n_told = bisect.bisect_left(records, self._silent_until, key=_offset_of)
            self._take(records[:n_told])
        if n_told == len(records):
            return
        if self._before_range:
            self._enter()
        self._take(records[n_told:])

    def close(self) -> None:
        """End it: sessions that are open have no known outcome, unless their end lies before the watermark."""
        if self._before_range:
            self._enter()
        for lane in self.lanes:
            lane.engine.speak()
            lane.engine.close()
        for truth in self._truths:
            truth.engine.close()
        for lane in self.lanes:
            lane.flush()

    def state(self) -> FollowerState | None:
        """Return where it stands; None before the range has begun."""
        position = self.lanes[0].engine.position
        if position is None or position < self._silent_until or self._before_range:
            return None
        return FollowerState(
            position=position,
            head_us=self._head_us,
            lanes=[lane.state() for lane in self.lanes],
            truths=[EngineStart(*(truth.engine.low_offset or (position, None))) for truth in self._truths],
        )

    def _enter(self) -> None:
        self._before_range = False
        for lane in self.lanes:
            lane.edges.n_at_start += lane.engine.n_open_sessions

    def _take(self, records: Sequence[Record]) -> None:
        n_taken = 0
        if self._place.older_gone:
            # One by one, until there is a first time.
            while self._head_us is None and n_taken < len(records):
                self._give(records[n_taken : n_taken + 1])
                self._head_us = self.lanes[0].engine.watermark_us
                n_taken += 1
        if n_taken < len(records):
            self._give(records[n_taken:])

    def _give(self, records: Sequence[Record]) -> None:
        for lane in self.lanes:
            lane.feed(records)
        for truth in self._truths:
            truth.feed(records, is_silent=records[-1].offset < self._silent_until, head_us=self._head_us)


class Lane:
    """One variant: the engine that runs live, and its predictions whose outcome is still to come.

    Attributes
    ----------
    predictions : list of bytes
        As they are published, in order; whoever takes them empties the list.
    rows : list of bytes
        What came of predictions, in the order in which their sessions closed; to be emptied too.
    """

    def __init__(
        self, variant: Variant, place: Place, silent_until: int, with_outcomes: bool, state: LaneState | None
    ) -> None:
        self.variant = variant
        library = variant.classifier.library
        self._place = place
        self._start = EngineStart(0, None) if state is None else state.start
        self._noting = _Noting(variant.classifier, with_outcomes)
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
        self._pending: dict[int, list[BacktestRow]] = {}
        for row in () if state is None else state.pending:
            self._pending.setdefault(row.first_offset, []).append(row)

    @property
    def counts(self) -> Counts:
        """Books of the records since `first`."""
        return self._earlier if self._is_silent else self._earlier + self.engine.counts

    def feed(self, records: Sequence[Record]) -> None:
        """Take records in offset order; those that the engine does not need are passed over."""
        records = _since(records, self._start.offset)
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
                    self._await_outcome(self._row(outcome, note))
            case DeadLetter() if len(self.dead_letters) < N_DEAD_LETTERS_SHOWN:
                self.dead_letters.append(f"{self._place.of(outcome.record.offset)}: {outcome.message}")
            case DeadLetter():
                pass

    def _await_outcome(self, row: BacktestRow) -> None:
        if row.is_cut_at_start and row.first_offset not in self._pending:
            self.edges.n_at_start_predicted += 1
        self._pending.setdefault(row.first_offset, []).append(row)

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

    def finish(self, truth: SessionTruth, *, is_over: bool, may_be_cut: bool) -> None:
        """Take what became of a session."""
        rows = self._pending.pop(truth.session.first_offset, ())
        if not is_over:
            self.edges.n_at_end += 1
            self.edges.n_at_end_predicted += bool(rows)
        if may_be_cut and truth.session.first_offset >= self._place.first:
            self.edges.n_at_start += 1
            self.edges.n_at_start_predicted += bool(rows)
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

    def __init__(self, classifier: Classifier, with_outcomes: bool) -> None:
        self._predictor = Predictor(classifier)
        self._with_outcomes = with_outcomes
        self._notes: list[_Note] = []

    def forecast(self, session: Session, checkpoint_pct: float) -> Forecast:
        """Predict; see `Predictor.forecast`."""
        if self._with_outcomes:
            features: list[float | None] = [*fingerprint(session.rows, session.start_us)]
            self._notes.append(
                _Note(
                    first_offset=session.first_offset,
                    session_type=session.facts.session_type,
                    predicted_us=session.event_time_us,
                    local_hour=_local_hour(session.event_time_us, session.facts.timezone),
                    start_us=session.start_us,
                    n_seen=session.n_held,
                    features=features,
                )
            )
        return self._predictor.forecast(session, checkpoint_pct)

    def closed(self, session: Session, reason: str) -> None:
        """Predictions need nothing of a session that is over."""

    def taken(self) -> list[_Note]:
        """Return the notes since the last call, one a prediction, in order."""
        notes, self._notes = self._notes, []
        return notes


class _Truth:
    """An engine that keeps sessions whole, for the lanes whose sessions open and close alike."""

    def __init__(
        self,
        lanes: Sequence[Lane],
        settings: EngineSettings,
        schedules: dict[str, Schedule],
        silent_until: int,
        start: EngineStart | None,
    ) -> None:
        self._lanes = lanes
        self._start = EngineStart(0, None) if start is None else start
        self._idle_timeout_us = settings.idle_timeout_us
        self.engine = truth_engine(
            settings, schedules, self._closed, silent_until=silent_until, watermark_us=self._start.watermark_us
        )
        self._is_silent = silent_until > 0
        self._head_us: int | None = None

    def feed(self, records: Sequence[Record], *, is_silent: bool, head_us: int | None) -> None:
        """Take records in offset order; of sessions that close in silence, all is told already."""
        records = _since(records, self._start.offset)
        if not records:
            return
        self._is_silent, self._head_us = is_silent, head_us
        self.engine.process_all(records)

    def _closed(self, session: Session, reason: str) -> None:
        if self._is_silent:
            return
        is_over = reason != "input_ended" or self._is_past(session)
        may_be_cut = self._may_be_cut(session)
        if is_over and not may_be_cut and not any(lane.has_pending(session.first_offset) for lane in self._lanes):
            return
        truth = SessionTruth(session)
        for lane in self._lanes:
            lane.finish(truth, is_over=is_over, may_be_cut=may_be_cut)

    def _is_past(self, session: Session) -> bool:
        """Whether the watermark has passed the end of a session that is still open for late events."""
        end_us, watermark_us = session.facts.end_us, self.engine.watermark_us
        return end_us is not None and watermark_us is not None and watermark_us >= end_us

    def _may_be_cut(self, session: Session) -> bool:
        """Whether the records that are gone may have held the beginning of a session.

        Those may that were scheduled to start before the first event time that is left, or, where no start is known,
        came within the idle timeout of it. A declaration is a beginning.
        """
        if self._head_us is None or session.facts.declared_start_us is not None:
            return False
        start_us = session.facts.start_us
        if start_us is not None:
            return start_us < self._head_us
        return (session.opened_at_watermark_us or 0) < self._head_us + self._idle_timeout_us


def _truths(lanes: Sequence[Lane], silent_until: int, state: FollowerState | None) -> list[_Truth]:
    """Make one engine for all lanes whose sessions open and close alike."""
    groups: list[tuple[EngineSettings, dict[str, Schedule], list[Lane]]] = []
    for lane in lanes:
        settings, schedules = truth_settings(lane.variant.settings), lane.variant.classifier.library.schedules
        for known in groups:
            if known[0] == settings and known[1] == schedules:
                known[2].append(lane)
                break
        else:
            groups.append((settings, schedules, [lane]))
    return [
        _Truth(members, settings, schedules, silent_until, None if state is None else state.truths[i])
        for i, (settings, schedules, members) in enumerate(groups)
    ]


def _since(records: Sequence[Record], offset: int) -> Sequence[Record]:
    if not records or records[0].offset >= offset:
        return records
    return records[bisect.bisect_left(records, offset, key=_offset_of) :]


def _offset_of(record: Record) -> int:
    return record.offset


def _local_hour(time_us: int, timezone: str) -> int:
    return (_EPOCH + timedelta(microseconds=time_us)).astimezone(zone_of(timezone)).hour
