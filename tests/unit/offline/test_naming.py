"""Names of archetypes: different from each other, never empty, and true."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from hypothesis import given, settings
from hypothesis import strategies as st

from offline.naming import archetype_names
from stream_fp.features import FEATURE_NAMES, N_FEATURES, RANGE
from tests.support.datasets import dataset_of
from tests.unit.offline.conftest import Learned

Array = npt.NDArray[np.float64]


def place(name: str) -> int:
    return FEATURE_NAMES.index(name)


def usual(n: int, seed: int = 0) -> Array:
    """Sessions that hardly differ."""
    vectors = np.tile(np.linspace(0.2, 0.8, N_FEATURES), (n, 1))
    vectors[:, RANGE], vectors[:, place("log_path_per_hour")] = 4.0, 5.0
    return vectors + np.random.default_rng(seed).normal(0.0, 0.01, vectors.shape)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    n_archetypes=st.integers(1, 12),
    spread=st.sampled_from([0.0, 0.01, 1.0]),
    n=st.integers(1, 40),
)
def test_names_are_distinct_and_never_empty(seed: int, n_archetypes: int, spread: float, n: int) -> None:
    rng = np.random.default_rng(seed)
    full = np.abs(rng.normal(1.0, spread, (n, N_FEATURES)))
    names = archetype_names(dataset_of(full), rng.integers(0, n_archetypes, n), n_archetypes)
    assert len(names) == len(set(names)) == n_archetypes
    assert all(name.strip() for name in names)


def test_names_of_a_library_are_those_of_its_archetypes(learned: Learned) -> None:
    names = [stats.name for stats in learned.trained.stats.archetypes]
    assert names == archetype_names(learned.dataset, learned.trained.labels, len(names))
    assert len(set(names)) == len(names)


def test_width_and_pace_are_judged_against_the_same_session_type() -> None:
    full = usual(60)
    labels = np.arange(60) % 3
    types = ["asia" if i < 30 else "ny_am" for i in range(60)]
    # A wide Asian session is narrower than a narrow one of New York.
    full[30:, RANGE] += 2.0
    full[labels == 1, RANGE] -= 0.5
    full[labels == 2, RANGE] += 0.9
    full[labels == 2, place("log_path_per_hour")] += 0.8
    names = archetype_names(dataset_of(full, session_types=types), labels, 3)
    assert names[0].startswith("steady and of usual width")
    assert names[1].startswith("steady and narrow")
    assert names[2].startswith("wild and very wide")


def test_only_what_stands_out_is_said() -> None:
    full = usual(60)
    labels = np.arange(60) % 2
    full[labels == 1, place("liquidity_sweep_rate")] += 3.0
    full[labels == 0, place("path_efficiency")] += 3.0
    straight, sweeping = archetype_names(dataset_of(full), labels, 2)
    assert straight == "steady and of usual width, straight, few sweeps"
    assert sweeping == "steady and of usual width, many sweeps, back and forth"


def test_archetypes_that_nothing_tells_apart_are_numbered() -> None:
    full = np.tile(usual(1), (30, 1))
    names = archetype_names(dataset_of(full), np.arange(30) % 3, 3)
    assert names == ["steady and of usual width" + suffix for suffix in ("", " (2)", " (3)")]


def test_archetypes_without_sessions_are_called_so() -> None:
    names = archetype_names(dataset_of(usual(10)), np.full(10, 1), 3)
    assert names[0] == "without sessions"
    assert names[2] == "without sessions (2)"


def test_single_session_can_be_named() -> None:
    assert archetype_names(dataset_of(usual(1)), np.array([0]), 1) == ["steady and of usual width"]
