"""``stream-fp demo``: the whole job on one machine, in under a minute, with no broker to install.

Simulates trading sessions, trains a library from the first part, streams the rest through the real service over an
embedded broker, and shows what came out. It ends by itself; its exit status says whether live and replay agreed.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import click
import msgspec
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from offline.artifacts import write_library
from offline.console import command_lines, program_path
from offline.dataset import Tables, load_dataset
from offline.demo_folder import MODEL_VERSION, DemoFolder
from offline.demo_view import archetype_lines, predictions_table, verdict_lines
from offline.evaluate import EvaluationOptions, evaluate
from offline.profiles import DEFAULT_PROFILE
from offline.simulate import SimulatedSession, interleave, simulate_sessions
from offline.train import TrainingOptions, train
from stream_fp.config import Settings, load_settings
from stream_fp.errors import ServiceError
from stream_fp.kafka.embedded import embedded_broker
from stream_fp.library import load_library
from stream_fp.loading import load_classifier
from stream_fp.messages import Prediction
from stream_fp.outcomes import Counts
from stream_fp.replay.files import replay_files
from stream_fp.service import Service

__all__ = ["demo"]

_N_ARCHETYPES: Final = 4
_MAX_SEED: Final = 2**32 - 1  # what scikit-learn takes
#: Most are for training: the rest still fills more than a screen.
_TRAINING_SHARE: Final = 4 / 5
#: For starting up, and for each record about ten times what was measured on two cores.
_TIME_LIMIT_S: Final = 45.0
_TIME_LIMIT_PER_RECORD_S: Final = 0.005
_METRICS_SHOWN: Final = ("prediction_latency", "extraction", "classification", "publish", "sidecar_write")
_SETTINGS: Final = Settings()
_AT_CHECKPOINT: Final = f"the {_SETTINGS.checkpoints[0]:g} % checkpoint"
_WHY_UNPREDICTED: Final = {
    "too_few_events": f"had fewer than {_SETTINGS.min_events} events at {_AT_CHECKPOINT}",
    "closed_before_checkpoint": f"ended before {_AT_CHECKPOINT}",
    "completion_unknown": "did not tell how complete they were",
}
_WHY_IGNORED: Final = {
    "after_last_checkpoint": "came after their session's last checkpoint, when nothing more is needed",
    "after_close": "came after their session had closed",
}


@click.command(
    help="Simulate, train, stream and predict on this machine, with an embedded broker.",
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.option(
    "--sessions",
    "n_sessions",
    type=click.IntRange(42, 5000),
    default=420,
    show_default=True,
    help="How many to simulate; four fifths are for training.",
)
@click.option("--seed", type=click.IntRange(0, _MAX_SEED), default=7, show_default=True, help="Seed of the simulation.")
@click.option(
    "--dir",
    "path",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("build/demo"),
    show_default=True,
    help="Folder for what the demo writes; new, empty, or of an earlier demo, whose files are replaced.",
)
def demo(n_sessions: int, seed: int, path: Path) -> int:
    """Run the demo; returns the exit status."""
    console = Console()
    # What the parts would log is shown here in its place; only what goes wrong is worth a line of its own.
    logging.basicConfig(level=logging.ERROR, format="%(levelname)s %(name)s: %(message)s")
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    started_s = time.monotonic()
    folder = DemoFolder(path)
    folder.prepare()

    sessions = list(simulate_sessions(n_sessions, seed=seed))
    n_training = int(n_sessions * _TRAINING_SHARE)
    with folder.writing():
        _write_lines(folder.history, sessions[:n_training])
        n_live = _write_lines(folder.live, sessions[n_training:])
    console.print(
        f"[bold]1. Simulated[/] {n_sessions} trading sessions (seed {seed}); {n_training} for training, "
        f"{n_sessions - n_training} with {n_live} records to stream"
    )
    dataset = load_dataset(folder.history)
    library = train(
        dataset,
        TrainingOptions(
            model_version=MODEL_VERSION, n_archetypes=_N_ARCHETYPES, profile=DEFAULT_PROFILE, seed=seed, n_jobs=1
        ),
    )
    metadata = write_library(library, folder.model)
    trained = load_library(folder.model)
    console.print(
        f"[bold]2. Trained[/] {metadata.n_archetypes} archetypes and prefix models at "
        f"{', '.join(f'{m.checkpoint_pct:g}' for m in metadata.prefix_models)} % in {escape(str(folder.model))}"
    )
    console.print(
        "[bold]3. Streaming[/] through `stream-fp run`'s own service; broker: librdkafka's mock cluster in this "
        "process (the wire is real, the broker is not), so delivery is at-least-once here"
    )
    published, counts, latencies = asyncio.run(_stream(folder.live.read_bytes().splitlines(), folder, console))

    settings = _settings("", folder)
    expected: list[bytes] = []
    replay_files(folder.live, load_classifier(settings), settings, expected.append)
    agreed = sorted(published) == sorted(line.rstrip(b"\n") for line in expected) and bool(published)
    predictions = [msgspec.json.decode(value, type=Prediction) for value in published]
    outcome = load_dataset(
        folder.live,
        tables=Tables(schedules=trained.schedules, typical_events=trained.typical_events),
    )
    console.print(predictions_table(predictions, outcome))
    for line in archetype_lines(trained):
        console.print(line, highlight=False)
    without = _in_words(counts.unpredicted, _WHY_UNPREDICTED)
    console.print(f"{counts.predictions} predictions for {counts.sessions_opened} sessions{without}")
    report = evaluate(outcome, trained, library.metadata, EvaluationOptions(created_at="", n_left_out={}))
    for line in verdict_lines(report, _SETTINGS.checkpoints[0]):
        console.print(line, highlight=False)
    sidecars = sorted(folder.sidecars.glob("*/*.json"))
    example = escape(str(sidecars[0])) if sidecars else "none"
    console.print(f"[bold]4. Sidecars[/] {len(sidecars)} files like {example}")
    console.print("[bold]5. Metrics[/] a few of those that /metrics shows")
    for line in latencies:
        console.print(f"   {line}", highlight=False)
    console.print(
        "Prediction latency counts from the timestamp of the Kafka record: all records are published in one burst "
        "here, so nearly all of it is waiting behind others."
    )
    console.print(
        f"Records: {counts.consumed} consumed = {counts.applied} applied + {sum(counts.ignored.values())} ignored + "
        f"{sum(counts.dead_lettered.values())} dead-lettered{_in_words(counts.ignored, _WHY_IGNORED)}"
    )
    verdict = "the same bytes as" if agreed else "[red]NOT the same as"
    console.print(
        f"[bold]6. Verdict[/] {len(published)} predictions on the topic, {verdict} `stream-fp replay` of the same "
        f"records; {time.monotonic() - started_s:.0f} s"
    )
    console.print(_next_steps(folder), highlight=False, markup=False, soft_wrap=True)
    return 0 if agreed else 1


def _next_steps(folder: DemoFolder) -> str:
    program = program_path()
    replay = command_lines(
        (program, "replay"), ("--input", folder.live), ("--model-path", folder.model), ("--output", folder.predictions)
    )
    judge = command_lines(
        (f"{program}-offline", "evaluate"),
        ("--input", folder.live),
        ("--model-path", folder.model),
        ("--output", folder.report),
    )
    run = command_lines(
        (program, "run"),
        ("--session-fingerprinting",),
        ("--bootstrap-servers", _SETTINGS.bootstrap_servers),
        ("--model-path", folder.model),
    )
    return (
        f"\nNext: look into a sidecar; replay by yourself:\n{replay}\n"
        f"see how good the predictions were, as a page with pictures:\n{judge}\n"
        f"and follow a real Kafka, where the input topic `{_SETTINGS.input_topic}` must exist\n"
        f"(README, 'On your own Kafka', says what else it needs):\n{run}"
    )


def _write_lines(path: Path, sessions: Sequence[SimulatedSession]) -> int:
    lines = [msgspec.json.encode(message) for message in interleave(sessions)]
    path.write_bytes(b"\n".join(lines) + b"\n")
    return len(lines)


def _settings(bootstrap: str, folder: DemoFolder) -> Settings:
    flags: dict[str, Any] = {
        "enabled": True,
        "delivery": "at-least-once",
        "model_path": str(folder.model),
        "sidecar_dir": str(folder.sidecars),
        "http_host": "127.0.0.1",
        "http_port": 0,
        "commit_interval_s": 0.2,
    }
    return load_settings(flags | ({"bootstrap_servers": bootstrap} if bootstrap else {}), {})


async def _stream(lines: list[bytes], folder: DemoFolder, console: Console) -> tuple[list[bytes], Counts, list[str]]:
    """Publish the records, wait until all are consumed; return predictions, books and latencies of the service."""
    names = _SETTINGS
    with embedded_broker(names.input_topic, names.output_topic, names.dead_letter_topic) as bootstrap:
        settings = _settings(bootstrap, folder)
        stop = asyncio.Event()
        limit_s = _TIME_LIMIT_S + len(lines) * _TIME_LIMIT_PER_RECORD_S
        try:
            async with asyncio.timeout(limit_s), Service(settings) as service:
                running = asyncio.create_task(service.run(stop))
                try:
                    await _feed(lines, settings, service, console)
                    counts = sum((view.counts for view in service.views()), Counts())
                    latencies = _latency_lines(service)
                finally:
                    stop.set()
                    await running
        except TimeoutError as error:
            raise ServiceError(f"the {len(lines)} records of the demo were not consumed in {limit_s:.0f} s") from error
        return await _read_all(settings), counts, latencies


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


def _latency_lines(service: Service) -> list[str]:
    registry = service.metrics.registry
    lines = []
    for what in _METRICS_SHOWN:
        name = f"stream_fp_{what}_seconds"
        n = registry.get_sample_value(f"{name}_count") or 0
        total_s = registry.get_sample_value(f"{name}_sum") or 0
        if n:
            lines.append(f"{name:40} {n:6.0f} observed, mean {1e3 * total_s / n:8.3f} ms")
    return lines


def _in_words(counts: Mapping[str, int], why: Mapping[str, str]) -> str:
    told = ", ".join(f"{n} {why.get(reason, reason)}" for reason, n in sorted(counts.items()))
    return f"; {told}" if told else ""
