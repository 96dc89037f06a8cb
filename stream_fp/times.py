"""Time stamps: text or epoch numbers in, integer microseconds since 1970 (UTC) out.

Pure, without a clock. Everything behind this module reckons in ``*_us`` integers, so that no zone, no daylight
saving and no rounding of floats reaches the sessions.
"""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from functools import lru_cache
from typing import Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from stream_fp.stamps import IS_COMPILED, digits_us

__all__ = [
    "HOUR_US",
    "MINUTE_US",
    "SECOND_US",
    "absolute_us",
    "day_us",
    "format_us",
    "local_us",
    "parse_date",
    "parse_time_of_day",
    "parse_timestamp_us",
    "zone_of",
]

SECOND_US: Final = 1_000_000
MINUTE_US: Final = 60 * SECOND_US
HOUR_US: Final = 60 * MINUTE_US
_DAY_US: Final = 24 * HOUR_US

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_EPOCH_WITHOUT_ZONE: Final = datetime(1970, 1, 1)  # noqa: DTZ001
_MICROSECOND: Final = timedelta(microseconds=1)
# What lies outside is no market time: it is treated like an unreadable time stamp. The bounds also keep the
# four epoch units apart: 1971 in ms is larger than 2200 in s, and so on.
_OLDEST_US: Final = 31_536_000 * SECOND_US  # 1971-01-01
_NEWEST_US: Final = 7_258_118_400 * SECOND_US  # 2200-01-01
_EPOCH_UNITS_US: Final = ((1_000_000, 1), (1_000, 1), (1, 1), (1, 1_000))  # s, ms, us, ns as (times, over)
#: What `absolute_us` cuts a text into: a minute, a second, a fraction, an offset from UTC. Python is left to judge the
#: numbers of the minute, but not the hour 24, which later versions allow at 24:00:00 alone.
_MINUTE: Final = re.compile(r"\d{4}-\d{2}-\d{2}[T ](?:[01]\d|2[0-3]):\d{2}", re.ASCII)
#: What a time stamp begins with (date, hour, minute), as UTC, of the minutes met last.
_MINUTES_US: Final[dict[str, int]] = {}
#: What follows: seconds.
_SECONDS_US: Final = {f":{second:02d}": second * SECOND_US for second in range(60)}
#: What it ends with, of the endings met so far: a fraction of up to three digits less the offset from UTC.
_ENDINGS_US: Final[dict[str, int]] = {}
_FRACTIONS_US: Final = {"": 0, **{f".{thousandth:03d}": thousandth * 1000 for thousandth in range(1000)}}
_OFFSETS_US: Final = {
    f"{sign}{hour:02d}:{minute:02d}": int(f"{sign}1") * (hour * HOUR_US + minute * MINUTE_US)
    for sign in "+-"
    for hour in range(15)
    for minute in (0, 15, 30, 45)
}
#: Minutes and endings remembered by `absolute_us`, in half a megabyte each: some days of the ones, as records mostly
#: come in the order of time; milliseconds in four zones of the others.
_N_REMEMBERED: Final = 4096
#: Zones remembered by `zone_of`, out of some 600; each takes a few kilobytes.
_N_ZONES: Final = 256
_TIME_OF_DAY: Final = re.compile(r"(\d{1,2}):(\d{2})(?::(\d{2})(?:\.(\d{1,6})\d*)?)?")
_ZONE_NAME: Final = re.compile(r"[A-Za-z0-9_+-]+(?:/[A-Za-z0-9_+-]+){0,2}")
#: Files of the zone database that mean another thing on every machine, or reckon leap seconds.
_NO_ZONES: Final = frozenset({"localtime", "posixrules", "Factory", "right", "posix"})
# Market shorthand that is no IANA name. Both halves of a pair mean "that city's wall clock".
_ZONE_ALIASES: Final = {
    "ET": "America/New_York",
    "EST": "America/New_York",
    "EDT": "America/New_York",
    "NY": "America/New_York",
    "CT": "America/Chicago",
    "CST": "America/Chicago",
    "CDT": "America/Chicago",
    "PT": "America/Los_Angeles",
    "Z": "UTC",
    "GMT": "UTC",
}


@lru_cache(_N_ZONES)
def zone_of(name: str) -> ZoneInfo:
    """Return the time zone of an IANA name or of a market shorthand such as ``ET``.

    Raises
    ------
    ValueError
        When no zone has that name.
    """
    msg = f"expected an IANA time zone such as `America/New_York`, got {name[:64]!r}"
    # Names come from producers: only what looks like a zone's name may reach the file system and the import system.
    if len(name) > 64 or not _ZONE_NAME.fullmatch(name) or name.partition("/")[0] in _NO_ZONES:
        raise ValueError(msg)
    try:
        return ZoneInfo(_ZONE_ALIASES.get(name, name))
    except (ZoneInfoNotFoundError, ValueError, OSError, ImportError) as error:
        raise ValueError(msg) from error


def parse_timestamp_us(value: str | float, zone: tzinfo, day: date | None = None) -> int | None:
    """Turn a time stamp into microseconds since 1970, or None where it cannot be read.

    Parameters
    ----------
    value : str or float
        ISO 8601 text with or without offset; a time of day (needs `day`); or an epoch number, whose unit
        (s, ms, us, ns) follows from its size.
    zone : tzinfo
        Zone of texts without an offset.
    day : date, optional
        Day of texts that are only a time of day.

    Examples
    --------
    >>> parse_timestamp_us("2025-07-29T14:35:00", UTC)
    1753799700000000
    >>> parse_timestamp_us("2025-07-29T10:35:00-04:00", UTC) == parse_timestamp_us(1753799700, UTC)
    True
    >>> parse_timestamp_us("soon", UTC) is None
    True
    """
    if type(value) is str:
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            return _time_of_day_us(value, zone, day)
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=zone)
        try:
            moment_us = (moment - _EPOCH) // _MICROSECOND
        except OverflowError:
            return None
        return moment_us if _OLDEST_US <= moment_us < _NEWEST_US else None
    return _epoch_us(value)


