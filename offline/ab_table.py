"""What ``ab`` says when it is done: a table a checkpoint, which differences are real, and what was compared."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.table import Table

from offline.ab_results import AbResult, CellResult, CheckpointResult, Comparison, Guess
from offline.console import result_console

__all__ = ["print_ab"]

#: Names of cells in a sentence; more are only counted.
_N_NAMED: Final = 4
#: Of sentences: as wide as the tables.
_WIDTH: Final = 118


def print_ab(result: AbResult, files: tuple[Path, Path]) -> None:
    """Print the result of a run to stdout, and where it was written."""
    console = result_console()
    console.print(_splits(result))
    for checkpoint in result.checkpoints:
        _print_checkpoint(console, checkpoint)
    console.print(_short(result))
    lines = [
        "Log loss and Brier score: lower is better. ECE: mean distance between confidence and accuracy.",
        "Band: log loss minus that of the reference, 95 % for all pairs of cells at once, weeks resampled.",
        "p: McNemar's exact test, Holm-corrected.",
        "A difference is real where the band leaves out 0, else where p is below 0.05.",
        "* Of the other scaler, hence about other archetypes, which may be easier or harder to tell: see the guesses.",
        "prefix_model ignores metric and confidence method; full_centroid has no mahalanobis.",
    ]
    for line in ["", *lines, "", f"Written to {files[0]} and {files[1]}"]:
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def _table(title: str) -> Table:
    # Without lines, so that a cell fits into 120 columns.
    return Table(title=f"\n{title}", title_justify="left", box=None, pad_edge=False, padding=(0, 2, 0, 0))


def _splits(result: AbResult) -> Table:
    table = _table(f"Splits by time, {result.embargo_days} day between past and future")
    for name in ("split", "learned", "until", "judged", "from", "until", "archetypes"):
        table.add_column(name, justify="right")
    table.add_column("profile")
    for split in result.splits:
        table.add_row(
            str(split.split),
            str(split.n_learned),
            split.learned_until,
            str(split.n_judged),
            split.judged_from,
            split.judged_until,
            str(split.n_archetypes),
            split.profile,
        )
    return table


def _print_checkpoint(console: Console, checkpoint: CheckpointResult) -> None:
    if checkpoint.cells:
        console.print(_cells(checkpoint))
    else:
        console.print(f"\n{checkpoint.checkpoint_pct:g} %: no session that every cell could judge", highlight=False)
    for line in [*_verdicts(checkpoint), *(f"Note: {note}" for note in checkpoint.notes)]:
        console.print(textwrap.fill(line, _WIDTH), markup=False, highlight=False, soft_wrap=True)


def _cells(checkpoint: CheckpointResult) -> Table:
    table = _table(f"At {checkpoint.checkpoint_pct:g} %: {checkpoint.n} sessions, by log loss")
    table.padding = (0, 1, 0, 0)
    for name in ("assignment", "metric", "confidence", "scaler"):
        table.add_column(name, no_wrap=True)
    for name in ("right", "log\nloss", "Brier", "ECE", "band", "p"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    rows: list[CellResult | Guess] = [*checkpoint.cells, *checkpoint.guesses]
    for found in sorted(rows, key=lambda row: row.log_loss):
        if isinstance(found, Guess):
            scores = [f"{found.accuracy:.1%}", f"{found.log_loss:.3f}", f"{found.brier:.3f}"]
            table.add_row("guess", "from type", "and regime", found.scaler, *scores, style="italic")
            continue
        cell, told = found.cell, found.comparison
        table.add_row(
            cell.assignment,
            cell.metric or "",
            cell.confidence or "",
            cell.scaler,
            f"{found.accuracy:.1%}",
            f"{found.log_loss:.3f}",
            f"{found.brier:.3f}",
            f"{found.ece:.3f}",
            *(("", "", "reference") if told is None else _compared(told)),
            style="bold" if told is None else None,
        )
    return table


def _compared(told: Comparison) -> tuple[str, str, str]:
    band = f"{told.log_loss_band.low:+.3f} to {told.log_loss_band.high:+.3f}"
    p_value = f"{told.mcnemar_p_holm:.3f}" if told.mcnemar_p_holm >= 0.001 else "<.001"
    by = " (accuracy)" if told.decided_by == "accuracy" else ""
    return band, p_value, f"{told.verdict}{by}{'' if told.same_archetypes else ' *'}"


def _verdicts(checkpoint: CheckpointResult) -> list[str]:
    if checkpoint.reference is None:
        return []
    like = [cell.name for cell in checkpoint.cells if cell.comparison and cell.comparison.verdict == "no difference"]
    better = [cell.name for cell in checkpoint.cells if cell.comparison and cell.comparison.verdict == "better"]
    n_worse = len(checkpoint.cells) - 1 - len(like) - len(better)
    lines = [f"Best: {checkpoint.reference}. Really worse: {n_worse} of the {len(checkpoint.cells) - 1} others."]
    if better:
        lines.append(f"Names more right, with probabilities about as good: {_named(better)}.")
    if like:
        lines.append(f"Not to be told from the best: {_named(like)}.")
    return lines


def _named(names: list[str]) -> str:
    more = f" and {len(names) - _N_NAMED} more" if len(names) > _N_NAMED else ""
    return f"{'; '.join(names[:_N_NAMED])}{more}"


def _short(result: AbResult) -> Table:
    table = _table("In short")
    table.add_column("checkpoint", justify="right")
    table.add_column("best")
    for name in ("right", "log loss", "really worse", "no difference"):
        table.add_column(name, justify="right")
    for checkpoint in result.checkpoints:
        if not checkpoint.cells:
            table.add_row(f"{checkpoint.checkpoint_pct:g} %", "-")
            continue
        verdicts = [cell.comparison.verdict for cell in checkpoint.cells if cell.comparison]
        best = checkpoint.cells[0]
        table.add_row(
            f"{checkpoint.checkpoint_pct:g} %",
            best.name,
            f"{best.accuracy:.1%}",
            f"{best.log_loss:.3f}",
            str(verdicts.count("worse")),
            str(verdicts.count("no difference")),
        )
    return table
