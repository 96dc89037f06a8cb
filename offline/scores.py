"""Scores of predictions against what came: per session where they are averaged, so that they can be resampled.

Pure numpy. Lower is better for losses; R2 is out of sample, against the mean of the training sessions.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np
import numpy.typing as npt

__all__ = [
    "LEAST_PROBABILITY",
    "brier_scores",
    "expected_calibration_error",
    "log_losses",
    "pinball_losses",
    "r2_scores",
    "wilson_interval",
]

Array = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

#: A probability counts as no less than this: one session in ten thousand surprises everybody.
LEAST_PROBABILITY: Final = 1e-4
#: Of equal width, for calibration.
N_BINS: Final = 10


def bins_of(confidences: Array) -> Ints:
    """Return the bin of each confidence, 0 to 9."""
    return np.minimum((confidences * N_BINS).astype(np.int64), N_BINS - 1)


def log_losses(probabilities: Array, labels: Ints) -> Array:
    """Return the negative log of the probability of what came, shape (n,).

    Parameters
    ----------
    probabilities : ndarray of shape (n, n_classes)
    labels : ndarray of shape (n,), int64
    """
    return -np.log(np.maximum(probabilities[np.arange(len(labels)), labels], LEAST_PROBABILITY))


def brier_scores(probabilities: Array, labels: Ints) -> Array:
    """Return the squared distance between probabilities and what came, over all classes: in [0, 2], shape (n,)."""
    came = np.zeros_like(probabilities)
    came[np.arange(len(labels)), labels] = 1.0
    return np.asarray(np.square(probabilities - came).sum(axis=1))


def expected_calibration_error(confidences: Array, is_right: npt.NDArray[np.bool_]) -> float:
    """Return the mean distance between confidence and accuracy over ten bins of equal width, weighted by sessions.

    Examples
    --------
    >>> round(expected_calibration_error(np.array([0.8, 0.8, 0.8, 0.8]), np.array([True, True, True, False])), 6)
    0.05
    """
    if not len(confidences):
        return 0.0
    bins = bins_of(confidences)
    n = np.bincount(bins, minlength=N_BINS)
    gaps = np.bincount(bins, confidences, N_BINS) - np.bincount(bins, is_right, N_BINS)
    return float(np.abs(gaps)[n > 0].sum() / len(confidences))


def pinball_losses(values: Array, quantile_forecasts: Array, quantile: float) -> Array:
    """Return the pinball loss of each forecast, in the unit of the values, shape (n,).

    Examples
    --------
    >>> pinball_losses(np.array([3.0, 1.0]), np.array([2.0, 2.0]), 0.9).round(3).tolist()
    [0.9, 0.1]
    """
    errors = values - quantile_forecasts
    return np.asarray(np.maximum(quantile * errors, (quantile - 1.0) * errors))


def r2_scores(truth: Array, found: Array, mean: Array) -> Array:
    """Return the R2 of each outcome out of sample; NaN where no session tells.

    Parameters
    ----------
    truth : ndarray of shape (n, n_outcomes)
        NaN where unknown; such a session does not count for that outcome.
    found : ndarray of shape (n, n_outcomes)
    mean : ndarray of shape (n_outcomes,)
        Of the training sessions.
    """
    errors = np.nansum(np.square(truth - found), axis=0)
    spread = np.nansum(np.square(truth - mean), axis=0)
    return np.where(spread > 0, 1.0 - errors / np.where(spread > 0, spread, 1.0), np.nan)


def wilson_interval(share: float, n: int) -> tuple[float, float]:
    """Return the 95 % interval of a share of `n` (Wilson 1927), which stays within 0 and 1 and bears small `n`.

    Examples
    --------
    >>> [round(bound, 3) for bound in wilson_interval(0.8, 10)]
    [0.49, 0.943]
    """
    z = 1.96
    middle = share + z * z / (2 * n)
    half = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return (middle - half) / (1 + z * z / n), (middle + half) / (1 + z * z / n)
