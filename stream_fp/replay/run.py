"""A replay from plan to result: parts handed to processes, watched, and put together in the order of their records.

I/O. What is in the folder of parts decides over everything that is left to do; so a replay that goes on (``resume``) is
one that finds some of it there.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import functools
import hashlib
import multiprocessing
import multiprocessing.connection
import os
import shutil
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

import msgspec
from msgspec import Struct

from stream_fp.errors import ConfigError, ServiceError
from stream_fp.kafka.progress import fingerprint_of
from stream_fp.library import load_library
from stream_fp.replay.lanes import N_DEAD_LETTERS_SHOWN
from stream_fp.replay.parts import lines_path, locked, read_count, read_note
from stream_fp.replay.plan import Job, NamedSettings, Part
from stream_fp.replay.results import ReplaySummary, VariantResult
from stream_fp.replay.worker import STOP_FILE, run_part
from stream_fp.sinks.sidecar import write_atomically

__all__ = ["PLAN_FILE", "PartRunner", "Plan", "Progress", "Replay", "local_runner", "remove_work"]

#: Told records done, and about how many there are.
Progress = Callable[[int, int], object]
#: Runs a function over jobs, in whatever processes, and yields what it returns as it comes.
PartRunner = Callable[[Callable[[Job], int], Sequence[Job]], Iterable[int]]

PLAN_FILE: Final = "plan.json"
_LOCK: Final = "lock"
_POLL_S: Final = 0.25


class Plan(Struct, frozen=True, kw_only=True):
    """What a replay was begun with."""

    fingerprint: str
    """Of records, settings and models."""
    parts: list[Part]


@dataclass(frozen=True, slots=True, kw_only=True)
class Replay:
    """A replay to be run.

    Attributes
    ----------
    variants : tuple of NamedSettings
        At least one.
    source : str
        What is replayed, in words, for errors.
    request : tuple of str
        What of it was asked for: with other words in it, an unfinished replay is another one.
    with_outcomes : bool
    folder : Path
        Of the parts; made where it is missing, removed by the caller.
    """

    variants: tuple[NamedSettings, ...]
    source: str
    request: tuple[str, ...]
    with_outcomes: bool
    folder: Path

    @contextlib.contextmanager
    def begun(self, make_parts: Callable[[], list[Part]], *, resume: bool) -> Iterator[Plan]:
        """Yield a plan, or that of an unfinished replay; nobody else may work in the folder meanwhile.

        Parameters
        ----------
        make_parts : callable
            Asked where there is nothing to go on with.
        resume : bool
            Whether to go on with what is there; else it is removed.

        Raises
        ------
        ConfigError
            When what is there is of something else.
        ServiceError
            When another replay is at work there.
        """
        path, fingerprint = self.folder / PLAN_FILE, self._fingerprint()
        if self.folder.exists() and not path.is_file() and any(p.name != _LOCK for p in self.folder.iterdir()):
            raise ConfigError("output", f"{self.folder} is needed for work in progress, and holds something else")
        if not resume or not path.is_file():
            parts = make_parts()
            if path.is_file():
                _decode_plan(path)  # whose it is
                with locked(self.folder / _LOCK):
                    remove_work(self.folder)
            self.folder.mkdir(parents=True, exist_ok=True)
            with locked(self.folder / _LOCK):
                plan = Plan(fingerprint=fingerprint, parts=parts)
                write_atomically(path, msgspec.json.encode(plan))
                yield plan
            return
        with locked(self.folder / _LOCK):
            plan = _decode_plan(path)
            if plan.fingerprint != fingerprint:
                raise ConfigError(
                    "resume",
                    f"the unfinished replay in {self.folder} is of other records, settings or models; "
                    "without --resume a new one takes its place",
                )
            (self.folder / STOP_FILE).unlink(missing_ok=True)
            yield plan

    def run(
        self, plan: Plan, runner: AbstractContextManager[PartRunner], progress: Progress = lambda _done, _total: None
    ) -> list[VariantResult]:
        """Do what is left of a plan, and put the parts together.

        Raises
        ------
        ReplayStoppedError
            When it was interrupted; what was done stays in the folder.
        ServiceError
            When the brokers have nothing to give, or a process died.
        DocumentError
            When no file can be read, or no record applied.
        """
        jobs = [
            Job(part=part, variants=self.variants, folder=self.folder, with_outcomes=self.with_outcomes)
            for part in plan.parts
        ]
        work = _Work(runner, jobs)
        work.start()
        try:
            while work.is_alive():
                work.join(_POLL_S)
                if any(found := self._done(plan)):
                    progress(*found)
        except BaseException:
            (self.folder / STOP_FILE).touch()
            work.join()
            raise
        if work.error is not None:
            raise work.error
        return [self._result(i, plan) for i in range(len(self.variants))]

    def _done(self, plan: Plan) -> tuple[int, int]:
        n_done = n_records = 0
        for part in plan.parts:
            done, records = read_count(self.folder, part.number)
            n_done += done
            n_records += records
        size = sum(part.size for part in plan.parts)
        return n_records, max(n_records, round(n_records * size / n_done) if n_done else 0)

    def _result(self, variant: int, plan: Plan) -> VariantResult:
        named = self.variants[variant]
        predictions, rows = (self.folder / f"{kind}-{variant}.jsonl" for kind in ("predictions", "rows"))
        with predictions.open("wb") as file:
            for part in plan.parts:
                with lines_path(self.folder, part.number, variant, "predictions").open("rb") as lines:
                    shutil.copyfileobj(lines, file)
        if self.with_outcomes:
            with rows.open("wb") as file:
                for part in plan.parts:
                    _copy_sorted(lines_path(self.folder, part.number, variant, "rows"), file)
        return VariantResult(
            name=named.name,
            model_path=Path(named.settings.model_path),
            library=named.library,
            settings=_shown(named),
            predictions_path=predictions,
            rows_path=rows if self.with_outcomes else None,
            summary=self._summary(variant, plan),
        )

    def _summary(self, variant: int, plan: Plan) -> ReplaySummary:
        summary = ReplaySummary()
        for part in plan.parts:
            note = read_note(self.folder, part.number)
            if note is None or not note.is_done:
                raise ServiceError(f"{self.folder}: part {part.number} is not done")
            books = note.books[variant]
            summary.counts = summary.counts + books.counts
            summary.edges = summary.edges + books.edges
            summary.n_sources += note.n_sources
            summary.unreadable += note.unreadable
            summary.dead_letters += books.dead_letters[: N_DEAD_LETTERS_SHOWN - len(summary.dead_letters)]
        summary.check(self.source, "files")
        return summary

    def _fingerprint(self) -> str:
        variants = []
        for named in self.variants:
            settings = named.settings
            methods = (settings.distance_metric, settings.confidence_method, settings.assignment)
            library = load_library(Path(settings.model_path))
            # The path of the library is part of every prediction.
            variants.append(
                [named.name, settings.model_path, fingerprint_of(settings.engine_settings(), library, *methods)]
            )
        content = msgspec.json.encode([variants, self.request, self.with_outcomes])
        return hashlib.sha256(content).hexdigest()


class _Work(threading.Thread):
    """Runs the jobs, so that the main thread can look on and be interrupted."""

    def __init__(self, runner: AbstractContextManager[PartRunner], jobs: Sequence[Job]) -> None:
        super().__init__(name="replay")
        self._runner, self._jobs = runner, jobs
        self.error: BaseException | None = None

    def run(self) -> None:
        """Run all jobs; the first error is kept, and stops the others."""
        try:
            with self._runner as run_all:
                try:
                    for _ in run_all(run_part, self._jobs):
                        pass
                except BaseException:
                    (self._jobs[0].folder / STOP_FILE).touch()
                    raise
        except BaseException as error:  # noqa: BLE001 - raised again in the main thread
            self.error = error


@contextlib.contextmanager
def local_runner(n_workers: int) -> Iterator[PartRunner]:
    """Yield a runner in processes of this machine; one worker is this very process."""
    if n_workers == 1:
        yield map
        return
    # Started anew rather than forked: a fork would inherit the threads' locks.
    context = multiprocessing.get_context("spawn")
    pool = concurrent.futures.ProcessPoolExecutor(n_workers, mp_context=context, initializer=_serve_parent)
    try:
        yield functools.partial(_run_in_pool, pool)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _run_in_pool(
    pool: concurrent.futures.ProcessPoolExecutor, function: Callable[..., int], jobs: Sequence[Job]
) -> Iterator[int]:
    futures = [pool.submit(function, job) for job in jobs]
    try:
        for future in concurrent.futures.as_completed(futures):
            yield future.result()
    except concurrent.futures.BrokenExecutor as error:
        raise ServiceError("a process of the replay was killed; --resume goes on where it was") from error
    finally:
        for future in futures:
            future.cancel()


def _serve_parent() -> None:
    """Leave Ctrl-C, which reaches all processes of a terminal, to the parent; and do not outlive it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, name="parent", daemon=True).start()


