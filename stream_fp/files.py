"""Sessions on disk as records: JSON Lines of messages, session documents, and folders of both.

I/O at the edge of replay and training. A file's record number takes the place of the Kafka offset, the session id
that of the record key, so that the engine cannot tell the difference.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec

from stream_fp.documents import adapt_document, is_document
from stream_fp.errors import DocumentError

__all__ = ["FileRecord", "find_files", "is_document_file", "read_document", "read_records"]

_SUFFIXES: Final = (".jsonl", ".ndjson", ".json")
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

    Raises
    ------
    DocumentError
        When there is none.
    """
    if source.is_file():
        return [source]
    if not source.is_dir():
        raise DocumentError(str(source), "expected a file or a folder, found nothing")
    files = sorted(path for path in source.rglob("*") if path.suffix in _SUFFIXES and path.is_file())
    if not files:
        raise DocumentError(str(source), f"expected files ending in {', '.join(_SUFFIXES)}, found none")
    return files


def read_records(path: Path, *, first_offset: int = 0) -> Iterator[FileRecord]:
    """Read one file record by record.

    A ``.json`` file that holds one document gives its messages; every other file is read line by line, and a line
    that is no message is passed on as it is, for the engine to refuse.

    Raises
    ------
    DocumentError
        When the file cannot be read, or is a document of the wrong shape.
    """
    if is_document_file(path):
        messages = adapt_document(read_document(path), where=str(path)).messages
        for offset, message in enumerate(messages, first_offset):
            yield FileRecord(offset, message["session_id"].encode(), msgspec.json.encode(message))
        return
    try:
        with path.open("rb") as lines:
            # Offsets are line numbers, so that a record can be found again; empty lines leave gaps, as in a topic.
            for offset, line in enumerate(lines, first_offset):
                if value := line.strip():
                    yield FileRecord(offset, _key_of(value), value)
    except OSError as error:
        raise DocumentError(str(path), error.strerror or str(error)) from error


def is_document_file(path: Path) -> bool:
    """Tell whether a file holds one session document rather than lines of messages."""
    if path.suffix != ".json":
        return False
    try:
        return is_document(msgspec.json.decode(path.read_bytes()))
    except _MALFORMED:
        # JSON Lines under the name .json have more than one value; a broken document has none.
        with path.open("rb") as lines:
            return not _is_json_object(lines.readline())
    except OSError as error:
        raise DocumentError(str(path), error.strerror or str(error)) from error


def read_document(path: Path) -> dict[str, Any]:
    """Read a session document.

    Raises
    ------
    DocumentError
        When the file is no JSON object.
    """
    try:
        return msgspec.json.decode(path.read_bytes(), type=dict[str, Any])
    except (*_MALFORMED, OSError) as error:
        raise DocumentError(str(path), f"expected a session document: {error}") from error


def _is_json_object(line: bytes) -> bool:
    try:
        return isinstance(msgspec.json.decode(line), dict)
    except _MALFORMED:
        return False


class _Identity(msgspec.Struct):
    session_id: str | None = None


_decode_identity: Final = msgspec.json.Decoder(_Identity).decode


def _key_of(value: bytes) -> bytes | None:
    try:
        session_id = _decode_identity(value).session_id
    except _MALFORMED:
        return None
    return session_id.encode("utf-8", "surrogatepass") if session_id else None
