"""``stream-fp-offline events``: bars of one instrument or of many in, messages of the input topic out.

Only options and order of work; the work itself is in `offline.event_files`, `offline.bars`, which reads, and
`offline.market_events`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from offline.commands.event_options import read_instrument, read_windows, read_zone, schedules_of
from offline.commands.options import backend_options, n_jobs_option
from offline.console import say, work_progress

if TYPE_CHECKING:
    from offline.backends import Backend
    from offline.bars import Stamp
    from offline.event_files import BarsFile, EventRequest, FileEvents

__all__ = ["events_command"]

_COLUMNS: Final = ("time", "open", "high", "low", "close")
_DEFAULT_ZONE: Final = "America/New_York"


@click.command("events")
@click.option(
    "--bars",
    "sources",
    type=click.Path(exists=True, path_type=Path),
    required=True,
    multiple=True,
    help="Bars of one instrument: a .parquet, .csv or .csv.gz file with time, open, high, low and close; or a folder "
    "of such files. May be repeated.",
)
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    required=True,
    help="File of JSON Lines, such as events.jsonl; must not exist.",
)
@click.option("--time-column", metavar="NAME", help="Column of times; by default found by its name, as are the prices.")
@click.option("--open-column", metavar="NAME", help="Column of opening prices.")
@click.option("--high-column", metavar="NAME", help="Column of highest prices.")
@click.option("--low-column", metavar="NAME", help="Column of lowest prices.")
@click.option("--close-column", metavar="NAME", help="Column of closing prices.")
@click.option(
    "--bars-timezone",
    default="UTC",
    show_default=True,
    callback=read_zone,
    metavar="ZONE",
    help="Zone of times without an offset.",
)
@click.option(
    "--stamp",
    type=click.Choice(["open", "close"]),
    default="open",
    show_default=True,
    help="Whether a time is that of the bar's open or of its close.",
)
@click.option(
    "--bar-minutes",
    type=click.FloatRange(min=0, min_open=True, max=60),
    show_default="the most frequent step",
    help="Length of a bar.",
)
@click.option(
    "--window",
    "windows",
    multiple=True,
    callback=read_windows,
    metavar="TYPE=HH:MM-HH:MM",
    help="Window of a session type, new or in place of the usual one; TYPE= leaves one out. May be repeated.",
)
@click.option(
    "--windows-timezone",
    default=_DEFAULT_ZONE,
    show_default=True,
    callback=read_zone,
    metavar="ZONE",
    help="Zone of all windows.",
)
@click.option(
    "--instrument",
    default="",
    callback=read_instrument,
    metavar="NAME",
    help="Ends the session ids, so that several instruments can share a topic; of several files the name of each.",
)
@n_jobs_option("one a core, where there are several files", " that read files")
@backend_options
@click.option("--force", is_flag=True, help="Replace the output file.")
def events_command(
    *,
    sources: tuple[Path, ...],
    output: Path,
    bars_timezone: str,
    stamp: Stamp,
    bar_minutes: float | None,
    windows: dict[str, tuple[str, str] | None],
    windows_timezone: str,
    instrument: str,
    n_jobs: int,
    backend: str,
    scheduler: str | None,
    force: bool,
    **named_columns: str | None,
) -> None:
    """Turn OHLC bars into the messages of trading sessions.

    Several files, or a folder of them, have one instrument each, which is called by the file's name; their messages
    are merged in order of time. An event is stamped with the close of the bar that made it known, and nothing depends
    on what comes later.
    """
    from offline.backends import open_backend  # noqa: PLC0415 - see `offline.commands`
    from offline.event_files import EventRequest, find_bar_files  # noqa: PLC0415
    from offline.places import check_new_file  # noqa: PLC0415
    from stream_fp.errors import ConfigError  # noqa: PLC0415

    schedules = schedules_of(windows, windows_timezone)
    if not schedules:
        raise ConfigError("window", "expected at least one session type, all are left out")
    check_new_file("output", output, force=force)
    files = find_bar_files(sources, instrument)
    if output.exists() and any(output.samefile(file.path) for file in files):
        raise ConfigError("output", f"{output} holds the bars; give another file")
    request = EventRequest(
        columns={ours: theirs for ours in _COLUMNS if (theirs := named_columns[f"{ours}_column"]) is not None},
        timezone=bars_timezone,
        stamp=stamp,
        bar_minutes=bar_minutes,
        schedules=schedules,
        windows_timezone=windows_timezone,
    )
    with open_backend(backend, scheduler) as opened:
        if len(files) == 1 and not opened.is_cluster:
            _one(files[0], request, output)
        else:
            _many(files, request, output, opened, n_jobs or -1)


def _one(file: BarsFile, request: EventRequest, output: Path) -> None:
    """Turn a file in this process, with no parts between."""
    import msgspec  # noqa: PLC0415

    from offline.event_files import minute_of, read_events  # noqa: PLC0415
    from offline.market_events import session_messages  # noqa: PLC0415
    from offline.places import write_whole  # noqa: PLC0415
    from offline.topic_summary import print_topic_summary, told_market_sessions  # noqa: PLC0415

    say(f"Reading bars from {file.path}")
    with work_progress("bar") as progress:
        market, sessions = read_events(file, request, progress)
    lines = (msgspec.json.encode(message) + b"\n" for message in session_messages(sessions))
    write_whole("output", output, lines)
    _say_left_out(market.dropped, market.n_unsorted)
    length = f"{market.bar_us / 60e6:g}-minute bars"
    read = f"{market.n_read} read, {sum(market.dropped.values())} left out"
    span = f"{minute_of(int(market.open_us[0]))} to {minute_of(int(market.open_us[-1]))}"
    print_topic_summary(told_market_sessions(sessions), output, source=f"{length} from {span}: {read}")


def _many(files: Sequence[BarsFile], request: EventRequest, output: Path, backend: Backend, n_jobs: int) -> None:
    """Turn each file into a part, wherever jobs run, and merge the parts."""
    from offline.event_files import merged_events, open_parts, write_parts  # noqa: PLC0415
    from offline.places import write_whole  # noqa: PLC0415
    from offline.topic_summary import print_topic_summary  # noqa: PLC0415
    from stream_fp.errors import DocumentError  # noqa: PLC0415

    say(f"Reading bars from {len(files)} file{'s' * (len(files) != 1)}")
    with open_parts(output) as name:
        folder = Path(name)
        with work_progress("file") as progress:
            found = write_parts(files, request, folder, backend=backend, n_jobs=n_jobs, progress=progress)
        usable = [file for file in found if not file.why_none]
        if not usable:
            first = found[0]
            of_all = f"; none of {len(found)} files gives a message" if len(found) > 1 else ""
            raise DocumentError(str(first.path), first.why_none.removeprefix(f"{first.path}: ") + of_all)
        write_whole("output", output, merged_events(found, folder))
    for file in found:
        if file.why_none:
            say(f"left out: {file.why_none}")
    dropped: Counter[str] = Counter()
    for file in usable:
        dropped.update(file.dropped)
    _say_left_out(dropped, sum(file.n_unsorted for file in usable))
    sessions = [session for file in usable for session in file.sessions]
    print_topic_summary(sessions, output, source=_read_from(usable, len(found)))


def _read_from(usable: Sequence[FileEvents], n_files: int) -> str:
    from offline.event_files import minute_of  # noqa: PLC0415

    lengths = ", ".join(sorted({f"{file.bar_us / 60e6:g}" for file in usable}))
    n_read, n_dropped = sum(file.n_read for file in usable), sum(sum(file.dropped.values()) for file in usable)
    span = f"{minute_of(min(file.first_us for file in usable))} to {minute_of(max(file.last_us for file in usable))}"
    of_files = f"{len(usable)} of {n_files} file{'s' * (n_files != 1)}"
    return f"{lengths}-minute bars of {of_files} from {span}: {n_read} read, {n_dropped} left out"


def _say_left_out(dropped: Mapping[str, int], n_unsorted: int) -> None:
    for reason, n_bars in dropped.items():
        say(f"left out: {n_bars} bar{'s' * (n_bars != 1)}: {reason}")
    if n_unsorted:
        say(f"note: {n_unsorted} bar{'s' * (n_unsorted != 1)} stood behind a later one, and were sorted")
