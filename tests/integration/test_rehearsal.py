"""Rehearsals on a real broker: what was recorded comes again as it was, and says the same."""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import uuid
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiokafka import AIOKafkaProducer, ConsumerRecord, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from blockbuster import blockbuster_ctx

from offline.simulate import interleave, simulate_sessions
from stream_fp.config import Settings
from stream_fp.errors import ConfigError, ServiceError, TopicMissingError
from stream_fp.kafka.clients import new_admin
from stream_fp.kafka.history import Span, TopicHistory
from stream_fp.kafka.topics import topic_layouts
from stream_fp.replay.rehearsal import rehearse_files, rehearse_topics
from tests.conftest import TopicFactory
from tests.support.builders import SESSION_ID, event, write_tiny_library
from tests.support.service import running_service
from tests.support.topics import LARGE, consumed_up_to_end, publish_all, read_all

Content = dict[int, list[tuple[bytes | None, bytes | None, tuple[tuple[str, bytes], ...]]]]


@pytest.fixture
async def output(broker: str) -> AsyncIterator[str]:
    """A name that no topic has; the topic is deleted where the test makes it."""
    name = f"rehearsed-{uuid.uuid4().hex[:12]}"
    yield name
    admin = new_admin(Settings(bootstrap_servers=broker))
    await admin.start()
    if name in await admin.list_topics():
        await admin.delete_topics([name])
    await admin.close()


def content(records: Sequence[ConsumerRecord]) -> Content:
    by_partition: Content = defaultdict(list)
    for record in records:
        by_partition[record.partition].append((record.key, record.value, tuple(record.headers)))
    return by_partition


async def spans_of(settings: Settings) -> list[Span]:
    async with TopicHistory(settings) as history:
        return await history.spans()


def simulated(n_sessions: int, seed: int) -> list[tuple[bytes, bytes]]:
    messages = interleave(simulate_sessions(n_sessions, seed=seed))
    return [(message["session_id"].encode(), msgspec.json.encode(message)) for message in messages]


async def test_topic_comes_again_as_it_was(broker: str, topic_factory: TopicFactory, output: str) -> None:
    topic = await topic_factory(3, settings={"max.message.bytes": str(LARGE)})
    settings = Settings(bootstrap_servers=broker, input_topic=topic)
    rng = random.Random(5)
    odd: list[tuple[bytes | None, bytes | None]] = [
        (b"tombstone", None), (None, None), (None, b"no key"), (b"", b""), (b"broken", b'{"timestamp": '),
        (b"\xff\x00", rng.randbytes(50)), (b"large", rng.randbytes(1_500_000)),
    ]  # fmt: skip
    async with AIOKafkaProducer(bootstrap_servers=broker, max_request_size=LARGE) as producer:
        for number, (key, value) in enumerate(itertools.chain(simulated(10, seed=2), odd)):
            headers = [("n", str(number).encode()), ("n", b"")] if number % 3 else []
            batch = producer.create_batch()  # the client's `send` takes no record without key and value
            batch.append(timestamp=number + 1, key=key, value=value, headers=headers)
            await producer.send_batch(batch, topic, partition=number % 3)
    before, ends = content(await read_all(broker, topic)), await spans_of(settings)
    calls: list[tuple[int, int]] = []

    summary = await rehearse_topics(
        settings, ends, output_topic=output, speed=None, progress=lambda *call: calls.append(call)
    )

    assert content(await read_all(broker, output)) == before
    assert content(await read_all(broker, topic)) == before
    assert await spans_of(settings) == ends
    n_records = sum(map(len, before.values()))
    assert (summary.n_records, summary.n_partitions, summary.n_sources) == (n_records, 3, 3)
    assert calls[-1] == (n_records, n_records)
    assert calls == sorted(calls)
    admin = new_admin(settings)
    await admin.start()
    assert (await topic_layouts(admin))[output] == (3, 1)
    await admin.close()


async def test_markers_and_aborted_records_of_transactions_are_left_behind(
    broker: str, topic_factory: TopicFactory
) -> None:
    topic, output = await topic_factory(1), await topic_factory(1)
    async with AIOKafkaProducer(bootstrap_servers=broker, transactional_id=f"tx-{topic}") as producer:
        for number in range(6):
            await producer.begin_transaction()
            for part in range(2):
                await producer.send_and_wait(topic, key=b"k", value=f"{number} {part}".encode())
            await (producer.abort_transaction() if number % 3 == 2 else producer.commit_transaction())
    settings = Settings(bootstrap_servers=broker, input_topic=topic)
    summary = await rehearse_topics(settings, await spans_of(settings), output_topic=output, speed=None)
    expected = [f"{number} {part}".encode() for number in (0, 1, 3, 4) for part in range(2)]
    assert [record.value for record in await read_all(broker, output)] == expected
    assert summary.n_records == len(expected)


