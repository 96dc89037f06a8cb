"""Scores and verdicts of the A/B grid, against plain computation."""

from __future__ import annotations

import csv
import io
import itertools
import json
import math
from datetime import date, timedelta
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt
import pytest
from sklearn.metrics import accuracy_score, log_loss

from offline.ab_compare import make_result
from offline.ab_parts import Cell, CheckpointPart, Part, Scores
from offline.ab_results import AbResult, encode_result, encode_table
from offline.ab_statistics import holm, mcnemar, simultaneous_bands, verdict_of
from offline.ab_table import print_ab
from offline.dataset import Dataset, Prefixes
from offline.report import Interval
from offline.resampling import WeekBootstrap
from offline.scalers import ScalerKind
from offline.scores import brier_scores, log_losses
from stream_fp.completion import DEFAULT_SCHEDULES

Array = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
N = 400
FILES = (Path("ab.json"), Path("ab.csv"))
SIDES = [(np.arange(100), np.arange(100, 250)), (np.arange(240), np.arange(250, N))]


@pytest.mark.parametrize(("n_first", "n_second"), list(itertools.product((0, 1, 3, 8, 20), repeat=2)))
def test_mcnemar_is_the_sum_of_binomial_probabilities(n_first: int, n_second: int) -> None:
    n = n_first + n_second
    tail = sum(math.comb(n, k) for k in range(min(n_first, n_second) + 1)) / 2**n
    assert mcnemar(n_first, n_second) == pytest.approx(min(1.0, 2 * tail))


def test_holm_is_the_step_down_procedure() -> None:
    rng = np.random.default_rng(8)
    for _ in range(50):
        p_values = np.round(rng.uniform(0, 0.2, rng.integers(1, 12)), 2).tolist()
        corrected = holm(p_values)
        for level in (0.01, 0.05, 0.1, 0.3):
            # As Holm has it: reject from the smallest on, until one is above level / (number left).
            rejected = set()
            for rank, place in enumerate(np.argsort(p_values, kind="stable").tolist()):
                if p_values[place] * (len(p_values) - rank) > level:
                    break
                rejected.add(place)
            assert {place for place, p in enumerate(corrected) if p <= level} == rejected


def test_band_of_two_cells_is_the_symmetric_interval_of_their_difference() -> None:
    rng = np.random.default_rng(1)
    means = np.array([0.5, 0.7])
    samples = means + rng.normal(0.0, 0.1, (1000, 2))
    low, high = simultaneous_bands(samples, means, 0)
    reach = np.quantile(np.abs(samples[:, 1] - samples[:, 0] - 0.2), 0.95)
    assert (low[1], high[1]) == pytest.approx((0.2 - reach, 0.2 + reach))
    assert (low[0], high[0]) == (0.0, 0.0)


def test_more_cells_widen_the_bands_but_copies_of_a_cell_do_not() -> None:
    rng = np.random.default_rng(2)
    samples = rng.normal(0.0, 0.1, (1000, 12))
    means = np.zeros(12)
    few, many = (simultaneous_bands(samples[:, :n], means[:n], 0)[1] for n in (3, 12))
    assert many[1] > 1.1 * few[1]
    copied = simultaneous_bands(samples[:, [0, 1, 2, 2, 2, 1]], means[:6], 0)[1]
    assert copied[:3] == pytest.approx(few)


def test_cells_that_differ_by_chance_are_seldom_called_different_although_the_best_is_picked() -> None:
    rng = np.random.default_rng(3)
    n_days, n_cells, n_runs = 80, 8, 120
    n_wrong = n_naive = 0
    for _ in range(n_runs):
        losses = rng.gamma(2.0, 0.3, (n_days, 1)) + rng.normal(0.0, 0.2, (n_days, n_cells))
        bootstrap = WeekBootstrap(7 * np.arange(n_days), seed=int(rng.integers(1000)))
        means = losses.mean(axis=0)
        best = int(means.argmin())
        low, _ = simultaneous_bands(bootstrap.sums(losses) / n_days, means, best)
        n_wrong += bool((low > 0).any())
        n_naive += any(bootstrap.mean(losses[:, i] - losses[:, best])[0] > 0 for i in range(n_cells) if i != best)
    assert n_wrong / n_runs < 0.1
    assert n_naive / n_runs > 0.3


@pytest.mark.parametrize(
    ("band", "accuracy_difference", "p_holm", "verdict"),
    [
        ((0.1, 0.2), 0.0, 1.0, ("worse", "log loss")),
        ((0.1, 0.2), 0.5, 0.001, ("worse", "log loss")),
        ((-0.2, -0.1), 0.0, 1.0, ("better", "log loss")),
        ((-0.1, 0.1), 0.1, 0.049, ("better", "accuracy")),
        ((-0.1, 0.1), -0.1, 0.049, ("worse", "accuracy")),
        ((-0.1, 0.1), -0.1, 0.05, ("no difference", None)),
        ((0.0, 0.0), 0.0, 1.0, ("no difference", None)),
    ],
)
def test_verdict_goes_by_log_loss_first_and_then_by_accuracy(
    band: tuple[float, float], accuracy_difference: float, p_holm: float, verdict: tuple[str, str | None]
) -> None:
    assert verdict_of(Interval(low=band[0], high=band[1]), accuracy_difference, p_holm) == verdict


