"""``stream-fp-offline train``: session files in, a library of archetypes out.

Only options and order of work; the work itself is in `offline.dataset`, `offline.train` and `offline.artifacts`.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from offline.commands.counts import AUTO, DEFAULT_CHECKPOINTS, MAX_SEED, archetype_count, checkpoint_list
from offline.commands.periods import check_period, iso_date
from offline.console import file_progress, say, work_progress
from offline.profiles import PROFILES
from stream_fp.completion import POLICIES
from stream_fp.config import MAX_CHECKPOINT_PCT, MIN_CHECKPOINT_PCT

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
@click.option(
    "--input",
    "source",
    type=click.Path(exists=True, path_type=Path),
    required=True,
    help="JSON Lines of messages, a session document, or a folder of such files.",
)
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    required=True,
    help="Folder of the library, such as models/session_fingerprints/v1.0.2; must not exist.",
)
@click.option(
    "--from", "first", callback=iso_date, metavar="DATE", help="Leave out sessions dated before, such as 2025-01-31."
)
@click.option("--until", "last", callback=iso_date, metavar="DATE", help="Leave out sessions dated after.")
@click.option(
    "--archetypes",
    callback=archetype_count,
    default=AUTO,
    show_default=True,
    metavar="N|auto",
    help="How many to learn; auto chooses by what they tell, how stable they are and how early they show.",
)
@click.option(
    "--profile",
    type=click.Choice([AUTO, *PROFILES]),
    default=AUTO,
    show_default=True,
    help="Which features tell archetypes apart; auto chooses by the same evidence.",
)
@click.option(
    "--scaler",
    type=click.Choice(["standard", "robust"]),
    default="standard",
    show_default=True,
    help="Scale by mean and standard deviation, or by median and interquartile range.",
)
@click.option("--seed", type=click.IntRange(0, MAX_SEED), default=0, show_default=True, help="Seed of k-means.")
@click.option(
    "--checkpoints",
    multiple=True,
    default=(DEFAULT_CHECKPOINTS,),
    show_default=DEFAULT_CHECKPOINTS,
    callback=checkpoint_list,
    metavar="PCT[,PCT...]",
    help=f"Completions at which prefixes are cut, in per cent from {MIN_CHECKPOINT_PCT:g} to {MAX_CHECKPOINT_PCT:g}; "
    "may be repeated.",
)
@click.option(
    "--completion",
    type=click.Choice(list(POLICIES)),
    default="auto",
    show_default=True,
    help="How completion is measured; the service should use the same.",
)
@click.option(
    "--n-jobs",
    type=click.IntRange(min=-1),
    default=0,
    show_default="chosen by the size of the input",
    help="Processes; -1 is one a core. The result is the same for any number.",
)
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
    fingerprints: Path | None,
    force: bool,
    model_version: str | None,
) -> None:
    """Learn a library of archetypes from recorded sessions."""
    from offline.artifacts import check_output, write_library  # noqa: PLC0415 - see `offline.commands`
    from offline.dataset import load_dataset  # noqa: PLC0415
    from offline.fingerprints import write_fingerprints  # noqa: PLC0415
    from offline.places import check_place  # noqa: PLC0415
    from offline.summary import print_summary  # noqa: PLC0415
    from offline.train import TrainingOptions, train  # noqa: PLC0415

    check_period(first, last)
    check_output(output, force=force)
    if fingerprints is not None:
        check_place("fingerprints", fingerprints)
    with file_progress() as progress:
        dataset = load_dataset(
            source,
            checkpoints_pct=checkpoints,
            completion=completion,
            first_date=first,
            last_date=last,
            n_jobs=n_jobs or None,
            progress=progress,
        )
    for remark in dataset.remarks:
        say(f"left out: {remark}")
    say(f"Learning from {len(dataset)} session{'s' * (len(dataset) != 1)}")
    if len(dataset) < FEW_SESSIONS:
        say(
            f"warning: {len(dataset)} sessions are few: below {FEW_SESSIONS} a prediction is little better than a guess"
        )
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
                progress=progress,
            ),
        )
    for note in trained.notes:
        say(f"note: {note}")
    write_library(trained, output, force=force)
    if fingerprints is not None:
        write_fingerprints(dataset, trained.labels, fingerprints)
    print_summary(dataset, trained, output, fingerprints)
