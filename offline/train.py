"""Learn a library of archetypes from a dataset.

Full sessions define what the archetypes are (scaler and k-means); prefixes cut at each checkpoint teach how to tell
early which one a session is becoming (`offline.prefix_models`).

Invariant: the same dataset, options and library versions give the same library to the last bit.
"""

from __future__ import annotations

import math
import platform
from collections import Counter
from dataclasses import dataclass
from typing import Any, Final, Literal

import joblib
import numpy as np
import numpy.typing as npt
import scipy
import sklearn
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

import stream_fp
from offline.archetypes import UNKNOWN_TYPE, archetype_stats
from offline.backends import LOCAL, Backend
from offline.clusters import fit_clusters, weighted_features
from offline.dataset import Dataset, Progress
from offline.prefix_centroids import Calibration
from offline.prefix_models import PREFIX_MODEL, PrefixFit, Way, fit_prefix_model
from offline.profiles import profile_weights
from offline.scalers import ScalerKind, scaler_arrays
from offline.selection import MIN_SESSIONS, choose, refit_centroids, stability_ari
from stream_fp.artifacts import ClusterStats, Metadata, SelectionTrial, StabilityArrays, TrainingSummary
from stream_fp.errors import ConfigError, DocumentError
from stream_fp.features import FEATURE_NAMES, SCHEMA_VERSION

__all__ = ["TrainedLibrary", "TrainingOptions", "library_versions", "train"]

_DEFAULT_METRIC: Final = "euclidean"
#: A split of fewer sessions leaves nothing on one side.
_MIN_PREFIXES: Final = 2

