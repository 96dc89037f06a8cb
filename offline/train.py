"""Learn a library of archetypes from a dataset.

Full sessions define what the archetypes are (scaler and k-means); prefixes cut at each checkpoint teach how to tell
early which one a session is becoming (`offline.prefix_models`).

Invariant: the same dataset, options and library versions give the same library to the last bit.
"""

from __future__ import annotations

import platform
import warnings
from collections import Counter
from dataclasses import dataclass
from typing import Any, Final

import joblib
import numpy as np
import numpy.typing as npt
import scipy
import sklearn
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

import stream_fp
from offline.archetypes import UNKNOWN_TYPE, archetype_stats
from offline.dataset import Dataset
from offline.prefix_models import Calibration, ScalerKind, fit_prefix_model, fit_scaler, guess_agreement, scaler_arrays
from stream_fp.classifier import DistanceMetric
from stream_fp.errors import ConfigError, DocumentError
from stream_fp.features import FEATURE_NAMES, SCHEMA_VERSION
from stream_fp.library import ClusterStats, Metadata, TrainingSummary

__all__ = ["TrainedLibrary", "train"]

Array = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

#: k-means starts this often from other seeds and keeps the best; more finds hardly better ones on 3,000 sessions.
_N_INIT: Final = 10


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TrainedLibrary:
    """A library in memory.

    Attributes
    ----------
    scaler : StandardScaler or RobustScaler
        Of full sessions.
    kmeans : KMeans
        On scaled full sessions; its cluster numbers are the archetype ids, in ascending order of median range.
    labels : ndarray of shape (n_sessions,), int64
        Archetype of each session of the dataset.
    metadata : Metadata
        Complete but for the time of creation and the hashes, which come with writing.
    stats : ClusterStats
    calibration : dict of float to dict of str to Calibration
        By checkpoint and distance metric: how prefixes did out of fold.
    type_agreement : dict of float to float
        By checkpoint: how often a guess from the session type alone was right, out of fold.
    notes : tuple of str
        Fallbacks that a user should know of.
    """

    scaler: Any
    kmeans: Any
    labels: Ints
    metadata: Metadata
    stats: ClusterStats
    calibration: dict[float, dict[DistanceMetric, Calibration]]
    type_agreement: dict[float, float]
    notes: tuple[str, ...]


def train(
    dataset: Dataset,
    *,
    model_version: str,
    n_archetypes: int = 5,
    scaler: ScalerKind = "standard",
    seed: int = 0,
    checkpoints_pct: tuple[float, ...] | None = None,
) -> TrainedLibrary:
    """Learn archetypes and prefix models.

    Parameters
    ----------
    dataset : Dataset
    model_version : str
        Goes into every prediction.
    n_archetypes : int
        Never lowered in silence: fewer different sessions are an error.
    scaler : {"standard", "robust"}
        By mean and standard deviation, or by median and interquartile range.
    seed : int
        Of k-means.
    checkpoints_pct : tuple of float, optional
        Those to learn, of the ones at which the dataset was cut; all of them by default.

    Raises
    ------
    ConfigError
        When there are fewer different sessions than archetypes, or a checkpoint was not cut.
    DocumentError
        When no session reached any checkpoint.
    """
    checkpoints = tuple(dataset.prefixes) if checkpoints_pct is None else tuple(sorted(set(checkpoints_pct)))
    for checkpoint_pct in checkpoints:
        if checkpoint_pct not in dataset.prefixes:
            cut = ", ".join(f"{pct:g}" for pct in dataset.prefixes)
            raise ConfigError(
                "checkpoints", f"expected one at which the sessions were cut ({cut}), got {checkpoint_pct:g}"
            )
    # With several threads, sums are added up in an order that changes from run to run.
    with threadpool_limits(limits=1):
        return _train(dataset, model_version, n_archetypes, scaler, seed, checkpoints)


