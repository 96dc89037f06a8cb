"""Which archetype a prefix is becoming, and with what probability.

Pure numpy. Three ways to assign: the prefix model, a calibrated probability learned from prefixes cut at the same
checkpoint; the nearest of the centroids of such prefixes, with a confidence made from distances; and the nearest
full-session centroid, the baseline that it is, because a prefix is no small full session.
"""

from __future__ import annotations

import math
from typing import Final, Literal, get_args

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from stream_fp.library import Library
from stream_fp.prefix_model import PrefixModel

__all__ = [
    "Assignment",
    "AssignmentMethod",
    "Classifier",
    "ConfidenceMethod",
    "DistanceMetric",
    "distances",
    "nearest",
    "resolve_assignment",
]

DistanceMetric = Literal["euclidean", "cosine", "mahalanobis"]
ConfidenceMethod = Literal["inverse_distance", "softmax", "calibrated"]
AssignmentMethod = Literal["auto", "prefix_model", "prefix_centroid", "full_centroid"]
DISTANCE_METRICS: Final = get_args(DistanceMetric)
CONFIDENCE_METHODS: Final = get_args(ConfidenceMethod)
ASSIGNMENT_METHODS: Final = get_args(AssignmentMethod)

Array = npt.NDArray[np.float64]
#: Keeps a vector that lies exactly on a centroid from dividing by zero; far below any distance that occurs.
_TINY: Final = 1e-12


class Assignment(Struct, frozen=True, kw_only=True, eq=False):
    """The archetype chosen for one vector.

    Attributes
    ----------
    archetype_id : int
    confidence : float
        Probability of that archetype, in (0, 1].
    distance : float
        To its centroid, in units of `metric`.
    metric : str
        The one used; differs from the one asked for where the covariance was missing.
    method : str
        How it was assigned; never "auto".
    confidence_method : str
        How the confidence came about. That of the prefix model is a softmax, and calibrated: either name is true of it.
    probabilities : dict of int to float
        Of every archetype of the model; they add up to 1.
    notes : tuple of str
        What a reader of the prediction should know.
    """

    archetype_id: int
    confidence: float
    distance: float
    metric: DistanceMetric
    method: AssignmentMethod
    confidence_method: ConfidenceMethod
    probabilities: dict[int, float]
    notes: tuple[str, ...]


def distances(vector: Array, centroids: Array, metric: DistanceMetric, precision: Array | None = None) -> Array:
    """Measure the distance from a vector to each centroid.

    Parameters
    ----------
    vector : ndarray of shape (n_features,)
        Scaled like the centroids.
    centroids : ndarray of shape (n_archetypes, n_features)
    metric : {"euclidean", "cosine", "mahalanobis"}
        Cosine distance is one minus the cosine of the angle, in [0, 2]; 1 where a vector is zero.
    precision : ndarray of shape (n_features, n_features), optional
        Inverse covariance; needed for "mahalanobis".

    Returns
    -------
    ndarray of shape (n_archetypes,)

    Examples
    --------
    >>> distances(np.array([0.0, 0.0]), np.array([[3.0, 4.0], [0.0, 1.0]]), "euclidean")
    array([5., 1.])
    """
    if metric == "cosine":
        lengths = np.sqrt((centroids * centroids).sum(axis=1)) * np.sqrt(vector @ vector)
        dots = centroids @ vector
        cosines = np.divide(dots, lengths, out=np.zeros_like(dots), where=lengths > _TINY)
        return np.asarray(1.0 - np.clip(cosines, -1.0, 1.0))
    away = centroids - vector
    if metric == "mahalanobis":
        if precision is None:
            msg = "expected a precision matrix for the mahalanobis distance, got none"
            raise ValueError(msg)
        squares = np.add.reduce((away @ precision) * away, axis=1)
    else:
        squares = np.add.reduce(away * away, axis=1)
    return np.asarray(np.sqrt(np.maximum(squares, 0.0)))


def _euclidean(values: list[float], center: list[float], scale: list[float]) -> float:
    """Return the distance from `center` in units of `scale`, added up in order."""
    total = 0.0
    for i in range(len(values)):
        value, middle, unit = values[i], center[i], scale[i]
        away = (value - middle) / unit
        total += away * away
    return math.sqrt(total)


def nearest(vector: Array, centroids: Array) -> int:
    """Return the row of the centroid nearest to `vector` in euclidean distance, as ``KMeans.predict`` does."""
    return int(distances(vector, centroids, "euclidean").argmin())


