"""Read bars from Parquet or CSV, and clean them: the way into `offline.market_events`.

I/O and the judgement of single bars; what bars mean together is found later. Files come from many sources, so columns
are found by their usual names, times are read in any usual form, and what cannot be a bar is dropped, counted and
told.

Invariant: the bars returned are in order of time, one for each time, with finite prices above 0 and open and close
within low and high. The same bars give the same arrays, whatever the file's format and order.
"""

from __future__ import annotations

import gzip
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

import numpy as np
import polars as pl

from offline.bar_times import times_of_column_us
from offline.measures import Bars
from stream_fp.checks import MAX_PRICE, MIN_PRICE
from stream_fp.errors import ConfigError, DocumentError

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["BAR_SUFFIXES", "COLUMN_NAMES", "MarketBars", "Stamp", "read_bars"]

Stamp = Literal["open", "close"]

#: Usual names of each column in lower case, the best first.
COLUMN_NAMES: Final[dict[str, tuple[str, ...]]] = {
    "time": ("timestamp", "datetime", "date_time", "time", "date", "ts", "ts_event", "open_time", "gmt time",
             "local time"),
    "open": ("open", "o", "<open>", "open_price"),
    "high": ("high", "h", "<high>", "high_price"),
    "low": ("low", "l", "<low>", "low_price"),
    "close": ("close", "c", "<close>", "last", "close_price"),
}  # fmt: skip
_PRICES: Final = ("open", "high", "low", "close")
#: Endings of the files that `read_bars` reads, in lower case.
BAR_SUFFIXES: Final = (".parquet", ".csv", ".csv.gz")
_SEPARATORS: Final = (",", ";", "\t")
#: Of the price: open and close may be so far outside low and high, as when prices were rounded one by one.
_ROUNDING_FRACTION: Final = 1e-6
#: Bars of more than an hour have nothing to say of sessions of one.
_MAX_BAR_MINUTES: Final = 60.0
_MINUTE_US: Final = 60_000_000
_N_COLUMNS_SHOWN: Final = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class MarketBars:
    """Bars of one instrument, cleaned and in order, and what was left out.

    Attributes
    ----------
    open_us
        int64 ndarray of shape (n_bars,): when each bar opened, in microseconds since 1970, strictly ascending.
    bar_us
        Length of a bar in microseconds: it closes, and is known, that much later.
    bars
        As many bars, at least one.
    n_read
        Rows of the file.
    dropped
        Number of rows left out, by reason; no reason with 0.
    n_unsorted
        Rows that stood behind a later one; they were sorted, not dropped.
    """

    open_us: NDArray[np.int64]
    bar_us: int
    bars: Bars
    n_read: int
    dropped: dict[str, int]
    n_unsorted: int

    def __len__(self) -> int:
        return len(self.bars)

    @property
    def close_us(self) -> NDArray[np.int64]:
        """When each bar closed, in microseconds since 1970."""
        return self.open_us + self.bar_us


def read_bars(
    path: Path,
    *,
    columns: Mapping[str, str] | None = None,
    timezone: str = "UTC",
    stamp: Stamp = "open",
    bar_minutes: float | None = None,
) -> MarketBars:
    """Read and clean the bars of a file.

    Parameters
    ----------
    path
        Ends in ``.parquet``, ``.csv`` or ``.csv.gz``; CSV with a header, separated by comma, semicolon or tab.
    columns
        Names of the columns ``time``, ``open``, ``high``, ``low``, ``close`` in the file; those that are absent here
        are found by their usual names, `COLUMN_NAMES`, in upper or lower case.
    timezone
        IANA zone of times without an offset. Of an hour that autumn repeats the first pass is meant.
    stamp
        Whether a time is that of the bar's open or of its close.
    bar_minutes
        Length of a bar; by default the most frequent step between two.

    Raises
    ------
    ConfigError
        When a column, the zone or the length of bars is wrong or cannot be found.
    DocumentError
        When the file cannot be read, or holds no usable bar.
    """
    frame = _read_columns(path, dict(columns or {}))
    n_read = frame.height
    times_us = times_of_column_us(frame["time"], timezone=timezone, where=str(path))
    prices = {name: _numbers(frame[name]) for name in _PRICES}
    reasons = {
        "time cannot be read": times_us < 0,
        "price missing, not above 0 or not finite": ~_is_priced(prices),
        "high below low, or open or close outside": ~_is_consistent(prices),
    }
    dropped: dict[str, int] = {}
    is_usable = np.ones(n_read, dtype=bool)
    for reason, is_bad in reasons.items():
        if n_bad := int(np.count_nonzero(is_bad & is_usable)):
            dropped[reason] = n_bad
        is_usable &= ~is_bad
    if not is_usable.any():
        why = ", ".join(f"{reason}: {n}" for reason, n in dropped.items()) or "the file has no rows"
        raise DocumentError(str(path), f"expected bars, found none that is usable ({why})")
    times_us = times_us[is_usable]
    n_unsorted = int(np.count_nonzero(times_us[1:] < np.maximum.accumulate(times_us)[:-1]))
    order = np.argsort(times_us, kind="stable")
    times_us = times_us[order]
    is_first = np.diff(times_us, prepend=times_us[0] - 1) > 0
    if n_repeated := int(np.count_nonzero(~is_first)):
        dropped["time of an earlier bar"] = n_repeated
    kept = np.flatnonzero(is_usable)[order[is_first]]
    times_us = times_us[is_first]
    bar_us = _bar_length_us(times_us, bar_minutes)
    bars = _bars({name: values[kept] for name, values in prices.items()})
    return MarketBars(
        open_us=times_us if stamp == "open" else times_us - bar_us,
        bar_us=bar_us,
        bars=bars,
        n_read=n_read,
        dropped=dropped,
        n_unsorted=n_unsorted,
    )


