"""Judging a replay: the figures are those of an evaluation, of the sessions that the library has not seen."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest

from offline.backtest.outcomes import read_outcomes
from offline.backtest.results import decode_backtest, encode_backtest
from offline.backtest.scoring import Replayed, load_replayed, score
from offline.evaluate import EvaluationOptions, evaluate, unseen_rows
from stream_fp.errors import DocumentError
from tests.support.backtests import a_row, write_result

if TYPE_CHECKING:
    from stream_fp.replay.rows import BacktestRow
    from tests.unit.offline.backtest.conftest import Run

#: Of a range that is published with four digits, in per cent, and what that can come to in a ratio of small losses.
PUBLISHED_RANGE = 1e-4
PUBLISHED_RATIO = 1e-3
#: Of a probability that is published with six digits, in its logarithm.
PUBLISHED_PROBABILITY = 1e-4


def replayed_of(run: Run, folder: Path, rows: list[BacktestRow]) -> Replayed:
    result = write_result(folder, rows, run.library.path)
    assert result.rows_path is not None
    return load_replayed(result, read_outcomes(result.rows_path))


def numbers(value: object, place: str = "") -> dict[str, float]:
    """Return all numbers of a tree of builtins, by their place."""
    if isinstance(value, bool | str) or value is None:
        return {}
    if isinstance(value, int | float):
        return {place: float(value)}
    parts = value.items() if isinstance(value, dict) else enumerate(value)  # type: ignore[arg-type]
    return {name: number for key, part in parts for name, number in numbers(part, f"{place}.{key}").items()}


def test_figures_are_those_of_an_evaluation_of_the_same_sessions(replay: Run) -> None:
    unseen = replay.dataset.select(unseen_rows(replay.dataset, replay.metadata))
    options = EvaluationOptions(created_at="2025-01-01T00:00:00Z", n_left_out={})
    report = evaluate(unseen, replay.library, replay.metadata, options)

    found = score(replay.replayed)

    assert not found.is_in_sample
    assert found.checkpoints.keys() == report.checkpoints.keys() == {"30", "50"}
    assert (found.first_date, found.last_date) == (report.first_date, report.last_date)
    for key, expected in report.checkpoints.items():
        got = found.checkpoints[key]
        assert got.n == expected.n > 100
        ours, theirs = (numbers(msgspec.to_builtins(one)) for one in (got, expected))
        assert ours.keys() == theirs.keys()
        # A range that ends within half a digit of a bound may be called either way.
        assert abs(got.coverage_80 - expected.coverage_80) * got.n < 1.5
        for name, number in ours.items():
            if ".coverage_80" in name:
                continue
            if "pinball_ratio" in name:
                assert number == pytest.approx(theirs[name], abs=PUBLISHED_RATIO), (key, name)
                continue
            is_range = any(word in name for word in ("pinball", "width"))
            is_probability = any(word in name for word in ("log_loss", "brier", "ece", "confidence"))
            is_baseline = "baseline" in name and "ratio_interval" not in name
            loose = PUBLISHED_RANGE if is_range else PUBLISHED_PROBABILITY if is_probability else 1e-6
            assert number == pytest.approx(theirs[name], abs=1e-6 if is_baseline else loose), (key, name)


def test_every_prediction_is_in_the_books(replay: Run) -> None:
    found = score(replay.replayed)
    assert found.n_predictions == len(replay.rows) == replay.summary.counts.predictions
    assert sum(found.n_by_outcome.values()) == found.n_predictions
    n_judged = sum(checkpoint.n for checkpoint in found.checkpoints.values())
    assert n_judged + sum(found.n_left_out.values()) == found.n_predictions
    assert found.books.n_sessions == replay.summary.counts.sessions_opened == 720
    for key, groups in found.groups.items():
        for group in (groups.by_month, groups.by_week, groups.by_session_type, groups.by_hour):
            assert sum(one.scores.n for one in group.values()) == found.checkpoints[key].n


def test_written_and_read_is_the_same(replay: Run) -> None:
    found = score(replay.replayed)
    content = encode_backtest(found)
    assert decode_backtest(content) == found
    assert encode_backtest(score(replay.replayed)) == content
    with pytest.raises(DocumentError, match=r"run/backtest\.json"):
        decode_backtest(b"{}", where="run/backtest.json")


def test_sessions_of_the_training_period_alone_are_judged_but_called_in_sample(replay: Run, tmp_path: Path) -> None:
    last = replay.metadata.training.last_date
    found = score(replayed_of(replay, tmp_path, [row for row in replay.rows if row.date <= last]))
    assert found.is_in_sample
    assert found.notes[0].startswith("IN SAMPLE")
    assert found.checkpoints["30"].n > 200


@pytest.mark.parametrize(
    "rows",
    [
        [],
        [a_row(0, outcome="open")],
        [a_row(0, outcome="unheld"), a_row(1, outcome="open")],
    ],
    ids=["none", "open", "unheld and open"],
)
def test_rows_of_which_nothing_is_known_are_counted_and_not_judged(
    replay: Run, tmp_path: Path, rows: list[BacktestRow]
) -> None:
    found = score(replayed_of(replay, tmp_path, rows))
    assert found.checkpoints == {}
    assert not found.is_in_sample
    assert found.n_predictions == len(rows) == sum(found.n_left_out.values())
    assert decode_backtest(encode_backtest(found)) == found


@pytest.mark.parametrize(
    "rows",
    [
        [a_row(400)],
        [a_row(400, session_type="")],
        [a_row(400, path_pct=[None] * 41, rest=[None] * 10, features=[None] * 30)],
        [a_row(400, path_pct=None, final_range_pct=0.0, range_so_far_pct=0.0)],
        [a_row(i, true_archetype_id=1, archetype_id=0) for i in range(400, 410)],
        [a_row(i, checkpoint_pct=33.3, session_type=f"type {i}") for i in range(400, 403)],
        [a_row(400, is_cut_at_start=True), a_row(400, checkpoint_pct=50.0, is_cut_at_start=True)],
    ],
    ids=["one", "no type", "no number", "no price", "one archetype", "other checkpoint", "cut"],
)
def test_rows_that_lack_something_are_judged_with_finite_figures(
    replay: Run, tmp_path: Path, rows: list[BacktestRow]
) -> None:
    found = score(replayed_of(replay, tmp_path, rows))
    assert sum(checkpoint.n for checkpoint in found.checkpoints.values()) == len(rows)
    assert decode_backtest(encode_backtest(found)) == found
    assert found.n_judged_cut_at_start == sum(row.is_cut_at_start for row in rows)


def test_session_sent_again_from_its_start_is_another_session(replay: Run, tmp_path: Path) -> None:
    rows = [a_row(400), a_row(400, first_offset=7, offset=8)]
    assert score(replayed_of(replay, tmp_path, rows)).n_sessions == 2
