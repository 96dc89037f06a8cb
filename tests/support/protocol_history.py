"""What the real engine makes of a short input, begun anywhere: the data below `protocol_model`.

The model checker asks three things of the engine: which outputs a record brings about, what a commit after that record
would say, and both for an engine that was started from any note that such a commit left. All are functions of the note
that the engine was started from and of its position, so they are reckoned once and looked up ever after.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple

from stream_fp.outcomes import Outcome, Published
from stream_fp.times import MINUTE_US
from tests.support.builders import (
    Record,
    RecordingForecaster,
    describe,
    end,
    event,
    make_engine,
    record,
    records,
)

__all__ = ["BEGINNING", "LATE_OPENING", "SETTINGS", "TOMBSTONE", "History", "Moment", "Note", "NoteRule", "Output"]

SETTINGS: Final[dict[str, Any]] = {
    "typical_events": {"custom": 6.0},
    "checkpoints_pct": (30.0, 50.0),
    "min_events": 2,
    "grace_us": 30 * MINUTE_US,
    "idle_timeout_us": 60 * MINUTE_US,
}
LAST_CHECKPOINT_PCT: Final = 50.0

AM: Final = "NY_AM_2025-07-29"  # minutes 0 to 149: 30 % is at minute 44.7, 50 % at 74.5
LUNCH: Final = "LUNCH_2025-07-29"  # minutes 150 to 209
CUSTOM: Final = "CUSTOM_2025-07-29"  # no schedule: six events are usual, so 30 % is the second and 50 % the third

#: A session that has had its last prediction is heard of again, first with an event from before its first checkpoint
#: (offset 3) and then after its last (offset 5), while another one waits. Whoever takes the two for a new session
#: predicts it again. The event at offset 7 lets both expire.
TOMBSTONE: Final = (
    *records([event(AM, 0), event(AM, 80), event(CUSTOM, 81), event(AM, 44)]),
    record(4, b"{", key=CUSTOM.encode()),
    *records([event(AM, 82), event(CUSTOM, 83), event(LUNCH, 185)], first_offset=5),
)

#: A session is opened by an event from long before the watermark, after its only neighbour has ended; the record at
#: offset 4 lies behind its deadline as reckoned from that event, but not as reckoned from the watermark. So who starts
#: at offset 3 without the watermark closes it too early. The id that ended comes back as another session.
LATE_OPENING: Final = (
    *records([event(AM, 0), event(AM, 80), end(AM), event(CUSTOM, 5), event(LUNCH, 100), event(CUSTOM, 101)]),
    *records([event(AM, 40), event(AM, 103)], first_offset=6),
)


class Note(NamedTuple):
    """What a commit leaves: the offset and its metadata."""

    low_offset: int
    watermark_us: int | None
    published: int


#: Where a consumer begins if nothing was committed.
BEGINNING: Final = Note(0, None, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class NoteRule:
    """How a commit's note is made; the defaults are what the service does, the rest is wrong."""

    low_offset: Literal["open", "waiting", "position"] = "open"
    """First record of the oldest session that is open, or waits for a checkpoint; or just the position."""
    keeps_watermark: bool = True
    keeps_published: bool = True


class Output(NamedTuple):
    """One record of the output or dead-letter topic."""

    offset: int
    key: bytes | None
    content: bytes
    subject: tuple[bytes | None, float]
    """Session and checkpoint of a prediction, key and offset of a dead letter: what is to be said once."""


class Moment(NamedTuple):
    """An engine between two records."""

    outputs: tuple[int, ...]
    """Outputs of the record just before, by their number in `History.outputs`."""
    note: Note
    """What a commit at this moment says."""


class History:
    """Runs engines over one input and numbers their outputs.

    Parameters
    ----------
    stream : tuple of Record
        The whole input, from offset 0.
    rule : NoteRule

    Attributes
    ----------
    outputs : list of Output
        All outputs seen so far; the first `n_expected` are those of one uninterrupted run.
    """

    def __init__(self, stream: tuple[Record, ...], rule: NoteRule) -> None:
        self.stream = stream
        self.rule = rule
        self.outputs: list[Output] = []
        self._numbers: dict[Output, int] = {}
        self.moments = functools.lru_cache(maxsize=None)(self._run)
        uninterrupted = self.moments(BEGINNING)
        self.n_expected = len(self.outputs)
        assert [i for moment in uninterrupted for i in moment.outputs] == list(range(self.n_expected))

    def _run(self, start: Note) -> tuple[Moment, ...]:
        """Return the moments of an engine that was started from a note, the one before its first record included."""
        engine = make_engine(published_offset=start.published, watermark_us=start.watermark_us, **SETTINGS)
        sessions = _Sessions(start)
        moments = [Moment((), start)]
        for one in self.stream[start.low_offset :]:
            made = tuple(self._number(outcome) for outcome in engine.process(one))
            sessions.process(one)
            # The sessions are followed from outside for the sake of the wrong rules; they must agree on the right one.
            assert engine.low_offset == sessions.low_offset(sessions.opened)
            moments.append(Moment(made, self._note(sessions)))
        return tuple(moments)

    def _note(self, sessions: _Sessions) -> Note:
        position, rule = sessions.position, self.rule
        holding = {"open": sessions.opened, "waiting": sessions.waiting, "position": {}}[rule.low_offset]
        low_offset, watermark_us = sessions.low_offset(holding)
        return Note(
            low_offset,
            watermark_us if rule.keeps_watermark else None,
            position if rule.keeps_published else low_offset,
        )

    def _number(self, outcome: Outcome) -> int:
        offset, key, content = describe(outcome)
        about = float(offset)
        if isinstance(outcome, Published):
            about = outcome.prediction.classification_metadata.checkpoint_pct
        output = Output(offset, key, content, (key, about))
        number = self._numbers.setdefault(output, len(self.outputs))
        if number == len(self.outputs):
            self.outputs.append(output)
        return number


class _Sessions:
    """Follows from outside which sessions are open, and which of them have not had their last prediction."""

    def __init__(self, start: Note) -> None:
        # This engine speaks from the first record on: it is by its forecasts that sessions stop waiting.
        self._forecaster = RecordingForecaster()
        self._engine = make_engine(self._forecaster, watermark_us=start.watermark_us, **SETTINGS)
        self.opened: dict[str, tuple[int, int | None]] = {}
        self.waiting: dict[str, tuple[int, int | None]] = {}

    @property
    def position(self) -> int:
        assert self._engine.position is not None
        return self._engine.position

    def low_offset(self, holding: dict[str, tuple[int, int | None]]) -> tuple[int, int | None]:
        """Return the lowest offset that one of some sessions needs, and the watermark just before it."""
        return min(holding.values(), default=(self.position, self._engine.watermark_us), key=lambda one: one[0])

    def process(self, one: Record) -> None:
        forecaster, engine = self._forecaster, self._engine
        watermark_us, n_open = engine.watermark_us, engine.n_open_sessions
        n_closed, n_seen = len(forecaster.closures), len(forecaster.seen)
        engine.process(one)
        for session_id, _ in forecaster.closures[n_closed:]:
            del self.opened[session_id]
            self.waiting.pop(session_id, None)
        if engine.n_open_sessions + len(forecaster.closures) - n_closed > n_open:
            assert one.key is not None
            self.opened[one.key.decode()] = self.waiting[one.key.decode()] = (one.offset, watermark_us)
        for seen in forecaster.seen[n_seen:]:
            if seen.checkpoint_pct == LAST_CHECKPOINT_PCT:
                self.waiting.pop(seen.session_id)
