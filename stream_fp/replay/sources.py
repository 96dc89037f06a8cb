"""Where a rehearsal reads from: partitions of topics, and files. Some records at a time, and from the start again.

I/O at the edge, below `stream_fp.replay.rehearsal`. Each source ends by itself; what it has read and not handed out is
bounded: 2,000 records of a file, what the client fetches at once (half a megabyte) of a partition, twice.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, Protocol

from aiokafka import AIOKafkaConsumer
from aiokafka.errors import KafkaError

from stream_fp.errors import DocumentError, ServiceError
from stream_fp.files import read_records
from stream_fp.kafka.history import Span
from stream_fp.messages import Record

__all__ = ["FileSource", "OpenFiles", "Source", "TopicSource"]

_TIMEOUT_MS: Final = 1_000
#: Records taken from a file at once. A thread reads it, which takes as long to ask as to read a hundred.
_N_AT_ONCE: Final = 2_000
#: Records taken from a partition at once. Uncompressed, a fetch holds less: so all of it is taken, and only then does
#: the client ask for the next. With 2,000 this took twice the time.
_N_FETCHED: Final = 5_000
#: Files open at once; most systems allow a process 1,024.
_MAX_OPEN: Final = 256


class Source(Protocol):
    """Records in order."""

    @property
    def partition(self) -> int:
        """Number of the partition that it is, or stands for."""

    @property
    def n_in_all(self) -> int:
        """What there is to do, in the unit of `n_done`."""

    def n_done(self, record: Record) -> int:
        """Return how much of it is done with this record."""

    def place(self, record: Record) -> str:
        """Return where a record is, for people."""

    async def read(self) -> Sequence[Record]:
        """Return the next records, none at the end."""

    async def rewind(self) -> None:
        """Go back to the start."""


class TopicSource:
    """A span of one partition.

    Parameters
    ----------
    reader : AIOKafkaConsumer
        Shared; this partition is assigned to it, and read and moved only here.
    span : Span
    patience_s : float
        How long the brokers may have nothing more to give before the end of the span.
    """

    def __init__(self, reader: AIOKafkaConsumer, span: Span, *, patience_s: float) -> None:
        self._reader = reader
        self._span = span
        self._patience_s = patience_s
        self._position = span.first
        self.partition: int = span.partition.partition
        self.n_in_all = span.end - span.first

    def n_done(self, record: Record) -> int:
        """Return how many offsets of the span are done with this record."""
        return record.offset + 1 - self._span.first

    def place(self, record: Record) -> str:
        """Return topic, partition and offset."""
        return f"{self._span.partition.topic}[{self.partition}]@{record.offset}"

    async def read(self) -> Sequence[Record]:
        """Return the next records, none at the end.

        Raises
        ------
        ServiceError
            When the brokers have nothing more of it to give.
        """
        reader, partition, end = self._reader, self._span.partition, self._span.end
        moved_s = time.monotonic()
        while self._position < end:
            try:
                batches = await reader.getmany(partition, timeout_ms=_TIMEOUT_MS, max_records=_N_FETCHED)
                reached = await reader.position(partition)
            except KafkaError as error:
                raise self._broken(repr(error)) from error
            # The last offsets of a span may be markers of transactions, which are no records.
            if reached > self._position:
                self._position, moved_s = reached, time.monotonic()
            elif time.monotonic() - moved_s > self._patience_s:
                raise self._broken(f"nothing came for {self._patience_s:g} s")
            if records := [record for record in batches.get(partition, ()) if record.offset < end]:
                return records
        # What lies behind the span is of no use, and would be fetched and kept.
        reader.pause(partition)
        return ()

    async def rewind(self) -> None:
        """Go back to the start of the span."""
        self._position = self._span.first
        self._reader.seek(self._span.partition, self._position)
        self._reader.resume(self._span.partition)

    def _broken(self, why: str) -> ServiceError:
        topic, number = self._span.partition
        return ServiceError(f"{topic}[{number}]: reading ended at offset {self._position} of {self._span.end}: {why}")


class OpenFiles:
    """Which files are open: no more than a system allows, however many are read side by side."""

    def __init__(self, max_open: int = _MAX_OPEN) -> None:
        self._max_open = max_open
        self._files: OrderedDict[FileSource, None] = OrderedDict()

    def opened(self, file: FileSource) -> FileSource | None:
        """Note that a file is being read; return the one to close in its place, if any."""
        self._files[file] = None
        self._files.move_to_end(file)
        return self._files.popitem(last=False)[0] if len(self._files) > self._max_open else None

    def closed(self, file: FileSource) -> None:
        """Note that a file is closed."""
        self._files.pop(file, None)


class FileSource:
    """One file of sessions, read by threads, so that nothing else waits for the disk.

    Parameters
    ----------
    path : Path
    number : int
        Of the file among all.
    files : OpenFiles
        Shared with the others.

    Attributes
    ----------
    error : str
        Why it could not be read to the end; what comes before that place was handed out.
    """

    n_in_all = 1

    def __init__(self, path: Path, number: int, files: OpenFiles) -> None:
        self._path = path
        self._files = files
        self._records: Iterator[Record] | None = None
        self._n_read = 0
        self._is_over = False
        self.partition = number
        self.error = ""

    def n_done(self, _record: Record) -> int:
        """Return 0: a file is done at its end."""
        return 0

    def place(self, record: Record) -> str:
        """Return file and line."""
        return f"{self._path}:{record.offset + 1}"

    async def read(self) -> Sequence[Record]:
        """Return the next records, none at the end, and none after the place where the file cannot be read."""
        if self._is_over:
            return ()
        if (oldest := self._files.opened(self)) is not None:
            # It is opened again where it was left, which costs reading it up to there.
            oldest.close()
        records, self._is_over = await asyncio.to_thread(self._take)
        self._n_read += len(records)
        if self._is_over:
            self.close()
        return records

    async def rewind(self) -> None:
        """Go back to the first record."""
        self.close()
        self._n_read, self._is_over = 0, False

    def close(self) -> None:
        """Close the file; the next `read` goes on where it was left."""
        self._records = None
        self._files.closed(self)

    def _take(self) -> tuple[list[Record], bool]:
        """Return the next records, and whether these are the last."""
        if self._records is None:
            self._records = itertools.islice(read_records(self._path), self._n_read, None)
        found: list[Record] = []
        try:
            # A list that fails to be extended keeps what it was given before.
            found.extend(itertools.islice(self._records, _N_AT_ONCE))
        except DocumentError as error:
            self.error = str(error)
            return found, True
        return found, len(found) < _N_AT_ONCE
