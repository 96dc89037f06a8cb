"""The files of one part: predictions and rows as they come, and a note of how far they are good.

A note is written now and then, after what it speaks of is on disk. Whoever goes on cuts the files back to what the last
note says and begins there, so that a part that was stopped anywhere comes to the bytes of one that was not.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Final, Self

import msgspec
from msgspec import Struct, field

from stream_fp.errors import ServiceError
from stream_fp.outcomes import Counts
from stream_fp.replay.follower import FollowerState
from stream_fp.replay.results import Edges
from stream_fp.sinks.sidecar import write_atomically

__all__ = ["Books", "PartFiles", "PartNote", "lines_path", "locked", "read_count", "read_note"]

_PREDICTIONS: Final = "predictions"
_ROWS: Final = "rows"
_COUNT_DIGITS: Final = 20
#: A process whose parent was killed has to notice that.
_PATIENCE_S: Final = 5.0
_RETRY_S: Final = 0.1


class Books(Struct, kw_only=True):
    """What became of the records of a part, for one variant."""

    counts: Counts = field(default_factory=Counts)
    dead_letters: list[str] = field(default_factory=list)
    edges: Edges = field(default_factory=Edges)


class PartNote(Struct, kw_only=True):
    """How far a part is."""

    n_sources: int = 0
    """Files that are done with, or the partition."""
    state: FollowerState | None = None
    """Where it stands in the one after these; None at its beginning."""
    books: list[Books]
    """Of the sources that are done with; one a variant."""
    unreadable: list[str] = field(default_factory=list)
    sizes: list[tuple[int, int]]
    """Bytes of predictions and of rows that are good; one a variant."""
    n_records: int = 0
    is_done: bool = False


class PartFiles:
    """Writes the files of one part; a context manager that keeps others away from them.

    Parameters
    ----------
    folder : Path
    number : int
        Of the part.
    n_variants : int

    Attributes
    ----------
    note : PartNote
        As it was found, to be changed by whoever works.

    Raises
    ------
    ServiceError
        When another process is at work on the part.
    """

    def __init__(self, folder: Path, number: int, n_variants: int) -> None:
        self._folder, self._number, self._n_variants = folder, number, n_variants
        self._stack = contextlib.ExitStack()
        self._files: list[tuple[IO[bytes], IO[bytes]]] = []
        self._count: IO[bytes]
        self.note = read_note(folder, number) or PartNote(
            books=[Books() for _ in range(n_variants)], sizes=[(0, 0)] * n_variants
        )

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            stack.enter_context(locked(self._folder / f"{self._number:05}.lock", patience_s=_PATIENCE_S))
            for variant in range(self._n_variants):
                predictions, rows = (
                    stack.enter_context(_open_at(lines_path(self._folder, self._number, variant, kind), size))
                    for kind, size in zip((_PREDICTIONS, _ROWS), self.note.sizes[variant], strict=True)
                )
                self._files.append((predictions, rows))
            self._count = stack.enter_context(_count_path(self._folder, self._number).open("wb", buffering=0))
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stack.close()

    def write(self, variant: int, predictions: Sequence[bytes], rows: Sequence[bytes]) -> None:
        """Append lines."""
        self._files[variant][0].writelines(predictions)
        self._files[variant][1].writelines(rows)

    def tell(self, n_done: int) -> None:
        """Say how far it is, in offsets or bytes, to whoever looks on; for this nothing is kept."""
        text = f"{n_done} {self.note.n_records}".ljust(2 * _COUNT_DIGITS)
        os.pwrite(self._count.fileno(), text.encode(), 0)

    def commit(self) -> None:
        """Put on disk what was written, then the note."""
        for i, pair in enumerate(self._files):
            for file in pair:
                file.flush()
                os.fsync(file.fileno())
            self.note.sizes[i] = pair[0].tell(), pair[1].tell()
        write_atomically(_note_path(self._folder, self._number), msgspec.json.encode(self.note))


@contextlib.contextmanager
def locked(path: Path, *, patience_s: float = 0.0) -> Iterator[None]:
    """Hold a lock that goes with the process, however it ends.

    Parameters
    ----------
    path : Path
        Of a file, which is made where it is missing; its folder is what others are kept away from.
    patience_s : float
        How long to wait for another that holds it.

    Raises
    ------
    ServiceError
        When another process holds it.
    """
    until_s = time.monotonic() + patience_s
    with path.open("ab") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError as error:
                if time.monotonic() >= until_s:
                    raise ServiceError(f"{path.parent}: another replay is at work here") from error
                time.sleep(_RETRY_S)
        yield


def lines_path(folder: Path, number: int, variant: int, kind: str) -> Path:
    """Return the file of a part's `predictions` or `rows`, of one variant."""
    return folder / f"{number:05}-{variant}.{kind}"


def read_note(folder: Path, number: int) -> PartNote | None:
    """Return the last note of a part; None before the first.

    Raises
    ------
    ServiceError
        When it is damaged.
    """
    path = _note_path(folder, number)
    try:
        return msgspec.json.decode(path.read_bytes(), type=PartNote)
    except FileNotFoundError:
        return None
    except msgspec.MsgspecError as error:
        raise ServiceError(f"{path}: is damaged; without --resume a new replay takes its place") from error


def read_count(folder: Path, number: int) -> tuple[int, int]:
    """Return how far a part is: offsets or bytes done, and records."""
    try:
        words = _count_path(folder, number).read_text("ascii").split()
    except FileNotFoundError:
        return 0, 0
    return (int(words[0]), int(words[1])) if len(words) == 2 else (0, 0)


@contextlib.contextmanager
def _open_at(path: Path, size: int) -> Iterator[IO[bytes]]:
    path.touch()
    with path.open("r+b") as file:
        file.truncate(size)
        file.seek(size)
        yield file


def _note_path(folder: Path, number: int) -> Path:
    return folder / f"{number:05}.note"


def _count_path(folder: Path, number: int) -> Path:
    return folder / f"{number:05}.count"
