"""A rehearsal's records in the order and at the times that are due, to whatever takes them.

Between `stream_fp.replay.sources`, which read ahead, and a `Sink`; `stream_fp.replay.pace` finds order and times. It
waits, and says what for; a sink that lags holds it up.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta, tzinfo
from typing import Final, Protocol

from stream_fp.messages import Record
from stream_fp.replay.pace import Merge, Pace, event_time_us
from stream_fp.replay.sources import Source
from stream_fp.times import format_us

__all__ = ["Clock", "Progress", "RehearsalSummary", "Say", "Sink", "play"]

_logger = logging.getLogger(__name__)

Progress = Callable[[int, int], object]
Say = Callable[[str], object]

#: What is due within so long goes together, so that a thousand records a second are a hundred requests. It is how late
#: a record may be for it.
_TICK_S: Final = 0.01
#: A wait that is told of, with what comes after it.
_GAP_S: Final = 60.0
#: Records handed on before others have their turn; some 10 us each, with all that belongs to it.
_AT_ONCE: Final = 500


@dataclass(slots=True, kw_only=True)
class RehearsalSummary:
    """What was published, and in what time."""

    output_topic: str
    n_partitions: int
    """Of the output topic."""
    n_sources: int
    """Partitions or files that were read."""
    n_records: int = 0
    """Published, and acknowledged by the brokers."""
    n_untimed: int = 0
    """Records that went with the one before them: no events, or without a time that can be read."""
    first_us: int | None = None
    """Earliest event time; None where no record has any."""
    last_us: int | None = None
    """Event time reached."""
    behind_s: float = 0.0
    """The most by which a record was handed on too late, in seconds; 0 without a pace."""
    unreadable: list[str] = field(default_factory=list)
    """One sentence for each file that could not be read to its end."""


class Clock(Protocol):
    """Time as it passes; tests have their own."""

    def now_s(self) -> float:
        """Return seconds since any moment."""

    async def sleep(self, delay_s: float) -> None:
        """Wait."""


class _RealClock:
    def now_s(self) -> float:
        return time.monotonic()

    async def sleep(self, delay_s: float) -> None:
        await asyncio.sleep(delay_s)


class Sink(Protocol):
    """Where records go."""

    async def add(self, record: Record, source: Source) -> None:
        """Take a record; it may wait for company."""

    async def send(self) -> None:
        """Send what waits for company."""


async def play(
    sources: Sequence[Source],
    sink: Sink,
    *,
    zone: tzinfo,
    speed: float | None,
    summary: RehearsalSummary,
    progress: Progress = lambda _done, _total: None,
    say: Say = _logger.info,
    clock: Clock | None = None,
) -> None:
    """Hand the records of all sources to the sink, in order, each when it is due.

    Parameters
    ----------
    sources : sequence of Source
    sink : Sink
    zone : tzinfo
        Of time stamps without an offset.
    speed : float or None
    summary : RehearsalSummary
        Is brought up to date, but for what was delivered.
    progress, say : callable
    clock : Clock, optional
    """
    clock = _RealClock() if clock is None else clock
    merge: Merge[tuple[int | None, Record]] = Merge()
    first_us = await _expect_all(merge, sources, zone)
    summary.first_us = first_us
    pace = Pace(first_us=first_us or 0, start_s=clock.now_s(), speed=speed)
    done, total, n_since = [0] * len(sources), sum(source.n_in_all for source in sources), 0
    progress(0, total)
    while True:
        while (wanted := merge.wanted) is not None:
            if speed is not None:
                # Whoever waits for the brokers, or the disk, keeps nothing back that is due.
                await sink.send()
            if records := await sources[wanted].read():
                merge.feed((time_us, (time_us, record)) for record in records for time_us in [_time(record, zone)])
            else:
                merge.end()
                done[wanted] = sources[wanted].n_in_all
                progress(sum(done), total)
        now_us = merge.next_us
        if now_us is None:
            break
        if speed is not None:
            due_s, now_s = pace.due_s(now_us), clock.now_s()
            summary.behind_s = max(summary.behind_s, now_s - due_s)
            if due_s > now_s:
                await sink.send()
                progress(sum(done), total)
                if due_s - now_s >= _GAP_S:
                    say(f"next: event time {format_us(now_us)} UTC, in {timedelta(seconds=round(due_s - now_s))}")
                # At least a tick, so that what is due until then goes together.
                await clock.sleep(max(due_s - now_s, _TICK_S))
        number, (time_us, record) = merge.pop()
        source = sources[number]
        await sink.add(record, source)
        done[number] = source.n_done(record)
        if time_us is None:
            summary.n_untimed += 1
        if first_us is not None:
            summary.last_us = now_us
        n_since += 1
        if n_since == _AT_ONCE:
            n_since = 0
            progress(sum(done), total)
            await asyncio.sleep(0)
    await sink.send()


async def _expect_all(merge: Merge[tuple[int | None, Record]], sources: Sequence[Source], zone: tzinfo) -> int | None:
    """Find the first event of each source, and take all of them up; return the earliest time, None where none has any.

    Each is read up to its first event and then from the start again, so that nothing has to be kept meanwhile.
    """
    firsts_us = []
    for source in sources:
        first_us = None
        while first_us is None and (records := await source.read()):
            first_us = next((found for record in records if (found := _time(record, zone)) is not None), None)
        await source.rewind()
        firsts_us.append(first_us)
    earliest_us = min((first_us for first_us in firsts_us if first_us is not None), default=None)
    for number, first_us in enumerate(firsts_us):
        # What has no event at all comes at the start.
        merge.expect(number, (earliest_us or 0) if first_us is None else first_us)
    return earliest_us


def _time(record: Record, zone: tzinfo) -> int | None:
    return event_time_us(record.key, record.value, zone)
