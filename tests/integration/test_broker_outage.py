"""While the broker is away: publishing gives up in time and leaves nothing behind; a service does not wait for ever.

On a broker of its own, since it is killed.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from pathlib import Path

import pytest
from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import KafkaError

from stream_fp.config import Settings
from stream_fp.kafka.clients import new_admin, new_consumer
from stream_fp.kafka.offsets import committed_offset
from stream_fp.kafka.progress import Progress
from stream_fp.kafka.publisher import Publisher
from stream_fp.outcomes import DeadLetter
from tests.conftest import Cluster
from tests.support.builders import Record, write_tiny_library
from tests.support.service import running_service

PARTITION = TopicPartition("events", 0)


class LetterRecord(Record):
    """A record with what only a client's has."""

    headers: tuple[tuple[str, bytes], ...] = ()
    timestamp: int = 1_600_000_000_000


async def test_publisher_without_a_broker_gives_up_in_time_and_leaves_no_task_behind(cluster: Cluster) -> None:
    kafka = cluster()
    settings = Settings(
        bootstrap_servers=kafka.bootstrap_servers, input_topic="events", output_topic="out", dead_letter_topic="dlq",
        transaction_timeout_s=3.0, request_timeout_s=3.0,
    )  # fmt: skip
    async with contextlib.AsyncExitStack() as stack:
        admin, consumer = new_admin(settings), new_consumer(settings)
        stack.push_async_callback(admin.close)
        stack.push_async_callback(consumer.stop)
        await admin.start()
        await admin.create_topics([NewTopic(topic, 1, 1) for topic in ("events", "out", "dlq")])
        await consumer.start()
        letter = DeadLetter(record=LetterRecord(0, b"k", b"{"), stage="decode", error_class="E", message="m")

        def progress(published: int) -> Progress:
            return Progress(published=published, watermark_us=None, fingerprint="f")

        def publisher() -> Publisher:
            return Publisher(settings, PARTITION, n_output_partitions=1, consumer=consumer)

        before = asyncio.all_tasks()
        first = publisher()
        await first.start()
        await first.publish([letter], 0, progress(1))
        await asyncio.to_thread(kafka.kill)
        started_s = time.monotonic()
        with pytest.raises((KafkaError, TimeoutError)):
            await first.publish([letter], 0, progress(2))
        await first.abandon()
        assert time.monotonic() - started_s < 3.0 + 3.0
        async with asyncio.timeout(10):
            while {task for task in asyncio.all_tasks() - before if "aiokafka/producer" in repr(task.get_coro())}:
                await asyncio.sleep(0.05)
        with pytest.raises((KafkaError, TimeoutError)):
            await publisher().start()

        await asyncio.to_thread(kafka.restart)
        second = publisher()
        await second.start()
        async with asyncio.timeout(20):
            found = await committed_offset(admin, settings.group_id, PARTITION, stable=True)
        assert '"published":1' in found.metadata  # what was never committed is gone
        await second.publish([letter], 0, progress(2))
        await second.aclose()


async def test_service_whose_broker_stays_away_says_so_and_ends(cluster: Cluster, tmp_path: Path) -> None:
    kafka = cluster()
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap_servers)
    await admin.start()
    await admin.create_topics([NewTopic("session-events", 2, 1)])
    await admin.close()
    arguments = (
        "--session-fingerprinting", "--bootstrap-servers", kafka.bootstrap_servers, "--sidecar-dir", "",
        "--model-path", str(write_tiny_library(tmp_path / "v0.0.1")), "--request-timeout-s", "2",
        "--stall-timeout-s", "4", "--stall-exit-s", "10",
    )  # fmt: skip
    async with running_service(tmp_path / "log", *arguments) as service:
        await service.wait_ready()
        assert (await service.get("/healthz"))[0] == 200
        await asyncio.to_thread(kafka.kill)
        said = set()
        async with asyncio.timeout(60):
            while service.process.returncode is None:
                status, body = await service.get("/healthz")
                said |= {body.partition(" for ")[0]} if status == 503 else set()
                await asyncio.sleep(0.1)
        assert service.process.returncode == 1
        assert said == {"service: no broker has said whether records wait"}
        assert "giving up after 10 s (setting `stall_exit_s`)" in service.output().strip().splitlines()[-1]
        assert "Traceback" not in service.output()
