"""Sessions in Parquet as records of a topic: an extension of `stream_fp.files`, found there by name.

Two layouts are read, told by the names and types of the columns; all other columns are ignored:

===========  ==================================================================================================
a topic      ``value``, JSON as text or bytes, and ``key`` (optional): as they are, null as null. Without ``key``
             the session id in the value is the key, as in JSON Lines
messages     one column a field: ``session_id``, ``timestamp``, ``event_type``, ``price``, and where they are there
             ``intensity``, ``htf_regime``, ``kind``, ``event_id``, ``session_metadata`` (a struct, or JSON as text).
             Null is a field left out; but a null price is a price, that of an event without a quote
===========  ==================================================================================================

Columns of dates and times become ISO 8601: in UTC where the column has a time zone, else without an offset. NaN is
null, as tables without nulls write it, and whole numbers kept as floats for its sake are whole numbers again. What fits
no message is passed on, for the engine to refuse.

Invariant: a row's number is its offset, so that it can be found again; and some rows are held at a time, as many as
take `_BATCH_BYTES`, whatever the size of the file or of its row groups.
"""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

import msgspec
import polars as pl

from stream_fp.errors import DocumentError
from stream_fp.files import FileRecord, key_of_value

__all__ = ["read_parquet"]

_VALUE: Final = "value"
_KEY: Final = "key"
_NEEDED: Final = ("session_id", "timestamp", "event_type", "price")
#: Fields that hold whole numbers where they hold numbers.
_WHOLE: Final = ("htf_regime", "event_id")
_N_COLUMNS_SHOWN: Final = 12
#: Rows read first, before it is known how large they are, and at most; no more at once than so many times the last.
_FIRST_ROWS: Final = 8
_MAX_ROWS: Final = 100_000
_GROWTH: Final = 8
#: Of rows read at once, as polars holds them.
_BATCH_BYTES: Final = 16 * 2**20
_ISO: Final = "%Y-%m-%dT%H:%M:%S%.f"


def read_parquet(path: Path, *, first_offset: int = 0) -> Iterator[FileRecord]:
    """Read the rows of a Parquet file as records.

    Parameters
    ----------
    path : Path
    first_offset : int
        Offset of the first row.

    Raises
    ------
    DocumentError
        When the file cannot be read, or has columns of neither layout.
    """
    place = _Place(path)
    with place.told():
        # Braces and asterisks of a name are no pattern, and folders named `date=2025-01-01` no columns.
        frame = pl.scan_parquet(path, glob=False, hive_partitioning=False)
        schema = frame.collect_schema()
    is_topic = _VALUE in schema and schema[_VALUE] in {pl.String, pl.Binary}
    if is_topic:
        columns = [name for name in (_KEY, _VALUE) if name in schema]
    elif all(name in schema for name in _NEEDED):
        columns = [name for name in _Message.__struct_fields__ if name in schema]
    else:
        raise DocumentError(str(path), _other_layout(schema))
    rows = frame.select(columns)
    n_rows = _FIRST_ROWS
    while True:
        with place.told():
            batch = rows.slice(place.n_done, n_rows).collect()
        if not batch.height:
            return
        found = _topic_rows(batch) if is_topic else _message_rows(batch)
        for offset, (key, value) in enumerate(found, first_offset + place.n_done):
            yield FileRecord(offset, key, value)
        place.n_done += batch.height
        n_rows = max(1, min(_MAX_ROWS, _GROWTH * n_rows, int(n_rows * _BATCH_BYTES / max(1, batch.estimated_size()))))


