"""The order of work of ``stream-fp replay``: plan, run, put in place, judge.

I/O. What judges, shows progress and talks to clusters comes with the offline packages, found by name; without them
there are predictions, books, and plain lines.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import signal
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
from stream_fp.replay.places import output_paths, put_predictions, session_files, work_folder
from stream_fp.replay.plan import NamedSettings, Part, parts_of_files, parts_of_ranges
from stream_fp.replay.publish import publish_predictions
from stream_fp.replay.results import VariantResult
from stream_fp.replay.run import PLAN_FILE, PartRunner, Plan, Progress, Replay, local_runner, remove_work
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


def perform(options: ReplayOptions, variants: Mapping[str, Settings]) -> int:
    """Replay, and say what came of it; return the exit status: 1 where files could not be read.

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
    outputs = output_paths(options.output, options.report, list(variants))
    if options.output_topic is not None:
        _check_output_topic(options.output_topic, options, settings, len(variants))
    with work_folder(options.output or options.report) as folder, _interruptible():
        is_there = (folder / PLAN_FILE).is_file()
        named = tuple(_named(name, chosen) for name, chosen in variants.items())
        # Looked for first: without them, an older output stays as it is.
        files = None if options.source is None else session_files(options.source, outputs, folder, options.report)
        present = _judge(options, list(variants), is_going_on=options.resume and is_there)
        replay = Replay(
            variants=named,
            source=options.words,
            request=_request(options, settings, files),
            with_outcomes=present is not None,
            folder=folder,
        )
        with _begun(replay, options, settings, files) as plan:
            if options.resume != is_there:
                click.echo(
                    "there is nothing to go on with; begun from the start"
                    if options.resume
                    else "an unfinished replay was begun anew; with --resume it is gone on with",
                    err=True,
                )
            results = _run(replay, plan, options, files)
            for result, output in zip(results, outputs, strict=True):
                _say_books(result, "file" if options.source is not None else "partition", output)
                if output is not None or len(results) == 1:
                    result.predictions_path = put_predictions(result.predictions_path, output, _place_setting(options))
            if present is not None:
                present(results)
            if options.output_topic is not None:
                n_published = asyncio.run(
                    publish_predictions(
                        settings,
                        plan.parts,
                        folder,
                        options.output_topic,
                        options.topics,
                        stamp=plan.fingerprint,
                        unless_there=options.resume,
                    )
                )
                click.echo(f"{_n(n_published, 'prediction')} published to {options.output_topic}", err=True)
            remove_work(folder)
    return int(bool(results[0].summary.unreadable))


def rehearse(options: ReplayOptions, settings: Settings, speed: float | None) -> None:
    """Publish recorded history to a topic, at a pace; see `stream_fp.replay.rehearsal`."""
    from stream_fp.replay.rehearsal import rehearse_files, rehearse_topics  # noqa: PLC0415 - of this alone

    def say(line: str) -> None:
        click.echo(line, err=True)

    topic = options.output_topic or ""
    pace = "as fast as it goes" if speed is None else f"at {speed:g} times the pace of event time"
    say(f"publishing {options.words} to {topic}, {pace}; Ctrl-C stops")
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
            with _progress("rehearsal", hidden=False) as progress:
                summary = asyncio.run(
                    rehearse_topics(settings, spans, output_topic=topic, speed=speed, progress=progress, say=say)
                )
    for line in summary.unreadable:
        say(f"not used: {line}")
    say(f"{_n(summary.n_records, 'record')} of {_n(summary.n_sources, 'source')} published to {topic}")


# ----------------------------------------------------------------------------------------------------- before the work


def _named(name: str, settings: Settings) -> NamedSettings:
    load_classifier(settings)  # says what is wrong before anything is begun
    return NamedSettings(name=name, settings=settings, library=load_library(Path(settings.model_path)).fingerprint)


def _place_setting(options: ReplayOptions) -> str:
    return "output" if options.output is not None else "report"


def _request(options: ReplayOptions, settings: Settings, files: list[tuple[Path, int]] | None) -> tuple[str, ...]:
    if files is not None:
        return tuple(f"{path} {size} {path.stat().st_mtime_ns}" for path, size in files)
    return (
        settings.bootstrap_servers,
        *options.topics,
        *map(repr, options.from_),
        "to",
        *map(repr, options.to),
        f"{options.look_back_days:g}",
    )


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
            place = options.output or options.report
            raise ConfigError(_place_setting(options), f"{place}: {error.strerror or error}") from error
        if options.resume and files is None:
            asyncio.run(_check_marks(plan, settings))
        yield plan


