"""Session events from one-minute bars: what a producer could have known at each bar's close.

Stands between a price path and the messages of the input topic: `offline.simulate` draws bars and asks this
module which events they hold. Pure functions over arrays.

Invariant: an event of bar ``i`` depends on bars ``0 … i`` alone. Cutting the bars after ``i`` changes nothing
at or before it, and a three-bar gap belongs to its third bar, not to the bar in the middle.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

__all__ = [
    "Bars",
    "DetectedEvent",
    "detect_events",
    "on_tick",
    "trailing_extreme",
    "trailing_mean",
    "true_range",
]

TICK = 0.25  # points

# Windows in bars (minutes). Longer ones react later and forget the open more slowly.
RANGE_BARS = 14  # recent true range, the unit of every intensity
LEVEL_BARS = 20  # how far back a high or low counts as liquidity to be swept
QUIET_BARS = 10  # the stretch that a consolidation is judged on
REGIME_BARS = 30  # the slower measure: consolidations and the regime are judged by it

# Thresholds in units of recent true range, unless they say otherwise. Larger means fewer events.
EXPANSION_RANGE = 1.45
EXPANSION_BODY_FRACTION = 0.5  # of the bar's range: a bar that is all wick has not expanded
QUIET_RANGE = 2.5  # a random walk spans about 3.5 in QUIET_BARS bars
SWEEP_WICK = 0.12
GAP_SIZE = 0.35
LEG_SIZE = 2.5  # a shorter leg is noise and cannot be retraced
PULLBACK_SIZE = 1.5  # a new extreme after one this deep begins a new leg
RETRACED_FRACTION = 0.382  # of the last leg
REVERSED_FRACTION = 0.786  # of the last leg: past this the leg is over
MAX_INTENSITY = 6.0  # fat tails end here

# Bars during which the same phase stays silent after an event, so that one move is one event.
SILENT_BARS = {"expansion_phase": 2, "consolidation_phase": 4, "liquidity_sweep": 3, "fvg_interaction": 2}


@dataclass(frozen=True, slots=True, kw_only=True)
class Bars:
    """One-minute bars, oldest first.

    Attributes
    ----------
    open, high, low, close
        float64 ndarrays of shape (n_bars,), in points.
    """

    open: NDArray[np.float64]
    high: NDArray[np.float64]
    low: NDArray[np.float64]
    close: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.close)

    @classmethod
    def around(cls, close: NDArray[np.float64], up: NDArray[np.float64], down: NDArray[np.float64]) -> Bars:
        """Build bars on the tick grid that open at the close before and reach `up` and `down` beyond both.

        Examples
        --------
        >>> bars = Bars.around(np.array([1.0, 3.0]), np.array([0.5, 0.5]), np.array([0.0, 1.0]))
        >>> bars.open.tolist(), bars.high.tolist(), bars.low.tolist()
        ([1.0, 1.0], [1.5, 3.5], [1.0, 0.0])
        """
        opened = np.concatenate((close[:1], close[:-1]))
        return cls(
            open=on_tick(opened),
            high=on_tick(np.maximum(opened, close) + up),
            low=on_tick(np.minimum(opened, close) - down),
            close=on_tick(close),
        )

    def until(self, n_bars: int) -> Bars:
        """Return the first `n_bars` bars.

        Examples
        --------
        >>> flat = np.ones(5)
        >>> len(Bars(open=flat, high=flat, low=flat, close=flat).until(3))
        3
        """
        return Bars(
            open=self.open[:n_bars],
            high=self.high[:n_bars],
            low=self.low[:n_bars],
            close=self.close[:n_bars],
        )


class DetectedEvent(NamedTuple):
    """One event, known at the close of its bar.

    Attributes
    ----------
    bar
        Index of the bar whose close made the event known.
    phase
        One of the six phase names.
    price
        Points: the close, or the level swept, or the middle of the gap.
    intensity
        Size in units of recent true range, 0 to `MAX_INTENSITY`.
    htf_regime
        0 low, 1 middle, 2 high volatility at that bar.
    """

    bar: int
    phase: str
    price: float
    intensity: float
    htf_regime: int


def on_tick(price: NDArray[np.float64]) -> NDArray[np.float64]:
    """Round prices in points to the tick grid.

    Examples
    --------
    >>> on_tick(np.array([20000.1, 20000.2])).tolist()
    [20000.0, 20000.25]
    """
    ticks: NDArray[np.float64] = np.round(price / TICK) * TICK
    return ticks


def true_range(bars: Bars) -> NDArray[np.float64]:
    """Return each bar's true range: its own range, widened to the close before it.

    Returns
    -------
    ndarray of shape (n_bars,)
        Points, not negative. The first bar has no close before it and gives its own range.

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
        ndarray of shape (n_values,), not empty.
    width
        Window length in values. Earlier windows are over the values there are.
    extreme
        `numpy.max` or `numpy.min`.

    Examples
    --------
    >>> trailing_extreme(np.array([1.0, 5.0, 2.0, 3.0]), 2, np.max).tolist()
    [1.0, 5.0, 5.0, 3.0]
    """
    padded = np.concatenate((np.full(width - 1, values[0]), values))
    return extreme(np.lib.stride_tricks.sliding_window_view(padded, width), axis=-1)


def detect_events(bars: Bars, *, first_bar: int = 0, regime_bounds: tuple[float, float]) -> list[DetectedEvent]:
    """Find the events of `bars` from `first_bar` on, each at the bar that made it known.

    Parameters
    ----------
    bars
        One-minute bars, in points.
    first_bar
        Bars before it only warm the windows up and give no events.
    regime_bounds
        Trailing mean true range, in points, above which the regime is 1 and 2. They must come from before
        these bars, or the regime looks ahead.

    Returns
    -------
    list of DetectedEvent
        In order of bars; within a bar in a fixed order. Empty for fewer than two bars.

    Examples
    --------
    >>> price = np.array([0.0, 1.0, 0.0, 1.0, 0.0, 8.0])
    >>> bars = Bars(open=np.roll(price, 1), high=np.maximum(price, np.roll(price, 1)),
    ...             low=np.minimum(price, np.roll(price, 1)), close=price)
    >>> [event.phase for event in detect_events(bars, first_bar=5, regime_bounds=(1.0, 3.0))]
    ['expansion_phase', 'reversal_signal']
    """
    if len(bars) < 2:
        return []
    spread = true_range(bars)
    recent = trailing_mean(spread, RANGE_BARS)
    # A bar is compared with the bars before it; a dead market must not divide by zero.
    unit = np.maximum(np.concatenate((recent[:1], recent[:-1])), 1e-9)
    regime = np.searchsorted(np.asarray(regime_bounds), trailing_mean(spread, REGIME_BARS)).tolist()
    found = [
        *_expansions(bars, spread, unit, first_bar),
        *_consolidations(bars, spread, first_bar),
        *_sweeps(bars, unit, first_bar),
        *_gaps(bars, unit, first_bar),
        *_turns(bars, unit, first_bar),
    ]
    found.sort(key=lambda event: event[0])
    return [
        DetectedEvent(bar, phase, price, min(size, MAX_INTENSITY), regime[bar]) for bar, phase, price, size in found
    ]


# A phase not yet joined with its regime: (bar, phase, price, size in units of recent true range).
_Found = tuple[int, str, float, float]


def _spaced(
    phase: str,
    is_hit: NDArray[np.bool_],
    price: NDArray[np.float64],
    size: NDArray[np.float64],
    first_bar: int,
) -> Iterator[_Found]:
    """Yield the hits from `first_bar` on that do not follow another too closely."""
    silent_until = -1
    for bar in np.flatnonzero(is_hit).tolist():
        if bar > silent_until:
            silent_until = bar + SILENT_BARS[phase]
            if bar >= first_bar:
                yield bar, phase, float(price[bar]), float(size[bar])


def _expansions(bars: Bars, spread: NDArray[np.float64], unit: NDArray[np.float64], first_bar: int) -> Iterator[_Found]:
    """Yield bars much larger than those before them, and not mostly wick."""
    body = np.abs(bars.close - bars.open)
    is_hit = (spread >= EXPANSION_RANGE * unit) & (body >= EXPANSION_BODY_FRACTION * spread)
    return _spaced("expansion_phase", is_hit, bars.close, spread / unit, first_bar)


def _consolidations(bars: Bars, spread: NDArray[np.float64], first_bar: int) -> Iterator[_Found]:
    """Yield ends of stretches that stayed within a small range, by the slower measure of true range."""
    unit = np.maximum(trailing_mean(spread, REGIME_BARS), 1e-9)
    high = trailing_extreme(bars.high, QUIET_BARS, np.max)
    low = trailing_extreme(bars.low, QUIET_BARS, np.min)
    size = (high - low) / unit
    is_hit = size <= QUIET_RANGE
    is_hit[: QUIET_BARS - 1] = False
    return _spaced("consolidation_phase", is_hit, bars.close, size, first_bar)


def _sweeps(bars: Bars, unit: NDArray[np.float64], first_bar: int) -> Iterator[_Found]:
    """Yield breaks of the trailing high or low that close back inside."""
    level_high = trailing_extreme(bars.high[:-1], LEVEL_BARS, np.max)
    level_low = trailing_extreme(bars.low[:-1], LEVEL_BARS, np.min)
    level_high = np.concatenate((bars.high[:1], level_high))
    level_low = np.concatenate((bars.low[:1], level_low))
    above = np.where(bars.close < level_high, bars.high - level_high, 0.0)
    below = np.where(bars.close > level_low, level_low - bars.low, 0.0)
    size = np.maximum(above, below) / unit
    level = np.where(above >= below, level_high, level_low)
    return _spaced("liquidity_sweep", size >= SWEEP_WICK, level, size, first_bar)


def _gaps(bars: Bars, unit: NDArray[np.float64], first_bar: int) -> Iterator[_Found]:
    """Yield three-bar gaps at their third bar, priced at the middle of the gap to the nearest tick below."""
    size = np.zeros(len(bars))
    middle = bars.close.copy()
    up = bars.low[2:] - bars.high[:-2]
    down = bars.low[:-2] - bars.high[2:]
    size[2:] = np.maximum(np.maximum(up, down), 0.0) / unit[2:]
    pair = np.where(up >= down, bars.low[2:] + bars.high[:-2], bars.low[:-2] + bars.high[2:])
    middle[2:] = np.floor(pair * 2.0) / 4.0
    return _spaced("fvg_interaction", size >= GAP_SIZE, middle, size, first_bar)


@dataclass(slots=True)
class _Leg:
    """The move under way, with prices times `side`, so that it always reads as a rise."""

    side: float
    pivot: float
    extreme: float
    pullback: float  # lowest known to come after the extreme
    is_retraced: bool = False

    def turn(self) -> None:
        """Start the opposite leg from this one's extreme."""
        self.side = -self.side
        self.pivot, self.extreme = -self.extreme, -self.pullback
        self.pullback = self.extreme
        self.is_retraced = False

    def extend(self, high: float, low: float, close: float, unit: float) -> None:
        """Take in one more bar; a new extreme after a deep enough pullback begins a new leg there."""
        if high > self.extreme:
            if self.extreme - self.pullback >= PULLBACK_SIZE * unit:
                self.pivot, self.is_retraced = self.pullback, False
            # Of a bar with a new high only the close is known to come later; its low may be the way up.
            self.extreme, self.pullback = high, close
        else:
            self.pullback = min(self.pullback, low)


def _turns(bars: Bars, unit: NDArray[np.float64], first_bar: int) -> Iterator[_Found]:
    """Yield retracements and reversals of the last leg, judged on closes."""
    highs, lows, closes, units = (values.tolist() for values in (bars.high, bars.low, bars.close, unit))
    leg = _Leg(side=1.0, pivot=lows[0], extreme=highs[0], pullback=closes[0])
    for bar in range(1, len(closes)):
        close = closes[bar] * leg.side
        if leg.side > 0:
            leg.extend(highs[bar], lows[bar], close, units[bar])
        else:
            leg.extend(-lows[bar], -highs[bar], close, units[bar])
        length = leg.extreme - leg.pivot
        counter = leg.extreme - close
        phase = ""
        if counter >= REVERSED_FRACTION * length:
            phase = "reversal_signal"
            leg.turn()
        elif not leg.is_retraced and counter >= RETRACED_FRACTION * length:
            phase = "retracement_event"
            leg.is_retraced = length >= LEG_SIZE * units[bar]
        if phase and bar >= first_bar and length >= LEG_SIZE * units[bar]:
            yield bar, phase, closes[bar], counter / units[bar]