async def test_only_the_spans_come_again(broker: str, topic_factory: TopicFactory, output: str) -> None:
    topic = await topic_factory(1)
    await publish_all(broker, topic, ((b"k", str(number).encode()) for number in range(5_000)))
    span = Span(partition=TopicPartition(topic, 0), first=1_234, end=4_321)
    settings = Settings(bootstrap_servers=broker, input_topic=topic)
    await rehearse_topics(settings, [span], output_topic=output, speed=None)
    expected = [str(number).encode() for number in range(1_234, 4_321)]
    assert [record.value for record in await read_all(broker, output)] == expected


async def test_topic_of_fewer_partitions_keeps_the_order_of_each_key(broker: str, topic_factory: TopicFactory) -> None:
    topic, output, by_client = await topic_factory(4), await topic_factory(3), await topic_factory(3)
    records = simulated(12, seed=4)
    await publish_all(broker, topic, records)
    await publish_all(broker, by_client, records)
    settings = Settings(bootstrap_servers=broker, input_topic=topic)
    await rehearse_topics(settings, await spans_of(settings), output_topic=output, speed=None)
    found, expected = await read_all(broker, output), await read_all(broker, by_client)
    assert by_key(found) == by_key(expected)


def by_key(records: Sequence[ConsumerRecord]) -> dict[bytes, list[tuple[int, bytes]]]:
    found: dict[bytes, list[tuple[int, bytes]]] = defaultdict(list)
    for record in records:
        found[record.key].append((record.partition, record.value))
    return found


async def test_several_topics_become_one(broker: str, topic_factory: TopicFactory, output: str) -> None:
    records = simulated(8, seed=6)
    keys = sorted({key for key, _ in records})
    spans: list[Span] = []
    for keys_of_topic in (set(keys[::2]), set(keys[1::2])):
        topic = await topic_factory(2)
        await publish_all(broker, topic, [record for record in records if record[0] in keys_of_topic])
        spans += await spans_of(Settings(bootstrap_servers=broker, input_topic=topic))
    summary = await rehearse_topics(Settings(bootstrap_servers=broker), spans, output_topic=output, speed=None)
    assert (summary.n_sources, summary.n_partitions) == (4, 2)
    found = by_key(await read_all(broker, output))
    for key in keys:
        assert [value for _, value in found[key]] == [value for one, value in records if one == key]


async def test_service_says_the_same_of_the_rehearsal(
    broker: str, topic_factory: TopicFactory, output: str, tmp_path: Path
) -> None:
    topic = await topic_factory(3)
    await publish_all(broker, topic, simulated(28, seed=3))
    model = write_tiny_library(tmp_path / "v0.0.1")

    async def predictions(read: str) -> Content:
        made = await topic_factory(3, prefix="fingerprints")
        arguments = (
            "--session-fingerprinting", "--bootstrap-servers", broker, "--input-topic", read, "--output-topic", made,
            "--dead-letter-topic", await topic_factory(3, prefix="dlq"), "--group-id", f"group-{read}",
            "--model-path", str(model), "--sidecar-dir", "",
        )  # fmt: skip
        async with running_service(tmp_path / read, *arguments) as service:
            await service.wait_ready()
            await consumed_up_to_end(service)
            assert await service.terminate() == 0, service.output()
        return {
            partition: [(key, value, ()) for key, value, _ in records]
            for partition, records in content(await read_all(broker, made)).items()
        }

    original = await predictions(topic)
    settings = Settings(bootstrap_servers=broker, input_topic=topic)
    offsets = await committed(broker, f"group-{topic}", topic)
    await rehearse_topics(settings, await spans_of(settings), output_topic=output, speed=100_000.0)
    assert await predictions(output) == original
    assert sum(map(len, original.values())) > 10
    assert await committed(broker, f"group-{topic}", topic) == offsets


async def committed(broker: str, group: str, topic: str) -> dict[Any, Any]:
    admin = AIOKafkaAdminClient(bootstrap_servers=broker)
    await admin.start()
    partitions = [TopicPartition(topic, number) for number in range(3)]
    try:
        found: dict[Any, Any] = await admin.list_consumer_group_offsets(group, partitions=partitions)
        return found
    finally:
        await admin.close()


async def test_files_come_in_the_order_of_their_events(
    broker: str, topic_factory: TopicFactory, tmp_path: Path
) -> None:
    output = await topic_factory(1)
    records = simulated(12, seed=8)
    keys = sorted({key for key, _ in records})
    files = []
    for number, key in enumerate(keys):
        files.append(tmp_path / f"{number}.jsonl")
        files[-1].write_bytes(b"\n".join(value for one, value in records if one == key))
    # What the default of `input_topic` names need not exist.
    settings = Settings(bootstrap_servers=broker, input_topic=f"none-{output}")
    calls: list[tuple[int, int]] = []
    summary = await rehearse_files(
        settings, files, output_topic=output, speed=None, progress=lambda *call: calls.append(call)
    )
    found = [record.value for record in await read_all(broker, output)]
    assert sorted(found) == sorted(value for _, value in records)
    times = [json.loads(value)["timestamp"] for value in found if b'"kind"' not in value]
    assert len(times) > 500
    assert times == sorted(times)
    assert (summary.n_records, summary.n_sources, calls[-1]) == (len(records), len(files), (len(files), len(files)))


