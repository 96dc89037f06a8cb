"""Measure latency: from handing a record to the producer until a `read_committed` reader sees its prediction.

The service is `stream-fp run` on one partition, exactly once, without sidecar files (unless --sidecars: each is flushed
to disk before its prediction is published). First its maximal rate is measured: records a second of a topic that was
filled before. Then one stream is fed to one running service, slice by slice: in each round a slice at 1 %, at 10 % and
at 50 % of that rate, paced evenly, each beside a bare round trip at the same rate, the same feeder's records read
directly from a topic by the same reader, and by aiokafka's. The feeder lingers for 1 ms: with a request a record, the
broker would have no time for anybody. A prediction names the offset of the record that
triggered it; offsets that the engine alone finds for the stream are what has to come. Sessions of different instruments
begin and reach their checkpoint at the same times of day, so predictions come in bursts, and one that has to wait for
the transaction of those before it has that in its latency.

Times are in milliseconds, percentiles within a round, then the median over rounds; p99.9 is of all rounds together and
only where they have 1,000 values. Writes ``build/benchmarks/latency.json``.

    python -m benchmarks.latency [--rounds 5] [--instruments 20] [--predictions 300] [--seconds 60] [--sidecars]
                                    [--seed 1] [--quick]
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import statistics
import sys
import tempfile
import time
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
from aiokafka import AIOKafkaConsumer, TopicPartition
from confluent_kafka import Producer

from benchmarks.harness import new_parser, print_table, spread, stream_records, trained_library, write_report
from benchmarks.live import (
    LOG_LEVEL,
    Reader,
    Topics,
    expected_offsets,
    fill,
    member_arguments,
    new_topics,
    running_members,
    source_of,
)
from stream_fp.config import Settings
from stream_fp.files import FileRecord
from stream_fp.kafka.clients import new_reader
from stream_fp.library import load_library
from tests.support.broker import running_broker

SERVICE, BARE, AIOKAFKA = "prediction", "round trip", "round trip, aiokafka"
LOADS: Final = (0.01, 0.10, 0.50)
#: The load whose figures count.
JUDGED: Final = 0.10
EVENTS_PER_PREDICTION: Final = 90
#: Every record is a sample of the bare round trip: so many are enough, and so many seconds for what happens seldom.
BARE_RECORDS: Final = 1_000
BARE_S: Final = 5.0
QUICK_BARE_S: Final = 2.0
#: A broker that was started a moment ago takes three times as long for a transaction, and Java's compiler more than
#: half a core, until all has been compiled that it takes: that is after some 20 s at the judged load.
WARM_UP_RECORDS: Final = 200_000
BARE_WARM_UP_RECORDS: Final = 2_000
FILLED_RECORDS: Final = 240_000
#: Of these: the first predictions become visible late, with the first transaction, and would make the rest look quick.
STARTED: Final = 0.1
TICK_S: Final = 0.001
ANSWER_TIMEOUT_S: Final = 60.0
#: A feeder that ends later than this, beside a tenth of the time it was to take, has not fed at the rate it says.
LATE_S: Final = 0.5
TAIL_VALUES: Final = 1_000


@dataclass
class Latencies:
    """Of one way at one load: the values of each round, in milliseconds."""

    rounds: list[list[float]] = field(default_factory=list)

    def percentiles(self, q: float) -> list[float]:
        """Return the percentile of each round."""
        return [float(np.percentile(values, q)) for values in self.rounds]

    def all(self) -> list[float]:
        """Return the values of all rounds."""
        return [value for values in self.rounds for value in values]


Results = dict[tuple[float, str], Latencies]


def main() -> int:
    """Run the benchmark; returns the exit status."""
    parser = new_parser(__doc__)
    parser.add_argument("--instruments", type=int, default=20, help="open at the same time")
    parser.add_argument("--predictions", type=int, default=300, help="of each load and round")
    parser.add_argument("--seconds", type=float, default=60.0, help="that one load may take in a round at most")
    parser.add_argument("--sidecars", action="store_true", help="let the service write sidecar files")
    arguments = parser.parse_args()
    loads: tuple[float, ...] = LOADS
    if arguments.quick:
        loads = (JUDGED,)
        arguments.rounds, arguments.predictions = min(arguments.rounds, 3), 150
    library = trained_library(arguments.seed)
    n_needed = WARM_UP_RECORDS + arguments.rounds * len(loads) * arguments.predictions * EVENTS_PER_PREDICTION
    n_sessions = 1 + n_needed // (80 * arguments.instruments)
    records = stream_records(arguments.instruments, n_sessions, arguments.seed)
    expected = expected_offsets(records, load_library(library))
    # The stream is the benchmark's own; a collector that walked it would hold up feeder and readers.
    gc.collect()
    gc.freeze()
    with running_broker() as broker:
        bench = _Bench(broker.bootstrap_servers, library, records, expected)
        max_rate = asyncio.run(bench.max_rate())
        results = asyncio.run(bench.measure({load: load * max_rate for load in loads}, arguments))
    figures = _figures(results) | {"max_records_per_s": max_rate}
    write_report(
        "latency", arguments, figures, broker=broker.origin,
        latencies_ms={f"{name} at {load:.0%}": found.rounds for (load, name), found in results.items()},
    )  # fmt: skip
    _print(results, figures, max_rate)
    return 0


@dataclass(frozen=True)
class _Bench:
    """What is measured on: a broker, a library, a stream and the offsets of it that bring predictions."""

    servers: str
    library: Path
    records: Sequence[FileRecord]
    expected: Sequence[int]

    async def max_rate(self) -> float:
        """Return the records a second of a service that finds its topic full, from a tenth of them on."""
        n = min(len(self.records), FILLED_RECORDS)
        with new_topics(self.servers) as topics, Reader(self.servers, topics.output, key=source_of) as reader:
            await asyncio.to_thread(fill, self.servers, topics.input, [self.records[:n]])
            async with running_members(1, member_arguments(topics, self.library)):
                await asyncio.to_thread(reader.wait_for, bisect_left(self.expected, n), 2 * ANSWER_TIMEOUT_S)
            _, first, first_ns = next(seen for seen in reader.seen if seen[1] >= STARTED * n)
            _, last, last_ns = reader.seen[-1]
        return 1e9 * (last - first) / (last_ns - first_ns)

    async def measure(self, rates: Mapping[float, float], arguments: argparse.Namespace) -> Results:
        """Return the latencies at each load, given with its rate, one load after another in each round."""
        names = (SERVICE, BARE) if arguments.quick else (SERVICE, BARE, AIOKAFKA)
        bare_s = QUICK_BARE_S if arguments.quick else BARE_S
        results: Results = {(load, name): Latencies() for load in rates for name in names}
        async with contextlib.AsyncExitStack() as stack:
            topics = stack.enter_context(new_topics(self.servers))
            bare = stack.enter_context(new_topics(self.servers))
            sidecars = Path(stack.enter_context(tempfile.TemporaryDirectory())) if arguments.sidecars else None
            predictions = stack.enter_context(Reader(self.servers, topics.output, key=source_of))
            members = running_members(1, member_arguments(topics, self.library, sidecars=sidecars))
            (service,) = await stack.enter_async_context(members)
            await service.wait_ready()
            stream = _Stream(self.servers, topics, predictions, self.records, self.expected)
            round_trips = _RoundTrips(self.servers, bare)
            await stream.feed(WARM_UP_RECORDS, rates[JUDGED])
            await round_trips.measure(self.records[:BARE_WARM_UP_RECORDS], rates[JUDGED])
            for _ in range(arguments.rounds):
                for load, rate in rates.items():
                    n = stream.slice_of(arguments.predictions, int(arguments.seconds * rate))
                    results[load, SERVICE].rounds.append(await stream.feed(n, rate))
                    records = self.records[: min(n, max(BARE_RECORDS, int(bare_s * rate)))]
                    results[load, BARE].rounds.append(await round_trips.measure(records, rate))
                    if AIOKAFKA in names:
                        trips = await round_trips.measure_aiokafka(records, rate)
                        results[load, AIOKAFKA].rounds.append(trips)
        return results


# -------------------------------------------------------------------------------------------------------- the two ways


class _Stream:
    """Feeds a running service slice by slice and waits for each slice's predictions."""

    def __init__(
        self, servers: str, topics: Topics, reader: Reader, records: Sequence[FileRecord], expected: Sequence[int]
    ) -> None:
        self._producer = _new_producer(servers)
        self._topic = topics.input
        self._reader = reader
        self._records = records
        self._expected = expected
        self._n_fed = 0

    def slice_of(self, n_predictions: int, n_at_most: int) -> int:
        """Return how many of the next records it takes for so many predictions, or for those of `n_at_most` records.

        One prediction there is in any case.
        """
        following = bisect_left(self._expected, self._n_fed)
        within = bisect_left(self._expected, self._n_fed + n_at_most) - following
        return self._expected[following + max(1, min(n_predictions, within)) - 1] + 1 - self._n_fed

    async def feed(self, n: int, rate: float) -> list[float]:
        """Feed the next records at a rate; return the latency of each of their predictions."""
        first, end = self._n_fed, self._n_fed + n
        sent_ns = await asyncio.to_thread(_feed, self._producer, self._topic, self._records[first:end], rate)
        self._n_fed = end
        since, until = bisect_left(self._expected, first), bisect_left(self._expected, end)
        await asyncio.to_thread(self._reader.wait_for, until, ANSWER_TIMEOUT_S)
        seen = self._reader.seen[since:]
        if sorted(offset for _, offset, _ in seen) != self._expected[since:until]:
            msg = f"expected {until - since} predictions for records {first} to {end}, got {len(seen)} or others"
            raise RuntimeError(msg)
        return [(seen_ns - sent_ns[offset - first]) / 1e6 for _, offset, seen_ns in seen]


