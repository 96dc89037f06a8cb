"""The broker of the demo: librdkafka's mock cluster, spoken to by the clients of the service."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import uuid
from collections.abc import AsyncIterator

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient

from stream_fp.config import Settings
from stream_fp.kafka.clients import new_admin, new_consumer, new_producer
from stream_fp.kafka.embedded import embedded_broker
from stream_fp.kafka.progress import Progress, StartingPoint, find_starting_point
from stream_fp.kafka.publisher import Publisher
from stream_fp.kafka.told import last_told
from stream_fp.outcomes import Published
from tests.support.builders import make_prediction, record

TOPICS = ("session-events", "session-fingerprints", "session-events-dlq")
PARTITION = TopicPartition("session-events", 0)


@pytest.fixture
async def settings() -> AsyncIterator[Settings]:
    # Starting it blocks for a moment.
    with contextlib.ExitStack() as stack:
        address = await asyncio.to_thread(stack.enter_context, embedded_broker(*TOPICS))
        yield Settings(bootstrap_servers=address, group_id=f"group-{uuid.uuid4().hex[:8]}", delivery="at-least-once")


@pytest.fixture
async def admin(settings: Settings) -> AsyncIterator[AIOKafkaAdminClient]:
    admin = new_admin(settings)
    await admin.start()
    yield admin
    await admin.close()


@pytest.fixture
async def consumer(settings: Settings) -> AsyncIterator[AIOKafkaConsumer]:
    consumer = new_consumer(settings)
    await consumer.start()
    consumer.assign([PARTITION])
    consumer.seek(PARTITION, 0)
    yield consumer
    await consumer.stop()


async def read(consumer: AIOKafkaConsumer, n_records: int) -> list[tuple[bytes, bytes]]:
    found: list[tuple[bytes, bytes]] = []
    async with asyncio.timeout(30):
        while len(found) < n_records:
            for records in (await consumer.getmany(timeout_ms=200)).values():
                found += [(record.key, record.value) for record in records]
    return found


async def starting_point(settings: Settings, consumer: AIOKafkaConsumer, admin: AIOKafkaAdminClient) -> StartingPoint:
    return await find_starting_point(
        consumer, admin, group_id=settings.group_id, partition=PARTITION, start_from="earliest", offset_lost="fail",
        last_told=lambda: last_told(settings, PARTITION, n_output_partitions=4),
    )  # fmt: skip


async def test_topics_are_there_from_the_start(admin: AIOKafkaAdminClient) -> None:
    assert sorted(await admin.list_topics()) == sorted(TOPICS)
    for topic in await admin.describe_topics(list(TOPICS)):
        assert len(topic["partitions"]) >= 1


async def test_records_are_read_as_they_were_produced(settings: Settings, consumer: AIOKafkaConsumer) -> None:
    sent = [(f"key-{i % 3}".encode(), f"value-{i}".encode()) for i in range(500)]
    async with new_producer(settings, None) as producer:
        for key, value in sent:
            await producer.send(PARTITION.topic, value, key=key, partition=PARTITION.partition)
        await producer.flush()
    assert await read(consumer, len(sent)) == sent


async def test_outcomes_and_progress_at_least_once_are_there_for_the_next_owner(
    settings: Settings, consumer: AIOKafkaConsumer, admin: AIOKafkaAdminClient
) -> None:
    assert (await starting_point(settings, consumer, admin)).fingerprint is None
    async with new_producer(settings, None) as producer:
        for _ in range(7):
            await producer.send_and_wait(PARTITION.topic, b"{}", key=b"A", partition=PARTITION.partition)
    note = Progress(published=7, watermark_us=5, fingerprint="0123456789abcdef")
    made = Published(
        record=record(6, {"session_id": "A"}), key=b"A", prediction=make_prediction(), extraction_ns=0,
        classification_ns=0,
    )  # fmt: skip
    publisher = Publisher(settings, PARTITION, n_output_partitions=4, consumer=consumer)
    await publisher.start()
    await publisher.publish([made], low_offset=0, progress=note)
    await publisher.aclose()

    assert await starting_point(settings, consumer, admin) == StartingPoint(
        low_offset=0, published_offset=7, watermark_us=5, fingerprint="0123456789abcdef"
    )
    consumer.assign([TopicPartition(settings.output_topic, 0)])
    consumer.seek(TopicPartition(settings.output_topic, 0), 0)
    ((key, _),) = await read(consumer, 1)
    assert key == b"A"


async def test_member_of_a_group_gets_the_partitions_and_its_commit_stays(
    settings: Settings, admin: AIOKafkaAdminClient
) -> None:
    member = new_consumer(settings)
    member.subscribe([PARTITION.topic])
    await member.start()
    try:
        async with asyncio.timeout(30):
            while PARTITION not in member.assignment():
                await asyncio.sleep(0.02)
        await member.commit({PARTITION: (0, "a note")})
        offsets = await admin.list_consumer_group_offsets(settings.group_id, partitions=[PARTITION])
        assert (offsets[PARTITION].offset, offsets[PARTITION].metadata) == (0, "a note")
    finally:
        await member.stop()


def test_broker_is_gone_when_the_context_ends() -> None:
    before = threading.active_count()
    with embedded_broker("events") as address:
        host, port = address.split(":")
        with socket.create_connection((host, int(port)), timeout=5):
            pass
    with pytest.raises(ConnectionRefusedError), socket.create_connection((host, int(port)), timeout=5):
        pass
    assert threading.active_count() == before


def test_broker_ends_cleanly_when_what_used_it_fails() -> None:
    addresses: list[str] = []

    def fail() -> None:
        with embedded_broker("events") as address:
            addresses.append(address)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    host, port = addresses[0].split(":")
    with pytest.raises(ConnectionRefusedError), socket.create_connection((host, int(port)), timeout=5):
        pass


def test_two_brokers_at_a_time_do_not_know_each_other() -> None:
    with embedded_broker("a") as one, embedded_broker("b") as other:
        assert one != other