def sessions() -> Dataset:
    """Sessions without content, two a day: nothing but their days matters here."""
    days = [(date(2025, 1, 1) + timedelta(days=i // 2)).isoformat() for i in range(N)]
    nothing = Prefixes(rows=np.arange(0), vectors=np.empty((0, 30)), rests=np.empty((0, 10)))
    return Dataset(
        session_ids=tuple(f"S{i}" for i in range(N)), session_types=("ny_am",) * N, dates=tuple(days),
        starts_us=np.arange(N), n_events=np.full(N, 40), full=np.zeros((N, 30)), paths=np.zeros((N, 41)),
        prefixes={30.0: nothing}, completion="auto", min_events=5, schedules=DEFAULT_SCHEDULES, typical_events={},
        n_unfinished=0, skipped={}, remarks=(),
    )  # fmt: skip


LABELS: Ints = np.arange(N) % 3


def predicted(skill: float, seed: int) -> Array:
    """Probabilities of three archetypes; the more skill, the more that of the true one."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0.0, 1.0, (N, 3))
    logits[np.arange(N), LABELS] += skill
    weights = np.exp(logits)
    return np.asarray(weights / weights.sum(axis=1, keepdims=True))


def scores_of(probabilities: Array, rows: Ints) -> Scores:
    found, labels = probabilities[rows], LABELS[rows]
    return Scores(
        is_right=(found.argmax(axis=1) == labels).tolist(),
        log_loss=log_losses(found, labels).tolist(),
        brier=brier_scores(found, labels).tolist(),
        confidence=found.max(axis=1).tolist(),
    )


def cells_of(scaler: ScalerKind) -> list[Cell]:
    return [
        Cell(scaler=scaler, assignment="prefix_model", metric=None, confidence=None),
        Cell(scaler=scaler, assignment="prefix_centroid", metric="euclidean", confidence="softmax"),
        Cell(scaler=scaler, assignment="full_centroid", metric="cosine", confidence="calibrated"),
    ]


PREDICTED: dict[ScalerKind, list[Array]] = {
    "standard": [predicted(2.0, 1), predicted(2.0, 2), predicted(0.0, 3)],
    "robust": [predicted(2.0, 4), predicted(1.0, 5), predicted(2.0, 1)],
}


def parts_of(rows: dict[tuple[int, ScalerKind], Ints]) -> list[Part]:
    return [
        Part(
            fingerprint="f", split=split, scaler=scaler, profile="pace", n_archetypes=3, cells=cells_of(scaler),
            checkpoints=[
                CheckpointPart(
                    checkpoint_pct=30.0, rows=judged.tolist(), labels=LABELS[judged].tolist(),
                    scores=[scores_of(found, judged) for found in PREDICTED[scaler]],
                    guess=scores_of(predicted(0.3, 9), judged), without_covariance=split == 2 and scaler == "robust",
                )
            ],
        )
        for (split, scaler), judged in rows.items()
    ]  # fmt: skip


ROWS: dict[tuple[int, ScalerKind], Ints] = {
    (1, "standard"): np.arange(100, 250),
    (1, "robust"): np.arange(110, 250, 2),
    (2, "standard"): np.arange(250, 380),
    (2, "robust"): np.arange(250, N),
}
COMMON = np.concatenate([np.arange(110, 250, 2), np.arange(250, 380)])


@pytest.fixture(scope="module")
def result() -> AbResult:
    return make_result(sessions(), parts_of(ROWS), SIDES, seed=0)


def test_cells_are_compared_on_the_sessions_that_all_could_judge(result: AbResult) -> None:
    (found,) = result.checkpoints
    assert found.n == len(COMMON)
    assert {cell.n for cell in found.cells} == {len(COMMON)}
    assert {tuple(score.n for score in cell.by_split) for cell in found.cells} == {(70, 130)}
    by_name = {cell.name: cell for cell in found.cells}
    for scaler, all_predicted in PREDICTED.items():
        for cell, probabilities in zip(cells_of(scaler), all_predicted, strict=True):
            scored = by_name[cell.name]
            assert scored.log_loss == pytest.approx(log_loss(LABELS[COMMON], probabilities[COMMON]))
            assert scored.accuracy == accuracy_score(LABELS[COMMON], probabilities[COMMON].argmax(axis=1))
            second = COMMON[70:]
            assert scored.by_split[1].log_loss == pytest.approx(log_loss(LABELS[second], probabilities[second]))
            for mean, bounds in (
                (scored.accuracy, scored.accuracy_interval),
                (scored.log_loss, scored.log_loss_interval),
                (scored.brier, scored.brier_interval),
            ):
                assert bounds.low < mean < bounds.high
            assert 0 <= scored.ece_interval.low < scored.ece_interval.high


def test_reference_has_the_lowest_log_loss_and_of_equals_the_first(result: AbResult) -> None:
    (found,) = result.checkpoints
    losses = [cell.log_loss for cell in found.cells]
    assert losses == sorted(losses)
    assert found.reference == found.cells[0].name == "prefix_model standard"
    assert [cell.comparison is None for cell in found.cells] == [True] + [False] * 5


def test_copy_of_the_reference_does_not_differ_and_a_blind_cell_does(result: AbResult) -> None:
    by_name = {cell.name: cell.comparison for cell in result.checkpoints[0].cells}
    copy, blind = by_name["full_centroid cosine calibrated robust"], by_name["full_centroid cosine calibrated standard"]
    assert copy is not None
    assert blind is not None
    assert (copy.log_loss_difference, copy.log_loss_band, copy.mcnemar_p) == (0.0, Interval(low=0.0, high=0.0), 1.0)
    assert (copy.verdict, copy.decided_by, copy.same_archetypes) == ("no difference", None, False)
    assert (blind.verdict, blind.decided_by, blind.same_archetypes) == ("worse", "log loss", True)
    assert blind.log_loss_band.low < blind.log_loss_interval.low
    assert blind.mcnemar_p_holm < 1e-6


def test_pairs_are_counted_session_by_session(result: AbResult) -> None:
    right = {
        cell.name: (found.argmax(axis=1) == LABELS)[COMMON]
        for scaler, all_predicted in PREDICTED.items()
        for cell, found in zip(cells_of(scaler), all_predicted, strict=True)
    }
    best = right["prefix_model standard"]
    told = {cell.name: cell.comparison for cell in result.checkpoints[0].cells if cell.comparison}
    for name, comparison in told.items():
        only_cell, only_best = int((right[name] & ~best).sum()), int((~right[name] & best).sum())
        assert (comparison.n_only_cell_right, comparison.n_only_reference_right) == (only_cell, only_best)
        assert comparison.accuracy_difference == pytest.approx((only_cell - only_best) / len(COMMON))
        assert comparison.mcnemar_p == mcnemar(only_cell, only_best)
    assert [c.mcnemar_p_holm for c in told.values()] == pytest.approx(holm([c.mcnemar_p for c in told.values()]))


def test_order_of_parts_does_not_matter_and_the_file_reads_back(result: AbResult) -> None:
    again = make_result(sessions(), parts_of(ROWS)[::-1], SIDES, seed=0)
    assert encode_result(again) == encode_result(result)
    assert msgspec.json.decode(encode_result(result), type=AbResult) == result
    assert json.loads(encode_result(result))["splits"][1]["learned_until"] == sessions().dates[239]


def test_other_seed_of_the_bootstrap_moves_intervals_only(result: AbResult) -> None:
    other = make_result(sessions(), parts_of(ROWS), SIDES, seed=1).checkpoints[0].cells[1]
    mine = result.checkpoints[0].cells[1]
    assert (other.name, other.log_loss) == (mine.name, mine.log_loss)
    assert other.log_loss_interval != mine.log_loss_interval


def test_checkpoint_without_common_sessions_says_so(capsys: pytest.CaptureFixture[str], result: AbResult) -> None:
    rows = ROWS | {(1, "robust"): np.arange(0), (2, "robust"): np.arange(380, N)}
    found = make_result(sessions(), parts_of(rows), SIDES, seed=0)
    assert (found.checkpoints[0].n, found.checkpoints[0].cells) == (0, [])
    print_ab(found, FILES)
    assert "30 %: no session that every cell could judge" in capsys.readouterr().out
    assert encode_table(found).count(b"\n") == 1
    assert result.checkpoints[0].notes == ["split 2, robust: no covariance, so mahalanobis is euclidean"]


def test_table_has_the_figures_of_the_result(result: AbResult) -> None:
    rows = list(csv.DictReader(io.StringIO(encode_table(result).decode())))
    assert len(rows) == 6
    for row, cell in zip(rows, result.checkpoints[0].cells, strict=True):
        told = cell.comparison
        assert (row["scaler"], row["assignment"]) == (cell.cell.scaler, cell.cell.assignment)
        assert (row["metric"], row["confidence"]) == (cell.cell.metric or "", cell.cell.confidence or "")
        assert float(row["log_loss"]) == cell.log_loss
        assert float(row["ece_high"]) == cell.ece_interval.high
        assert row["verdict"] == ("reference" if told is None else told.verdict)
        assert row["mcnemar_p_holm"] == ("" if told is None else str(told.mcnemar_p_holm))
        assert row["decided_by"] == ("" if told is None else told.decided_by or "")


def test_printed_tables_fit_120_columns(result: AbResult, capsys: pytest.CaptureFixture[str]) -> None:
    print_ab(result, FILES)
    said = capsys.readouterr().out.splitlines()
    assert max(len(line.rstrip()) for line in said) <= 120
    assert any(line.startswith("Best: prefix_model standard. Really worse: ") for line in said)
    assert any(line.rstrip().endswith("reference") for line in said)