class _RoundTrips:
    """Produce and consume with nothing in between, over the one partition of a topic."""

    def __init__(self, servers: str, topics: Topics) -> None:
        self._servers = servers
        self._topic = topics.input
        self._producer = _new_producer(servers)
        self._n_fed = 0

    async def measure(self, records: Sequence[FileRecord], rate: float) -> list[float]:
        """Feed records at a rate; return how long each took to the reader."""
        with Reader(self._servers, self._topic) as reader:
            await asyncio.to_thread(reader.wait_for, self._n_fed, ANSWER_TIMEOUT_S)
            sent_ns = await asyncio.to_thread(_feed, self._producer, self._topic, records, rate)
            first, self._n_fed = self._n_fed, self._n_fed + len(records)
            await asyncio.to_thread(reader.wait_for, self._n_fed, ANSWER_TIMEOUT_S)
            return [(seen_ns - sent_ns[offset - first]) / 1e6 for _, offset, seen_ns in reader.seen[first:]]

    async def measure_aiokafka(self, records: Sequence[FileRecord], rate: float) -> list[float]:
        """Do the same with the consumer that the service uses, its settings and a loop of its own to wait in."""
        consumer: AIOKafkaConsumer = new_reader(Settings(bootstrap_servers=self._servers))
        await consumer.start()
        try:
            partition = TopicPartition(self._topic, 0)
            consumer.assign([partition])
            consumer.seek(partition, self._n_fed)
            feeding = asyncio.create_task(asyncio.to_thread(_feed, self._producer, self._topic, records, rate))
            first, self._n_fed = self._n_fed, self._n_fed + len(records)
            seen_ns: dict[int, int] = {}
            async with asyncio.timeout(len(records) / rate + ANSWER_TIMEOUT_S):
                while len(seen_ns) < len(records):
                    found = await consumer.getmany(partition, timeout_ms=1000)
                    now_ns = time.perf_counter_ns()
                    seen_ns |= {record.offset - first: now_ns for record in found.get(partition, [])}
            sent_ns = await feeding
        finally:
            await consumer.stop()
        return [(seen_ns[i] - sent_ns[i]) / 1e6 for i in range(len(records))]


