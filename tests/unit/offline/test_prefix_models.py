"""One checkpoint of a library: the parts fit together, and ways to assign are compared on sessions held out."""

from __future__ import annotations

import msgspec
import numpy as np
import numpy.typing as npt
import pytest

from offline.clusters import Clusters, fit_clusters
from offline.dataset import Dataset
from offline.prefix_models import PREFIX_MODEL, fit_prefix_model, guess_agreement
from offline.profiles import profile_weights
from offline.splits import blocks
from stream_fp.classifier import DISTANCE_METRICS
from stream_fp.prefix_model import OUTCOMES
from tests.support.datasets import blobs, dataset_of, prefixes_of
from tests.unit.offline.conftest import Learned

Array = npt.NDArray[np.float64]


def clustered(full: Array, n_archetypes: int) -> Clusters:
    return fit_clusters(full, n_archetypes=n_archetypes, weights=profile_weights("pace"), scaler="standard", seed=0)


def test_every_way_is_judged_on_every_session(learned: Learned) -> None:
    for model in learned.metadata.prefix_models:
        ways = learned.trained.calibration[model.checkpoint_pct]
        assert set(ways) == {PREFIX_MODEL, *DISTANCE_METRICS}
        n = len(learned.dataset.prefixes[model.checkpoint_pct].rows)
        assert {way.n_sessions for way in ways.values()} == {n} == {model.n_sessions}
        best = ways[PREFIX_MODEL]
        assert all(best.log_loss < way.log_loss for name, way in ways.items() if name != PREFIX_MODEL)
        assert best.agreement > learned.trained.type_agreement[model.checkpoint_pct] + 0.1


def test_later_checkpoint_tells_more(learned: Learned) -> None:
    early, late = (learned.trained.calibration[pct][PREFIX_MODEL] for pct in (30.0, 50.0))
    assert late.log_loss < early.log_loss
    assert late.agreement > early.agreement


def test_baselines_count_the_sessions_of_the_checkpoint(learned: Learned) -> None:
    for model in learned.metadata.prefix_models:
        counts = np.array(model.baselines.archetype_counts)
        rows = learned.dataset.prefixes[model.checkpoint_pct].rows
        expected = np.bincount(learned.trained.labels[rows], minlength=4)[model.archetype_ids]
        assert counts.sum(axis=(0, 1)).tolist() == expected.tolist()


def test_session_that_did_not_reach_the_checkpoint_teaches_nothing(simulated: Dataset) -> None:
    part = simulated.select(np.arange(80))
    rows = np.delete(np.arange(80), [3, 40])
    reached = {30.0: prefixes_of(part.full[rows] * 0.5, rows=rows)}
    whole = dataset_of(part.full, reached, session_types=part.session_types)
    clusters = clustered(part.full, 3)
    labels = clusters.labels(part.full)
    changed = part.full.copy()
    changed[[3, 40]] = 1.0
    other_labels = labels.copy()
    other_labels[[3, 40]] = 2 - other_labels[[3, 40]]
    other = dataset_of(changed, reached, session_types=part.session_types)
    first = fit_prefix_model(30.0, whole, labels, clusters, scaler="standard")
    second = fit_prefix_model(30.0, other, other_labels, clusters, scaler="standard")
    assert msgspec.json.encode(first.arrays) == msgspec.json.encode(second.arrays)


@pytest.mark.parametrize("n", [1, 2, 5, 12])
def test_checkpoint_that_few_sessions_reached_is_learned(n: int) -> None:
    full, _ = blobs(30, 3)
    rows = np.arange(n)
    clusters = clustered(full, 3)
    fit = fit_prefix_model(
        30.0, dataset_of(full, {30.0: prefixes_of(full[rows], rows=rows)}), clusters.labels(full), clusters,
        scaler="standard",
    )  # fmt: skip
    assert fit.arrays.n_sessions == n
    assert fit.arrays.archetype_ids == sorted(set(clusters.labels(full)[rows].tolist()))
    assert fit.arrays.rest.outcomes == ([] if n < 10 else list(OUTCOMES))
    assert b"null" not in msgspec.json.encode((fit.arrays.membership, fit.arrays.rest, fit.arrays.inputs))


def test_guess_from_an_unseen_type_is_the_most_frequent_archetype() -> None:
    types, days = ["asia"] * 8 + ["lunch"] * 2, np.arange(10)
    assert guess_agreement(types, np.array([1] * 10), days) == 1.0
    assert guess_agreement(types, np.array([1] * 8 + [0] * 2), days) == 0.8


def test_guess_equals_a_plain_loop() -> None:
    rng = np.random.default_rng(3)
    types = [("asia", "lunch", "ny_am")[i] for i in rng.integers(0, 3, 100)]
    labels, days = rng.integers(0, 3, 100), np.arange(100) // 2
    n_right = 0
    for block, others in blocks(days):
        for row in block:
            known = [int(labels[other]) for other in others if types[other] == types[row]]
            n_right += max(range(3), key=known.count) == labels[row]
    assert guess_agreement(types, labels, days) == n_right / 100
