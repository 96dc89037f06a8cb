"""A topic as it lies there: the records of each partition between two bounds, for replay.

Reads outside any group and commits nothing. What comes while it reads is left out: the ends are taken at the start.
"""

from __future__ import annotations

import contextlib
import hashlib
import time
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Final, Self

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.errors import KafkaError

from stream_fp.config import Settings
from stream_fp.errors import ConfigError, ServiceError, TopicMissingError
from stream_fp.kafka.clients import close_within, new_admin, new_reader
from stream_fp.kafka.diagnosis import unreachable
from stream_fp.kafka.ranges import Bound, Range, bound_of, check_bounds
from stream_fp.kafka.topics import topic_layouts
from stream_fp.open_sessions import LONG_SILENCE_US

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
            raise await unreachable(self._settings, error, hint="; to replay files, name them with --input") from error
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._close()

    async def _close(self) -> None:
        await close_within(self._reader.stop, _CLOSE_S)
        await close_within(self._admin.close, _CLOSE_S)

    async def spans(self) -> list[Span]:
        """Return all that each partition of the input topic holds now.

        Raises
        ------
        TopicMissingError
            When there is no such topic.
        """
        found = await self.ranges([self._settings.input_topic])
        return [Span(partition=r.partition, first=r.first, end=r.end) for r in found]

    async def ranges(
        self,
        topics: Sequence[str],
        *,
        from_: Sequence[Bound] = (),
        to: Sequence[Bound] = (),
        look_back_us: int = 0,
        with_marks: bool = False,
    ) -> list[Range]:
        """Return what each partition of some topics holds between two bounds now, in order of topics and partitions.

        Parameters
        ----------
        topics : sequence of str
        from_, to : sequence of Bound
            First to be taken, and first not to be taken any more; everything by default.
        look_back_us : int
            How much older than the first record of the range, by the time stamps of Kafka, records are read from.
        with_marks : bool
            Whether to read the first record of each.

        Raises
        ------
        TopicMissingError
            When there is no such topic.
        ConfigError
            When a bound names what is not replayed, or the last one lies before the first.
        """
        try:
            layouts = await topic_layouts(self._admin)
            for topic in topics:
                if topic not in layouts:
                    raise TopicMissingError(topic, "input_topic")
            replayed = {topic: layouts[topic][0] for topic in topics}
            check_bounds(from_, replayed, "from")
            check_bounds(to, replayed, "to")
            partitions = [TopicPartition(topic, number) for topic, n in replayed.items() for number in range(n)]
            return await self._ranges(partitions, from_, to, look_back_us, with_marks=with_marks)
        except KafkaError as error:
            raise ServiceError(f"looking for topics {', '.join(topics)}: {error!r}") from error

    async def _ranges(
        self,
        partitions: list[TopicPartition],
        from_: Sequence[Bound],
        to: Sequence[Bound],
        look_back_us: int,
        *,
        with_marks: bool,
    ) -> list[Range]:
        oldest = await self._reader.beginning_offsets(partitions)
        ends = await self._reader.end_offsets(partitions)
        found = []
        for p in partitions:
            begins, stops = bound_of(from_, p), bound_of(to, p)
            if begins and stops and (stops.offset or 0) < (begins.offset or 0) and stops.offset is not None:
                raise ConfigError("to", f"lies before `from`: offset {stops.offset} before {begins.offset}")
            first = min(ends[p], max(oldest[p], await self._offset_of(begins, p, oldest[p], ends[p])))
            end = min(ends[p], max(oldest[p], await self._offset_of(stops, p, ends[p], ends[p])))
            # Time stamps need not ascend: then the first record after the one may come behind that after the other.
            end = max(first, end)
            read_from = await self._look_back(p, begins, first, end, look_back_us) if oldest[p] < first < end else first
            # What was open at `first` for longer than a session can be silent is nobody's.
            is_covered = look_back_us >= LONG_SILENCE_US and read_from > oldest[p]
            found.append(
                Range(
                    partition=p,
                    read_from=read_from,
                    first=first,
                    end=end,
                    lacks_older=read_from > 0 and not is_covered,
                    mark=await self.mark(p, read_from, end) if with_marks else "",
                )
            )
        return found

    async def _offset_of(self, bound: Bound | None, partition: TopicPartition, default: int, end: int) -> int:
        """Return the first offset at or after a bound; the end where nothing is."""
        if bound is None:
            return default
        if bound.offset is not None:
            return bound.offset
        moment_ms = -(-(bound.time_us or 0) // 1000)
        found = (await self._reader.offsets_for_times({partition: moment_ms}))[partition]
        return end if found is None else int(found.offset)

    async def _look_back(
        self, partition: TopicPartition, begins: Bound | None, first: int, end: int, look_back_us: int
    ) -> int:
        """Return the offset of the first record that is so much older than those at `first`, or younger."""
        records = await self._records_at(partition, first, end)
        if not records or not look_back_us:
            return first
        # A single record's time stamp may be far from that of its neighbours.
        moment_ms = min(record.timestamp for record in records)
        if begins is not None and begins.time_us is not None:
            moment_ms = min(moment_ms, begins.time_us // 1000)
        moment_ms = max(0, moment_ms - look_back_us // 1000)
        found = (await self._reader.offsets_for_times({partition: moment_ms}))[partition]
        return first if found is None else min(first, int(found.offset))

    async def mark(self, partition: TopicPartition, first: int, end: int) -> str:
        """Return what tells the first record between two offsets from any other; empty where there is none.

        Raises
        ------
        ServiceError
            When it cannot be read.
        """
        for record in (await self._records_at(partition, first, end))[:1]:
            content = f"{record.offset} {record.timestamp}".encode() + (record.key or b"") + (record.value or b"")
            return hashlib.sha256(content).hexdigest()[:16]
        return ""

    async def _records_at(
        self, partition: TopicPartition, first: int, end: int
    ) -> Sequence[ConsumerRecord[bytes, bytes]]:
        """Return some records, the first of those between two offsets."""
        async with contextlib.aclosing(self.read(Span(partition=partition, first=first, end=end))) as batches:
            async for records in batches:
                return records
        return ()

    async def read(self, span: Span) -> AsyncGenerator[Sequence[ConsumerRecord[bytes, bytes]], None]:
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
