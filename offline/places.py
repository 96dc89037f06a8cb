"""Places on disk that a command will write to, looked at before the work that takes minutes."""

from __future__ import annotations

import tempfile
from pathlib import Path

from stream_fp.errors import ConfigError

__all__ = ["check_place"]


def check_place(setting: str, path: Path) -> None:
    """Refuse a file or folder to be written whose parent cannot be made or written; nothing is left behind.

    Asks the file system itself, by writing: permission bits say nothing of read-only mounts, or to the superuser.

    Raises
    ------
    ConfigError
        When it cannot be written there.
    """
    try:
        parent = path.absolute().parent
        while not parent.exists():
            parent = parent.parent
        with tempfile.TemporaryDirectory(dir=parent, prefix=".stream-fp-"):
            pass
    except OSError as error:
        raise ConfigError(setting, f"{path} cannot be written: {error.strerror or error}") from error