async def _check_marks(plan: Plan, settings: Settings) -> None:
    """Refuse to go on with topics that were made anew, or lack what is still to be read."""
    async with TopicHistory(settings) as history:
        for part in plan.parts:
            if (one := part.range) is None:
                continue
            try:
                found = await history.mark(one.partition, one.read_from, one.end)
            except ServiceError as error:
                raise ConfigError("resume", f"{one.name}: the records of the unfinished replay are gone") from error
            if found != one.mark:
                raise ConfigError(
                    "resume", f"{one.name}: other records lie at offset {one.read_from} than when the replay began"
                )


async def _ranges(options: ReplayOptions, settings: Settings, *, look_back: bool) -> list[Range]:
    async with TopicHistory(settings) as history:
        return await history.ranges(
            options.topics,
            from_=options.from_,
            to=options.to,
            look_back_us=int(options.look_back_days * _DAY_US) if look_back else 0,
            with_marks=look_back,
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
            raise ConfigError("scheduler", "expected --backend dask or ray beside it, got local")
        return local_runner(min(options.n_workers or _usual_workers(plan, files), len(plan.parts)))
    make: Callable[..., AbstractContextManager[PartRunner]] = load_extension(
        "runner", setting="backend", extra=options.backend
    )
    return make(options.backend, options.scheduler, options.n_workers or -1)


def _usual_workers(plan: Plan, files: list[tuple[Path, int]] | None) -> int:
    size = sum(part.size for part in plan.parts)
    least = _WORTH_WORKERS_RECORDS if files is None else _WORTH_WORKERS_BYTES
    return (os.cpu_count() or 1) if size >= least else 1


def _judge(
    options: ReplayOptions, names: list[str], *, is_going_on: bool
) -> Callable[[list[VariantResult]], None] | None:
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
    # What is there of a report that was interrupted is ours.
    force = options.force or is_going_on
    if options.report is not None:
        load_extension("backtest_check", setting="report")(options.report, names, force=force)
    # Where predictions go to standard output, nothing else does.
    to_stderr = options.output is None and options.report is None and len(names) == 1
    return functools.partial(present, folder=options.report, force=force, to_stderr=to_stderr)


def _check_output_topic(topic: str, options: ReplayOptions, settings: Settings, n_variants: int) -> None:
    if n_variants > 1:
        raise ConfigError("output_topic", "expected one set of settings, whose predictions are published, got several")
    if topic in (*options.topics, settings.input_topic):
        raise ConfigError("output_topic", f"expected another topic than sessions are read from, got `{topic}`")


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
    hint = "the same command with --resume goes on where it was"
    try:
        with _progress("replay", hidden=not is_kept) as progress:
            return replay.run(plan, _runner(options, plan, files), progress)
    except (KeyboardInterrupt, ReplayStoppedError):
        if is_kept:
            click.echo(f"stopped; {hint}", err=True)
        raise
    except (ConfigError, DocumentError) as error:
        if not (options.resume and isinstance(error, ConfigError)):
            remove_work(replay.folder)  # to go on would come to the same
        raise
    except OSError as error:
        raise ServiceError(f"{replay.folder}: {error.strerror or error}{'; ' + hint if is_kept else ''}") from error


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
        f"{_n(summary.n_sources, noun)}, {_n(counts.consumed, 'record')}: {counts.applied} applied"
        f"{f' ({lost})' if lost else ''}; "
        f"{_n(counts.sessions_opened, 'session')}, {_n(counts.predictions, 'prediction')}"
        f"{f' (without one: {silent})' if silent else ''}{f' in {output}' if output is not None else ''}",
        err=True,
    )
    if edges.n_at_start:
        click.echo(
            f"cut at the start: {_n(edges.n_at_start, 'session')} began before the range, or may have; of these, "
            f"{edges.n_at_start_predicted} reached a checkpoint within it",
            err=True,
        )
    if edges.n_at_end:
        click.echo(
            f"cut at the end: {_n(edges.n_at_end, 'session')} not over where the records end, "
            f"{edges.n_at_end_predicted} of them predicted, so that what came is not known",
            err=True,
        )


def _n(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' * (number != 1)}"
