"""The order of work of ``stream-fp replay``: plan, run, put in place, judge.

I/O. What judges, shows progress and talks to clusters comes with the offline packages, found by name; without them
there are predictions, books, and plain lines.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import click

from stream_fp.config import Settings
from stream_fp.errors import ConfigError, DocumentError, ServiceError
from stream_fp.extensions import load_extension
from stream_fp.files import find_files
from stream_fp.kafka.history import Span, TopicHistory
from stream_fp.kafka.ranges import Bound, Range
from stream_fp.library import load_library
from stream_fp.loading import load_classifier
from stream_fp.replay.plan import NamedSettings, Part, parts_of_files, parts_of_ranges
from stream_fp.replay.publish import publish_predictions
from stream_fp.replay.results import VariantResult
from stream_fp.replay.run import PartRunner, Plan, Progress, Replay, local_runner
from stream_fp.replay.worker import ReplayStoppedError

__all__ = ["ReplayOptions", "perform", "rehearse"]

_DAY_US: Final = 86_400_000_000
#: Below this much, starting processes (about a second) takes longer than they save.
_WORTH_WORKERS_BYTES: Final = 32 * 2**20
_WORTH_WORKERS_RECORDS: Final = 200_000
_PROGRESS_EVERY_S: Final = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayOptions:
    """What the command was told, beside the settings; see its help."""

    source: Path | None
    topics: tuple[str, ...]
    from_: tuple[Bound, ...]
    to: tuple[Bound, ...]
    look_back_days: float
    n_workers: int | None
    backend: str
    scheduler: str | None
    output: Path | None
    report: Path | None
    with_outcomes: bool
    force: bool
    resume: bool
    output_topic: str | None

    @property
    def words(self) -> str:
        """What is replayed."""
        return ", ".join(self.topics) if self.source is None else str(self.source)


def perform(options: ReplayOptions, variants: Mapping[str, Settings]) -> None:
    """Replay, and say what came of it.

    Parameters
    ----------
    options : ReplayOptions
    variants : mapping of str to Settings
        By name; the only one has none.

    Raises
    ------
    StreamFpError
        When something of it is wrong, or cannot be done.
    """
    settings = next(iter(variants.values()))
    outputs = _outputs(options, list(variants))
    judge = _judge(options, list(variants))
    named = tuple(_named(name, chosen) for name, chosen in variants.items())
    if options.output_topic is not None and len(named) > 1:
        raise ConfigError("output_topic", "expected one set of settings, whose predictions are published, got several")
    with _folder(options) as folder, _interruptible():
        # Looked for first: without them, an older output stays as it is.
        files = None if options.source is None else _files(options.source, outputs, folder, options.report)
        replay = Replay(
            variants=named,
            source=options.words,
            request=_request(options, files),
            with_outcomes=judge is not None,
            folder=folder,
        )
        with _begun(replay, options, settings, files) as plan:
            results = _run(replay, plan, options, files)
            if options.output_topic is not None:
                asyncio.run(publish_predictions(settings, plan.parts, folder, options.output_topic, options.topics))
            for result, output in zip(results, outputs, strict=True):
                result.predictions_path = _put(result.predictions_path, output)
            for result, output in zip(results, outputs, strict=True):
                _say_books(result, "files" if options.source is not None else "partitions", output)
            if judge is not None:
                judge(results, options.report, force=options.force, to_stderr=outputs[0] is None)


def rehearse(options: ReplayOptions, settings: Settings, speed: float | None) -> None:
    """Publish recorded history to a topic, at a pace; see `stream_fp.replay.rehearsal`."""
    from stream_fp.replay.rehearsal import rehearse_files, rehearse_topics  # noqa: PLC0415 - of this alone

    def say(line: str) -> None:
        click.echo(line, err=True)

    topic = options.output_topic or ""
    is_paced = speed is not None
    with _interruptible():
        if options.source is not None:
            files = find_files(options.source)
            summary = asyncio.run(rehearse_files(settings, files, output_topic=topic, speed=speed, say=say))
        else:
            found = asyncio.run(_ranges(options, settings, look_back=False))
            spans = [
                Span(partition=one.partition, first=one.first, end=one.end) for one in found if one.end > one.first
            ]
            if not spans:
                raise ServiceError(_why_empty(options, found))
            # At a pace, how far it is in records says little: what comes next, and when, is said in lines.
            with _progress("rehearsal", hidden=is_paced) as progress:
                summary = asyncio.run(
                    rehearse_topics(settings, spans, output_topic=topic, speed=speed, progress=progress, say=say)
                )
    for line in summary.unreadable:
        say(f"not used: {line}")
    say(f"{summary.n_records} records of {summary.n_sources} sources published to {topic}")


# ----------------------------------------------------------------------------------------------------- before the work


def _outputs(options: ReplayOptions, names: list[str]) -> list[Path | None]:
    """Return the file of each variant's predictions.

    That which was named, or beside it with the variant's name; else it lies with the report.
    """
    output, report = options.output, options.report
    if output is None:
        return [None if report is None else report / name / "predictions.jsonl" for name in names]
    return [output if not name else output.with_name(f"{output.stem}-{name}{output.suffix}") for name in names]


def _named(name: str, settings: Settings) -> NamedSettings:
    load_classifier(settings)  # says what is wrong before anything is begun
    return NamedSettings(name=name, settings=settings, library=load_library(Path(settings.model_path)).fingerprint)


def _files(source: Path, outputs: list[Path | None], *folders: Path | None) -> list[tuple[Path, int]]:
    """Return session files with their sizes, but for those that are our own: outputs, and what lies in some folders."""
    ours = {place.absolute() for place in (*outputs, *folders) if place is not None}
    files = [path for path in find_files(source) if ours.isdisjoint((path.absolute(), *path.absolute().parents))]
    if not files:
        raise DocumentError(str(source), "expected session files, found none but our own output")
    return [(path, path.stat().st_size) for path in files]


def _request(options: ReplayOptions, files: list[tuple[Path, int]] | None) -> tuple[str, ...]:
    if files is not None:
        return tuple(f"{path} {size} {path.stat().st_mtime_ns}" for path, size in files)
    return (*options.topics, *map(repr, options.from_), "to", *map(repr, options.to), f"{options.look_back_days:g}")


@contextlib.contextmanager
def _begun(
    replay: Replay, options: ReplayOptions, settings: Settings, files: list[tuple[Path, int]] | None
) -> Iterator[Plan]:
    def make_parts() -> list[Part]:
        if files is not None:
            return parts_of_files(files, options.n_workers or os.cpu_count() or 1)
        found = asyncio.run(_ranges(options, settings, look_back=True))
        if parts := parts_of_ranges(found):
            return parts
        raise ServiceError(_why_empty(options, found))

    with contextlib.ExitStack() as stack:
        try:
            plan = stack.enter_context(replay.begun(make_parts, resume=options.resume))
        except OSError as error:
            setting, place = ("output", options.output) if options.output is not None else ("report", options.report)
            raise ConfigError(setting, f"{place}: {error.strerror}") from error
        yield plan


async def _ranges(options: ReplayOptions, settings: Settings, *, look_back: bool) -> list[Range]:
    async with TopicHistory(settings) as history:
        return await history.ranges(
            options.topics,
            from_=options.from_,
            to=options.to,
            look_back_us=int(options.look_back_days * _DAY_US) if look_back else 0,
        )


def _why_empty(options: ReplayOptions, found: list[Range]) -> str:
    held = ", ".join(f"{one.name} up to offset {one.end}" for one in found[:3])
    times = "; times are those of the Kafka records, not of the sessions" if options.from_ or options.to else ""
    return f"{options.words}: no record lies in the range ({held}{' …' if found[3:] else ''}){times}"


def _runner(
    options: ReplayOptions, plan: Plan, files: list[tuple[Path, int]] | None
) -> AbstractContextManager[PartRunner]:
    if options.backend == "local":
        if options.scheduler is not None:
            raise ConfigError("scheduler", "expected --backend dask beside it, got local")
        return local_runner(min(options.n_workers or _usual_workers(plan, files), len(plan.parts)))
    make: Callable[..., AbstractContextManager[PartRunner]] = load_extension(
        "runner", setting="backend", extra=options.backend
    )
    return make(options.backend, options.scheduler, options.n_workers or -1)


def _usual_workers(plan: Plan, files: list[tuple[Path, int]] | None) -> int:
    size = sum(part.size for part in plan.parts)
    least = _WORTH_WORKERS_RECORDS if files is None else _WORTH_WORKERS_BYTES
    return (os.cpu_count() or 1) if size >= least else 1


def _judge(options: ReplayOptions, names: list[str]) -> Callable[..., None] | None:
    """Return what judges; None where nothing is to be judged, or nothing is there that could."""
    if not options.with_outcomes:
        return None
    try:
        present: Callable[..., None] = load_extension("backtest", setting="report")
    except ConfigError as error:
        if options.report is not None:
            raise
        click.echo(f"outcomes are left out: {error}", err=True)
        return None
    if options.report is not None:
        load_extension("backtest_check", setting="report")(options.report, names, force=options.force)
    return present


@contextlib.contextmanager
def _folder(options: ReplayOptions) -> Iterator[Path]:
    """Yield a folder for work in progress; it stays where the work is not finished and somebody can go on with it."""
    beside = options.output or options.report
    if beside is None:
        with tempfile.TemporaryDirectory(prefix="stream-fp-replay-") as name:
            yield Path(name)
        return
    folder = beside.absolute().with_name(f"{beside.name}.parts")
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """Take SIGTERM as Ctrl-C: work in progress is put away in order."""

    def interrupt(_number: int, _frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


# ------------------------------------------------------------------------------------------------ during and after it


def _run(
    replay: Replay, plan: Plan, options: ReplayOptions, files: list[tuple[Path, int]] | None
) -> list[VariantResult]:
    is_kept = options.output is not None or options.report is not None
    with _progress("replay", hidden=not is_kept) as progress:
        try:
            return replay.run(plan, _runner(options, plan, files), progress)
        except (KeyboardInterrupt, ReplayStoppedError):
            if is_kept:
                click.echo("stopped; the same command with --resume goes on where it was", err=True)
            raise
        except DocumentError:
            shutil.rmtree(replay.folder)  # to go on would come to the same
            raise


@contextlib.contextmanager
def _progress(label: str, *, hidden: bool) -> Iterator[Progress]:
    if hidden:
        yield lambda _done, _total: None
        return
    try:
        show: Any = load_extension("progress", setting="progress")
    except ConfigError:
        show = _plain_progress
    with show(label) as tell:
        yield tell


@contextlib.contextmanager
def _plain_progress(label: str) -> Iterator[Progress]:
    said_s = time.monotonic()

    def tell(n_done: int, n_all: int) -> None:
        nonlocal said_s
        if time.monotonic() - said_s > _PROGRESS_EVERY_S:
            said_s = time.monotonic()
            click.echo(f"{label}: {n_done} of {n_all} records", err=True)

    yield tell


def _put(predictions: Path, output: Path | None) -> Path:
    """Put predictions where they are wanted; return where they are."""
    if output is None:
        with predictions.open("rb") as lines:
            shutil.copyfileobj(lines, sys.stdout.buffer)
        sys.stdout.buffer.flush()
        return predictions
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        os.replace(predictions, output)  # noqa: PTH105 - as atomic as its neighbours
    except OSError as error:
        raise ConfigError("output", f"{output}: {error.strerror}") from error
    return output


def _say_books(result: VariantResult, noun: str, output: Path | None) -> None:
    summary = result.summary
    counts, edges = summary.counts, summary.edges
    for line in (*summary.unreadable, *summary.dead_letters):
        click.echo(f"not used: {line}", err=True)
    lost = ", ".join(
        f"{n} {reason}" for books in (counts.dead_lettered, counts.ignored) for reason, n in sorted(books.items())
    )
    silent = ", ".join(f"{n} {reason}" for reason, n in sorted(counts.unpredicted.items()))
    click.echo(
        f"{f'{result.name}: ' if result.name else ''}"
        f"{summary.n_sources} {noun}, {counts.consumed} records: {counts.applied} applied"
        f"{f' ({lost})' if lost else ''}; "
        f"{counts.sessions_opened} sessions, {counts.predictions} predictions"
        f"{f' (without one: {silent})' if silent else ''}{f' in {output}' if output is not None else ''}",
        err=True,
    )
    n_at_end = edges.n_at_end if result.rows_path is not None else counts.sessions_closed.get("input_ended", 0)
    if edges.n_at_start:
        click.echo(
            f"cut at the start: {edges.n_at_start} sessions began before the range, or may have; "
            f"{edges.n_at_start_predicted} of them reached a checkpoint within it",
            err=True,
        )
    if n_at_end:
        click.echo(
            f"cut at the end: {n_at_end} sessions are not over where the records end"
            + (f"; what came of {edges.n_at_end_predicted} predictions is not known" if edges.n_at_end else ""),
            err=True,
        )
