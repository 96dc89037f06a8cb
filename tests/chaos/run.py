"""One chaos run: publish a stream, let faults happen while it flows, and compare what readers see with a replay.

Consumers and brokers are real processes. The stream is published at a pace that follows the faults, so that something
flows whenever something breaks. In the end all brokers are up, whoever is left of the
consumers catches up and is asked to end, and the topics are judged.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import KafkaError
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaException, Message
from confluent_kafka import KafkaError as KafkaError_
from confluent_kafka import TopicPartition as Partition

from offline.artifacts import write_library
from offline.dataset import load_dataset
from offline.train import TrainingOptions, train
from stream_fp.config import Settings
from stream_fp.engine import Engine
from stream_fp.errors import ServiceError
from stream_fp.kafka.clients import new_admin
from stream_fp.kafka.history import TopicHistory
from stream_fp.kafka.offsets import committed_offset
from stream_fp.kafka.progress import Progress
from stream_fp.loading import load_classifier
from stream_fp.outcomes import DeadLetter
from stream_fp.predictor import Predictor
from stream_fp.sinks.sidecar import SIDECAR_NAME
from tests.chaos.faults import FAULTS, Fault, Scene, fault_sequence
from tests.chaos.feed import Feeder
from tests.chaos.fleet import Fleet, running_fleet
from tests.chaos.stream import BAD_SHARE, chaos_stream, training_sessions
from tests.chaos.verdict import Report, compare, compare_sidecars, read_sidecars
from tests.support.local_kafka import LocalKafka

__all__ = ["Plan", "run_chaos"]

N_PARTITIONS: Final = 8
CHECKPOINTS: Final = "30,50"
#: What a fault's share of the stream is spread over: faults last from nothing to a dozen seconds, about so long on
#: average. The stream may run ahead of the faults by so many shares, so that it flows on while one of them lasts.
_SHARE_S: Final = 5.0
_SHARES_AHEAD: Final = 2
#: Between the end of one fault and the next.
_CALM_S: Final = (0.2, 1.5)
_CATCH_UP_S: Final = 180.0
#: What the judge's reader waits for a thousand records to come together.
_READ_S: Final = 0.5
#: The rest of the stream, when all faults are over.
_FULL_SPEED_PER_S: Final = 20_000.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is to happen; all of it follows from the seed, but for what the operating system's scheduler adds."""

    seed: int
    n_faults: int
    n_sessions: int
    faults: tuple[Fault, ...] = FAULTS
    delivery: str = "exactly-once"
    program: tuple[str, ...] | None = None
    """What to run instead of `stream-fp`: a service with a fault of its own."""
    session_timeout_s: float = 4.0
    bad_share: float = BAD_SHARE
    """Records that cannot be used, for each that can: with more of them, more is published at any moment."""


async def run_chaos(kafka: LocalKafka, plan: Plan, folder: Path, say: Callable[[str], None] = lambda _: None) -> Report:
    """Run a plan on a cluster that runs; return what it came to.

    Parameters
    ----------
    kafka : LocalKafka
        Its nodes are killed and started again; all run in the end.
    plan : Plan
    folder : Path
        For the model, the sidecars and the logs.
    say : callable
        Gets a line now and then.
    """
    started_s = time.monotonic()
    rng = random.Random(plan.seed)
    records = chaos_stream(plan.n_sessions, seed=plan.seed, bad_share=plan.bad_share)
    model = _train(folder, plan.seed)
    name = f"chaos-{plan.seed}-{time.monotonic_ns() % 10**9}"
    settings = Settings(
        bootstrap_servers=kafka.bootstrap_servers,
        group_id=name,
        input_topic=f"{name}-events",
        output_topic=f"{name}-fingerprints",
        dead_letter_topic=f"{name}-dlq",
        model_path=str(model),
        checkpoints=tuple(float(checkpoint) for checkpoint in CHECKPOINTS.split(",")),
        sidecar_dir=str(folder / "sidecars"),
    )
    await _create_topic(settings, len(kafka.node_ids))
    fleet = Fleet(_arguments(settings, plan), folder / "logs", plan.program)
    feeder = Feeder(kafka.bootstrap_servers, settings.input_topic, records)
    scene = Scene(
        fleet=fleet,
        kafka=kafka,
        rng=rng,
        session_timeout_s=plan.session_timeout_s,
        transactional_ids=tuple(f"{name}-{settings.input_topic}-{partition}" for partition in range(N_PARTITIONS)),
    )
    say(f"{len(records)} records of {plan.n_sessions} sessions, {plan.n_faults} faults, {len(kafka.node_ids)} brokers")
    report = Report()
    async with running_fleet(fleet):
        await fleet.scale_to({0, 1})
        feeding = asyncio.create_task(feeder.run())
        try:
            happened = await _let_faults_happen(scene, plan, feeder, say)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(feeding, _CATCH_UP_S)
        finally:
            feeding.cancel()
        if feeder.n_under_way:
            report.note("records not published", [f"{feeder.n_under_way} never acknowledged"])
        say("all faults are over; catching up")
        report.note("partitions that did not catch up", await _behind_after(settings, _CATCH_UP_S))
        # A last look at the books, then an end in good order.
        await asyncio.sleep(1.0)
        await fleet.scale_to(set())
    flowed_s = time.monotonic() - started_s
    say("comparing with a replay of the topic")
    await _judge(report, settings, folder, fleet, feeder.n_sent)
    report.figures = {
        "seed": plan.seed,
        "brokers": len(kafka.node_ids),
        "records": len(records),
        "sessions": len({key for key, _ in records if key}),
        "faults": dict(happened),
        "consumer processes started": fleet.n_started,
        "of these, ended at the start because no broker answered": fleet.no_broker,
        **report.figures,
        "scrapes whose books reconcile": fleet.n_scrapes - len(fleet.irreconcilable),
        "seconds": round(flowed_s),
    }
    return report


