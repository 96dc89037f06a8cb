"""One partition of recorded sessions, followed: records in, predictions and what came of them out.

Pure: no files, no Kafka. For each variant (a set of settings) the very engine that runs live, fed with the very
records; beside them an engine that keeps sessions whole to the end, which no prediction sees. Its state at any record
can be written down and taken up again, by the rule of the service: the records from the low offset on rebuild it.

Invariant: what comes out depends neither on how the records were cut into batches, nor on where work was taken up.
"""

from __future__ import annotations

import bisect
from collections.abc import Sequence

from msgspec import Struct

from stream_fp.completion import Schedule
from stream_fp.engine_settings import EngineSettings
from stream_fp.messages import Record
from stream_fp.replay.lanes import EngineStart, Lane, LaneState, Place, Variant, is_over, offset_of, since
from stream_fp.replay.truth import SessionTruth, truth_engine, truth_settings
from stream_fp.sessions import Session

__all__ = ["Follower", "FollowerState"]


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
        self.lanes = [
            Lane(variant, place, self._silent_until, with_outcomes, None if state is None else state.lanes[i])
            for i, variant in enumerate(variants)
        ]
        self._head_us: int | None = None
        self._find_head(None if state is None else state.head_us)
        self._truths = _truths(self.lanes, self._silent_until, state) if with_outcomes else []

    def feed(self, records: Sequence[Record]) -> None:
        """Take records in offset order, from the first on that any engine needs."""
        n_told = 0
        if records and records[0].offset < self._silent_until:
            n_told = bisect.bisect_left(records, self._silent_until, key=offset_of)
            self._take(records[:n_told])
        if n_told == len(records):
            return
        if self._before_range:
            self._enter()
        self._take(records[n_told:])

    def close(self) -> None:
        """End it: sessions that are open have no known outcome, unless no later event of them would have counted."""
        if self._before_range:
            self._enter()
        for lane in self.lanes:
            lane.close()
        for truth in self._truths:
            truth.close()
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
            lane.enter()

    def _take(self, records: Sequence[Record]) -> None:
        n_taken = 0
        if self._place.lacks_older:
            # One by one, until there is a first time.
            while self._head_us is None and n_taken < len(records):
                self._give(records[n_taken : n_taken + 1])
                self._find_head(self.lanes[0].engine.watermark_us)
                n_taken += 1
        if n_taken < len(records):
            self._give(records[n_taken:])

    def _find_head(self, head_us: int | None) -> None:
        self._head_us = head_us
        for lane in self.lanes:
            lane.head_us = head_us

    def _give(self, records: Sequence[Record]) -> None:
        for lane in self.lanes:
            lane.feed(records)
        for truth in self._truths:
            truth.feed(records, is_silent=records[-1].offset < self._silent_until)


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
        self.engine = truth_engine(
            settings, schedules, self._closed, silent_until=silent_until, watermark_us=self._start.watermark_us
        )
        self._is_silent = silent_until > 0

    def feed(self, records: Sequence[Record], *, is_silent: bool) -> None:
        """Take records in offset order; of sessions that close in silence, all is told already."""
        records = since(records, self._start.offset)
        if not records:
            return
        self._is_silent = is_silent
        self.engine.process_all(records)

    def close(self) -> None:
        """End the records: the engine closes what is open."""
        self._is_silent = False
        self.engine.speak()
        self.engine.close()

    def _closed(self, session: Session, reason: str) -> None:
        waiting = [lane for lane in self._lanes if lane.has_pending(session.first_offset)]
        if self._is_silent or not waiting:
            return
        truth = SessionTruth(session)
        for lane in waiting:
            lane.finish(truth, is_over=is_over(session, reason, self.engine.watermark_us))


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
