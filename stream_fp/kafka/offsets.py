"""The group's committed offset with its metadata, and never one that a transaction is about to replace.

A coordinator answers with what it has in memory. It takes the offset of a transaction into memory a moment after the
transaction's end is on disk, asynchronously, so that even a new owner whose producer has just ended the former one's
transaction may be told the offset before it, and would publish the same outcomes twice. "Require stable" (KIP-447)
makes the coordinator say so instead. The flag came with version 7 of the request (Kafka 2.5); aiokafka stops at 3.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any, Final

from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import (
    GroupCoordinatorNotAvailableError,
    GroupLoadInProgressError,
    KafkaError,
    NotCoordinatorForGroupError,
    for_code,
)
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.types import Boolean, CompactArray, CompactString, Int16, Int32, Int64, Schema, TaggedFields
from aiokafka.structs import OffsetAndMetadata

__all__ = ["committed_offset"]

_logger = logging.getLogger(__name__)

#: Between questions to a coordinator that is not ready; it usually is within a second.
_RETRY_S: Final = 0.05
_UNSTABLE_OFFSET_COMMIT: Final = 88
_NOT_READY: Final = (GroupCoordinatorNotAvailableError, GroupLoadInProgressError, NotCoordinatorForGroupError)

_text = CompactString("utf-8")


class _OffsetFetchResponse(Response):  # type: ignore[misc]
    API_KEY = 9
    API_VERSION = 7
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        (
            "topics",
            CompactArray(
                ("topic", _text),
                (
                    "partitions",
                    CompactArray(
                        ("partition", Int32),
                        ("offset", Int64),
                        ("leader_epoch", Int32),
                        ("metadata", _text),
                        ("error_code", Int16),
                        ("tags", TaggedFields),
                    ),
                ),
                ("tags", TaggedFields),
            ),
        ),
        ("error_code", Int16),
        ("tags", TaggedFields),
    )


class _OffsetFetchRequest(RequestStruct):  # type: ignore[misc]
    API_KEY = 9
    API_VERSION = 7
    FLEXIBLE_VERSION = True
    RESPONSE_TYPE = _OffsetFetchResponse
    SCHEMA = Schema(
        ("group_id", _text),
        (
            "topics",
            CompactArray(("topic", _text), ("partitions", CompactArray(Int32)), ("tags", TaggedFields)),
        ),
        ("require_stable", Boolean),
        ("tags", TaggedFields),
    )


class _StableOffsetFetch(Request[_OffsetFetchRequest]):  # type: ignore[misc]
    API_KEY = 9

    def __init__(self, group_id: str, partition: TopicPartition) -> None:
        self._group_id = group_id
        self._partition = partition

    def build(self, request_struct_class: type[_OffsetFetchRequest]) -> _OffsetFetchRequest:
        no_tags: dict[int, bytes] = {}
        topics = [(self._partition.topic, [self._partition.partition], no_tags)]
        return request_struct_class(self._group_id, topics, True, no_tags)


async def committed_offset(
    admin: AIOKafkaAdminClient, group_id: str, partition: TopicPartition, *, stable: bool
) -> OffsetAndMetadata:
    """Return the committed offset of a partition and its metadata; -1 where there is none.

    Waits for a coordinator that is not ready, and for a transaction that is about to replace the offset; put a time
    limit around it.

    Parameters
    ----------
    admin : AIOKafkaAdminClient
    group_id : str
    partition : TopicPartition
    stable : bool
        Wait for transactions; where the broker cannot (before Kafka 2.5), a warning is logged.

    Raises
    ------
    KafkaError
        When the coordinator refuses to say.
    """
    while True:
        try:
            if stable:
                found = await _fetch_stable(admin, group_id, partition)
            else:
                # An answer without the partition is an error that aiokafka drops, never "nothing committed": to take
                # it for that would begin from nowhere and lose the state.
                found = (await admin.list_consumer_group_offsets(group_id, partitions=[partition])).get(partition)
        except _NOT_READY:
            found = None
        except NotImplementedError:
            # What aiokafka raises when a broker knows no version of a request that it could send.
            _logger.warning("the brokers are older than Kafka 2.5: a crash may repeat predictions of its last moments")
            stable = False
            continue
        if found is not None:
            return found
        await asyncio.sleep(_RETRY_S)


async def _fetch_stable(
    admin: AIOKafkaAdminClient, group_id: str, partition: TopicPartition
) -> OffsetAndMetadata | None:
    coordinator_id = await admin.find_coordinator(group_id)
    request = _StableOffsetFetch(group_id, partition)
    response: Any = await admin._client.send(coordinator_id, request)  # noqa: SLF001 - the admin's API has no such flag
    _check(response.error_code, group_id)
    for _, partitions, _ in response.topics:
        for _, offset, _, metadata, error_code, _ in partitions:
            if error_code == _UNSTABLE_OFFSET_COMMIT:
                return None
            _check(error_code, group_id)
            return OffsetAndMetadata(offset, metadata)
    return None


def _check(error_code: int, group_id: str) -> None:
    if error_code:
        error: type[KafkaError] = for_code(error_code)
        raise error(f"reading the committed offset of group {group_id}")
