"""What ``train`` says when it is done: the archetypes, how early they show, what was left out, what to do next."""

from __future__ import annotations

from pathlib import Path
from typing import Final, get_args

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from offline.console import command_lines, program_path, result_console
from offline.dataset import Dataset
from offline.prefix_centroids import Calibration
from offline.prefix_models import Way
from offline.train import TrainedLibrary

__all__ = ["print_summary"]

_N_TYPES: Final = 3
_N_TRIALS: Final = 6


def print_summary(dataset: Dataset, trained: TrainedLibrary, output: Path, fingerprints: Path | None = None) -> None:
    """Print the summary of a training to stdout."""
    console = result_console()
    if trained.metadata.selection:
        console.print(_trials(trained))
    console.print(_archetypes(trained))
    console.print(f"Stability: {trained.stability_ari:.2f} (adjusted Rand index of refits to resampled sessions)")
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
    table.add_column("name", overflow="fold")
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
            escape(stats.name),
            stats.volatility_class,
            f"{spread.p50:.3f}\n{spread.p10:.3f}-{spread.p90:.3f}",
            "\n".join(f"{phase} {round(z, 1) + 0.0:+.1f}" for phase, z in stats.top_phases),  # no negative zero
            "\n".join(escape(f"{session_type} {share:.0%}") for session_type, share in types[:_N_TYPES]),
        )
    return table


def _prefix_models(trained: TrainedLibrary) -> Table:
    table = _table("Right archetype on sessions held out (log loss)")
    table.add_column("checkpoint", justify="right")
    table.add_column("sessions", justify="right")
    table.add_column("type alone", justify="right")
    for way in get_args(Way):
        table.add_column(way.replace("_", " "), justify="right")
    for model in trained.metadata.prefix_models:
        by_way = trained.calibration[model.checkpoint_pct]
        table.add_row(
            f"{model.checkpoint_pct:g} %",
            str(model.n_sessions),
            f"{trained.type_agreement[model.checkpoint_pct]:.1%}",
            *(_agreement(by_way[way]) if way in by_way else "-" for way in get_args(Way)),
        )
    return table


def _trials(trained: TrainedLibrary) -> Table:
    table = _table("Tried for the archetypes, on the later sessions (the best stable ones; * is what was taken)")
    for name in ("", "profile"):
        table.add_column(name)
    for name in ("archetypes", "stability\nARI", "R2 of the rest\nknowing it", "R2 of the rest\npredicting it",
                 "log loss beside\ntype x regime"):  # fmt: skip
        table.add_column(name, justify="right")
    trials = sorted(trained.metadata.selection, key=lambda trial: (not trial.is_chosen, -trial.rest_r2_predicted))
    for trial in [trial for trial in trials if trial.is_eligible or trial.is_chosen][:_N_TRIALS]:
        table.add_row(
            "*" if trial.is_chosen else "",
            trial.profile,
            str(trial.n_archetypes),
            f"{trial.stability_ari:.2f}",
            f"{trial.rest_r2_true:.3f}",
            f"{trial.rest_r2_predicted:.3f}",
            f"{trial.log_loss_ratio:.2f}",
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
