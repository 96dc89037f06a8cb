"""Write a trained library where the service reads it: four files that appear together or not at all.

Last station of training. The structures of the JSON files are those of `stream_fp.library`, which reads them; the
pickles are for notebooks, and ``metadata.json`` holds the SHA-256 of the other three files.

Invariant: the same library gives the same files byte for byte, but for the time of creation in ``metadata.json``.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import shutil
import tempfile
from pathlib import Path
from typing import Final

import joblib
import msgspec

from offline.creation_time import creation_time
from offline.places import check_place
from offline.train import TrainedLibrary
from stream_fp.artifacts import Metadata
from stream_fp.errors import ConfigError
from stream_fp.library import METADATA_FILE, PICKLE_FILES, STATS_FILE

__all__ = ["check_output", "write_library"]

_FILES: Final = (METADATA_FILE, STATS_FILE, *PICKLE_FILES)


def write_library(trained: TrainedLibrary, output: Path, *, force: bool = False) -> Metadata:
    """Write the four artifact files into folder `output`, which appears whole or not at all.

    The time of creation is that of the clock, or of ``SOURCE_DATE_EPOCH`` where it is set.

    Parameters
    ----------
    trained : TrainedLibrary
    output : Path
        Must not exist, unless `force` is set and it holds nothing but an older library.
    force : bool
        Replace an older library.

    Returns
    -------
    Metadata
        As written.

    Raises
    ------
    ConfigError
        When `output` exists and may not be replaced, or cannot be written.
    """
    check_output(output, force=force)
    contents = {name: _pickled(part) for name, part in zip(PICKLE_FILES, (trained.kmeans, trained.scaler), strict=True)}
    contents[STATS_FILE] = _json(trained.stats)
    metadata = msgspec.structs.replace(
        trained.metadata,
        created_at=creation_time(),
        sha256={name: hashlib.sha256(content).hexdigest() for name, content in sorted(contents.items())},
    )
    contents[METADATA_FILE] = _json(metadata)
    try:
        _write_folder(output, contents)
    except OSError as error:
        raise ConfigError("output", f"{output}: {error.strerror or error}") from error
    return metadata


def check_output(output: Path, *, force: bool) -> None:
    """Refuse an output folder that may not be written, before any work is done.

    Raises
    ------
    ConfigError
        When it exists and `force` is not set, holds what is no artifact, or cannot be written.
    """
    try:
        _check_replaceable(output, force=force)
    except OSError as error:
        raise ConfigError("output", f"{output}: {error.strerror or error}") from error
    check_place("output", output)


def _check_replaceable(output: Path, *, force: bool) -> None:
    if not (output.exists() or output.is_symlink()):
        return
    if not force:
        raise ConfigError("output", f"{output} exists; give another folder, or --force to replace the library in it")
    if output.is_symlink() or not output.is_dir():
        raise ConfigError("output", f"{output} is no folder")
    if others := sorted(path.name for path in output.iterdir() if path.name not in _FILES):
        raise ConfigError("output", f"{output} holds more than a library ({others[0]}); it is not replaced")


def _pickled(part: object) -> bytes:
    buffer = io.BytesIO()
    joblib.dump(part, buffer)
    return buffer.getvalue()


def _json(structure: msgspec.Struct) -> bytes:
    return msgspec.json.format(msgspec.json.encode(structure), indent=2) + b"\n"


def _write_folder(output: Path, contents: dict[str, bytes]) -> None:
    output.parent.mkdir(parents=True, exist_ok=True)
    # Beside the output, so that the renaming stays within one file system and is atomic.
    scratch = Path(tempfile.mkdtemp(dir=output.parent, prefix=f".{output.name}."))
    try:
        fresh = scratch / "new"
        fresh.mkdir()
        for name, content in contents.items():
            with (fresh / name).open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        if output.exists():
            old = scratch / "old"
            output.rename(old)
            try:
                fresh.rename(output)
            except BaseException:
                old.rename(output)
                raise
        else:
            fresh.rename(output)
    finally:
        with contextlib.suppress(OSError):
            shutil.rmtree(scratch)
