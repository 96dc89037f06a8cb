"""Price paths of simulated sessions: what bars a character draws.

Below `offline.simulate`, which decides the character of each session and reads the events from its bars. Pure but for
the generator that is handed in: the same state of it draws the same bars.
"""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from offline.measures import Bars

if TYPE_CHECKING:
    from numpy.random import Generator
    from numpy.typing import NDArray

__all__ = ["ANCHOR_PRICE", "CHARACTERS", "SESSION_WINDOWS", "TICK", "USUAL_RANGE", "WARMUP_BARS", "SessionWindow",
           "bars_around", "draw_bars", "on_tick"]  # fmt: skip

TICK = 0.25  # points
ANCHOR_PRICE = 20_000.0  # points
ANCHOR_PULL = 0.04  # of the distance to the anchor, per session: keeps long runs near it
WARMUP_BARS = 30  # unseen bars before the start, so that the first minute already has levels and a leg under way
USUAL_RANGE = 1.3  # true range of a usual bar, in standard deviations of a one-minute change

# The hidden characters, in the order of the weights below; how volatile each is, and how fat its tails.
CHARACTERS = ("trend", "range", "reversal", "sweep_expansion", "quiet_drift", "two_way")
_CHARACTER_VOLATILITY = dict(zip(CHARACTERS, (1.0, 0.85, 1.05, 0.9, 0.55, 1.45), strict=True))
# Student t degrees of freedom: fewer is fatter.
_CHARACTER_TAIL = dict(zip(CHARACTERS, (5.0, 8.0, 4.5, 5.0, 12.0, 3.5), strict=True))
_REGIME_VOLATILITY = (0.7, 1.0, 1.6)


class SessionWindow(NamedTuple):
    """When a session type trades, and how it usually behaves.

    `start` and `end` are New York wall-clock times, and no message of the session is later than `end`.
    `volatility` is the usual standard deviation of a one-minute change in points, `opening` and `closing` the
    extra at the first and last minute as a fraction of it; `weights` go with `CHARACTERS`.
    """

    session_type: str
    start: dt.time
    end: dt.time
    volatility: float
    opening: float
    closing: float
    weights: tuple[float, ...]

    @property
    def n_bars(self) -> int:
        """Whole minutes from start to end."""
        return (self.end.hour - self.start.hour) * 60 + self.end.minute - self.start.minute


# In time order within a day. An asia session belongs to the date on which it starts.
SESSION_WINDOWS = (
    SessionWindow("midnight", dt.time(0, 0), dt.time(0, 29), 2.6, 0.3, 0.0, (2, 4, 2, 1, 5, 1)),
    SessionWindow("london", dt.time(2, 0), dt.time(4, 59), 4.5, 0.6, 0.1, (4, 3, 3, 4, 2, 2)),
    SessionWindow("premarket", dt.time(7, 0), dt.time(9, 29), 5.0, 0.2, 0.4, (3, 4, 2, 4, 3, 2)),
    SessionWindow("ny_am", dt.time(9, 30), dt.time(11, 59), 11.0, 1.0, 0.3, (4, 2, 4, 3, 1, 5)),
    SessionWindow("lunch", dt.time(12, 0), dt.time(12, 59), 6.5, 0.2, 0.2, (2, 5, 2, 2, 4, 2)),
    SessionWindow("ny_pm", dt.time(13, 30), dt.time(16, 9), 8.0, 0.4, 0.8, (4, 2, 4, 4, 2, 3)),
    SessionWindow("asia", dt.time(19, 0), dt.time(23, 59), 3.2, 0.5, 0.0, (2, 5, 2, 2, 4, 1)),
)


def on_tick(price: NDArray[np.float64]) -> NDArray[np.float64]:
    """Round prices in points to the tick grid.

    Examples
    --------
    >>> on_tick(np.array([20000.1, 20000.2])).tolist()
    [20000.0, 20000.25]
    """
    ticks: NDArray[np.float64] = np.round(price / TICK) * TICK
    return ticks


def bars_around(close: NDArray[np.float64], up: NDArray[np.float64], down: NDArray[np.float64]) -> Bars:
    """Build bars on the tick grid that open at the close before and reach `up` and `down` beyond both.

    Examples
    --------
    >>> bars = bars_around(np.array([1.0, 3.0]), np.array([0.5, 0.5]), np.array([0.0, 1.0]))
    >>> bars.open.tolist(), bars.high.tolist(), bars.low.tolist()
    ([1.0, 1.0], [1.5, 3.5], [1.0, 0.0])
    """
    opened = np.concatenate((close[:1], close[:-1]))
    return Bars(
        open=on_tick(opened),
        high=on_tick(np.maximum(opened, close) + up),
        low=on_tick(np.minimum(opened, close) - down),
        close=on_tick(close),
    )


