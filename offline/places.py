"""Places on disk that a command will write to: looked at before the work that takes minutes, and written whole."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable
from pathlib import Path

from stream_fp.errors import ConfigError

__all__ = ["check_new_file", "check_place", "write_whole"]


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


def check_new_file(setting: str, path: Path, *, force: bool) -> None:
    """Refuse a file to be written that exists, unless `force` is set, or cannot be written.

    Raises
    ------
    ConfigError
        When it may not or cannot be written.
    """
    try:
        exists, is_file = path.exists() or path.is_symlink(), path.is_file()
    except OSError as error:
        raise ConfigError(setting, f"{path} cannot be written: {error.strerror or error}") from error
    if exists and not is_file:
        raise ConfigError(setting, f"{path} is no file")
    if exists and not force:
        raise ConfigError(setting, f"{path} exists; give another file, or --force to replace it")
    check_place(setting, path)


def write_whole(setting: str, path: Path, chunks: Iterable[bytes]) -> None:
    """Write a file that appears whole or not at all, whatever becomes of the process; its folder is made.

    Raises
    ------
    ConfigError
        When it cannot be written.
    """
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name[:64]}-", delete=False) as file:
            temporary = Path(file.name)
            file.writelines(chunks)
            file.flush()
            os.fsync(file.fileno())
        # The temporary file is its owner's alone; a result is for whoever may read new files here.
        mask = os.umask(0)
        os.umask(mask)
        temporary.chmod(0o666 & ~mask)
        temporary.replace(path)
        temporary = None
    except OSError as error:
        raise ConfigError(setting, f"{path} cannot be written: {error.strerror or error}") from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
