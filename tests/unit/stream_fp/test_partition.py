"""The worker of one partition with everything around it faked: what it says of itself while it publishes ahead."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from aiokafka import TopicPartition
from aiokafka.errors import KafkaError, ProducerFenced

from stream_fp import outbox as outbox_module
from stream_fp import partition as module
from stream_fp.completion import DEFAULT_SCHEDULES
from stream_fp.config import Settings
from stream_fp.engine import Engine
from stream_fp.kafka.progress import StartingPoint
from stream_fp.metrics import Metrics
from stream_fp.partition import PartitionWorker
from tests.support.builders import RecordingForecaster

LIBRARY = SimpleNamespace(version="v1", schedules=DEFAULT_SCHEDULES, typical_events={})
TP = TopicPartition("in", 0)
N_AT_ONCE = 5
#: Of one fetch: more than are taken at once, and no multiple of them.
N_FETCHED = 93


@dataclass
class Fetched:
    offset: int
    key: bytes | None
    value: bytes | None
    timestamp: int = 0
    headers: tuple[()] = ()


@dataclass
class Consumer:
    """Hands out what there is, as `AIOKafkaConsumer` would."""

    records: list[Fetched]
    at: int = 0

    def seek(self, _partition: TopicPartition, offset: int) -> None:
        self.at = offset

    def resume(self, _partition: TopicPartition) -> None: ...

    def last_stable_offset(self, _partition: TopicPartition) -> int:
        return len(self.records)

    def highwater(self, _partition: TopicPartition) -> int:
        return len(self.records)

    async def position(self, _partition: TopicPartition) -> int:
        return self.at

    async def getmany(self, *_: TopicPartition, timeout_ms: int, max_records: int) -> dict[TopicPartition, Any]:
        if self.at >= len(self.records):
            await asyncio.sleep(timeout_ms / 1000)
            return {}
        given = self.records[self.at : self.at + min(N_FETCHED, max_records)]
        self.at += len(given)
        return {TP: given}


@dataclass
class Publisher:
    took_s: float
    published: list[Any] = field(default_factory=list)
    n_fail: int = 0
    is_transactional: bool = True
    commit_s: float = 0.01

    async def start(self) -> None: ...

    async def aclose(self) -> None: ...

    async def abandon(self) -> None: ...

    async def publish(self, outcomes: Sequence[Any], low_offset: int, progress: Any) -> None:  # noqa: ANN401
        await asyncio.sleep(self.took_s)
        self.published.append((len(outcomes), low_offset, progress.published))


@dataclass
class Sinks:
    """Takes its time, as a disk does."""

    took_s: float

    async def write(self, _predictions: Sequence[Any]) -> None:
        await asyncio.sleep(self.took_s)


def event(offset: int, minute: int, session: str) -> Fetched:
    value = {
        "timestamp": f"2025-07-29T{13 + (30 + minute) // 60:02d}:{(30 + minute) % 60:02d}:00Z",
        "event_type": "range",
        "price": 100.0 + minute,
    }
    return Fetched(offset, session.encode(), msgspec.json.encode(value))


@contextlib.asynccontextmanager
async def running(
    monkeypatch: pytest.MonkeyPatch,
    records: list[Fetched],
    point: StartingPoint,
    *,
    sinks: Sinks | HeldSinks,
    took_s: float,
) -> AsyncIterator[tuple[PartitionWorker, Publisher, asyncio.Task[None]]]:
    settings = Settings(model_path="none", max_poll_records=N_AT_ONCE, checkpoints=(25.0,), min_events=1)
    publisher = Publisher(took_s)

    async def found(*_: object, **__: object) -> StartingPoint:
        return point

    forecaster = RecordingForecaster()
    monkeypatch.setattr(module, "Publisher", lambda *_, **__: publisher)
    monkeypatch.setattr(module, "find_starting_point", found)
    monkeypatch.setattr(module, "Predictor", lambda *_, **__: forecaster)
    monkeypatch.setattr(module, "fingerprint_of", lambda *_: "same")
    views: list[Callable[[], Any]] = []
    classifier: Any = SimpleNamespace(
        library=SimpleNamespace(version="v1", schedules=DEFAULT_SCHEDULES, typical_events={})
    )
    worker = PartitionWorker(
        TP, consumer=Consumer(records), admin=None, classifier=classifier,
        settings=settings, metrics=Metrics(lambda: [view() for view in views]), n_output_partitions=1,
        sinks=sinks,  # type: ignore[arg-type]
    )  # fmt: skip
    task = asyncio.create_task(worker.run())
    try:
        yield worker, publisher, task
    finally:
        await worker.stop()
        await asyncio.wait_for(task, 5)


async def test_worker_is_ready_after_a_rebuild_that_goes_over_into_publishing_ahead(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What is published first, in a task of its own, must not bring back what stood in the way before."""
    told = [event(i, i, "NY_AM_2025-07-29") for i in range(7)]
    beyond = [event(7 + i, 45, "NY_AM_2025-07-29") for i in range(60)]
    point = StartingPoint(low_offset=0, published_offset=7, watermark_us=None, fingerprint="same")
    monkeypatch.setattr(outbox_module, "_GATHER_S", 0.0)  # a rebuild of more than a few records takes longer than 50 ms
    async with running(monkeypatch, told + beyond, point, sinks=Sinks(0.05), took_s=0.01) as (worker, publisher, _):
        for _ in range(100):
            await asyncio.sleep(0.02)
            if publisher.published and publisher.published[-1][2] == len(told + beyond):
                break
        assert publisher.published[-1][2] == len(told + beyond)
        assert worker.not_ready == ""


