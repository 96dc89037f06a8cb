"""A long recorded history on a real broker: published once, at the times of its events, and served by the service."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from confluent_kafka import Producer

from stream_fp.times import absolute_us
from tests.support.service import running_service
from tests.support.topics import consumed_up_to_end

__all__ = ["new_history", "publish_history", "serve"]

#: Old time stamps must not be swept away.
_KEPT = {"retention.ms": "-1"}
_IN_FLIGHT = 50_000


async def new_history(broker: str, name: str, n_partitions: int, messages: Iterable[Mapping[str, Any]]) -> str:
    """Create a topic that keeps everything, and publish messages to it; return its name."""
    topic = f"{name}-{uuid.uuid4().hex[:8]}"
    admin = AIOKafkaAdminClient(bootstrap_servers=broker)
    await admin.start()
    try:
        await admin.create_topics([NewTopic(topic, n_partitions, 1, topic_configs=_KEPT)])
    finally:
        await admin.close()
    await asyncio.to_thread(publish_history, broker, topic, messages)
    return topic


def publish_history(broker: str, topic: str, messages: Iterable[Mapping[str, Any]]) -> None:
    """Publish messages with another client than the one that reads them, at the times of their events."""
    producer = Producer({"bootstrap.servers": broker, "enable.idempotence": True, "linger.ms": 20, "log_level": 0})
    time_ms = 0
    for message in messages:
        stamp = message.get("timestamp")
        if stamp is not None and (time_us := absolute_us(stamp)) is not None:
            time_ms = time_us // 1000
        while len(producer) >= _IN_FLIGHT:
            producer.poll(0.05)
        key = str(message["session_id"]).encode()
        producer.produce(topic, value=msgspec.json.encode(message), key=key, timestamp=time_ms)
    assert producer.flush(60) == 0


async def serve(broker: str, topic: str, model: Path, log: Path, *arguments: str) -> str:
    """Let the live service work through a topic; return the topic of its predictions."""
    output_topic = f"{topic}-out"
    async with running_service(
        log, "--session-fingerprinting", "--bootstrap-servers", broker, "--input-topic", topic,
        "--output-topic", output_topic, "--dead-letter-topic", f"{topic}-dlq", "--group-id", f"group-{topic}",
        "--model-path", str(model), "--sidecar-dir", "", *arguments,
    ) as service:  # fmt: skip
        await service.wait_ready()
        await consumed_up_to_end(service, timeout_s=150)
        assert await service.terminate() == 0, service.output()
    return output_topic
