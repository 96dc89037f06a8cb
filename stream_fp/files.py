"""Sessions on disk as records: JSON Lines of messages, session documents, Parquet, and folders of these.

I/O at the edge of replay and training. A file's record number takes the place of the Kafka offset, the session id
that of the record key, so that the engine cannot tell the difference. JSON may be compressed with gzip or Zstandard;
Parquet is read by the offline package, where it is installed.

Invariant: however large a file, a line or what an archive unpacks to, no more than `MAX_LINE_BYTES` of it and some
hundred kilobytes are held at once; and all records before the place where a file cannot be read are handed out first.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec

from stream_fp.compressed import ARCHIVE_SUFFIXES, Read, content_suffix, open_bytes
from stream_fp.documents import adapt_document, is_document
from stream_fp.errors import DocumentError
from stream_fp.extensions import load_extension

__all__ = [
    "MAX_LINE_BYTES", "FileRecord", "find_files", "is_document_file", "key_of_value", "read_document", "read_records",
]  # fmt: skip

#: Of a line, and of a session document. Far more than the largest record that Kafka is usually given (1 MiB), little
#: enough to be held in memory. Longer lines are left out of memory, and reach the engine as a record of this size and
#: one byte, of zeros, which it refuses as too large (or, should `max_record_bytes` be larger, as no JSON).
MAX_LINE_BYTES: Final = 64 * 2**20
_JSON_SUFFIXES: Final = (".jsonl", ".ndjson", ".json")
_DOCUMENT_SUFFIX: Final = ".json"
_PARQUET_SUFFIX: Final = ".parquet"
_SUFFIXES: Final = (
    *_JSON_SUFFIXES,
    *(json + archive for json in _JSON_SUFFIXES for archive in ARCHIVE_SUFFIXES),
    _PARQUET_SUFFIX,
)
#: Names of files and folders that begin so are not meant to be read: hidden ones, and what Spark and others leave
#: beside their output (``_SUCCESS``, ``_temporary``, ``_delta_log``).
_PRIVATE: Final = (".", "_")
#: What msgspec raises at bytes that are no JSON, no UTF-8, or nested without end.
_MALFORMED: Final = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)


@dataclass(frozen=True, slots=True)
class FileRecord:
    """One record of a file; has what the engine asks of a record."""

    offset: int
    key: bytes | None
    value: bytes | None


def find_files(source: Path) -> list[Path]:
    """Return the session files of `source`, itself one or a folder of them, in order of name.

    In a folder these are the files that end in ``.jsonl``, ``.ndjson`` or ``.json``, compressed (``.gz``, ``.zst``) or
    not, or in ``.parquet``, at any depth; but none whose name, or that of a folder on the way, begins with a dot or an
    underscore.

    Raises
    ------
    DocumentError
        When there is none, or they cannot be looked for.
    """
    try:
        if source.is_file():
            return [source]
        if not source.is_dir():
            raise DocumentError(str(source), "expected a file or a folder, found nothing")
        files = sorted(path for path in source.rglob("*") if _is_session_file(path, source) and path.is_file())
    except OSError as error:
        raise _unreadable(source, error) from error
    if not files:
        raise DocumentError(str(source), f"expected files ending in {', '.join(_SUFFIXES)}, found none")
    return files


def _is_session_file(path: Path, source: Path) -> bool:
    return path.name.endswith(_SUFFIXES) and not any(
        part.startswith(_PRIVATE) for part in path.relative_to(source).parts
    )


def read_records(path: Path, *, first_offset: int = 0) -> Iterator[FileRecord]:
    """Read one file record by record.

    A ``.json`` file that holds one document gives its messages, a ``.parquet`` file its rows; every other file is
    read line by line, and a line that is no message is passed on as it is, for the engine to refuse.

    Raises
    ------
    DocumentError
        When the file cannot be read, or is a document of the wrong shape. Where that shows only in the middle of a
        file, it is raised after the records before.
    ConfigError
        When a package that reads such files is not installed.
    """
    if content_suffix(path) == _PARQUET_SUFFIX:
        yield from _parquet_records(path, first_offset)
        return
    content = _document_content(path)
    if content is not None:
        messages = adapt_document(_document(content, path), where=str(path)).messages
        for offset, message in enumerate(messages, first_offset):
            yield FileRecord(offset, message["session_id"].encode(), msgspec.json.encode(message))
        return
    n_lines = 0
    try:
        with open_bytes(path) as read:
            # Offsets are line numbers, so that a record can be found again; empty lines leave gaps, as in a topic.
            for n_lines, line in enumerate(_lines(read), 1):
                if line is None:
                    yield FileRecord(first_offset + n_lines - 1, None, _too_long())
                elif value := line.strip():
                    yield FileRecord(first_offset + n_lines - 1, key_of_value(value), value)
    except OSError as error:
        raise _unreadable(path, error, f"reading ended after line {n_lines}: " if n_lines else "") from error


def is_document_file(path: Path) -> bool:
    """Tell whether a file holds one session document rather than lines of messages.

    Raises
    ------
    DocumentError
        When the file cannot be read, or is a document that is too large.
    """
    return _document_content(path) is not None


def read_document(path: Path) -> dict[str, Any]:
    """Read a session document.

    Raises
    ------
    DocumentError
        When the file is no JSON object.
    """
    try:
        with open_bytes(path) as read:
            return _document(_rest(read, path), path)
    except OSError as error:
        raise _unreadable(path, error) from error


def key_of_value(value: bytes) -> bytes | None:
    """Return the record key of a message that has none of its own: its session id; None where it names none.

    Examples
    --------
    >>> key_of_value(b'{"session_id": "NY_AM_2025-07-29", "timestamp": 1753799700}')
    b'NY_AM_2025-07-29'
    """
    try:
        session_id = _decode_identity(value).session_id
    except _MALFORMED:
        return None
    return session_id.encode("utf-8", "surrogatepass") if session_id else None


class _Identity(msgspec.Struct):
    session_id: str | None = None


_decode_identity: Final = msgspec.json.Decoder(_Identity).decode


# ------------------------------------------------------------------------------------------------------------- lines


def _lines(read: Read) -> Iterator[bytes | None]:
    r"""Yield lines without their ``\n``, and None for each that is too long.

    Splitting what is read takes less time than the iterator of a file, and works the same for archives.
    """
    held: list[bytes] = []
    n_held = 0
    while piece := read():
        first, *others = piece.split(b"\n")
        # Of a line that is too long nothing more than its length is kept.
        n_held += len(first)
        if n_held <= MAX_LINE_BYTES:
            held.append(first)
        else:
            held.clear()
        if not others:
            continue
        yield b"".join(held) if n_held <= MAX_LINE_BYTES else None
        last = others.pop()
        for line in others:
            yield line if len(line) <= MAX_LINE_BYTES else None
        held, n_held = [last], len(last)
    if n_held:
        yield b"".join(held) if n_held <= MAX_LINE_BYTES else None


@functools.cache
def _too_long() -> bytes:
    """Return what stands for every line that is too long: one for all, and never touched memory costs nothing."""
    return bytes(MAX_LINE_BYTES + 1)


# --------------------------------------------------------------------------------------------------------- documents


def _document_content(path: Path) -> bytes | None:
    """Return all of a file that holds a session document, None where it holds lines of messages."""
    if content_suffix(path) != _DOCUMENT_SUFFIX:
        return None
    try:
        with open_bytes(path) as read:
            return _sniff(read, path)
    except OSError as error:
        raise _unreadable(path, error) from error


def _sniff(read: Read, path: Path) -> bytes | None:
    start = bytearray()
    n_line = -1
    while n_line < 0 and len(start) <= MAX_LINE_BYTES and (piece := read()):
        n_before = len(start)
        start += piece
        n_line = start.find(b"\n", n_before)
    # Without a line end the file is one line; or one line that is too long, of which nothing can be told.
    first_line = bytes(start if n_line < 0 else start[: n_line + 1])
    has_object = _is_json_object(first_line)
    if has_object:
        # Lines have more than one value. Of a long file of them, this reads no more than the beginning.
        rest = bytes(start[len(first_line) :])
        while not rest.strip() and (piece := read()):
            rest = piece
        if rest.strip():
            return None
        content = first_line
    else:
        content = _rest(read, path, start)
    try:
        return content if is_document(msgspec.json.decode(content)) else None
    except _MALFORMED:
        # A broken document has no value at all.
        return content


def _rest(read: Read, path: Path, start: bytes | bytearray = b"") -> bytes:
    """Return `start` and all that is still to be read."""
    content = bytearray(start)
    while len(content) <= MAX_LINE_BYTES and (piece := read()):
        content += piece
    if len(content) > MAX_LINE_BYTES:
        raise DocumentError(str(path), f"expected a session document of at most {MAX_LINE_BYTES} bytes, got more")
    return bytes(content)


def _document(content: bytes, path: Path) -> dict[str, Any]:
    try:
        return msgspec.json.decode(content, type=dict[str, Any])
    except _MALFORMED as error:
        raise DocumentError(str(path), f"expected a session document: {error}") from error


def _is_json_object(line: bytes) -> bool:
    try:
        return isinstance(msgspec.json.decode(line), dict)
    except _MALFORMED:
        return False


# ------------------------------------------------------------------------------------------------------------ others


def _parquet_records(path: Path, first_offset: int) -> Iterator[FileRecord]:
    if path.suffix != _PARQUET_SUFFIX:
        raise DocumentError(str(path), "expected Parquet as it is, which is compressed inside, got it compressed again")
    records: Iterator[FileRecord] = load_extension("parquet", setting="input")(path, first_offset=first_offset)
    yield from records


def _unreadable(path: Path, error: OSError, before: str = "") -> DocumentError:
    return DocumentError(str(path), f"{before}{error.strerror or error}")
