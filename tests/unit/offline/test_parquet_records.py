"""Parquet in both layouts: the same predictions as from JSON Lines, and clear words where it is neither."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from offline import parquet_records
from offline.parquet_records import read_parquet
from stream_fp.errors import DocumentError
from stream_fp.files import FileRecord, is_document_file, read_records
from stream_fp.outcomes import DeadLetter
from tests.support.builders import SESSION_ID, describe, end, event, make_engine, start

METADATA = {
    **dict.fromkeys(("session_type", "date", "start_time", "end_time", "timezone"), pl.String),
    "expected_events": pl.Int64,
}
SCHEMA: dict[str, Any] = {
    "kind": pl.String, "session_id": pl.String, "timestamp": pl.String, "event_type": pl.String, "price": pl.Float64,
    "intensity": pl.Float64, "htf_regime": pl.Int8, "event_id": pl.String, "session_metadata": pl.Struct(METADATA),
}  # fmt: skip
OTHER_ID = "LONDON_2025-07-29"


def as_messages(path: Path, messages: list[dict[str, Any]], **schema: Any) -> Path:  # noqa: ANN401 - polars' types
    columns = {name: [message.get(name) for message in messages] for name in SCHEMA}
    if schema.get("session_metadata") == pl.String:
        columns["session_metadata"] = [
            None if cell is None else json.dumps(cell) for cell in columns["session_metadata"]
        ]
    pl.DataFrame(columns, schema=SCHEMA | schema).write_parquet(path)
    return path


def as_topic(path: Path, records: list[FileRecord]) -> Path:
    columns = {"key": [record.key for record in records], "value": [record.value for record in records]}
    pl.DataFrame(columns, schema={"key": pl.Binary, "value": pl.Binary}).write_parquet(path)
    return path


def as_lines(path: Path, messages: list[dict[str, Any]]) -> Path:
    path.write_text("\n".join(map(json.dumps, messages)))
    return path


def values(path: Path) -> list[Any]:
    return [None if record.value is None else json.loads(record.value) for record in read_records(path)]


# -------------------------------------------------------------------------------------------------------- round trips

events = st.builds(
    event,
    st.sampled_from((SESSION_ID, OTHER_ID)),
    st.floats(-30, 300).map(lambda minute: round(minute, 4)),
    event_type=st.sampled_from(("expansion", "fvg", "liquidity_sweep", "unheard of", "")),
    price=st.none() | st.floats(1, 1e6),
    intensity=st.none() | st.floats(0, 10),
    htf_regime=st.none() | st.integers(0, 2),
    event_id=st.none() | st.sampled_from(("a", "b", "c")),
)
others = st.sampled_from(
    (
        start(),
        start(expected_events=40, timezone="America/New_York"),
        start(OTHER_ID, start_time="08:00:00", end_time="11:00:00"),
        end(),
        end(OTHER_ID, minute=200.0),
    )
)
streams = st.lists(st.one_of(events, events, events, others), min_size=1, max_size=60)


@given(streams, st.sampled_from((SCHEMA["session_metadata"], pl.String)))
def test_both_layouts_give_what_json_lines_give(
    tmp_path_factory: pytest.TempPathFactory,
    messages: list[dict[str, Any]],
    metadata: Any,  # noqa: ANN401
) -> None:
    folder = tmp_path_factory.mktemp("round")
    lines = as_lines(folder / "events.jsonl", messages)
    expected = list(read_records(lines))
    topic = as_topic(folder / "topic.parquet", expected)
    table = as_messages(folder / "table.parquet", messages, session_metadata=metadata)
    assert list(read_records(topic)) == expected
    assert [(r.offset, r.key) for r in read_records(table)] == [(r.offset, r.key) for r in expected]
    assert outcomes(table) == outcomes(topic) == outcomes(lines)


def outcomes(path: Path) -> list[tuple[int, bytes | None, bytes]]:
    return [
        describe(outcome) for outcome in make_engine(checkpoints_pct=(25.0, 40.0)).process_all(list(read_records(path)))
    ]


def test_stream_that_predicts_predicts_the_same_from_both_layouts(tmp_path: Path) -> None:
    messages = [start(expected_events=20), *(event(minute=i, price=100.0 + i, intensity=0.5) for i in range(19)), end()]
    lines = as_lines(tmp_path / "events.jsonl", messages)
    expected = outcomes(lines)
    assert len(expected) == 2
    assert outcomes(as_messages(tmp_path / "table.parquet", messages)) == expected
    assert outcomes(as_topic(tmp_path / "topic.parquet", list(read_records(lines)))) == expected


# ------------------------------------------------------------------------------------------------------ a topic's dump


def test_nulls_of_a_topic_stay_nulls_and_other_columns_are_ignored(tmp_path: Path) -> None:
    path = tmp_path / "topic.parquet"
    frame = {"offset": [7, 8, 9], "key": [b"a", None, b"\xff"], "value": [None, b"{}", b"no json"], "price": [1, 2, 3]}
    pl.DataFrame(frame).write_parquet(path)
    assert list(read_records(path, first_offset=5)) == [
        FileRecord(5, b"a", None), FileRecord(6, None, b"{}"), FileRecord(7, b"\xff", b"no json"),
    ]  # fmt: skip


def test_value_as_text_without_a_key_is_keyed_by_its_session(tmp_path: Path) -> None:
    path = tmp_path / "topic.parquet"
    texts = [json.dumps(event()), None, "zürich"]
    pl.DataFrame({"value": texts}).write_parquet(path)
    assert list(read_parquet(path)) == [
        FileRecord(0, SESSION_ID.encode(), json.dumps(event()).encode()),
        FileRecord(1, None, None),
        FileRecord(2, None, "zürich".encode()),
    ]


@pytest.mark.parametrize("dtype", [pl.String, pl.Binary, pl.Categorical])
def test_key_may_be_of_any_type_of_text(tmp_path: Path, dtype: Any) -> None:  # noqa: ANN401 - polars' types
    path = tmp_path / "topic.parquet"
    pl.DataFrame({"value": ["{}", "{}"], "key": ["a", None]}).with_columns(pl.col("key").cast(dtype)).write_parquet(
        path
    )
    assert [record.key for record in read_records(path)] == [b"a", None]


# ------------------------------------------------------------------------------------------------------ message fields


def table(path: Path, **columns: Any) -> Path:  # noqa: ANN401 - cells of any type
    n = max(map(len, columns.values()))
    needed: dict[str, Any] = {
        "session_id": [SESSION_ID] * n, "timestamp": ["2025-07-29T14:00:00+00:00"] * n,
        "event_type": ["expansion"] * n, "price": [1.5] * n,
    }  # fmt: skip
    pl.DataFrame(needed | columns).write_parquet(path)
    return path


def test_nulls_are_left_out_but_a_null_price_is_an_event_without_a_quote(tmp_path: Path) -> None:
    path = table(tmp_path / "t.parquet", price=[None, 2.5], intensity=[0.5, None], htf_regime=[None, 1])
    first, second = values(path)
    assert first == {
        "session_id": SESSION_ID, "timestamp": "2025-07-29T14:00:00+00:00", "event_type": "expansion", "price": None,
        "intensity": 0.5,
    }  # fmt: skip
    assert (second["price"], second["htf_regime"], "intensity" in second) == (2.5, 1, False)
    assert not is_document_file(path)


MOMENT = datetime(2025, 7, 29, 14, 0, 0, 250_001, tzinfo=UTC).replace(tzinfo=None)


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        (pl.Series([MOMENT]), "2025-07-29T14:00:00.250001"),
        (pl.Series([MOMENT]).dt.cast_time_unit("ns"), "2025-07-29T14:00:00.250001"),
        (pl.Series([MOMENT]).dt.cast_time_unit("ms"), "2025-07-29T14:00:00.250"),
        (pl.Series([MOMENT.replace(microsecond=0)]), "2025-07-29T14:00:00"),
        (pl.Series([MOMENT]).dt.replace_time_zone("America/New_York"), "2025-07-29T18:00:00.250001+00:00"),
        (pl.Series([MOMENT.replace(tzinfo=UTC)]), "2025-07-29T14:00:00.250001+00:00"),
        (pl.Series([MOMENT.date()]), "2025-07-29"),
        (pl.Series([MOMENT.time()]).dt.to_string("%H:%M:%S"), "14:00:00"),
        (pl.Series([1753799700]), 1753799700),
        (pl.Series([1753799700.5]), 1753799700.5),
    ],
    ids=str,
)
def test_time_stamps_of_any_type_are_written_as_the_engine_reads_them(
    tmp_path: Path, cells: pl.Series, expected: object
) -> None:
    (message,) = values(table(tmp_path / "t.parquet", timestamp=cells))
    assert message["timestamp"] == expected


@pytest.mark.parametrize(
    ("name", "cells", "expected"),
    [
        ("price", [float("nan"), 1.0], [None, 1.0]),
        ("intensity", [float("nan"), 1.0], [None, 1.0]),
        ("htf_regime", [float("nan"), 1.0], [None, 1]),
        ("htf_regime", [0.5, 2.0], [0.5, 2]),
        ("event_id", [12.0, None], [12, None]),
        ("event_id", ["a", None], ["a", None]),
        ("price", pl.Series([1, 2]).cast(pl.Decimal(10, 2)), [1.0, 2.0]),
        ("event_type", pl.Series(["a", "b"]).cast(pl.Categorical), ["a", "b"]),
        ("session_id", pl.Series([b"A_2025-07-29", b"\xff"]), ["A_2025-07-29", "\N{REPLACEMENT CHARACTER}"]),
        ("session_metadata", [{"date": "2025-07-29", "timezone": None}, None], [{"date": "2025-07-29"}, None]),
        ("session_metadata", ['{"date": "2025-07-29"}', None], [{"date": "2025-07-29"}, None]),
        ("session_metadata", ["{broken", '"text"'], ["{broken", "text"]),
    ],
)
def test_cells_become_the_values_of_messages(tmp_path: Path, name: str, cells: Any, expected: list[Any]) -> None:  # noqa: ANN401
    assert [message.get(name) for message in values(table(tmp_path / "t.parquet", **{name: cells}))] == expected


def test_infinite_price_is_refused_and_not_taken_for_none(tmp_path: Path) -> None:
    path = table(tmp_path / "t.parquet", price=[float("inf"), 1.0])
    engine = make_engine()
    (refused,) = engine.process_all(list(read_records(path)))
    assert isinstance(refused, DeadLetter)
    assert (refused.record.offset, engine.counts.applied) == (0, 1)


def test_record_without_a_session_has_no_key(tmp_path: Path) -> None:
    path = table(tmp_path / "t.parquet", session_id=[None, ""])
    assert [record.key for record in read_records(path)] == [None, None]


# -------------------------------------------------------------------------------------------------- files as they come


def test_rows_are_read_some_at_a_time_and_their_numbers_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet_records, "_FIRST_ROWS", 3)
    monkeypatch.setattr(parquet_records, "_BATCH_BYTES", 200)
    path = tmp_path / "topic.parquet"
    texts = ["x" * (i * 37 % 200) for i in range(100)]
    pl.DataFrame({"value": texts}).write_parquet(path, row_group_size=30)
    assert [(r.offset, (r.value or b"").decode()) for r in read_records(path)] == list(enumerate(texts))


def test_empty_table_has_no_records(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    pl.DataFrame(schema={"value": pl.String}).write_parquet(path)
    assert list(read_records(path)) == []


def test_name_with_signs_of_a_pattern_is_a_name(tmp_path: Path) -> None:
    folder = tmp_path / "date=2025-07-29"
    folder.mkdir()
    path = table(folder / "NY[AM]*.parquet", price=[1.0])
    assert len(values(path)) == 1


@pytest.mark.parametrize(
    "columns",
    [
        {"open": [1.0], "close": [2.0]},
        {"value": [1.5]},
        {"session_id": ["a"], "timestamp": ["b"], "event_type": ["c"]},
        {f"column {i}": [i] for i in range(30)},
    ],
)
def test_other_columns_are_refused_with_what_was_expected_and_found(tmp_path: Path, columns: dict[str, Any]) -> None:
    path = tmp_path / "bars.parquet"
    pl.DataFrame(columns).write_parquet(path)
    with pytest.raises(
        DocumentError, match=r"`value`.*`session_id`, `timestamp`, `event_type`, `price`; found"
    ) as caught:
        list(read_records(path))
    assert caught.value.where == str(path)
    assert f"`{next(iter(columns))}`" in str(caught.value)
    assert len(str(caught.value)) < 500 + len(str(path))


@pytest.mark.parametrize("content", [b"", b"PAR1", b"PAR1" + bytes(200) + b"PAR1", b'{"session_id": "a"}\n'], ids=repr)
def test_file_that_is_no_parquet_is_refused_in_one_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "t.parquet"
    path.write_bytes(content)
    with pytest.raises(DocumentError, match="expected Parquet: ") as caught:
        list(read_records(path))
    assert "\n" not in str(caught.value)


def test_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DocumentError, match="No such file"):
        list(read_records(tmp_path / "absent.parquet"))


@pytest.mark.parametrize("seed", range(40))
def test_damaged_file_gives_records_or_one_clear_error(tmp_path: Path, seed: int) -> None:
    path = tmp_path / "topic.parquet"
    pl.DataFrame({"value": [json.dumps(event(minute=i / 7)) for i in range(500)]}).write_parquet(path)
    content = bytearray(path.read_bytes())
    content[seed * 7919 % len(content)] ^= 0xFF
    path.write_bytes(content[: len(content) - 200 * (seed % 2)])
    error, n_rows = "", 0
    try:
        n_rows = len(list(read_records(path)))
    except DocumentError as refused:
        error = str(refused)
    assert n_rows <= 500
    assert "\n" not in error
