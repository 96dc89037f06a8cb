"""Learn the forecast of the rest at one checkpoint: ten outcomes of the part not seen, and the final range.

The outcomes come from ridge regression on prefix and archetype probabilities. The final range is the range so far plus
growth, which is never negative: its quantiles, in units of the range that is expected of the rest, come from quantile
regression; the outer two are then shifted until they hold what they promise on sessions that were held out (conformal
calibration: Romano, Patterson and Candes 2019, "Conformalized quantile regression").
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from offline.linear import fit_quantile, fit_ridge, ridge_penalty
from offline.splits import blocks
from stream_fp.artifacts import RestArrays
from stream_fp.prefix_model import OUTCOMES, QUANTILES, range_ratio

__all__ = ["fit_rest"]

Array = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

#: An outcome that fewer sessions know is not forecast.
_MIN_KNOWN: Final = 10
#: With fewer sessions a split of them leaves too little on either side; a strong penalty is taken untried.
_MIN_SESSIONS: Final = 40
_STRONG_PENALTY: Final = 300.0
#: Of the quantile regressions; tried on sessions that are held out.
_QUANTILE_PENALTIES: Final = (1.0, 10.0, 100.0)
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
    penalties = np.full(len(columns), _STRONG_PENALTY)
    if len(known) >= _MIN_SESSIONS:
        penalties = ridge_penalty(known, targets, splits)
    quantile_coefficients, shifts = np.empty((0, len(QUANTILES))), np.zeros(len(QUANTILES))
    if _RANGE in columns:
        # Forecasts of sessions that were held out: that is how good they will be when the service uses them.
        expected = np.empty(len(known))
        for block, others in splits:
            expected[block] = (known[block] @ fit_ridge(known[others], targets[others], penalties))[:, 0]
        quantile_coefficients, shifts = _fit_quantiles(known, np.exp(expected), ranges_pct, splits)
    return RestArrays(
        outcomes=[OUTCOMES[column] for column in columns],
        coefficients=fit_ridge(known, targets, penalties).tolist(),
        quantile_coefficients=quantile_coefficients.tolist(),
        quantile_shifts=shifts.tolist(),
    )


def _fit_quantiles(
    known: Array, unit_pct: Array, ranges_pct: Array, splits: list[tuple[Ints, Ints]]
) -> tuple[Array, Array]:
    so_far_pct, final_pct = ranges_pct.T
    rows = np.hstack((known, range_ratio(so_far_pct, unit_pct).T))
    growth = np.maximum(final_pct - so_far_pct, 0.0) / unit_pct
    # An error counts in per cent of price, not in units of the forecast.
    weights = unit_pct / unit_pct.mean()
    coefficients, shifts = [], []
    for quantile in QUANTILES:
        penalty = _STRONG_PENALTY
        if len(known) >= _MIN_SESSIONS:
            losses = [
                _pinball(growth - _held_out(rows, growth, quantile, penalty, weights, splits), quantile, weights)
                for penalty in _QUANTILE_PENALTIES
            ]
            penalty = _QUANTILE_PENALTIES[int(np.argmin(losses))]
        found = _held_out(rows, growth, quantile, penalty, weights, splits)
        coefficients.append(fit_quantile(rows, growth, quantile, penalty, weights))
        shifts.append(0.0 if quantile == 0.5 else _shift(growth - found, quantile))
    return np.array(coefficients).T, np.array(shifts)


def _held_out(  # noqa: PLR0917 - what a fit takes, and the splits
    rows: Array, growth: Array, quantile: float, penalty: float, weights: Array, splits: list[tuple[Ints, Ints]]
) -> Array:
    found = np.empty(len(rows))
    for block, others in splits:
        scale = weights[others] / weights[others].mean()
        found[block] = rows[block] @ fit_quantile(rows[others], growth[others], quantile, penalty, scale)
    return found


def _pinball(errors: Array, quantile: float, weights: Array) -> float:
    return float(weights @ np.maximum(quantile * errors, (quantile - 1.0) * errors))


def _shift(errors: Array, quantile: float) -> float:
    """Return what has to be added to a forecast quantile so that it holds for a session not seen yet."""
    n = len(errors)
    # One more session will come: it is as likely to fall into any of the n + 1 gaps between those that were seen.
    level = (n + 1) * quantile / n if quantile > 0.5 else ((n + 1) * quantile - 1.0) / n
    return float(np.quantile(errors, min(1.0, max(0.0, level))))
