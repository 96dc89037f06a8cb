"""What an engine has made of one partition, on its way out: sidecars first, then outcomes and progress at once.

While there is more to read than is taken at once, the next batches are taken while a transaction is under way, and
what they give goes into the next one: the engine may be ahead of what is committed, never the other way. Predictions
come in bursts: before a transaction begins, what has come since is taken too.

An outbox lives as long as one producer. When publishing fails it is thrown away with it, and with the engine.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from stream_fp.config import Settings
from stream_fp.engine import Engine
from stream_fp.kafka.progress import Progress
from stream_fp.kafka.publisher import Publisher
from stream_fp.logs import Log
from stream_fp.messages import Record
from stream_fp.metrics import Metrics
from stream_fp.outcomes import Counts, DeadLetter, Outcome, Published
from stream_fp.sinks.files import FileSinks

__all__ = ["FIRST_BACKOFF_S", "MAX_BACKOFF_S", "Commit", "Outbox"]

FIRST_BACKOFF_S: Final = 0.2
MAX_BACKOFF_S: Final = 5.0
#: Far behind, outcomes are gathered for so long, or until there are so many: a transaction takes the time of a thousand
#: records, whatever is in it. Far is so many times what is taken at once: what a moment's delay of the broker piles up
#: is less, and would be kept alive by waiting.
_GATHER_S: Final = 0.05
_MAX_GATHERED: Final = 500
_FAR_BEHIND: Final = 10
#: Sessions of many instruments cross their checkpoint within milliseconds, and what comes too late for a transaction
#: waits for two. So where a batch brought something, there is one more look for what has come meanwhile, and so on.
_BURST_S: Final = 0.02
#: More is not gathered while a transaction is under way, neither in number nor in bytes of dead letters. In a flood of
#: these, a transaction's time is that of some thousand.
_MAX_DUE: Final = 20 * _MAX_GATHERED
_MAX_DUE_BYTES: Final = 16 * 2**20
#: So much longer than usual for a transaction is a sign that the broker has no time for more.
_MAX_AHEAD_S: Final = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Commit:
    """Outcomes, and the state of the engine that has made them: what one transaction holds."""

    outcomes: list[Outcome]
    low_offset: int
    position: int
    progress: Progress
    counts: Counts


class Outbox:
    """Publishes what one engine makes, with one producer.

    Parameters
    ----------
    name : str
        Of the partition.
    engine : Engine
    publisher : Publisher
        Started.
    position : int
        Up to which all is published and committed.
    progress : callable
        Returns the note of a commit, given position, low offset and the watermark there.
    settings : Settings
    metrics : Metrics
    sinks : FileSinks
    log : Log
    stopping : asyncio.Event
        Set, nothing is waited for that may never come.
    committed : callable
        Told of each commit that the broker has acknowledged.
    nothing_due : callable
        Told where there was nothing to commit.
    """

    def __init__(
        self,
        name: str,
        engine: Engine,
        publisher: Publisher,
        *,
        position: int,
        progress: Callable[[int, int, int | None], Progress],
        settings: Settings,
        metrics: Metrics,
        sinks: FileSinks,
        log: Log,
        stopping: asyncio.Event,
        committed: Callable[[Commit], None],
        nothing_due: Callable[[], None],
    ) -> None:
        self._name = name
        self._engine = engine
        self._publisher = publisher
        self._progress = progress
        self._settings = settings
        self._metrics = metrics
        self._sinks = sinks
        self._log = log
        self._stopping = stopping
        self._committed = committed
        self._nothing_due = nothing_due
        self._due: list[Outcome] = []
        self._n_due_bytes = 0
        self._due_since_s = 0.0
        self._publishing: asyncio.Task[None] | None = None
        self._publishing_since_s = 0.0
        self._committed_position = position
        self._committed_at_s = time.monotonic()
        #: Whether the caller should look for more that is there already, before all is published.
        self.looks_once_more = False
        #: Why sidecars cannot be written; empty where they can.
        self.cannot_write = ""

    @property
    def is_empty(self) -> bool:
        """Whether all that was put in is published."""
        return self._publishing is None and not self._due

    @property
    def patience_s(self) -> float:
        """How long the caller may wait for more while something is due."""
        return _GATHER_S

    async def put(self, made: Sequence[Outcome], *, n_behind: float) -> None:
        """Take outcomes, in their order; publish what is due unless there is more to read before or meanwhile.

        Parameters
        ----------
        made : sequence of Outcome
            Of all records up to the engine's position, since the last call.
        n_behind : float
            How much there is to read, of what is taken at once.
        """
        if made and not self._due:
            self._due_since_s = time.monotonic()
        self._due += made
        for one in made:
            if type(one) is DeadLetter:  # twice as quick as `isinstance`, for floods of them
                self._n_due_bytes += _n_bytes_of(one.record)
        await self._publish_due(n_behind, found_some=bool(made))

    async def flush(self) -> None:
        """Publish all that is due."""
        await self._published()
        if (commit := self._commit_of_all_due()) is not None:
            await self._publish(commit)

    async def abandon(self) -> None:
        """Let go of what is under way; whether its transaction was committed, the next start finds out."""
        publishing, self._publishing = self._publishing, None
        if publishing is not None:
            publishing.cancel()
            await asyncio.wait({publishing})
            if not publishing.cancelled():
                publishing.exception()  # what began the abandoning was told already

    async def write_sidecars(self, outcomes: Sequence[Outcome]) -> None:
        """Write sidecars and minidash rows, again and again until they are written or all is to stop."""
        predictions = [outcome.prediction for outcome in outcomes if isinstance(outcome, Published)]
        backoff_s = FIRST_BACKOFF_S
        while predictions:
            try:
                await self._sinks.write(predictions)
            except OSError as error:
                self._metrics.sidecar_failures.inc()
                self.cannot_write = f"cannot write sidecar or minidash: {error}"
                if self._stopping.is_set():
                    raise  # nothing was published: whoever takes the partition next writes them
                self._log.warning("%s; again in %.1f s", self.cannot_write, backoff_s)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._stopping.wait(), backoff_s)
                backoff_s = min(2 * backoff_s, MAX_BACKOFF_S)
            else:
                self.cannot_write = ""
                return

    async def _publish_due(self, n_behind: float, *, found_some: bool) -> None:
        self.looks_once_more = False
        is_behind = n_behind > 1
        if self._publishing is not None:
            is_late = time.monotonic() - self._publishing_since_s >= _MAX_AHEAD_S
            is_full = len(self._due) >= _MAX_DUE or self._n_due_bytes >= _MAX_DUE_BYTES
            if is_behind and not (self._publishing.done() or is_late or is_full):
                return
            await self._published()
        waited_s = time.monotonic() - self._committed_at_s
        if n_behind > _FAR_BEHIND and len(self._due) < _MAX_GATHERED and waited_s < _GATHER_S:
            return
        if found_some and len(self._due) < _MAX_GATHERED and time.monotonic() - self._due_since_s < _BURST_S:
            self.looks_once_more = True
            return
        if self._due or waited_s >= self._settings.commit_interval_s:
            commit = self._commit_of_all_due()
            if commit is not None:
                self._publishing = asyncio.create_task(self._publish(commit), name=f"{self._name} publishing")
                self._publishing_since_s = time.monotonic()
                if not is_behind:
                    await self._published()

    async def _published(self) -> None:
        """Wait for what is being published; raises what it failed with."""
        publishing, self._publishing = self._publishing, None
        if publishing is not None:
            await publishing

    def _commit_of_all_due(self) -> Commit | None:
        """Return all that is due with the progress as it is now, or None where nothing is to be committed."""
        low, position = self._engine.low_offset, self._engine.position
        if low is None or position is None or position <= self._committed_position:
            self._committed_at_s = time.monotonic()
            self._nothing_due()
            return None
        low_offset, watermark_us = low
        outcomes, self._due, self._n_due_bytes = self._due, [], 0
        return Commit(
            outcomes=outcomes,
            low_offset=low_offset,
            position=position,
            progress=self._progress(position, low_offset, watermark_us),
            counts=self._engine.counts.copy(),
        )

    async def _publish(self, commit: Commit) -> None:
        await self.write_sidecars(commit.outcomes)
        started_s = time.perf_counter()
        publisher = self._publisher
        try:
            await publisher.publish(commit.outcomes, commit.low_offset, commit.progress)
        except BaseException:
            if publisher.is_transactional:
                # Or it may be committed all the same, where only the answer was lost; the next start finds out.
                self._metrics.transactions.labels(outcome="aborted").inc()
            raise
        self._metrics.publish.observe(time.perf_counter() - started_s)
        if publisher.is_transactional:
            self._metrics.transactions.labels(outcome="committed").inc()
            self._metrics.transaction_commit.observe(publisher.commit_s)
        self._metrics.commits.inc()
        self._committed_position = commit.position
        self._committed_at_s = time.monotonic()
        self._committed(commit)


def _n_bytes_of(record: Record) -> int:
    n_bytes = len(record.value or b"") + len(record.key or b"")
    headers = getattr(record, "headers", ())
    return n_bytes + sum(len(name) + len(text or b"") for name, text in headers) if headers else n_bytes
