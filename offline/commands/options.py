"""Options that several commands have, each said once, and what they read."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from offline.profiles import PROFILES
from stream_fp.completion import POLICIES
from stream_fp.config import MAX_CHECKPOINT_PCT, MIN_CHECKPOINT_PCT

__all__ = [
    "AUTO",
    "archetypes_option",
    "backend_options",
    "check_period",
    "checkpoints_option",
    "completion_option",
    "input_option",
    "n_jobs_option",
    "period_options",
    "profile_option",
    "seed_option",
]

AUTO: Final = "auto"
_DEFAULT_CHECKPOINTS: Final = "25,30,40,50"
_MAX_SEED: Final = 2**32 - 1  # what scikit-learn takes

Command = TypeVar("Command", bound=Callable[..., Any])


def _checkpoints(_context: click.Context, _parameter: click.Parameter, values: tuple[str, ...]) -> tuple[float, ...]:
    """Read checkpoints, ascending and each once."""
    found = set()
    for text in ",".join(values).split(","):
        try:
            checkpoint_pct = float(text)
        except ValueError as error:
            raise click.BadParameter(f"expected percentages such as {_DEFAULT_CHECKPOINTS}, got {text!r}") from error
        # As the service has it: a model for another checkpoint would never be asked.
        if not MIN_CHECKPOINT_PCT <= checkpoint_pct <= MAX_CHECKPOINT_PCT:
            bounds = f"{MIN_CHECKPOINT_PCT:g} to {MAX_CHECKPOINT_PCT:g}"
            raise click.BadParameter(f"expected percentages from {bounds}, got {text!r}")
        found.add(checkpoint_pct)
    return tuple(sorted(found))


def _archetype_count(_context: click.Context, _parameter: click.Parameter, value: str) -> int | None:
    """Read a number of archetypes; None is for ``auto``."""
    if value == AUTO:
        return None
    if not value.isdecimal() or int(value) < 2:
        raise click.BadParameter(f"expected a number of at least 2, or {AUTO}, got {value!r}")
    return int(value)


def _iso_date(_context: click.Context, _parameter: click.Parameter, value: str | None) -> str | None:
    if value is None:
        return None
    try:
        return date.fromisoformat(value).isoformat()
    except ValueError as error:
        raise click.BadParameter(f"expected a date such as 2025-01-31, got {value!r}") from error


def check_period(first: str | None, last: str | None) -> None:
    """Refuse a period that ends before it begins.

    Raises
    ------
    click.BadParameter
    """
    if first is not None and last is not None and first > last:
        raise click.BadParameter(f"expected a date up to that of --until, got {first} and {last}", param_hint="--from")


input_option: Final = click.option(
    "--input",
    "source",
    type=click.Path(exists=True, path_type=Path),
    required=True,
    help="JSON Lines of messages, a session document, or a folder of such files.",
)
_from_option: Final = click.option(
    "--from", "first", callback=_iso_date, metavar="DATE", help="Leave out sessions dated before, such as 2025-01-31."
)
_until_option: Final = click.option(
    "--until", "last", callback=_iso_date, metavar="DATE", help="Leave out sessions dated after."
)
profile_option: Final = click.option(
    "--profile",
    type=click.Choice([AUTO, *PROFILES]),
    default=AUTO,
    show_default=True,
    help="Which features tell archetypes apart; auto chooses by the same evidence.",
)
checkpoints_option: Final = click.option(
    "--checkpoints",
    multiple=True,
    default=(_DEFAULT_CHECKPOINTS,),
    show_default=_DEFAULT_CHECKPOINTS,
    callback=_checkpoints,
    metavar="PCT[,PCT...]",
    help=f"Completions at which prefixes are cut, in per cent from {MIN_CHECKPOINT_PCT:g} to {MAX_CHECKPOINT_PCT:g}; "
    "may be repeated.",
)
completion_option: Final = click.option(
    "--completion",
    type=click.Choice(list(POLICIES)),
    default="auto",
    show_default=True,
    help="How completion is measured; the service should use the same.",
)


_backend_option: Final = click.option(
    "--backend",
    default="local",
    show_default=True,
    metavar="local|dask|ray",
    help="Where jobs run: processes of this machine, or the workers of a Dask or Ray cluster. The result is the same.",
)
_scheduler_option: Final = click.option(
    "--scheduler", metavar="ADDRESS", help="Of the cluster, such as tcp://10.0.0.5:8786 (dask) or ray://10.0.0.5:10001."
)


def backend_options(command: Command) -> Command:
    """Add ``--backend`` and ``--scheduler``; see `offline.backends.open_backend`."""
    return _backend_option(_scheduler_option(command))


def period_options(command: Command) -> Command:
    """Add ``--from`` and ``--until``, dates as text; see `check_period`."""
    return _from_option(_until_option(command))


def archetypes_option(auto: str) -> Callable[[Command], Command]:
    """Return the option of how many archetypes; `auto` says what the default does."""
    return click.option(
        "--archetypes",
        callback=_archetype_count,
        default=AUTO,
        show_default=True,
        metavar="N|auto",
        help=f"How many to learn; auto chooses {auto}.",
    )


def seed_option(of_what: str) -> Callable[[Command], Command]:
    """Return the option of a seed; `of_what` says what is drawn with it."""
    return click.option(
        "--seed", type=click.IntRange(0, _MAX_SEED), default=0, show_default=True, help=f"Seed of {of_what}."
    )


def n_jobs_option(default: str, work: str = "") -> Callable[[Command], Command]:
    """Return the option of how many processes, 0 for the default, which `default` describes."""
    return click.option(
        "--n-jobs",
        type=click.IntRange(min=-1),
        default=0,
        show_default=default,
        help=f"Processes{work}; -1 is one a core. The result is the same for any number.",
    )
