"""What the commands say while they work: a progress bar on a terminal, plain lines elsewhere, all on stderr.

Results go to stdout, through `result_console`, so that they can be piped.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from typing import Final

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as ProgressBar

__all__ = ["file_progress", "result_console", "say"]

#: Of tables that do not go to a terminal: wide enough for one line an archetype.
_PLAIN_WIDTH: Final = 140


def say(line: str) -> None:
    """Write one line to stderr."""
    click.echo(line, err=True)


def result_console() -> Console:
    """Return a console on stdout."""
    return Console(file=sys.stdout, width=None if sys.stdout.isatty() else _PLAIN_WIDTH)


@contextlib.contextmanager
def file_progress() -> Iterator[Callable[[str, int, int], None]]:
    """Yield a function that is told the stage, how many files are done, and of how many."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _say_when_done
        return
    bar = ProgressBar(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), console=console
    )
    with bar:
        tasks = {}

        def tell(stage: str, n_done: int, n_files: int) -> None:
            if stage not in tasks:
                tasks[stage] = bar.add_task(stage, total=n_files)
            bar.update(tasks[stage], completed=n_done)

        yield tell


def _say_when_done(stage: str, n_done: int, n_files: int) -> None:
    # About ten lines a stage, however many files there are.
    if n_done == n_files or (n_done % max(1, n_files // 10) == 0 and n_files > 100):
        say(f"{stage}: {n_done} of {n_files} files")
