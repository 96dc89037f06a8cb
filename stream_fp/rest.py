"""What became of a session after a checkpoint: the outcomes that a forecast of the rest is trained on and judged by.

Pure: columns of a whole session and the number of events that were seen at the checkpoint in, numbers out. Only events
that arrived later count, so that nothing of the part seen can be counted as foreseen.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from stream_fp.phases import N_PHASES
from stream_fp.prefix_model import OUTCOMES
from stream_fp.sessions import Columns

__all__ = ["N_PATH_POINTS", "price_path", "rest_outcomes"]

Array = npt.NDArray[np.float64]

#: Prices of a session that a picture of it needs.
N_PATH_POINTS: Final = 41
#: A spread of returns needs two of them.
_MIN_PRICES: Final = 3


def rest_outcomes(columns: Columns, n_seen: int) -> Array:
    """Return what the events after the first `n_seen` arrivals were like.

    Parameters
    ----------
    columns : Columns
        Of the whole session, in order of arrival.
    n_seen : int
        Events that the checkpoint saw.

    Returns
    -------
    ndarray of shape (10,)
        In the order of `stream_fp.prefix_model.OUTCOMES`; NaN where the events do not tell: no event at all, fewer than
        three prices, or prices that do not move.
    """
    outcomes = np.full(len(OUTCOMES), np.nan)
    order = n_seen + np.argsort(columns.times_us[n_seen:], kind="stable")
    n = len(order)
    if n == 0:
        return outcomes
    outcomes[2] = np.log(n)
    outcomes[4:] = np.bincount(columns.codes[order] >> 2, minlength=N_PHASES + 1)[:N_PHASES] / n
    prices = columns.prices[order]
    prices = prices[~np.isnan(prices)]
    if len(prices) < _MIN_PRICES:
        return outcomes
    logs = np.log(prices)
    moves = np.diff(logs)
    path, spread = float(np.abs(moves).sum()), float(moves.std())
    if path > 0 and spread > 0:
        outcomes[0] = np.log(100.0 * (prices.max() - prices.min()) / prices[0])
        outcomes[1] = np.log(100.0 * spread)
        outcomes[3] = min(1.0, abs(float(logs[-1] - logs[0])) / path)
    return outcomes


def price_path(columns: Columns, end_us: int | None) -> Array:
    """Return the move from the first price in per cent at equal steps of time from the start to the end of the session.

    Parameters
    ----------
    columns : Columns
    end_us : int or None
        End of the session where it is known, else the latest event.

    Returns
    -------
    ndarray of shape (41,)
        The latest price at each step; NaN before the first one, and everywhere where there is no price.
    """
    order = np.argsort(columns.times_us, kind="stable")
    times_us, prices = columns.times_us[order], columns.prices[order]
    priced = ~np.isnan(prices)
    times_us, prices = times_us[priced], prices[priced]
    path = np.full(N_PATH_POINTS, np.nan)
    if len(prices) == 0:
        return path
    last_us = int(columns.times_us.max()) if end_us is None else max(end_us, int(times_us[0]))
    steps_us = columns.start_us + np.linspace(0.0, last_us - columns.start_us, N_PATH_POINTS)
    rows = np.searchsorted(times_us, steps_us, side="right") - 1
    known = rows >= 0
    path[known] = 100.0 * (prices[rows[known]] / prices[0] - 1.0)
    return path
