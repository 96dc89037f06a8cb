"""Measure what further processes bring: 1, 2 and 4 members of one group, `stream-fp run`, on 8 partitions.

In interleaved rounds, each with new topics: the members start on empty topics until each owns its share of the
partitions; then they are held (SIGSTOP) while the topic is filled, and let go together. The span is from there to the
moment when a `read_committed` reader has seen the last prediction, and the records are those up to each partition's
last prediction. Offsets that the engine alone finds for each partition are what has to come, and every record has to
be accounted for by exactly one member. Processor time is that of the members alone, as they report it themselves.

Members, broker and reader share the machine's cores; efficiency is records a second over those of one member, divided
by the number of members or of cores, whichever is less. Where there are fewer cores than members plus one for the
broker, that is what limits, and the output says so: processor time a record then tells more than the rate. Prints a
table and writes ``build/benchmarks/scale_out.json``.

    python -m benchmarks.scale_out [--rounds 5] [--instruments 200] [--sessions 7] [--seed 1]
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import statistics
import sys
import time
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from benchmarks.harness import (
    new_parser,
    print_table,
    ratio,
    spread,
    stream_records,
    trained_library,
    write_report,
)
from benchmarks.live import Reader, expected_offsets, fill, member_arguments, new_topics, running_members, source_of
from stream_fp.files import FileRecord
from stream_fp.library import load_library
from tests.support.broker import running_broker
from tests.support.service import ServiceProcess

MEMBERS: Final = (1, 2, 4)
PARTITIONS: Final = 8
#: Longer than filling takes, during which the members send no heartbeat; no longer, because a member learns with its
#: next heartbeat, a third of this later, that another one has joined.
SESSION_TIMEOUT_S: Final = 15
TIMEOUT_S: Final = 120.0
ASK_INTERVAL_S: Final = 0.2

Places = set[tuple[int, int]]


@dataclass
class Runs:
    """Of one number of members: a sample a round."""

    records_per_s: list[float] = field(default_factory=list)
    cpu_us_per_record: list[float] = field(default_factory=list)


def main() -> int:
    """Run the benchmark; returns the exit status."""
    parser = new_parser(__doc__)
    parser.add_argument("--instruments", type=int, default=200)
    parser.add_argument("--sessions", type=int, default=7, help="of each instrument, one after another; seven a day")
    arguments = parser.parse_args()
    library = trained_library(arguments.seed)
    partitions = _by_partition(stream_records(arguments.instruments, arguments.sessions, arguments.seed))
    loaded = load_library(library)
    expected = {(p, offset) for p, records in enumerate(partitions) for offset in expected_offsets(records, loaded)}
    with running_broker() as broker:
        runs = asyncio.run(_measure(broker.bootstrap_servers, library, partitions, expected, arguments.rounds))
    n_records, cores = sum(map(len, partitions)), os.cpu_count() or 1
    efficiency = {n: _efficiency(runs, n, cores) for n in MEMBERS}
    figures = {
        **{f"records_per_s_{n}": statistics.median(runs[n].records_per_s) for n in MEMBERS},
        **{f"cpu_us_per_record_{n}": statistics.median(runs[n].cpu_us_per_record) for n in MEMBERS},
        **{f"efficiency_{n}": efficiency[n] for n in MEMBERS},
    }
    write_report(
        "scale_out", arguments, figures, broker=broker.origin, n_records=n_records, n_predictions=len(expected),
        samples={str(n): vars(found) for n, found in runs.items()},
    )  # fmt: skip
    _print(runs, efficiency, n_records, cores, arguments)
    return 0


def _by_partition(records: Sequence[FileRecord]) -> list[list[FileRecord]]:
    """Deal a stream out by key, each partition in its order and with offsets of its own."""
    partitions: list[list[FileRecord]] = [[] for _ in range(PARTITIONS)]
    for record in records:
        chosen = partitions[zlib.crc32(record.key or b"") % PARTITIONS]
        chosen.append(FileRecord(len(chosen), record.key, record.value))
    return partitions


async def _measure(
    servers: str, library: Path, partitions: Sequence[Sequence[FileRecord]], expected: Places, n_rounds: int
) -> dict[int, Runs]:
    runs = {n: Runs() for n in MEMBERS}
    for _ in range(n_rounds):
        for n, found in runs.items():
            records_per_s, cpu_us = await _run(n, servers, library, partitions, expected)
            found.records_per_s.append(records_per_s)
            found.cpu_us_per_record.append(cpu_us)
    return runs


async def _run(
    n: int, servers: str, library: Path, partitions: Sequence[Sequence[FileRecord]], expected: Places
) -> tuple[float, float]:
    """Return records a second of so many members, and their processor time a record in microseconds."""
    n_records = sum(map(len, partitions))
    last = {p: max(offset for partition, offset in expected if partition == p) for p, _ in expected}
    with new_topics(servers, PARTITIONS) as topics, Reader(servers, topics.output, PARTITIONS, source_of) as reader:
        arguments = [*member_arguments(topics, library), "--session-timeout-s", str(SESSION_TIMEOUT_S)]
        async with running_members(n, arguments) as members, asyncio.timeout(TIMEOUT_S):
            await _shared_out(members)
            used_s = await _sum("process_cpu_seconds_total", members)
            rebalances = await _sum("stream_fp_rebalances_total", members)
            for member in members:
                member.process.send_signal(signal.SIGSTOP)
            await asyncio.to_thread(fill, servers, topics.input, partitions)
            started_ns = time.perf_counter_ns()
            for member in members:
                member.process.send_signal(signal.SIGCONT)
            await asyncio.to_thread(reader.wait_for, len(expected), TIMEOUT_S)
            await _consumed(members, n_records)
            used_s = await _sum("process_cpu_seconds_total", members) - used_s
            if rebalances != await _sum("stream_fp_rebalances_total", members):
                raise RuntimeError("partitions changed hands during the run")
            consumed = await _sum("stream_fp_records_consumed_total", members)
    if consumed != n_records or sorted(seen[:2] for seen in reader.seen) != sorted(expected):
        msg = (
            f"the run went wrong: {consumed} of {n_records} records, {len(reader.seen)} of {len(expected)} predictions"
        )
        raise RuntimeError(msg)
    span_s = (max(seen_ns for *_, seen_ns in reader.seen) - started_ns) / 1e9
    return (sum(last.values()) + len(last)) / span_s, 1e6 * used_s / n_records


async def _shared_out(members: Sequence[ServiceProcess]) -> None:
    """Wait until every member owns its share of the partitions and is ready."""
    share = PARTITIONS // len(members)
    while True:
        owned = [await member.total("stream_fp_assigned_partitions") for member in members]
        ready = [(await member.get("/readyz"))[0] == 200 for member in members]
        if all(ready) and owned == [share] * len(members):
            return
        for member in members:
            if member.process.returncode is not None:
                raise RuntimeError(f"a member ended with {member.process.returncode}:\n{member.output()}")
        await asyncio.sleep(ASK_INTERVAL_S)


async def _consumed(members: Sequence[ServiceProcess], n_records: int) -> None:
    """Wait until the members have accounted for all records."""
    while await _sum("stream_fp_records_consumed_total", members) < n_records:  # noqa: ASYNC110 - other processes
        await asyncio.sleep(ASK_INTERVAL_S)


async def _sum(name: str, members: Sequence[ServiceProcess]) -> float:
    return sum([await member.total(name) for member in members])


def _efficiency(runs: dict[int, Runs], n: int, cores: int) -> float:
    return ratio(runs[n].records_per_s, runs[1].records_per_s) / min(n, cores)


def _print(
    runs: dict[int, Runs], efficiency: dict[int, float], n_records: int, cores: int, arguments: argparse.Namespace
) -> None:
    print_table(
        f"Members of one group on {PARTITIONS} partitions, {n_records} records, {cores} cores, medians of "
        f"{arguments.rounds} rounds",
        ["members", "records/s", "min - max", "CPU us a record", "min - max", "efficiency"],
        [
            [
                str(n),
                f"{statistics.median(found.records_per_s):,.0f}", spread(found.records_per_s, 0),
                f"{statistics.median(found.cpu_us_per_record):.1f}", spread(found.cpu_us_per_record, 1),
                f"{efficiency[n]:.2f}",
            ]
            for n, found in runs.items()
        ],
    )  # fmt: skip
    if cores <= max(MEMBERS):
        print(
            f"{cores} cores for members, broker and reader: what more than {cores - 1 or 1} of the members add here is "
            "bounded by the machine, so look at the processor time a record."
        )


if __name__ == "__main__":
    sys.exit(main())