class Classifier:
    """Assigns feature vectors to archetypes.

    Parameters
    ----------
    library : Library
    distance_metric : {"euclidean", "cosine", "mahalanobis"}
        Of the distance to the centroid, and of assignments by centroid. "mahalanobis" falls back to "euclidean", with a
        note, at a checkpoint whose covariance could not be estimated.
    confidence_method : {"inverse_distance", "softmax", "calibrated"}
        For assignments by centroid: shares of 1/distance; softmax of minus distance; the same with the temperature that
        fitted best in training. The confidence of the prefix model is its own probability, a softmax that is
        calibrated.
    assignment : {"auto", "prefix_model", "prefix_centroid", "full_centroid"}
        "auto" is what did best out of sample when the library was trained, with one exception: shares of 1/distance
        can only be had from distances, so with "inverse_distance" it means "prefix_centroid".
    """

    def __init__(
        self,
        library: Library,
        *,
        distance_metric: DistanceMetric = "euclidean",
        confidence_method: ConfidenceMethod = "softmax",
        assignment: AssignmentMethod = "auto",
    ) -> None:
        self.library = library
        self.distance_metric = distance_metric
        self.confidence_method = confidence_method
        self.assignment = resolve_assignment(library, assignment, confidence_method)
        self._full_ids = np.arange(len(library.centroids))

    def classify(self, vector: Array | list[float], checkpoint_pct: float, session_type: str = "") -> Assignment:
        """Assign one feature vector of a prefix.

        Parameters
        ----------
        vector : ndarray of shape (30,) or list of 30 floats
            As `features.extract` or `features.fingerprint` gives it, finite.
        checkpoint_pct : float
            Checkpoint at which the prefix was cut; the nearest one that was trained is used.
        session_type : str
            In lower case; a type that training did not see is as good as none.
        """
        model = self.library.prefix_model(checkpoint_pct)
        values: list[float] = vector if isinstance(vector, list) else vector.tolist()
        shares = None
        if self.assignment == "prefix_model":
            shares = model.shares(model.known(values, session_type))
        return self.assign(values, checkpoint_pct, model, shares)

    def assign(
        self, values: list[float], checkpoint_pct: float, model: PrefixModel, shares: list[float] | None
    ) -> Assignment:
        """Assign one feature vector, as `classify` does, for who has asked the prefix model already.

        Parameters
        ----------
        values : list of 30 floats
            The feature vector.
        checkpoint_pct : float
        model : PrefixModel
            Of that checkpoint.
        shares : list of float, optional
            The probabilities that `model` gives; not needed where the assignment is by centroid.
        """
        notes = []
        if model.checkpoint_pct != checkpoint_pct:
            notes.append(f"Prefix model of the {model.checkpoint_pct:g}% checkpoint used for {checkpoint_pct:g}%")
        metric = self.distance_metric
        if metric == "mahalanobis" and (model.precision is None or self.assignment == "full_centroid"):
            metric = "euclidean"
            notes.append("No covariance for this assignment: euclidean distance used instead of mahalanobis")
        confidence_method = self.confidence_method
        is_full = self.assignment == "full_centroid"
        scaler: Library | PrefixModel = self.library if is_full else model
        ids = self._full_ids if is_full else model.archetype_ids
        if self.assignment == "prefix_model":
            if shares is None:
                msg = "expected the probabilities of the prefix model, which makes the assignment"
                raise ValueError(msg)
            row = shares.index(max(shares))
            confidence_method = "calibrated" if confidence_method == "inverse_distance" else confidence_method
            if metric == "euclidean":
                centroid, scale = model.nearness[row]
                distance = _euclidean(values, centroid, scale)
            else:
                scaled = (np.array(values) - model.center) / model.scale
                distance = float(distances(scaled, model.centroids[row : row + 1], metric, model.precision)[0])
        else:
            scaled = (np.array(values) - scaler.center) / scaler.scale
            away = distances(scaled, scaler.centroids, metric, model.precision)
            shares = self._shares(away, model, metric).tolist()
            row = int(away.argmin())
            distance = float(away[row])
        return Assignment(
            archetype_id=int(ids[row]),
            confidence=shares[row],
            distance=distance,
            metric=metric,
            method=self.assignment,
            confidence_method=confidence_method,
            probabilities=dict(zip(ids.tolist(), shares, strict=True)),
            notes=tuple(notes),
        )

    def _shares(self, away: Array, model: PrefixModel, metric: DistanceMetric) -> Array:
        if self.confidence_method == "inverse_distance":
            weights = 1.0 / np.maximum(away, _TINY)
        else:
            temperature = 1.0
            if self.confidence_method == "calibrated":
                temperature = model.temperatures.get(metric, 1.0)
            # numpy's exponential differs in the last bit between kinds of processors.
            weights = np.array([math.exp(logit) for logit in (-(away - away.min()) / temperature).tolist()])
        return np.asarray(weights / weights.sum())


def resolve_assignment(
    library: Library, assignment: AssignmentMethod, confidence_method: ConfidenceMethod
) -> AssignmentMethod:
    """Return what ``auto`` stands for, and any other method as it is."""
    if assignment != "auto":
        return assignment
    if confidence_method == "inverse_distance" and library.assignment == "prefix_model":
        return "prefix_centroid"
    return library.assignment
