# Every index lies below the length that is looked at first: unchecked, the hot loop takes a twentieth less.
# cython: boundscheck=False, wraparound=False
"""Time stamps as a stream has them, read digit by digit.

Pure. Quick where compiled (`stamps.pxd` has the types); interpreted, it takes longer than to look the parts of a stamp
up, which is what `stream_fp.times` does then.
"""

from __future__ import annotations

from typing import Final

__all__ = ["IS_COMPILED", "digits_us"]

#: Whether this module was compiled.
IS_COMPILED: Final = not __file__.endswith(".py")


def digits_us(text: str) -> int:  # noqa: C901, PLR0911, PLR0912 - one after another, as they stand in the text
    """Read ``YYYY-MM-DDTHH:MM:SS[.fff[fff]]`` with ``Z`` or an offset, in microseconds since 1970.

    Returns -1 where the text may be something else, or nothing: who needs to know has to look closer.

    Examples
    --------
    >>> digits_us("2025-07-29T10:35:00.250-04:00")
    1753799700250000
    >>> digits_us("2025-02-29T10:35:00Z")
    -1
    """
    n = len(text)
    if n < 20 or n > 32 or text[4] != "-" or text[7] != "-" or text[13] != ":" or text[16] != ":":
        return -1
    if text[10] != "T" and text[10] != " ":
        return -1
    century, year, month, day = _two(text, 0), _two(text, 2), _two(text, 5), _two(text, 8)
    hour, minute, second = _two(text, 11), _two(text, 14), _two(text, 17)
    if century < 0 or year < 0 or month < 1 or day < 1 or hour < 0 or minute < 0 or second < 0:
        return -1
    year += 100 * century
    # The first and last year that are read at all are left to who looks closer.
    if year < 1972 or year >= 2199 or month > 12 or hour > 23 or minute > 59 or second > 59:
        return -1
    if month == 2:
        last_day = 29 if year % 4 == 0 and (year % 100 != 0 or year % 400 == 0) else 28
    else:
        last_day = 31 - (month - 1) % 7 % 2
    if day > last_day:
        return -1
    at, fraction_us = 19, 0
    if text[19] == ".":
        at = 23 if n in {24, 29} else 26
        if n != at + 1 and n != at + 6:
            return -1
        for i in range(20, at):
            digit = ord(text[i]) - 48
            if digit < 0 or digit > 9:
                return -1
            fraction_us = 10 * fraction_us + digit
        if at == 23:
            fraction_us *= 1000
    offset_min = 0
    if n == at + 6:
        ahead, beside = _two(text, at + 1), _two(text, at + 4)
        if text[at + 3] != ":" or ahead < 0 or ahead > 14 or beside < 0 or beside > 59:
            return -1
        offset_min = 60 * ahead + beside
        if text[at] == "-":
            offset_min = -offset_min
        elif text[at] != "+":
            return -1
    elif n != at + 1 or text[at] != "Z":
        return -1
    # Days since 1970, in years that begin in March: then a leap day comes last.
    shifted = year - 1 if month <= 2 else year
    days = 365 * shifted + shifted // 4 - shifted // 100 + shifted // 400
    days += (153 * ((month + 9) % 12) + 2) // 5 + day - 719_469
    minutes = (days * 24 + hour) * 60 + minute - offset_min
    return (minutes * 60 + second) * 1_000_000 + fraction_us


def _two(text: str, at: int) -> int:
    """Return the number that two digits stand for; -100 where one is no digit."""
    tens, ones = ord(text[at]) - 48, ord(text[at + 1]) - 48
    if tens < 0 or tens > 9 or ones < 0 or ones > 9:
        return -100
    return 10 * tens + ones
