from __future__ import annotations

import gzip
import math
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from offline.bars import MarketBars, read_bars
from stream_fp.errors import ConfigError, DocumentError
from tests.support.market import frame_of, random_market, utc, write_frame

MARKET = random_market(1, 200)


def same(found: MarketBars, expected: MarketBars = MARKET) -> bool:
    prices = ("open", "high", "low", "close")
    return (
        found.bar_us == expected.bar_us
        and np.array_equal(found.open_us, expected.open_us)
        and all(np.array_equal(getattr(found.bars, name), getattr(expected.bars, name)) for name in prices)
    )


def csv(path: Path, *rows: str, header: str = "timestamp,open,high,low,close") -> Path:
    path.write_text("\n".join([header, *rows]) + "\n", "utf-8")
    return path


def in_zone(zone: str) -> pl.Series:
    return frame_of(MARKET)["timestamp"].dt.convert_time_zone(zone)


@pytest.mark.parametrize("name", ["bars.parquet", "bars.csv"])
def test_every_format_gives_the_same_bars(tmp_path: Path, name: str) -> None:
    found = read_bars(write_frame(frame_of(MARKET), tmp_path / name))
    assert same(found)
    assert (found.n_read, found.dropped, found.n_unsorted) == (200, {}, 0)


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_compressed_csv_of_any_separator_gives_the_same_bars(tmp_path: Path, separator: str) -> None:
    path = tmp_path / "bars.csv.gz"
    path.write_bytes(gzip.compress(frame_of(MARKET).write_csv(separator=separator).encode()))
    assert same(read_bars(path))


