"""Our consumer gives what the client's own gives: the same records, and the same position after every call."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from confluent_kafka import Producer

from stream_fp.kafka.consumer import Consumer
from tests.conftest import TopicFactory

#: Small enough that a fetch brings a part of the topic only.
FETCH_BYTES = 20_000
N_RECORDS = 900


@pytest.fixture
async def mixed(broker: str, topic_factory: TopicFactory) -> TopicPartition:
    """A topic with committed, aborted and plain batches of all sizes, with compression and without, and null values."""
    topic = await topic_factory(1)
    rng = random.Random(3)
    for transactional, compression in ((True, None), (False, "gzip"), (True, "gzip"), (False, None)):
        producer = AIOKafkaProducer(
            bootstrap_servers=broker,
            transactional_id=f"{topic}-{compression}" if transactional else None,
            compression_type=compression,
        )
        async with producer:
            n_sent = 0
            while n_sent < N_RECORDS // 4:
                n = rng.randint(1, 40)
                if transactional:
                    await producer.begin_transaction()
                for i in range(n):
                    value = None if i % 17 == 16 else rng.randbytes(rng.randint(1, 300))
                    headers = [("n", str(i).encode()), ("none", None)] if i % 3 == 0 else []
                    await producer.send(topic, value, f"key {i}".encode() if i % 5 else None, 0, headers=headers)
                if transactional and rng.random() < 0.4:
                    await producer.flush()
                    await producer.abort_transaction()
                elif transactional:
                    await producer.commit_transaction()
                else:
                    await producer.flush()
                n_sent += n
    return TopicPartition(topic, 0)


@pytest.mark.parametrize("compression", ["gzip", "snappy", "lz4", "zstd"])
async def test_batches_that_another_client_compressed_are_read(
    broker: str, topic_factory: TopicFactory, compression: str
) -> None:
    partition = TopicPartition(await topic_factory(1), 0)
    values = [b"%d " % n * 100 for n in range(200)]
    producer = Producer({"bootstrap.servers": broker, "compression.type": compression, "linger.ms": 100})
    for value in values:
        producer.produce(partition.topic, value, partition=0)
    assert producer.flush(30) == 0
    async for consumer in reading(Consumer, broker, partition, "read_committed"):
        consumer.seek(partition, 0)
        found: list[bytes] = []
        async with asyncio.timeout(30):
            while len(found) < len(values):
                for records in (await consumer.getmany(partition, timeout_ms=500)).values():
                    found += [record.value for record in records]
    assert found == values


async def reading(
    kind: type[AIOKafkaConsumer], broker: str, partition: TopicPartition, isolation_level: str
) -> AsyncIterator[AIOKafkaConsumer]:
    consumer = kind(
        bootstrap_servers=broker,
        enable_auto_commit=False,
        auto_offset_reset="none",
        isolation_level=isolation_level,
        max_partition_fetch_bytes=FETCH_BYTES,
    )
    await consumer.start()
    try:
        consumer.assign([partition])
        yield consumer
    finally:
        await consumer.stop()


def told(record: Any) -> tuple[object, ...]:  # noqa: ANN401 - of either kind
    headers = [(name, value) for name, value in record.headers]
    return record.offset, record.timestamp, record.key, record.value, headers


async def read_on(consumer: AIOKafkaConsumer, partition: TopicPartition, end: int, rng: random.Random) -> list[Any]:
    """Read until the position is the end, in calls of any size, at times for nothing because the partition rests."""
    found: list[Any] = []
    while (position := await consumer.position(partition)) < end:
        if rng.random() < 0.1:
            consumer.pause(partition)
            assert not await consumer.getmany(partition, timeout_ms=20)
            assert await consumer.position(partition) == position
            consumer.resume(partition)
        n = rng.choice((1, 2, 7, 50, 500, None))
        records = (await consumer.getmany(partition, timeout_ms=200, max_records=n)).get(partition, [])
        assert n is None or len(records) <= n
        if records:
            assert records[0].offset >= position
            assert await consumer.position(partition) > records[-1].offset
        found += records
    return found


@pytest.mark.parametrize("isolation_level", ["read_committed", "read_uncommitted"])
@pytest.mark.parametrize("seed", range(3))
async def test_any_reading_gives_the_records_that_the_client_gives(
    broker: str, mixed: TopicPartition, isolation_level: str, seed: int
) -> None:
    found: list[list[tuple[object, ...]]] = []
    for kind in (AIOKafkaConsumer, Consumer):
        async for consumer in reading(kind, broker, mixed, isolation_level):
            (end,) = (await consumer.end_offsets([mixed])).values()
            rng = random.Random(seed)
            consumer.seek(mixed, 0)
            records = [told(record) for record in await read_on(consumer, mixed, end, rng)]
            # Again from the middle: of a batch, as nearly everywhere.
            for first in (end // 3, end // 2, end - 2):
                consumer.seek(mixed, first)
                records += [told(record) for record in await read_on(consumer, mixed, end, rng)]
            found.append(records)
    assert found[1] == found[0]
    assert len(found[0]) > N_RECORDS // 2


async def test_seek_while_records_are_left_over_leaves_them_behind(broker: str, mixed: TopicPartition) -> None:
    async for consumer in reading(Consumer, broker, mixed, "read_uncommitted"):
        consumer.seek(mixed, 0)
        records: list[Any] = []
        while not records:
            records = (await consumer.getmany(mixed, timeout_ms=200, max_records=3)).get(mixed, [])
        consumer.seek(mixed, records[0].offset)
        again: list[Any] = []
        while not again:
            again = (await consumer.getmany(mixed, timeout_ms=200, max_records=3)).get(mixed, [])
        assert [told(record) for record in again] == [told(record) for record in records]


async def test_results_that_were_handed_out_are_not_left_to_the_garbage_collector(
    broker: str, mixed: TopicPartition
) -> None:
    """They hold a fetch each, a megabyte as a rule."""
    import gc  # noqa: PLC0415
    import weakref  # noqa: PLC0415

    async for consumer in reading(Consumer, broker, mixed, "read_committed"):
        consumer.seek(mixed, 0)
        results: list[weakref.ref[Any]] = []
        (end,) = (await consumer.end_offsets([mixed])).values()
        gc.disable()
        try:
            while await consumer.position(mixed) < end:
                fetched = consumer._fetcher._records.get(mixed)
                if fetched is not None and (not results or results[-1]() is not fetched):
                    results.append(weakref.ref(fetched))
                del fetched
                await consumer.getmany(mixed, timeout_ms=200, max_records=50)
            alive = [result for result in results[:-1] if result() is not None]
        finally:
            gc.enable()
        assert len(results) > 2
        assert not alive
