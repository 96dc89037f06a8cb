"""What the demo shows of predictions: beside each what came, and all of them judged."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from rich import box
from rich.markup import escape
from rich.table import Table

from offline.dataset import Dataset
from offline.report import Report
from stream_fp.library import Library
from stream_fp.messages import Prediction

__all__ = ["archetype_lines", "predictions_table", "verdict_lines"]

_N_ROWS: Final = 16


def predictions_table(predictions: Sequence[Prediction], outcome: Dataset) -> Table:
    """Return the first predictions in order of time; `outcome` holds the same sessions when complete."""
    title = "Predictions" + (f" (first {_N_ROWS})" if len(predictions) > _N_ROWS else "")
    title += ": range in %, so far, forecast, and what came"
    table = Table(title=title, title_justify="left", box=box.SIMPLE, padding=(0, 1, 0, 0))
    table.add_column("session", no_wrap=True)
    for heading in ("seen", "arch.", "conf.", "so far", "P10  P50  P90", "came"):
        table.add_column(heading, justify="right", no_wrap=True)
    came = dict(zip(outcome.session_ids, outcome.range_pct.tolist(), strict=True))
    ordered = sorted(predictions, key=lambda p: (p.classification_metadata.timestamp, p.session_id))
    for prediction in ordered[:_N_ROWS]:
        units = prediction.predicted_stats.natural_units
        band = units.range_pct
        table.add_row(
            prediction.session_id,
            f"{prediction.pct_seen:.0f}%",
            str(prediction.archetype_id),
            f"{prediction.confidence:.0%}",
            f"{units.range_so_far_pct:.2f}",
            f"{band.p10:.2f} {band.p50:.2f} {band.p90:.2f}",
            f"{came[prediction.session_id]:.2f}" if prediction.session_id in came else "-",
        )
    return table


def archetype_lines(library: Library) -> Iterator[str]:
    """Yield what each archetype is called."""
    yield "Archetypes"
    for archetype_id, stats in sorted(library.archetypes.items()):
        yield f"   {archetype_id}  {escape(stats.name)}"


def verdict_lines(report: Report, checkpoint_pct: float) -> Iterator[str]:
    """Yield how the predictions at a checkpoint did, beside guesses; nothing where none was made."""
    found = report.checkpoints.get(f"{checkpoint_pct:g}")
    if found is None:
        return
    gain = found.best_guess_gain_interval
    yield (
        f"Of {found.n} sessions, {found.accuracy:.0%} became the archetype that was named (guessing from "
        f"{found.best_guess}: {found.best_guess_accuracy:.0%}; gain {100 * gain.low:+.0f} to {100 * gain.high:+.0f} "
        f"points, few sessions tell no more); {found.coverage_80:.0%} ended within P10-P90, where 80% is meant."
    )
