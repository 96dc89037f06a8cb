"""Choose the archetypes by evidence: how many, and which features tell them apart.

Each candidate learns from the earlier part of the sessions and is judged on the later part, which it has not seen. A
good one is stable (refits on bootstrap samples give the same archetypes), balanced (none is tiny, none is most of the
sessions), means something (knowing the archetype tells of the part not seen beyond what the session type tells), and
can be told early (its prediction tells as much, and beats guessing from session type and regime seen so far).
"""

from __future__ import annotations

from typing import Final

import msgspec
import numpy as np
import numpy.typing as npt
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score, silhouette_score
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from offline.backends import LOCAL, Backend
from offline.baselines import Baselines, fit_baselines
from offline.clusters import N_STARTS, Clusters, fit_clusters, weighted_features
from offline.dataset import Dataset, Progress
from offline.inputs import fit_inputs, make_inputs
from offline.membership import fit_membership, predict_membership
from offline.profiles import DEFAULT_PROFILE, PROFILES, profile_weights
from offline.scalers import ScalerKind
from offline.scores import log_losses, r2_scores
from offline.splits import EMBARGO_DAYS
from stream_fp.artifacts import SelectionTrial
from stream_fp.errors import ConfigError
from stream_fp.features import FEATURE_NAMES, RANGE
from stream_fp.phases import N_PHASES

__all__ = ["DEFAULT_N_ARCHETYPES", "MIN_SESSIONS", "choose", "refit_centroids", "stability_ari"]

Array = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

#: Below this much history a split judges chance: the defaults are taken.
MIN_SESSIONS: Final = 300
DEFAULT_N_ARCHETYPES: Final = 4
_CANDIDATES: Final = (4, 5, 6, 7, 8)
#: Enough to learn from, and some hundred sessions left to judge.
_LEARNED_SHARE: Final = 0.7
_CHECKPOINT_PCT: Final = 30.0
#: Refits on bootstrap samples; the mean index of ten of them is good to about 0.03.
N_REFITS: Final = 10
#: What the judged sessions should show. Stricter than what users are promised, because the next months will differ.
_MIN_ARI: Final = 0.8
_MIN_SHARE: Final = 0.04
_MAX_SHARE: Final = 0.42
_MAX_LOG_LOSS_RATIO: Final = 0.75
#: A log loss lower by a tenth of the guess's is worth as much as one point of R2.
_RATIO_WEIGHT: Final = 0.1
#: Of what the archetype explains of the whole session, and of how far archetypes lie apart: they break ties.
_SHAPE_WEIGHT: Final = 0.05
#: Unstable or lopsided archetypes, where there are no others, lose half a point of R2 for every point they lack.
_FAULT_WEIGHT: Final = 0.5
#: Differences in merit of up to this are chance (about two standard errors on 500 judged sessions): then fewer
#: archetypes are better, for they are easier to remember, more stable, and their probabilities easier to learn.
_AS_GOOD: Final = 0.05
_NET_MOVE: Final = FEATURE_NAMES.index("net_move_pct")


def choose(
    dataset: Dataset,
    *,
    n_archetypes: int | None,
    profile: str | None,
    scaler: ScalerKind,
    seed: int,
    n_jobs: int = -1,
    backend: Backend = LOCAL,
    progress: Progress | None = None,
) -> tuple[str, int, list[SelectionTrial]]:
    """Return profile, number of archetypes, and all trials with the chosen one marked.

    Parameters
    ----------
    dataset : Dataset
    n_archetypes : int or None
        Where given, only the features are chosen.
    profile : str or None
        Where given, only the number is chosen.
    scaler : {"standard", "robust"}
    seed : int
        Of k-means.
    n_jobs : int
        Processes; the result is the same for any number.
    backend : Backend
        Where they run.
    progress : callable, optional
        Told after each trial.
    """
    candidates = _CANDIDATES if n_archetypes is None else (n_archetypes,)
    if len(dataset) < MIN_SESSIONS:
        return profile or DEFAULT_PROFILE, n_archetypes or DEFAULT_N_ARCHETYPES, []
    days = dataset.days()
    first_judged = days[int(_LEARNED_SHARE * len(days))]
    learned = np.flatnonzero(days < first_judged - EMBARGO_DAYS)
    judged = np.flatnonzero(days >= first_judged)
    if len(learned) < MIN_SESSIONS // 2 or not len(judged):  # nearly all sessions are of a few days
        return profile or DEFAULT_PROFILE, n_archetypes or DEFAULT_N_ARCHETYPES, []
    grid = [(name, n) for name in (PROFILES if profile is None else (profile,)) for n in candidates]
    trials: list[SelectionTrial | None] = []
    jobs = ((dataset, learned, judged, name, n, scaler, seed) for name, n in grid)
    for n_done, trial in enumerate(backend.run(_trial, jobs, n_jobs=n_jobs, shared=(dataset,)), 1):
        trials.append(trial)
        if progress is not None:
            progress("Trying archetypes", n_done, len(grid))
    found = [trial for trial in trials if trial is not None]
    if not found:
        return profile or DEFAULT_PROFILE, n_archetypes or DEFAULT_N_ARCHETYPES, []
    best = _best(found)
    marked = [msgspec.structs.replace(trial, is_chosen=trial is best) for trial in found]
    return best.profile, best.n_archetypes, marked


