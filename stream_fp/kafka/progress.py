"""Where a partition stands, as it travels with the committed offset.

The offset that the group commits is the low offset: the oldest record that an open session needs. What else a restart
has to know fits into the commit's metadata string (Kafka allows 4,096 bytes): the position up to which output has
been published, the event-time watermark just before the low offset, and a fingerprint of settings and model.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from dataclasses import dataclass
from typing import Final

import msgspec
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import GroupCoordinatorNotAvailableError, NotCoordinatorForGroupError
from aiokafka.structs import OffsetAndMetadata

from stream_fp.engine import EngineSettings
from stream_fp.errors import OffsetLostError
from stream_fp.library import Library

__all__ = ["Progress", "StartingPoint", "find_starting_point", "fingerprint_of"]

#: Between questions to a coordinator that is not ready; it usually is within a second.
_RETRY_S: Final = 0.1


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """Content of the metadata of a commit."""

    published: int
    """Output of all records below this offset has been published."""
    watermark_us: int | None
    """Event-time watermark just before the committed offset."""
    fingerprint: str
    """Of the settings and the model that produced the output."""

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
    content = msgspec.json.encode([settings, library.fingerprint, methods])
    return hashlib.sha256(content).hexdigest()[:16]


async def find_starting_point(
    consumer: AIOKafkaConsumer,
    admin: AIOKafkaAdminClient,
    *,
    group_id: str,
    partition: TopicPartition,
    start_from: str,
    offset_lost: str,
) -> StartingPoint:
    """Read where a partition stands.

    Raises
    ------
    OffsetLostError
        When the committed offset is older than the oldest record and `offset_lost` is "fail".
    """
    found = await _committed(admin, group_id, partition)
    if found.offset < 0:
        edge = consumer.beginning_offsets if start_from == "earliest" else consumer.end_offsets
        offset = (await edge([partition]))[partition]
        return StartingPoint(
            low_offset=offset, published_offset=offset, watermark_us=None, fingerprint=None, is_new=True
        )
    oldest = (await consumer.beginning_offsets([partition]))[partition]
    progress = _decode(found.metadata)
    if found.offset < oldest:
        if offset_lost == "fail":
            raise OffsetLostError(partition.topic, partition.partition, found.offset, oldest)
        edge = consumer.beginning_offsets if offset_lost == "earliest" else consumer.end_offsets
        offset = (await edge([partition]))[partition]
        published = max(offset, progress.published) if progress is not None else offset
        return StartingPoint(
            low_offset=offset, published_offset=published, watermark_us=None, fingerprint=None, is_new=True
        )
    if progress is None:
        return StartingPoint(
            low_offset=found.offset, published_offset=found.offset, watermark_us=None, fingerprint=None
        )
    return StartingPoint(
        low_offset=found.offset,
        published_offset=progress.published,
        watermark_us=progress.watermark_us,
        fingerprint=progress.fingerprint,
    )


async def _committed(admin: AIOKafkaAdminClient, group_id: str, partition: TopicPartition) -> OffsetAndMetadata:
    """Return the committed offset, -1 where there is none.

    An answer without the partition is an error that aiokafka drops (a coordinator still loading, say), never "nothing
    committed": to take it for that would begin from nowhere and lose the state.
    """
    while True:
        with contextlib.suppress(GroupCoordinatorNotAvailableError, NotCoordinatorForGroupError):
            committed = await admin.list_consumer_group_offsets(group_id, partitions=[partition])
            if partition in committed:
                return committed[partition]
        await asyncio.sleep(_RETRY_S)


def _decode(metadata: str | None) -> Progress | None:
    """Return the progress of a commit, or None where somebody else wrote it."""
    try:
        return msgspec.json.decode(metadata or "", type=Progress)
    except msgspec.MsgspecError:
        return None