def _train(folder: Path, seed: int) -> Path:
    history = folder / "history.jsonl"
    history.write_bytes(b"\n".join(msgspec.json.encode(message) for message in training_sessions(140, seed=seed)))
    model = folder / "v1.0.0"
    options = TrainingOptions(model_version="1.0.0", n_archetypes=4, profile="pace", seed=seed)
    write_library(train(load_dataset(history), options), model)
    return model


def _arguments(settings: Settings, plan: Plan) -> tuple[str, ...]:
    return (
        "--session-fingerprinting", "--bootstrap-servers", settings.bootstrap_servers,
        "--group-id", settings.group_id, "--input-topic", settings.input_topic,
        "--output-topic", settings.output_topic, "--dead-letter-topic", settings.dead_letter_topic,
        "--model-path", settings.model_path, "--sidecar-dir", settings.sidecar_dir,
        "--checkpoints", CHECKPOINTS, "--delivery", plan.delivery,
        # Short, so that a run sees many of them; what is broken must not only be mended by patience.
        "--session-timeout-s", f"{plan.session_timeout_s:g}", "--transaction-timeout-s", "10",
        "--request-timeout-s", "6", "--commit-interval-s", "0.3",
        "--stall-timeout-s", "20", "--stall-exit-s", "60",
    )  # fmt: skip


async def _create_topic(settings: Settings, n_nodes: int) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=settings.bootstrap_servers)
    await admin.start()
    try:
        await admin.create_topics([NewTopic(settings.input_topic, N_PARTITIONS, n_nodes)])
    finally:
        await admin.close()


async def _let_faults_happen(scene: Scene, plan: Plan, feeder: Feeder, say: Callable[[str], None]) -> Counter[str]:
    rng, happened, n_records = scene.rng, Counter[str](), feeder.n_records
    sequence = fault_sequence(plan.n_faults, rng, plan.faults)
    share = n_records / (len(sequence) + _SHARES_AHEAD)
    feeder.allowed, feeder.per_s = share, share / _SHARE_S
    await asyncio.sleep(3.0)  # for the first to join
    for number, fault in enumerate(sequence, 1):
        feeder.allowed = share * (number + _SHARES_AHEAD)
        await asyncio.sleep(rng.uniform(*_CALM_S))
        say(f"fault {number}/{len(sequence)}: {fault.__name__}; {feeder.n_sent} records published")
        happened[fault.__name__ if await fault(scene) else "found nobody to hit"] += 1
    feeder.allowed, feeder.per_s = n_records, _FULL_SPEED_PER_S
    return happened


async def _behind_after(settings: Settings, timeout_s: float) -> list[str]:
    """Wait until all records are published for; return the partitions that are not in time."""
    deadline_s = time.monotonic() + timeout_s
    behind = ["nothing known"]
    while behind and time.monotonic() < deadline_s:
        with contextlib.suppress(KafkaError, OSError, TimeoutError, ServiceError):
            async with asyncio.timeout(20):
                behind = await _behind(settings)
        await asyncio.sleep(0.3)
    return behind