def _best(trials: list[SelectionTrial]) -> SelectionTrial:
    """Return the eligible trial with the fewest archetypes that is about as good as the best; of all, where none is."""
    candidates = [trial for trial in trials if trial.is_eligible] or trials
    enough = max(map(_merit, candidates)) - _AS_GOOD
    return min(
        (trial for trial in candidates if _merit(trial) >= enough),
        key=lambda trial: (trial.n_archetypes, -_merit(trial)),
    )


def _merit(trial: SelectionTrial) -> float:
    """Return what archetype and prediction tell of rest and whole, less what is wrong with the archetypes."""
    explained = [trial.range_r2 or 0.0, trial.net_move_r2 or 0.0, trial.phases_r2 or 0.0]
    return (
        (trial.rest_r2_true + trial.rest_r2_predicted) / 2
        + _SHAPE_WEIGHT * (trial.silhouette + sum(explained) / len(explained))
        - _RATIO_WEIGHT * trial.log_loss_ratio
        - _FAULT_WEIGHT * max(0.0, _MIN_ARI - trial.stability_ari)
        - _FAULT_WEIGHT * (max(0.0, _MIN_SHARE - trial.smallest) + max(0.0, trial.largest - _MAX_SHARE))
    )


def _trial(  # noqa: PLR0917 - one cell of the grid, for any process
    dataset: Dataset, learned: Ints, judged: Ints, profile: str, n_archetypes: int, scaler: ScalerKind, seed: int
) -> SelectionTrial | None:
    # With several threads, sums are added up in an order that changes from run to run.
    with threadpool_limits(limits=1):
        weights = profile_weights(profile)
        try:
            clusters = fit_clusters(
                dataset.full[learned], n_archetypes=n_archetypes, weights=weights, scaler=scaler, seed=seed
            )
        except ConfigError:  # fewer different sessions than archetypes
            return None
        labels = clusters.labels(dataset.full)
        shares = np.bincount(labels[judged], minlength=n_archetypes) / len(judged)
        features = weighted_features(weights)
        scaled = clusters.scaled(dataset.full[judged])[:, features]
        stability = stability_ari(labels[judged], scaled, refit_centroids(clusters, dataset.full[learned], seed))
        silhouette = float(silhouette_score(scaled, labels[judged])) if len(np.unique(labels[judged])) > 1 else 0.0
        rest_true, rest_predicted, ratio = _insight(dataset, learned, judged, labels, clusters, features)
        is_balanced = shares.min() >= _MIN_SHARE and shares.max() <= _MAX_SHARE
        return SelectionTrial(
            profile=profile,
            n_archetypes=n_archetypes,
            stability_ari=stability,
            silhouette=silhouette,
            smallest=float(shares.min()),
            largest=float(shares.max()),
            rest_r2_true=rest_true,
            rest_r2_predicted=rest_predicted,
            range_r2=_explained(dataset.full[:, [RANGE]], dataset, labels, learned, judged),
            net_move_r2=_explained(np.abs(dataset.full[:, [_NET_MOVE]]), dataset, labels, learned, judged),
            phases_r2=_explained(dataset.full[:, :N_PHASES], dataset, labels, learned, judged),
            log_loss_ratio=ratio,
            is_eligible=bool(stability >= _MIN_ARI and is_balanced and ratio <= _MAX_LOG_LOSS_RATIO),
            is_chosen=False,
        )


