"""Measure how fast a partition's state is rebuilt after a crash: records a second on one core, from a real topic.

The stream is that of many instruments at once. Five ways through it are measured in interleaved rounds, so that ratios
hold on a machine whose speed drifts: decoding alone; the engine in silence, and speaking; aiokafka alone; and aiokafka
with the silent engine, the loop of `PartitionWorker`, which is the rebuild itself. During the last one a ticker
measures how long the event loop keeps others waiting, because heartbeats have to go on. Where there is no broker, the
last two are left out. Prints a table and writes ``build/benchmarks/rebuild.json``.

    python -m benchmarks.rebuild [--rounds 7] [--instruments 200] [--sessions 14] [--seed 1] [--quick]
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import statistics
import sys
import time
from collections.abc import AsyncIterator, Sequence
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition

from benchmarks.harness import (
    Samples,
    new_parser,
    print_table,
    ratio,
    spread,
    stream_records,
    trained_library,
    write_report,
)
from benchmarks.topics import filled_topic
from stream_fp.classifier import Classifier
from stream_fp.config import Settings
from stream_fp.engine import Engine
from stream_fp.files import FileRecord
from stream_fp.kafka.clients import new_reader
from stream_fp.library import Library, load_library
from stream_fp.messages import Record, decode_message
from stream_fp.outcomes import Outcome
from stream_fp.predictor import Predictor
from tests.support.broker import BrokerUnavailableError, running_broker

DECODE, SILENT, SPEAKING = "decode alone", "engine, silent", "engine, speaking"
FETCH, REBUILD = "getmany alone", "getmany + silent engine"
#: Far below the seconds between heartbeats, and seldom enough to cost nothing.
TICK_S = 0.005
BATCH = Settings().max_poll_records
N_QUICK_INSTRUMENTS = 40


def main() -> int:
    """Run the benchmark; returns the exit status."""
    parser = new_parser(__doc__, rounds=7)
    parser.add_argument("--instruments", type=int, default=200)
    parser.add_argument("--sessions", type=int, default=14, help="of each instrument, one after another; seven a day")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.instruments = min(arguments.instruments, N_QUICK_INSTRUMENTS)

    library = load_library(trained_library(arguments.seed))
    records = stream_records(arguments.instruments, arguments.sessions, arguments.seed)
    with contextlib.ExitStack() as stack:
        try:
            broker = stack.enter_context(running_broker())
        except BrokerUnavailableError as error:
            print(f"Without Kafka: {error}")
            servers, origin = None, None
        else:
            servers, origin = broker.bootstrap_servers, broker.origin
        rounds, stalls_ms = asyncio.run(_measure(records, library, servers, arguments.rounds))
    figures = _figures(rounds, stalls_ms)
    write_report(
        "rebuild",
        arguments,
        figures,
        broker=origin,
        n_records=len(records),
        us_per_record={name: samples.wall_us for name, samples in rounds.items()},
        cpu_us_per_record={name: samples.cpu_us for name, samples in rounds.items()},
        longest_wait_of_the_event_loop_ms=stalls_ms,
    )
    _print(rounds, figures, len(records))
    return 0


# ------------------------------------------------------------------------------------------------------- the rounds


async def _measure(
    records: Sequence[FileRecord], library: Library, servers: str | None, n_rounds: int
) -> tuple[dict[str, Samples], list[float]]:
    """Return the samples by name, and the longest wait of the event loop in each rebuild."""
    n = len(records)
    rounds = {name: Samples() for name in (DECODE, SILENT, SPEAKING, *((FETCH, REBUILD) if servers else ()))}
    stalls_ms: list[float] = []
    # The stream is the benchmark's own: the service would not hold it, so the garbage collector shall not walk it.
    gc.collect()
    gc.freeze()
    async with contextlib.AsyncExitStack() as stack:
        partition = None
        if servers is not None:
            partition = await stack.enter_async_context(filled_topic("rebuild", servers, records))
        for _ in range(n_rounds):
            with rounds[DECODE].sample(n):
                for record in records:
                    decode_message(record.value)
            silent, speaking = _new_engine(library, published_offset=n), _new_engine(library, published_offset=0)
            with rounds[SILENT].sample(n):
                _take(silent, records)
            with rounds[SPEAKING].sample(n):
                _take(speaking, records)
            _check(silent, speaking)
            if servers is None or partition is None:
                continue
            async with _reading(servers, partition) as consumer:
                with rounds[FETCH].sample(n):
                    await _read(consumer, partition, n, None)
            rebuilt = _new_engine(library, published_offset=n)
            async with _reading(servers, partition) as consumer:
                with rounds[REBUILD].sample(n):
                    async with _ticking() as waits_s:
                        await _read(consumer, partition, n, rebuilt)
            stalls_ms.append(1e3 * max(waits_s, default=0.0))
            _check(rebuilt, speaking)
    return rounds, stalls_ms


def _new_engine(library: Library, *, published_offset: int) -> Engine:
    return Engine(
        Predictor(Classifier(library)),
        Settings().engine_settings(),
        schedules=library.schedules,
        typical_events=library.typical_events,
        published_offset=published_offset,
        clock=time.perf_counter_ns,
    )


def _take(engine: Engine, records: Sequence[Record]) -> None:
    outcomes: list[Outcome] = []
    for first in range(0, len(records), BATCH):
        outcomes += engine.process_all(records[first : first + BATCH])


def _check(rebuilt: Engine, speaking: Engine) -> None:
    """Refuse to measure an engine that did not do its work."""
    states = [(e.position, e.low_offset, e.watermark_us, e.n_buffered_bytes) for e in (rebuilt, speaking)]
    if states[0] != states[1] or not speaking.counts.predictions:
        msg = f"the run went wrong: {states}, {speaking.counts}"
        raise RuntimeError(msg)


# -------------------------------------------------------------------------------------------------------- the broker


@contextlib.asynccontextmanager
async def _reading(servers: str, partition: TopicPartition) -> AsyncIterator[AIOKafkaConsumer]:
    """Yield a new consumer: one that has read to the end before is held up by its last request, which waits there."""
    consumer = new_reader(Settings(bootstrap_servers=servers))
    await consumer.start()
    try:
        consumer.assign([partition])
        yield consumer
    finally:
        await consumer.stop()


async def _read(consumer: AIOKafkaConsumer, partition: TopicPartition, n_records: int, engine: Engine | None) -> None:
    """Read the partition from its beginning in the way of a worker that rebuilds, with or without the engine."""
    consumer.seek(partition, 0)
    position = 0
    while position < n_records:
        fetching: asyncio.Future[dict[TopicPartition, list[Any]]] = asyncio.ensure_future(
            consumer.getmany(partition, timeout_ms=1000, max_records=Settings().max_poll_records)
        )
        batch = (await fetching).get(partition, [])
        if engine is not None:
            _take(engine, batch)
        if batch:
            position = batch[-1].offset + 1
        await asyncio.sleep(0)


@contextlib.asynccontextmanager
async def _ticking() -> AsyncIterator[list[float]]:
    """Yield a list that grows by how much later than asked for the event loop gave a sleeper its turn."""
    waits_s: list[float] = []

    async def tick() -> None:
        while True:
            asleep_s = time.perf_counter()
            await asyncio.sleep(TICK_S)
            waits_s.append(time.perf_counter() - asleep_s - TICK_S)

    ticker = asyncio.create_task(tick())
    try:
        yield waits_s
    finally:
        ticker.cancel()


# -------------------------------------------------------------------------------------------------------- the report


def _figures(rounds: dict[str, Samples], stalls_ms: list[float]) -> dict[str, float]:
    figures = {"silent_over_decode": ratio(rounds[SILENT].wall_us, rounds[DECODE].wall_us)}
    if REBUILD in rounds:
        figures |= {
            "rebuild_over_getmany": ratio(rounds[REBUILD].wall_us, rounds[FETCH].wall_us),
            "rebuild_records_per_s_median": 1e6 / statistics.median(rounds[REBUILD].wall_us),
            "rebuild_records_per_s_best": 1e6 / min(rounds[REBUILD].wall_us),
            "longest_wait_of_the_event_loop_ms": max(stalls_ms),
        }
    return figures


def _print(rounds: dict[str, Samples], figures: dict[str, float], n_records: int) -> None:
    rows = []
    for name, samples in rounds.items():
        best, median = min(samples.wall_us), statistics.median(samples.wall_us)
        rows.append((
            name, f"{median:.2f}", spread(samples.wall_us), f"{statistics.median(samples.cpu_us):.2f}",
            f"{1e6 / median:,.0f}", f"{1e6 / best:,.0f}",
        ))  # fmt: skip
    print_table(
        f"Rebuild of a partition, {n_records:,} records, one core, medians",
        ("", "us a record", "min - max", "CPU", "records/s", "best"),
        rows,
    )
    if REBUILD in rounds:
        print(
            f"Rebuild over getmany alone: {figures['rebuild_over_getmany']:.2f}. "
            f"Longest wait of the event loop: {figures['longest_wait_of_the_event_loop_ms']:.1f} ms."
        )


if __name__ == "__main__":
    sys.exit(main())
