"""The real service on a real broker, as benchmarks need it: topics made, filled, read and deleted; members started.

Feeder and readers are librdkafka's, whose work is done in C outside Python's lock, so that they disturb what is
measured as little as a client can. Times are `time.perf_counter_ns`: on Linux one clock for all processes.
"""

from __future__ import annotations

import contextlib
import tempfile
import threading
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

from confluent_kafka import Consumer, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from stream_fp.classifier import Classifier
from stream_fp.config import Settings
from stream_fp.engine import Engine
from stream_fp.files import FileRecord
from stream_fp.kafka.told import SOURCE_HEADER
from stream_fp.library import Library
from stream_fp.outcomes import Published
from stream_fp.predictor import Predictor
from tests.support.service import ServiceProcess, start_service

__all__ = ["LOG_LEVEL", "Reader", "Seen", "Topics", "expected_offsets", "fill", "member_arguments", "new_topics",
           "running_members", "source_of"]  # fmt: skip

#: Errors: librdkafka also reports what it mends by itself.
LOG_LEVEL: Final = 3
_TIMEOUT_S: Final = 30.0
#: How long a reader waits in vain before it looks whether it is to end.
_LOOK_INTERVAL_S: Final = 0.1

#: Input partition and offset, and when the record that names them became visible.
Seen = tuple[int, int, int]


@dataclass(frozen=True, kw_only=True)
class Topics:
    """The topics of one service, made for it."""

    servers: str
    input: str
    output: str
    dead_letters: str


@contextlib.contextmanager
def new_topics(servers: str, n_partitions: int = 1) -> Iterator[Topics]:
    """Yield new topics of so many partitions; they are deleted afterwards."""
    name = f"benchmark-{uuid.uuid4().hex[:12]}"
    topics = Topics(servers=servers, input=name, output=f"{name}-out", dead_letters=f"{name}-dlq")
    names = [topics.input, topics.output, topics.dead_letters]
    admin = AdminClient({"bootstrap.servers": servers, "log_level": LOG_LEVEL})
    for made in admin.create_topics([NewTopic(n, n_partitions, 1) for n in names]).values():
        made.result(_TIMEOUT_S)
    try:
        yield topics
    finally:
        for deleted in admin.delete_topics(names).values():
            with contextlib.suppress(Exception):  # what counts is that all were asked for
                deleted.result(_TIMEOUT_S)


def fill(servers: str, topic: str, partitions: Sequence[Sequence[FileRecord]]) -> None:
    """Publish the records of each partition in order; all are acknowledged when this returns."""
    producer = Producer(
        {
            "bootstrap.servers": servers,
            "linger.ms": 20,
            "acks": "all",
            "enable.idempotence": True,
            "log_level": LOG_LEVEL,
        }
    )
    for partition, records in enumerate(partitions):
        for record in records:
            while True:
                try:
                    producer.produce(topic, record.value, record.key, partition=partition)
                except BufferError:
                    producer.poll(_LOOK_INTERVAL_S)
                else:
                    break
    if left := producer.flush(_TIMEOUT_S):
        msg = f"{left} records were not acknowledged within {_TIMEOUT_S} s"
        raise RuntimeError(msg)


def expected_offsets(records: Sequence[FileRecord], library: Library) -> list[int]:
    """Return the offsets whose records trigger a prediction, by the engine itself with the service's settings."""
    engine = Engine(
        Predictor(Classifier(library)),
        Settings().engine_settings(),
        schedules=library.schedules,
        typical_events=library.typical_events,
    )
    return [outcome.record.offset for outcome in engine.process_all(records) if isinstance(outcome, Published)]


def source_of(message: Message) -> tuple[int, int]:
    """Return input partition and offset of the record that triggered a prediction, from its header."""
    headers: dict[str, Any] = dict(message.headers() or [])
    place, _, offset = headers[SOURCE_HEADER].decode().rpartition("@")
    return int(place.rpartition("-")[2]), int(offset)


def _place_of(message: Message) -> tuple[int, int]:
    return message.partition() or 0, message.offset() or 0


class Reader(threading.Thread):
    """Reads a topic from its beginning and notes when each committed record became visible; a context manager.

    Parameters
    ----------
    servers, topic : str
    n_partitions : int
    key : callable, optional
        Partition and offset to note for a message: `source_of` for predictions, else the message's own.
    """

    def __init__(
        self, servers: str, topic: str, n_partitions: int = 1, key: Callable[[Message], tuple[int, int]] = _place_of
    ) -> None:
        super().__init__(name=f"reader of {topic}", daemon=True)
        self.seen: list[Seen] = []
        self._key = key
        self._ending = threading.Event()
        self._error: Exception | None = None
        self._consumer = Consumer(
            {
                "bootstrap.servers": servers,
                "log_level": LOG_LEVEL,
                "group.id": f"benchmark-{uuid.uuid4().hex[:12]}",
                "enable.auto.commit": False,
                "isolation.level": "read_committed",
                # The broker answers at once where there is something; this bounds the wait if it should miss it.
                "fetch.wait.max.ms": 10,
            }
        )
        self._consumer.assign([TopicPartition(topic, partition, 0) for partition in range(n_partitions)])

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        self.join()
        self._consumer.close()

    def run(self) -> None:
        """Read until told to end."""
        try:
            while not self._ending.is_set():
                message = self._consumer.poll(_LOOK_INTERVAL_S)
                now_ns = time.perf_counter_ns()
                if message is not None and not message.error():
                    self.seen.append((*self._key(message), now_ns))
        except Exception as error:  # noqa: BLE001 - told to whom waits
            self._error = error

    def wait_for(self, n: int, timeout_s: float) -> None:
        """Wait until so many records have been seen.

        Raises
        ------
        RuntimeError
            When they were not within the time, reading failed, or it was ended.
        """
        deadline_s = time.monotonic() + timeout_s
        while len(self.seen) < n:
            if self._error is not None or self._ending.is_set() or time.monotonic() > deadline_s:
                msg = f"{self.name}: {len(self.seen)} of {n} records within {timeout_s:.0f} s"
                raise RuntimeError(msg) from self._error
            time.sleep(_LOOK_INTERVAL_S)


def member_arguments(topics: Topics, library: Path, *, sidecars: Path | None = None) -> list[str]:
    """Return the arguments of `stream-fp run` for a member of the topics' group; all else is as by default."""
    return [
        "--session-fingerprinting", "--bootstrap-servers", topics.servers,
        "--input-topic", topics.input, "--output-topic", topics.output, "--dead-letter-topic", topics.dead_letters,
        "--group-id", f"group-{topics.input}", "--model-path", str(library),
        "--sidecar-dir", "" if sidecars is None else str(sidecars),
    ]  # fmt: skip


@contextlib.asynccontextmanager
async def running_members(n: int, arguments: Sequence[str], **options: Any) -> AsyncIterator[list[ServiceProcess]]:
    """Start so many processes of the service, one after another; they are killed in the end."""
    async with contextlib.AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        members = []
        for number in range(n):
            member = await start_service(folder / f"member-{number}.log", *arguments, **options)
            stack.push_async_callback(member.kill)
            members.append(member)
        yield members