async def _behind(settings: Settings) -> list[str]:
    admin = new_admin(settings)
    await admin.start()
    behind = []
    try:
        async with TopicHistory(settings) as history:
            for span in await history.spans():
                found = await committed_offset(admin, settings.group_id, span.partition, stable=True)
                published = 0
                with contextlib.suppress(msgspec.MsgspecError):
                    published = msgspec.json.decode(found.metadata or "", type=Progress).published
                if published < span.end:
                    behind.append(f"{span.partition.partition}: published up to {published} of {span.end}")
    finally:
        await admin.close()
    return behind


async def _judge(report: Report, settings: Settings, folder: Path, fleet: Fleet, n_sent: int) -> None:
    expected = await _replayed(settings, folder)
    expected_dead, n_records = await _refused(settings)
    published = [(m.key(), m.value() or b"") for m in await asyncio.to_thread(_read, settings, settings.output_topic)]
    letters = await asyncio.to_thread(_read, settings, settings.dead_letter_topic)
    dead = [(_place_of(letter), letter.key(), letter.value()) for letter in letters]
    compare(report, expected=expected, published=published, expected_dead=expected_dead, dead=dead)
    sidecars = read_sidecars(folder / "sidecars", SIDECAR_NAME)
    compare_sidecars(report, dict(sidecars), [value for _, value in published])
    report.note("processes that ended unexpectedly", fleet.exits)
    if not fleet.n_scrapes:
        report.note("runs in which nobody's books were seen", [settings.group_id])
    if n_records < n_sent:
        report.note("records that did not arrive", [f"{n_records} of {n_sent}"])
    report.note("books that do not reconcile", fleet.irreconcilable)
    if fleet.consumed_total > n_records:
        report.note("books with more records than there are", [f"{fleet.consumed_total:.0f} of {n_records}"])
    report.figures |= {
        "predictions": len(published),
        "dead letters": len(dead),
        "sidecars": len(sidecars),
        "temporary files left by kills": len(list((folder / "sidecars").glob("*/.*"))),
    }


async def _replayed(settings: Settings, folder: Path) -> list[bytes]:
    """Return what `stream-fp replay` of the topic says."""
    output = folder / "replayed.jsonl"
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "stream_fp", "replay", "--bootstrap-servers", settings.bootstrap_servers,
        "--input-topic", settings.input_topic, "--model-path", settings.model_path, "--checkpoints", CHECKPOINTS,
        "--output", str(output), stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    _, errors = await process.communicate()
    if process.returncode:
        msg = f"the replay ended with {process.returncode}: {errors.decode()}"
        raise RuntimeError(msg)
    return output.read_bytes().splitlines()


async def _refused(settings: Settings) -> tuple[dict[tuple[int, int], tuple[bytes | None, bytes | None]], int]:
    """Return the records that an engine refuses, by their place, and the number of all records."""
    classifier = load_classifier(settings)
    library = classifier.library
    refused: dict[tuple[int, int], tuple[bytes | None, bytes | None]] = {}
    n_records = 0
    async with TopicHistory(settings) as history:
        for span in await history.spans():
            engine = Engine(
                Predictor(classifier), settings.engine_settings(),
                schedules=library.schedules, typical_events=library.typical_events,
            )  # fmt: skip
            async for records in history.read(span):
                n_records += len(records)
                for record in records:
                    if any(isinstance(outcome, DeadLetter) for outcome in engine.process(record)):
                        refused[span.partition.partition, record.offset] = record.key, record.value
    return refused, n_records


def _read(settings: Settings, topic: str) -> list[Message]:
    """Read a topic as a `read_committed` reader sees it, with another client than the one that wrote it."""
    consumer = Consumer(
        {
            "bootstrap.servers": settings.bootstrap_servers,
            "group.id": f"judge-{settings.group_id}",
            "enable.auto.commit": False,
            "isolation.level": "read_committed",
            "enable.partition.eof": True,
            "log_level": 0,
        }
    )
    found: list[Message] = []
    try:
        layout = consumer.list_topics(topic, timeout=30).topics[topic].partitions
        consumer.assign([Partition(topic, number, OFFSET_BEGINNING) for number in layout])
        unread = set(layout)
        while unread:
            for message in consumer.consume(1_000, timeout=_READ_S):
                error = message.error()
                if error is None:
                    found.append(message)
                elif error.code() == KafkaError_._PARTITION_EOF:
                    unread.discard(message.partition())
                else:
                    raise KafkaException(error)
    finally:
        consumer.close()
    return found


def _place_of(message: Message) -> tuple[int, int]:
    pairs: Any = message.headers() or ()
    headers = {name: value.decode() for name, value in pairs}
    return int(headers["stream_fp.errors.partition"]), int(headers["stream_fp.errors.offset"])
