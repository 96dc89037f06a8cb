"""Linear models with a penalty, as arrays: ridge regression and quantile regression.

Pure numpy and scipy. The first input is the constant 1 and goes without penalty. Both are fitted on standardised,
clipped inputs (`offline.inputs`), so that one penalty means the same for each of them.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy.linalg import solve
from scipy.optimize import minimize

__all__ = ["PENALTIES", "fit_quantile", "fit_ridge", "ridge_penalty"]

Array = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

#: Tried for each outcome, in sessions: a penalty of n outweighs the evidence of about n sessions.
PENALTIES: Final = (10.0, 30.0, 100.0, 300.0, 1000.0, 3000.0, 10_000.0, 30_000.0)
#: Width, in standard deviations of the target, within which the corner of the pinball loss is rounded off, so that it
#: has a gradient: narrow beside the spread of forecasts, wide beside the steps of the optimiser.
_SMOOTHING: Final = 0.01
_MAX_ITERATIONS: Final = 500


def fit_ridge(inputs: Array, targets: Array, penalties: Array | float, relative: Array | None = None) -> Array:
    """Fit a ridge regression of each target.

    Parameters
    ----------
    inputs : ndarray of shape (n, n_inputs)
        The first column is 1.
    targets : ndarray of shape (n, n_targets)
        NaN where unknown: such a row says nothing of that target.
    penalties : float or ndarray of shape (n_targets,)
    relative : ndarray of shape (n_inputs,), optional
        Factor of the penalty for each input; 1 by default. The first counts as 0.

    Returns
    -------
    ndarray of shape (n_inputs, n_targets)
        Zeros for a target that no row knows.
    """
    n_inputs, n_targets = inputs.shape[1], targets.shape[1]
    strengths = np.broadcast_to(np.asarray(penalties, dtype=np.float64), (n_targets,))
    coefficients = np.zeros((n_inputs, n_targets))
    is_known = ~np.isnan(targets)
    penalised = np.eye(n_inputs) if relative is None else np.diag(relative)
    penalised[0, 0] = 0.0
    complete = is_known.all(axis=1)
    gram = inputs[complete].T @ inputs[complete]
    moments = inputs[complete].T @ targets[complete]
    for column in range(n_targets):
        if not is_known[:, column].any():
            continue
        # Most rows know all targets: their share of the sums is reckoned once.
        more = is_known[:, column] & ~complete
        extra = inputs[more]
        left = gram + extra.T @ extra + strengths[column] * penalised
        right = moments[:, column] + extra.T @ targets[more, column]
        coefficients[:, column] = solve(left, right, assume_a="pos")
    return coefficients


def ridge_penalty(
    inputs: Array, targets: Array, splits: Iterable[tuple[Ints, Ints]], relative: Array | None = None
) -> Array:
    """Return the penalty of each target that does best out of sample, shape (n_targets,).

    Parameters
    ----------
    inputs : ndarray of shape (n, n_inputs)
    targets : ndarray of shape (n, n_targets)
        NaN where unknown.
    splits : iterable of (judged, learned)
        Rows, as `offline.splits.blocks` yields them.
    relative : ndarray of shape (n_inputs,), optional
        As of `fit_ridge`.
    """
    errors = np.zeros((len(PENALTIES), targets.shape[1]))
    for judged, learned in splits:
        for place, penalty in enumerate(PENALTIES):
            found = inputs[judged] @ fit_ridge(inputs[learned], targets[learned], penalty, relative)
            errors[place] += np.nansum(np.square(targets[judged] - found), axis=0)
    return np.asarray(np.array(PENALTIES)[errors.argmin(axis=0)], dtype=np.float64)


def fit_quantile(inputs: Array, target: Array, quantile: float, penalty: float, weights: Array) -> Array:
    """Fit a linear quantile regression: least weighted pinball loss, with a ridge penalty.

    The corner of the loss is rounded off: ``q u + h ln(1 + exp(-u / h))`` (Zheng 2011, "Gradient descent algorithms for
    quantile regression with smooth approximation").

    Parameters
    ----------
    inputs : ndarray of shape (n, n_inputs)
        The first column is 1.
    target : ndarray of shape (n,)
    quantile : float
        In (0, 1).
    penalty : float
        As of `fit_ridge`.
    weights : ndarray of shape (n,)
        Not negative; their mean is 1.

    Returns
    -------
    ndarray of shape (n_inputs,)
    """
    n = len(target)
    unit = float(target.std()) or 1.0
    scaled = target / unit
    start = np.zeros(inputs.shape[1])
    start[0] = float(np.quantile(scaled, quantile))

    def loss(coefficients: Array) -> tuple[float, Array]:
        errors = scaled - inputs @ coefficients
        rounded = _SMOOTHING * np.logaddexp(0.0, -errors / _SMOOTHING)
        # Derivative of the rounded loss by the error; the logistic function, written so that it cannot overflow.
        slopes = quantile - 0.5 * (1.0 - np.tanh(errors / (2.0 * _SMOOTHING)))
        free = coefficients.copy()
        free[0] = 0.0
        value = float(weights @ (quantile * errors + rounded)) / n + penalty / (2 * n) * float(free @ free)
        gradient = -(inputs.T @ (weights * slopes)) / n + penalty / n * free
        return value, gradient

    found = minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": _MAX_ITERATIONS})
    return np.asarray(found.x * unit, dtype=np.float64)
