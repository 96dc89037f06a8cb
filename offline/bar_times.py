"""Times of bars, in whatever form a file has them, as microseconds since 1970.

Beside `offline.bars`: whole columns at once, by the rules by which `stream_fp.times` reads one time stamp.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import polars as pl

from stream_fp.errors import ConfigError, DocumentError
from stream_fp.times import SECOND_US, zone_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["times_of_column_us"]

#: Date, time of day and offset of an ISO 8601 text; the time may lack, and so may its seconds.
_ISO: Final = (
    r"^(?<day>\d{4}-?\d{2}-?\d{2})(?:[T ]+(?<minute>\d{2}:\d{2})(?::(?<second>[0-5]\d)(?:[.,](?<part>\d+))?)?)?"
    r" *(?<zone>Z|z|UTC|[+-]\d{2}(?::?\d{2})?)?$"
)
#: As in `stream_fp.times`: 1971 to 2199, which also keeps the units of epoch numbers apart.
_OLDEST_US: Final = 31_536_000 * SECOND_US
_NEWEST_US: Final = 7_258_118_400 * SECOND_US
_EPOCH_UNITS_US: Final = ((1_000_000, 1), (1_000, 1), (1, 1), (1, 1_000))  # s, ms, us, ns as (times, over)


def times_of_column_us(column: pl.Series, *, timezone: str, where: str) -> NDArray[np.int64]:
    """Read a column of time stamps: datetimes, dates, ISO 8601 texts, or epoch numbers (s, ms, us or ns by their size).

    Parameters
    ----------
    column
        Of any type.
    timezone
        Zone of times without an offset. Of an hour that autumn repeats the first pass is meant; one that spring leaves
        out cannot be read.
    where
        File, for the error.

    Returns
    -------
    ndarray of shape (n_rows,)
        int64, in microseconds since 1970; -1 for what cannot be read.

    Raises
    ------
    ConfigError
        When there is no such zone.
    DocumentError
        When nothing in the column can be read.

    Examples
    --------
    >>> texts = pl.Series(["2025-07-29 10:35", "2025-07-29T14:35:00Z", "1753799700", "soon"])
    >>> times_of_column_us(texts, timezone="America/New_York", where="bars.csv").tolist()
    [1753799700000000, 1753799700000000, 1753799700000000, -1]
    """
    try:
        zone = zone_of(timezone).key
    except ValueError as error:
        raise ConfigError("bars-timezone", str(error)) from error
    dtype = column.dtype
    if isinstance(dtype, pl.Datetime):
        times = _absolute(column, zone) if dtype.time_zone is None else column
        times_us = _us(times)
    elif dtype == pl.Date:
        times_us = _us(_absolute(column.cast(pl.Datetime("us")), zone))
    elif dtype == pl.String:
        text = column.str.strip_chars()
        from_text, from_number = _from_iso(text, zone), _from_number_text(text)
        times_us = np.where(from_number >= 0, from_number, from_text)
    elif dtype.is_integer():
        times_us = _from_integers(column.cast(pl.Int64, strict=False))
    elif dtype.is_numeric():
        times_us = _from_floats(column.cast(pl.Float64, strict=False))
    else:
        times_us = np.full(len(column), -1)
    times_us = np.where((times_us >= _OLDEST_US) & (times_us < _NEWEST_US), times_us, -1)
    if len(times_us) and times_us.max() < 0:
        example = next((str(value) for value in column.head(1000).drop_nulls()), "nothing")
        forms = "times such as 2025-07-29T09:30:00-04:00 or epoch numbers"
        raise DocumentError(where, f"expected {forms} in the column of times (`time-column`), got {example[:64]!r}")
    return times_us


def _absolute(naive: pl.Series, zone: str) -> pl.Series:
    return naive.dt.cast_time_unit("us").dt.replace_time_zone(zone, ambiguous="earliest", non_existent="null")


def _us(times: pl.Series) -> NDArray[np.int64]:
    return times.dt.epoch("us").fill_null(-1).to_numpy().astype(np.int64)


def _from_iso(text: pl.Series, zone: str) -> NDArray[np.int64]:
    parts = text.str.extract_groups(_ISO).struct.unnest()
    joined = (
        parts["day"].str.replace_all("-", "")
        + parts["minute"].fill_null("00:00").str.replace(":", "")
        + parts["second"].fill_null("00")
    )
    naive = joined.str.to_datetime("%Y%m%d%H%M%S", time_unit="us", strict=False)
    offset = parts["zone"]
    offsets_us = {name: _offset_us(name) for name in offset.unique().drop_nulls()}
    shift_us = offset.replace_strict(offsets_us, default=None, return_dtype=pl.Int64).fill_null(0).to_numpy()
    whole_us = np.where(offset.is_null().to_numpy(), _us(_absolute(naive, zone)), _us(naive) - shift_us)
    fraction = parts["part"].fill_null("0").str.slice(0, 6).str.pad_end(6, "0")
    is_read = naive.is_not_null().to_numpy() & (whole_us >= 0)
    return np.where(is_read, whole_us + fraction.cast(pl.Int64, strict=False).fill_null(0).to_numpy(), -1)


def _offset_us(zone: str) -> int:
    if zone in {"Z", "z", "UTC"}:
        return 0
    digits = zone[1:].replace(":", "").ljust(4, "0")
    return int(f"{zone[0]}1") * (int(digits[:2]) * 60 + int(digits[2:])) * 60 * SECOND_US


def _from_number_text(text: pl.Series) -> NDArray[np.int64]:
    whole = text.cast(pl.Int64, strict=False)
    exact = _from_integers(whole)
    if whole.null_count() == 0:
        return exact
    # A fraction of a second; as whole numbers, nanoseconds would lose digits in a float.
    return np.where(exact >= 0, exact, _from_floats(text.cast(pl.Float64, strict=False)))


def _from_integers(numbers: pl.Series) -> NDArray[np.int64]:
    values = numbers.fill_null(-1).to_numpy().astype(np.int64)
    times_us = np.full(len(values), -1)
    for times, over in _EPOCH_UNITS_US:
        is_unit = (values >= _OLDEST_US * over // times) & (values < _NEWEST_US * over // times)
        times_us[is_unit] = values[is_unit] * times // over
    return times_us


def _from_floats(numbers: pl.Series) -> NDArray[np.int64]:
    values = numbers.fill_null(-1.0).to_numpy().astype(np.float64)
    times_us = np.full(len(values), -1)
    for times, over in _EPOCH_UNITS_US:
        is_unit = (values >= _OLDEST_US * over / times) & (values < _NEWEST_US * over / times)  # never of NaN
        times_us[is_unit] = np.rint(values[is_unit] * times / over).astype(np.int64)
    return times_us
