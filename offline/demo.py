"""``stream-fp demo``: the whole job on one machine, in under a minute, with no broker to install.

Simulates trading sessions, trains a library from the first part, streams the rest through the real service over an
embedded broker, and shows what came out. It ends by itself; its exit status says whether live and replay agreed.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import click
import msgspec
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from offline.artifacts import write_library
from offline.dataset import load_dataset
from offline.simulate import SimulatedSession, interleave, simulate_sessions
from offline.train import train
from stream_fp.config import Settings, load_settings
from stream_fp.kafka.embedded import embedded_broker
from stream_fp.messages import Prediction
from stream_fp.replay import replay_files
from stream_fp.service import Service, load_classifier

__all__ = ["demo"]

_MODEL_VERSION: Final = "1.0.0"
_N_ARCHETYPES: Final = 4
_CONFIDENCE: Final = "calibrated"
#: Two thirds are for training: the rest still fills a screen.
_TRAINING_SHARE: Final = 2 / 3
_TIME_LIMIT_S: Final = 45.0
_N_ROWS_SHOWN: Final = 16
_METRICS_SHOWN: Final = ("prediction_latency", "extraction", "classification", "publish", "sidecar_write")


@click.command(help="Simulate, train, stream and predict on this machine, with an embedded broker.")
@click.option("--sessions", "n_sessions", type=click.IntRange(42, 5000), default=126, show_default=True)
@click.option("--seed", type=int, default=7, show_default=True)
@click.option("--dir", "folder", type=click.Path(path_type=Path, file_okay=False), default=Path("build/demo"))
def demo(n_sessions: int, seed: int, folder: Path) -> int:
    """Run the demo; returns the exit status."""
    console = Console()
    # What the parts would log is shown here in its place; only what goes wrong is worth a line of its own.
    logging.basicConfig(level=logging.ERROR, format="%(levelname)s %(name)s: %(message)s")
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    started_s = time.monotonic()
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)

    sessions = list(simulate_sessions(n_sessions, seed=seed))
    n_training = int(n_sessions * _TRAINING_SHARE)
    history, live = folder / "history.jsonl", folder / "live.jsonl"
    _write_lines(history, sessions[:n_training])
    n_live = _write_lines(live, sessions[n_training:])
    console.print(
        f"[bold]1. Simulated[/] {n_sessions} trading sessions (seed {seed}); {n_training} for training, "
        f"{n_sessions - n_training} with {n_live} records to stream"
    )
    model = folder / "models" / f"v{_MODEL_VERSION}"
    dataset = load_dataset(history)
    metadata = write_library(train(dataset, model_version=_MODEL_VERSION, n_archetypes=_N_ARCHETYPES, seed=seed), model)
    console.print(
        f"[bold]2. Trained[/] {metadata.n_archetypes} archetypes and prefix models at "
        f"{', '.join(f'{m.checkpoint_pct:g}' for m in metadata.prefix_models)} % in {model}"
    )
    console.print(
        "[bold]3. Streaming[/] through `stream-fp run`'s own service; broker: librdkafka's mock cluster in this "
        "process (the wire is real, the broker is not), so delivery is at-least-once here"
    )
    published, metrics = asyncio.run(_stream(live.read_bytes().splitlines(), model, folder / "sidecars", console))

    settings = _settings("", model, folder / "sidecars")
    expected: list[bytes] = []
    replay_files(live, load_classifier(settings), settings, expected.append)
    agreed = sorted(published) == sorted(line.rstrip(b"\n") for line in expected) and bool(published)
    predictions = [msgspec.json.decode(value, type=Prediction) for value in published]
    console.print(_table(predictions))
    console.print(f"[bold]4. Sidecars[/] {len(list((folder / 'sidecars').glob('*/*.json')))} files like "
                  f"{next((folder / 'sidecars').glob('*/*.json'), 'none')}")  # fmt: skip
    console.print("[bold]5. Metrics[/] a few of those that /metrics shows")
    for line in metrics:
        console.print(f"   {line}", highlight=False)
    verdict = "the same bytes as" if agreed else "[red]NOT the same as"
    console.print(
        f"[bold]6. Verdict[/] {len(published)} predictions on the topic, {verdict} `stream-fp replay` of the same "
        f"records; {time.monotonic() - started_s:.0f} s"
    )
    program = sys.argv[0] if sys.argv[0].endswith("stream-fp") else "stream-fp"
    console.print(
        "\nNext: look into a sidecar; replay by yourself:\n"
        f"   {program} replay --input {live} --model-path {model} --confidence-method {_CONFIDENCE} "
        f"--output {folder / 'predictions.jsonl'}\n"
        "and follow a real Kafka:\n"
        f"   {program} run --session-fingerprinting --bootstrap-servers localhost:9092 --model-path {model}",
        highlight=False, soft_wrap=True,
    )  # fmt: skip
    return 0 if agreed else 1


def _write_lines(path: Path, sessions: Sequence[SimulatedSession]) -> int:
    lines = [msgspec.json.encode(message) for message in interleave(sessions)]
    path.write_bytes(b"\n".join(lines) + b"\n")
    return len(lines)


def _settings(bootstrap: str, model: Path, sidecars: Path) -> Settings:
    flags: dict[str, Any] = {
        "enabled": True,
        "delivery": "at-least-once",
        "model_path": str(model),
        "sidecar_dir": str(sidecars),
        "http_host": "127.0.0.1",
        "http_port": 0,
        "commit_interval_s": 0.2,
        "confidence_method": _CONFIDENCE,
    }
    return load_settings(flags | ({"bootstrap_servers": bootstrap} if bootstrap else {}), {})


async def _stream(lines: list[bytes], model: Path, sidecars: Path, console: Console) -> tuple[list[bytes], list[str]]:
    """Publish the records, wait until the service has consumed them all, and return its predictions and metrics."""
    names = Settings()
    with embedded_broker(names.input_topic, names.output_topic, names.dead_letter_topic) as bootstrap:
        settings = _settings(bootstrap, model, sidecars)
        stop = asyncio.Event()
        async with asyncio.timeout(_TIME_LIMIT_S), Service(settings) as service:
            running = asyncio.create_task(service.run(stop))
            try:
                await _feed(lines, settings, service, console)
                metrics = _metric_lines(service)
            finally:
                stop.set()
                await running
        return await _read_all(settings), metrics


async def _feed(lines: list[bytes], settings: Settings, service: Service, console: Console) -> None:
    columns = TextColumn("   {task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=console) as progress:
        sent = progress.add_task("published", total=len(lines))
        done = progress.add_task("consumed ", total=len(lines))
        async with AIOKafkaProducer(bootstrap_servers=settings.bootstrap_servers) as producer:
            for line in lines:
                key = msgspec.json.decode(line)["session_id"].encode()
                await producer.send(settings.input_topic, key=key, value=line)
                progress.advance(sent)
                progress.update(done, completed=_n_consumed(service))
            await producer.flush()
        while (n := _n_consumed(service)) < len(lines):
            progress.update(done, completed=n)
            await asyncio.sleep(0.05)
        progress.update(done, completed=len(lines))


def _n_consumed(service: Service) -> int:
    return sum(view.counts.consumed for view in service.views())


async def _read_all(settings: Settings) -> list[bytes]:
    consumer = AIOKafkaConsumer(
        settings.output_topic, bootstrap_servers=settings.bootstrap_servers, auto_offset_reset="earliest"
    )
    await consumer.start()
    values: list[bytes] = []
    try:
        ends = await consumer.end_offsets(list(consumer.assignment()))
        while len(values) < sum(ends.values()):
            for records in (await consumer.getmany(timeout_ms=1000)).values():
                values += [record.value for record in records]
    finally:
        await consumer.stop()
    return values


def _metric_lines(service: Service) -> list[str]:
    registry = service.metrics.registry
    lines = []
    for what in _METRICS_SHOWN:
        name = f"stream_fp_{what}_seconds"
        n = registry.get_sample_value(f"{name}_count") or 0
        total_s = registry.get_sample_value(f"{name}_sum") or 0
        if n:
            lines.append(f"{name:40} {n:6.0f} observed, mean {1e3 * total_s / n:8.3f} ms")
    counts = [view.counts for view in service.views()]
    consumed, applied = sum(c.consumed for c in counts), sum(c.applied for c in counts)
    ignored = sum(n for c in counts for n in c.ignored.values())
    dead = sum(n for c in counts for n in c.dead_lettered.values())
    lines.append(f"records: {consumed} consumed = {applied} applied + {ignored} ignored + {dead} dead-lettered")
    return lines


def _table(predictions: Sequence[Prediction]) -> Table:
    title = "Predictions" + (f" (first {_N_ROWS_SHOWN})" if len(predictions) > _N_ROWS_SHOWN else "")
    table = Table(title=title, title_justify="left", box=box.SIMPLE, padding=(0, 1, 0, 0))
    for heading in ("session", "seen", "arch.", "conf.", "volatility", "range % P10 P50 P90"):
        table.add_column(heading, no_wrap=True, justify="left" if heading == "session" else "right")
    ordered = sorted(predictions, key=lambda p: (p.classification_metadata.timestamp, p.session_id))
    for prediction in ordered[:_N_ROWS_SHOWN]:
        stats = prediction.predicted_stats
        band = stats.natural_units.range_pct
        table.add_row(
            prediction.session_id,
            f"{prediction.pct_seen:.0f}%",
            str(prediction.archetype_id),
            f"{prediction.confidence:.0%}",
            stats.volatility_class,
            f"{band.p10:.2f} {band.p50:.2f} {band.p90:.2f}",
        )
    return table
