"""What tests of any cluster need: many small files, a watch on what this process opens, commands to run."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
import sys
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest

from offline.dataset import Dataset
from offline.simulate import interleave, simulate_sessions
from stream_fp.cli import main as stream_fp_main
from tests.support.datasets import write_lines

__all__ = ["N_FILES", "N_SESSIONS", "assert_same", "files_in", "no_file_opened", "replay", "watch_openings",
           "write_many_files"]  # fmt: skip

N_FILES: Final = 12
#: Of each file.
N_SESSIONS: Final = 40
#: Opened by this process, in folders that are watched.
_opened: list[str] = []
_watched: list[str] = []


def _note_opening(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "open" and _watched and isinstance(arguments[0], str) and arguments[0].startswith(tuple(_watched)):
        _opened.append(arguments[0])


@functools.cache
def watch_openings() -> None:
    """Begin to watch. Hooks cannot be taken away again; without folders to watch this one does nothing."""
    sys.addaudithook(_note_opening)


@contextlib.contextmanager
def no_file_opened(*folders: Path) -> Iterator[None]:
    """Fail where this process opens a file in one of the folders."""
    _watched.extend(f"{folder}{os.sep}" for folder in folders)
    _opened.clear()
    try:
        yield
        assert _opened == []
    finally:
        _watched.clear()


def write_many_files(folder: Path) -> Path:
    """Write files of sessions, each of one instrument: 480 sessions in all, of 69 days; and a broken one."""
    for number in range(N_FILES):
        simulated = simulate_sessions(N_SESSIONS, seed=100 + number, first_date=date(2025, 1 + number // 2, 6))
        messages = [m | {"session_id": f"{m['session_id']}-{number:02}"} for m in interleave(simulated)]
        write_lines(folder / f"{number:02}.jsonl", messages)
    (folder / "broken.json").write_text("{")
    return folder


def files_in(folder: Path) -> dict[str, bytes]:
    """Return what the files of a folder hold."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def assert_same(one: Dataset, other: Dataset) -> None:
    """Compare data sets to the bit."""
    for field in dataclasses.fields(Dataset):
        found, expected = getattr(one, field.name), getattr(other, field.name)
        if field.name == "prefixes":
            assert list(found) == list(expected)
            for checkpoint_pct, cut in found.items():
                for array in ("rows", "vectors", "rests"):
                    assert getattr(cut, array).tobytes() == getattr(expected[checkpoint_pct], array).tobytes()
        elif isinstance(found, np.ndarray):
            assert found.tobytes() == expected.tobytes()
        else:
            assert found == expected


def replay(*arguments: str | Path, monkeypatch: pytest.MonkeyPatch) -> int:
    """Run `stream-fp replay` in this process; return its status."""
    monkeypatch.setattr(sys, "argv", ["stream-fp", "replay", *map(str, arguments)])
    with pytest.raises(SystemExit) as caught:
        stream_fp_main()
    assert isinstance(caught.value.code, int)
    return caught.value.code
