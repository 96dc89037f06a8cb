"""While the broker is away: publishing gives up in time and leaves nothing behind; a service does not wait for ever.

On a broker of its own, since it is killed.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from pathlib import Path
from typing import Any

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
from tests.support.builders import SESSION_ID, Record, write_tiny_library
from tests.support.service import running_service
from tests.support.solo import Setup, events, not_ready
from tests.support.topics import consumed

PARTITION = TopicPartition("events", 0)
#: `broker.session.timeout.ms` of the tests' brokers, and time for the others to hear of it.
_FENCED_AFTER_S = 8.0


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


async def test_output_topic_with_too_few_replicas_holds_the_partition_until_they_are_back(
    cluster: Cluster, tmp_path: Path
) -> None:
    kafka = cluster(3)
    setup = Setup(
        broker=kafka.bootstrap_servers, topic="events", output_topic="out", model=write_tiny_library(tmp_path / "v"),
        log=tmp_path / "log",
    )  # fmt: skip
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap_servers)
    await admin.start()
    await admin.create_topics([NewTopic(setup.topic, 1, 3)])
    await admin.create_topics([NewTopic("out", 1, 3, topic_configs={"min.insync.replicas": "3"})])
    described: list[dict[str, Any]] = []
    while not described or not all(topic["partitions"] for topic in described):
        described = await admin.describe_topics(["out", setup.topic])
    leaders = {topic["partitions"][0]["leader"] for topic in described}
    await admin.close()
    # One that leads neither, so that nothing is amiss but its copy.
    victim = next(node_id for node_id in kafka.node_ids if node_id not in leaders)
    patience = ("--transaction-timeout-s", "4", "--request-timeout-s", "4")
    async with running_service(setup.log, *setup.arguments, *patience) as service:
        await service.wait_ready()
        await setup.publish(*events(0, 20))
        await consumed(service, 20)
        await asyncio.to_thread(kafka.kill, victim)
        await asyncio.sleep(_FENCED_AFTER_S)  # until then the broker counts as one that is in step
        await setup.publish(*events(20, 60))
        await not_ready(service, "starting over after")
        assert await service.total("stream_fp_predictions_total") == 0
        await asyncio.to_thread(kafka.restart, victim)
        await service.wait_ready()
        async with asyncio.timeout(60):
            while not await setup.predictions():
                await asyncio.sleep(0.2)
        assert await service.terminate() == 0
    assert await setup.predictions() == [(SESSION_ID, 30.0, "0.0.1")]
    assert "Traceback" not in service.output()