def _read_columns(path: Path, given: dict[str, str]) -> pl.DataFrame:
    """Return the five columns under our names, as the file has them; texts where it is CSV."""
    name = path.name.lower()
    if not name.endswith(BAR_SUFFIXES):
        raise DocumentError(str(path), f"expected a file ending in {', '.join(BAR_SUFFIXES)}")
    try:
        if name.endswith(".parquet"):
            found = _columns(list(pl.read_parquet_schema(path)), given)
            return pl.read_parquet(path, columns=list(found.values())).select(
                pl.col(theirs).alias(ours) for ours, theirs in found.items()
            )
        opened = gzip.open if name.endswith(".gz") else open
        with opened(path, "rt", encoding="utf-8", errors="replace") as lines:
            first_line = str(next(iter(lines), ""))
        separator = max(_SEPARATORS, key=first_line.count)
        # Texts, so that one bad cell is one bad bar and not the type of its column.
        frame = pl.read_csv(path, separator=separator, infer_schema=False, truncate_ragged_lines=True)
        found = _columns(frame.columns, given)
        return frame.select(pl.col(theirs).alias(ours) for ours, theirs in found.items())
    except (OSError, EOFError, pl.exceptions.PolarsError) as error:
        first_line = next(iter(str(error).splitlines()), type(error).__name__)
        raise DocumentError(str(path), f"cannot be read: {first_line}") from error


def _columns(found: list[str], given: dict[str, str]) -> dict[str, str]:
    """Return the file's name of each of our columns."""
    by_name = {name.strip().lower(): name for name in reversed(found)}
    shown = ", ".join(found[:_N_COLUMNS_SHOWN]) + (", ..." if len(found) > _N_COLUMNS_SHOWN else "")
    columns = {}
    for ours, usual in COLUMN_NAMES.items():
        wanted = (given[ours],) if ours in given else usual
        theirs = next((by_name[name.strip().lower()] for name in wanted if name.strip().lower() in by_name), None)
        # One that is spelled exactly goes before one that differs in case.
        theirs = given[ours] if given.get(ours) in found else theirs
        if theirs is None:
            expected = f"a column named {wanted[0]}" if ours in given else f"a column named one of {', '.join(usual)}"
            raise ConfigError(f"{ours}-column", f"expected {expected}, found {shown or 'none'}")
        columns[ours] = theirs
    if len(set(columns.values())) < len(columns):
        twice = next(name for name in columns.values() if list(columns.values()).count(name) > 1)
        both = " and ".join(ours for ours, theirs in columns.items() if theirs == twice)
        raise ConfigError(f"{both.split()[-1]}-column", f"expected five different columns, got {twice} as {both}")
    return columns


def _numbers(column: pl.Series) -> NDArray[np.float64]:
    """Return a column as floats; NaN for what is no number."""
    if column.dtype == pl.String:
        column = column.str.strip_chars()
    if not (column.dtype == pl.String or column.dtype.is_numeric() or column.dtype == pl.Null):
        return np.full(len(column), np.nan)
    return column.cast(pl.Float64, strict=False).fill_null(float("nan")).to_numpy().astype(np.float64)


def _is_priced(prices: dict[str, NDArray[np.float64]]) -> NDArray[np.bool_]:
    within = [(values >= MIN_PRICE) & (values <= MAX_PRICE) for values in prices.values()]  # not of NaN or infinity
    is_priced: NDArray[np.bool_] = np.logical_and.reduce(within)
    return is_priced


def _is_consistent(prices: dict[str, NDArray[np.float64]]) -> NDArray[np.bool_]:
    opened, high, low, close = (prices[name] for name in _PRICES)
    slack = _ROUNDING_FRACTION * np.abs(close)
    is_consistent: NDArray[np.bool_] = (
        (high >= low) & (np.maximum(opened, close) <= high + slack) & (np.minimum(opened, close) >= low - slack)
    )
    return is_consistent


def _bars(prices: dict[str, NDArray[np.float64]]) -> Bars:
    opened, high, low, close = (prices[name] for name in _PRICES)
    return Bars(
        open=opened,
        high=np.maximum(high, np.maximum(opened, close)),
        low=np.minimum(low, np.minimum(opened, close)),
        close=close,
    )


def _bar_length_us(times_us: NDArray[np.int64], bar_minutes: float | None) -> int:
    """Return the length given, else the most frequent step; of two as frequent the shorter."""
    if bar_minutes is None:
        if len(times_us) < 2:
            raise ConfigError("bar-minutes", "expected the length of a bar, for a single one does not show it")
        steps, counts = np.unique(np.diff(times_us), return_counts=True)
        bar_us = int(steps[np.argmax(counts)])
    else:
        bar_us = round(bar_minutes * _MINUTE_US)
    if not 1_000_000 <= bar_us <= _MAX_BAR_MINUTES * _MINUTE_US:
        found = f"{bar_us / _MINUTE_US:g}{' as the most frequent step' if bar_minutes is None else ''}"
        raise ConfigError("bar-minutes", f"expected bars of a second to {_MAX_BAR_MINUTES:g} minutes, got {found}")
    return bar_us