def draw_bars(window: SessionWindow, rng: Generator, *, character: str, regime: int, last_price: float) -> Bars:
    """Draw a session's one-minute bars after `WARMUP_BARS` bars of plain random walk, in points.

    Parameters
    ----------
    window
        Decides how many bars, and how volatile they usually are.
    rng
        Advanced by a number of draws that depends on `window` and `character`.
    character
        One of `CHARACTERS`.
    regime
        0 low, 1 middle, 2 high volatility of the day.
    last_price
        Points: where the session before ended. This one begins with a gap, and is pulled to `ANCHOR_PRICE`.
    """
    n_bars = window.n_bars
    plan = _character_path(character, n_bars, rng)
    before = np.tile([[0.0], [0.97], [1.0], [0.0]], WARMUP_BARS)
    drift, memory, scale, lean = np.concatenate((before, plan), axis=1)
    place = np.clip(np.arange(-WARMUP_BARS, n_bars) / n_bars, 0.0, 1.0)
    shape = 0.85 + window.opening * np.exp(-place / 0.12) + window.closing * np.exp((place - 1.0) / 0.12)
    total = len(place)
    cloud = _autoregress(np.full(total, 0.95), 0.1 * rng.standard_normal(total))
    level = window.volatility * _REGIME_VOLATILITY[regime] * _CHARACTER_VOLATILITY[character]
    sigma = level * rng.lognormal(0.0, 0.15) * shape * scale * np.exp(cloud)
    tail = _CHARACTER_TAIL[character]
    noise = np.clip(rng.standard_t(tail, total) * np.sqrt(1.0 - 2.0 / tail), -7.0, 7.0)  # unit variance
    path = np.cumsum(drift * sigma) + _autoregress(memory, sigma * noise)
    gap = rng.normal(0.0, 4.0 * window.volatility) + ANCHOR_PULL * (ANCHOR_PRICE - last_price)
    close = last_price + gap + path - path[WARMUP_BARS - 1]
    up, down = 0.4 * sigma * np.abs(rng.standard_normal((2, total)))
    up += np.maximum(lean, 0.0) * sigma
    down += np.maximum(-lean, 0.0) * sigma
    return bars_around(close, up, down)


def _character_path(character: str, n_bars: int, rng: Generator) -> NDArray[np.float64]:
    """Draw how a character unfolds.

    Returns
    -------
    ndarray of shape (4, n_bars)
        Drift: mean change per minute in standard deviations. Memory: share of the distance from the mean path
        that survives a minute. Scale: factor on volatility. Lean: extra wick in standard deviations, up if
        positive.
    """
    side = float(rng.choice((-1.0, 1.0)))
    strength = rng.lognormal(0.0, 0.25)
    turn = int(n_bars * rng.uniform(0.35, 0.6))
    later = np.arange(n_bars) >= turn
    # Impulses of three minutes, about four an hour: they are what leaves gaps behind.
    impulse = np.convolve(rng.random(n_bars) < 1 / 15, np.ones(3))[:n_bars] * strength * side
    plan = np.stack((np.zeros(n_bars), np.full(n_bars, 0.98), np.ones(n_bars), np.zeros(n_bars)))
    drift, memory, scale, lean = plan
    if character == "trend":
        drift += 0.05 * side + 0.8 * impulse
    elif character == "range":
        memory[:] = 0.8
    elif character == "reversal":
        drift += np.where(later, -0.1 * side - 0.8 * impulse, 0.2 * strength * side)
        scale[turn - 2 : turn + 3] = 1.4
    elif character == "sweep_expansion":
        memory[~later] = 0.86
        scale[:] = np.where(later, 1.35, 0.8)
        drift[later] = 0.1 * side + 0.8 * impulse[later]
        # Stops are taken on the wrong side: now and then while the range holds, and just before it breaks.
        lean[:turn] = np.where(rng.random(turn) < 0.15, -2.5, 0.0) * side
        lean[turn - 2 : turn] = -3.0 * side
    elif character == "quiet_drift":
        drift += 0.07 * strength * side
        memory[:] = 0.95
    else:  # two_way: legs of about ten minutes, one against the other
        legs = np.cumsum(rng.random(n_bars) < 1 / 10)
        drift += np.where(legs % 2 == 0, 0.4, -0.4) * strength * side
    return plan


def _autoregress(memory: NDArray[np.float64], shocks: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return ``x[t] = memory[t] * x[t - 1] + shocks[t]`` from rest.

    Examples
    --------
    >>> _autoregress(np.array([0.5, 0.5, 0.5]), np.array([4.0, 0.0, 1.0])).tolist()
    [4.0, 2.0, 2.0]
    """
    values, value = [], 0.0
    for keep, shock in zip(memory.tolist(), shocks.tolist(), strict=True):
        value = keep * value + shock
        values.append(value)
    return np.array(values)