def absolute_us(value: str | float) -> int | None:
    """Read a time stamp that says by itself when it was, in microseconds since 1970; None where it may not.

    The quick way for what a stream is made of: epoch numbers, and ISO 8601 texts to the second, millisecond or
    microsecond with ``Z`` or an offset. What it reads, `parse_timestamp_us` reads the same in any zone; where it
    returns None, that function has the last word. It is quick because it is read digit by digit where that is compiled
    (`stream_fp.stamps`), and where it is not, because its parts are looked up rather than parsed.

    Examples
    --------
    >>> absolute_us("2025-07-29T10:35:00.250-04:00")
    1753799700250000
    >>> absolute_us("2025-07-29T10:35:00") is None
    True
    """
    if type(value) is not str:
        return _epoch_us(value)
    if IS_COMPILED and (time_us := digits_us(value)) >= 0:
        return time_us
    minute, ending = value[:16], value[19:]
    minute_us = _MINUTES_US.get(minute)
    if minute_us is None and (minute_us := _minute_us(minute)) is not None:
        if len(_MINUTES_US) >= _N_REMEMBERED:
            _MINUTES_US.clear()
        _MINUTES_US[minute] = minute_us
    second_us = _SECONDS_US.get(value[16:19])
    ending_us = _ENDINGS_US.get(ending)
    if ending_us is None:
        ending_us = _ending_us(ending)
    if minute_us is None or second_us is None or ending_us is None:
        return None
    return minute_us + second_us + ending_us


def _minute_us(text: str) -> int | None:
    """Parse date, hour and minute as UTC; None where an offset could take them out of range."""
    minute_us = parse_timestamp_us(text, UTC) if _MINUTE.fullmatch(text) else None
    within = minute_us is not None and _OLDEST_US + _DAY_US <= minute_us < _NEWEST_US - _DAY_US
    return minute_us if within else None


def _ending_us(text: str) -> int | None:
    """Parse a fraction of a second with an offset from UTC, and remember it where there are not too many."""
    offset_us = 0 if text[-1:] == "Z" else _OFFSETS_US.get(text[-6:])
    if offset_us is None:
        return None
    fraction = text[:-1] if text[-1:] == "Z" else text[:-6]
    fraction_us = _FRACTIONS_US.get(fraction)
    if fraction_us is not None:
        if len(_ENDINGS_US) < _N_REMEMBERED:
            _ENDINGS_US[text] = fraction_us - offset_us
        return fraction_us - offset_us
    if len(fraction) != 7 or fraction[0] != "." or not (fraction.isascii() and fraction[1:].isdigit()):
        return None
    return int(fraction[1:]) - offset_us


def _time_of_day_us(text: object, zone: tzinfo, day: date | None) -> int | None:
    if day is None or not isinstance(text, str):
        return None
    clock = parse_time_of_day(text)
    moment_us = None if clock is None else local_us(day, clock, zone)
    return moment_us if moment_us is not None and _OLDEST_US <= moment_us < _NEWEST_US else None


def _epoch_us(value: object) -> int | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    for times, over in _EPOCH_UNITS_US:
        # Compare before rounding: huge floats and infinities fall through without an overflow.
        scaled = value * times / over if isinstance(value, float) else value * times // over
        if _OLDEST_US <= scaled < _NEWEST_US:
            return int(scaled)
    return None


def parse_time_of_day(text: str) -> time | None:
    """Read ``HH:MM``, ``HH:MM:SS`` or ``HH:MM:SS.ffffff``; None where it is none of these.

    Examples
    --------
    >>> parse_time_of_day("9:30")
    datetime.time(9, 30)
    """
    match = _TIME_OF_DAY.fullmatch(text)
    if match is None:
        return None
    hour, minute, second, fraction = match.groups()
    try:
        return time(int(hour), int(minute), int(second or 0), int((fraction or "0").ljust(6, "0")))
    except ValueError:
        return None


def parse_date(text: str) -> date | None:
    """Read ``YYYY-MM-DD`` (or with underscores); None where it is not a date, or no market date (1971 to 2199).

    Examples
    --------
    >>> parse_date("2025_07_29")
    datetime.date(2025, 7, 29)
    """
    try:
        day = date.fromisoformat(text.replace("_", "-"))
    except ValueError:
        return None
    return day if 1971 <= day.year < 2200 else None


def local_us(day: date, clock: time, zone: tzinfo) -> int:
    """Return wall-clock time `clock` on `day` in `zone` as microseconds since 1970.

    In the hour that daylight saving repeats, the first pass is meant (``fold=0``).
    """
    return (datetime.combine(day, clock, tzinfo=zone) - _EPOCH) // _MICROSECOND


def day_us(day: date) -> int:
    """Return midnight UTC at the beginning of `day` as microseconds since 1970."""
    return local_us(day, time(), UTC)


def format_us(moment_us: int) -> str:
    """Write microseconds since 1970 as ISO 8601 in UTC, always with six decimals and no offset.

    Examples
    --------
    >>> format_us(1753799700000000)
    '2025-07-29T14:35:00.000000'
    """
    return (_EPOCH_WITHOUT_ZONE + timedelta(microseconds=moment_us)).isoformat(timespec="microseconds")
