"""The headline figures of a report as a table for the terminal."""

from __future__ import annotations

from rich.table import Table

from offline.report import CheckpointReport, Report

__all__ = ["scores_table"]


def scores_table(report: Report) -> Table:
    """Return one column a checkpoint, each figure beside what is known without the model."""
    is_unseen = report.first_date > report.training.last_date
    title = "Out of sample" if is_unseen else "IN SAMPLE: some of these sessions were trained on"
    table = Table(title=f"\n{title}", title_justify="left", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("", overflow="fold")
    for name in report.checkpoints:
        table.add_column(f"{name} %", justify="right")
    found = list(report.checkpoints.values())
    for label, cells in (
        ("sessions judged", [str(one.n) for one in found]),
        ("right archetype", [f"{one.accuracy:.1%}" for one in found]),
        ("  type x regime so far", [f"{one.baseline_type_regime_accuracy:.1%}" for one in found]),
        ("  session type alone", [f"{one.baseline_type_accuracy:.1%}" for one in found]),
        ("  nearest full-session centroid", [f"{one.full_centroid_accuracy:.1%}" for one in found]),
        ("log loss", [f"{one.log_loss:.3f}" for one in found]),
        ("  over that of type x regime so far", [f"{one.log_loss_ratio:.2f}" for one in found]),
        ("calibration error", [f"{one.ece:.3f}" for one in found]),
        ("  by chance alone, were it calibrated", [f"{one.ece_by_chance:.3f}" for one in found]),
        ("R2 of the part not seen, mean of ten", [_number(one.rest_r2.mean) for one in found]),
        ("  type x regime so far", [f"{one.baseline_type_regime_rest_r2_mean:.3f}" for one in found]),
        ("  session type alone", [_number(one.baseline_type_rest_r2.mean) for one in found]),
        ("  knowing the true archetype", [f"{one.true_archetype_rest_r2_mean:.3f}" for one in found]),
        ("range: pinball loss over range so far x usual", [f"{one.pinball_ratio:.2f}" for one in found]),
        ("range: within P10-P90", [f"{one.coverage_80:.1%}" for one in found]),
    ):
        table.add_row(label, *cells)
    table.add_row("archetypes: stability (ARI)", *_first(f"{report.stability_ari:.2f}", found))
    sizes = " ".join(f"{share:.0%}" for share in report.archetype_sizes.values())
    table.add_row("archetypes: shares", *_first(sizes, found))
    return table


def _first(text: str, found: list[CheckpointReport]) -> list[str]:
    return [text, *[""] * (len(found) - 1)]


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
