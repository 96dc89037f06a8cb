"""The whole job on a real broker: documents in, predictions, sidecars and dead letters out, by a separate process."""

from __future__ import annotations

import asyncio
import itertools
import random
import socket
import uuid
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest
from aiokafka import ConsumerRecord

from offline.simulate import interleave, simulate_sessions
from stream_fp.config import Settings
from stream_fp.documents import adapt_document
from stream_fp.files import find_files, read_document
from stream_fp.loading import load_classifier
from stream_fp.replay.files import replay_files
from stream_fp.sinks.sidecar import SIDECAR_NAME
from tests.conftest import TopicFactory
from tests.support.builders import write_tiny_library
from tests.support.service import running_service
from tests.support.topics import LARGE, Keyed, consumed, consumed_up_to_end, publish_all, read_all

SESSION = b"NY_AM_2025-07-29"
BAD: dict[str, Keyed] = {
    "broken JSON": (SESSION, b'{"timestamp": "2025-07-29T'),
    "not an object": (SESSION, b"[1, 2]"),
    "wrong type": (SESSION, b'{"timestamp":"2025-07-29T14:35:00","event_type":"expansion","price":"high"}'),
    "NaN price": (SESSION, b'{"timestamp":"2025-07-29T14:35:00","event_type":"expansion","price":NaN}'),
    "infinite price": (SESSION, b'{"timestamp":"2025-07-29T14:35:00","event_type":"expansion","price":1e999}'),
    "missing field": (SESSION, b'{"timestamp":"2025-07-29T14:35:00","price":1.0}'),
    "missing key": (None, b'{"timestamp":"2025-07-29T14:35:00","event_type":"expansion","price":1.0}'),
    "other key": (SESSION, b'{"session_id":"LONDON_2025-07-29","timestamp":"x","event_type":"e","price":1.0}'),
    "unknown kind": (SESSION, b'{"kind":"session_pause"}'),
    "2 MB value": (SESSION, b'{"event_type":"' + b"x" * 2_000_000 + b'"}'),
    "empty value": (SESSION, b""),
    "no value": (SESSION, None),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """Topics of one test, and the arguments that point a service at them."""

    broker: str
    topic: str
    output_topic: str
    dead_letter_topic: str
    model: Path
    sidecars: Path

    @property
    def arguments(self) -> tuple[str, ...]:
        return (
            "--session-fingerprinting", "--bootstrap-servers", self.broker, "--input-topic", self.topic,
            "--output-topic", self.output_topic, "--dead-letter-topic", self.dead_letter_topic,
            "--group-id", f"group-{self.topic}", "--model-path", str(self.model),
            "--sidecar-dir", str(self.sidecars),
            # As short as a broker allows: a killed member keeps its partitions for so long.
            "--session-timeout-s", "6",
        )  # fmt: skip


@pytest.fixture
async def setup(broker: str, topic_factory: TopicFactory, tmp_path: Path) -> Setup:
    topic = await topic_factory(4, prefix="session-events", settings={"max.message.bytes": str(LARGE)})
    return Setup(
        broker=broker,
        topic=topic,
        output_topic=f"fingerprints-{uuid.uuid4().hex[:8]}",
        dead_letter_topic=f"dlq-{uuid.uuid4().hex[:8]}",
        model=write_tiny_library(tmp_path / "v0.0.1"),
        sidecars=tmp_path / "sidecars",
    )


async def test_real_documents_give_one_prediction_each_and_bad_records_become_dead_letters(
    setup: Setup, real_sessions_dir: Path, tmp_path: Path
) -> None:
    documents = [adapt_document(read_document(path)) for path in find_files(real_sessions_dir)]
    good: list[Keyed] = [
        (document.session_id.encode(), msgspec.json.encode(message))
        for document in documents
        for message in document.messages
    ]
    # Bad records come in the middle of the good ones, so that they could harm what comes after them.
    middle = len(good) // 2
    records = [*good[:middle], *BAD.values(), *good[middle:]]
    await publish(setup, records)

    async with running_service(tmp_path / "log", *setup.arguments) as service:
        await service.wait_ready()
        await consumed(service, len(records))
        applied = await service.total("stream_fp_records_applied_total")
        dead = await service.total("stream_fp_records_dead_lettered_total")
        ignored = await service.total("stream_fp_records_ignored_total")
        assert dead == len(BAD)
        assert applied + dead + ignored == len(records)
        assert await service.terminate() == 0, service.output()

    predictions = await read_all(setup.broker, setup.output_topic)
    by_session: dict[bytes, list[bytes]] = defaultdict(list)
    for record in predictions:
        by_session[record.key].append(record.value)
    # Every session but one has at least five events before its checkpoint; that one has four and one that crosses it.
    assert {key.decode() for key in by_session} == {document.session_id for document in documents}
    assert all(len(values) == 1 for values in by_session.values())
    for key, (value,) in by_session.items():
        assert (setup.sidecars / key.decode() / SIDECAR_NAME).read_bytes() == value

    dead_letters = await read_all(setup.broker, setup.dead_letter_topic)
    assert sorted((r.key, r.value) for r in dead_letters if r.key and r.value) == sorted(
        (key, value) for key, value in BAD.values() if key and value
    )
    assert len(dead_letters) == len(BAD)
    for record in dead_letters:
        headers = dict(record.headers)
        assert headers["stream_fp.errors.topic"] == setup.topic.encode()
        assert headers["stream_fp.errors.class"] in {b"RecordDecodeError", b"RecordInvalidError"}
        assert headers["stream_fp.errors.message"].lower().startswith((b"expected", b"number"))
        assert int(headers["stream_fp.errors.offset"]) >= 0

    # The same documents from disk say the same, byte for byte.
    lines: list[bytes] = []
    settings = Settings(model_path=str(setup.model))
    replay_files(real_sessions_dir, load_classifier(settings), settings, lines.append)
    assert sorted(line.rstrip(b"\n") for line in lines) == sorted(record.value for record in predictions)


async def test_dead_letter_too_large_for_its_topic_goes_without_its_value(
    setup: Setup, topic_factory: TopicFactory, tmp_path: Path
) -> None:
    small = await topic_factory(1, prefix="dlq")  # takes a megabyte, and noise cannot be compressed
    noise = random.Random(1).randbytes(2_000_000)
    await publish(setup, [(SESSION, b"{"), (SESSION, noise), (SESSION, b"[]")])
    async with running_service(tmp_path / "log", *setup.arguments, "--dead-letter-topic", small) as service:
        await consumed(service, 3)
        await service.wait_ready()
        # Refused as it is, and compressed: only then does it go without its value.
        assert await service.total("stream_fp_publish_failures_total") == 2
        assert await service.terminate() == 0, service.output()
    dead_letters = await read_all(setup.broker, small)
    assert [record.value for record in dead_letters] == [b"{", None, b"[]"]
    assert dict(dead_letters[1].headers)["stream_fp.errors.value_omitted_bytes"] == b"2000000"


async def test_process_killed_amid_sessions_goes_on_without_loss_or_repeat(setup: Setup, tmp_path: Path) -> None:
    messages = list(interleave(simulate_sessions(28, seed=3)))
    records = [(message["session_id"].encode(), msgspec.json.encode(message)) for message in messages]
    cuts = [0, len(records) // 5, len(records) // 2, len(records)]
    for first, last in itertools.pairwise(cuts):
        # The next part is published while the service reads the one before; then it dies without a word.
        async with running_service(tmp_path / "log", *setup.arguments) as service:
            await service.wait_ready()
            await publish(setup, records[first:last])
            await consumed_up_to_end(service)
            await service.kill()
    async with running_service(tmp_path / "log", *setup.arguments) as service:
        await service.wait_ready()
        await consumed_up_to_end(service)
        assert await service.terminate() == 0, service.output()

    predictions = await read_all(setup.broker, setup.output_topic)
    assert predictions
    assert sorted(record.value for record in predictions) == sorted(
        replayed(setup, await read_all(setup.broker, setup.topic))
    )


async def test_second_process_takes_half_of_the_partitions_and_nothing_is_repeated(
    setup: Setup, tmp_path: Path
) -> None:
    messages = list(interleave(simulate_sessions(28, seed=4)))
    records = [(message["session_id"].encode(), msgspec.json.encode(message)) for message in messages]
    half = len(records) // 2
    async with running_service(tmp_path / "first", *setup.arguments) as first:
        await first.wait_ready()
        await publish(setup, records[:half])
        await consumed_up_to_end(first)
        async with running_service(tmp_path / "second", *setup.arguments) as second:
            async with asyncio.timeout(30):
                while [await s.total("stream_fp_assigned_partitions") for s in (first, second)] != [2, 2]:
                    await asyncio.sleep(0.05)
            await first.wait_ready()
            await second.wait_ready()
            await publish(setup, records[half:])
            await consumed_up_to_end(first)
            await consumed_up_to_end(second)
            assert await second.terminate() == 0, second.output()
        assert await first.terminate() == 0, first.output()

    predictions = await read_all(setup.broker, setup.output_topic)
    assert predictions
    assert sorted(record.value for record in predictions) == sorted(
        replayed(setup, await read_all(setup.broker, setup.topic))
    )


async def test_start_from_latest_is_remembered_although_nothing_came_before_the_restart(
    setup: Setup, tmp_path: Path
) -> None:
    await publish(setup, [(SESSION, b"{")] * 8)
    arguments = (*setup.arguments, "--start-from", "latest")
    async with running_service(tmp_path / "log", *arguments) as service:
        await service.wait_ready()
        assert await service.terminate() == 0, service.output()
    messages = list(interleave(simulate_sessions(2, seed=3)))
    await publish(setup, [(message["session_id"].encode(), msgspec.json.encode(message)) for message in messages])
    async with running_service(tmp_path / "log", *arguments) as service:
        await consumed(service, len(messages))
        assert await service.total("stream_fp_records_dead_lettered_total") == 0
        assert await service.terminate() == 0, service.output()


async def test_term_while_the_broker_does_not_answer_ends_at_once(setup: Setup, tmp_path: Path) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        async with running_service(tmp_path / "log", *setup.arguments, "--bootstrap-servers", address) as service:
            async with asyncio.timeout(20):
                while "connecting to" not in service.output():
                    await asyncio.sleep(0.05)
            assert await service.terminate(timeout_s=8) == 0, service.output()
            assert "Traceback" not in service.output()


async def test_missing_input_topic_ends_with_one_readable_line(setup: Setup, tmp_path: Path) -> None:
    arguments = [*setup.arguments, "--input-topic", "nobody-made-this"]
    async with running_service(tmp_path / "log", *arguments) as service:
        assert await asyncio.wait_for(service.process.wait(), 30) == 1
        assert "topic `nobody-made-this` does not exist" in service.output()
        assert "Traceback" not in service.output()


async def publish(setup: Setup, records: Iterable[Keyed]) -> None:
    await publish_all(setup.broker, setup.topic, records)


def replayed(setup: Setup, records: Sequence[ConsumerRecord]) -> list[bytes]:
    """Replay the records of a topic, each partition as a file of its own, and return the predictions."""
    by_partition: dict[int, list[bytes]] = defaultdict(list)
    for record in records:
        by_partition[record.partition].append(record.value)
    folder = setup.sidecars.parent / "replay"
    folder.mkdir()
    for partition, values in by_partition.items():
        (folder / f"{partition}.jsonl").write_bytes(b"\n".join(values))
    lines: list[bytes] = []
    settings = Settings(model_path=str(setup.model))
    replay_files(folder, load_classifier(settings), settings, lines.append)
    return [line.rstrip(b"\n") for line in lines]
