"""What sessions have been told: the predictions on the output topic, read back after a change of settings or model.

The commit says up to where output was published, but not what the former settings made of it. The output topic does:
every prediction names the record that brought it about. It is read from its end backwards, as far as the low offset.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

import msgspec
from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition

from stream_fp.config import Settings
from stream_fp.kafka.clients import new_reader
from stream_fp.logs import at
from stream_fp.sessions import Session

__all__ = ["GROUP_HEADER", "OWED_HEADER", "SOURCE_HEADER", "Told", "find_told", "last_told", "source_of"]

_logger = logging.getLogger(__name__)

#: Header of a prediction: ``<topic>-<partition>@<offset>`` of the record that brought it about.
SOURCE_HEADER: Final = "stream_fp.source"
#: Header of a prediction: the consumer group that published it.
GROUP_HEADER: Final = "stream_fp.group"
#: Header of a prediction that was published late, after a change of settings: its source lies before those around it.
OWED_HEADER: Final = "stream_fp.owed"
_FIRST_SPAN: Final = 2_000
_TIMEOUT_MS: Final = 1_000


class _Classification(msgspec.Struct):
    checkpoint_pct: float = 0.0


class _Value(msgspec.Struct):
    classification_metadata: _Classification


_decode: Final = msgspec.json.Decoder(_Value).decode


@dataclass(slots=True)
class Told:
    """Predictions of one input partition, by session.

    What opened before `changed_at` is one with all that came before under its id: by the former settings the session
    may have opened earlier or later than by these.
    """

    changed_at: int = 0
    by_key: dict[bytes, list[tuple[int, float]]] = field(default_factory=lambda: defaultdict(list))
    """Offset of the record that brought it about, and checkpoint."""

    def covers(self, session: Session, checkpoint_pct: float) -> bool:
        """Tell whether a session has a prediction at this checkpoint or, as the topic may be compacted, a later one."""
        predictions = self.by_key.get(session.id.encode(), ())
        since = session.first_offset if session.first_offset >= self.changed_at else 0
        return any(offset >= since and told_pct >= checkpoint_pct - 1e-9 for offset, told_pct in predictions)


async def find_told(
    settings: Settings, partition: TopicPartition, *, since: int, changed_at: int, n_output_partitions: int
) -> Told:
    """Read the predictions that records of an input partition brought about from offset `since` on.

    Parameters
    ----------
    settings : Settings
    partition : TopicPartition
        The input partition.
    since : int
        Low offset: no session open now had a prediction before it.
    changed_at : int
        Published position at the change.
    n_output_partitions : int
        Of the output topic; the output partition of the same number is read, or all where there is none.
    """
    outputs = _outputs(settings, partition, n_output_partitions)
    told = Told(changed_at)
    # To the very end, not only to where the oldest open transaction begins: behind one of another input partition there
    # may be committed predictions of ours. The reader waits there until it has ended.
    async with new_reader(settings, isolation_level="read_uncommitted") as looker:
        ends = await looker.end_offsets(outputs)
    async with new_reader(settings) as reader:
        for output in outputs:
            await _read_back(reader, output, ends[output], told, source=partition, since=since)
    return told


async def last_told(settings: Settings, partition: TopicPartition, *, n_output_partitions: int) -> int | None:
    """Return for which record this group last published a prediction, as far as recent output tells; else None."""
    outputs = _outputs(settings, partition, n_output_partitions)
    found: list[int] = []
    async with new_reader(settings) as reader:
        reader.assign(outputs)
        oldest = await reader.beginning_offsets(outputs)
        ends = await reader.end_offsets(outputs)
        for output in outputs:
            reader.assign([output])
            last, span, n_records = ends[output], _FIRST_SPAN, 0
            # Every commit leaves a marker there, with or without predictions: so many records are farther back.
            while last > oldest[output] and n_records < _FIRST_SPAN:
                first = max(oldest[output], last - span)
                async for records in _read(reader, output, first, last):
                    n_records += len(records)
                    found += _sources(records, partition, settings.group_id)
                last, span = first, 2 * span
    return max(found, default=None)


def _sources(records: Iterable[ConsumerRecord], partition: TopicPartition, group_id: str) -> Iterator[int]:
    """Yield the offsets of an input partition that a group's predictions name."""
    for record in records:
        headers = dict(record.headers)
        origin = source_of(headers.get(SOURCE_HEADER, b""))
        if headers.get(GROUP_HEADER) == group_id.encode() and origin is not None and origin[0] == partition:
            yield origin[1]


def _outputs(settings: Settings, partition: TopicPartition, n_output_partitions: int) -> list[TopicPartition]:
    """Return where predictions of an input partition go: to the partition of the same number, where there is one."""
    numbers = [partition.partition] if partition.partition < n_output_partitions else range(n_output_partitions)
    return [TopicPartition(settings.output_topic, number) for number in numbers]


async def _read(
    reader: AIOKafkaConsumer, output: TopicPartition, first: int, end: int
) -> AsyncIterator[Sequence[ConsumerRecord]]:
    if first < end:
        reader.seek(output, first)
        while await reader.position(output) < end:
            for some in (await reader.getmany(output, timeout_ms=_TIMEOUT_MS)).values():
                yield [record for record in some if record.offset < end]


async def _read_back(
    reader: AIOKafkaConsumer, output: TopicPartition, end: int, told: Told, *, source: TopicPartition, since: int
) -> None:
    reader.assign([output])
    oldest = (await reader.beginning_offsets([output]))[output]
    last, span = end, _FIRST_SPAN
    reached = False
    while last > oldest and not reached:
        first = max(oldest, last - span)
        async for records in _read(reader, output, first, last):
            reached |= _note(records, source, since, told)
        _logger.info("read back to offset %d", first, extra=at(output))
        last, span = first, 2 * span


def _note(records: Iterable[ConsumerRecord], source: TopicPartition, since: int, told: Told) -> bool:
    """Take note of the predictions of a source; return whether some were older than `since`, so that all are seen."""
    reached = False
    for record in records:
        headers = dict(record.headers)
        origin = source_of(headers.get(SOURCE_HEADER, b""))
        if origin is None or origin[0] != source or record.value is None:
            continue
        offset = origin[1]
        if offset < since:
            reached |= OWED_HEADER not in headers
            continue
        try:
            checkpoint_pct = _decode(record.value).classification_metadata.checkpoint_pct
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            continue  # not ours, whatever its header says
        told.by_key[record.key].append((offset, checkpoint_pct))
    return reached


def source_of(header: bytes) -> tuple[TopicPartition, int] | None:
    """Read the header that names the record behind a prediction; None where it is none of ours.

    Examples
    --------
    >>> source_of(b"session-events-3@17")
    (TopicPartition(topic='session-events', partition=3), 17)
    >>> source_of(b"elsewhere") is None
    True
    """
    place, _, offset = header.decode("utf-8", "replace").rpartition("@")
    topic, _, partition = place.rpartition("-")
    if not (topic and partition.isdecimal() and offset.isdecimal()):
        return None
    return TopicPartition(topic, int(partition)), int(offset)
