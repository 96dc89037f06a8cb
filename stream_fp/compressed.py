"""Files as bytes, whatever they are packed in: plain, gzip (``.gz``) or Zstandard (``.zst``), told by the name.

Below `stream_fp.files`, which knows what the bytes mean. A file is unpacked as it is asked for, some at a time, however
large it would be as a whole; archives of several members or frames, as appending makes them, are read to the last.

Invariant: whatever was unpacked before the place where an archive is damaged or cut off is handed out, and then
`OSError` is raised; an archive never just ends early.
"""

from __future__ import annotations

import contextlib
import gzip
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, Final

from stream_fp.errors import ConfigError

__all__ = ["ARCHIVE_SUFFIXES", "content_suffix", "open_bytes"]

#: Of compressed files.
ARCHIVE_SUFFIXES: Final = (".gz", ".zst")
#: Bytes asked of a plain file or of gzip at once: less costs calls, more costs memory and wins nothing.
_READ_BYTES: Final = 2**18
#: Compressed bytes given to Zstandard at once. It unpacks all of them, and four bytes may stand for 128 KiB: so this
#: many give 32 MiB at most.
_ZSTD_BYTES: Final = 2**10

#: Returns some more bytes each time, and none at the end.
Read = Callable[[], bytes]


def content_suffix(path: Path) -> str:
    """Return the suffix of a file's name less that of its compression.

    Examples
    --------
    >>> content_suffix(Path("NY_AM.json.zst")), content_suffix(Path("events.jsonl")), content_suffix(Path("a.gz"))
    ('.json', '.jsonl', '')
    """
    return Path(path.stem).suffix if path.suffix in ARCHIVE_SUFFIXES else path.suffix


@contextlib.contextmanager
def open_bytes(path: Path) -> Iterator[Read]:
    """Open a file to be read piece by piece, unpacked.

    Parameters
    ----------
    path : Path

    Yields
    ------
    callable
        Returns the next bytes, some hundred kilobytes as a rule, and none at the end; raises `OSError` where the file
        cannot be read, or is an archive that is damaged, cut off or none at all.

    Raises
    ------
    ConfigError
        When the file is compressed with Zstandard, and the package that reads it is not installed.
    """
    with path.open("rb", buffering=0) as file:
        match path.suffix:
            case ".gz":
                yield _gzip_reader(file)
            case ".zst":
                yield _Zstandard(file).read
            case _:
                yield lambda: file.read(_READ_BYTES)


def _gzip_reader(file: IO[bytes]) -> Read:
    archive = gzip.GzipFile(fileobj=file)
    is_empty = True

    def read() -> bytes:
        nonlocal is_empty
        try:
            # One step at a time: `read` would lose what it has where the next step fails.
            piece = archive.read1(_READ_BYTES)
        except (EOFError, zlib.error) as error:
            raise OSError(_sentence(error)) from error
        if not piece and is_empty and not file.tell():
            # Python takes it for an archive of nothing; one that holds nothing has twenty bytes.
            msg = "Not a gzipped file: it is empty"
            raise OSError(msg)
        is_empty = False
        return piece

    return read


class _Zstandard:
    """Unpacks one frame after the other."""

    def __init__(self, file: IO[bytes]) -> None:
        try:
            import zstandard  # noqa: PLC0415 - an extra, needed by such files alone
        except ModuleNotFoundError as error:
            raise ConfigError(
                "input", "needs `zstandard` to read .zst files, which is not installed: pip install 'stream-fp[zstd]'"
            ) from error
        self._file = file
        self._error = zstandard.ZstdError
        self._archive = zstandard.ZstdDecompressor()
        self._frame: Any = None
        self._left = b""
        self._n_frames = 0

    def read(self) -> bytes:
        """Return some more bytes."""
        while packed := self._left or self._file.read(_ZSTD_BYTES):
            if self._frame is None:
                self._frame = self._archive.decompressobj()
                self._n_frames += 1
            try:
                piece: bytes = self._frame.decompress(packed)
            except self._error as error:
                raise OSError(_sentence(error)) from error
            self._left = b""
            if self._frame.eof:
                self._left = self._frame.unused_data
                self._frame = None
            if piece:
                return piece
        if self._frame is not None or not self._n_frames:
            msg = "Compressed file ended before the end of its frame"
            raise OSError(msg)
        return b""


def _sentence(error: Exception) -> str:
    return str(error) or type(error).__name__
