"""Session events from bars: what a producer could have known at each bar's close.

Stands between bars and the messages of the input topic, for recorded bars (`offline.market_events`) and for simulated
ones (`offline.simulate`) alike. It looks at one stretch of bars without a break (`offline.stretches`), so that no
price is compared with one from before a hole or a roll. Pure functions over arrays.

Invariant: an event of bar ``i`` depends on bars ``0 … i`` alone. Cutting the bars after ``i`` changes nothing
at or before it, and a three-bar gap belongs to its third bar, not to the bar in the middle.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from offline.measures import DEAD_RANGE_FRACTION, Bars, trailing_extreme, true_range

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

__all__ = ["MAX_INTENSITY", "DetectedEvent", "detect_events"]

# Windows in bars. Longer ones react later and forget the open more slowly.
LEVEL_BARS: Final = 20  # how far back a high or low counts as liquidity to be swept
QUIET_BARS: Final = 10  # the stretch that a consolidation is judged on

# Thresholds in units of recent true range, unless they say otherwise. Larger means fewer events; but a quiet stretch is
# one below its threshold. In a usual morning of a stock index all of them together give an event every other minute.
EXPANSION_RANGE: Final = 1.25
EXPANSION_BODY_FRACTION: Final = 0.5  # of the bar's range: a bar that is all wick has not expanded
QUIET_RANGE: Final = 3.0  # a random walk spans about 3.5 in QUIET_BARS bars
SWEEP_WICK: Final = 0.08
GAP_SIZE: Final = 0.25
LEG_SIZE: Final = 2.5  # a shorter leg is noise and cannot be retraced
PULLBACK_SIZE: Final = 1.5  # a new extreme after one this deep begins a new leg
RETRACED_FRACTION: Final = 0.382  # of the last leg
REVERSED_FRACTION: Final = 0.786  # of the last leg: past this the leg is over
MAX_INTENSITY: Final = 6.0  # fat tails end here

#: Bars during which the same phase stays silent after an event, so that one move is one event.
SILENT_BARS: Final = {"expansion_phase": 1, "consolidation_phase": 2, "liquidity_sweep": 2, "fvg_interaction": 1}


class DetectedEvent(NamedTuple):
    """One event, known at the close of its bar.

    Attributes
    ----------
    bar
        Index of the bar whose close made the event known.
    phase
        One of the six phase names.
    price
        The close, or the level swept, or the middle of the gap.
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


def detect_events(
    bars: Bars, *, unit: NDArray[np.float64], regime: NDArray[np.integer], first_bar: int = 0
) -> list[DetectedEvent]:
    """Find the events of `bars` from `first_bar` on, each at the bar that made it known.

    Parameters
    ----------
    bars
        Bars of one length without a break between them.
    unit
        ndarray of shape (n_bars,): recent true range as known before each bar, in the unit of the price.
    regime
        ndarray of shape (n_bars,): 0 low, 1 middle, 2 high volatility, as known at each bar's close.
    first_bar
        Bars before it only warm the windows up and give no events.

    Returns
    -------
    list of DetectedEvent
        In order of bars; within a bar in a fixed order. Empty for no bars.

    Examples
    --------
    >>> price = np.array([0.0, 1.0, 0.0, 1.0, 0.0, 8.0])
    >>> bars = Bars(open=np.roll(price, 1), high=np.maximum(price, np.roll(price, 1)),
    ...             low=np.minimum(price, np.roll(price, 1)), close=price)
    >>> found = detect_events(bars, unit=np.ones(6), regime=np.ones(6, int), first_bar=5)
    >>> [event.phase for event in found]
    ['expansion_phase', 'reversal_signal']
    """
    if len(bars) == 0:
        return []
    unit = np.maximum(unit, DEAD_RANGE_FRACTION * bars.close)
    found = [
        *_expansions(bars, unit, first_bar),
        *_consolidations(bars, unit, first_bar),
        *_sweeps(bars, unit, first_bar),
        *_gaps(bars, unit, first_bar),
        *_turns(bars, unit, first_bar),
    ]
    found.sort(key=lambda event: event[0])
    regimes = regime.tolist()
    return [
        DetectedEvent(bar, phase, price, min(size, MAX_INTENSITY), regimes[bar]) for bar, phase, price, size in found
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


def _expansions(bars: Bars, unit: NDArray[np.float64], first_bar: int) -> Iterator[_Found]:
    """Yield bars larger than usual, and not mostly wick."""
    spread = true_range(bars)
    body = np.abs(bars.close - bars.open)
    is_hit = (spread >= EXPANSION_RANGE * unit) & (body >= EXPANSION_BODY_FRACTION * spread)
    return _spaced("expansion_phase", is_hit, bars.close, spread / unit, first_bar)


def _consolidations(bars: Bars, unit: NDArray[np.float64], first_bar: int) -> Iterator[_Found]:
    """Yield ends of stretches that stayed within a small range."""
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
    """Yield three-bar gaps at their third bar, priced at the middle of the gap."""
    size = np.zeros(len(bars))
    middle = bars.close.copy()
    up = bars.low[2:] - bars.high[:-2]
    down = bars.low[:-2] - bars.high[2:]
    size[2:] = np.maximum(np.maximum(up, down), 0.0) / unit[2:]
    middle[2:] = np.where(up >= down, bars.low[2:] + bars.high[:-2], bars.low[:-2] + bars.high[2:]) / 2.0
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
