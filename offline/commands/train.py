"""``stream-fp-offline train``: session files in, a library of archetypes out.

Only options and order of work; the work itself is in `offline.dataset`, `offline.train` and `offline.artifacts`.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from offline.commands.options import (
    AUTO,
    archetypes_option,
    backend_options,
    check_period,
    checkpoints_option,
    completion_option,
    input_option,
    n_jobs_option,
    period_options,
    profile_option,
    seed_option,
)
from offline.console import file_progress, say, work_progress

if TYPE_CHECKING:
    from offline.scalers import ScalerKind
    from stream_fp.completion import CompletionPolicy

__all__ = ["train_command"]

#: Below this, 30 features are learned from little more than as many sessions.
FEW_SESSIONS: Final = 100


def _csv_file(_context: click.Context, _parameter: click.Parameter, value: Path | None) -> Path | None:
    if value is not None and value.suffix != ".csv":
        raise click.BadParameter(f"expected a file name ending in .csv, got {str(value)!r}")
    return value


def _model_version(_context: click.Context, _parameter: click.Parameter, value: str | None) -> str | None:
    if value is not None and (not value.strip() or not value.isprintable()):
        raise click.BadParameter(f"expected a printable version such as 1.0.2, got {value!r}")
    return value


@click.command("train")
@input_option
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    required=True,
    help="Folder of the library, such as models/session_fingerprints/v1.0.2; must not exist.",
)
@period_options
@archetypes_option("by what they tell, how stable they are and how early they show")
@profile_option
@click.option(
    "--scaler",
    type=click.Choice(["standard", "robust"]),
    default="standard",
    show_default=True,
    help="Scale by mean and standard deviation, or by median and interquartile range.",
)
@seed_option("k-means")
@checkpoints_option
@completion_option
@n_jobs_option("chosen by the size of the input")
@backend_options
@click.option(
    "--fingerprints",
    type=click.Path(dir_okay=False, path_type=Path),
    callback=_csv_file,
    help="Also write all feature vectors to this .csv file.",
)
@click.option("--force", is_flag=True, help="Replace the library that the output folder holds.")
@click.option(
    "--model-version",
    callback=_model_version,
    show_default="name of the output folder without a leading v",
    help="Version that goes into every prediction.",
)
def train_command(
    *,
    source: Path,
    output: Path,
    first: str | None,
    last: str | None,
    archetypes: int | None,
    profile: str,
    scaler: ScalerKind,
    seed: int,
    checkpoints: tuple[float, ...],
    completion: CompletionPolicy,
    n_jobs: int,
    backend: str,
    scheduler: str | None,
    fingerprints: Path | None,
    force: bool,
    model_version: str | None,
) -> None:
    """Learn a library of archetypes from recorded sessions."""
    from offline.artifacts import check_output, write_library  # noqa: PLC0415 - see `offline.commands`
    from offline.backends import open_backend  # noqa: PLC0415
    from offline.dataset import load_dataset  # noqa: PLC0415
    from offline.fingerprints import write_fingerprints  # noqa: PLC0415
    from offline.places import check_place  # noqa: PLC0415
    from offline.summary import print_summary  # noqa: PLC0415
    from offline.train import TrainingOptions, train  # noqa: PLC0415

    check_period(first, last)
    check_output(output, force=force)
    if fingerprints is not None:
        check_place("fingerprints", fingerprints)
    with open_backend(backend, scheduler) as opened:
        with file_progress() as progress:
            dataset = load_dataset(
                source,
                checkpoints_pct=checkpoints,
                completion=completion,
                first_date=first,
                last_date=last,
                n_jobs=n_jobs or None,
                backend=opened,
                progress=progress,
            )
        for remark in dataset.remarks:
            say(f"left out: {remark}")
        say(f"Learning from {len(dataset)} session{'s' * (len(dataset) != 1)}")
        if len(dataset) < FEW_SESSIONS:
            few = f"below {FEW_SESSIONS} a prediction is little better than a guess"
            say(f"warning: {len(dataset)} sessions are few: {few}")
        with work_progress("step") as progress:
            trained = train(
                dataset,
                TrainingOptions(
                    model_version=model_version or re.sub(r"^v(?=\d)", "", output.resolve().name),
                    n_archetypes=archetypes,
                    profile=None if profile == AUTO else profile,
                    scaler=scaler,
                    seed=seed,
                    n_jobs=n_jobs or -1,
                    backend=opened,
                    progress=progress,
                ),
            )
    for note in trained.notes:
        say(f"note: {note}")
    write_library(trained, output, force=force)
    if fingerprints is not None:
        write_fingerprints(dataset, trained.labels, fingerprints)
    print_summary(dataset, trained, output, fingerprints)
