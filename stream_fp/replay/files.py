"""Session files replayed in this process, without anything left on disk: for notebooks, demos and tests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from stream_fp.classifier import Classifier
from stream_fp.config import Settings
from stream_fp.errors import DocumentError
from stream_fp.files import find_files
from stream_fp.replay.follower import Follower
from stream_fp.replay.lanes import N_DEAD_LETTERS_SHOWN, Place, Variant
from stream_fp.replay.results import ReplaySummary
from stream_fp.replay.worker import batches_of_file

__all__ = ["replay_files"]


def replay_files(
    source: Path, classifier: Classifier, settings: Settings, write: Callable[[bytes], object]
) -> ReplaySummary:
    """Replay the session files of `source`, each as a partition of its own.

    Parameters
    ----------
    source : Path
        A file, or a folder of files.
    classifier : Classifier
    settings : Settings
    write : callable
        Gets each prediction as one line with its line end.

    Raises
    ------
    DocumentError
        When there is no file at all, none of them can be read, or none holds a single record that can be applied.
    """
    files = find_files(source)
    summary = ReplaySummary(n_sources=len(files))
    variant = Variant(classifier=classifier, settings=settings.engine_settings())
    for path in files:
        follower = Follower([variant], Place(name=str(path), counts_from=1), with_outcomes=False)
        lane = follower.lanes[0]
        try:
            for records in batches_of_file(path):
                follower.feed(records)
                for line in lane.predictions:
                    write(line)
                lane.predictions.clear()
        except DocumentError as error:
            summary.unreadable.append(str(error))
        follower.close()
        summary.counts = summary.counts + lane.counts
        summary.dead_letters += lane.dead_letters[: N_DEAD_LETTERS_SHOWN - len(summary.dead_letters)]
    summary.check(str(source), "files")
    return summary
