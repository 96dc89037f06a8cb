"""``stream-fp-offline evaluate``: a library and sessions that it has not seen in, a report out.

Only options and order of work; the work itself is in `offline.evaluate` and the modules that draw its report.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from offline.commands.options import (
    backend_options,
    check_period,
    input_option,
    n_jobs_option,
    period_options,
    seed_option,
)
from offline.console import file_progress, say
from offline.report import REPORT_FILES

if TYPE_CHECKING:
    from offline.dataset import Dataset
    from offline.report import Report
    from stream_fp.artifacts import Metadata

__all__ = ["evaluate_command"]


@click.command("evaluate")
@input_option
@click.option(
    "--model-path", type=click.Path(path_type=Path), required=True, help="Folder of the library that is judged."
)
@click.option(
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    required=True,
    help=f"Folder for {', '.join(REPORT_FILES)}; made where it is missing.",
)
@period_options
@click.option(
    "--include-training",
    is_flag=True,
    help="Judge sessions of the training period too; by default they are left out, with a day between.",
)
@seed_option("the bootstrap intervals")
@n_jobs_option("chosen by the size of the input", " that read files")
@backend_options
@click.option("--force", is_flag=True, help="Replace the report that the output folder holds.")
def evaluate_command(
    *,
    source: Path,
    model_path: Path,
    output: Path,
    first: str | None,
    last: str | None,
    include_training: bool,
    seed: int,
    n_jobs: int,
    backend: str,
    scheduler: str | None,
    force: bool,
) -> None:
    """Judge a library on sessions that it has not seen, beside what is known without one."""
    from offline.backends import open_backend  # noqa: PLC0415 - see `offline.commands`
    from offline.creation_time import creation_time  # noqa: PLC0415
    from offline.dataset import Tables, load_dataset  # noqa: PLC0415
    from offline.evaluate import EvaluationOptions, evaluate  # noqa: PLC0415
    from offline.places import check_new_file, write_whole  # noqa: PLC0415
    from offline.report import encode_report  # noqa: PLC0415
    from offline.report_page import render_page  # noqa: PLC0415
    from offline.report_plots import plot_archetypes, plot_reliability  # noqa: PLC0415
    from offline.report_words import main_checkpoint  # noqa: PLC0415
    from stream_fp.errors import DocumentError  # noqa: PLC0415
    from stream_fp.library import load_library, load_metadata  # noqa: PLC0415

    check_period(first, last)
    for name in REPORT_FILES:
        check_new_file("output", output / name, force=force)
    library, metadata = load_library(model_path), load_metadata(model_path)
    with open_backend(backend, scheduler) as opened, file_progress() as progress:
        dataset = load_dataset(
            source,
            checkpoints_pct=tuple(model.checkpoint_pct for model in metadata.prefix_models),
            completion=metadata.completion,
            min_events=metadata.min_events,
            tables=Tables(schedules=library.schedules, typical_events=library.typical_events),
            first_date=first,
            last_date=last,
            n_jobs=n_jobs or None,
            backend=opened,
            progress=progress,
        )
    for remark in dataset.remarks:
        say(f"left out: {remark}")
    judged, n_left_out = (dataset, {}) if include_training else _unseen(dataset, metadata, source)
    say(f"Judging {len(judged)} sessions from {judged.dates[0]} to {judged.dates[-1]}")
    report = evaluate(
        judged, library, metadata, EvaluationOptions(created_at=creation_time(), seed=seed, n_left_out=n_left_out)
    )
    if not report.checkpoints:
        raise DocumentError(str(source), f"none of {len(judged)} sessions had enough events at any checkpoint")
    say("Drawing the report")
    output.mkdir(parents=True, exist_ok=True)
    contents = {"report.json": encode_report(report), "report.html": render_page(report).encode()}
    contents["archetypes.svg"] = plot_archetypes(report).encode()
    if (checkpoint := main_checkpoint(report)) is not None:
        contents["reliability.svg"] = plot_reliability(report, checkpoint).encode()
    for name, content in contents.items():
        write_whole("output", output / name, [content])
    _print_result(report, output)


def _unseen(dataset: Dataset, metadata: Metadata, source: Path) -> tuple[Dataset, dict[str, int]]:
    from offline.evaluate import unseen_rows  # noqa: PLC0415
    from stream_fp.errors import DocumentError  # noqa: PLC0415

    rows = unseen_rows(dataset, metadata)
    if not len(rows):
        raise DocumentError(
            str(source),
            f"expected sessions later than those the library was trained on (until {metadata.training.last_date}), "
            f"found only {len(dataset)} up to {dataset.dates[-1]}; --include-training judges these all the same",
        )
    n_known = len(dataset) - len(rows)
    return dataset.select(rows), {
        "before the end of the training period, or within a day of it": n_known
    } if n_known else {}


def _print_result(report: Report, output: Path) -> None:
    from offline.console import result_console  # noqa: PLC0415
    from offline.report_words import verdict  # noqa: PLC0415
    from offline.scores_table import scores_table  # noqa: PLC0415

    console = result_console()
    console.print(scores_table(report))
    console.print()
    for sentence in verdict(report):
        console.print(sentence, markup=False, highlight=False)
    console.print(f"\nReport written to {output / 'report.html'}", markup=False, highlight=False, soft_wrap=True)
