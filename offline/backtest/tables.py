"""A backtest as tables for the terminal: what it stands on, then the figures beside the guesses, then the verdict."""

from __future__ import annotations

from typing import Final

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from offline.backtest.results import Backtest
from offline.report_table import Cell, headline_sections
from offline.report_words import ordered_checkpoints, verdict

__all__ = ["plain", "plain_table", "print_backtest"]

#: Terminals may be set to ASCII, which bears no typesetting.
_ASCII: Final = str.maketrans({"×": "x", "−": "-", "–": "-", "²": "2", "\u00a0": " "})


def print_backtest(console: Console, found: Backtest) -> None:
    """Print a backtest."""
    console.print(_basis(found))
    checkpoints = ordered_checkpoints(found)
    if checkpoints:
        console.print(_figures(found, [f"at {key} %" for key, _ in checkpoints]))
    console.print()
    for sentence in (*found.notes, *_sentences(found)):
        console.print(plain(sentence), markup=False, highlight=False)


def plain(text: str) -> str:
    """Return text without typesetting.

    Examples
    --------
    >>> plain("Type × regime: −1 %, R²")
    'Type x regime: -1 %, R2'
    """
    return text.translate(_ASCII)


def plain_table(title: str) -> Table:
    """Return an empty table without lines, so that much fits into 80 columns."""
    return Table(title=f"\n{escape(title)}", title_justify="left", box=None, pad_edge=False, padding=(0, 2, 0, 0))


def _sentences(found: Backtest) -> list[str]:
    if found.checkpoints:
        return verdict(found)
    if not found.n_predictions:
        return ["There is no prediction to judge."]
    return ["Of no prediction it is known what came, so nothing can be judged."]


def _basis(found: Backtest) -> Table:
    books, known = found.books, found.n_by_outcome.get("known", 0)
    table = plain_table(f"Backtest{' of ' + found.name if found.name else ''}: library {found.model_version}")
    table.add_column("")
    table.add_column("", justify="right")
    for label, n in (
        ("records", books.n_records),
        ("sessions", books.n_sessions),
        ("  cut by the start of the records", books.n_cut_at_start),
        ("  not over where the records end", books.n_cut_at_end),
        ("  predicted", found.n_sessions_predicted),
        ("predictions", found.n_predictions),
        ("  what came is known", known),
        ("  judged", sum(checkpoint.n for checkpoint in found.checkpoints.values())),
        ("  judged, session cut by the start", found.n_judged_cut_at_start),
    ):
        table.add_row(label, f"{n:,}")
    return table


def _figures(found: Backtest, labels: list[str]) -> Table:
    judged = [checkpoint for _, checkpoint in ordered_checkpoints(found)]
    kind = "IN SAMPLE: the library was learned from such sessions" if found.is_in_sample else "Out of sample"
    table = plain_table(f"{kind} (95 % intervals beside the figures)")
    table.add_column("", overflow="fold")
    for label in labels:
        table.add_column(label, justify="right")
    for section in headline_sections(judged):
        table.add_row(plain(section.title), *[""] * len(labels), style="bold")
        for row in section.rows:
            cells = [_spelled(cell) for cell in row.cells]
            table.add_row(f"  {plain(row.label)}", *cells, style="cyan" if row.is_model else None)
    return table


def _spelled(cell: Cell) -> str:
    return plain(f"{cell.text} ({cell.interval})" if cell.interval else cell.text)
