"""The records of one partition as its worker takes them: in slices, while the client fetches the next.

aiokafka asks for more of a partition once all that it has fetched of it was handed out. So all is taken at once (within
a bound) and kept here, and given to the engine in slices, between which others have their turn: the broker is never
waited for while there is something to do (a quarter of the service's speed, where it is far behind).

Whoever moves the position does so here (`seek`): what is kept is thrown away, for the client's position lies behind it.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Final

from aiokafka import AIOKafkaConsumer, TopicPartition

from stream_fp.messages import Record

__all__ = ["Intake"]

#: More than these are decoded only when they are asked for: a fetch of half a megabyte may hold ten times as much,
#: compressed. Uncompressed it holds less, so that all of it is taken.
_MAX_KEPT: Final = 5_000
#: When the group rebalances, the client keeps back what it has; it is asked again after so long.
_KEPT_BACK_S: Final = 0.05


class Intake:
    """Hands out the records of one partition.

    Parameters
    ----------
    consumer : AIOKafkaConsumer
        Shared with others; here only this partition is asked for.
    partition : TopicPartition
    n_at_once : int
        Records of a slice, at most.
    """

    def __init__(self, consumer: AIOKafkaConsumer, partition: TopicPartition, *, n_at_once: int) -> None:
        self._consumer = consumer
        self._partition = partition
        self._n_at_once = n_at_once
        self._kept: list[Record] = []
        self._n_given = 0
        self._fetching: asyncio.Task[dict[TopicPartition, list[Record]]] | None = None
        self._is_stopped = False

    def seek(self, offset: int) -> None:
        """Go on from `offset`."""
        self._kept = []
        self._consumer.seek(self._partition, offset)
        self._consumer.resume(self._partition)

    async def look(self, timeout_ms: int = 0) -> list[Record]:
        """Return what is there, or comes within the time; none where nothing does.

        Without a task of its own, which would take a twentieth of all the time.
        """
        if not self._kept and not self._is_stopped:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_KEPT_BACK_S):
                    found = await self._consumer.getmany(self._partition, timeout_ms=timeout_ms, max_records=_MAX_KEPT)
                    self._keep(found)
        return self._next()

    async def wait(self, timeout_s: float) -> list[Record]:
        """Return the next records as soon as there are any; none after the time, or when stopped meanwhile."""
        if not self._kept and not self._is_stopped:
            self._fetching = asyncio.ensure_future(
                self._consumer.getmany(self._partition, timeout_ms=int(timeout_s * 1000), max_records=_MAX_KEPT)
            )
            try:
                self._keep(await self._fetching)
            except asyncio.CancelledError:
                if not self._is_stopped:
                    raise
            finally:
                self._fetching = None
        return self._next()

    def stop(self) -> None:
        """Give out no more, and let go of who waits."""
        self._is_stopped = True
        if self._fetching is not None:
            self._fetching.cancel()

    def _keep(self, found: dict[TopicPartition, list[Record]]) -> None:
        self._kept = found.get(self._partition, [])
        self._n_given = 0

    def _next(self) -> list[Record]:
        if self._is_stopped:
            return []
        first, self._n_given = self._n_given, self._n_given + self._n_at_once
        records = self._kept[first : self._n_given]
        if self._n_given >= len(self._kept):
            self._kept = []
        return records