def _end_with_parent() -> None:
    # A pool whose parent was killed would wait for work for ever. What was written since the last note is cut off by
    # whoever goes on.
    if (parent := multiprocessing.parent_process()) is not None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)


class _RowKey(Struct):
    source: str
    offset: int


_decode_key: Final = msgspec.json.Decoder(_RowKey).decode


def _copy_sorted(path: Path, file: IO[bytes]) -> None:
    """Copy rows, which lie in the order in which sessions closed, in that of their predictions."""
    places: list[tuple[int, int, int, int]] = []
    sources: dict[str, int] = {}
    with path.open("rb") as lines:
        at = 0
        for line in lines:
            key = _decode_key(line)
            places.append((sources.setdefault(key.source, len(sources)), key.offset, at, len(line)))
            at += len(line)
        # At one record, checkpoints lie in their order already.
        places.sort()
        for _, _, at, length in places:
            lines.seek(at)
            file.write(lines.read(length))


def remove_work(folder: Path) -> None:
    """Remove a folder of work in progress; what says that it is one goes last."""
    with contextlib.suppress(FileNotFoundError):
        for path in folder.iterdir():
            if path.name != PLAN_FILE:
                path.unlink()
        (folder / PLAN_FILE).unlink(missing_ok=True)
        folder.rmdir()


def _decode_plan(path: Path) -> Plan:
    try:
        return msgspec.json.decode(path.read_bytes(), type=Plan)
    except msgspec.MsgspecError as error:
        raise ConfigError("output", f"{path}: expected the plan of a replay, work in progress: {error}") from error


def _shown(named: NamedSettings) -> dict[str, str]:
    """Return what predictions depend on, by name; no secrets."""
    settings = named.settings
    shown = msgspec.to_builtins(settings.engine_settings())
    shown |= {
        "model_path": settings.model_path,
        "distance_metric": settings.distance_metric,
        "confidence_method": settings.confidence_method,
        "assignment": settings.assignment,
    }
    return {name: str(value) for name, value in shown.items()}
