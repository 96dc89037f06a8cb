"""Bars, and the rolling measures of them that everything else is judged by.

The bottom of the way from prices to events: `offline.bars` reads bars, `offline.simulate` draws them,
`offline.stretches` and `offline.detect` measure them with these functions. Pure functions over arrays.

Invariant: a measure at bar ``i`` depends on bars ``0 … i`` alone, to the last bit: means are differences of one running
sum, which later bars do not change.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

__all__ = ["DEAD_RANGE_FRACTION", "Bars", "trailing_extreme", "trailing_mean", "true_range"]

#: Of the price: the least true range that is reckoned with, so that a dead market divides nothing by zero. Far below
#: any tick, and above the rounding of a running sum.
DEAD_RANGE_FRACTION: Final = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class Bars:
    """Bars of one length, oldest first.

    Attributes
    ----------
    open, high, low, close
        float64 ndarrays of shape (n_bars,), in the unit of the price.
    """

    open: NDArray[np.float64]
    high: NDArray[np.float64]
    low: NDArray[np.float64]
    close: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.close)

    def between(self, first: int, end: int) -> Bars:
        """Return the bars from index `first` up to and without `end`; views, nothing is copied.

        Examples
        --------
        >>> flat = np.ones(5)
        >>> len(Bars(open=flat, high=flat, low=flat, close=flat).between(1, 4))
        3
        """
        return Bars(
            open=self.open[first:end], high=self.high[first:end], low=self.low[first:end], close=self.close[first:end]
        )


def true_range(bars: Bars) -> NDArray[np.float64]:
    """Return each bar's true range: its own range, widened to the close before it.

    Returns
    -------
    ndarray of shape (n_bars,)
        In the unit of the price, not negative. The first bar has no close before it and gives its own range.

    Examples
    --------
    >>> bars = Bars(open=np.array([1.0, 5.0]), high=np.array([2.0, 6.0]),
    ...             low=np.array([0.0, 5.0]), close=np.array([1.0, 6.0]))
    >>> true_range(bars).tolist()
    [2.0, 5.0]
    """
    before = np.concatenate((bars.open[:1], bars.close[:-1]))
    spread: NDArray[np.float64] = np.maximum(bars.high, before) - np.minimum(bars.low, before)
    return spread


def trailing_mean(values: NDArray[np.float64], width: int) -> NDArray[np.float64]:
    """Return the mean of the last `width` values up to and including each one.

    Returns
    -------
    ndarray of shape (n_values,)
        In the unit of `values`. The first ``width - 1`` means are over the values there are.

    Examples
    --------
    >>> trailing_mean(np.array([2.0, 4.0, 6.0, 8.0]), 2).tolist()
    [2.0, 3.0, 5.0, 7.0]
    """
    total = np.cumsum(values)
    total[width:] -= total[:-width].copy()
    mean: NDArray[np.float64] = total / np.minimum(np.arange(1, len(values) + 1), width)
    return mean


def trailing_extreme(
    values: NDArray[np.float64], width: int, extreme: Callable[..., NDArray[np.float64]]
) -> NDArray[np.float64]:
    """Return the extreme of the last `width` values up to and including each one.

    Parameters
    ----------
    values
        ndarray of shape (n_values,); none give none.
    width
        Window length in values. Earlier windows are over the values there are.
    extreme
        `numpy.max` or `numpy.min`.

    Examples
    --------
    >>> trailing_extreme(np.array([1.0, 5.0, 2.0, 3.0]), 2, np.max).tolist()
    [1.0, 5.0, 5.0, 3.0]
    """
    if len(values) == 0:
        return values
    padded = np.concatenate((np.full(width - 1, values[0]), values))
    return extreme(np.lib.stride_tricks.sliding_window_view(padded, width), axis=-1)
