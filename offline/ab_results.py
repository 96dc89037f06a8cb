"""What the A/B grid found: the structures of ``ab.json`` and the rows of ``ab.csv``.

Pure data; `offline.ab_compare` fills them, `offline.ab_table` prints them. Every number is finite.
"""

from __future__ import annotations

import csv
import io
from typing import Final, Literal

import msgspec
from msgspec import Struct

from offline.ab_parts import Cell
from offline.report import Interval
from offline.scalers import ScalerKind

__all__ = ["AbResult", "CellResult", "CheckpointResult", "Comparison", "DecidedBy", "Guess", "SplitFacts",
           "SplitScore", "Verdict", "encode_result", "encode_table"]  # fmt: skip

Verdict = Literal["better", "worse", "no difference"]
DecidedBy = Literal["log loss", "accuracy"] | None


class SplitScore(Struct, frozen=True, kw_only=True):
    """One cell on the future of one split."""

    split: int
    n: int
    accuracy: float
    log_loss: float
    brier: float
    ece: float


class Comparison(Struct, frozen=True, kw_only=True):
    """A cell beside the reference, on the same sessions; differences are cell minus reference."""

    log_loss_difference: float
    log_loss_interval: Interval
    """Of this difference alone."""
    log_loss_band: Interval
    """Holds for all pairs of cells at once; the verdict goes by it."""
    accuracy_difference: float
    accuracy_interval: Interval
    n_only_cell_right: int
    n_only_reference_right: int
    mcnemar_p: float
    mcnemar_p_holm: float
    verdict: Verdict
    same_archetypes: bool
    """Whether both have the same scaler; else their archetypes differ, and those of one may be easier to tell."""
    decided_by: DecidedBy
    """The log loss where its band leaves out 0; else accuracy, where the corrected p-value is below 0.05."""


class CellResult(Struct, frozen=True, kw_only=True):
    """One cell at one checkpoint, over all splits; intervals are 95 %, from weeks resampled."""

    name: str
    cell: Cell
    n: int
    accuracy: float
    accuracy_interval: Interval
    log_loss: float
    """Mean, nats."""
    log_loss_interval: Interval
    brier: float
    """In [0, 2]."""
    brier_interval: Interval
    ece: float
    """Expected calibration error of the confidence, ten bins."""
    ece_interval: Interval
    by_split: list[SplitScore]
    comparison: Comparison | None
    """None for the reference."""


class Guess(Struct, frozen=True, kw_only=True):
    """Guessing from session type and regime seen so far: how hard the archetypes of one scaler are to tell."""

    scaler: ScalerKind
    accuracy: float
    log_loss: float
    brier: float


class CheckpointResult(Struct, frozen=True, kw_only=True):
    """All cells at one checkpoint."""

    checkpoint_pct: float
    n: int
    """Sessions that every cell could judge; where there are none, all else is empty."""
    reference: str | None
    """Name of the cell with the lowest mean log loss."""
    cells: list[CellResult]
    """By log loss, the reference first."""
    guesses: list[Guess]
    notes: list[str]


class SplitFacts(Struct, frozen=True, kw_only=True):
    """One split by time: what was learned from and what was judged."""

    split: int
    n_learned: int
    learned_until: str
    n_judged: int
    judged_from: str
    judged_until: str
    profile: str
    n_archetypes: int


class AbResult(Struct, frozen=True, kw_only=True):
    """Content of ``ab.json``; `fingerprint` says of which sessions, options and package versions."""

    fingerprint: str
    n_sessions: int
    first_date: str
    last_date: str
    completion: str
    seed: int
    embargo_days: int
    splits: list[SplitFacts]
    checkpoints: list[CheckpointResult]


def encode_result(result: AbResult) -> bytes:
    """Return the bytes of ``ab.json``: the same for the same result."""
    return msgspec.json.format(msgspec.json.encode(result), indent=2) + b"\n"


_COLUMNS: Final = (
    "checkpoint_pct", "scaler", "assignment", "metric", "confidence", "n",
    *(f"{score}{end}" for score in ("accuracy", "log_loss", "brier", "ece") for end in ("", "_low", "_high")),
    "log_loss_difference", "log_loss_band_low", "log_loss_band_high",
    "accuracy_difference", "accuracy_difference_low", "accuracy_difference_high",
    "mcnemar_p", "mcnemar_p_holm", "verdict", "decided_by",
)  # fmt: skip


def encode_table(result: AbResult) -> bytes:
    """Return the bytes of ``ab.csv``: one line a cell and checkpoint, empty where there is nothing to say."""
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(_COLUMNS)
    for checkpoint in result.checkpoints:
        for found in checkpoint.cells:
            cell, told = found.cell, found.comparison
            row: list[str | float | None] = [
                f"{checkpoint.checkpoint_pct:g}",
                cell.scaler,
                cell.assignment,
                cell.metric,
                cell.confidence,
                found.n,
            ]
            for mean, interval in (
                (found.accuracy, found.accuracy_interval),
                (found.log_loss, found.log_loss_interval),
                (found.brier, found.brier_interval),
                (found.ece, found.ece_interval),
            ):
                row += [mean, interval.low, interval.high]
            if told is None:
                row += [None] * 8 + ["reference", None]
            else:
                row += [told.log_loss_difference, told.log_loss_band.low, told.log_loss_band.high]
                row += [told.accuracy_difference, told.accuracy_interval.low, told.accuracy_interval.high]
                row += [told.mcnemar_p, told.mcnemar_p_holm]
                row += [told.verdict, told.decided_by]
            rows.writerow(row)
    return text.getvalue().encode()
