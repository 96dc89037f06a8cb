"""Topics of the benchmarks' own: made, filled, and deleted afterwards."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import AsyncIterator, Sequence

from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from stream_fp.files import FileRecord

__all__ = ["filled_topic"]


@contextlib.asynccontextmanager
async def filled_topic(name: str, servers: str, records: Sequence[FileRecord]) -> AsyncIterator[TopicPartition]:
    """Yield the one partition of a topic that holds the records; the topic is deleted afterwards."""
    topic = f"{name}-{uuid.uuid4().hex[:12]}"
    admin = AIOKafkaAdminClient(bootstrap_servers=servers)
    producer = AIOKafkaProducer(bootstrap_servers=servers, acks="all", linger_ms=5, max_batch_size=2**17)
    await admin.start()
    try:
        await admin.create_topics([NewTopic(topic, 1, 1)])
        try:
            await producer.start()
            for record in records:
                await producer.send(topic, record.value, record.key, partition=0)
        finally:
            await producer.stop()  # sends what is left
        yield TopicPartition(topic, 0)
    finally:
        await admin.delete_topics([topic])
        await admin.close()
