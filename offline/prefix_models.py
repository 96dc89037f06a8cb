"""What training learns at one checkpoint: centroids, archetype probabilities, the forecast of the rest, and baselines.

Puts the parts together and compares the ways to assign a session on sessions that were held out, block by block.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from offline.baselines import fit_baselines
from offline.clusters import Clusters, weighted_features
from offline.dataset import Dataset
from offline.inputs import fit_inputs, make_inputs
from offline.membership import fit_membership
from offline.prefix_centroids import Calibration, fit_centroids
from offline.rest_models import fit_rest
from offline.scalers import ScalerKind
from offline.scores import log_losses
from offline.splits import blocks
from stream_fp.artifacts import PrefixModelArrays

__all__ = ["PREFIX_MODEL", "PrefixFit", "Way", "fit_prefix_model", "guess_agreement"]

Array = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
#: A way to assign that can be compared: the prefix model, or the nearest prefix centroid by a metric.
Way = Literal["prefix_model", "euclidean", "cosine", "mahalanobis"]
PREFIX_MODEL: Way = "prefix_model"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PrefixFit:
    """A prefix model as the library stores it, and how it was arrived at.

    Attributes
    ----------
    arrays : PrefixModelArrays
    calibration : dict of str to Calibration
        By way to assign, where it could be tried.
    type_agreement : float
        How often a guess from the session type alone was right.
    notes : tuple of str
        Fallbacks that a user should know of.
    """

    arrays: PrefixModelArrays
    calibration: dict[Way, Calibration]
    type_agreement: float
    notes: tuple[str, ...]


def fit_prefix_model(
    checkpoint_pct: float, dataset: Dataset, labels: Ints, clusters: Clusters, *, scaler: ScalerKind
) -> PrefixFit:
    """Learn one checkpoint.

    Parameters
    ----------
    checkpoint_pct : float
        One that at least one session reached.
    dataset : Dataset
    labels : ndarray of shape (n_sessions,), int64
        Archetype of each full session.
    clusters : Clusters
        What they come from.
    scaler : {"standard", "robust"}
        Of the centroids.
    """
    cut = dataset.prefixes[checkpoint_pct]
    rows, days = cut.rows, dataset.days()[cut.rows]
    session_types = [dataset.session_types[row] for row in rows]
    ids, places = np.unique(labels[rows], return_inverse=True)
    centroids = fit_centroids(cut.vectors, labels[rows], days, scaler=scaler, weights=clusters.weights)
    inputs = fit_inputs(cut.vectors, session_types)
    rows_of_inputs = make_inputs(inputs, cut.vectors, session_types)
    full = clusters.scaled(dataset.full[rows])
    membership = fit_membership(rows_of_inputs, full, places, days, weighted_features(clusters.weights))
    ranges_pct = np.column_stack((cut.range_so_far_pct, dataset.range_pct[rows]))
    log_loss = float(log_losses(membership.held_out, places).mean())
    calibration: dict[Way, Calibration] = {
        PREFIX_MODEL: Calibration(
            n_sessions=len(rows),
            agreement=float((membership.held_out.argmax(axis=1) == places).mean()),
            log_loss=log_loss,
            temperature=1.0,
            log_loss_untempered=log_loss,
        )
    }
    calibration.update(centroids.calibration.items())
    return PrefixFit(
        arrays=PrefixModelArrays(
            checkpoint_pct=checkpoint_pct,
            n_sessions=len(rows),
            archetype_ids=ids.tolist(),
            scaler=centroids.scaler,
            centroids=centroids.centroids,
            precision=centroids.precision,
            covariance_shrinkage=centroids.shrinkage,
            temperatures={metric: found.temperature for metric, found in centroids.calibration.items()},
            inputs=inputs,
            membership=membership.arrays,
            rest=fit_rest(rows_of_inputs, membership.held_out, cut.rests, ranges_pct, days),
            baselines=fit_baselines(
                session_types, cut.dominant_regimes, places, len(ids), rests=cut.rests, ranges_pct=ranges_pct
            ),
            typical_confidence=float(membership.held_out.max(axis=1).mean()),
        ),
        calibration=calibration,
        type_agreement=guess_agreement(session_types, labels[rows], days),
        notes=tuple(f"{checkpoint_pct:g}% checkpoint: {note}" for note in centroids.notes),
    )


def guess_agreement(session_types: Sequence[str], labels: Ints, days: Ints) -> float:
    """Return how often a guess from the session type alone is right, in the same blocks: what a model has to beat.

    The guess is the most frequent archetype of that type, or of all sessions where the other blocks lack the type.

    Parameters
    ----------
    session_types : sequence of str
        In order of time.
    labels : ndarray of shape (n_sessions,), int64
    days : ndarray of shape (n_sessions,)

    Examples
    --------
    >>> guess_agreement(["asia", "lunch"] * 10, np.array([0, 1] * 10), np.arange(20))
    1.0
    """
    types = np.array(session_types)
    n_right = 0
    for block, others in blocks(days):
        if not len(others):
            continue
        overall = np.bincount(labels[others], minlength=1).argmax()
        for session_type in np.unique(types[block]):
            known = labels[others][types[others] == session_type]
            guess = np.bincount(known).argmax() if len(known) else overall
            n_right += int((labels[block][types[block] == session_type] == guess).sum())
    return n_right / len(types)
