"""``stream-fp-offline simulate``: simulated sessions as messages, to try training without data.

Only options and order of work; the work itself is in `offline.simulate`.
"""

from __future__ import annotations

import datetime as dt
from itertools import chain
from pathlib import Path
from typing import Final

import click

__all__ = ["simulate_command"]

_MAX_SEED: Final = 2**32 - 1
#: As in `stream_fp.times`; the last day leaves room for the sessions after it.
_FIRST_YEARS: Final = range(1971, 2100)


def _first_date(_context: click.Context, _parameter: click.Parameter, value: dt.datetime) -> dt.date:
    if value.year not in _FIRST_YEARS:
        raise click.BadParameter(f"expected a date from {_FIRST_YEARS[0]} to {_FIRST_YEARS[-1]}, got {value.date()}")
    return value.date()


@click.command("simulate")
@click.option(
    "--sessions",
    "n_sessions",
    type=click.IntRange(1, 100_000),
    default=700,
    show_default=True,
    help="How many to simulate, seven each weekday.",
)
@click.option(
    "--instruments",
    "n_instruments",
    type=click.IntRange(1, 1000),
    default=1,
    show_default=True,
    help="Of so many instruments at the same time, so many sessions each; their numbers end the session ids.",
)
@click.option("--seed", type=click.IntRange(0, _MAX_SEED), default=0, show_default=True, help="Seed of the simulation.")
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    required=True,
    help="File of JSON Lines, such as sessions.jsonl; must not exist.",
)
@click.option(
    "--first-date",
    type=click.DateTime(["%Y-%m-%d"]),
    default="2025-01-06",
    show_default=True,
    callback=_first_date,
    metavar="YYYY-MM-DD",
    help="Day of the first session.",
)
@click.option("--force", is_flag=True, help="Replace the output file.")
def simulate_command(
    *, n_sessions: int, n_instruments: int, seed: int, output: Path, first_date: dt.date, force: bool
) -> None:
    """Simulate trading sessions, and write their messages."""
    import msgspec  # noqa: PLC0415 - see `offline.commands`

    from offline.console import work_progress  # noqa: PLC0415
    from offline.places import check_new_file, write_whole  # noqa: PLC0415
    from offline.simulate import interleave, simulate_instrument, simulate_sessions  # noqa: PLC0415
    from offline.topic_summary import print_topic_summary, told_simulated_sessions  # noqa: PLC0415

    check_new_file("output", output, force=force)
    if n_instruments == 1:
        simulated = simulate_sessions(n_sessions, seed=seed, first_date=first_date)
    else:
        simulated = chain.from_iterable(
            simulate_instrument(f"{number:03d}", n_sessions, seed=n_instruments * seed + number, first_date=first_date)
            for number in range(n_instruments)
        )
    sessions = []
    with work_progress("session") as progress:
        for session in simulated:
            sessions.append(session)
            progress("Simulating", len(sessions), n_instruments * n_sessions)
    lines = (msgspec.json.encode(message) + b"\n" for message in interleave(sessions))
    write_whole("output", output, lines)
    print_topic_summary(told_simulated_sessions(sessions), output, source=f"Simulated with seed {seed}")
