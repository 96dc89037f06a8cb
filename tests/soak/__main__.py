"""See whether anything grows while the service works at 70 % of what it can: `make soak`, or

    python -m tests.soak [--minutes 60] [--share 0.7] [--partitions 4] [--instruments 400] [--seed 1]

First, for a minute, one process follows a feeder that goes as fast as it can; that is the maximal rate here, with
broker and feeder on the same machine. Then, at the given share of it: sessions open and close all the time, one record
in a hundred cannot be used, and every minute a second process, with another version of the model, joins for half a
minute and leaves. It stops by itself, listens on loopback only, and keeps a few minutes of the input topic.

What must stay flat, from the first third after a warm-up of a tenth to the last third: records taken a minute (10 %),
predictions a minute (10 %), memory of the process that lives throughout (5 %), its file descriptors, threads, tasks and
series of metrics (no more than two more: they are looked at once a minute, amid whatever is under way), and the bucket
of the 99th percentile of latency (the same, or the next). The last line is the verdict; the exit status is not 0 where
it is not kept.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import statistics
import sys
import tempfile
import time
import uuid
from collections.abc import AsyncIterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic
from rich.console import Console
from rich.table import Table

from benchmarks.harness import trained_library
from offline.artifacts import write_library
from offline.dataset import load_dataset
from offline.train import TrainingOptions, train
from tests.support.broker import running_broker
from tests.support.service import ServiceProcess, running_service, start_service

BUILD: Final = Path(__file__).resolve().parents[2] / "build" / "soak"
#: Of input records kept.
_RETENTION_MS: Final = 4 * 60_000
_SEGMENT_BYTES: Final = 64 * 2**20
_CALIBRATION_S: Final = 60.0
_BAD_SHARE: Final = 0.01
_PERIOD_S: Final = 60.0
_GUEST_S: Final = 30.0
_WARM_UP: Final = 0.1
_console: Final = Console()


@dataclass(frozen=True, slots=True, kw_only=True)
class Minute:
    """What was seen at the end of one minute, while the second process is away; counts are of the minute.

    Predictions are those of the process that lives throughout.
    """

    at_s: float
    n_taken: int
    n_predicted: int
    lag: int
    rss_mb: float
    n_fds: int
    n_threads: int
    n_tasks: int
    n_series: int
    p99_ms: float
    p99_bucket: int
    n_rebalances: int


@dataclass(slots=True)
class Feeder:
    """The process that feeds, and how much was acknowledged."""

    process: asyncio.subprocess.Process
    n_sent: int = 0

    async def follow(self) -> None:
        """Read what it says until it ends."""
        assert self.process.stdout is not None
        async for line in self.process.stdout:
            self.n_sent = int(line)


def main() -> None:
    """Run; the exit status tells the verdict."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=int, default=60)
    parser.add_argument("--share", type=float, default=0.7, help="of the maximal rate")
    parser.add_argument("--partitions", type=int, default=4)
    parser.add_argument("--instruments", type=int, default=400, help="whose sessions are open at a time")
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    with running_broker() as broker, tempfile.TemporaryDirectory() as folder:
        minutes, maximal = asyncio.run(_soak(broker.bootstrap_servers, Path(folder), given))
    _report(minutes, maximal, given)


async def _soak(servers: str, folder: Path, given: argparse.Namespace) -> tuple[list[Minute], float]:
    first = trained_library(given.seed)
    second = _other_version(first, folder)
    async with _topic(servers, given.partitions) as topic:
        arguments = _arguments(servers, topic, first)
        async with running_service(folder / "calibration.log", *arguments) as service:
            await service.wait_ready()
            feeder, following = await _feed(servers, topic, given, rate=0.0, seconds=_CALIBRATION_S)
            began, began_s = await _taken(service), time.monotonic()
            await following
            maximal = (await _taken(service) - began) / (time.monotonic() - began_s)
            del feeder
            await service.terminate()
    rate = given.share * maximal
    _console.print(f"at most {maximal:,.0f} records/s here; soaking at {rate:,.0f} for {given.minutes} minutes")
    async with _topic(servers, given.partitions) as topic:
        arguments = _arguments(servers, topic, first)
        async with running_service(folder / "host.log", *arguments) as host:
            await host.wait_ready()
            feeder, following = await _feed(servers, topic, given, rate=rate, seconds=_PERIOD_S * given.minutes + 30)
            try:
                minutes = await _minutes(host, feeder, _arguments(servers, topic, second), given.minutes, folder)
            finally:
                if feeder.process.returncode is None:
                    feeder.process.kill()
                await following
            assert await host.terminate(60) == 0, host.output()[-2000:]
    return minutes, maximal


async def _minutes(
    host: ServiceProcess, feeder: Feeder, guest_arguments: Sequence[str], n_minutes: int, folder: Path
) -> list[Minute]:
    minutes: list[Minute] = []
    predicted_before, rebalances_before = 0, 0.0
    before, buckets_before = 0, await _buckets(host)
    began_s = time.monotonic()
    for number in range(n_minutes):
        guest = await start_service(folder / "guest.log", *guest_arguments)
        try:
            await asyncio.sleep(_GUEST_S)
            assert await guest.terminate(60) == 0, guest.output()[-2000:]
        finally:
            await guest.kill()
        await asyncio.sleep(max(0.0, began_s + (number + 1) * _PERIOD_S - time.monotonic()))
        assert host.process.returncode is None, host.output()[-2000:]
        lag = int(await host.total("stream_fp_position_lag_records"))
        taken = feeder.n_sent - lag
        predicted = int(await host.total("stream_fp_predictions_total"))
        buckets, rebalances = await _buckets(host), await host.total("stream_fp_rebalances_total")
        p99_s = _quantile(0.99, buckets_before, buckets)
        _, text = await host.get("/metrics")
        process = Path(f"/proc/{host.process.pid}")
        status = dict(line.split(":", 1) for line in (process / "status").read_text().splitlines())
        minutes.append(
            Minute(
                at_s=round(time.monotonic() - began_s, 1), n_taken=taken - before,
                n_predicted=predicted - predicted_before, lag=lag,
                rss_mb=int(status["VmRSS"].split()[0]) / 1024, n_fds=sum(1 for _ in (process / "fd").iterdir()),
                n_threads=int(status["Threads"]), n_tasks=int(await host.total("stream_fp_event_loop_tasks")),
                n_series=sum(not line.startswith("#") for line in text.splitlines()),
                p99_ms=1e3 * p99_s, p99_bucket=sum(bound < p99_s for bound in buckets),
                n_rebalances=int(rebalances - rebalances_before),
            )
        )  # fmt: skip
        predicted_before = predicted
        before, buckets_before, rebalances_before = taken, buckets, rebalances
        _console.print(json.dumps(asdict(minutes[-1])), soft_wrap=True, highlight=False)
    return minutes


async def _taken(service: ServiceProcess) -> float:
    return await service.total("stream_fp_records_consumed_total")


async def _buckets(service: ServiceProcess) -> dict[float, float]:
    name = "stream_fp_prediction_latency_seconds_bucket"
    return {float(dict(labels)["le"]): n for (found, labels), n in (await service.metrics()).items() if found == name}


def _quantile(share: float, before: dict[float, float], after: dict[float, float]) -> float:
    """Return the upper end of the bucket that holds a quantile of what came between two scrapes, in seconds."""
    counts = {bound: after[bound] - before.get(bound, 0.0) for bound in sorted(after)}
    total = counts[max(counts)]
    return next((bound for bound, n in counts.items() if n >= share * total), 0.0)


