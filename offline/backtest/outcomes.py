"""The rows of a backtest as a table: read from JSON Lines as the replay wrote them, and written as Parquet.

First station of a backtest: one row a prediction, in the order of the file. The columns are the fields of
`stream_fp.replay.rows.BacktestRow`, by the same names and with the same nulls.

Invariant: the same rows give the same bytes of Parquet, and the table read back from them is the same.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import polars as pl

from stream_fp.errors import DocumentError

__all__ = ["SCHEMA", "matrix", "parquet_bytes", "read_outcomes"]

_NUMBERS: Final = pl.List(pl.Float64)
#: The fields of a `BacktestRow`.
_TYPES: Final[dict[str, pl.DataType | type[pl.DataType]]] = {
    "source": pl.String,
    "offset": pl.Int64,
    "first_offset": pl.Int64,
    "is_cut_at_start": pl.Boolean,
    "outcome": pl.String,
    "session_id": pl.String,
    "session_type": pl.String,
    "date": pl.String,
    "checkpoint_pct": pl.Float64,
    "pct_seen": pl.Float64,
    "predicted_us": pl.Int64,
    "local_hour": pl.Int64,
    "start_us": pl.Int64,
    "archetype_id": pl.Int64,
    "confidence": pl.Float64,
    "probabilities": _NUMBERS,
    "range_so_far_pct": pl.Float64,
    "range_p10_pct": pl.Float64,
    "range_p50_pct": pl.Float64,
    "range_p90_pct": pl.Float64,
    "n_seen": pl.Int64,
    "features": _NUMBERS,
    "true_archetype_id": pl.Int64,
    "final_range_pct": pl.Float64,
    "n_events": pl.Int64,
    "final_phase_rates": _NUMBERS,
    "rest": _NUMBERS,
    "end_us": pl.Int64,
    "path_pct": _NUMBERS,
}
SCHEMA: Final = pl.Schema(_TYPES)
#: Rows that a reader of the Parquet file gets at once: some 50 MB in memory.
_ROW_GROUP: Final = 50_000


def read_outcomes(path: Path) -> pl.DataFrame:
    """Read rows that a replay wrote.

    Raises
    ------
    DocumentError
        When it cannot be read, or does not hold rows.
    """
    try:
        if path.stat().st_size == 0:
            return pl.DataFrame(schema=SCHEMA)
        return pl.read_ndjson(path, schema=SCHEMA)
    except OSError as error:
        raise DocumentError(str(path), f"cannot be read: {error.strerror or error}") from error
    except pl.exceptions.PolarsError as error:
        raise DocumentError(str(path), f"expected rows of a backtest: {error}") from error


def parquet_bytes(table: pl.DataFrame) -> bytes:
    """Return a table as Parquet."""
    file = io.BytesIO()
    table.write_parquet(file, compression="zstd", compression_level=3, statistics=True, row_group_size=_ROW_GROUP)
    return file.getvalue()


def matrix(column: pl.Series, width: int) -> npt.NDArray[np.float64]:
    """Return a column of lists of `width` numbers as an ndarray of shape (n_rows, width); what is null becomes NaN.

    Examples
    --------
    >>> matrix(pl.Series([[1.0, None], None], dtype=pl.List(pl.Float64)), 2).tolist()
    [[1.0, nan], [nan, nan]]
    """
    found = np.full((len(column), width), np.nan)
    known = column.is_not_null().to_numpy()
    if known.any():
        numbers = column.filter(column.is_not_null()).list.to_array(width).explode()
        found[known] = numbers.cast(pl.Float64).to_numpy().reshape(-1, width)
    return found
