"""``stream-fp-offline events``: bars of one instrument in, messages of the input topic out.

Only options and order of work; the work itself is in `offline.bars`, which reads, and `offline.market_events`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from offline.console import say, work_progress
from stream_fp.completion import DEFAULT_SCHEDULES, Schedule
from stream_fp.times import parse_time_of_day, zone_of

if TYPE_CHECKING:
    from offline.bars import MarketBars, Stamp

__all__ = ["events_command"]

_COLUMNS: Final = ("time", "open", "high", "low", "close")
#: Words that begin with a letter: nothing in a type can be taken for the date that follows it in a session's id.
_TYPE: Final = re.compile(r"[a-z][a-z0-9]*(?:_[a-z][a-z0-9]*)*", re.IGNORECASE)
_WINDOW: Final = re.compile(r"(?P<type>[^=]+)=(?:(?P<start>[\d:]+)-(?P<end>[\d:]+))?")
_INSTRUMENT: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._]*")
_MAX_NAME_LENGTH: Final = 32
_DEFAULT_ZONE: Final = "America/New_York"


def _windows(
    _context: click.Context, _parameter: click.Parameter, values: tuple[str, ...]
) -> dict[str, tuple[str, str] | None]:
    """Read ``TYPE=HH:MM-HH:MM`` as start and end, and ``TYPE=`` as none."""
    found: dict[str, tuple[str, str] | None] = {}
    for text in values:
        match = _WINDOW.fullmatch(text.strip())
        if match is None or not _TYPE.fullmatch(match["type"]) or len(match["type"]) > _MAX_NAME_LENGTH:
            raise click.BadParameter(f"expected TYPE=HH:MM-HH:MM, or TYPE= to leave one out, got {text!r}")
        if match["start"] is None:
            found[match["type"].lower()] = None
            continue
        start, end = parse_time_of_day(match["start"]), parse_time_of_day(match["end"])
        if start is None or end is None or start == end:
            raise click.BadParameter(f"expected two different times of day such as 09:30-11:59, got {text!r}")
        found[match["type"].lower()] = (start.isoformat(), end.isoformat())
    return found


def _zone_name(_context: click.Context, _parameter: click.Parameter, value: str) -> str:
    try:
        return zone_of(value).key
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


def _instrument(_context: click.Context, _parameter: click.Parameter, value: str) -> str:
    if value and (not _INSTRUMENT.fullmatch(value) or len(value) > _MAX_NAME_LENGTH):
        raise click.BadParameter(
            f"expected up to {_MAX_NAME_LENGTH} letters, digits, dots and underscores, such as NQ, got {value!r}"
        )
    return value


def _schedules(changes: Mapping[str, tuple[str, str] | None], zone: str) -> dict[str, Schedule]:
    """Return the usual windows in `zone`, changed as asked."""
    schedules = {
        name: Schedule(start=usual.start, end=usual.end, timezone=zone)
        for name, usual in DEFAULT_SCHEDULES.items()
        if name not in changes
    }
    for name, window in changes.items():
        if window is not None:
            schedules[name] = Schedule(start=window[0], end=window[1], timezone=zone)
    return schedules


@click.command("events")
@click.option(
    "--bars",
    "source",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    required=True,
    help="Bars of one instrument: a .parquet, .csv or .csv.gz file with time, open, high, low and close.",
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
    callback=_zone_name,
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
    callback=_windows,
    metavar="TYPE=HH:MM-HH:MM",
    help="Window of a session type, new or in place of the usual one; TYPE= leaves one out. May be repeated.",
)
@click.option(
    "--windows-timezone",
    default=_DEFAULT_ZONE,
    show_default=True,
    callback=_zone_name,
    metavar="ZONE",
    help="Zone of all windows.",
)
@click.option(
    "--instrument",
    default="",
    callback=_instrument,
    metavar="NAME",
    help="Ends the session ids, so that several instruments can share a topic.",
)
@click.option("--force", is_flag=True, help="Replace the output file.")
def events_command(
    *,
    source: Path,
    output: Path,
    bars_timezone: str,
    stamp: Stamp,
    bar_minutes: float | None,
    windows: dict[str, tuple[str, str] | None],
    windows_timezone: str,
    instrument: str,
    force: bool,
    **named_columns: str | None,
) -> None:
    """Turn OHLC bars of one instrument into the messages of trading sessions.

    An event is stamped with the close of the bar that made it known, and nothing depends on what comes later.
    """
    import msgspec  # noqa: PLC0415 - see `offline.commands`

    from offline.bars import read_bars  # noqa: PLC0415
    from offline.market_events import find_events, find_sessions, session_messages  # noqa: PLC0415
    from offline.places import check_new_file, write_whole  # noqa: PLC0415
    from offline.topic_summary import print_topic_summary, told_market_sessions  # noqa: PLC0415
    from stream_fp.errors import ConfigError, DocumentError  # noqa: PLC0415

    schedules = _schedules(windows, windows_timezone)
    if not schedules:
        raise ConfigError("window", "expected at least one session type, all are left out")
    check_new_file("output", output, force=force)
    if output.exists() and output.samefile(source):
        raise ConfigError("output", f"{output} holds the bars; give another file")
    columns = {ours: theirs for ours in _COLUMNS if (theirs := named_columns[f"{ours}_column"]) is not None}
    say(f"Reading bars from {source}")
    market = read_bars(source, columns=columns, timezone=bars_timezone, stamp=stamp, bar_minutes=bar_minutes)
    with work_progress("bar") as progress:
        events = find_events(market, zone=zone_of(windows_timezone), progress=progress)
    sessions = find_sessions(market, events, schedules, instrument=instrument)
    if not sessions:
        why = f"{len(market)} bars from {_minute(market, 0)} to {_minute(market, -1)} give no session an event"
        raise DocumentError(str(source), f"{why}; are bars-timezone, windows and windows-timezone right?")
    lines = (msgspec.json.encode(message) + b"\n" for message in session_messages(sessions))
    write_whole("output", output, lines)
    for reason, n_bars in market.dropped.items():
        say(f"left out: {n_bars} bar{'s' * (n_bars != 1)}: {reason}")
    if market.n_unsorted:
        say(f"note: {market.n_unsorted} bar{'s' * (market.n_unsorted != 1)} stood behind a later one, and were sorted")
    length = f"{market.bar_us / 60e6:g}-minute bars"
    read = f"{market.n_read} read, {sum(market.dropped.values())} left out"
    span = f"{_minute(market, 0)} to {_minute(market, -1)}"
    print_topic_summary(told_market_sessions(sessions), output, source=f"{length} from {span}: {read}")


def _minute(market: MarketBars, place: int) -> str:
    from stream_fp.times import format_us  # noqa: PLC0415

    return f"{format_us(int(market.open_us[place]))[:16].replace('T', ' ')} UTC"
