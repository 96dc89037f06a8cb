"""Bars of many instruments, one a file, to one stream of messages.

Between ``stream-fp-offline events`` and `offline.market_events`, which knows one instrument at a time. Each file is a
job of its own, for any process: it reads the bars, and writes the messages with their times to a part beside the
output. Then the parts, each in order of time, are merged line by line, so that memory does not grow with what all of
them hold.

Invariant: the merged messages are in order of time; at one time those of an earlier file come first, and those of one
file keep their order. They are the same however many processes there were, and of one file what that file gives alone.
"""

from __future__ import annotations

import heapq
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from offline.backends import Backend
from offline.bars import BAR_SUFFIXES, MarketBars, Stamp, read_bars
from offline.market_events import MarketSession, find_events, find_sessions, timed_messages
from offline.places import write_whole
from offline.topic_summary import ToldSession, told_market_sessions
from stream_fp.completion import Schedule
from stream_fp.errors import ConfigError, DocumentError
from stream_fp.times import format_us, zone_of

__all__ = ["BarsFile", "EventRequest", "FileEvents", "find_bar_files", "merged_events", "minute_of",
           "open_parts", "read_events", "write_parts"]  # fmt: skip

Progress = Callable[[str, int, int], None]

#: What may not stand in the name of an instrument, which ends session ids.
_NOT_IN_NAMES: Final = re.compile(r"[^A-Za-z0-9._]+")
_MAX_NAME_LENGTH: Final = 32
#: Digits of a time in a part, more than any has.
_TIME_WIDTH: Final = 20
#: Parts open at once; systems allow some hundreds. More than these are merged in steps.
_MAX_OPEN: Final = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class BarsFile:
    """A file of bars and the instrument whose they are; without a name, session ids have none."""

    path: Path
    instrument: str


@dataclass(frozen=True, slots=True, kw_only=True)
class EventRequest:
    """How bars are read and sessions found, the same for all files; see `read_bars` and `find_sessions`."""

    columns: Mapping[str, str]
    timezone: str
    stamp: Stamp
    bar_minutes: float | None
    schedules: Mapping[str, Schedule]
    windows_timezone: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FileEvents:
    """What came of one file.

    Attributes
    ----------
    path
        Of the bars.
    part
        Messages with their times.
    sessions
        Those found, for the summary.
    n_read, dropped, n_unsorted, bar_us
        As `MarketBars` has them.
    first_us, last_us
        When the first bar opened and the last.
    why_none
        Why the file gave no message; empty where it gave some.
    """

    path: Path
    part: Path
    sessions: list[ToldSession]
    n_read: int = 0
    dropped: Mapping[str, int]
    n_unsorted: int = 0
    bar_us: int = 0
    first_us: int = 0
    last_us: int = 0
    why_none: str = ""


def find_bar_files(sources: Sequence[Path], instrument: str) -> list[BarsFile]:
    """Return the files of bars: those given, and those in folders given, in order of name.

    Of a single file the instrument is the one given, or none. Of several, and of those in a folder, it is the file's
    name up to its ending, with an underscore for what ids may not hold.

    Raises
    ------
    ConfigError
        When one name is given for several files, or two files have the same.
    DocumentError
        When a folder holds no file of bars.
    """
    paths: list[Path] = []
    for source in sources:
        paths += _in_folder(source) if source.is_dir() else [source]
    if len(paths) == 1 and (instrument or not sources[0].is_dir()):
        return [BarsFile(path=paths[0], instrument=instrument)]
    if instrument:
        raise ConfigError(
            "instrument", f"names one instrument, and there are {len(paths)} files, which are called by their names"
        )
    found: dict[str, BarsFile] = {}
    for path in paths:
        name = _instrument_of(path)
        if name in found:
            raise ConfigError("bars", f"expected one file an instrument, got {found[name].path} and {path} for {name}")
        found[name] = BarsFile(path=path, instrument=name)
    return list(found.values())


def read_events(
    file: BarsFile, request: EventRequest, progress: Progress | None = None
) -> tuple[MarketBars, list[MarketSession]]:
    """Return the bars of a file and the sessions in them.

    Raises
    ------
    ConfigError
        As `read_bars`.
    DocumentError
        When the file cannot be read, or gives no session an event.
    """
    market = read_bars(
        file.path,
        columns=request.columns,
        timezone=request.timezone,
        stamp=request.stamp,
        bar_minutes=request.bar_minutes,
    )
    events = find_events(market, zone=zone_of(request.windows_timezone), progress=progress)
    sessions = find_sessions(market, events, request.schedules, instrument=file.instrument)
    if not sessions:
        first, last = (minute_of(int(market.open_us[place])) for place in (0, -1))
        why = f"{len(market)} bars from {first} to {last} give no session an event"
        raise DocumentError(str(file.path), f"{why}; are bars-timezone, windows and windows-timezone right?")
    return market, sessions


