"""What training learns from sessions cut at one checkpoint: scaler, class means, covariance and temperatures.

The classes are the archetypes of the full sessions; the vectors are prefixes. Temperatures are fitted on distances
that are out of fold, because distances to means that were made from the very same sessions are too short.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
from scipy.linalg import cho_factor, cho_solve
from scipy.optimize import minimize_scalar
from sklearn.covariance import LedoitWolf
from sklearn.preprocessing import RobustScaler, StandardScaler

from stream_fp.classifier import DISTANCE_METRICS, DistanceMetric, distances
from stream_fp.library import PrefixModelArrays, ScalerArrays

__all__ = [
    "Calibration",
    "PrefixFit",
    "ScalerKind",
    "fit_prefix_model",
    "fit_scaler",
    "guess_agreement",
    "scaler_arrays",
]

Array = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
ScalerKind = Literal["standard", "robust"]
Scaler: TypeAlias = StandardScaler | RobustScaler

#: Contiguous blocks of time; each is judged by a model of the others. More folds change little and take longer.
N_FOLDS: Final = 5
#: With fewer out-of-fold sessions a fitted temperature says more of chance than of the model; then it is 1.
MIN_CALIBRATION_SESSIONS: Final = 20
#: Where the temperature is sought. Beyond these, probabilities are those of a coin or of certainty.
_TEMPERATURE_BOUNDS: Final = (1e-3, 1e3)
#: Mean square within archetypes, in scaled units, below which there is rounding and no spread.
_NO_SPREAD: Final = 1e-20


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """How one distance metric did on sessions that its model had not seen.

    Attributes
    ----------
    n_sessions : int
        Sessions that the temperature was fitted on: those whose archetype had a session outside their own fold.
    agreement : float
        Share of all sessions assigned to the archetype of the full session; the other sessions count as missed.
    log_loss : float
        Mean negative log likelihood of those `n_sessions` at `temperature`; NaN without any.
    temperature : float
    """

    n_sessions: int
    agreement: float
    log_loss: float
    temperature: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PrefixFit:
    """A prefix model as the library stores it, and how it was arrived at.

    Attributes
    ----------
    arrays : PrefixModelArrays
    calibration : dict of str to Calibration
        By distance metric, where the metric could be tried.
    notes : tuple of str
        Fallbacks that a user should know of.
    """

    arrays: PrefixModelArrays
    calibration: dict[DistanceMetric, Calibration]
    notes: tuple[str, ...]


def fit_scaler(kind: ScalerKind, vectors: Array) -> tuple[Scaler, list[int]]:
    """Fit a scikit-learn scaler; return it and the features whose interquartile range is zero though they vary.

    Constant features get the scale 1, as scikit-learn does. A feature that varies in less than half of the sessions
    would be left unscaled by `RobustScaler`, and outweigh all others: it gets its standard deviation instead.

    Parameters
    ----------
    kind : {"standard", "robust"}
    vectors : ndarray of shape (n_vectors, 30)

    Returns
    -------
    scaler : StandardScaler or RobustScaler
    replaced : list of int
        Columns scaled by their standard deviation in a robust scaler.
    """
    standard = StandardScaler().fit(vectors)
    if kind == "standard":
        return standard, []
    robust = RobustScaler().fit(vectors)
    upper, lower = np.percentile(vectors, (75, 25), axis=0)
    replaced = np.flatnonzero((upper - lower <= 0) & (standard.scale_ != 1.0))
    robust.scale_[replaced] = standard.scale_[replaced]
    return robust, replaced.tolist()


def scaler_arrays(kind: ScalerKind, scaler: Scaler) -> ScalerArrays:
    """Return center and scale of a fitted scaler."""
    center = scaler.mean_ if kind == "standard" else scaler.center_
    return ScalerArrays(kind=kind, center=center.tolist(), scale=scaler.scale_.tolist())


def fit_prefix_model(checkpoint_pct: float, vectors: Array, labels: Ints, *, scaler: ScalerKind) -> PrefixFit:
    """Learn one checkpoint.

    Parameters
    ----------
    checkpoint_pct : float
    vectors : ndarray of shape (n_prefixes, 30)
        In order of time, at least one.
    labels : ndarray of shape (n_prefixes,), int64
        Archetype of each full session.
    scaler : {"standard", "robust"}
    """
    model = _Model(vectors, labels, scaler)
    notes = [] if model.why_no_precision is None else [f"no covariance: {model.why_no_precision}"]
    away = _out_of_fold_distances(vectors, labels, scaler)
    calibration = {metric: _calibrate(away[metric], labels) for metric in DISTANCE_METRICS if metric in away}
    notes += [
        f"temperature of {metric} is 1: only {found.n_sessions} sessions to fit it on"
        for metric, found in calibration.items()
        if found.n_sessions < MIN_CALIBRATION_SESSIONS
    ]
    return PrefixFit(
        arrays=PrefixModelArrays(
            checkpoint_pct=checkpoint_pct,
            n_sessions=len(vectors),
            archetype_ids=model.ids.tolist(),
            scaler=scaler_arrays(scaler, model.scaler),
            centroids=model.centroids.tolist(),
            precision=None if model.precision is None else model.precision.tolist(),
            covariance_shrinkage=model.shrinkage,
            temperatures={metric: found.temperature for metric, found in calibration.items()},
        ),
        calibration=calibration,
        notes=tuple(f"{checkpoint_pct:g}% checkpoint: {note}" for note in notes),
    )


def guess_agreement(session_types: Sequence[str], labels: Ints) -> float:
    """Return how often a guess from the session type alone is right, in the same folds: what a model has to beat.

    The guess is the most frequent archetype of that type, or of all sessions where the other folds lack the type.

    Parameters
    ----------
    session_types : sequence of str
        In order of time.
    labels : ndarray of shape (n_sessions,), int64

    Examples
    --------
    >>> guess_agreement(["asia", "lunch"] * 10, np.array([0, 1] * 10))
    1.0
    """
    types = np.array(session_types)
    n_right = 0
    for fold, others in _folds(len(types)):
        overall = np.bincount(labels[others], minlength=1).argmax()
        for session_type in np.unique(types[fold]):
            known = labels[others][types[others] == session_type]
            guess = np.bincount(known).argmax() if len(known) else overall
            n_right += int((labels[fold][types[fold] == session_type] == guess).sum())
    return n_right / len(types)


def _folds(n: int) -> Iterator[tuple[Ints, Ints]]:
    """Yield the rows of each contiguous block of time, and those of the others."""
    rows = np.arange(n)
    for fold in np.array_split(rows, min(N_FOLDS, n)):
        yield fold, np.setdiff1d(rows, fold)


class _Model:
    """Class means of scaled prefixes, and the covariance around them."""

    def __init__(self, vectors: Array, labels: Ints, kind: ScalerKind) -> None:
        self.scaler, _ = fit_scaler(kind, vectors)
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
        if float(np.square(residuals).mean()) < _NO_SPREAD:
            self.why_no_precision = "sessions of one archetype do not differ"
            return
        # Shrunk, because 30 variances and 435 covariances out of a few hundred sessions cannot be inverted as they are
        # (Ledoit and Wolf 2004, "A well-conditioned estimator for large-dimensional covariance matrices").
        estimate = LedoitWolf(assume_centered=True).fit(residuals)
        try:
            inverse = cho_solve(cho_factor(estimate.covariance_), np.eye(residuals.shape[1]))
        except (np.linalg.LinAlgError, ValueError) as error:
            self.why_no_precision = str(error)
            return
        if not np.isfinite(inverse).all():
            self.why_no_precision = "its inverse is not finite"
            return
        self.precision = (inverse + inverse.T) / 2  # rounding leaves it not quite symmetric
        self.shrinkage = float(estimate.shrinkage_)


def _out_of_fold_distances(vectors: Array, labels: Ints, kind: ScalerKind) -> dict[DistanceMetric, Array]:
    """Measure each prefix against models of the other folds.

    Returns
    -------
    dict of str to ndarray of shape (n_prefixes, n_archetypes)
        By metric; infinity for archetypes that the other folds do not have. A row is NaN where the prefix's own
        archetype is one of these, or the metric was not to be had.
    """
    n, n_archetypes = len(vectors), int(labels.max()) + 1
    away: dict[DistanceMetric, Array] = {metric: np.full((n, n_archetypes), np.nan) for metric in DISTANCE_METRICS}
    for fold, others in _folds(n):
        if len(others) == 0:
            continue
        model = _Model(vectors[others], labels[others], kind)
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
        return Calibration(n_sessions=0, agreement=0.0, log_loss=math.nan, temperature=1.0)
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
    )


def _log_loss(away: Array, truth: Ints, temperature: float) -> float:
    logits = -(away - away.min(axis=1, keepdims=True)) / temperature
    log_totals = np.log(np.exp(logits).sum(axis=1))
    return float((log_totals - logits[np.arange(len(truth)), truth]).mean())
