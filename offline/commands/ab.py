"""``stream-fp-offline ab``: compare every way to assign and to be confident, on sessions that came later.

Only options and order of work; the work itself is in `offline.ab`, `offline.ab_compare` and `offline.ab_table`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from offline.commands.counts import AUTO, DEFAULT_CHECKPOINTS, MAX_SEED, archetype_count, checkpoint_list
from offline.commands.periods import iso_date
from offline.console import file_progress, say, work_progress
from offline.profiles import PROFILES
from stream_fp.completion import POLICIES
from stream_fp.config import MAX_CHECKPOINT_PCT, MIN_CHECKPOINT_PCT

if TYPE_CHECKING:
    from stream_fp.completion import CompletionPolicy

__all__ = ["ab_command"]

#: More splits leave too few sessions in each to say anything, and take longer.
_MAX_SPLITS: Final = 50


@click.command("ab")
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
    help="Folder of the results; a run that was interrupted goes on where it stood.",
)
@click.option(
    "--from", "first", callback=iso_date, metavar="DATE", help="Leave out sessions dated before, such as 2025-01-31."
)
@click.option("--until", "last", callback=iso_date, metavar="DATE", help="Leave out sessions dated after.")
@click.option(
    "--splits",
    "n_splits",
    type=click.IntRange(1, _MAX_SPLITS),
    default=4,
    show_default=True,
    help="Steps over the second half of the time: each learns from what came before it.",
)
@click.option(
    "--archetypes",
    callback=archetype_count,
    default=AUTO,
    show_default=True,
    metavar="N|auto",
    help="How many to learn; auto chooses anew in each split, from its past, which takes a while.",
)
@click.option(
    "--profile",
    type=click.Choice([AUTO, *PROFILES]),
    default=AUTO,
    show_default=True,
    help="Which features tell archetypes apart; auto chooses by the same evidence.",
)
@click.option(
    "--seed",
    type=click.IntRange(0, MAX_SEED),
    default=0,
    show_default=True,
    help="Seed of k-means and of the days resampled.",
)
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
    show_default="one a core, fewer to read a small input",
    help="Processes; -1 is one a core. The result is the same for any number.",
)
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
    force: bool,
) -> None:
    """Compare assignments, distances, confidence methods and scalers on later sessions."""
    from offline.ab import AbOptions, make_splits, run_grid  # noqa: PLC0415 - see `offline.commands`
    from offline.ab_compare import make_result  # noqa: PLC0415
    from offline.ab_parts import PartFolder  # noqa: PLC0415
    from offline.ab_results import encode_result, encode_table  # noqa: PLC0415
    from offline.ab_table import print_ab  # noqa: PLC0415
    from offline.dataset import load_dataset  # noqa: PLC0415

    folder = PartFolder(output, force=force)
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
    options = AbOptions(
        n_splits=n_splits,
        n_archetypes=archetypes,
        profile=None if profile == AUTO else profile,
        seed=seed,
        n_jobs=n_jobs or -1,
    )
    say(f"Comparing on {len(dataset)} sessions in {n_splits} split{'s' * (n_splits != 1)}")
    with work_progress("task") as progress:
        parts = run_grid(dataset, options, folder, progress)
    say("Resampling days")
    sides = [(split.past, split.future) for split in make_splits(dataset, n_splits)]
    result = make_result(dataset, parts, sides, seed)
    print_ab(result, folder.write_results(encode_result(result), encode_table(result)))
