"""Print what the changelog says of a version: the notes of its release.

python deploy/release/notes.py 0.1.0
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

CHANGELOG = Path(__file__).parents[2] / "CHANGELOG.md"


def notes(version: str, changelog: str) -> str:
    """Return the section of a version, or of what is not released yet.

    Raises
    ------
    ValueError
        When there is neither.
    """
    sections = re.split(r"^## \[(.*?)\].*$", changelog, flags=re.MULTILINE)
    found = dict(zip(sections[1::2], sections[2::2], strict=True))
    for name in (version, "Unreleased"):
        if found.get(name, "").strip():
            return f"{found[name].strip()}\n"
    msg = f"expected a section [{version}] or [Unreleased] in {CHANGELOG.name}, got {', '.join(found) or 'none'}"
    raise ValueError(msg)


if __name__ == "__main__":
    sys.stdout.write(notes(sys.argv[1], CHANGELOG.read_text("utf-8")))
