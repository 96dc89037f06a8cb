"""What the options of ``events`` mean: windows of session types, zones, the name of an instrument."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

import click

from stream_fp.completion import DEFAULT_SCHEDULES, Schedule
from stream_fp.times import parse_time_of_day, zone_of

__all__ = ["read_instrument", "read_windows", "read_zone", "schedules_of"]

#: Words that begin with a letter: nothing in a type can be taken for the date that follows it in a session's id.
_TYPE: Final = re.compile(r"[a-z][a-z0-9]*(?:_[a-z][a-z0-9]*)*", re.IGNORECASE)
_WINDOW: Final = re.compile(r"(?P<type>[^=]+)=(?:(?P<start>[\d:]+)-(?P<end>[\d:]+))?")
_INSTRUMENT: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._]*")
_MAX_NAME_LENGTH: Final = 32


def read_windows(
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


def read_zone(_context: click.Context, _parameter: click.Parameter, value: str) -> str:
    """Read the name of a zone."""
    try:
        return zone_of(value).key
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


def read_instrument(_context: click.Context, _parameter: click.Parameter, value: str) -> str:
    """Read the name of an instrument; it ends session ids."""
    if value and (not _INSTRUMENT.fullmatch(value) or len(value) > _MAX_NAME_LENGTH):
        raise click.BadParameter(
            f"expected up to {_MAX_NAME_LENGTH} letters, digits, dots and underscores, such as NQ, got {value!r}"
        )
    return value


def schedules_of(changes: Mapping[str, tuple[str, str] | None], zone: str) -> dict[str, Schedule]:
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
