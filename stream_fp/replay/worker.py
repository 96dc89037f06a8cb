"""One part of a replay, in whatever process: records from where they lie, through a follower, into the part's files.

I/O around `stream_fp.replay.follower`. A function of the job alone, but for what an earlier attempt left in the folder,
with which it goes on.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import platform
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final, TypeVar

from stream_fp.classifier import AssignmentMethod, Classifier, ConfidenceMethod, DistanceMetric
from stream_fp.config import Settings
from stream_fp.errors import DocumentError, ServiceError, StreamFpError
from stream_fp.files import FileRecord, read_records
from stream_fp.kafka.history import Span, TopicHistory
from stream_fp.kafka.ranges import Range
from stream_fp.loading import load_classifier
from stream_fp.messages import Record
from stream_fp.replay.follower import Follower, FollowerState
from stream_fp.replay.lanes import N_DEAD_LETTERS_SHOWN, Lane, Place, Variant
from stream_fp.replay.parts import Books, PartFiles
from stream_fp.replay.plan import Job, NamedSettings

__all__ = ["STOP_FILE", "ReplayStoppedError", "batches_of_file", "run_part"]

#: In the folder of the parts: who finds it there stops.
STOP_FILE: Final = "stop"
#: Records taken from a file at once.
_BATCH: Final = 1_000
#: Between notes, and between looks for `STOP_FILE`: what has to be done again after a kill. Notes take no more than a
#: tenth of the time, however many sessions are open.
_NOTE_EVERY_S: Final = 1.0
_NOTE_SHARE: Final = 0.1

Item = TypeVar("Item")


class ReplayStoppedError(StreamFpError):
    """Raised when somebody asked the replay to stop; what was done is kept."""


def run_part(job: Job) -> int:
    """Do a part, or what is left of it; return its number.

    Raises
    ------
    ReplayStoppedError
        When it was asked to stop.
    ServiceError
        When the brokers have nothing to give, files are not there, or another replay is at work on the part.
    """
    if not job.folder.is_dir():
        raise ServiceError(f"{job.folder}: is not there on {platform.node()}; all who work on a replay must see it")
    with PartFiles(job.folder, job.part.number, len(job.variants)) as files:
        if not files.note.is_done:
            worker = _Worker(job, files)
            if job.part.range is not None:
                asyncio.run(worker.follow_range(job.part.range))
            else:
                worker.follow_files([Path(path) for path in job.part.paths])
            files.note.is_done = True
            files.commit()
        files.tell(job.part.size)
    return job.part.number


def _load_variant(named: NamedSettings) -> Variant:
    """Load what a variant predicts with.

    Raises
    ------
    ServiceError
        When the library is another one than when the replay began.
    """
    settings = named.settings
    classifier = _classifier(
        named.library, settings.model_path, settings.distance_metric, settings.confidence_method, settings.assignment
    )
    return Variant(classifier=classifier, settings=settings.engine_settings())


class _Worker:
    def __init__(self, job: Job, files: PartFiles) -> None:
        self._job, self._files = job, files
        self._variants = [_load_variant(variant) for variant in job.variants]
        self._noted_s = time.monotonic()
        self._pause_s = _NOTE_EVERY_S

    async def follow_range(self, found: Range) -> None:
        """Follow a partition."""
        place = Place(name=found.name, first=found.first, lacks_older=found.lacks_older)
        follower = self._follower(place)
        read_from = found.read_from if self._files.note.state is None else self._files.note.state.read_from
        async with TopicHistory(self._job.variants[0].settings) as history:
            span = Span(partition=found.partition, first=read_from, end=found.end)
            async with contextlib.aclosing(history.read(span)) as batches:
                async for records in batches:
                    self._feed(follower, records)
                    self._tell(follower, records[-1].offset + 1 - found.read_from)
        self._finish(follower)

    def follow_files(self, paths: Sequence[Path]) -> None:
        """Follow files, one after the other."""
        n_bytes = sum(_size_of(path) for path in paths[: self._files.note.n_sources])
        for path in paths[self._files.note.n_sources :]:
            follower = self._follower(Place(name=str(path), counts_from=1))
            n_read, size = 0, _size_of(path)
            batches = batches_of_file(path, self._files.note.state)
            while records := self._next(path, batches):
                self._feed(follower, records)
                n_read += sum(len(record.value or b"") + 1 for record in records)
                self._tell(follower, n_bytes + min(size, n_read))
            n_bytes += size
            self._finish(follower)

    def _next(self, path: Path, batches: Iterator[list[FileRecord]]) -> list[FileRecord]:
        """Return the next records of a file; none where they end, or cannot be read any further, which is noted."""
        try:
            return next(batches, [])
        except DocumentError as error:
            self._files.note.unreadable.append(str(error))
        except OSError as error:
            self._files.note.unreadable.append(f"{path}: {error.strerror or error}")
        return []

    def _follower(self, place: Place) -> Follower:
        return Follower(self._variants, place, with_outcomes=self._job.with_outcomes, state=self._files.note.state)

    def _feed(self, follower: Follower, records: Sequence[Record]) -> None:
        follower.feed(records)
        self._files.note.n_records += len(records)
        self._write(follower)

    def _write(self, follower: Follower) -> None:
        for i, lane in enumerate(follower.lanes):
            self._files.write(i, lane.predictions, lane.rows)
            lane.predictions.clear()
            lane.rows.clear()

    def _tell(self, follower: Follower, n_done: int) -> None:
        """Let others know how far it is; now and then note it, and see whether to go on."""
        self._files.tell(n_done)
        if time.monotonic() - self._noted_s < self._pause_s:
            return
        if (self._job.folder / STOP_FILE).exists():
            raise ReplayStoppedError("the replay was stopped")
        started_s = time.monotonic()
        if (state := follower.state()) is not None:
            self._files.note.state = state
            self._files.commit()
        self._noted_s = time.monotonic()
        self._pause_s = max(_NOTE_EVERY_S, (self._noted_s - started_s) / _NOTE_SHARE)

    def _finish(self, follower: Follower) -> None:
        """Close a source and enter it into the books; the next note will say so."""
        follower.close()
        self._write(follower)
        note = self._files.note
        for books, lane in zip(note.books, follower.lanes, strict=True):
            _enter(books, lane)
        note.n_sources += 1
        note.state = None


def _size_of(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError as error:
        # It was there when the work was planned.
        raise ServiceError(f"{path}: is not there (any more) on {platform.node()}") from error


def _enter(books: Books, lane: Lane) -> None:
    books.counts = books.counts + lane.counts
    books.edges = books.edges + lane.edges
    room = N_DEAD_LETTERS_SHOWN - len(books.dead_letters)
    books.dead_letters += lane.dead_letters[:room]


def batches_of_file(path: Path, state: FollowerState | None = None) -> Iterator[list[FileRecord]]:
    """Yield the records of a file some at a time; where reading fails, those read before it first.

    Parameters
    ----------
    path : Path
    state : FollowerState, optional
        Of a follower that goes on; records that it does not need are passed over.

    Raises
    ------
    DocumentError
        When the file cannot be read (to its end).
    """
    records: Iterable[FileRecord] = read_records(path)
    if state is not None:
        read_from = state.read_from
        records = (record for record in records if record.offset >= read_from)
    return _in_batches(records, _BATCH)


def _in_batches(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Yield items in lists; where they end in an error, those before it first."""
    batch: list[Item] = []
    try:
        for item in items:
            batch.append(item)
            if len(batch) == size:
                yield batch
                batch = []
    except Exception:
        # Whatever it is, it is raised; what was read before it is not to be lost for it.
        if batch:
            yield batch
        raise
    if batch:
        yield batch


# A process does many parts; they all have the same few libraries.
@functools.lru_cache(maxsize=8)
def _classifier(
    fingerprint: str, model_path: str, metric: DistanceMetric, method: ConfidenceMethod, assignment: AssignmentMethod
) -> Classifier:
    settings = Settings(model_path=model_path, distance_metric=metric, confidence_method=method, assignment=assignment)
    classifier = load_classifier(settings)
    if classifier.library.fingerprint != fingerprint:
        raise ServiceError(f"{model_path}: the library was changed while the replay was at work")
    return classifier
