"""Cluster full sessions: scaler, feature weights and k-means, in one step that refits can repeat.

Pure: vectors in, `Clusters` out. A profile says which features tell archetypes apart and how much each counts. The
weight goes into the scaler (spread over weight), so that scaler and k-means stay plain scikit-learn objects and anybody
can repeat the assignment with ``kmeans.predict(scaler.transform(vectors))``.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning

from offline.profiles import NO_WEIGHT
from offline.scalers import Scaler, ScalerKind, fit_scaler
from stream_fp.errors import ConfigError
from stream_fp.features import RANGE

__all__ = ["N_STARTS", "Clusters", "fit_clusters", "weighted_features"]

Array = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

#: k-means starts this often from other seeds and keeps the best; more finds hardly better ones on 3,000 sessions.
N_STARTS: Final = 10


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Clusters:
    """Archetypes of full sessions.

    Attributes
    ----------
    scaler : StandardScaler or RobustScaler
        Its scale is the spread of each feature over its weight.
    kmeans : KMeans
        On scaled sessions; its cluster numbers are the archetype ids, in ascending order of median range.
    weights : ndarray of shape (30,)
    replaced : list of int
        Features that a robust scaler scales by their standard deviation.
    """

    scaler: Scaler
    kmeans: Any
    weights: Array
    replaced: list[int]

    def scaled(self, vectors: Array) -> Array:
        """Return `vectors`, shape (n, 30), in scaled space."""
        return np.asarray(self.scaler.transform(vectors), dtype=np.float64)

    def labels(self, vectors: Array) -> Ints:
        """Return the archetype of each of `vectors`, shape (n, 30)."""
        return np.asarray(self.kmeans.predict(self.scaled(vectors)), dtype=np.int64)


def weighted_features(weights: Array) -> list[int]:
    """Return the places of the features that play a part, ascending."""
    return np.flatnonzero(weights > NO_WEIGHT).tolist()


def fit_clusters(vectors: Array, *, n_archetypes: int, weights: Array, scaler: ScalerKind, seed: int) -> Clusters:
    """Cluster full sessions.

    Parameters
    ----------
    vectors : ndarray of shape (n_sessions, 30)
    n_archetypes : int
    weights : ndarray of shape (30,)
    scaler : {"standard", "robust"}
    seed : int

    Raises
    ------
    ConfigError
        When the sessions differ too little for so many archetypes.
    """
    fitted, replaced = fit_scaler(scaler, vectors)
    fitted.scale_ = fitted.scale_ / weights
    scaled = fitted.transform(vectors)
    # Where only features without a weight differ, k-means would still find clusters, of nothing.
    n_different = len(np.unique(np.round(scaled[:, weighted_features(weights)], 9), axis=0))
    if n_different < n_archetypes:
        raise ConfigError(
            "archetypes", f"expected at most {n_different}, the number of different sessions, got {n_archetypes}"
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # what it warns of is checked below
        kmeans = KMeans(n_clusters=n_archetypes, n_init=N_STARTS, random_state=seed).fit(scaled)
    n_found = len(np.unique(kmeans.labels_))
    if n_found < n_archetypes:
        raise ConfigError(
            "archetypes", f"expected at most {n_found}, the sessions differ too little for {n_archetypes}"
        )
    _number_by_range(kmeans, vectors[:, RANGE], n_archetypes)
    return Clusters(scaler=fitted, kmeans=kmeans, weights=weights, replaced=replaced)


def _number_by_range(kmeans: Any, ranges: Array, n_archetypes: int) -> None:  # noqa: ANN401 - scikit-learn is untyped
    """Give the clusters numbers by ascending median range, so that numbers mean the same in every run."""
    medians = [float(np.median(ranges[kmeans.labels_ == label])) for label in range(n_archetypes)]
    order = sorted(range(n_archetypes), key=lambda label: (medians[label], kmeans.cluster_centers_[label].tolist()))
    kmeans.cluster_centers_ = kmeans.cluster_centers_[order]
    kmeans.labels_ = np.argsort(order).astype(kmeans.labels_.dtype)[kmeans.labels_]
