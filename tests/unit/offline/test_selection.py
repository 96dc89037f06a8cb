"""The choice of archetypes: by evidence of sessions that nothing was learned from, for any number of processes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import pytest
from sklearn.metrics import adjusted_rand_score

from offline import selection
from offline.clusters import fit_clusters
from offline.dataset import Dataset, Prefixes
from offline.profiles import DEFAULT_PROFILE, PROFILES, profile_weights
from offline.selection import (
    DEFAULT_N_ARCHETYPES,
    MIN_SESSIONS,
    N_REFITS,
    choose,
    refit_centroids,
    stability_ari,
)
from offline.splits import EMBARGO_DAYS
from stream_fp.artifacts import SelectionTrial
from stream_fp.features import N_FEATURES
from tests.support.datasets import blobs

Array = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Choice = tuple[str, int, list[SelectionTrial]]


def chosen(
    dataset: Dataset, n_archetypes: int | None = None, profile: str | None = "pace_range", *, n_jobs: int = 1
) -> Choice:
    return choose(dataset, n_archetypes=n_archetypes, profile=profile, scaler="standard", seed=0, n_jobs=n_jobs)


@pytest.fixture(scope="module")
def dataset(simulated: Dataset) -> Dataset:
    """Few checkpoints to copy between processes."""
    part = simulated.select(np.arange(420))
    return dataclasses.replace(part, prefixes={30.0: part.prefixes[30.0]})


@pytest.fixture(scope="module")
def choice(dataset: Dataset) -> Choice:
    return chosen(dataset)


def split(dataset: Dataset) -> tuple[Ints, Ints]:
    """Rows that are learned from, and those judged."""
    days = dataset.days()
    first = days[int(0.7 * len(days))]
    return np.flatnonzero(days < first - EMBARGO_DAYS), np.flatnonzero(days >= first)


def test_chosen_trial_is_marked_and_is_what_is_returned(choice: Choice) -> None:
    profile, n_archetypes, trials = choice
    (best,) = [trial for trial in trials if trial.is_chosen]
    assert (best.profile, best.n_archetypes) == (profile, n_archetypes)
    assert [trial.n_archetypes for trial in trials] == [4, 5, 6, 7, 8]
    assert best.is_eligible or not any(trial.is_eligible for trial in trials)


def test_figures_of_the_trials_are_plausible(choice: Choice) -> None:
    for trial in choice[2]:
        assert all(np.isfinite(value) for value in msgspec.structs.astuple(trial)[2:13])
        assert 0 <= trial.smallest <= 1 / trial.n_archetypes <= trial.largest <= 1
        # What is predicted tells no more than what is known, but for chance.
        assert trial.rest_r2_predicted < trial.rest_r2_true + 0.05
        assert 0 < trial.log_loss_ratio < 1
        assert -1 < trial.stability_ari <= 1
        assert trial.range_r2 is not None
        assert 0.1 < trial.range_r2 < 1


def test_choice_is_the_same_for_two_processes(dataset: Dataset, choice: Choice) -> None:
    assert chosen(dataset, n_jobs=2) == choice


def test_profile_is_chosen_where_the_number_is_given(dataset: Dataset) -> None:
    profile, n_archetypes, trials = chosen(dataset, 4, None)
    assert n_archetypes == 4
    assert [trial.profile for trial in trials] == list(PROFILES)
    assert [trial.profile for trial in trials if trial.is_chosen] == [profile]


def test_progress_is_told_after_each_trial(dataset: Dataset) -> None:
    told: list[tuple[str, int, int]] = []
    choose(dataset, n_archetypes=4, profile="pace", scaler="standard", seed=0, n_jobs=1,
           progress=lambda *what: told.append(what))  # fmt: skip
    assert [entry[1:] for entry in told] == [(1, 1)]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ((None, None), (DEFAULT_PROFILE, DEFAULT_N_ARCHETYPES)),
        ((6, None), (DEFAULT_PROFILE, 6)),
        ((None, "all"), ("all", DEFAULT_N_ARCHETYPES)),
    ],
)
def test_too_little_history_gives_the_defaults_and_no_trials(
    dataset: Dataset, given: tuple[int | None, str | None], expected: tuple[str, int]
) -> None:
    assert chosen(dataset.select(np.arange(MIN_SESSIONS - 1)), *given) == (*expected, [])


def test_sessions_that_do_not_differ_give_the_defaults(dataset: Dataset) -> None:
    same = dataclasses.replace(dataset, full=np.repeat(dataset.full[:1], len(dataset), axis=0))
    assert chosen(same) == ("pace_range", DEFAULT_N_ARCHETYPES, [])


def test_judged_sessions_never_influence_what_is_learned(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Any] = []

    def keep(function: Callable[..., Any], of: Callable[[Any], object]) -> Callable[..., Any]:
        def wrapped(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - stands for any of them
            found = function(*args, **kwargs)
            made.append(of(found))
            return found

        return wrapped

    for name, of in (
        ("fit_clusters", lambda found: (found.kmeans.cluster_centers_.tobytes(), found.scaler.scale_.tobytes())),
        ("refit_centroids", lambda found: found.tobytes()),
        ("fit_inputs", msgspec.json.encode),
        ("fit_membership", lambda found: msgspec.json.encode(found.arrays)),
        ("fit_baselines", msgspec.json.encode),
    ):
        monkeypatch.setattr(selection, name, keep(getattr(selection, name), of))
    first = chosen(dataset, 5, "pace_range")
    as_it_was, made[:] = list(made), []
    learned, _ = split(dataset)
    others = np.setdiff1d(np.arange(len(dataset)), learned)
    rng = np.random.default_rng(1)
    full, cut = dataset.full.copy(), dataset.prefixes[30.0]
    full[others] = np.abs(rng.normal(full[others], 0.5 + np.abs(full[others])))
    late = np.isin(cut.rows, others)
    vectors, rests = cut.vectors.copy(), cut.rests.copy()
    vectors[late] = np.abs(rng.normal(vectors[late], 1.0))
    rests[late] = -rests[late]
    types = tuple("tokyo" if row in set(others.tolist()) else kind for row, kind in enumerate(dataset.session_types))
    changed = dataclasses.replace(
        dataset, full=full, session_types=types, prefixes={30.0: Prefixes(rows=cut.rows, vectors=vectors, rests=rests)}
    )
    second = chosen(changed, 5, "pace_range")
    assert len(as_it_was) == 5
    assert made == as_it_was
    assert second != first


def test_days_of_the_embargo_are_neither_learned_nor_judged(dataset: Dataset) -> None:
    learned, judged = split(dataset)
    between = np.setdiff1d(np.arange(len(dataset)), np.hstack((learned, judged)))
    assert len(between) >= 7  # a day of seven sessions
    full = dataset.full.copy()
    full[between] *= 2.0
    cut = dataset.prefixes[30.0]
    vectors, rests = cut.vectors.copy(), cut.rests.copy()
    vectors[np.isin(cut.rows, between)] *= 2.0
    rests[np.isin(cut.rows, between)] = 0.0
    changed = dataclasses.replace(
        dataset, full=full, prefixes={30.0: Prefixes(rows=cut.rows, vectors=vectors, rests=rests)}
    )
    assert chosen(changed, 4, "pace") == chosen(dataset, 4, "pace")


def trial(n_archetypes: int, *, tells: float, is_eligible: bool = True, **changes: float) -> SelectionTrial:
    figures: dict[str, Any] = {
        "stability_ari": 0.9, "silhouette": 0.2, "smallest": 0.1, "largest": 0.3, "range_r2": 0.5, "net_move_r2": 0.1,
        "phases_r2": 0.1, "log_loss_ratio": 0.6, **changes,
    }  # fmt: skip
    return SelectionTrial(
        profile="pace", n_archetypes=n_archetypes, rest_r2_true=tells, rest_r2_predicted=tells,
        is_eligible=is_eligible, is_chosen=False, **figures,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("trials", "place"),
    [
        # About as good with fewer archetypes.
        ([trial(4, tells=0.28), trial(6, tells=0.30), trial(8, tells=0.31)], 0),
        # Much better with more of them.
        ([trial(4, tells=0.20), trial(6, tells=0.30), trial(8, tells=0.31)], 1),
        # What is not eligible counts only where nothing is.
        ([trial(4, tells=0.40, is_eligible=False), trial(6, tells=0.10)], 1),
        ([trial(4, tells=0.20, is_eligible=False), trial(6, tells=0.30, is_eligible=False)], 1),
        # Of as many archetypes the better one.
        ([trial(4, tells=0.29), trial(4, tells=0.30)], 1),
        # Told earlier.
        ([trial(5, tells=0.3, log_loss_ratio=0.7), trial(5, tells=0.3, log_loss_ratio=0.5)], 1),
        # Unstable or lopsided ones lose what they tell.
        ([trial(5, tells=0.3, is_eligible=False, stability_ari=0.5), trial(6, tells=0.2, is_eligible=False)], 1),
        ([trial(5, tells=0.3, is_eligible=False, largest=0.8), trial(6, tells=0.2, is_eligible=False)], 1),
    ],
)
def test_fewest_archetypes_that_are_about_as_good_as_the_best_are_taken(
    trials: list[SelectionTrial], place: int
) -> None:
    assert selection._best(trials) is trials[place]


def test_refits_of_separate_groups_find_the_same_archetypes() -> None:
    vectors, _ = blobs(80, 4)
    clusters = fit_clusters(vectors, n_archetypes=4, weights=np.ones(N_FEATURES), scaler="standard", seed=0)
    refits = refit_centroids(clusters, vectors, seed=0)
    assert refits.shape == (N_REFITS, 4, N_FEATURES)
    assert stability_ari(clusters.labels(vectors), clusters.scaled(vectors), refits) == 1.0


def test_stability_is_the_mean_rand_index_of_the_nearest_centroids() -> None:
    rng = np.random.default_rng(4)
    scaled, centroids, labels = rng.normal(0, 1, (50, 3)), rng.normal(0, 1, (6, 4, 3)), rng.integers(0, 4, 50)
    expected = [
        adjusted_rand_score(labels, [min(range(4), key=lambda c: float(((x - refit[c]) ** 2).sum())) for x in scaled])
        for refit in centroids
    ]
    assert stability_ari(labels, scaled, centroids) == pytest.approx(np.mean(expected))


def test_stability_without_any_refit_is_zero() -> None:
    assert stability_ari(np.array([0, 1]), np.zeros((2, 3)), np.array([])) == 0.0


def test_refits_look_only_at_features_with_a_weight(dataset: Dataset) -> None:
    weights = profile_weights("pace")
    clusters = fit_clusters(dataset.full, n_archetypes=4, weights=weights, scaler="standard", seed=0)
    assert refit_centroids(clusters, dataset.full, seed=0).shape == (N_REFITS, 4, 2)
