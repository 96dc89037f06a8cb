"""Measure the service end to end against a consumer that only calls `getmany` on the same topic.

The service is `stream-fp run` as a user starts it, exactly-once, on a real broker, without sidecar files unless they
are asked for; it does the whole job, predictions included. The other is `bare_consumer.py`, whose records go nowhere.
Both are processes of their own that read one topic of one partition from its beginning, turn by turn. The rate is taken
over the same records: from the first prediction beyond a tenth of the topic to the last one, as a `read_committed`
reader sees them, so that neither start nor joining counts. Processor time is that of the process alone, without broker
and reader. Every prediction that the engine alone makes has to come, else it raises.

With `--traced` the service has a third turn, in which every prediction is traced to a collector that throws it away.

    python -m benchmarks.service [--rounds 5] [--instruments 200] [--sessions 28] [--sidecars] [--traced] [--seed 1]
                                 [--quick]
"""

from __future__ import annotations

import asyncio
import bisect
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Self

from benchmarks.harness import new_parser, print_table, ratio, spread, stream_records, trained_library, write_report
from benchmarks.live import (
    Reader,
    Topics,
    expected_offsets,
    fill,
    member_arguments,
    new_topics,
    running_members,
    source_of,
)
from stream_fp.library import load_library
from tests.support.broker import running_broker
from tests.support.collector import collector

SERVICE, GETMANY = "service, exactly-once, the whole job", "getmany alone"
TRACED = "service, every prediction traced"
#: Of the records: before, caches are cold and the reader is behind.
WARM_UP: Final = 0.1
TIMEOUT_S: Final = 300.0


@dataclass
class Speeds:
    """One way through the topic: a sample a round."""

    records_per_s: list[float] = field(default_factory=list)
    cpu_us: list[float] = field(default_factory=list)


