"""A replay of the simulated sessions with the library that learned the first of them, made once."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import pytest

from offline.backtest.outcomes import read_outcomes
from offline.backtest.scoring import Replayed, load_replayed
from offline.dataset import Dataset, Tables, load_dataset
from stream_fp.artifacts import Metadata
from stream_fp.library import Library
from stream_fp.replay.results import ReplaySummary, VariantResult
from stream_fp.replay.rows import BacktestRow
from tests.support.backtests import rows_of, write_result
from tests.support.datasets import write_sessions

N_SESSIONS = 720


class Run(NamedTuple):
    """Recorded sessions, the library, its rows, and the same sessions as an evaluation reads them."""

    rows: list[BacktestRow]
    summary: ReplaySummary
    result: VariantResult
    replayed: Replayed
    dataset: Dataset
    library: Library
    metadata: Metadata


@pytest.fixture(scope="session")
def replay(learned: tuple[object, object, Metadata, Library], tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Rows of 720 sessions, of which the library learned the first 400."""
    _, _, metadata, library = learned
    folder: Path = tmp_path_factory.mktemp("replay")
    source = write_sessions(folder / "sessions.jsonl", N_SESSIONS, seed=5)
    rows, summary = rows_of(source, library, metadata)
    result = write_result(folder, rows, library.path, summary=summary)
    assert result.rows_path is not None
    dataset = load_dataset(
        source,
        checkpoints_pct=tuple(model.checkpoint_pct for model in metadata.prefix_models),
        completion=metadata.completion,
        min_events=metadata.min_events,
        tables=Tables(schedules=library.schedules, typical_events=library.typical_events),
    )
    replayed = load_replayed(result, read_outcomes(result.rows_path))
    return Run(rows, summary, result, replayed, dataset, library, metadata)
