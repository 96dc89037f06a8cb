"""Sets of settings side by side in the terminal: what each came to, and which differences are more than chance."""

from __future__ import annotations

from typing import Final

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from offline.backtest.comparison_results import Comparison, Difference, Measure, MeasureName, RankComparison
from offline.backtest.tables import plain, plain_table
from offline.report_words import interval_text, number, percent

__all__ = ["print_comparison"]

#: What a measure is called, and whether it is a share.
_MEASURES: Final[dict[MeasureName, tuple[str, bool]]] = {
    "share_predicted": ("predicted, of those that any is", True),
    "pct_seen": ("of the session seen, %\n(less is earlier)", False),
    "pinball": ("range: pinball loss,\n% of price", False),
    "coverage_80": ("range: within P10-P90\n(80 % is meant)", True),
    "rest_r2": ("rest: mean R2", False),
    "accuracy": ("right archetype", True),
    "log_loss": ("log loss", False),
    "brier": ("Brier score", False),
}
_STYLES: Final = {"better": "green", "worse": "red"}


def print_comparison(console: Console, found: Comparison) -> None:
    """Print a comparison."""
    if not found.n_sessions:
        console.print("\nThere is no session to compare.", highlight=False)
        return
    for rank in found.ranks:
        console.print(_table(found, rank))
    kind = "IN SAMPLE" if found.is_in_sample else "out of sample"
    period = f"{found.n_sessions:,} sessions from {found.first_date} to {found.last_date}, {kind}"
    how = (
        "Under a figure stands its difference from the reference on the same sessions (of coverage: of the distance "
        f"from 80 %), with a band that holds for all {found.n_differences} differences at once: 95 %, weeks resampled. "
        "What is called better or worse is more than chance; accuracy must pass McNemar's test, Holm-corrected, too."
    )
    console.print()
    for line in (f"{period}; the reference is {found.reference}.", how, *found.notes):
        console.print(plain(line), markup=False, highlight=False)


def _table(found: Comparison, rank: RankComparison) -> Table:
    table = plain_table(f"Checkpoint {rank.rank}: {rank.n_sessions:,} sessions in common, of {rank.n_weeks} weeks")
    table.add_column("")
    for name in found.names:
        at = f"at {rank.checkpoints[name]} %" if name in rank.checkpoints else "none"
        table.add_column(f"{escape(name)}\n{at}", justify="right", overflow="fold")
    for measure in rank.measures:
        label, is_share = _MEASURES[measure.name]
        table.add_row(*[""] * (1 + len(found.names)))
        table.add_row(label, *(_cell(measure, name, is_share=is_share) for name in found.names))
    return table


def _cell(measure: Measure, name: str, *, is_share: bool) -> str:
    value = measure.values[name]
    spelled = plain(percent(value, 1) if is_share else number(value))
    if name in measure.differences:
        return f"{spelled}\n{_difference(measure.differences[name], is_share=is_share)}"
    if name in measure.not_comparable:
        return f"{spelled}\n[dim]not comparable:\n{measure.not_comparable[name]}[/dim]"
    return spelled


def _difference(told: Difference, *, is_share: bool) -> str:
    if told.value == told.band.low == told.band.high == 0:
        return "[dim]the same[/dim]"
    factor, digits = (100, 1) if is_share else (1, 3)
    band = plain(interval_text(told.band, as_percent=is_share, decimals=digits))
    style = _STYLES.get(told.verdict, "dim")
    return f"{told.value * factor:+.{digits}f} ({band})\n[{style}]{told.verdict}[/{style}]"
