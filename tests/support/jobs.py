"""Jobs for other processes, which find them by their module."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import NamedTuple

__all__ = ["Word", "count_letters", "die_of", "die_once", "fail_of", "read_where", "repeat", "times"]


class Word(NamedTuple):
    """A job: a word in a file."""

    path: Path
    letter: str


def count_letters(job: Word) -> tuple[str, int, int]:
    """Return the letter, how often it is in the file, and the process that looked."""
    return job.letter, job.path.read_text().count(job.letter), os.getpid()


def times(number: int, other: int) -> int:
    """Return the product."""
    return number * other


def repeat(text: str, number: int) -> str:
    """Return the text so many times."""
    return text * number


def read_where(path: Path) -> tuple[str, int]:
    """Return what a file holds, and the process that read it."""
    return path.read_text(), os.getpid()


def fail_of(number: int) -> int:
    """Fail as a job may."""
    raise ZeroDivisionError(number)


def die_of(_number: int) -> None:
    """End the process, as the system does when memory runs out."""
    os.kill(os.getpid(), signal.SIGKILL)


def die_once(mark: Path, number: int) -> int:
    """End the process if none has ended before, which the mark tells; return the number."""
    try:
        mark.touch(exist_ok=False)
    except FileExistsError:
        return number
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError
