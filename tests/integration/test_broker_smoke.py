"""Is the broker a real one? Exactly-once rests on what is checked here, and a mock lets some of it slip."""

from __future__ import annotations

import contextlib
import uuid
from typing import TYPE_CHECKING, Any

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import GroupCoordinatorNotAvailableError
from aiokafka.structs import OffsetAndMetadata

if TYPE_CHECKING:
    from tests.conftest import TopicFactory

pytestmark = pytest.mark.broker

COMMITTED = [b"one", b"two", b"three"]
ABORTED = [b"four", b"five", b"six"]


async def test_committed_and_aborted_transactions_only_the_first_is_read(
    broker: str, topic_factory: TopicFactory
) -> None:
    source = TopicPartition(await topic_factory(prefix="source"), 0)
    output = TopicPartition(await topic_factory(prefix="output"), 0)
    group = f"group-{uuid.uuid4().hex[:12]}"
    # Some letters beyond ASCII: the metadata string travels as UTF-8.
    first = OffsetAndMetadata(17, '{"position": 23, "note": "bis später"}')

    transactional_id = f"{group}-0"
    async with AIOKafkaProducer(bootstrap_servers=broker, transactional_id=transactional_id) as producer:
        async with producer.transaction():
            for value in COMMITTED:
                await producer.send_and_wait(output.topic, value, partition=0)
            await producer.send_offsets_to_transaction({source: first}, group)
        await producer.begin_transaction()
        for value in ABORTED:
            await producer.send_and_wait(output.topic, value, partition=0)
        await producer.send_offsets_to_transaction({source: OffsetAndMetadata(99, "never")}, group)
        await producer.abort_transaction()
    # A transaction has ended for its producer some milliseconds before its end can be read. The next producer of
    # the same id is told to wait for that; only afterwards do offsets and records tell the truth.
    async with AIOKafkaProducer(bootstrap_servers=broker, transactional_id=transactional_id):
        pass

    assert await read_to_end(broker, output, "read_committed") == COMMITTED
    assert await read_to_end(broker, output, "read_uncommitted") == COMMITTED + ABORTED
    assert await committed_offsets(broker, group, [source]) == {source: first}


async def test_group_without_commits_lists_minus_one(broker: str, topic_factory: TopicFactory) -> None:
    source = TopicPartition(await topic_factory(), 0)

    offsets = await committed_offsets(broker, f"group-{uuid.uuid4().hex[:12]}", [source])

    assert offsets == {source: OffsetAndMetadata(-1, "")}


async def read_to_end(broker: str, partition: TopicPartition, isolation_level: str) -> list[bytes]:
    """Read all that the isolation level lets through, past the markers that end each transaction."""
    async with AIOKafkaConsumer(
        bootstrap_servers=broker, isolation_level=isolation_level, auto_offset_reset="earliest"
    ) as consumer:
        consumer.assign([partition])
        end = (await consumer.end_offsets([partition]))[partition]
        values: list[bytes] = []
        while await consumer.position(partition) < end:
            batches = await consumer.getmany(timeout_ms=200)
            values += [record.value for records in batches.values() for record in records]
        return values


async def committed_offsets(broker: str, group: str, partitions: list[TopicPartition]) -> dict[Any, Any]:
    """Ask until the group's coordinator has answered for each partition.

    On a new cluster the first question creates the topic that holds the answers, and fails. A coordinator that is
    not ready yet sends an error for the group as a whole, which aiokafka 0.14 drops: the answer is then empty.
    """
    admin = AIOKafkaAdminClient(bootstrap_servers=broker)
    await admin.start()
    try:
        offsets: dict[Any, Any] = {}
        while offsets.keys() != set(partitions):
            with contextlib.suppress(GroupCoordinatorNotAvailableError):
                offsets = await admin.list_consumer_group_offsets(group, partitions=partitions)
    finally:
        await admin.close()
    return offsets