async def test_nothing_blocks_the_loop(broker: str, topic_factory: TopicFactory, tmp_path: Path) -> None:
    topic, output = await topic_factory(2), await topic_factory(2)
    records = simulated(6, seed=8)
    await publish_all(broker, topic, records)
    path = tmp_path / "events.jsonl"
    path.write_bytes(b"\n".join(value for _, value in records))
    settings = Settings(bootstrap_servers=broker, input_topic=topic)
    spans = await spans_of(settings)
    with blockbuster_ctx("stream_fp"):
        await rehearse_topics(settings, spans, output_topic=output, speed=None)
        await rehearse_files(settings, [path], output_topic=output, speed=None)
    assert len(await read_all(broker, output)) == 2 * len(records)


async def test_stop_publishes_what_was_due_and_says_how_far_it_came(
    broker: str, topic_factory: TopicFactory, tmp_path: Path
) -> None:
    output = await topic_factory(1)
    path = tmp_path / "events.jsonl"
    path.write_text("\n".join(json.dumps(event(minute=minute)) for minute in (0, 0, 0, 600)))
    said: list[str] = []
    told = asyncio.Event()

    def say(line: str) -> None:
        said.append(line)
        told.set()

    rehearsal = asyncio.create_task(
        rehearse_files(Settings(bootstrap_servers=broker), [path], output_topic=output, speed=1.0, say=say)
    )
    async with asyncio.timeout(30):
        await told.wait()
    rehearsal.cancel()
    with pytest.raises(asyncio.CancelledError):
        await rehearsal
    assert said[0].startswith("next: event time 2025-07-29T23:30:00.000000 UTC, in ")
    assert said[1] == (
        f"rehearsal stopped after 3 records on topic {output}, up to event time 2025-07-29T13:30:00.000000 UTC"
    )
    assert [record.key for record in await read_all(broker, output)] == [SESSION_ID.encode()] * 3


async def test_topic_that_is_read_is_never_written_to(broker: str, topic_factory: TopicFactory) -> None:
    topic = await topic_factory(1)
    await publish_all(broker, topic, [(b"k", b"v")])
    settings = Settings(bootstrap_servers=broker)
    span = Span(partition=TopicPartition(topic, 0), first=0, end=1)
    with pytest.raises(ConfigError, match="expected a topic that is not read"):
        await rehearse_topics(settings, [span], output_topic=topic, speed=None)
    assert len(await read_all(broker, topic)) == 1


async def test_missing_topics_are_refused_and_not_made(broker: str, topic_factory: TopicFactory, output: str) -> None:
    topic = await topic_factory(1)
    settings = Settings(bootstrap_servers=broker, create_topics=False)
    known, unknown = (Span(partition=TopicPartition(name, 0), first=0, end=1) for name in (topic, f"no-{topic}"))
    with pytest.raises(TopicMissingError, match=f"`{output}`.*`output_topic`"):
        await rehearse_topics(settings, [known], output_topic=output, speed=None)
    with pytest.raises(TopicMissingError, match=f"`no-{topic}`"):
        await rehearse_topics(Settings(bootstrap_servers=broker), [unknown], output_topic=output, speed=None)
    admin = new_admin(settings)
    await admin.start()
    assert not {output, f"no-{topic}"} & set(await admin.list_topics())
    await admin.close()


async def test_record_that_the_topic_refuses_ends_it_with_a_clear_error(
    broker: str, topic_factory: TopicFactory, tmp_path: Path
) -> None:
    output = await topic_factory(1, settings={"max.message.bytes": "10000"})
    path = tmp_path / "events.jsonl"
    path.write_text(json.dumps(event(event_type="x" * 50_000)))
    with pytest.raises(
        ServiceError, match=f"publishing to topic `{output}` ended after 0 records: MessageSizeTooLarge"
    ):
        await rehearse_files(Settings(bootstrap_servers=broker), [path], output_topic=output, speed=None)
    small = Settings(bootstrap_servers=broker, max_request_bytes=20_000)
    with pytest.raises(ServiceError, match=r"events\.jsonl:1: expected a record of at most 20000 bytes"):
        await rehearse_files(small, [path], output_topic=output, speed=None)


async def test_brokers_that_are_not_there_are_told_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_text(json.dumps(event()))
    with pytest.raises(ServiceError, match="cannot publish to topic `t` at localhost:1 "):
        await rehearse_files(Settings(bootstrap_servers="localhost:1"), [path], output_topic="t", speed=None)
