"""The volatility regime of bars: low, middle or high for this time of the day.

Beside `offline.detect`, which stamps each event with it. A quiet hour is no low regime and a lively one no high regime:
volatility is compared with that of the same half hour on the days before. Pure functions over arrays.

Invariant: the regime of bar ``i`` depends on bars ``0 … i`` alone; a half hour enters the history when it is over.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

import numpy as np

from offline.measures import DEAD_RANGE_FRACTION, trailing_mean
from stream_fp.times import MINUTE_US

if TYPE_CHECKING:
    from zoneinfo import ZoneInfo

    from numpy.typing import NDArray

__all__ = ["market_regimes"]

#: Volatility is the mean true range of so many minutes: the scale above that of the events, which last for minutes.
VOLATILITY_MINUTES: Final = 240
#: Days of the same half hour that it is compared with: about a month of trading. More of them react later to a market
#: that has changed.
HISTORY_DAYS: Final = 20
#: With fewer days there are no terciles to speak of, and every bar counts as middle.
LEAST_DAYS: Final = 5
_HALF_HOUR_US: Final = 30 * MINUTE_US
_DAY_US: Final = 48 * _HALF_HOUR_US


def market_regimes(
    open_us: NDArray[np.int64],
    spread: NDArray[np.float64],
    close: NDArray[np.float64],
    *,
    bar_us: int,
    zone: ZoneInfo,
) -> NDArray[np.int64]:
    """Return the regime of each bar, as known at its close.

    Parameters
    ----------
    open_us
        int64 ndarray of shape (n_bars,): microseconds since 1970, ascending.
    spread
        ndarray of shape (n_bars,): true range, in the unit of the price.
    close
        ndarray of shape (n_bars,): price.
    bar_us
        Length of a bar in microseconds.
    zone
        Where half hours of the day are counted. Each pass of an hour that autumn repeats counts as a day of its own.

    Returns
    -------
    ndarray of shape (n_bars,)
        0, 1, 2 for the lower, middle and upper third.
    """
    width = max(1, round(VOLATILITY_MINUTES * MINUTE_US / bar_us))
    volatility = np.log(np.maximum(trailing_mean(spread, width), DEAD_RANGE_FRACTION * close))
    half_hour = _local_us(open_us, zone) // _HALF_HOUR_US
    run_ends = np.flatnonzero(np.diff(half_hour, append=half_hour[-1] + 1))
    run_slots = half_hour[run_ends] % (_DAY_US // _HALF_HOUR_US)
    # Until there is a history: nothing is above the one, nor below the other.
    low, high = np.full(len(run_ends), -np.inf), np.full(len(run_ends), np.inf)
    for slot in np.unique(run_slots):
        runs = np.flatnonzero(run_slots == slot)
        low[runs], high[runs] = _terciles_before(volatility[run_ends[runs]])
    lengths = np.diff(run_ends, prepend=-1)
    above = (volatility > np.repeat(low, lengths)).astype(np.int64) + (volatility > np.repeat(high, lengths))
    return np.asarray(above)


def _terciles_before(values: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return both terciles of the `HISTORY_DAYS` values before each one; infinite before `LEAST_DAYS` of them.

    Examples
    --------
    >>> low, high = _terciles_before(np.arange(7.0))
    >>> low[4:].round(2).tolist(), high[4:].round(2).tolist()
    ([-inf, 1.33, 1.67], [inf, 2.67, 3.33])
    """
    low, high = np.full(len(values), -np.inf), np.full(len(values), np.inf)
    thirds = (1 / 3, 2 / 3)
    for day in range(LEAST_DAYS, min(HISTORY_DAYS, len(values))):
        low[day], high[day] = np.quantile(values[:day], thirds)
    if len(values) > HISTORY_DAYS:
        windows = np.lib.stride_tricks.sliding_window_view(values[:-1], HISTORY_DAYS)
        low[HISTORY_DAYS:], high[HISTORY_DAYS:] = np.quantile(windows, thirds, axis=1)
    return low, high


def _local_us(open_us: NDArray[np.int64], zone: ZoneInfo) -> NDArray[np.int64]:
    """Return wall-clock time as microseconds since 1970; clocks change at half hours at the finest."""
    blocks, place = np.unique(open_us // _HALF_HOUR_US, return_inverse=True)
    offsets_us = [
        int((moment.utcoffset() or timedelta()).total_seconds()) * 1_000_000
        for moment in (datetime.fromtimestamp(int(block) * 1800, UTC).astimezone(zone) for block in blocks)
    ]
    return open_us + np.array(offsets_us, dtype=np.int64)[place]