def _new_producer(servers: str) -> Producer:
    return Producer(
        {
            "bootstrap.servers": servers,
            "linger.ms": 1,
            "acks": "all",
            "enable.idempotence": True,
            "log_level": LOG_LEVEL,
        }
    )


def _feed(producer: Producer, topic: str, records: Sequence[FileRecord], rate: float) -> list[int]:
    """Produce records evenly at so many a second; return when each was handed over.

    Those that are due are handed over once a millisecond: to sleep for each would cost more than to send it.
    """
    clock_ns = time.perf_counter_ns
    sent_ns: list[int] = []
    started_ns = clock_ns()
    while len(sent_ns) < len(records):
        n_due = 1 + int((clock_ns() - started_ns) * rate / 1e9)
        for record in records[len(sent_ns) : n_due]:
            sent_ns.append(clock_ns())
            producer.produce(topic, record.value, record.key, partition=0)
        producer.poll(0)
        next_due_s = (started_ns + 1e9 * len(sent_ns) / rate - clock_ns()) / 1e9
        time.sleep(max(TICK_S, next_due_s))
    took_s = (sent_ns[-1] - started_ns) / 1e9
    if producer.flush(ANSWER_TIMEOUT_S) or took_s > 1.1 * len(records) / rate + LATE_S:
        msg = f"the feeder did not keep up: {len(records)} records in {took_s:.1f} s at {rate:.0f}/s"
        raise RuntimeError(msg)
    return sent_ns


# ---------------------------------------------------------------------------------------------------------- the report


def _figures(results: Results) -> dict[str, float]:
    figures = {}
    for q in (50, 99):
        service, bare = results[JUDGED, SERVICE].percentiles(q), results[JUDGED, BARE].percentiles(q)
        figures[f"latency_p{q}_ms"] = statistics.median(service)
        figures[f"roundtrip_p{q}_ms"] = statistics.median(bare)
        figures[f"latency_p{q}_over_roundtrip_ms"] = statistics.median(
            one - other for one, other in zip(service, bare, strict=True)
        )
    return figures


def _print(results: Results, figures: dict[str, float], max_rate: float) -> None:
    rows = []
    for (load, name), found in results.items():
        values = found.all()
        cells = [
            text
            for q in (50, 99)
            for text in (f"{statistics.median(found.percentiles(q)):.2f}", spread(found.percentiles(q)))
        ]
        tail = f"{np.percentile(values, 99.9):.2f}" if len(values) >= TAIL_VALUES else ""
        rows.append([f"{load:.0%}: {name}", f"{load * max_rate:,.0f}", f"{len(values)}", *cells, tail])
    print_table(
        f"Latency in ms; the service's maximal rate here is {max_rate:,.0f} records/s",
        ["load", "records/s", "values", "p50", "of rounds", "p99", "of rounds", "p99.9"],
        rows,
    )
    print(
        f"At {JUDGED:.0%}, a prediction over a round trip: p50 {figures['latency_p50_over_roundtrip_ms']:+.2f} ms, "
        f"p99 {figures['latency_p99_over_roundtrip_ms']:+.2f} ms."
    )


if __name__ == "__main__":
    sys.exit(main())