def refit_centroids(clusters: Clusters, vectors: Array, seed: int) -> Array:
    """Return the centroids of refits on bootstrap samples, shape (n_refits, n_archetypes, n_features with a weight).

    Parameters
    ----------
    clusters : Clusters
    vectors : ndarray of shape (n, 30)
        Those that `clusters` learned from.
    seed : int
    """
    rng = np.random.default_rng(seed)
    scaled = clusters.scaled(vectors)[:, weighted_features(clusters.weights)]
    n_archetypes = len(clusters.kmeans.cluster_centers_)
    found = []
    for _ in range(N_REFITS):
        sample = scaled[rng.integers(0, len(scaled), len(scaled))]
        if len(np.unique(sample, axis=0)) >= n_archetypes:  # of few sessions, chance may draw too few different ones
            kmeans = KMeans(n_clusters=n_archetypes, n_init=N_STARTS, random_state=int(rng.integers(2**31))).fit(sample)
            found.append(kmeans.cluster_centers_)
    return np.array(found)


def stability_ari(labels: Ints, scaled: Array, centroids: Array) -> float:
    """Return the mean adjusted Rand index between labels and those of refits; 0 without any.

    Parameters
    ----------
    labels : ndarray of shape (n,), int64
    scaled : ndarray of shape (n, n_features with a weight)
        The same sessions in scaled space.
    centroids : ndarray of shape (n_refits, n_archetypes, n_features with a weight)
    """
    indices = []
    for refit in centroids:
        squares = np.square(scaled[:, None, :] - refit[None]).sum(axis=2)
        indices.append(adjusted_rand_score(labels, squares.argmin(axis=1)))
    return float(np.mean(indices)) if indices else 0.0


def _insight(  # noqa: PLR0917 - what a trial has at hand
    dataset: Dataset, learned: Ints, judged: Ints, labels: Ints, clusters: Clusters, features: list[int]
) -> tuple[float, float, float]:
    """Return the mean R2 of the rest knowing the archetype and predicting it, and the ratio of log losses."""
    reached = [pct for pct, prefixes in dataset.prefixes.items() if len(prefixes.rows)]
    if not reached:
        return 0.0, 0.0, 1.0
    checkpoint_pct = min(reached, key=lambda pct: abs(pct - _CHECKPOINT_PCT))
    cut = dataset.prefixes[checkpoint_pct]
    past, future = np.isin(cut.rows, learned), np.isin(cut.rows, judged)
    ids, places = np.unique(labels[cut.rows[past]], return_inverse=True)
    future &= np.isin(labels[cut.rows], ids)
    if len(ids) < 2 or not future.any():
        return 0.0, 0.0, 1.0
    types = np.array([dataset.session_types[row] for row in cut.rows])
    days = dataset.days()[cut.rows]
    arrays = fit_inputs(cut.vectors[past], types[past].tolist())
    scaled = clusters.scaled(dataset.full[cut.rows[past]])
    inputs = make_inputs(arrays, cut.vectors[past], types[past].tolist())
    model = fit_membership(inputs, scaled, places, days[past], features, hold_out=False)
    found = predict_membership(model.arrays, make_inputs(arrays, cut.vectors[future], types[future].tolist()))
    truth = np.searchsorted(ids, labels[cut.rows[future]])
    ranges = np.column_stack((cut.range_so_far_pct, dataset.range_pct[cut.rows]))
    tables = fit_baselines(
        types[past].tolist(),
        cut.dominant_regimes[past],
        places,
        len(ids),
        rests=cut.rests[past],
        ranges_pct=ranges[past],
    )
    guesses = Baselines(tables, types[future].tolist(), cut.dominant_regimes[future])
    rests, mean = cut.rests[future], guesses.rest_mean()
    guessed = log_losses(guesses.archetypes_by_type_regime(), truth).mean()
    return (
        _mean_known(r2_scores(rests, guesses.rest_by_archetype(np.eye(len(ids))[truth]), mean)) or 0.0,
        _mean_known(r2_scores(rests, guesses.rest_by_archetype(found), mean)) or 0.0,
        float(log_losses(found, truth).mean() / guessed),
    )


def _explained(values: Array, dataset: Dataset, labels: Ints, learned: Ints, judged: Ints) -> float | None:
    """Return the mean R2 of columns of `values` that the archetype explains beyond the session type, out of sample."""
    types = np.array(dataset.session_types)
    usual = np.tile(values[learned].mean(axis=0), (len(values), 1))
    for session_type in np.unique(types):
        members = types == session_type
        if members[learned].any():
            usual[members] = values[learned][members[learned]].mean(axis=0)
    found = np.zeros_like(values)
    for label in np.unique(labels[learned]):
        members = learned[labels[learned] == label]
        found[labels == label] = (values[members] - usual[members]).mean(axis=0)
    left = values - usual
    return _mean_known(r2_scores(left[judged], found[judged], np.zeros(values.shape[1])))


def _mean_known(scores: Array) -> float | None:
    known = scores[~np.isnan(scores)]
    return float(known.mean()) if len(known) else None
