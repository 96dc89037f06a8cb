"""Where a partition stands, as it travels with the committed offset.

The offset that the group commits is the low offset: the oldest record that an open session needs. What else a restart
has to know fits into the commit's metadata string (Kafka allows 4,096 bytes): the position up to which output has
been published, the event-time watermark just before the low offset, and a fingerprint of settings and model.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

import msgspec
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient

from stream_fp.engine_settings import RULES_VERSION, EngineSettings
from stream_fp.errors import OffsetLostError
from stream_fp.kafka.offsets import committed_offset
from stream_fp.library import Library
from stream_fp.logs import at

__all__ = ["Progress", "StartingPoint", "find_starting_point", "fingerprint_of"]

_logger = logging.getLogger(__name__)

#: A replica that has just become the leader may know less of the end than the one before it, for a moment.
_N_LOOKS: Final = 20
_LOOK_S: Final = 0.25


class Progress(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Content of the metadata of a commit."""

    published: int
    """Output of all records below this offset has been published."""
    watermark_us: int | None
    """Event-time watermark just before the committed offset."""
    fingerprint: str
    """Of the settings and the model that produced the output."""
    changed_at: int = 0
    """Published position when settings or model last changed: who starts below it has to look into the output topic for
    what open sessions were told before."""

    def encode(self) -> str:
        """Return it as the text of a commit's metadata."""
        return msgspec.json.encode(self).decode()


@dataclass(frozen=True, slots=True, kw_only=True)
class StartingPoint:
    """Where a partition's engine begins: see `Engine` for what the three mean."""

    low_offset: int
    published_offset: int
    watermark_us: int | None
    fingerprint: str | None
    changed_at: int = 0
    is_new: bool = False
    """Nothing was committed before: this point has to be, or a restart would begin at another "latest"."""


def fingerprint_of(settings: EngineSettings, library: Library, *methods: str) -> str:
    """Return 16 hex digits that change whenever predictions or sessions could come out differently.

    Parameters
    ----------
    settings : EngineSettings
    library : Library
    *methods : str
        Metric, confidence method and assignment.
    """
    content = msgspec.json.encode([RULES_VERSION, settings, library.fingerprint, methods])
    return hashlib.sha256(content).hexdigest()[:16]


async def find_starting_point(
    consumer: AIOKafkaConsumer,
    admin: AIOKafkaAdminClient,
    *,
    group_id: str,
    partition: TopicPartition,
    start_from: str,
    offset_lost: str,
    last_told: Callable[[], Awaitable[int | None]],
    stable: bool = True,
    timeout_s: float = 20.0,
) -> StartingPoint:
    """Read where a partition stands.

    Parameters
    ----------
    consumer : AIOKafkaConsumer
    admin : AIOKafkaAdminClient
    group_id : str
    partition : TopicPartition
    start_from : {"earliest", "latest"}
        Where a group begins that never committed.
    offset_lost : {"fail", "earliest", "latest"}
        What to do when the topic does not hold what the commit needs, or the broker has forgotten the commit.
    last_told : callable
        Asked where nothing is committed: for which record the group last published, if it ever did.
    stable : bool
        Wait for transactions that are about to replace the committed offset.
    timeout_s : float
        For the coordinator to answer.

    Raises
    ------
    OffsetLostError
        When the committed offset is older than the oldest record, or beyond the newest, and `offset_lost` is "fail".
    KafkaError, TimeoutError
        When a broker refuses, or the coordinator has no stable offset for `timeout_s`.
    """
    async with asyncio.timeout(timeout_s):
        found = await committed_offset(admin, group_id, partition, stable=stable)
    oldest = (await consumer.beginning_offsets([partition]))[partition]
    if found.offset < 0:
        last = await last_told()
        end = (await consumer.end_offsets([partition]))[partition]
        if last is not None:
            why = (
                f"group {group_id} has no committed offset, although it has published the prediction of record {last}; "
                "the broker has forgotten it (`offsets.retention.minutes`), or the topic was made anew"
            )
            return _lost(partition, offset_lost, why, oldest, end)
        return _new(oldest if start_from == "earliest" else end)
    progress = _decode(found.metadata)
    published = found.offset if progress is None else progress.published
    end = await _end_from(consumer, partition, published)
    if found.offset < oldest == end == published:
        _logger.warning(
            "fell silent, and all its records are older than the topic keeps: sessions open then count as over",
            extra=at(partition),
        )
        return _new(end, watermark_us=None if progress is None else progress.watermark_us)
    if published > end:
        why = (
            f"output was published up to offset {published}, but the partition ends at {end}; the topic was made anew "
            "or has lost records"
        )
        return _lost(partition, offset_lost, why, oldest, end)
    if found.offset < oldest:
        why = (
            f"the committed offset {found.offset} is gone, the oldest record kept is {oldest}; sessions open at that "
            "time cannot be rebuilt"
        )
        return _lost(partition, offset_lost, why, oldest, end, published=published)
    if progress is None:
        return StartingPoint(
            low_offset=found.offset, published_offset=found.offset, watermark_us=None, fingerprint=None
        )
    return StartingPoint(
        low_offset=found.offset,
        published_offset=progress.published,
        watermark_us=progress.watermark_us,
        fingerprint=progress.fingerprint,
        changed_at=progress.changed_at,
    )


def _lost(
    partition: TopicPartition, offset_lost: str, why: str, oldest: int, end: int, *, published: int = 0
) -> StartingPoint:
    if offset_lost == "fail":
        raise OffsetLostError(partition.topic, partition.partition, why)
    point = _new(oldest if offset_lost == "earliest" else end, published=published)
    _logger.warning("%s; going on from offset %d (setting `offset_lost`)", why, point.low_offset, extra=at(partition))
    return point


def _new(offset: int, *, published: int = 0, watermark_us: int | None = None) -> StartingPoint:
    return StartingPoint(
        low_offset=offset,
        published_offset=max(offset, published),
        watermark_us=watermark_us,
        fingerprint=None,
        is_new=True,
    )


async def _end_from(consumer: AIOKafkaConsumer, partition: TopicPartition, offset: int) -> int:
    """Return the end of the partition; one below `offset` is believed only when it stays so."""
    for _ in range(_N_LOOKS):
        end: int = (await consumer.end_offsets([partition]))[partition]
        if end >= offset:
            break
        await asyncio.sleep(_LOOK_S)
    return end


def _decode(metadata: str | None) -> Progress | None:
    """Return the progress of a commit, or None where somebody else wrote it."""
    try:
        return msgspec.json.decode(metadata or "", type=Progress)
    except msgspec.MsgspecError:
        return None
