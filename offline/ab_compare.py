"""Score the cells of the A/B grid, and tell which differences are more than chance.

Pure: sessions, splits and parts in, `AbResult` out. At each checkpoint all cells are compared on the same sessions,
those that every cell could judge, with the reference: the cell with the lowest mean log loss. Sessions of one day are
not independent, so whole days are resampled, the same ones for every cell.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, get_args

import numpy as np
import numpy.typing as npt

from offline.ab_parts import Cell, Part, Scores
from offline.ab_results import (
    AbResult,
    CellResult,
    CheckpointResult,
    Comparison,
    Guess,
    SplitFacts,
    SplitScore,
)
from offline.ab_statistics import holm, mcnemar, simultaneous_bands, verdict_of
from offline.dataset import Dataset
from offline.report import Interval
from offline.resampling import WeekBootstrap
from offline.scalers import ScalerKind
from offline.scores import expected_calibration_error
from offline.splits import EMBARGO_DAYS

__all__ = ["make_result"]

Array = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

_N_BINS: Final = 10


def make_result(dataset: Dataset, parts: Sequence[Part], sides: Sequence[tuple[Ints, Ints]], seed: int) -> AbResult:
    """Score and compare the cells.

    Parameters
    ----------
    dataset : Dataset
    parts : sequence of Part
        One for each split and scaler, in any order.
    sides : sequence of (past, future)
        Rows of each split.
    seed : int
        Of the bootstrap.
    """
    ordered = sorted(parts, key=lambda part: (part.split, get_args(ScalerKind).index(part.scaler)))
    by_split = {part.split: part for part in ordered}
    return AbResult(
        fingerprint=ordered[0].fingerprint,
        n_sessions=len(dataset),
        first_date=dataset.dates[0],
        last_date=dataset.dates[-1],
        completion=dataset.completion,
        seed=seed,
        embargo_days=EMBARGO_DAYS,
        splits=[
            SplitFacts(
                split=number,
                n_learned=len(past),
                learned_until=dataset.dates[past[-1]],
                n_judged=len(future),
                judged_from=dataset.dates[future[0]],
                judged_until=dataset.dates[future[-1]],
                profile=by_split[number].profile,
                n_archetypes=by_split[number].n_archetypes,
            )
            for number, (past, future) in enumerate(sides, 1)
        ],
        checkpoints=[_checkpoint(place, dataset.days(), ordered, seed) for place in range(len(dataset.prefixes))],
    )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Scored:
    """Scores of m cells on the same n sessions: arrays of shape (n, m)."""

    is_right: Array
    log_loss: Array
    brier: Array
    confidence: Array


def _scored(scores: Sequence[Scores], kept: Ints) -> _Scored:
    return _Scored(
        is_right=_stacked([cell.is_right for cell in scores], kept),
        log_loss=_stacked([cell.log_loss for cell in scores], kept),
        brier=_stacked([cell.brier for cell in scores], kept),
        confidence=_stacked([cell.confidence for cell in scores], kept),
    )


def _stacked(values: Sequence[Sequence[float]], kept: Ints) -> Array:
    return np.array(values, dtype=np.float64)[:, kept].T


def _joined(found: Sequence[_Scored], axis: int) -> _Scored:
    return _Scored(
        is_right=np.concatenate([one.is_right for one in found], axis=axis),
        log_loss=np.concatenate([one.log_loss for one in found], axis=axis),
        brier=np.concatenate([one.brier for one in found], axis=axis),
        confidence=np.concatenate([one.confidence for one in found], axis=axis),
    )


def _checkpoint(place: int, days: Ints, parts: Sequence[Part], seed: int) -> CheckpointResult:
    """Compare the cells at one checkpoint, the one at `place` in every part; parts are ordered by split and scaler."""
    by_split: dict[int, list[Part]] = {}
    for part in parts:
        by_split.setdefault(part.split, []).append(part)
    cells_of = {part.scaler: part.cells for part in parts}
    rows_of, scored, guessed = {}, [], []
    for number, same in by_split.items():
        judged = [part.checkpoints[place] for part in same]
        rows = sorted(set.intersection(*(set(one.rows) for one in judged)))
        kept = [np.searchsorted(one.rows, rows) for one in judged]
        rows_of[number] = rows
        scored.append(_joined([_scored(one.scores, k) for one, k in zip(judged, kept, strict=True)], axis=1))
        guessed.append(_joined([_scored([one.guess], k) for one, k in zip(judged, kept, strict=True)], axis=1))
    checkpoint_pct = parts[0].checkpoints[place].checkpoint_pct
    every_row = np.array([row for rows in rows_of.values() for row in rows], dtype=np.int64)
    notes = _notes(by_split, place, rows_of)
    if not len(every_row):
        return CheckpointResult(checkpoint_pct=checkpoint_pct, n=0, reference=None, cells=[], guesses=[], notes=notes)
    guess = _joined(guessed, axis=0)
    results = _compare(
        [cell for cells in cells_of.values() for cell in cells],
        _joined(scored, axis=0),
        np.repeat(list(rows_of), [len(rows) for rows in rows_of.values()]),
        WeekBootstrap(days[every_row], seed),
    )
    return CheckpointResult(
        checkpoint_pct=checkpoint_pct,
        n=len(every_row),
        reference=results[0].name,
        cells=results,
        guesses=[
            Guess(
                scaler=scaler,
                accuracy=float(guess.is_right[:, i].mean()),
                log_loss=float(guess.log_loss[:, i].mean()),
                brier=float(guess.brier[:, i].mean()),
            )
            for i, scaler in enumerate(cells_of)
        ],
        notes=notes,
    )


def _compare(cells: Sequence[Cell], scored: _Scored, split_of: Ints, samples: WeekBootstrap) -> list[CellResult]:
    """Return the cells by log loss; of equals the first in the grid comes first."""
    means = scored.log_loss.mean(axis=0)
    reference = int(means.argmin())
    in_samples = samples.sums(scored.log_loss) / samples.sums(np.ones(len(split_of)))[:, None]
    low, high = simultaneous_bands(in_samples, means, reference)
    only_cell = ((scored.is_right == 1) & (scored.is_right[:, [reference]] == 0)).sum(axis=0)
    only_reference = ((scored.is_right == 0) & (scored.is_right[:, [reference]] == 1)).sum(axis=0)
    others = [i for i in range(len(cells)) if i != reference]
    p_values = [mcnemar(int(only_cell[i]), int(only_reference[i])) for i in others]
    corrected = dict(zip(others, zip(p_values, holm(p_values), strict=True), strict=True))
    comparisons: dict[int, Comparison] = {}
    for i in others:
        by_log_loss = scored.log_loss[:, i] - scored.log_loss[:, reference]
        by_accuracy = scored.is_right[:, i] - scored.is_right[:, reference]
        band, (p_value, p_holm) = Interval(low=float(low[i]), high=float(high[i])), corrected[i]
        verdict, decided_by = verdict_of(band, float(by_accuracy.mean()), p_holm)
        comparisons[i] = Comparison(
            log_loss_difference=float(by_log_loss.mean()),
            log_loss_interval=_interval(samples.mean(by_log_loss)),
            log_loss_band=band,
            accuracy_difference=float(by_accuracy.mean()),
            accuracy_interval=_interval(samples.mean(by_accuracy)),
            n_only_cell_right=int(only_cell[i]),
            n_only_reference_right=int(only_reference[i]),
            mcnemar_p=p_value,
            mcnemar_p_holm=p_holm,
            same_archetypes=cells[i].scaler == cells[reference].scaler,
            verdict=verdict,
            decided_by=decided_by,
        )
    results = [_cell(cell, i, scored, split_of, samples, comparisons.get(i)) for i, cell in enumerate(cells)]
    return [results[reference], *sorted((results[i] for i in others), key=lambda result: result.log_loss)]


def _cell(  # noqa: PLR0917 - one row of the result
    cell: Cell, i: int, scored: _Scored, split_of: Ints, samples: WeekBootstrap, comparison: Comparison | None
) -> CellResult:
    is_right, confidence = scored.is_right[:, i], scored.confidence[:, i]
    return CellResult(
        name=cell.name,
        cell=cell,
        n=len(is_right),
        accuracy=float(is_right.mean()),
        accuracy_interval=_interval(samples.mean(is_right)),
        log_loss=float(scored.log_loss[:, i].mean()),
        log_loss_interval=_interval(samples.mean(scored.log_loss[:, i])),
        brier=float(scored.brier[:, i].mean()),
        brier_interval=_interval(samples.mean(scored.brier[:, i])),
        ece=expected_calibration_error(confidence, is_right == 1),
        ece_interval=_ece_interval(confidence, is_right, samples),
        by_split=[
            SplitScore(
                split=int(number),
                n=int(members.sum()),
                accuracy=float(is_right[members].mean()),
                log_loss=float(scored.log_loss[members, i].mean()),
                brier=float(scored.brier[members, i].mean()),
                ece=expected_calibration_error(confidence[members], is_right[members] == 1),
            )
            for number in np.unique(split_of)
            for members in (split_of == number,)
        ],
        comparison=comparison,
    )


def _ece_interval(confidence: Array, is_right: Array, samples: WeekBootstrap) -> Interval:
    bins = np.minimum((confidence * _N_BINS).astype(np.int64), _N_BINS - 1)
    gaps = np.zeros((len(bins), _N_BINS))
    gaps[np.arange(len(bins)), bins] = confidence - is_right
    sums, n = samples.sums(gaps), samples.sums(np.ones(len(bins)))
    return _interval(samples.interval(np.abs(sums).sum(axis=1) / n))


def _interval(bounds: tuple[float, float]) -> Interval:
    return Interval(low=bounds[0], high=bounds[1])


def _notes(by_split: dict[int, list[Part]], place: int, rows_of: dict[int, list[int]]) -> list[str]:
    notes = []
    for number, parts in by_split.items():
        if not rows_of[number]:
            notes.append(f"split {number}: no session that every cell could judge")
        notes += [
            f"split {number}, {part.scaler}: no covariance, so mahalanobis is euclidean"
            for part in parts
            if part.checkpoints[place].without_covariance
        ]
    return notes
