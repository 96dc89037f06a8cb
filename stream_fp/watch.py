"""Looks after progress: what liveness reports, and when the service gives up so that a supervisor may start it anew.

It asks the brokers through a client of its own: the one that consumes may be the very one that has lost its way
(aiokafka #1154). Four things can be wrong: a partition stands still while records wait, nobody can say whether records
wait, the input topic has gone, or the group no longer knows of this member.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Final

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from stream_fp.config import Settings
from stream_fp.errors import StalledError
from stream_fp.health import Health
from stream_fp.kafka.clients import close_within, new_reader
from stream_fp.kafka.topics import topic_layouts
from stream_fp.partition import PartitionWorker
from stream_fp.stalls import StallDetector

__all__ = ["ProgressWatch"]

_INTERVAL_S: Final = 5.0
_CLOSE_S: Final = 1.0


class ProgressWatch:
    """Keeps `Health.not_alive` up to date.

    Parameters
    ----------
    settings : Settings
    admin : AIOKafkaAdminClient
    health : Health
    workers : callable
        Returns the worker of every partition owned now.
    is_member : callable
        Returns whether the consumer is a member of its group.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        admin: AIOKafkaAdminClient,
        health: Health,
        workers: Callable[[], Mapping[TopicPartition, PartitionWorker]],
        is_member: Callable[[], bool],
    ) -> None:
        self._settings = settings
        self._admin = admin
        self._health = health
        self._workers = workers
        self._is_member = is_member
        self._detector = StallDetector(settings.stall_timeout_s)
        self._ends: dict[TopicPartition, int] = {}
        self._reader: AIOKafkaConsumer | None = None
        #: Since when something has been wrong that is not the matter of one partition, by what it is.
        self._wrong_since_s: dict[str, float] = {}

    async def run(self) -> None:
        """Look now and then until cancelled.

        Raises
        ------
        StalledError
            When something has been wrong for `stall_exit_s`.
        """
        try:
            while True:
                await asyncio.sleep(min(_INTERVAL_S, self._settings.stall_timeout_s / 4))
                await self._look()
        finally:
            await self._drop_reader()

    async def _look(self) -> None:
        workers = dict(self._workers())
        wrong = [await self._why_ends_are_unknown(list(workers))] if workers else [await self._why_nothing_to_do()]
        # Where the brokers do not answer, the ends known before still tell whether records wait.
        found = {worker.name: (worker.furthest, self._ends.get(p, 0)) for p, worker in workers.items()}
        for partition, worker in workers.items():
            worker.known_end = self._ends.get(partition)
        now_s = time.monotonic()
        not_alive = self._detector.observe(found, now_s)
        for worker in workers.values():
            worker.still_since_s = self._detector.still_since_s(worker.name)
            if worker.name in not_alive and worker.not_ready:
                not_alive[worker.name] += f" ({worker.not_ready})"
        since_s = {why: self._wrong_since_s.get(why, now_s) for why in wrong if why}
        self._wrong_since_s = since_s
        longest_s = self._detector.longest_s
        for why, began_s in since_s.items():
            lasted_s = now_s - began_s
            longest_s = max(longest_s, lasted_s)
            if lasted_s >= self._settings.stall_timeout_s:
                not_alive["service"] = f"{why} for {lasted_s:.0f} s"
        self._health.not_alive = not_alive
        if longest_s >= self._settings.stall_exit_s:
            raise StalledError(not_alive, self._settings.stall_exit_s)

    async def _why_ends_are_unknown(self, partitions: list[TopicPartition]) -> str:
        try:
            async with asyncio.timeout(self._settings.request_timeout_s):
                if self._reader is None:
                    self._reader = new_reader(self._settings)
                    await self._reader.start()
                self._ends |= await self._reader.end_offsets(partitions)
        except (KafkaError, TimeoutError, OSError):
            await self._drop_reader()
            return "no broker has said whether records wait"
        return ""

    async def _why_nothing_to_do(self) -> str:
        """Look for the input topic where no partition of it is owned; a group may have more members than partitions."""
        try:
            async with asyncio.timeout(self._settings.request_timeout_s):
                if self._settings.input_topic in await topic_layouts(self._admin):
                    # One that it no longer counts gets none either, and has to come again.
                    return (
                        "" if self._is_member() else "no partition is assigned and the group does not know this member"
                    )
        except (KafkaError, TimeoutError, OSError):
            return "no partition is assigned and no broker has answered"
        return f"topic `{self._settings.input_topic}` (setting `input_topic`) has not existed"

    async def _drop_reader(self) -> None:
        reader, self._reader = self._reader, None
        if reader is not None:
            await close_within(reader.stop, _CLOSE_S)
