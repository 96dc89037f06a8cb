"""A copy of this tree without anything that is compiled: for tools that have to see the Python of the core run."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Final

__all__ = ["ROOT", "copy_tree"]

ROOT: Final = Path(__file__).resolve().parents[2]


def copy_tree(target: Path) -> None:
    """Copy what git knows of this tree, and what it would be told of, to `target`, in place of what is there."""
    shutil.rmtree(target, ignore_errors=True)
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT, capture_output=True, check=True,
    ).stdout.decode()  # fmt: skip
    for name in listed.split("\0"):
        if name and (ROOT / name).is_file():
            copied = target / name
            copied.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, copied)
