"""``stream-fp-offline ab``: compare every way to assign and to be confident, on sessions that came later.

Only options and order of work; the work itself is in `offline.ab`, `offline.ab_compare` and `offline.ab_table`.
"""

from __future__ import annotations

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
    from stream_fp.completion import CompletionPolicy

__all__ = ["ab_command"]

#: More splits leave too few sessions in each to say anything, and take longer.
_MAX_SPLITS: Final = 50


@click.command("ab")
@input_option
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    required=True,
    help="Folder of the results; a run that was interrupted goes on where it stood.",
)
@period_options
@click.option(
    "--splits",
    "n_splits",
    type=click.IntRange(1, _MAX_SPLITS),
    default=4,
    show_default=True,
    help="Steps over the second half of the time: each learns from what came before it.",
)
@archetypes_option("anew in each split, from its past, which takes a while")
@profile_option
@seed_option("k-means and of the weeks resampled")
@checkpoints_option
@completion_option
@n_jobs_option("one a core, fewer to read a small input")
@backend_options
@click.option("--force", is_flag=True, help="Start anew, and replace the results that the folder holds.")
def ab_command(
    *,
    source: Path,
    output: Path,
    first: str | None,
    last: str | None,
    n_splits: int,
    archetypes: int | None,
    profile: str,
    seed: int,
    checkpoints: tuple[float, ...],
    completion: CompletionPolicy,
    n_jobs: int,
    backend: str,
    scheduler: str | None,
    force: bool,
) -> None:
    """Compare assignments, distances, confidence methods and scalers on later sessions."""
    from offline.ab import AbOptions, make_splits, run_grid  # noqa: PLC0415 - see `offline.commands`
    from offline.ab_compare import make_result  # noqa: PLC0415
    from offline.ab_parts import PartFolder  # noqa: PLC0415
    from offline.ab_results import encode_result, encode_table  # noqa: PLC0415
    from offline.ab_table import print_ab  # noqa: PLC0415
    from offline.backends import open_backend  # noqa: PLC0415
    from offline.dataset import load_dataset  # noqa: PLC0415

    check_period(first, last)
    folder = PartFolder(output, force=force)
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
        options = AbOptions(
            n_splits=n_splits,
            n_archetypes=archetypes,
            profile=None if profile == AUTO else profile,
            seed=seed,
            n_jobs=n_jobs or -1,
            backend=opened,
        )
        say(f"Comparing on {len(dataset)} sessions in {n_splits} split{'s' * (n_splits != 1)}")
        with work_progress("task") as progress:
            parts = run_grid(dataset, options, folder, progress)
    say("Resampling weeks")
    sides = [(split.past, split.future) for split in make_splits(dataset, n_splits)]
    result = make_result(dataset, parts, sides, seed)
    print_ab(result, folder.write_results(encode_result(result), encode_table(result)))
