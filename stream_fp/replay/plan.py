"""The work of a replay, cut into parts that processes can do apart from each other, in the order of what comes out.

A part is a partition's range, or some files in a row: each file is a partition of its own. Where records lie is all
that a part says; who works on it reads them there.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from stream_fp.config import Settings
from stream_fp.kafka.ranges import Range

__all__ = ["Job", "NamedSettings", "Part", "parts_of_files", "parts_of_ranges"]

#: A part of files is no larger, so that a replay that goes on loses little and shows how far it is.
_MAX_PART_BYTES: Final = 64 * 2**20
_MAX_PART_FILES: Final = 500
#: Parts for each process, so that none is without work while another has much.
_PARTS_A_WORKER: Final = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One part; either a range or files."""

    number: int
    range: Range | None = None
    paths: tuple[str, ...] = ()
    size: int
    """Offsets, or bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedSettings:
    """The settings of one variant."""

    name: str
    settings: Settings
    library: str
    """Fingerprint of the library that the settings name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What a process is told: a part, and what to make of it."""

    part: Part
    variants: tuple[NamedSettings, ...]
    folder: Path
    """Where it writes, and finds what it wrote before."""
    with_outcomes: bool


def parts_of_ranges(ranges: Sequence[Range]) -> list[Part]:
    """Return a part for each range that holds an offset."""
    filled = [found for found in ranges if found.end > found.first]
    return [Part(number=i, range=found, size=found.end - found.read_from) for i, found in enumerate(filled)]


def parts_of_files(files: Sequence[tuple[Path, int]], n_workers: int) -> list[Part]:
    """Return files with their sizes in bytes, in rows: large enough to be worth a start, small enough to be shared.

    Examples
    --------
    >>> files = [(Path("a"), 2**19), (Path("b"), 2**19), (Path("c"), 9 * 2**20)]
    >>> [list(part.paths) for part in parts_of_files(files, 2)]
    [['a', 'b'], ['c']]
    """
    total = sum(size for _, size in files)
    most = max(2**20, min(_MAX_PART_BYTES, total // (n_workers * _PARTS_A_WORKER)))
    return [
        Part(number=i, paths=tuple(str(path) for path, _ in row), size=sum(size for _, size in row))
        for i, row in enumerate(_rows(files, most))
    ]


def _rows(files: Sequence[tuple[Path, int]], most: int) -> Iterator[list[tuple[Path, int]]]:
    row: list[tuple[Path, int]] = []
    for file in files:
        if row and (sum(size for _, size in row) + file[1] > most or len(row) == _MAX_PART_FILES):
            yield row
            row = []
        row.append(file)
    if row:
        yield row