def _train(  # noqa: PLR0917 - the options of `train`, complete
    dataset: Dataset, model_version: str, n_archetypes: int, kind: ScalerKind, seed: int, checkpoints: tuple[float, ...]
) -> TrainedLibrary:
    scaler, replaced = fit_scaler(kind, dataset.full)
    notes = [f"{FEATURE_NAMES[i]}: interquartile range is 0, scaled by standard deviation" for i in replaced]
    scaled = scaler.transform(dataset.full)
    kmeans = _fit_kmeans(scaled, dataset.range_pct, n_archetypes, seed)
    labels = kmeans.labels_.astype(np.int64)
    fits = []
    for checkpoint_pct in checkpoints:
        prefixes = dataset.prefixes[checkpoint_pct]
        if len(prefixes.rows) == 0:
            notes.append(f"{checkpoint_pct:g}% checkpoint: left out, no session reached it with enough events")
            continue
        fit = fit_prefix_model(checkpoint_pct, prefixes.vectors, labels[prefixes.rows], scaler=kind)
        fits.append(fit)
        notes += fit.notes
        if missing := sorted(set(range(n_archetypes)) - set(fit.arrays.archetype_ids)):
            notes.append(f"{checkpoint_pct:g}% checkpoint: no session of archetype {', '.join(map(str, missing))}")
    if not fits:
        reached = "; ".join(
            f"{reason}: {n}" for reason, n in dataset.skipped.items() if reason.startswith("checkpoint")
        )
        raise DocumentError("training", f"expected sessions that reach a checkpoint, found none ({reached})")
    metadata = Metadata(
        model_version=model_version,
        created_at="",
        feature_schema_version=SCHEMA_VERSION,
        feature_names=list(FEATURE_NAMES),
        n_archetypes=n_archetypes,
        seed=seed,
        scaler=scaler_arrays(kind, scaler),
        centroids=kmeans.cluster_centers_.tolist(),
        prefix_models=[fit.arrays for fit in fits],
        completion=dataset.completion,
        min_events=dataset.min_events,
        schedules={
            name: {"start": window.start, "end": window.end, "timezone": window.timezone}
            for name, window in dataset.schedules.items()
        },
        typical_events=dataset.typical_events,
        training=_summary(dataset),
        libraries={
            "python": platform.python_version(),
            "numpy": np.__version__,
            "scikit-learn": sklearn.__version__,
            "scipy": scipy.__version__,
            "joblib": joblib.__version__,
            "stream_fp": stream_fp.__version__,
        },
        sha256={},
    )
    return TrainedLibrary(
        scaler=scaler,
        kmeans=kmeans,
        labels=labels,
        metadata=metadata,
        stats=ClusterStats(
            model_version=model_version, archetypes=archetype_stats(dataset, scaled, labels, n_archetypes)
        ),
        calibration={fit.arrays.checkpoint_pct: fit.calibration for fit in fits},
        type_agreement={
            fit.arrays.checkpoint_pct: _type_agreement(dataset, labels, fit.arrays.checkpoint_pct) for fit in fits
        },
        notes=tuple(notes),
    )


def _fit_kmeans(scaled: Array, range_pct: Array, n_archetypes: int, seed: int) -> KMeans:
    """Cluster, and number the clusters by ascending median range, so that numbers mean the same in every run."""
    n_different = len(np.unique(scaled, axis=0))
    if n_different < n_archetypes:
        raise ConfigError(
            "archetypes", f"expected at most {n_different}, the number of different sessions, got {n_archetypes}"
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # what it warns of is checked below
        kmeans = KMeans(n_clusters=n_archetypes, n_init=_N_INIT, random_state=seed).fit(scaled)
    sizes = np.bincount(kmeans.labels_, minlength=n_archetypes)
    if (sizes == 0).any():
        n_found = int((sizes > 0).sum())
        raise ConfigError(
            "archetypes", f"expected at most {n_found}, the sessions differ too little for {n_archetypes}"
        )
    medians = [float(np.median(range_pct[kmeans.labels_ == label])) for label in range(n_archetypes)]
    order = sorted(range(n_archetypes), key=lambda label: (medians[label], kmeans.cluster_centers_[label].tolist()))
    kmeans.cluster_centers_ = kmeans.cluster_centers_[order]
    kmeans.labels_ = np.argsort(order).astype(kmeans.labels_.dtype)[kmeans.labels_]
    return kmeans


def _type_agreement(dataset: Dataset, labels: Ints, checkpoint_pct: float) -> float:
    rows = dataset.prefixes[checkpoint_pct].rows
    return guess_agreement([dataset.session_types[row] for row in rows], labels[rows])


def _summary(dataset: Dataset) -> TrainingSummary:
    types = Counter(session_type or UNKNOWN_TYPE for session_type in dataset.session_types)
    lows, highs = dataset.full.min(axis=0).tolist(), dataset.full.max(axis=0).tolist()
    return TrainingSummary(
        n_sessions=len(dataset),
        n_skipped=dataset.skipped,
        n_events=int(dataset.n_events.sum()),
        first_date=dataset.dates[0],
        last_date=dataset.dates[-1],
        sessions_by_type=dict(sorted(types.items())),
        feature_ranges={name: (low, high) for name, low, high in zip(FEATURE_NAMES, lows, highs, strict=True)},
    )
