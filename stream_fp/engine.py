"""The engine: records of one partition in, outcomes out.

Synchronous and deterministic, without I/O, clock or Kafka types; live consumption, replay and training drive this
same class. Its state is a function of the records it was given since the low offset and of the watermark there, which
is what makes the input topic its changelog: feed it the records from `low_offset` again and it is where it was.

Time means event time. The watermark is the latest event time of any session of the partition; sessions close when it
has passed their end and some grace, never because a wall clock moved.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

from stream_fp.checks import checked_event, event_fault, session_id_of
from stream_fp.completion import Schedule, SessionFacts, choose_yardstick, resolve_facts
from stream_fp.engine_settings import EngineSettings
from stream_fp.errors import RecordError, RecordInvalidError
from stream_fp.messages import Message, Record, SessionMetadata, decode_error, decode_message
from stream_fp.open_sessions import LONG_SILENCE_US, OpenSessions
from stream_fp.outcomes import Counts, DeadLetter, Outcome, Published
from stream_fp.phases import PHASE_CODES
from stream_fp.predictor import Forecast
from stream_fp.sessions import BYTES_PER_EVENT, NO_REGIME, Session
from stream_fp.times import MINUTE_US, SECOND_US, absolute_us, day_us, zone_of
from stream_fp.usual import Stretch, take_usual

__all__ = ["Engine", "EngineSettings", "Forecaster"]

_NEVER: Final = float("inf")
_NOTHING: Final[tuple[Outcome, ...]] = ()
#: An event without a readable time follows the one before it by this much where no time is known at all.
_ORDER_STEP_US: Final = MINUTE_US


class Forecaster(Protocol):
    """Makes something of a session that has just crossed a checkpoint."""

    def forecast(self, session: Session, checkpoint_pct: float) -> Forecast | None:
        """Return a forecast, or None where there is nothing to publish."""

    def closed(self, session: Session, reason: str) -> None:
        """Take note of a session that is over, with the events that it still holds."""


class Engine:
    """Follows the sessions of one input partition.

    Parameters
    ----------
    forecaster : Forecaster
        Asked at each checkpoint that a session with enough events crosses.
    settings : EngineSettings
    schedules : dict of str to Schedule
        Usual window by session type.
    typical_events : dict of str to float
        Usual number of events by session type.
    published_offset : int
        Outcomes of records below this offset were published before: such records rebuild the state in silence.
    watermark_us : int or None
        Event-time watermark just before the first record that will come; None where there was none.
    already_told : callable, optional
        Asked whether a session has a prediction already at a checkpoint that it crosses, because former settings may
        have seen it cross elsewhere or not at all. It gets no second one; what it lacks of the time before the
        published offset it is owed, and `speak` returns that for the sessions that are open then. By default all
        that was crossed before the published offset was told, and nothing else.
    clock : callable, optional
        Monotonic nanoseconds; only measures.
    """

    def __init__(
        self,
        forecaster: Forecaster,
        settings: EngineSettings,
        *,
        schedules: dict[str, Schedule],
        typical_events: dict[str, float],
        published_offset: int = 0,
        watermark_us: int | None = None,
        already_told: Callable[[Session, float], bool] | None = None,
        clock: Callable[[], int] | None = None,
    ) -> None:
        self._forecaster = forecaster
        self._settings = settings
        self._zone = zone_of(settings.timezone)
        self._schedules = schedules
        self._typical_events = typical_events
        self._published_offset = published_offset
        self._silent = published_offset > 0
        self._watermark_us = watermark_us
        self._already_told = already_told
        self._owed: dict[Session, list[Published]] = {}
        self._clock = clock
        self._n_checkpoints = len(settings.checkpoints_pct)
        self._open = OpenSessions(grace_us=settings.grace_us, idle_timeout_us=settings.idle_timeout_us)
        # What every call asks for.
        self._stretch = Stretch()
        self._max_record_bytes = settings.max_record_bytes
        self._max_events_per_session = settings.max_events_per_session
        self._max_buffered_bytes = settings.max_buffered_bytes
        self.counts = Counts()
        self.n_rebuilt = 0
        self.position: int | None = None
        self.decode_ns: list[int] = []

    # ------------------------------------------------------------------------------------------------ what is known

    @property
    def n_open_sessions(self) -> int:
        """Open sessions, those past their last checkpoint included."""
        return len(self._open)

    @property
    def n_buffered_events(self) -> int:
        """Events that the open sessions hold."""
        return self._open.n_events

    @property
    def n_buffered_bytes(self) -> int:
        """Memory that the open sessions take, reckoned from counts."""
        return self._open.n_bytes

    @property
    def watermark_us(self) -> int | None:
        """Latest event time so far, microseconds since 1970."""
        return self._watermark_us

    @property
    def low_offset(self) -> tuple[int, int | None] | None:
        """Offset to start from again and the watermark just before it; None before the first record.

        The lowest offset that any open session needs, sessions past their last checkpoint included: started from any
        later one, a late event could begin such a session anew.
        """
        oldest = self._open.oldest
        if oldest is not None:
            return oldest.first_offset, oldest.opened_at_watermark_us
        return None if self.position is None else (self.position, self._watermark_us)

    # ------------------------------------------------------------------------------------------------- what happens

    def process(self, record: Record) -> Sequence[Outcome]:
        """Take one record, in offset order; return what has to be published because of it."""
        return self.process_all((record,))

    def process_all(self, records: Sequence[Record]) -> Sequence[Outcome]:
        """Take records, in offset order; return what has to be published because of them, in the same order.

        Those that are as usual are taken in stretches (`take_usual`), the others one by one.
        """
        if not records:
            return _NOTHING
        if self._silent and records[-1].offset >= self._published_offset:
            n_told = sum(record.offset < self._published_offset for record in records)
            return [*self.process_all(records[:n_told]), *self.speak(), *self.process_all(records[n_told:])]
        if self._clock is not None:
            self._time_decoding(records[0].value, self._clock)
        outcomes: list[Outcome] = []
        index = 0
        while index < len(records):
            stretch = self._begin_stretch()
            while True:
                reached = take_usual(
                    records, index, self._open.by_key, stretch, self._max_record_bytes, self._max_events_per_session
                )
                index = abs(reached)
                if reached < 0 or index == len(records):
                    message = None
                    break
                message = self._read(records[index], stretch.error)
                if isinstance(message, Message):
                    break
                # Such a record changes nothing, so what the stretch started from still holds: floods of them cost the
                # others little.
                outcomes += self._refused(records[index], message)
                index += 1
            self._end_stretch(stretch)
            if reached < 0:
                record = records[index - 1]
                key: Any = record.key
                outcomes += self._cross(self._open.by_key[key], record, key)
            elif isinstance(message, Message):
                outcomes += self._take_one(records[index], message)
                index += 1
        self.position = records[-1].offset + 1
        return outcomes

    def _begin_stretch(self) -> Stretch:
        """Return what the next usual records start from."""
        stretch, sessions = self._stretch, self._open
        stretch.watermark_us = -1 if self._watermark_us is None else self._watermark_us
        stretch.deadline_us = sessions.next_deadline_us
        stretch.n_events = sessions.n_events
        stretch.n_room = -((sessions.n_other_bytes - self._max_buffered_bytes) // BYTES_PER_EVENT)
        stretch.n_applied = stretch.n_late = 0
        return stretch

    def _end_stretch(self, stretch: Stretch) -> None:
        """Take what a stretch of usual records has come to into the books."""
        if stretch.watermark_us >= 0:
            self._watermark_us = stretch.watermark_us
        self._open.n_events = stretch.n_events
        self.counts.consumed += stretch.n_applied + stretch.n_late
        self.counts.applied += stretch.n_applied
        stretch.error = None  # which holds on to frames, and these to records
        if stretch.n_late:
            _count(self.counts.ignored, "after_last_checkpoint", stretch.n_late)

    def _time_decoding(self, value: bytes | None, clock: Callable[[], int]) -> None:
        # One record of a batch, once more: a clock read twice for every record would cost as much as a tenth of it.
        started_ns = clock()
        with contextlib.suppress(RecordError):
            decode_message(value, self._settings.max_record_bytes)
        self.decode_ns.append(clock() - started_ns)

    def _read(self, record: Record, known: Exception | None = None) -> Message | RecordError:
        """Return the message of a record, or what keeps it from being used, whatever sessions there are.

        `known` is what decoding it has raised, where that is known already.
        """
        if known is not None:
            return decode_error(known)
        try:
            message = decode_message(record.value, self._max_record_bytes)
        except RecordError as error:
            return error
        if not record.key:
            return RecordInvalidError("expected the session id as record key, got no key")
        kind = message.kind
        if kind == "event":
            return event_fault(message) or message
        if kind == "session_start" or kind == "session_end":  # noqa: PLR1714 - no set to look in
            return message
        return RecordInvalidError(
            f"expected `event`, `session_start` or `session_end`, got {kind[:64]!r} - at `$.kind`"
        )

    def _take_one(self, record: Record, message: Message) -> Sequence[Outcome]:
        self.position = record.offset + 1
        try:
            outcomes = self._apply(record, message)
        except RecordError as error:
            return self._refused(record, error)
        self.counts.consumed += 1
        return outcomes

    def _refused(self, record: Record, error: RecordError) -> Sequence[Outcome]:
        name = type(error).__name__
        self.counts.consumed += 1
        _count(self.counts.dead_lettered, name)
        if self._silent:
            return _NOTHING
        return (DeadLetter(record=record, stage=error.stage, error_class=name, message=str(error)),)

    def _apply(self, record: Record, message: Message) -> Sequence[Outcome]:
        key: Any = record.key
        session = self._open.by_key.get(key)
        if message.session_id is not None:
            session_id = session.id if session is not None else session_id_of(key)
            if message.session_id != session_id:
                raise RecordInvalidError(
                    f"expected the session id of the record key, got {message.session_id[:64]!r} - at `$.session_id`"
                )
        if message.kind == "event":
            return self._event(record, key, session, message)
        if message.kind == "session_start":
            return self._start(record, key, session, message)
        return self._end(key, session)

    def pass_over(self, position: int) -> None:
        """Take note that there is no record below `position` any more (markers, aborted or deleted records)."""
        if self.position is not None and position > self.position:
            self.position = position

    def speak(self) -> Sequence[Outcome]:
        """End the silent rebuilding: from here on records count and outcomes are published.

        The first record at or above the published offset does so by itself. Returns the predictions that open sessions
        are owed (see `already_told`), in the order of their records.
        """
        if not self._silent:
            return _NOTHING
        self._silent = False
        self.n_rebuilt += self.counts.consumed
        owed = [published for predictions in self._owed.values() for published in predictions]
        owed.sort(key=lambda published: published.record.offset)
        self._owed.clear()
        self.counts = Counts(predictions=len(owed))
        return owed

    def close(self) -> None:
        """Note the end of the records (replay, training): sessions still open are closed as unfinished."""
        for key in list(self._open.by_key):
            self._closed(self._open.remove(key), "input_ended")

    def finish_partial(self, key: bytes) -> Forecast | None:
        """Forecast the first checkpoint that a session has not reached, from the events it has.

        For the library call, whose caller asks about a partial session just as it is.
        """
        session = self._open.by_key.get(key)
        if session is None or session.n_held < self._settings.min_events:
            return None
        if session.n_checkpoints_done >= self._n_checkpoints:
            return None
        return self._forecaster.forecast(session, self._settings.checkpoints_pct[session.n_checkpoints_done])

    # ----------------------------------------------------------------------------------------------- the three kinds

    def _event(self, record: Record, key: bytes, session: Session | None, message: Message) -> Sequence[Outcome]:
        event_type, price, stamp = checked_event(message)
        opened = session is None
        if session is None:
            session = self._new_session(key, record.offset, None)
        time_us = clock_us = absolute_us(stamp)
        if time_us is None:
            time_us, clock_us = session.read_time(stamp, self._zone)
        if opened and (refusal := self._admit(key, session, clock_us)) is not None:
            return self._ignore(refusal)
        self._touch(session, clock_us)
        if time_us is not None and time_us > session.over_us:
            return self._ignore("after_close")
        if session.is_spent:
            return self._ignore("after_last_checkpoint")
        # The repeated event has moved the watermark like any other: who starts at a later low offset may not know that
        # it is one, and must come to the same end.
        if message.event_id is not None and message.event_id in session.event_ids:
            return self._ignore("repeated")
        time_us = self._untimed(session) if time_us is None else self._timed(session, time_us)
        session.event_time_us = time_us
        session.n_events += 1
        if session.n_held >= self._settings.max_events_per_session:
            self._ignore("session_events_cap")
        elif self._open.n_bytes >= self._settings.max_buffered_bytes:
            self._ignore("buffered_bytes_cap")
        else:
            regime = NO_REGIME if message.htf_regime is None else message.htf_regime
            session.append(time_us, price, message.intensity, PHASE_CODES[event_type] << 2 | regime)
            self._open.n_events += 1
            if message.event_id is not None:
                self._open.remember(session, message.event_id)
            self.counts.applied += 1
        if session.n_events >= session.trigger_n or session.latest_us >= session.trigger_us:
            return self._cross(session, record, key)
        return _NOTHING

    def _start(self, record: Record, key: bytes, session: Session | None, message: Message) -> Sequence[Outcome]:
        if session is None:
            session = self._new_session(key, record.offset, message.session_metadata)
            if (refusal := self._admit(key, session, None)) is not None:
                return self._ignore(refusal)
        elif message.session_metadata is not None:
            self._describe(session, message.session_metadata)
            self._measure(session)
        self._touch(session, None)
        self.counts.applied += 1
        if session.n_events >= session.trigger_n or session.latest_us >= session.trigger_us:
            return self._cross(session, record, key)
        return _NOTHING

    def _end(self, key: bytes, session: Session | None) -> Sequence[Outcome]:
        if session is None:
            return self._ignore("end_of_unknown_session")
        # The end does not move the watermark: who starts at a later low offset does not know the session, and so
        # could not move it either.
        self.counts.applied += 1
        self._closed(self._open.remove(key), "ended")
        return _NOTHING

    # --------------------------------------------------------------------------------------------------- in between

    def _predicted(self, session: Session, checkpoint_pct: float, record: Record, key: bytes) -> list[Published]:
        forecast = self._forecaster.forecast(session, checkpoint_pct)
        if forecast is None:
            return []
        self.counts.predictions += 1
        return [
            Published(
                record=record,
                key=key,
                prediction=forecast.prediction,
                extraction_ns=forecast.extraction_ns,
                classification_ns=forecast.classification_ns,
                session_type=session.facts.session_type,
                is_owed=self._silent,
            )
        ]

    def _cross(self, session: Session, record: Record, key: bytes) -> Sequence[Outcome]:
        outcomes: list[Outcome] = []
        while session.n_checkpoints_done < self._n_checkpoints and (
            session.n_events >= session.trigger_n or session.latest_us >= session.trigger_us
        ):
            checkpoint_pct = self._settings.checkpoints_pct[session.n_checkpoints_done]
            if session.n_held < self._settings.min_events:
                self._unpredicted("too_few_events")
            elif self._already_told is not None and self._already_told(session, checkpoint_pct):
                self._unpredicted("already_told")
            elif not self._silent:
                outcomes += self._predicted(session, checkpoint_pct, record, key)
            elif self._already_told is not None:
                self._owed.setdefault(session, []).extend(self._predicted(session, checkpoint_pct, record, key))
            session.n_checkpoints_done += 1
            self._aim(session)
        if session.n_checkpoints_done == self._n_checkpoints and not self._settings.keep_events:
            self._open.release(session)
            session.is_spent = True
        return outcomes

    def _facts(self, session_id: str, metadata: SessionMetadata | None) -> SessionFacts:
        return resolve_facts(
            session_id,
            metadata,
            schedules=self._schedules,
            typical_events=self._typical_events,
            default_timezone=self._settings.timezone,
        )

    def _new_session(self, key: bytes, offset: int, metadata: SessionMetadata | None) -> Session:
        session = Session(session_id_of(key), first_offset=offset, opened_at_watermark_us=self._watermark_us)
        by_id = self._facts(session.id, None)
        session.id_day = by_id.day
        session.id_end_us = by_id.end_us
        # A single event may not close everybody's sessions: it moves the watermark no further than its own session can
        # reach, and by no more than a step (after a true gap, a few events take a few steps). Where the id names no day
        # to tell the reach by, the step is one idle timeout.
        session.step_us = LONG_SILENCE_US
        if session.id_end_us is not None:
            session.closes_us = session.reach_us = session.id_end_us + self._settings.grace_us
        elif session.id_day is not None:
            session.reach_us = day_us(session.id_day) + LONG_SILENCE_US
        else:
            session.step_us = self._settings.idle_timeout_us
        self._describe(session, metadata, by_id)
        return session

    def _describe(self, session: Session, metadata: SessionMetadata | None, by_id: SessionFacts | None = None) -> None:
        """Take what a start says of its session; `by_id` serves where it says nothing."""
        known = by_id if metadata is None else None
        facts = self._facts(session.id, metadata) if known is None else known
        session.facts = facts
        end_us = facts.end_us
        session.over_us = _NEVER if end_us is None else end_us + self._settings.grace_us
        session.tells_time = facts.timezone == self._settings.timezone and facts.day == session.id_day

    def _admit(self, key: bytes, session: Session, clock_us: int | None) -> str | None:
        """Open a session; return what stands against it, its own end or a bound on memory, or None."""
        if clock_us is not None and clock_us > session.closes_us:
            return "after_close"
        if len(self._open) >= self._settings.max_open_sessions:
            return "open_sessions_cap"
        if self._open.n_bytes >= self._settings.max_buffered_bytes:
            return "buffered_bytes_cap"
        self._measure(session)
        session.touched_us = self._watermark_us or 0
        self._open.add(key, session)
        self.counts.sessions_opened += 1
        return None

    def _touch(self, session: Session, clock_us: int | None) -> None:
        """Let time go on: move the watermark, note that the session was heard of, close those whose time is over.

        All of this depends on nothing but the records themselves: not on what a session declared of itself, which a
        rebuild that starts after the declaration could not know. `clock_us` is therefore read in the default zone.
        """
        watermark_us = self._watermark_us
        if clock_us is not None and (watermark_us is None or clock_us > watermark_us) and clock_us <= session.reach_us:
            if watermark_us is not None:
                clock_us = min(clock_us, watermark_us + session.step_us)
            self._watermark_us = watermark_us = clock_us
        session.touched_us = now_us = watermark_us or 0
        if now_us >= self._open.next_deadline_us:
            for closed in self._open.expire(now_us):
                self._closed(closed, "expired")

    def _measure(self, session: Session) -> None:
        session.yardstick = choose_yardstick(
            session.facts, self._settings.completion, timed=not (session.all_untimed and session.n_untimed)
        )
        self._aim(session)

    def _aim(self, session: Session) -> None:
        if session.n_checkpoints_done < self._n_checkpoints:
            checkpoint_pct = self._settings.checkpoints_pct[session.n_checkpoints_done]
            n, us = session.yardstick.crossing(checkpoint_pct)
            session.trigger_n, session.trigger_us = n, us
        else:
            session.trigger_n = session.trigger_us = _NEVER

    def _timed(self, session: Session, time_us: int) -> int:
        if time_us > session.latest_us:
            first_readable = session.all_untimed and session.n_untimed
            session.latest_us = time_us
            if first_readable:
                self._measure(session)
        return time_us

    def _untimed(self, session: Session) -> int:
        """Give an event without a readable time its place in the order of arrival."""
        session.n_untimed += 1
        if session.n_untimed == 1 and session.all_untimed:
            self._measure(session)
        if session.n_events:
            step = _ORDER_STEP_US if session.all_untimed else 0
            return session.event_time_us + step
        if session.facts.start_us is not None:
            return session.facts.start_us
        return SECOND_US if session.facts.day is None else day_us(session.facts.day)

    def _closed(self, session: Session, reason: str) -> None:
        for _ in range(session.n_checkpoints_done, self._n_checkpoints):
            known = session.yardstick.method != "unknown"
            self._unpredicted("closed_before_checkpoint" if known else "completion_unknown")
        _count(self.counts.sessions_closed, reason)
        self._owed.pop(session, None)
        self._forecaster.closed(session, reason)
        self._open.release(session)

    # ---------------------------------------------------------------------------------------------------- accounting

    def _ignore(self, reason: str) -> Sequence[Outcome]:
        _count(self.counts.ignored, reason)
        return _NOTHING

    def _unpredicted(self, reason: str) -> None:
        _count(self.counts.unpredicted, reason)


def _count(counter: dict[str, int], name: str, n: int = 1) -> None:
    counter[name] = counter.get(name, 0) + n
