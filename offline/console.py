"""What the commands say while they work: a progress bar on a terminal, plain lines elsewhere, all on stderr.

Results go to stdout, through `result_console`, so that they can be piped. Commands to run next are spelled so that they
can be pasted: `program_path` and `command_lines`.
"""

from __future__ import annotations

import contextlib
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

import click
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as ProgressBar
from rich.text import Text

__all__ = ["command_lines", "file_progress", "program_path", "record_progress", "result_console", "say",
           "work_progress"]  # fmt: skip

#: Of tables that do not go to a terminal: wide enough for one line an archetype.
_PLAIN_WIDTH: Final = 140
#: Of commands to paste: fits every terminal.
_COMMAND_WIDTH: Final = 80


def say(line: str) -> None:
    """Write one line to stderr."""
    click.echo(line, err=True)


def result_console(*, to_stderr: bool = False) -> Console:
    """Return a console on stdout, or on stderr where stdout is taken by something else."""
    stream = sys.stderr if to_stderr else sys.stdout
    return Console(file=stream, width=None if stream.isatty() else _PLAIN_WIDTH)


def program_path() -> str:
    """Return the ``stream-fp`` that belongs to this process: by the path it was called by, else by name."""
    called = sys.argv[0]
    if Path(called).name == "stream-fp-offline":
        return called.removesuffix("-offline")
    return called if Path(called).name == "stream-fp" else "stream-fp"


def command_lines(*parts: Sequence[str | Path]) -> str:
    r"""Spell a command for a shell, indented, in lines of 80 columns that are broken between parts only.

    Examples
    --------
    >>> print(command_lines(("train",), ("--input", "a b.jsonl"), ("--output", "models/session_fingerprints/v1.0.2")))
       train --input 'a b.jsonl' --output models/session_fingerprints/v1.0.2
    >>> print(command_lines(("stream-fp", "replay"), ("--input", "x" * 40), ("--output", "y" * 20)))
       stream-fp replay --input xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx \
           --output yyyyyyyyyyyyyyyyyyyy
    """
    lines: list[str] = []
    line = ""
    for part in parts:
        words = shlex.join(str(word) for word in part)
        if not line:
            line = f"   {words}"
        elif len(line) + len(f" {words} \\") <= _COMMAND_WIDTH:
            line += f" {words}"
        else:
            lines.append(f"{line} \\")
            line = f"       {words}"
    return "\n".join([*lines, line])


@contextlib.contextmanager
def work_progress(noun: str) -> Iterator[Callable[[str, int, int], None]]:
    """Yield a function that is told the stage, how many things are done, and of how many; `noun` names one thing."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _say_tenths(noun)
        return
    bar = ProgressBar(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), console=console
    )
    with bar:
        tasks = {}

        def tell(stage: str, n_done: int, n_all: int) -> None:
            if stage not in tasks:
                tasks[stage] = bar.add_task(stage, total=n_all)
            bar.update(tasks[stage], completed=n_done)

        yield tell


@contextlib.contextmanager
def record_progress(label: str) -> Iterator[Callable[[int, int], None]]:
    """Yield a function that is told how many records are done, and of how many: with their speed and the time left.

    Parameters
    ----------
    label : str
        What is done with them.
    """
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _say_records(label)
        return
    bar = ProgressBar(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        _SpeedColumn(),
        TimeRemainingColumn(),
        console=console,
    )
    with bar:
        task = bar.add_task(label, total=None)
        yield lambda n_done, n_all: bar.update(task, completed=n_done, total=n_all)


class _SpeedColumn(ProgressColumn):
    """Records a second."""

    def render(self, task: Task) -> Text:
        """Return the speed of late, or at the end that of the whole."""
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:,.0f} records/s", style="progress.data.speed")


def _say_records(label: str) -> Callable[[int, int], None]:
    # About ten lines, however many records there are.
    began, said = time.monotonic(), -1

    def tell(n_done: int, n_all: int) -> None:
        nonlocal said
        tenth = 10 * n_done // max(1, n_all)
        if tenth <= said or (tenth == 0 and n_done < n_all):
            return
        said = tenth
        speed = n_done / max(time.monotonic() - began, 1e-9)
        left = f", {_spelled(round((n_all - n_done) / max(speed, 1e-9)))} left" if n_done < n_all else ""
        say(f"{label}: {n_done:,} of {n_all:,} records, {speed:,.0f} records/s{left}")

    return tell


def _spelled(seconds: int) -> str:
    """Spell a duration.

    Examples
    --------
    >>> _spelled(7), _spelled(3725)
    ('0:07', '1:02:05')
    """
    minutes, second = divmod(seconds, 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02d}:{second:02d}" if hours else f"{minute}:{second:02d}"


def file_progress() -> contextlib.AbstractContextManager[Callable[[str, int, int], None]]:
    """Return the progress of work on files."""
    return work_progress("file")


def _say_tenths(noun: str) -> Callable[[str, int, int], None]:
    # About ten lines a stage, however many things there are; of few things one line, when they are done.
    said: dict[str, int] = {}

    def tell(stage: str, n_done: int, n_all: int) -> None:
        tenth = 10 * n_done // max(1, n_all)
        if n_done == n_all or (n_all > 100 and tenth > said.get(stage, 0)):
            said[stage] = tenth
            say(f"{stage}: {n_done} of {n_all} {noun}{'s' * (n_all != 1)}")

    return tell
