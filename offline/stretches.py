"""Where bars may be compared with one another, and the unit that they are compared in.

Between reading bars (`offline.bars`) and detecting events (`offline.detect`). A stretch is a run of bars without a
break: no level, gap, leg or quiet period may reach across a break, because the prices on both sides have nothing to
do with each other. Breaks and unit are found together, bar by bar: a roll is a step that is large in the unit of that
moment, and the unit must not take the roll for volatility.

Invariant: breaks and unit of bar ``i`` depend on bars before it and on its own open alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from offline.measures import DEAD_RANGE_FRACTION, trailing_mean

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from offline.measures import Bars

__all__ = ["DAY_MINUTES", "WARMUP_BARS", "Stretches", "find_stretches"]

#: A trading day of a future: 23 hours.
#:
#: The unit of thresholds and intensities is the mean true range of the last such day of bars. Each hour of the day then
#: counts once in it, so that a lively hour shows as lively and a quiet one as quiet. In a unit of the last quarter of
#: an hour every session has the same mix of phases, and nothing of its future can be seen in its beginning.
DAY_MINUTES: Final = 1380
#: The unit is never below this share of the mean of the last `WEEK_DAYS` trading days: a feed that fills a weekend with
#: flat bars would leave none, and all of Monday would be an expansion. Between real days it makes no difference.
LEAST_FRACTION: Final = 0.1
WEEK_DAYS: Final = 5
#: Bars at the beginning of the data that give no events: a unit of fewer is noise.
WARMUP_BARS: Final = 60
#: A hole is longer than this, and than as many bars: shorter ones are minutes without a trade.
HOLE_MINUTES: Final = 5
HOLE_BARS: Final = 5
#: A step from close to open is a roll or a bad tick where it is larger than so many units. Markets move by as much
#: within a bar, hardly ever between two.
STEP_UNITS: Final = 10.0
#: And larger than this share of the price: where hardly anybody trades, a step of one tick is many units.
STEP_FRACTION: Final = 0.0005


@dataclass(frozen=True, slots=True, kw_only=True)
class Stretches:
    """Breaks and unit of a series of bars.

    Attributes
    ----------
    starts
        int64 ndarray of shape (n_stretches,): index of each stretch's first bar, ascending, from 0 on.
    spread
        ndarray of shape (n_bars,): true range, in the unit of the price; that of a stretch's first bar is its own
        range.
    unit
        ndarray of shape (n_bars,): recent true range as known before each bar, above 0.
    """

    starts: NDArray[np.int64]
    spread: NDArray[np.float64]
    unit: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.starts)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        """Yield first bar and end (the bar after the last) of each stretch."""
        starts = self.starts.tolist()
        return zip(starts, [*starts[1:], len(self.unit)], strict=True)


def find_stretches(open_us: NDArray[np.int64], bars: Bars, *, bar_us: int) -> Stretches:
    """Find the breaks between bars, and the unit before each.

    Parameters
    ----------
    open_us
        int64 ndarray of shape (n_bars,): when each bar opened, in microseconds since 1970, ascending.
    bars
        As many bars, at least one.
    bar_us
        Length of a bar in microseconds.

    Examples
    --------
    >>> from offline.measures import Bars
    >>> flat = np.array([10.0, 10.0, 10.0])
    >>> found = find_stretches(
    ...     np.array([0, 60, 600]) * 1_000_000, Bars(open=flat, high=flat + 1, low=flat, close=flat), bar_us=60_000_000
    ... )
    >>> list(found), found.unit.tolist()
    ([(0, 2), (2, 3)], [1.0, 1.0, 1.0])
    """
    day_bars = max(1, round(DAY_MINUTES * 60_000_000 / bar_us))
    step_us = np.diff(open_us, prepend=open_us[0] - 1)
    is_hole = step_us > max(HOLE_MINUTES * 60_000_000, HOLE_BARS * bar_us)
    is_hole[0] = True
    step = np.abs(bars.open - np.concatenate((bars.open[:1], bars.close[:-1])))
    # Only these need be looked at one after another; all others are no break in any unit.
    may_roll = ~is_hole & (step > STEP_FRACTION * bars.close)
    may_roll[:WARMUP_BARS] = False
    starts, spread = _starts_and_spread(bars, is_hole, np.where(may_roll, step, 0.0), day_bars)
    unit = np.maximum(trailing_mean(spread, day_bars), LEAST_FRACTION * trailing_mean(spread, WEEK_DAYS * day_bars))
    unit = np.maximum(unit, DEAD_RANGE_FRACTION * bars.close)
    # Known before the bar: what the bar before has left. Nothing is before the first, which gives no events.
    return Stretches(starts=starts, spread=spread, unit=np.concatenate((unit[:1], unit[:-1])))


def _starts_and_spread(
    bars: Bars, is_hole: NDArray[np.bool_], roll_step: NDArray[np.float64], day_bars: int
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return first bars of stretches, and true ranges that leave out the steps between them.

    `roll_step` is the step, in the unit of the price, of bars that may be rolls, and 0 elsewhere. A roll is judged in a
    unit that has left out the rolls before it, so candidates are decided in order.
    """
    before = np.concatenate((bars.open[:1], bars.close[:-1]))
    own = bars.high - bars.low
    spread = np.maximum(bars.high, before) - np.minimum(bars.low, before)
    spread[is_hole] = own[is_hole]
    is_start = is_hole.copy()
    # Candidates are few in real data; but where two contracts alternate every bar is one, so the sums are running ones.
    day_sum, week_sum = _RunningSum(spread, day_bars), _RunningSum(spread, WEEK_DAYS * day_bars)
    for bar in np.flatnonzero(roll_step).tolist():
        unit = max(day_sum.mean_before(bar), LEAST_FRACTION * week_sum.mean_before(bar))
        if roll_step[bar] > STEP_UNITS * unit:
            spread[bar] = own[bar]
            is_start[bar] = True
    return np.flatnonzero(is_start), spread


class _RunningSum:
    """Mean of the last `width` values before ascending places of an array that changes behind them."""

    def __init__(self, values: NDArray[np.float64], width: int) -> None:
        self._values = values
        self._width = width
        self._first = 0
        self._end = 0
        self._total = 0.0

    def mean_before(self, place: int) -> float:
        """Return the mean of the values before `place`; each value is added and subtracted once."""
        self._total += float(self._values[self._end : place].sum())
        self._end = place
        first = max(0, place - self._width)
        self._total -= float(self._values[self._first : first].sum())
        self._first = first
        return self._total / max(1, place - first)
