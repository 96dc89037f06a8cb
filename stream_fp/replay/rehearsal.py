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
import logging
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Final

from aiokafka.errors import KafkaError

from stream_fp.config import Settings
from stream_fp.errors import ConfigError, DocumentError, ServiceError, TopicMissingError
from stream_fp.kafka.clients import close_within, new_admin, new_producer, new_reader
from stream_fp.kafka.history import Span
from stream_fp.kafka.topics import create_topic, topic_layouts
from stream_fp.replay.outbox import Outbox, wait_until_known
from stream_fp.replay.player import Progress, RehearsalSummary, Say, play
from stream_fp.replay.sources import FileSource, OpenFiles, Source, TopicSource
from stream_fp.times import format_us, zone_of

__all__ = ["rehearse_files", "rehearse_topics"]

_logger = logging.getLogger(__name__)

_CLOSE_S: Final = 2.0
#: What is published after a stop, or not at all.
_FLUSH_S: Final = 10.0


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
                if not settings.create_topics:
                    raise TopicMissingError(output_topic, "output_topic")
                layouts[output_topic] = layout_of(layouts)
                # Whatever the source could hold has to have room here.
                room = {"max.message.bytes": str(settings.max_request_bytes)}
                await create_topic(admin, output_topic, layouts[output_topic], room)
            n_partitions, _ = layouts[output_topic]
            await producer.start()
            await wait_until_known(producer, output_topic, n_partitions, settings.request_timeout_s)
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
