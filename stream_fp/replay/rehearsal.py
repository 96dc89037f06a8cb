"""Rehearsal: recorded records published to a topic again, as they came, in the pace of their event time.

So that a live service, or a dashboard, meets a day of last year as if it were now. Reads topics (`TopicHistory` says
what they hold) or files, puts the records of all of them in the order that `stream_fp.replay.pace` finds, and hands
them to an idempotent producer when they are due. Joins no group, commits nothing, never writes to what it reads.

Invariant: key, value and headers of every record are published as they were read, once, and the records of a source
that go to one partition keep their order. What is in memory is bounded: what each source has read ahead, and two
batches of each output partition; the producer, when it lags, holds up the reading.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta, tzinfo
from pathlib import Path
from typing import Any, Final, Protocol

from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import KafkaError, TopicAlreadyExistsError, for_code
from aiokafka.partitioner import murmur2

from stream_fp.config import Settings
from stream_fp.errors import ConfigError, DocumentError, ServiceError, TopicMissingError
from stream_fp.files import MAX_LINE_BYTES
from stream_fp.kafka.clients import close_within, new_admin, new_producer, new_reader
from stream_fp.kafka.history import Span
from stream_fp.kafka.topics import topic_layouts
from stream_fp.messages import Record
from stream_fp.replay.pace import Merge, Pace, event_time_us
from stream_fp.replay.sources import FileSource, OpenFiles, Source, TopicSource
from stream_fp.times import format_us, zone_of

__all__ = ["Clock", "Outbox", "RehearsalSummary", "Sink", "play", "rehearse_files", "rehearse_topics"]

_logger = logging.getLogger(__name__)

Progress = Callable[[int, int], object]
Say = Callable[[str], object]

_CLOSE_S: Final = 2.0
#: What is due within so long goes together, so that a thousand records a second are a hundred requests. It is how late
#: a record may be for it.
_TICK_S: Final = 0.01
#: A wait that is told of, with what comes after it.
_GAP_S: Final = 60.0
#: What is published after a stop, or not at all.
_FLUSH_S: Final = 10.0
#: Records handed on before others have their turn; some 10 us each, with all that belongs to it.
_AT_ONCE: Final = 500
#: Keys whose partition is remembered: finding it takes 7 us.
_N_KEYS: Final = 2**16
#: Between two looks whether the producer knows a topic that was just created.
_LOOK_S: Final = 0.05


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


async def rehearse_topics(
    settings: Settings,
    spans: Sequence[Span],
    *,
    output_topic: str,
    speed: float | None,
    progress: Progress = lambda _done, _total: None,
    say: Say = _logger.info,
) -> RehearsalSummary:
    """Publish the records of partitions to a topic again, in the pace of their event time.

    Records of one topic go to the partition of the same number where the output topic has as many partitions; else,
    and where several topics become one, to where the usual partitioner puts their key (without a key: to the number of
    their partition, modulo).

    Parameters
    ----------
    settings : Settings
    spans : sequence of Span
        What to publish; each partition once, of any number of topics.
    output_topic : str
        Is created with the layout of the source where it is missing and `create_topics` allows it.
    speed : float or None
        Seconds of event time in a second, None for as fast as the producer takes them.
    progress : callable
        Called now and then with offsets done and offsets in all.
    say : callable
        Told, as a sentence, of long waits and what comes after, and of a stop and how far it came; the log by default.

    Raises
    ------
    ConfigError
        When the output topic is one of those that are read.
    ServiceError
        When the brokers cannot be reached or refuse a record, one is too large, or a topic is missing.
    """
    topics = sorted({span.partition.topic for span in spans})
    if output_topic in topics:
        raise ConfigError("output_topic", f"expected a topic that is not read, got `{output_topic}`, which is")
    reader = new_reader(settings)

    async def sources(layouts: dict[str, tuple[int, int]]) -> Sequence[Source]:
        for topic in topics:
            if topic not in layouts:
                raise TopicMissingError(topic, "input_topic")
        await reader.start()
        # In one order whatever that of the spans: of records at the same time, those of the lower number come first.
        ordered = sorted(spans, key=lambda span: span.partition)
        reader.assign([span.partition for span in ordered])
        for span in ordered:
            reader.seek(span.partition, span.first)
        return [TopicSource(reader, span, patience_s=settings.request_timeout_s) for span in ordered]

    def layout(layouts: dict[str, tuple[int, int]]) -> tuple[int, int]:
        found = [layouts[topic] for topic in topics] or [(1, 1)]
        return max(n for n, _ in found), max(n for _, n in found)

    def by_number(layouts: dict[str, tuple[int, int]]) -> bool:
        return len(topics) == 1 and layouts[output_topic][0] >= layouts[topics[0]][0]

    try:
        return await _rehearse(
            settings, sources, layout, by_number, output_topic=output_topic, speed=speed, progress=progress, say=say
        )
    finally:
        await close_within(reader.stop, _CLOSE_S)


async def rehearse_files(
    settings: Settings,
    files: Sequence[Path],
    *,
    output_topic: str,
    speed: float | None,
    progress: Progress = lambda _done, _total: None,
    say: Say = _logger.info,
) -> RehearsalSummary:
    """Publish the records of files to a topic, in the pace of their event time.

    They go to where the usual partitioner puts their session id. Each file is opened when its first event is near, and
    no more than some at once. A file that cannot be read to its end gives what comes before.

    Parameters
    ----------
    settings : Settings
    files : sequence of Path
        Session files, as `stream_fp.files.find_files` finds them.
    output_topic : str
        Is created where it is missing and `create_topics` allows it, with the layout of the input topic where there is
        one, else with one partition.
    speed, say
        As in `rehearse_topics`.
    progress : callable
        Called after each file with files done and files in all.

    Raises
    ------
    DocumentError
        When none of the files can be read.
    ServiceError
        When the brokers cannot be reached or refuse a record, one is too large, or the topic is missing.
    """
    opened = OpenFiles()
    found = [FileSource(path, number, opened) for number, path in enumerate(files)]

    async def sources(_layouts: dict[str, tuple[int, int]]) -> Sequence[Source]:
        return found

    def layout(layouts: dict[str, tuple[int, int]]) -> tuple[int, int]:
        return layouts.get(settings.input_topic, (1, 1))

    try:
        summary = await _rehearse(
            settings, sources, layout, lambda _layouts: False,
            output_topic=output_topic, speed=speed, progress=progress, say=say,
        )  # fmt: skip
    finally:
        for file in found:
            file.close()
    summary.unreadable += [file.error for file in found if file.error]
    if not summary.n_records and len(summary.unreadable) == len(files) > 0:
        raise DocumentError(str(files[0].parent), f"none of {len(files)} files can be read; {summary.unreadable[0]}")
    return summary


async def _rehearse(
    settings: Settings,
    sources_of: Callable[[dict[str, tuple[int, int]]], Awaitable[Sequence[Source]]],
    layout_of: Callable[[dict[str, tuple[int, int]]], tuple[int, int]],
    by_number_of: Callable[[dict[str, tuple[int, int]]], bool],
    *,
    output_topic: str,
    speed: float | None,
    progress: Progress,
    say: Say,
) -> RehearsalSummary:
    admin, producer = new_admin(settings), new_producer(settings, None)
    try:
        try:
            await admin.start()
            layouts = await topic_layouts(admin)
            sources = await sources_of(layouts)
            if output_topic not in layouts:
                layouts[output_topic] = await _create(admin, settings, output_topic, layout_of(layouts))
            n_partitions, _ = layouts[output_topic]
            await producer.start()
            await _knows(producer, output_topic, n_partitions, settings.request_timeout_s)
        except (KafkaError, OSError) as error:
            raise ServiceError(
                f"cannot publish to topic `{output_topic}` at {settings.bootstrap_servers} "
                f"(setting `bootstrap_servers`): {error or type(error).__name__}"
            ) from error
        summary = RehearsalSummary(output_topic=output_topic, n_partitions=n_partitions, n_sources=len(sources))
        outbox = Outbox(
            producer, output_topic, n_partitions, by_number=by_number_of(layouts), max_bytes=settings.max_request_bytes
        )
        try:
            await play(
                sources, outbox, zone=zone_of(settings.timezone), speed=speed, summary=summary, progress=progress,
                say=say,
            )  # fmt: skip
            await outbox.settle()
        except BaseException as error:
            await close_within(outbox.settle, _FLUSH_S)
            say(_stopped(summary, outbox.n_delivered, error))
            raise
        finally:
            summary.n_records = outbox.n_delivered
        return summary
    finally:
        await close_within(producer.stop, _CLOSE_S)
        await close_within(admin.close, _CLOSE_S)


def _stopped(summary: RehearsalSummary, n_delivered: int, error: BaseException) -> str:
    why = "stopped" if isinstance(error, asyncio.CancelledError) else "failed"
    reached = "" if summary.last_us is None else f", up to event time {format_us(summary.last_us)} UTC"
    return f"rehearsal {why} after {n_delivered} records on topic {summary.output_topic}{reached}"


# ----------------------------------------------------------------------------------------------------- in due order


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


# --------------------------------------------------------------------------------------------------------- publishing


class Outbox:
    """Records on their way to the output topic, in batches; the `Sink` of a rehearsal.

    The client's own `send` keeps books of every record, which takes as long as all the rest.

    Parameters
    ----------
    producer : AIOKafkaProducer
        Started; idempotent.
    topic : str
    n_partitions : int
        Of the topic.
    by_number : bool
        Whether records keep the number of their partition.
    max_bytes : int
        Setting `max_request_bytes`.

    Attributes
    ----------
    n_delivered : int
        Records that the brokers have acknowledged.
    """

    def __init__(
        self, producer: AIOKafkaProducer, topic: str, n_partitions: int, *, by_number: bool, max_bytes: int
    ) -> None:
        self._producer = producer
        self._topic = topic
        self._n_partitions = n_partitions
        self._by_number = by_number
        self._max_bytes = max_bytes
        self._open: dict[int, Any] = {}
        self._under_way: set[asyncio.Future[Any]] = set()
        self._error: BaseException | None = None
        self._partition_of_key = functools.lru_cache(_N_KEYS)(self._hashed)
        self.n_delivered = 0

    async def add(self, record: Record, source: Source) -> None:
        """Put a record into its partition's batch; send that, where it is full.

        Raises
        ------
        ServiceError
            When the record is too large, or something could not be delivered.
        """
        key, value = record.key, record.value
        n_bytes = len(key or b"") + len(value or b"")
        if n_bytes > self._max_bytes or n_bytes > MAX_LINE_BYTES:
            raise ServiceError(
                f"{source.place(record)}: expected a record of at most {min(self._max_bytes, MAX_LINE_BYTES)} bytes "
                f"(setting `max_request_bytes`), got {n_bytes}"
            )
        if self._by_number:
            partition = source.partition
        else:
            partition = source.partition % self._n_partitions if key is None else self._partition_of_key(key)
        # Records of files have none.
        headers: list[tuple[str, bytes]] = getattr(record, "headers", [])
        batch = self._open.get(partition)
        if batch is None or batch.append(timestamp=None, key=key, value=value, headers=headers) is None:
            if batch is not None:
                await self._send(partition)
            batch = self._open[partition] = self._producer.create_batch()
            batch.append(timestamp=None, key=key, value=value, headers=headers)

    async def send(self) -> None:
        """Send what has been put into batches so far."""
        for partition in list(self._open):
            await self._send(partition)

    async def settle(self) -> None:
        """Send everything, and wait until it is delivered.

        Raises
        ------
        ServiceError
            When something was not.
        """
        await self.send()
        while self._under_way:
            await asyncio.wait(self._under_way)
        self._check()

    def _hashed(self, key: bytes) -> int:
        # As the client's default partitioner, and that of Java, find it.
        return int(murmur2(key) & 0x7FFFFFFF) % self._n_partitions

    async def _send(self, partition: int) -> None:
        self._check()
        batch = self._open[partition]
        n_records = batch.record_count()
        try:
            # Waits while the one before is not yet on its way. Who is stopped meanwhile still has the batch to send.
            delivery = await self._producer.send_batch(batch, self._topic, partition=partition)
        except KafkaError as error:
            raise self._broken(error) from error
        del self._open[partition]
        self._under_way.add(delivery)
        delivery.add_done_callback(functools.partial(self._delivered, n_records))

    def _delivered(self, n_records: int, delivery: asyncio.Future[Any]) -> None:
        self._under_way.discard(delivery)
        if delivery.cancelled():
            return
        error = delivery.exception()
        if error is None:
            self.n_delivered += n_records
        else:
            self._error = self._error or error

    def _check(self) -> None:
        if self._error is not None:
            raise self._broken(self._error) from self._error

    def _broken(self, error: BaseException) -> ServiceError:
        return ServiceError(f"publishing to topic `{self._topic}` ended after {self.n_delivered} records: {error!r}")


async def _create(
    admin: AIOKafkaAdminClient, settings: Settings, topic: str, layout: tuple[int, int]
) -> tuple[int, int]:
    """Create the output topic; return its number of partitions and of replicas."""
    if not settings.create_topics:
        raise TopicMissingError(topic, "output_topic")
    n_partitions, n_replicas = layout
    # Whatever the source could hold has to have room here.
    configs = {"max.message.bytes": str(settings.max_request_bytes)}
    response = await admin.create_topics([NewTopic(topic, n_partitions, n_replicas, topic_configs=configs)])
    for _, code, *_message in response.topic_errors:
        error = for_code(code)
        if code and error is not TopicAlreadyExistsError:
            raise error(f"creating topic {topic}")
    _logger.info("created topic %s with %d partitions", topic, n_partitions)
    return n_partitions, n_replicas


async def _knows(producer: AIOKafkaProducer, topic: str, n_partitions: int, within_s: float) -> None:
    """Wait until the producer knows a topic that may have been created a moment ago."""
    try:
        async with asyncio.timeout(within_s):
            while len(await producer.partitions_for(topic)) < n_partitions:
                await producer.client.force_metadata_update()
                await asyncio.sleep(_LOOK_S)
    except TimeoutError as error:
        raise ServiceError(f"topic `{topic}`: its {n_partitions} partitions have no leaders yet") from error