async def _feed(
    servers: str, topic: str, given: argparse.Namespace, *, rate: float, seconds: float
) -> tuple[Feeder, asyncio.Task[None]]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.soak.feed", servers, topic, str(given.partitions), str(rate), str(seconds),
        str(given.instruments), str(_BAD_SHARE), str(given.seed), stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    feeder = Feeder(process)
    following = asyncio.create_task(feeder.follow())
    while not feeder.n_sent:
        await asyncio.sleep(0.1)
        assert not following.done(), "the feeder has ended"
    return feeder, following


def _arguments(servers: str, topic: str, model: Path) -> tuple[str, ...]:
    return (
        "--session-fingerprinting", "--bootstrap-servers", servers, "--input-topic", topic,
        "--output-topic", f"{topic}-out", "--dead-letter-topic", f"{topic}-dlq", "--group-id", topic,
        "--model-path", str(model), "--sidecar-dir", "", "--log-level", "WARNING",
    )  # fmt: skip


def _other_version(first: Path, folder: Path) -> Path:
    options = TrainingOptions(model_version="1", n_archetypes=4, profile="pace")
    write_library(train(load_dataset(first.parent / "sessions.jsonl"), options), folder / "v1")
    return folder / "v1"


@contextlib.asynccontextmanager
async def _topic(servers: str, n_partitions: int) -> AsyncIterator[str]:
    name = f"soak-{uuid.uuid4().hex[:8]}"
    admin = AdminClient({"bootstrap.servers": servers, "log_level": 3})
    config = {"retention.ms": str(_RETENTION_MS), "segment.bytes": str(_SEGMENT_BYTES)}
    names = [name, f"{name}-out", f"{name}-dlq"]
    for made in admin.create_topics([NewTopic(one, n_partitions, 1, config=config) for one in names]).values():
        made.result(30)
    try:
        yield name
    finally:
        for deleted in admin.delete_topics(names).values():
            with contextlib.suppress(Exception):
                deleted.result(30)


def _report(minutes: list[Minute], maximal: float, given: argparse.Namespace) -> None:
    kept = minutes[round(_WARM_UP * len(minutes)) :]
    third = max(1, len(kept) // 3)
    first, last = kept[:third], kept[-third:]

    def median(which: list[Minute], name: str) -> float:
        return float(statistics.median_high(getattr(one, name) for one in which))

    #: Ratios, and how much more counts as none.
    bounds = {
        "n_taken": (0.9, 1.1, 0), "n_predicted": (0.9, 1.1, 0), "rss_mb": (0.0, 1.05, 0), "n_fds": (0.0, 1.0, 2),
        "n_threads": (0.0, 1.0, 2), "n_tasks": (0.0, 1.0, 2), "n_series": (0.0, 1.0, 2), "p99_bucket": (0.0, 1.0, 1),
    }  # fmt: skip
    table = Table("", "first third", "last third", "ratio", "allowed", "")
    wrong = []
    for name, (low, high, more) in bounds.items():
        one, other = median(first, name), median(last, name)
        ratio = other / one if one else float(other > 0)
        is_kept = low <= ratio <= high or one <= other <= one + more
        if not is_kept:
            wrong.append(name)
        allowance = f", or {more} more" if more else ""
        table.add_row(
            name,
            f"{one:,.1f}",
            f"{other:,.1f}",
            f"{ratio:.3f}",
            f"{low:g} - {high:g}{allowance}",
            "" if is_kept else "NOT KEPT",
        )
    _console.print(table)
    BUILD.mkdir(parents=True, exist_ok=True)
    report = {"arguments": vars(given), "maximal_per_s": maximal, "minutes": [asdict(one) for one in minutes]}
    (BUILD / "report.json").write_text(json.dumps(report, indent=1))
    n_taken = sum(one.n_taken for one in minutes)
    _console.print(
        f"{n_taken:,} records, {sum(one.n_rebalances for one in minutes)} rebalances, {len(minutes)} minutes"
    )
    _console.print(f"VERDICT: {'flat' if not wrong else 'grows: ' + ', '.join(wrong)}")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
