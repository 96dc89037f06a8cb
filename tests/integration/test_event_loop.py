"""The service never blocks its event loop: heartbeats and the other partitions depend on it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from aiokafka import AIOKafkaProducer
from blockbuster import blockbuster_ctx

from offline.simulate import interleave, simulate_sessions
from stream_fp.config import Settings
from stream_fp.service import Service
from tests.conftest import TopicFactory
from tests.support.builders import write_tiny_library


@pytest.fixture
def blocking_calls_fail() -> Iterator[None]:
    with blockbuster_ctx("stream_fp") as blockbuster:
        for call in blockbuster.functions.values():
            # A zone's file, a few kilobytes, is read once in the life of a process.
            call.can_block_in("stream_fp/times.py", "zone_of")
        yield


@pytest.mark.usefixtures("blocking_calls_fail")
async def test_service_at_work_makes_no_blocking_call_on_the_loop(
    broker: str, topic_factory: TopicFactory, tmp_path: Path
) -> None:
    topic = await topic_factory(2)
    settings = Settings(
        enabled=True,
        bootstrap_servers=broker,
        group_id=f"group-{topic}",
        input_topic=topic,
        output_topic=await topic_factory(2, prefix="fingerprints"),
        dead_letter_topic=await topic_factory(1, prefix="dlq"),
        model_path=str(await asyncio.to_thread(write_tiny_library, tmp_path / "v0.0.1")),
        sidecar_dir=str(tmp_path / "sidecars"),
        minidash_path=str(tmp_path / "minidash.html"),
        http_host="127.0.0.1",
        http_port=0,
        commit_interval_s=0.1,
    )
    messages = list(interleave(simulate_sessions(14, seed=5)))
    stop = asyncio.Event()
    async with asyncio.timeout(60), Service(settings) as service:
        running = asyncio.create_task(service.run(stop))
        async with AIOKafkaProducer(bootstrap_servers=broker) as producer:
            for message in messages:
                await producer.send(topic, key=message["session_id"].encode(), value=msgspec.json.encode(message))
            await producer.send(topic, key=b"S", value=b"{")
        while sum(view.counts.consumed for view in service.views()) <= len(messages):
            assert not running.done(), running.result()
            await asyncio.sleep(0.05)
        stop.set()
        await running
    assert len(await asyncio.to_thread(sidecars_in, tmp_path)) >= 5


def sidecars_in(folder: Path) -> list[Path]:
    return list(folder.glob("sidecars/*/session_fingerprint.json"))
