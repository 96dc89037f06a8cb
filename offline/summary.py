"""What ``train`` says when it is done: the archetypes, how early they show, what was left out, what to do next."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from offline.console import command_lines, program_path, result_console
from offline.dataset import Dataset
from offline.prefix_models import Calibration
from offline.train import TrainedLibrary
from stream_fp.classifier import DISTANCE_METRICS

__all__ = ["print_summary"]

_N_TYPES: Final = 3


def print_summary(dataset: Dataset, trained: TrainedLibrary, output: Path, fingerprints: Path | None = None) -> None:
    """Print the summary of a training to stdout."""
    console = result_console()
    console.print(_archetypes(trained))
    console.print(_prefix_models(trained))
    _print_left_out(console, dataset)
    training = trained.metadata.training
    period = f"from {training.first_date} to {training.last_date}"
    lines = [f"{training.n_sessions} sessions {period}, {training.n_events} events"]
    if dataset.n_unfinished:
        lines.append(f"{dataset.n_unfinished} sessions were still open when their file ended, and count as whole")
    if fingerprints is not None:
        lines.append(f"Fingerprints written to {fingerprints}")
    lines += [f"Library {trained.metadata.model_version} written to {output}", ""]
    lines += ["Check it next:", command_lines((program_path(), "check"), ("--model-path", output))]
    for line in ["", *lines]:
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def _table(title: str) -> Table:
    # Without lines, so that an archetype fits into 80 columns.
    return Table(title=f"\n{title}", title_justify="left", box=None, pad_edge=False, padding=(0, 2, 0, 0))


def _archetypes(trained: TrainedLibrary) -> Table:
    table = _table("Archetypes")
    for name in ("id", "sessions"):
        table.add_column(name, justify="right")
    table.add_column("volatility")
    table.add_column("range, %: P50\nP10-P90")
    table.add_column("phases that\nstand out (z)", overflow="fold")
    table.add_column("session\ntypes", overflow="fold")
    for stats in trained.stats.archetypes:
        spread = stats.natural_units.range_pct
        types = list(stats.session_type_probabilities.items())
        table.add_row(
            str(stats.archetype_id),
            str(stats.n_sessions),
            stats.volatility_class,
            f"{spread.p50:.3f}\n{spread.p10:.3f}-{spread.p90:.3f}",
            "\n".join(f"{phase} {round(z, 1) + 0.0:+.1f}" for phase, z in stats.top_phases),  # no negative zero
            "\n".join(escape(f"{session_type} {share:.0%}") for session_type, share in types[:_N_TYPES]),
        )
    return table


def _prefix_models(trained: TrainedLibrary) -> Table:
    table = _table("Given the archetype of the full session, out of fold (log loss)")
    table.add_column("checkpoint", justify="right")
    table.add_column("sessions", justify="right")
    table.add_column("type alone", justify="right")
    for metric in DISTANCE_METRICS:
        table.add_column(metric, justify="right")
    for model in trained.metadata.prefix_models:
        by_metric = trained.calibration[model.checkpoint_pct]
        table.add_row(
            f"{model.checkpoint_pct:g} %",
            str(model.n_sessions),
            f"{trained.type_agreement[model.checkpoint_pct]:.1%}",
            *(_agreement(by_metric[metric]) if metric in by_metric else "-" for metric in DISTANCE_METRICS),
        )
    return table


def _agreement(calibration: Calibration) -> str:
    if calibration.n_sessions == 0:
        return "-"
    return f"{calibration.agreement:.1%} ({calibration.log_loss:.3f})"


def _print_left_out(console: Console, dataset: Dataset) -> None:
    if not dataset.skipped:
        console.print("Nothing was left out")
        return
    table = _table("Left out")
    table.add_column("what, and why", overflow="fold")
    table.add_column("count", justify="right")
    for reason, n in dataset.skipped.items():
        table.add_row(escape(reason), str(n))
    console.print(table)