class _Place:
    """How far a file has been read, for what is said where it cannot be read further."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.n_done = 0

    @contextlib.contextmanager
    def told(self) -> Iterator[None]:
        """Turn whatever polars raises at a broken file into an error that names file and row."""
        try:
            yield
        except (pl.exceptions.PolarsError, OSError) as error:
            why = (getattr(error, "strerror", None) or str(error) or type(error).__name__).splitlines()[0]
        except pl.exceptions.PanicException as error:
            # Some damaged files are beyond what polars looks out for.
            why = f"damaged: {str(error).splitlines()[0]}"
        else:
            return
        after = f"reading ended after row {self.n_done}: " if self.n_done else ""
        raise DocumentError(str(self.path), f"{after}expected Parquet: {why}")


def _other_layout(schema: pl.Schema) -> str:
    names = [f"`{name}`" for name in schema.names()]
    if (n_more := len(names) - _N_COLUMNS_SHOWN) > 0:
        names[_N_COLUMNS_SHOWN:] = [f"{n_more} more"]
    needed = ", ".join(f"`{name}`" for name in _NEEDED)
    return (
        "expected the columns of a topic, `value` (text or bytes) and perhaps `key`, or those of messages, "
        f"{needed}; found {', '.join(names) or 'none'}"
    )


def _topic_rows(batch: pl.DataFrame) -> Iterator[tuple[bytes | None, bytes | None]]:
    values = _bytes(batch[_VALUE])
    if _KEY in batch.columns:
        yield from zip(_bytes(batch[_KEY]), values, strict=True)
    else:
        for value in values:
            yield None if value is None else key_of_value(value), value


def _bytes(column: pl.Series) -> list[bytes | None]:
    if column.dtype != pl.Binary:
        # Keys may be numbers or categories; polars holds text as UTF-8.
        column = column.cast(pl.String).cast(pl.Binary)
    return column.to_list()


class _Message(msgspec.Struct, omit_defaults=True, gc=False):
    """A row as it is written: without the fields that are null, but with a price in any case."""

    price: Any
    session_id: Any = None
    timestamp: Any = None
    event_type: Any = None
    kind: Any = None
    intensity: Any = None
    htf_regime: Any = None
    event_id: Any = None
    session_metadata: Any = None


def _message_rows(batch: pl.DataFrame) -> Iterator[tuple[bytes | None, bytes | None]]:
    encode = msgspec.json.Encoder().encode
    columns = [
        _cells(batch[name]) if name in batch.columns else itertools.repeat(None) for name in _Message.__struct_fields__
    ]
    for message in map(_Message, *columns):
        session_id = message.session_id
        key = session_id.encode() if session_id and isinstance(session_id, str) else None
        yield key, encode(message)


def _cells(column: pl.Series) -> Iterable[Any]:
    """Return a column as values of a message; None is null."""
    dtype = column.dtype
    if column.name == "session_metadata":
        return map(_metadata, column.to_list())
    if isinstance(dtype, pl.Datetime):
        return _iso_texts(column, dtype.time_zone)
    if dtype in {pl.Date, pl.Time, pl.Categorical, pl.Enum}:
        return column.cast(pl.String).to_list()
    if dtype == pl.Binary:
        return [None if cell is None else cell.decode("utf-8", "replace") for cell in column.to_list()]
    if dtype.is_decimal():
        return column.cast(pl.Float64).to_list()
    if dtype.is_float():
        return map(_whole if column.name in _WHOLE else _finite, column.to_list())
    return column.to_list()


def _iso_texts(column: pl.Series, time_zone: str | None) -> list[str | None]:
    moments = column.dt.cast_time_unit("us")
    if time_zone is None:
        return moments.dt.to_string(_ISO).to_list()
    return moments.dt.convert_time_zone("UTC").dt.to_string(f"{_ISO}+00:00").to_list()


def _finite(number: float | None) -> float | str | None:
    if number is None or math.isfinite(number):
        return number
    # JSON knows no infinity, and it must not be taken for null: a text is refused.
    return None if math.isnan(number) else str(number)


def _whole(number: float | None) -> float | str | None:
    return int(number) if number is not None and number.is_integer() else _finite(number)


def _metadata(cell: object) -> object:
    if isinstance(cell, bytes):
        cell = cell.decode("utf-8", "replace")
    if isinstance(cell, str):
        with contextlib.suppress(msgspec.DecodeError, RecursionError):
            return msgspec.json.decode(cell)  # what is no JSON stays a text, which is refused
    if isinstance(cell, dict):
        return {name: value for name, value in cell.items() if value is not None} or None
    return cell
