"""A topic as it lies there: the records of each partition between two moments, for replay.

Reads outside any group and commits nothing. What comes while it reads is left out: the ends are taken at the start.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Final, Self

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from stream_fp.config import Settings
from stream_fp.errors import ServiceError, TopicMissingError
from stream_fp.kafka.clients import close_within, new_admin, new_reader
from stream_fp.kafka.topics import topic_layouts
from stream_fp.messages import Record

__all__ = ["Span", "TopicHistory"]

_TIMEOUT_MS: Final = 1_000
_CLOSE_S: Final = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """Offsets of one partition: from `first`, up to but without `end`."""

    partition: TopicPartition
    first: int
    end: int


class TopicHistory:
    """The input topic, to be read once; an async context manager.

    Parameters
    ----------
    settings : Settings
        Name the brokers and the input topic.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._reader: AIOKafkaConsumer = new_reader(settings)
        self._admin = new_admin(settings)

    async def __aenter__(self) -> Self:
        try:
            await self._admin.start()
            await self._reader.start()
        except (KafkaError, OSError) as error:
            await self._close()
            raise ServiceError(
                f"cannot reach Kafka at {self._settings.bootstrap_servers} (setting `bootstrap_servers`; to replay "
                f"files, name them with --input): {error or type(error).__name__}"
            ) from error
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._close()

    async def _close(self) -> None:
        await close_within(self._reader.stop, _CLOSE_S)
        await close_within(self._admin.close, _CLOSE_S)

    async def spans(self, from_us: int | None = None, to_us: int | None = None) -> list[Span]:
        """Return what each partition holds of the records whose Kafka time stamp lies in [`from_us`, `to_us`).

        Raises
        ------
        TopicMissingError
            When there is no such topic.
        """
        topic = self._settings.input_topic
        try:
            return await self._spans(from_us, to_us)
        except KafkaError as error:
            raise ServiceError(f"looking for topic `{topic}`: {error!r}") from error

    async def _spans(self, from_us: int | None, to_us: int | None) -> list[Span]:
        reader, topic = self._reader, self._settings.input_topic
        layouts = await topic_layouts(self._admin)
        if topic not in layouts:
            raise TopicMissingError(topic, "input_topic")
        partitions = [TopicPartition(topic, number) for number in range(layouts[topic][0])]
        oldest = await reader.beginning_offsets(partitions)
        ends = await reader.end_offsets(partitions)
        first = oldest if from_us is None else await self._at(partitions, from_us, ends)
        last = ends if to_us is None else await self._at(partitions, to_us, ends)
        return [Span(partition=p, first=first[p], end=max(first[p], min(last[p], ends[p]))) for p in partitions]

    async def _at(
        self, partitions: Sequence[TopicPartition], moment_us: int, ends: dict[TopicPartition, int]
    ) -> dict[TopicPartition, int]:
        """Return the first offset at or after a moment, the end where nothing is."""
        found = await self._reader.offsets_for_times(dict.fromkeys(partitions, -(-moment_us // 1000)))
        return {p: ends[p] if found[p] is None else found[p].offset for p in partitions}

    async def read(self, span: Span) -> AsyncIterator[Sequence[Record]]:
        """Yield the records of a span in offset order, some at a time.

        Raises
        ------
        ServiceError
            When the brokers have nothing more of it to give.
        """
        reader, partition = self._reader, span.partition
        reader.assign([partition])
        reader.seek(partition, span.first)
        position, moved_s = span.first, time.monotonic()
        while position < span.end:
            try:
                batches = await reader.getmany(partition, timeout_ms=_TIMEOUT_MS, max_records=5_000)
                reached = await reader.position(partition)
            except KafkaError as error:
                raise self._broken(span, position, repr(error)) from error
            if records := [record for record in batches.get(partition, ()) if record.offset < span.end]:
                yield records
            if reached > position:
                position, moved_s = reached, time.monotonic()
            elif time.monotonic() - moved_s > self._settings.request_timeout_s:
                raise self._broken(span, position, f"nothing came for {self._settings.request_timeout_s:g} s")

    def _broken(self, span: Span, position: int, why: str) -> ServiceError:
        topic, number = span.partition
        return ServiceError(f"{topic}[{number}]: reading ended at offset {position} of {span.end}: {why}")
