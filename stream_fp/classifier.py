"""Which archetype a prefix is becoming: distances to prefix centroids, and a confidence made from them.

Pure numpy. Distances are measured to centroids that were learned from prefixes cut at the same checkpoint, because a
prefix is no small full session: nearest full-session centroids stay selectable as the baseline that they are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, get_args

import numpy as np
import numpy.typing as npt

from stream_fp.library import Library, PrefixModel

__all__ = [
    "Assignment",
    "AssignmentMethod",
    "Classifier",
    "ConfidenceMethod",
    "DistanceMetric",
    "distances",
    "nearest",
]

DistanceMetric = Literal["euclidean", "cosine", "mahalanobis"]
ConfidenceMethod = Literal["inverse_distance", "softmax", "calibrated"]
AssignmentMethod = Literal["prefix_centroid", "full_centroid"]
DISTANCE_METRICS: Final = get_args(DistanceMetric)
CONFIDENCE_METHODS: Final = get_args(ConfidenceMethod)
ASSIGNMENT_METHODS: Final = get_args(AssignmentMethod)

Array = npt.NDArray[np.float64]
#: Keeps a vector that lies exactly on a centroid from dividing by zero; far below any distance that occurs.
_TINY: Final = 1e-12


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Assignment:
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
    probabilities : dict of int to float
        Of every archetype of the model; they add up to 1.
    notes : tuple of str
        What a reader of the prediction should know.
    """

    archetype_id: int
    confidence: float
    distance: float
    metric: DistanceMetric
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
        squares = ((away @ precision) * away).sum(axis=1)
    else:
        squares = (away * away).sum(axis=1)
    return np.asarray(np.sqrt(np.maximum(squares, 0.0)))


def nearest(vector: Array, centroids: Array) -> int:
    """Return the row of the centroid nearest to `vector` in euclidean distance, as ``KMeans.predict`` does."""
    return int(distances(vector, centroids, "euclidean").argmin())


class Classifier:
    """Assigns feature vectors to archetypes.

    Parameters
    ----------
    library : Library
    distance_metric : {"euclidean", "cosine", "mahalanobis"}
        "mahalanobis" falls back to "euclidean", with a note, at a checkpoint whose covariance could not be estimated.
    confidence_method : {"inverse_distance", "softmax", "calibrated"}
        Shares of 1/distance; softmax of minus distance; the same with the temperature that fitted best in training.
    assignment : {"prefix_centroid", "full_centroid"}
        Centroids of prefixes at the same checkpoint, or those of full sessions (the baseline).
    """

    def __init__(
        self,
        library: Library,
        *,
        distance_metric: DistanceMetric = "euclidean",
        confidence_method: ConfidenceMethod = "softmax",
        assignment: AssignmentMethod = "prefix_centroid",
    ) -> None:
        self.library = library
        self.distance_metric = distance_metric
        self.confidence_method = confidence_method
        self.assignment = assignment
        self._full_ids = np.arange(len(library.centroids))

    def classify(self, vector: Array, checkpoint_pct: float) -> Assignment:
        """Assign one feature vector of a prefix.

        Parameters
        ----------
        vector : ndarray of shape (30,)
            As `features.extract` gives it, finite.
        checkpoint_pct : float
            Checkpoint at which the prefix was cut; the nearest one that was trained is used.
        """
        model = self.library.prefix_model(checkpoint_pct)
        notes: list[str] = []
        if model.checkpoint_pct != checkpoint_pct:
            notes.append(f"Prefix model of the {model.checkpoint_pct:g}% checkpoint used for {checkpoint_pct:g}%")
        if self.assignment == "full_centroid":
            ids, centroids = self._full_ids, self.library.centroids
            scaled = (vector - self.library.center) / self.library.scale
        else:
            ids, centroids = model.archetype_ids, model.centroids
            scaled = (vector - model.center) / model.scale
        metric = self.distance_metric
        if metric == "mahalanobis" and (model.precision is None or self.assignment == "full_centroid"):
            metric = "euclidean"
            notes.append("No covariance for this assignment: euclidean distance used instead of mahalanobis")
        away = distances(scaled, centroids, metric, model.precision)
        shares = self._shares(away, model, metric)
        row = int(away.argmin())
        return Assignment(
            archetype_id=int(ids[row]),
            confidence=float(shares[row]),
            distance=float(away[row]),
            metric=metric,
            probabilities=dict(zip(ids.tolist(), shares.tolist(), strict=True)),
            notes=tuple(notes),
        )

    def _shares(self, away: Array, model: PrefixModel, metric: DistanceMetric) -> Array:
        if self.confidence_method == "inverse_distance":
            weights = 1.0 / np.maximum(away, _TINY)
        else:
            temperature = 1.0
            if self.confidence_method == "calibrated":
                temperature = model.temperatures.get(metric, 1.0)
            weights = np.exp(-(away - away.min()) / temperature)
        return np.asarray(weights / weights.sum())
