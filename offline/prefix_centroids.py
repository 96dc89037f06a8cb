"""Centroids of sessions cut at one checkpoint: class means, covariance around them, and temperatures.

The classes are the archetypes of the full sessions; the vectors are prefixes. Temperatures are fitted on distances to
means of other blocks of time, because distances to means that were made from the very same sessions are too short.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy.linalg import cho_factor, cho_solve
from scipy.optimize import minimize_scalar
from sklearn.covariance import LedoitWolf

from offline.scalers import ScalerKind, fit_scaler, scaler_arrays
from offline.splits import blocks
from stream_fp.artifacts import ScalerArrays
from stream_fp.classifier import DISTANCE_METRICS, DistanceMetric, distances

__all__ = ["Calibration", "CentroidFit", "fit_centroids"]

Array = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

#: With fewer held-out sessions a fitted temperature says more of chance than of the model; then it is 1.
MIN_CALIBRATION_SESSIONS: Final = 20
#: Where the temperature is sought. Beyond these, probabilities are those of a coin or of certainty.
_TEMPERATURE_BOUNDS: Final = (1e-3, 1e3)
#: Mean square within archetypes, in scaled units, below which there is rounding and no spread.
_NO_SPREAD: Final = 1e-20


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """How one way of assigning did on sessions that it had not seen.

    Attributes
    ----------
    n_sessions : int
        Sessions that were judged: those whose archetype had a session outside their own block of time.
    agreement : float
        Share of all sessions assigned to the archetype of the full session; the other sessions count as missed.
    log_loss : float
        Mean negative log likelihood of those `n_sessions`; NaN without any.
    temperature : float
        Of distances; 1 for probabilities that need none.
    log_loss_untempered : float
        The same loss at a temperature of 1, which is what the default settings serve.
    """

    n_sessions: int
    agreement: float
    log_loss: float
    temperature: float
    log_loss_untempered: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CentroidFit:
    """Centroids of one checkpoint, and how they did out of sample.

    Attributes
    ----------
    scaler : ScalerArrays
    archetype_ids : list of int
    centroids : list of list of float
    precision : list of list of float or None
    shrinkage : float or None
        Of the covariance.
    calibration : dict of str to Calibration
        By distance metric, where the metric could be tried.
    notes : list of str
        Fallbacks that a user should know of.
    """

    scaler: ScalerArrays
    archetype_ids: list[int]
    centroids: list[list[float]]
    precision: list[list[float]] | None
    shrinkage: float | None
    calibration: dict[DistanceMetric, Calibration]
    notes: list[str]


def fit_centroids(vectors: Array, labels: Ints, days: Ints, *, scaler: ScalerKind, weights: Array) -> CentroidFit:
    """Learn the centroids of prefixes.

    Parameters
    ----------
    vectors : ndarray of shape (n_prefixes, 30)
        In order of time, at least one.
    labels : ndarray of shape (n_prefixes,), int64
        Archetype of each full session.
    days : ndarray of shape (n_prefixes,)
        Of the sessions, ascending.
    scaler : {"standard", "robust"}
    weights : ndarray of shape (30,)
        Of each feature in distances.
    """
    model = _Model(vectors, labels, scaler, weights)
    notes = [] if model.why_no_precision is None else [f"no covariance: {model.why_no_precision}"]
    away = _held_out_distances(vectors, labels, days, scaler, weights)
    calibration = {metric: _calibrate(away[metric], labels) for metric in DISTANCE_METRICS if metric in away}
    notes += [
        f"temperature of {metric} is 1: only {found.n_sessions} sessions to fit it on"
        for metric, found in calibration.items()
        if found.n_sessions < MIN_CALIBRATION_SESSIONS
    ]
    return CentroidFit(
        scaler=scaler_arrays(scaler, model.scaler),
        archetype_ids=model.ids.tolist(),
        centroids=model.centroids.tolist(),
        precision=None if model.precision is None else model.precision.tolist(),
        shrinkage=model.shrinkage,
        calibration=calibration,
        notes=notes,
    )


class _Model:
    """Class means of scaled prefixes, and the covariance around them."""

    def __init__(self, vectors: Array, labels: Ints, kind: ScalerKind, weights: Array) -> None:
        self.scaler, _ = fit_scaler(kind, vectors)
        self.scaler.scale_ = self.scaler.scale_ / weights
        scaled = self.scaler.transform(vectors)
        self.ids: Ints = np.unique(labels)
        self.centroids: Array = np.array([scaled[labels == label].mean(axis=0) for label in self.ids])
        self.precision: Array | None = None
        self.shrinkage: float | None = None
        self.why_no_precision: str | None = None
        residuals = scaled - self.centroids[np.searchsorted(self.ids, labels)]
        if len(residuals) < len(self.ids) + 2:
            self.why_no_precision = f"{len(residuals)} sessions of {len(self.ids)} archetypes are too few"
            return
        if float(np.square(residuals / weights).mean()) < _NO_SPREAD:
            self.why_no_precision = "sessions of one archetype do not differ"
            return
        # Shrunk, because 30 variances and 435 covariances out of a few hundred sessions cannot be inverted as they are
        # (Ledoit and Wolf 2004, "A well-conditioned estimator for large-dimensional covariance matrices").
        estimate = LedoitWolf(assume_centered=True).fit(residuals / weights)
        try:
            inverse = cho_solve(cho_factor(estimate.covariance_), np.eye(residuals.shape[1]))
        except (np.linalg.LinAlgError, ValueError) as error:
            self.why_no_precision = str(error)
            return
        if not np.isfinite(inverse).all():
            self.why_no_precision = "its inverse is not finite"
            return
        # Over the weights once more: correlated features are weighed by their covariance, not by what tells archetypes
        # of full sessions apart. Rounding leaves the inverse not quite symmetric.
        self.precision = (inverse + inverse.T) / 2 / np.outer(weights, weights)
        self.shrinkage = float(estimate.shrinkage_)


def _held_out_distances(
    vectors: Array, labels: Ints, days: Ints, kind: ScalerKind, weights: Array
) -> dict[DistanceMetric, Array]:
    """Measure each prefix against models of the other blocks of time.

    Returns
    -------
    dict of str to ndarray of shape (n_prefixes, n_archetypes)
        By metric; infinity for archetypes that the other blocks do not have. A row is NaN where the prefix's own
        archetype is one of these, or the metric was not to be had.
    """
    n, n_archetypes = len(vectors), int(labels.max()) + 1
    away: dict[DistanceMetric, Array] = {metric: np.full((n, n_archetypes), np.nan) for metric in DISTANCE_METRICS}
    for fold, others in blocks(days):
        if len(others) == 0:
            continue
        model = _Model(vectors[others], labels[others], kind, weights)
        scaled = model.scaler.transform(vectors[fold])
        judged = np.isin(labels[fold], model.ids)
        for metric in DISTANCE_METRICS:
            if metric == "mahalanobis" and model.precision is None:
                continue
            for row, vector in zip(fold[judged], scaled[judged], strict=True):
                away[metric][row] = np.inf
                away[metric][row, model.ids] = distances(vector, model.centroids, metric, model.precision)
    return away


def _calibrate(away: Array, labels: Ints) -> Calibration:
    judged = ~np.isnan(away[:, 0])
    away, truth = away[judged], labels[judged]
    n = len(away)
    if n == 0:
        return Calibration(
            n_sessions=0, agreement=0.0, log_loss=math.nan, temperature=1.0, log_loss_untempered=math.nan
        )
    temperature = 1.0
    if n >= MIN_CALIBRATION_SESSIONS:
        low, high = _TEMPERATURE_BOUNDS
        found = minimize_scalar(
            lambda log_t: _log_loss(away, truth, math.exp(log_t)),
            bounds=(math.log(low), math.log(high)),
            method="bounded",
            options={"xatol": 1e-6},
        )
        temperature = float(math.exp(found.x))
    return Calibration(
        n_sessions=n,
        agreement=int((away.argmin(axis=1) == truth).sum()) / len(labels),
        log_loss=_log_loss(away, truth, temperature),
        temperature=temperature,
        log_loss_untempered=_log_loss(away, truth, 1.0),
    )


def _log_loss(away: Array, truth: Ints, temperature: float) -> float:
    logits = -(away - away.min(axis=1, keepdims=True)) / temperature
    log_totals = np.log(np.exp(logits).sum(axis=1))
    return float((log_totals - logits[np.arange(len(truth)), truth]).mean())
