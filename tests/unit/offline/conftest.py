"""A trained library and what it is judged on, made once: 600 simulated sessions, of which the first 400 are learned."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from offline.artifacts import write_library
from offline.dataset import Dataset, load_dataset
from offline.train import TrainedLibrary, train
from stream_fp.artifacts import Metadata
from stream_fp.library import Library, load_library
from tests.support.datasets import FIXED, write_sessions

N_LEARNED = 400


class Learned(NamedTuple):
    """A library that learned the first part of `simulated`, in memory, as written, and as the service has it."""

    dataset: Dataset
    trained: TrainedLibrary
    metadata: Metadata
    library: Library


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """As training has it. Threads that wait for each other take most of the time where matrices are this small."""
    with threadpool_limits(limits=1):
        yield


@pytest.fixture(scope="session")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """600 sessions, seven a day."""
    return load_dataset(write_sessions(tmp_path_factory.mktemp("simulated") / "sessions.jsonl", 600, seed=5))


@pytest.fixture(scope="session")
def learned(simulated: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Learned:
    """Archetypes and checkpoints at 30 and 50 % of the first 400 sessions."""
    dataset = simulated.select(np.arange(N_LEARNED))
    trained = train(dataset, dataclasses.replace(FIXED, checkpoints_pct=(30.0, 50.0)))
    path: Path = tmp_path_factory.mktemp("models") / "v1"
    metadata = write_library(trained, path)
    return Learned(dataset, trained, metadata, load_library(path))