Array = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


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
        By checkpoint and way to assign: how it did on prefixes that were held out.
    type_agreement : dict of float to float
        By checkpoint: how often a guess from the session type alone was right, on the same sessions.
    stability_ari : float
        Mean adjusted Rand index between `labels` and those of refits to resampled sessions.
    notes : tuple of str
        Fallbacks that a user should know of.
    """

    scaler: Any
    kmeans: Any
    labels: Ints
    metadata: Metadata
    stats: ClusterStats
    calibration: dict[float, dict[Way, Calibration]]
    type_agreement: dict[float, float]
    stability_ari: float
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingOptions:
    """What training is told.

    Attributes
    ----------
    model_version : str
        Goes into every prediction.
    n_archetypes : int or None
        None has it chosen by evidence (`offline.selection`). Never lowered in silence: fewer different sessions are an
        error.
    profile : str or None
        One of `offline.profiles.PROFILES`: the features that tell archetypes apart. None has it chosen.
    scaler : {"standard", "robust"}
        By mean and standard deviation, or by median and interquartile range.
    seed : int
        Of k-means.
    checkpoints_pct : tuple of float or None
        Those to learn, of the ones at which the dataset was cut; None for all of them.
    n_jobs : int
        Processes for the choice; the result is the same for any number.
    backend : Backend
        Where these run; all else is done in this process.
    progress : callable or None
        Told the stage, how much is done, and of how much.
    """

    model_version: str
    n_archetypes: int | None = None
    profile: str | None = None
    scaler: ScalerKind = "standard"
    seed: int = 0
    checkpoints_pct: tuple[float, ...] | None = None
    n_jobs: int = -1
    backend: Backend = LOCAL
    progress: Progress | None = None


def train(dataset: Dataset, options: TrainingOptions) -> TrainedLibrary:
    """Learn archetypes and prefix models.

    Raises
    ------
    ConfigError
        When there are fewer different sessions than archetypes, or a checkpoint was not cut.
    DocumentError
        When no session reached any checkpoint.
    """
    wanted = options.checkpoints_pct
    checkpoints = tuple(dataset.prefixes) if wanted is None else tuple(sorted(set(wanted)))
    for checkpoint_pct in checkpoints:
        if checkpoint_pct not in dataset.prefixes:
            cut = ", ".join(f"{pct:g}" for pct in dataset.prefixes)
            raise ConfigError(
                "checkpoints", f"expected one at which the sessions were cut ({cut}), got {checkpoint_pct:g}"
            )
    # With several threads, sums are added up in an order that changes from run to run.
    with threadpool_limits(limits=1):
        return _train(dataset, options, checkpoints)


def library_versions() -> dict[str, str]:
    """Return the versions of what a library depends on beside dataset and options."""
    return {
        "python": platform.python_version(),
        "numpy": np.__version__,
        "scikit-learn": sklearn.__version__,
        "scipy": scipy.__version__,
        "joblib": joblib.__version__,
        "stream_fp": stream_fp.__version__,
    }


def _train(dataset: Dataset, options: TrainingOptions, checkpoints: tuple[float, ...]) -> TrainedLibrary:
    profile, n_archetypes, trials = _choice(dataset, options)
    clusters = fit_clusters(
        dataset.full,
        n_archetypes=n_archetypes,
        weights=profile_weights(profile),
        scaler=options.scaler,
        seed=options.seed,
    )
    notes = [f"{FEATURE_NAMES[i]}: interquartile range is 0, scaled by standard deviation" for i in clusters.replaced]
    if not trials and (options.profile is None or options.n_archetypes is None):
        notes.append(
            f"{len(dataset)} sessions are too few to choose archetypes by evidence (it takes {MIN_SESSIONS}, over some "
            f"weeks): {n_archetypes} archetypes by the profile {profile!r}"
        )
    labels = clusters.kmeans.labels_.astype(np.int64)
    fits = []
    for n_done, checkpoint_pct in enumerate(checkpoints, 1):
        n_reached = len(dataset.prefixes[checkpoint_pct].rows)
        if n_reached < _MIN_PREFIXES:
            few = "no session" if n_reached == 0 else "only one session"
            notes.append(f"{checkpoint_pct:g}% checkpoint: left out, {few} reached it with enough events")
            continue
        fit = fit_prefix_model(checkpoint_pct, dataset, labels, clusters, scaler=options.scaler)
        fits.append(fit)
        notes += fit.notes
        if missing := sorted(set(range(n_archetypes)) - set(fit.arrays.archetype_ids)):
            notes.append(f"{checkpoint_pct:g}% checkpoint: no session of archetype {', '.join(map(str, missing))}")
        if options.progress is not None:
            options.progress("Learning checkpoints", n_done, len(checkpoints))
    if not fits:
        reached = "; ".join(
            f"{reason}: {n}" for reason, n in dataset.skipped.items() if reason.startswith("checkpoint")
        )
        raise DocumentError(
            "training", f"expected at least two sessions that reach a checkpoint, found fewer ({reached})"
        )
    low, high = np.quantile(dataset.range_pct, (1 / 3, 2 / 3)).tolist()
    scaled = clusters.scaled(dataset.full)
    features = weighted_features(clusters.weights)
    refits = refit_centroids(clusters, dataset.full, options.seed)
    metadata = Metadata(
        model_version=options.model_version,
        created_at="",
        feature_schema_version=SCHEMA_VERSION,
        feature_names=list(FEATURE_NAMES),
        n_archetypes=n_archetypes,
        seed=options.seed,
        scaler=scaler_arrays(options.scaler, clusters.scaler),
        feature_weights=clusters.weights.tolist(),
        centroids=clusters.kmeans.cluster_centers_.tolist(),
        range_terciles_pct=(low, high),
        assignment=_best_assignment(fits),
        selection=trials,
        stability=StabilityArrays(features=features, centroids=refits.tolist()),
        prefix_models=[fit.arrays for fit in fits],
        completion=dataset.completion,
        min_events=dataset.min_events,
        schedules={
            name: {"start": window.start, "end": window.end, "timezone": window.timezone}
            for name, window in dataset.schedules.items()
        },
        typical_events=dataset.typical_events,
        training=_summary(dataset),
        libraries=library_versions(),
        sha256={},
    )
    return TrainedLibrary(
        scaler=clusters.scaler,
        kmeans=clusters.kmeans,
        labels=labels,
        metadata=metadata,
        stats=ClusterStats(
            model_version=options.model_version,
            archetypes=archetype_stats(dataset, scaled / clusters.weights, labels, n_archetypes, (low, high)),
        ),
        calibration={fit.arrays.checkpoint_pct: fit.calibration for fit in fits},
        type_agreement={fit.arrays.checkpoint_pct: fit.type_agreement for fit in fits},
        stability_ari=stability_ari(labels, scaled[:, features], refits),
        notes=tuple(notes),
    )


def _choice(dataset: Dataset, options: TrainingOptions) -> tuple[str, int, list[SelectionTrial]]:
    if options.profile is not None and options.n_archetypes is not None:
        return options.profile, options.n_archetypes, []
    return choose(
        dataset,
        n_archetypes=options.n_archetypes,
        profile=options.profile,
        scaler=options.scaler,
        seed=options.seed,
        n_jobs=options.n_jobs,
        backend=options.backend,
        progress=options.progress,
    )


def _best_assignment(fits: list[PrefixFit]) -> Literal["prefix_model", "prefix_centroid"]:
    """Return the way with the lower log loss on held-out sessions, each as the default settings serve it."""
    losses = [
        (fit.calibration[PREFIX_MODEL].log_loss, fit.calibration[_DEFAULT_METRIC].log_loss_untempered) for fit in fits
    ]
    known = [pair for pair in losses if not math.isnan(sum(pair))]
    model, centroid = (sum(side) for side in zip(*known, strict=True)) if known else (0.0, 0.0)
    return "prefix_model" if model <= centroid else "prefix_centroid"


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
