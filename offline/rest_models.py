"""Learn the forecast of the rest at one checkpoint: ten outcomes of the part not seen, and the final range.

The outcomes come from ridge regression on prefix and archetype probabilities. The final range is the range so far plus
growth, which is never negative: its quantiles, in units of the range that is expected of the rest, come from quantile
regression; the outer two are then shifted until they hold what they promise on later sessions than they were learned
from (conformal calibration: Romano, Patterson and Candes 2019, "Conformalized quantile regression").
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from offline.linear import fit_quantile, fit_ridge, ridge_penalty
from offline.splits import blocks, forward_splits
from stream_fp.artifacts import RestArrays
from stream_fp.features import N_FEATURES
from stream_fp.prefix_model import OUTCOMES, QUANTILES, range_ratios

__all__ = ["fit_rest"]

Array = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

#: An outcome that fewer sessions know is not forecast.
_MIN_KNOWN: Final = 10
#: With fewer sessions a split of them leaves too little on either side; a strong penalty is taken untried.
_MIN_SESSIONS: Final = 40
_STRONG_PENALTY: Final = 300.0
#: Of the session types beside the features: where these tell nothing of an outcome, a strong penalty should leave what
#: is usual for the type, not what is usual for all.
_TYPE_PENALTY: Final = 0.01
#: Of the quantile regressions; tried on sessions that are held out.
_QUANTILE_PENALTIES: Final = (30.0, 100.0, 300.0, 1000.0)
#: The shifts come from quantile regressions on earlier sessions that are judged on later ones, in so many steps; what
#: these take as inputs (archetype probabilities, expected range of the rest) was held out block by block. Blocks for
#: the regressions too, which lie between what was learned from, gave intervals that held too much on the months after.
#: With fewer sessions the first step would learn from too few, and blocks are taken.
_N_STEPS: Final = 4
_MIN_SESSIONS_FORWARD: Final = 200
_RANGE: Final = OUTCOMES.index("range")


def fit_rest(inputs: Array, probabilities: Array, rests: Array, ranges_pct: Array, days: Ints) -> RestArrays:
    """Learn what follows a checkpoint.

    Parameters
    ----------
    inputs : ndarray of shape (n, n_inputs)
        Of prefixes in order of time, as `offline.inputs.make_inputs` gives them.
    probabilities : ndarray of shape (n, n_archetypes)
        What the membership model said of each session while it was held out.
    rests : ndarray of shape (n, 10)
        In the order of `OUTCOMES`; NaN where unknown.
    ranges_pct : ndarray of shape (n, 2)
        Range so far and range of the whole session in per cent of the first price.
    days : ndarray of shape (n,)
        Of the sessions, ascending.
    """
    known = np.hstack((inputs, probabilities))
    columns = np.flatnonzero((~np.isnan(rests)).sum(axis=0) >= _MIN_KNOWN)
    targets = rests[:, columns]
    splits = list(blocks(days))
    relative = np.ones(known.shape[1])
    relative[1 + N_FEATURES : inputs.shape[1]] = _TYPE_PENALTY
    penalties = np.full(len(columns), _STRONG_PENALTY)
    if len(known) >= _MIN_SESSIONS:
        penalties = ridge_penalty(known, targets, splits, relative)
    quantile_coefficients, shifts = np.empty((0, len(QUANTILES))), np.zeros(len(QUANTILES))
    if _RANGE in columns:
        # Forecasts of sessions that were held out: that is how good they will be when the service uses them.
        expected = np.empty(len(known))
        for block, others in splits:
            expected[block] = (known[block] @ fit_ridge(known[others], targets[others], penalties, relative))[:, 0]
        quantile_coefficients, shifts = _fit_quantiles(known, np.exp(expected), ranges_pct, days)
    return RestArrays(
        outcomes=[OUTCOMES[column] for column in columns],
        coefficients=fit_ridge(known, targets, penalties, relative).tolist(),
        quantile_coefficients=quantile_coefficients.tolist(),
        quantile_shifts=shifts.tolist(),
    )


def _fit_quantiles(known: Array, unit_pct: Array, ranges_pct: Array, days: Ints) -> tuple[Array, Array]:
    so_far_pct, final_pct = ranges_pct.T
    rows = np.hstack((known, range_ratios(so_far_pct, unit_pct).T))
    # An error counts in per cent of price, not in units of the forecast.
    target = _Growth(rows, np.maximum(final_pct - so_far_pct, 0.0) / unit_pct, unit_pct)
    held_out = list(blocks(days))
    later = held_out
    if len(known) >= _MIN_SESSIONS_FORWARD:
        later = [(future, past) for past, future in forward_splits(days, _N_STEPS) if len(past) >= _MIN_SESSIONS]
    coefficients, shifts = [], []
    for quantile in QUANTILES:
        penalty = _STRONG_PENALTY
        if len(known) >= _MIN_SESSIONS:
            losses = [target.loss(quantile, penalty, held_out) for penalty in _QUANTILE_PENALTIES]
            penalty = _QUANTILE_PENALTIES[int(np.argmin(losses))]
        coefficients.append(target.fit(quantile, penalty, np.arange(len(rows))))
        shifts.append(
            0.0 if quantile == 0.5 else _shift(target.errors(quantile, penalty, later or held_out)[0], quantile)
        )
    return np.array(coefficients).T, np.array(shifts)


class _Growth:
    """What the quantile regressions learn from: growth of the range in units of what is expected of the rest."""

    def __init__(self, rows: Array, growth: Array, unit_pct: Array) -> None:
        self._rows = rows
        self._growth = growth
        self._weights = unit_pct

    def fit(self, quantile: float, penalty: float, learned: Ints) -> Array:
        """Return the coefficients of one quantile."""
        weights = self._weights[learned] / self._weights[learned].mean()
        return fit_quantile(self._rows[learned], self._growth[learned], quantile, penalty, weights)

    def errors(self, quantile: float, penalty: float, splits: list[tuple[Ints, Ints]]) -> tuple[Array, Array]:
        """Return growth minus forecast of judged sessions, and the weights of these."""
        found = [
            self._growth[judged] - self._rows[judged] @ self.fit(quantile, penalty, learned)
            for judged, learned in splits
        ]
        return np.concatenate(found), np.concatenate([self._weights[judged] for judged, _ in splits])

    def loss(self, quantile: float, penalty: float, splits: list[tuple[Ints, Ints]]) -> float:
        """Return the pinball loss on judged sessions."""
        errors, weights = self.errors(quantile, penalty, splits)
        return float(weights @ np.maximum(quantile * errors, (quantile - 1.0) * errors))


def _shift(errors: Array, quantile: float) -> float:
    """Return what has to be added to a forecast quantile so that it holds for a session not seen yet."""
    n = len(errors)
    # One more session will come: it is as likely to fall into any of the n + 1 gaps between those that were seen.
    level = (n + 1) * quantile / n if quantile > 0.5 else ((n + 1) * quantile - 1.0) / n
    return float(np.quantile(errors, min(1.0, max(0.0, level))))
