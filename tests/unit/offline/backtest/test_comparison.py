"""Comparing sets of settings: on the same sessions, and nothing called different that may be chance."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pytest

from offline.artifacts import write_library
from offline.backtest.comparison import compare
from offline.backtest.comparison_results import Comparison, Difference, Measure, decode_comparison, encode_comparison
from offline.backtest.comparison_table import print_comparison
from offline.backtest.outcomes import read_outcomes
from offline.backtest.scoring import Replayed, load_replayed
from offline.console import result_console
from offline.train import train
from stream_fp.library import load_library
from stream_fp.replay.rows import BacktestRow
from tests.support.backtests import a_row, rows_of, write_result
from tests.support.datasets import FIXED

if TYPE_CHECKING:
    from tests.unit.offline.backtest.conftest import Run

replace = msgspec.structs.replace


def named(run: Run, folder: Path, name: str, rows: list[BacktestRow], path: Path | None = None) -> Replayed:
    result = write_result(folder, rows, path or run.library.path, name=name)
    assert result.rows_path is not None
    return load_replayed(result, read_outcomes(result.rows_path))


def measure(found: Comparison, name: str, rank: int = 1) -> Measure:
    return next(one for one in found.ranks[rank - 1].measures if one.name == name)


def differences(found: Comparison) -> list[Difference]:
    return [told for rank in found.ranks for one in rank.measures for told in one.differences.values()]


def shuffled(row: BacktestRow) -> BacktestRow:
    """Return a row that was sure of an archetype which has nothing to do with the session, and wide of the range."""
    shares = np.full(len(row.probabilities), 0.02)
    shares[row.offset % len(shares)] = 1.0 - 0.02 * (len(shares) - 1)
    return replace(
        row,
        archetype_id=int(shares.argmax()),
        confidence=float(shares.max()),
        probabilities=shares.tolist(),
        range_p10_pct=row.range_p90_pct * 3,
        range_p50_pct=row.range_p90_pct * 4,
        range_p90_pct=row.range_p90_pct * 5,
        pct_seen=row.pct_seen + 5.0,
    )


def test_sets_that_say_the_same_differ_nowhere(replay: Run, tmp_path: Path) -> None:
    found = compare([named(replay, tmp_path, name, replay.rows) for name in ("a", "b", "c")])
    told = differences(found)
    assert len(told) == found.n_differences == 2 * 2 * 8
    assert {one.verdict for one in told} == {"no difference"}
    assert {one.value for one in told} == {0.0}
    assert decode_comparison(encode_comparison(found)) == found


def test_set_that_is_clearly_worse_is_worse_by_every_measure(replay: Run, tmp_path: Path) -> None:
    rows = [shuffled(row) for row in replay.rows if row.first_offset % 3]
    found = compare([named(replay, tmp_path, "good", replay.rows), named(replay, tmp_path, "bad", rows)])
    for name in ("share_predicted", "pct_seen", "pinball", "coverage_80", "accuracy", "log_loss", "brier"):
        told = measure(found, name).differences["bad"]
        assert told.verdict == "worse", name
        assert not told.band.low <= 0 <= told.band.high
        assert told.band.high - told.band.low > told.interval.high - told.interval.low - 1e-9
    assert measure(found, "rest_r2").differences["bad"].verdict == "no difference"
    turned = compare([named(replay, tmp_path, "bad", rows), named(replay, tmp_path, "good", replay.rows)])
    assert measure(turned, "log_loss").differences["good"].verdict == "better"
    assert found.ranks[0].n_sessions == turned.ranks[0].n_sessions < sum(row.checkpoint_pct == 30.0 for row in rows)


def test_sessions_are_paired_whatever_the_checkpoint_is_called(replay: Run, tmp_path: Path) -> None:
    later = [replace(row, checkpoint_pct=row.checkpoint_pct + 5.0, pct_seen=row.pct_seen + 5.0) for row in replay.rows]
    found = compare([named(replay, tmp_path, "a", replay.rows), named(replay, tmp_path, "b", later)])
    assert [rank.checkpoints for rank in found.ranks] == [{"a": "30", "b": "35"}, {"a": "50", "b": "55"}]
    told = measure(found, "pct_seen").differences["b"]
    assert told.verdict == "worse"
    assert told.value == pytest.approx(5.0)
    assert any(note.startswith("Checkpoints differ") for note in found.notes)


def test_measures_of_other_archetypes_are_not_compared(replay: Run, tmp_path: Path) -> None:
    options = dataclasses.replace(FIXED, checkpoints_pct=(30.0, 50.0), n_archetypes=3)
    write_library(train(replay.dataset.select(np.arange(400)), options), tmp_path / "v2")
    other = load_library(tmp_path / "v2")
    rows, _ = rows_of(Path(replay.result.predictions_path).parent / "sessions.jsonl", other, replay.metadata)
    found = compare([replay.replayed, named(replay, tmp_path, "other", rows, other.path)])
    for name in ("accuracy", "log_loss", "brier"):
        one = measure(found, name)
        assert one.differences == {}
        assert one.not_comparable == {"other": "other archetypes"}
        assert one.values["other"] is not None
    assert measure(found, "pinball").differences["other"].verdict in {"no difference", "better", "worse"}
    assert any("other archetypes" in note for note in found.notes)


@pytest.mark.parametrize(
    ("both", "n_sessions"),
    [
        (([], []), 0),
        (([a_row(400)], []), 1),
        (([a_row(400, outcome="open")], [a_row(400, outcome="open")]), 0),
        (([a_row(400)], [a_row(400)]), 1),
        (([a_row(400)], [a_row(400, first_offset=7)]), 0),
        (([a_row(400, rest=[None] * 10, path_pct=None)], [a_row(400)]), 1),
        (([a_row(400), a_row(400, checkpoint_pct=50.0)], [a_row(400)]), 1),
    ],
    ids=["none", "one side", "open", "one", "sent again", "no rest", "fewer checkpoints"],
)
def test_few_or_no_sessions_in_common_are_compared_without_a_verdict(
    replay: Run,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    both: tuple[list[BacktestRow], list[BacktestRow]],
    n_sessions: int,
) -> None:
    mine, others = both
    found = compare([named(replay, tmp_path, "a", mine), named(replay, tmp_path, "b", others)])
    assert sum(rank.n_sessions for rank in found.ranks[:1]) == n_sessions
    assert {told.verdict for told in differences(found)} <= {"no difference", "too few weeks"}
    assert decode_comparison(encode_comparison(found)) == found
    print_comparison(result_console(), found)
    assert capsys.readouterr().out


def test_differences_within_a_week_or_two_are_no_verdict(replay: Run, tmp_path: Path) -> None:
    rows = [a_row(i) for i in range(400, 412)]
    worse: list[Any] = [shuffled(row) for row in rows]
    found = compare([named(replay, tmp_path, "a", rows), named(replay, tmp_path, "b", worse)])
    assert measure(found, "pct_seen").differences["b"].verdict == "too few weeks"
    assert any(note.startswith("Fewer than") for note in found.notes)


def test_sessions_that_every_library_knows_are_compared_but_called_in_sample(replay: Run, tmp_path: Path) -> None:
    rows = [row for row in replay.rows if row.date <= replay.metadata.training.last_date]
    found = compare([named(replay, tmp_path, name, rows) for name in ("a", "b")])
    assert found.is_in_sample
    assert found.notes[0].startswith("IN SAMPLE")