class CpuClock(threading.Thread):
    """Notes the processor time of a process now and then; a context manager."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self._pid = pid
        self._ending = threading.Event()
        self._marks: list[tuple[int, float]] = []

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        self.join()

    def run(self) -> None:
        """Look until told to end."""
        while not self._ending.wait(0.02):
            self._marks.append((time.perf_counter_ns(), _cpu_s(self._pid)))

    def at(self, time_ns: int) -> float:
        """Return the processor time at the look nearest after `time_ns`."""
        place = min(bisect.bisect(self._marks, (time_ns, 0.0)), len(self._marks) - 1)
        return self._marks[place][1]


def _cpu_s(pid: int) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main() -> int:
    """Run the benchmark; returns the exit status."""
    parser = new_parser(__doc__)
    parser.add_argument("--instruments", type=int, default=200)
    parser.add_argument("--sessions", type=int, default=28, help="of each instrument, one after another; seven a day")
    parser.add_argument("--sidecars", action="store_true", help="write sidecar files too")
    parser.add_argument("--traced", action="store_true", help="measure what tracing costs too")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.rounds, arguments.sessions = min(arguments.rounds, 5), 14
    records = stream_records(arguments.instruments, arguments.sessions, arguments.seed)
    model_path = trained_library(arguments.seed)
    offsets = expected_offsets(records, load_library(model_path))
    first = next(offset for offset in offsets if offset >= WARM_UP * len(records))
    speeds = {name: Speeds() for name in (SERVICE, GETMANY, *([TRACED] if arguments.traced else []))}
    with running_broker() as broker, tempfile.TemporaryDirectory() as folder:
        sidecars = Path(folder) if arguments.sidecars else None
        with new_topics(broker.bootstrap_servers) as topics:
            fill(topics.servers, topics.input, [records])
            n_records = len(records)
            del records
            for _ in range(arguments.rounds):
                asyncio.run(_serve(topics, model_path, offsets, first, sidecars, speeds[SERVICE]))
                _read(topics, n_records, first, offsets[-1], speeds[GETMANY])
                if arguments.traced:
                    with collector() as address:
                        asyncio.run(_serve(topics, model_path, offsets, first, sidecars, speeds[TRACED], address))
        figures = {
            "service_over_getmany": ratio(speeds[SERVICE].records_per_s, speeds[GETMANY].records_per_s),
            "service_records_per_s": statistics.median(speeds[SERVICE].records_per_s),
            "service_cpu_us": statistics.median(speeds[SERVICE].cpu_us),
            "getmany_cpu_us": statistics.median(speeds[GETMANY].cpu_us),
        }
        if arguments.traced:
            figures["traced_over_untraced"] = ratio(speeds[TRACED].records_per_s, speeds[SERVICE].records_per_s)
        details = {name: vars(one) for name, one in speeds.items()}
        write_report(
            "service", arguments, figures, n_records=n_records, n_predictions=len(offsets), broker=broker.origin,
            samples=details,
        )  # fmt: skip
    _print(speeds, figures, n_records, len(offsets))
    return 0


async def _serve(  # noqa: PLR0917 - one call
    topics: Topics,
    model_path: Path,
    offsets: Sequence[int],
    first: int,
    sidecars: Path | None,
    speeds: Speeds,
    collector: str = "",
) -> None:
    """Let a new group follow the topic, with an output topic of its own; where there is a collector, with traces."""
    with new_topics(topics.servers) as made:
        mine = Topics(servers=topics.servers, input=topics.input, output=made.output, dead_letters=made.dead_letters)
        arguments = [*member_arguments(mine, model_path, sidecars=sidecars), "--group-id", f"group-{made.input}"]
        environment = {}
        if collector:
            arguments += ["--tracing", "otlp"]
            environment["OTEL_EXPORTER_OTLP_ENDPOINT"] = collector
        with Reader(topics.servers, made.output, key=source_of) as reader:
            async with running_members(1, arguments, environment=environment) as (member,):
                with CpuClock(member.process.pid) as clock:
                    await asyncio.to_thread(reader.wait_for, len(offsets), TIMEOUT_S)
                    await asyncio.sleep(0.1)
    found = {offset: time_ns for _, offset, time_ns in reader.seen}
    if sorted(found) != list(offsets) or len(reader.seen) != len(offsets):
        msg = f"expected {len(offsets)} predictions, found {len(reader.seen)}, of {len(found)} records"
        raise RuntimeError(msg)
    n, began_ns, ended_ns = offsets[-1] - first, found[first], found[offsets[-1]]
    speeds.records_per_s.append(1e9 * n / (ended_ns - began_ns))
    speeds.cpu_us.append(1e6 * (clock.at(ended_ns) - clock.at(began_ns)) / n)


def _read(topics: Topics, n_records: int, first: int, last: int, speeds: Speeds) -> None:
    command = [sys.executable, "-m", "benchmarks.bare_consumer", topics.servers, topics.input, str(n_records)]
    told = subprocess.run(command, check=True, capture_output=True, timeout=TIMEOUT_S).stdout
    marks = [mark for mark in json.loads(told) if first <= mark[0] <= last]
    (began, began_ns, began_cpu_s), (ended, ended_ns, ended_cpu_s) = marks[0], marks[-1]
    speeds.records_per_s.append(1e9 * (ended - began) / (ended_ns - began_ns))
    speeds.cpu_us.append(1e6 * (ended_cpu_s - began_cpu_s) / (ended - began))


def _print(speeds: dict[str, Speeds], figures: dict[str, float], n_records: int, n_predictions: int) -> None:
    print_table(
        f"One process, one partition, {n_records} records, {n_predictions} predictions",
        ("", "records/s", "min - max", "CPU us a record"),
        [
            (
                name, f"{statistics.median(one.records_per_s):,.0f}", spread(one.records_per_s, 0),
                f"{statistics.median(one.cpu_us):.2f}",
            )
            for name, one in speeds.items()
        ],
    )  # fmt: skip
    print(f"The service over getmany alone: {figures['service_over_getmany']:.2f}")
    if TRACED in speeds:
        print(f"Traced over not traced: {figures['traced_over_untraced']:.2f}")


if __name__ == "__main__":
    sys.exit(main())
