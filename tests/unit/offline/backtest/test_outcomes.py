"""Rows as a table, and as Parquet: nothing is lost and nothing changes on the way."""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import Any

import msgspec
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from offline.backtest.outcomes import SCHEMA, matrix, parquet_bytes, read_outcomes
from stream_fp.errors import DocumentError
from stream_fp.replay.rows import BacktestRow, encode_row
from tests.support.backtests import a_row

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
NUMBER = st.floats(allow_nan=False, allow_infinity=False)
NUMBERS = st.lists(st.none() | NUMBER, min_size=1, max_size=5)
ROWS = st.lists(
    st.builds(
        a_row,
        st.integers(0, 400),
        session_id=TEXT,
        session_type=TEXT,
        source=TEXT,
        outcome=st.sampled_from(["known", "open", "unheld"]),
        confidence=NUMBER,
        probabilities=st.lists(NUMBER, max_size=6),
        range_p90_pct=NUMBER,
        features=NUMBERS,
        path_pct=st.none() | NUMBERS,
        end_us=st.none() | st.integers(-(2**60), 2**60),
        offset=st.integers(0, 2**62),
    ),
    max_size=5,
)


def written(path: Path, rows: list[BacktestRow]) -> Path:
    path.write_bytes(b"".join(encode_row(row) + b"\n" for row in rows))
    return path


def plain(rows: list[BacktestRow]) -> list[dict[str, Any]]:
    """Return rows as JSON has them: what is not a number is null."""
    return [msgspec.json.decode(encode_row(row)) for row in rows]


def test_columns_are_the_fields_of_a_row() -> None:
    assert tuple(SCHEMA) == BacktestRow.__struct_fields__


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(rows=ROWS)
def test_parquet_holds_what_the_lines_hold(tmp_path: Path, rows: list[BacktestRow]) -> None:
    table = read_outcomes(written(tmp_path / "rows.jsonl", rows))
    content = parquet_bytes(table)
    back = pl.read_parquet(io.BytesIO(content))
    assert back.schema == SCHEMA
    assert back.to_dicts() == plain(rows)
    assert parquet_bytes(read_outcomes(tmp_path / "rows.jsonl")) == content


def test_row_that_is_not_a_number_anywhere_is_null_everywhere(tmp_path: Path) -> None:
    row = a_row(0, path_pct=[math.nan] * 41, features=[math.nan] * 30, rest=[math.nan] * 10)
    table = read_outcomes(written(tmp_path / "rows.jsonl", [row]))
    assert table["path_pct"][0].null_count() == 41
    assert math.isnan(matrix(table["features"], 30)[0, 29])


def test_order_and_whole_numbers_are_kept_over_many_rows(tmp_path: Path) -> None:
    rows = [a_row(i, offset=2**53 + i) for i in range(3000)]
    assert read_outcomes(written(tmp_path / "rows.jsonl", rows))["offset"].to_list() == [row.offset for row in rows]


def test_no_rows_are_a_table_without_rows(tmp_path: Path) -> None:
    table = read_outcomes(written(tmp_path / "rows.jsonl", []))
    assert table.schema == SCHEMA
    assert len(pl.read_parquet(io.BytesIO(parquet_bytes(table)))) == 0


@pytest.mark.parametrize("content", [b"{", b'{"offset": "text"}\n', b"[1]\n"])
def test_content_that_is_no_rows_is_refused_with_the_files_name(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(content)
    with pytest.raises(DocumentError, match=r"rows\.jsonl"):
        read_outcomes(path)


def test_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DocumentError, match="No such file"):
        read_outcomes(tmp_path / "rows.jsonl")