def open_parts(output: Path) -> tempfile.TemporaryDirectory[str]:
    """Make the folder of the parts beside the output, where whoever runs jobs can write; it goes with its context."""
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        return tempfile.TemporaryDirectory(dir=output.parent, prefix=".stream-fp-events-")
    except OSError as error:
        raise ConfigError("output", f"{output} cannot be written: {error.strerror or error}") from error


def write_parts(
    files: Sequence[BarsFile],
    request: EventRequest,
    folder: Path,
    *,
    backend: Backend,
    n_jobs: int,
    progress: Progress,
) -> list[FileEvents]:
    """Write a part for each file, and return what came of each, in order of the files.

    Parameters
    ----------
    files, request
    folder
        Of the parts; a cluster's workers must see it, and the files, under the same path.
    backend, n_jobs
        Where the jobs run, and how many at a time.
    progress
        Told after each file.

    Raises
    ------
    ConfigError
        As `read_bars`. What is wrong with a single file otherwise is in `FileEvents.why_none`.
    """
    jobs = ((file, request, folder, f"{number:06d}") for number, file in enumerate(files))
    found = []
    for part in backend.run(_write_part, jobs, n_jobs=n_jobs):
        found.append(part)
        progress("Finding events", len(found), len(files))
    return found


def merged_events(found: Sequence[FileEvents], folder: Path) -> Iterator[bytes]:
    """Yield the lines of all parts in order of time; parts are merged in steps where they are many."""
    parts = [file.part for file in found if not file.why_none]
    step = 0
    while len(parts) > _MAX_OPEN:
        # Neighbours with neighbours, so that files keep their order.
        groups = [parts[first : first + _MAX_OPEN] for first in range(0, len(parts), _MAX_OPEN)]
        parts = []
        for group in groups:
            parts.append(folder / f"merged-{step:06d}")
            write_whole("output", parts[-1], _merged(group))
            for part in group:
                part.unlink()
            step += 1
    for line in _merged(parts):
        yield line[_TIME_WIDTH + 1 :]


def minute_of(moment_us: int) -> str:
    """Return a moment in UTC to the minute, for people.

    Examples
    --------
    >>> minute_of(0)
    '1970-01-01 00:00 UTC'
    """
    return f"{format_us(moment_us)[:16].replace('T', ' ')} UTC"


def _write_part(file: BarsFile, request: EventRequest, folder: Path, name: str) -> FileEvents:
    """Do one file: a job for any process."""
    part = folder / name
    try:
        market, sessions = read_events(file, request)
    except DocumentError as error:
        return FileEvents(path=file.path, part=part, sessions=[], dropped={}, why_none=str(error))
    except ConfigError as error:
        why = str(error).partition(": ")[2]
        raise ConfigError(error.setting, f"{why} (in {file.path})") from error
    lines = (b"%0*d %s\n" % (_TIME_WIDTH, us, msgspec.json.encode(message)) for us, message in timed_messages(sessions))
    write_whole("output", part, lines)
    return FileEvents(
        path=file.path,
        part=part,
        sessions=told_market_sessions(sessions),
        n_read=market.n_read,
        dropped=market.dropped,
        n_unsorted=market.n_unsorted,
        bar_us=market.bar_us,
        first_us=int(market.open_us[0]),
        last_us=int(market.open_us[-1]),
    )


def _merged(parts: Sequence[Path]) -> Iterator[bytes]:
    # Of equal times, `merge` takes that of the earlier part first.
    return heapq.merge(*map(_lines, parts), key=_time_of)


def _lines(part: Path) -> Iterator[bytes]:
    with part.open("rb") as lines:
        yield from lines


def _time_of(line: bytes) -> int:
    return int(line[:_TIME_WIDTH])


def _in_folder(folder: Path) -> list[Path]:
    found = sorted(
        path
        for path in folder.rglob("*")
        if path.name.lower().endswith(BAR_SUFFIXES) and not path.name.startswith(".") and path.is_file()
    )
    if not found:
        raise DocumentError(str(folder), f"expected files ending in {', '.join(BAR_SUFFIXES)}, found none")
    return found


def _instrument_of(path: Path) -> str:
    ending = max((suffix for suffix in BAR_SUFFIXES if path.name.lower().endswith(suffix)), key=len, default="")
    name = _NOT_IN_NAMES.sub("_", path.name[: len(path.name) - len(ending)]).lstrip("._")
    if not name or len(name) > _MAX_NAME_LENGTH:
        raise ConfigError(
            "bars",
            f"expected a file name of up to {_MAX_NAME_LENGTH} letters and digits for {path}, such as NQ.parquet",
        )
    return name
