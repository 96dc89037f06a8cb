"""Sidecar files: the prediction beside the session's other artifacts, whole or not at all.

A sidecar is written to a temporary file in the same folder, flushed to disk and renamed over the old one, so that a
reader or a crash never sees half of it; writing the same prediction again gives the same bytes. It never goes back to
an earlier checkpoint: a process that was paused, and wakes up when others have long gone on, must not undo their work.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Final
from urllib.parse import quote

import msgspec

__all__ = ["SIDECAR_NAME", "check_writable", "session_dir_name", "write_atomically", "write_session_sidecar"]

SIDECAR_NAME: Final = "session_fingerprint.json"
#: File names may have 255 bytes nearly everywhere; longer ones are cut here and told apart by a digest.
_MAX_NAME_LENGTH: Final = 200


def session_dir_name(session_id: str) -> str:
    """Return the folder name of a session id: one folder, another for every id (where file names have case).

    Examples
    --------
    >>> session_dir_name("NY_AM_2025-07-29")
    'NY_AM_2025-07-29'
    >>> session_dir_name("../etc")
    '..%2Fetc'
    >>> session_dir_name("..")
    '%2E%2E'
    """
    name = quote(session_id, safe="", errors="surrogatepass")
    if not name.strip("."):
        name = name.replace(".", "%2E")
    if len(name) > _MAX_NAME_LENGTH:
        digest = hashlib.sha256(session_id.encode("utf-8", "surrogatepass")).hexdigest()[:32]
        name = f"{name[: _MAX_NAME_LENGTH - 40]}%{digest}"
    return name


def write_session_sidecar(sidecar_dir: Path, session_id: str, content: bytes) -> Path:
    """Write ``<sidecar_dir>/<session id>/session_fingerprint.json`` and return its path.

    A prediction of the same model at a later checkpoint that is there already stays.

    Raises
    ------
    OSError
        When the folder cannot be made or written.
    """
    path = sidecar_dir / session_dir_name(session_id) / SIDECAR_NAME
    write_atomically(path, content, unless=lambda: _has_later(path, content))
    return path


class _Classification(msgspec.Struct):
    checkpoint_pct: float
    model_version: str


class _Sidecar(msgspec.Struct):
    session_id: str
    classification_metadata: _Classification


_decode: Final = msgspec.json.Decoder(_Sidecar).decode


def _has_later(path: Path, content: bytes) -> bool:
    try:
        old, new = _decode(path.read_bytes()), _decode(content)
    except (OSError, msgspec.MsgspecError):
        return False
    return (
        old.session_id == new.session_id
        and old.classification_metadata.model_version == new.classification_metadata.model_version
        and old.classification_metadata.checkpoint_pct > new.classification_metadata.checkpoint_pct
    )


def write_atomically(path: Path, content: bytes, *, unless: Callable[[], bool] = lambda: False) -> None:
    """Write a file whole or not at all, and on disk when this returns; folders are made as needed.

    Parameters
    ----------
    path : Path
    content : bytes
    unless : callable
        Asked at the last moment; the old file stays where it says so.

    Raises
    ------
    OSError
        When it cannot be written; an older file of that name is untouched then.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # Named after the content: what a kill leaves behind is taken up by whoever writes the same again, and two who write
    # it at once write the same bytes. Hence never truncated, so that it never gets shorter under the other's hands.
    temporary = path.parent / f".{path.name}.{hashlib.sha256(content).hexdigest()[:16]}"
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
            os.fchmod(file.fileno(), 0o644)
        if unless():
            temporary.unlink(missing_ok=True)
            return
        _put_in_place(temporary, path, content)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    _sync_directory(path.parent)


def _put_in_place(temporary: Path, path: Path, content: bytes) -> None:
    try:
        temporary.replace(path)
    except FileNotFoundError:
        # The other one was quicker.
        if path.read_bytes() != content:
            raise


def check_writable(folder: Path) -> None:
    """See whether a file can be written to a folder, or to the nearest one above it that exists.

    Raises
    ------
    OSError
        When not.
    """
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    with tempfile.TemporaryFile(dir=folder):
        pass


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
