"""Replay: recorded sessions through the same engine that runs live, predictions out as JSON Lines.

From a topic, partition by partition, or from files, which stand for partitions: each file of messages is one, read in
order, and each session document is one of its own. The lines are the values that the live service publishes for the
same records, byte for byte.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from stream_fp.classifier import Classifier
from stream_fp.config import Settings
from stream_fp.engine import Engine
from stream_fp.errors import DocumentError
from stream_fp.files import FileRecord, find_files, read_records
from stream_fp.kafka.history import TopicHistory
from stream_fp.messages import Prediction, Record, encode_prediction
from stream_fp.outcomes import Counts, DeadLetter, Published
from stream_fp.predictor import Predictor

__all__ = ["ReplaySummary", "replay_files", "replay_topic"]


@dataclass(slots=True)
class ReplaySummary:
    """What a replay came to."""

    counts: Counts = field(default_factory=Counts)
    n_files: int = 0
    """Files, or partitions of a topic."""
    unreadable: list[str] = field(default_factory=list)
    dead_letters: list[str] = field(default_factory=list)
    """The first few, each with its place."""
    predictions: list[Prediction] = field(default_factory=list)


#: Enough to see what is wrong with a file, few enough to read.
_N_DEAD_LETTERS_SHOWN = 20
#: Records taken from a file at once.
_BATCH = 500


def replay_files(
    source: Path,
    classifier: Classifier,
    settings: Settings,
    write: Callable[[bytes], object],
    *,
    files: Sequence[Path] | None = None,
    progress: Callable[[], object] = lambda: None,
) -> ReplaySummary:
    """Replay the session files of `source`.

    Parameters
    ----------
    source : Path
        A file, or a folder of files.
    classifier : Classifier
    settings : Settings
    write : callable
        Gets each prediction as one line with its line end.
    files : sequence of Path, optional
        Those of `source` to replay; all of them by default.
    progress : callable
        Called after each file.

    Raises
    ------
    DocumentError
        When there is no file at all, none of them can be read, or none holds a single record that can be applied.
    """
    files = find_files(source) if files is None else files
    summary = ReplaySummary(n_files=len(files))
    for path in files:
        try:
            for prediction in _replay_file(path, classifier, settings, summary):
                write(encode_prediction(prediction) + b"\n")
                summary.predictions.append(prediction)
        except DocumentError as error:
            summary.unreadable.append(str(error))
        progress()
    if len(summary.unreadable) == len(files):
        raise DocumentError(str(source), f"none of {len(files)} files can be read; {summary.unreadable[0]}")
    if not summary.counts.applied:
        first = f"; first {summary.dead_letters[0]}" if summary.dead_letters else ""
        raise DocumentError(str(source), f"expected records of sessions, found none that can be applied{first}")
    return summary


async def replay_topic(
    classifier: Classifier,
    settings: Settings,
    write: Callable[[bytes], object],
    *,
    from_us: int | None = None,
    to_us: int | None = None,
    progress: Callable[[int, int], object] = lambda _done, _total: None,
) -> ReplaySummary:
    """Replay the input topic that the settings name, one partition after the other.

    Joins no group and commits nothing; ends at what the topic held at the start.

    Parameters
    ----------
    classifier : Classifier
    settings : Settings
    write : callable
        Gets each prediction as one line with its line end.
    from_us, to_us : int, optional
        Only records whose Kafka time stamp (microseconds since 1970) is at or after the one and before the other.
    progress : callable
        Called now and then with offsets done and offsets in all.

    Raises
    ------
    ServiceError
        When the brokers cannot be reached, or there is no such topic.
    """
    summary = ReplaySummary()
    async with TopicHistory(settings) as history:
        spans = await history.spans(from_us, to_us)
        summary.n_files = len(spans)
        total, done = sum(span.end - span.first for span in spans), 0
        for span in spans:
            engine = _new_engine(classifier, settings)
            place = f"{span.partition.topic}[{span.partition.partition}]"
            async for records in history.read(span):
                for prediction in _apply(engine, records, summary, f"{place}@{{}}".format):
                    write(encode_prediction(prediction) + b"\n")
                    summary.predictions.append(prediction)
                progress(done + records[-1].offset + 1 - span.first, total)
            engine.close()
            summary.counts = summary.counts + engine.counts
            done += span.end - span.first
            progress(done, total)
    return summary


def _replay_file(
    path: Path, classifier: Classifier, settings: Settings, summary: ReplaySummary
) -> Iterator[Prediction]:
    engine = _new_engine(classifier, settings)
    try:
        for records in _in_batches(read_records(path)):
            yield from _apply(engine, records, summary, lambda offset: f"{path}:{offset + 1}")
        engine.close()
    finally:
        summary.counts = summary.counts + engine.counts


def _in_batches(records: Iterable[FileRecord]) -> Iterator[list[FileRecord]]:
    """Yield records in lists; where reading fails, those read before it first."""
    batch: list[FileRecord] = []
    try:
        for record in records:
            batch.append(record)
            if len(batch) == _BATCH:
                yield batch
                batch = []
    except Exception:
        yield batch
        raise
    yield batch


def _new_engine(classifier: Classifier, settings: Settings) -> Engine:
    library = classifier.library
    return Engine(
        Predictor(classifier),
        settings.engine_settings(),
        schedules=library.schedules,
        typical_events=library.typical_events,
    )


def _apply(
    engine: Engine, records: Sequence[Record], summary: ReplaySummary, place_of: Callable[[int], str]
) -> Iterator[Prediction]:
    for outcome in engine.process_all(records):
        match outcome:
            case Published():
                yield outcome.prediction
            case DeadLetter() if len(summary.dead_letters) < _N_DEAD_LETTERS_SHOWN:
                summary.dead_letters.append(f"{place_of(outcome.record.offset)}: {outcome.message}")
            case DeadLetter():
                pass