async def test_predictions_that_come_one_batch_after_another_go_into_one_transaction(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Where there is not much to read, too: what comes too late for a transaction has to wait for two."""
    burst = [event(i, 45, f"NY_AM_2025-07-29_{i}") for i in range(2 * N_AT_ONCE)]
    point = StartingPoint(low_offset=0, published_offset=0, watermark_us=None, fingerprint="same")
    monkeypatch.setattr(outbox_module, "_BURST_S", 60.0)  # however slow the machine
    async with running(monkeypatch, burst, point, sinks=Sinks(0.0), took_s=0.01) as (_, publisher, _):
        async with asyncio.timeout(10):
            while not publisher.published:
                await asyncio.sleep(0.005)
    assert [(n, position) for n, _, position in publisher.published] == [(len(burst), len(burst))]


@dataclass
class HeldSinks:
    """Takes nothing until it is let go."""

    released: asyncio.Event = field(default_factory=asyncio.Event)
    n_waiting: int = 0

    async def write(self, _predictions: Sequence[Any]) -> None:
        self.n_waiting += 1
        await self.released.wait()


async def test_sinks_that_take_nothing_hold_the_consumer_and_what_is_due_stays_bounded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Every second record is due: more than may be gathered, if reading went on."""
    stream = [
        event(i, 45, f"NY_AM_2025-07-29_{i}") if i % 2 else Fetched(i, b"NY_AM_2025-07-29", b"{" * 500)
        for i in range(1_200)
    ]
    point = StartingPoint(low_offset=0, published_offset=0, watermark_us=None, fingerprint="same")
    monkeypatch.setattr(outbox_module, "_MAX_AHEAD_S", 60.0)  # so that it is the number that holds it
    monkeypatch.setattr(outbox_module, "_MAX_DUE", 200)
    sinks = HeldSinks()
    async with running(monkeypatch, stream, point, sinks=sinks, took_s=0.0) as (worker, publisher, _):
        async with asyncio.timeout(20):
            while not sinks.n_waiting or len(worker._running_outbox()._due) < outbox_module._MAX_DUE:
                await asyncio.sleep(0.01)
        held_at = worker._consumer.at
        await asyncio.sleep(0.3)
        assert worker._consumer.at == held_at < len(stream)
        assert len(worker._running_outbox()._due) < outbox_module._MAX_DUE + N_FETCHED
        assert sinks.n_waiting == 1
        assert publisher.published == []
        sinks.released.set()
        async with asyncio.timeout(30):
            while not publisher.published or publisher.published[-1][2] < len(stream):
                await asyncio.sleep(0.01)
    assert sum(n for n, _, _ in publisher.published) == len(stream)


async def test_sinks_that_take_nothing_hold_the_consumer_after_a_moment_where_little_is_due(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stream = [event(i, 45 + i // 400, f"NY_AM_2025-07-29_{i % 50}") for i in range(4_000)]
    point = StartingPoint(low_offset=0, published_offset=0, watermark_us=None, fingerprint="same")
    monkeypatch.setattr(outbox_module, "_MAX_AHEAD_S", 0.02)
    sinks = HeldSinks()
    async with running(monkeypatch, stream, point, sinks=sinks, took_s=0.0) as (worker, publisher, _):
        async with asyncio.timeout(20):
            while not sinks.n_waiting:
                await asyncio.sleep(0.01)
        await asyncio.sleep(0.4)
        held_at = worker._consumer.at
        await asyncio.sleep(0.3)
        assert worker._consumer.at == held_at < len(stream)
        sinks.released.set()
        async with asyncio.timeout(30):
            while not publisher.published or publisher.published[-1][2] < len(stream):
                await asyncio.sleep(0.01)


@dataclass
class Broker:
    """What transactions have left behind: outcomes by the record that brought them about, and the progress."""

    rng: random.Random
    outcomes: list[tuple[int, str]] = field(default_factory=list)
    point: StartingPoint = field(
        default_factory=lambda: StartingPoint(low_offset=0, published_offset=0, watermark_us=None, fingerprint="same")
    )
    owner: object = None


@dataclass(eq=False)
class UnsafePublisher:
    """Fails before, in the middle, or after its transaction took effect; takes no time or longer than a batch."""

    broker: Broker
    is_transactional: bool = True
    commit_s: float = 0.01

    async def start(self) -> None:
        self.broker.owner = self

    async def aclose(self) -> None: ...

    async def abandon(self) -> None: ...

    async def publish(self, outcomes: Sequence[Any], low_offset: int, progress: Any) -> None:  # noqa: ANN401
        rng = self.broker.rng
        await asyncio.sleep(rng.choice((0, 0, 0.001, 0.01)))
        if rng.random() < 0.1:
            raise rng.choice((KafkaError("refused"), TimeoutError(), ProducerFenced()))
        assert self.broker.owner is self, "a producer that was abandoned has published"
        assert progress.published >= self.broker.point.published_offset
        self.broker.outcomes += [(one.record.offset, type(one).__name__) for one in outcomes]
        self.broker.point = StartingPoint(
            low_offset=low_offset, published_offset=progress.published, watermark_us=progress.watermark_us,
            fingerprint=progress.fingerprint,
        )  # fmt: skip
        if rng.random() < 0.1:
            raise KafkaError("no answer, although it took effect")
        await asyncio.sleep(rng.choice((0, 0.001)))


@pytest.mark.parametrize("seed", range(6))
async def test_every_outcome_is_committed_once_whatever_fails_while_more_is_read(
    monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    rng = random.Random(seed)
    stream = [
        Fetched(i, b"NY_AM_2025-07-29", b"{") if rng.random() < 0.1
        else event(i, i // 20, f"NY_AM_2025-07-29_{rng.randrange(40)}")
        for i in range(2000)
    ]  # fmt: skip
    reference = Engine(
        RecordingForecaster(), Settings(checkpoints=(25.0, 40.0), min_events=1).engine_settings(),
        schedules=DEFAULT_SCHEDULES, typical_events={},
    )  # fmt: skip
    expected = [(one.record.offset, type(one).__name__) for one in reference.process_all(stream)]
    broker = Broker(rng)

    async def found(*_: object, **__: object) -> StartingPoint:
        await asyncio.sleep(0)
        return broker.point

    monkeypatch.setattr(module, "Publisher", lambda *_, **__: UnsafePublisher(broker))
    monkeypatch.setattr(module, "find_starting_point", found)
    monkeypatch.setattr(module, "Predictor", lambda *_, **__: RecordingForecaster())
    monkeypatch.setattr(module, "fingerprint_of", lambda *_: "same")
    monkeypatch.setattr(module, "FIRST_BACKOFF_S", 0.001)
    monkeypatch.setattr(module, "MAX_BACKOFF_S", 0.002)
    monkeypatch.setattr(module, "_FENCED_PAUSE", 0.0001)
    monkeypatch.setattr(outbox_module, "_GATHER_S", rng.choice((0.0, 0.002, 0.05)))
    monkeypatch.setattr(outbox_module, "_MAX_AHEAD_S", rng.choice((0.002, 1.0)))
    for _ in range(60):
        worker = PartitionWorker(
            TP, consumer=Consumer(stream), admin=None,
            classifier=SimpleNamespace(library=LIBRARY),  # type: ignore[arg-type]
            settings=Settings(model_path="none", max_poll_records=rng.choice((7, 40)), checkpoints=(25.0, 40.0),
                              min_events=1, commit_interval_s=0.02),
            metrics=Metrics(list), n_output_partitions=1,
            sinks=Sinks(rng.choice((0.0, 0.003))),  # type: ignore[arg-type]
        )  # fmt: skip
        task = asyncio.create_task(worker.run())
        await asyncio.sleep(rng.uniform(0.0, 0.3))
        if rng.random() < 0.4:
            task.cancel()  # given up, as when the group has no more time to wait
        else:
            await worker.stop()
        await asyncio.wait({task}, timeout=5)
        assert task.done()
        if not task.cancelled():
            assert task.exception() is None
        if broker.point.published_offset == len(stream):
            break
    done = [outcome for outcome in expected if outcome[0] < broker.point.published_offset]
    assert broker.outcomes == done
    assert broker.point.published_offset == len(stream)