@pytest.mark.parametrize("suffix", [".parquet", ".csv"])
@pytest.mark.parametrize(
    ("times", "zone"),
    [
        (in_zone("America/New_York"), "Asia/Tokyo"),
        (in_zone("UTC").dt.replace_time_zone(None), "UTC"),
        (in_zone("America/New_York").dt.replace_time_zone(None), "America/New_York"),
        (in_zone("America/New_York").dt.to_string("%Y-%m-%d %H:%M"), "ET"),
        (in_zone("America/New_York").dt.to_string("%Y-%m-%dT%H:%M:%S%:z"), "UTC"),
        (in_zone("UTC").dt.to_string("%Y%m%d %H:%M:%S.000Z"), "Asia/Tokyo"),
        (pl.Series(MARKET.open_us // 1_000_000), "Asia/Tokyo"),
        (pl.Series(MARKET.open_us // 1_000), "UTC"),
        (pl.Series(MARKET.open_us), "UTC"),
        (pl.Series(MARKET.open_us * 1_000), "UTC"),
        (pl.Series(MARKET.open_us / 1e6), "UTC"),
        (in_zone("UTC").cast(pl.Datetime("ns", "UTC")), "UTC"),
        (in_zone("UTC").cast(pl.Datetime("ms", "UTC")), "UTC"),
    ],
)
def test_every_form_of_time_gives_the_same_bars(tmp_path: Path, suffix: str, times: pl.Series, zone: str) -> None:
    path = write_frame(frame_of(MARKET, times), tmp_path / f"bars{suffix}")
    assert same(read_bars(path, timezone=zone))


def test_stamps_of_the_close_are_those_of_the_open_a_bar_later(tmp_path: Path) -> None:
    path = write_frame(frame_of(MARKET, pl.Series(MARKET.open_us + MARKET.bar_us)), tmp_path / "bars.csv")
    assert same(read_bars(path, stamp="close"))


def test_bars_out_of_order_are_sorted_and_counted(tmp_path: Path) -> None:
    frame = frame_of(MARKET)
    moved = pl.concat([frame[:50], frame[60:100], frame[50:60], frame[100:]])
    found = read_bars(write_frame(moved, tmp_path / "bars.parquet"))
    assert same(found)
    assert (found.n_unsorted, found.dropped) == (10, {})


def test_of_equal_times_the_first_is_kept(tmp_path: Path) -> None:
    frame = frame_of(MARKET)
    later = frame[20:30].with_columns(pl.col("close").alias("open"), pl.col("close").alias("high"))
    found = read_bars(write_frame(pl.concat([frame, later]), tmp_path / "bars.csv"))
    assert same(found)
    assert found.dropped == {"time of an earlier bar": 10}


def test_impossible_bars_are_dropped_by_reason(tmp_path: Path) -> None:
    bad = [
        "2025-07-01T09:30:00,1,2,0,1",
        "2025-07-01T09:31:00,-1,2,0.5,1",
        "2025-07-01T09:32:00,,2,0.5,1",
        "2025-07-01T09:33:00,nan,2,0.5,1",
        "2025-07-01T09:34:00,1,inf,0.5,1",
        "2025-07-01T09:35:00,one,2,0.5,1",
        "2025-07-01T09:36:00,1,2",
        "2025-07-01T09:37:00,1,0.5,0.8,0.6",
        "2025-07-01T09:38:00,3,2,0.5,1",
        "2025-07-01T09:39:00,1,2,0.5,0.4",
        "soon,1,2,0.5,1",
        ",1,2,0.5,1",
        "2025-07-01T09:29:60,1,2,0.5,1",
        "2025-02-30T09:39:00,1,2,0.5,1",
    ]
    good = ["2025-07-01T09:40:00,1,2,0.5,1", "2025-07-01T09:41:00,1.0000005,1,1,1", "2025-07-01T09:42:00, 1 ,1,1,1"]
    found = read_bars(csv(tmp_path / "bars.csv", *bad, *good))
    assert found.dropped == {
        "time cannot be read": 4,
        "price missing, not above 0 or not finite": 7,
        "high below low, or open or close outside": 3,
    }
    assert (found.n_read, len(found)) == (17, 3)
    assert found.bars.high.tolist() == [2.0, 1.0000005, 1.0]


def test_impossible_bar_does_not_take_the_place_of_a_good_one(tmp_path: Path) -> None:
    rows = ["2025-07-01T09:30:00,1,2,0,1", "2025-07-01T09:30:00,1,2,0.5,1", "2025-07-01T09:31:00,1,2,0.5,1"]
    assert len(read_bars(csv(tmp_path / "bars.csv", *rows))) == 2


def test_columns_are_found_in_any_case_and_order_among_others(tmp_path: Path) -> None:
    rows = [f"x,{4 + i},5,3,9,2025-07-01 09:3{i}:00" for i in range(2)]
    found = read_bars(csv(tmp_path / "bars.csv", *rows, header="Symbol, CLOSE ,Open,Low,High,DateTime"))
    assert (found.bars.open[0], found.bars.high[0], found.bars.low[0], found.bars.close[1]) == (5, 9, 3, 5)


def test_named_columns_go_before_usual_names(tmp_path: Path) -> None:
    frame = frame_of(MARKET).with_columns((pl.col("close") + 1_000_000).alias("last"), pl.lit("x").alias("time"))
    frame = frame.rename({"timestamp": "when", "close": "adjusted"}).rename({"last": "close"})
    path = write_frame(frame, tmp_path / "bars.parquet")
    assert same(read_bars(path, columns={"time": "when", "close": "Adjusted"}))


@pytest.mark.parametrize(
    ("header", "columns", "setting", "expected"),
    [
        ("timestamp,open,high,low,price", {}, "close-column", "one of close, c, "),
        ("when,open,high,low,close", {}, "time-column", "one of timestamp, "),
        ("timestamp,open,high,low,close", {"high": "top"}, "high-column", "a column named top"),
        ("timestamp,open,high,low,close", {"high": "low"}, "low-column", "five different columns"),
    ],
)
def test_missing_column_names_the_setting_what_was_expected_and_what_is_there(
    tmp_path: Path, header: str, columns: dict[str, str], setting: str, expected: str
) -> None:
    path = csv(tmp_path / "bars.csv", "2025-07-01T09:40:00,1,2,0.5,1", header=header)
    with pytest.raises(ConfigError) as caught:
        read_bars(path, columns=columns)
    assert caught.value.setting == setting
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "different" in expected or header.rsplit(",", maxsplit=1)[-1] in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("bars.csv", b""),
        ("bars.csv", b"\xff\xfe\x00"),
        ("bars.csv", b"timestamp,open,high,low,close\n"),
        ("bars.csv", b"timestamp,open,high,low,close\n09:30,1,2,0.5,1\n"),
        ("bars.csv", b"timestamp,open,high,low,close\n2025-07-01T09:30,1,2,3,1\n"),
        ("bars.csv.gz", b"no gzip"),
        ("bars.csv.gz", gzip.compress(b"timestamp,open,high,low,close\n" * 99, mtime=0)[:-12]),
        ("bars.parquet", b"PAR1"),
        ("bars.txt", b"timestamp,open,high,low,close\n2025-07-01T09:30,1,2,0.5,1\n"),
    ],
)
def test_file_without_a_usable_bar_is_one_clear_line(tmp_path: Path, name: str, content: bytes) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises((DocumentError, ConfigError)) as caught:
        read_bars(path)
    assert "\n" not in str(caught.value)
    assert isinstance(caught.value, ConfigError) or str(path) in str(caught.value)


@pytest.mark.parametrize(("minutes", "found"), [(5, 5), (15, 15), (60, 60)])
def test_length_of_bars_is_the_most_frequent_step(tmp_path: Path, minutes: int, found: int) -> None:
    market = random_market(2, 50, bar_minutes=minutes, holes={7: 600, 9: minutes, 20: 1})
    read = read_bars(write_frame(frame_of(market), tmp_path / "bars.csv"))
    assert read.bar_us == found * 60_000_000
    assert same(read, market)


def test_length_of_bars_may_be_given(tmp_path: Path) -> None:
    path = csv(tmp_path / "bars.csv", "2025-07-01T09:30,1,2,0.5,1")
    assert read_bars(path, bar_minutes=0.5).bar_us == 30_000_000
    with pytest.raises(ConfigError, match="bar-minutes"):
        read_bars(path)


@pytest.mark.parametrize("minutes", [1440, 61])
def test_bars_of_more_than_an_hour_are_refused(tmp_path: Path, minutes: int) -> None:
    path = write_frame(frame_of(random_market(1, 9, bar_minutes=minutes)), tmp_path / "bars.csv")
    with pytest.raises(ConfigError, match="bar-minutes"):
        read_bars(path)


def test_hour_that_spring_leaves_out_cannot_be_read_and_autumn_means_the_first_pass(tmp_path: Path) -> None:
    rows = ["2025-03-09 01:59", "2025-03-09 02:30", "2025-03-09 03:00", "2025-11-02 01:30", "2025-11-02 02:00"]
    path = csv(tmp_path / "bars.csv", *(f"{row},1,2,0.5,1" for row in rows))
    found = read_bars(path, timezone="America/New_York", bar_minutes=1)
    expected = ["2025-03-09T01:59-05:00", "2025-03-09T03:00-04:00", "2025-11-02T01:30-04:00", "2025-11-02T02:00-05:00"]
    assert found.open_us.tolist() == [utc(text) for text in expected]
    assert found.dropped == {"time cannot be read": 1}


def test_unknown_zone_names_the_setting(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="bars-timezone"):
        read_bars(write_frame(frame_of(MARKET), tmp_path / "bars.csv"), timezone="Mars/Olympus")


def test_flat_bars_are_bars(tmp_path: Path) -> None:
    found = read_bars(csv(tmp_path / "bars.csv", *(f"2025-07-01T09:{i}:00,7,7,7,7" for i in range(30, 40))))
    assert len(found) == 10
    assert not math.isnan(found.bars.close.sum())
