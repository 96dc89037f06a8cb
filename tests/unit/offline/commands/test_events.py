"""``stream-fp-offline events`` from the command line: what it writes, what it says, and how it fails."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from offline.cli import main
from stream_fp.completion import DEFAULT_SCHEDULES
from tests.support.market import first_bars, frame_of, random_market, write_frame

MARKET = random_market(1, 3 * 1440)


@pytest.fixture(scope="module")
def bars(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_frame(frame_of(MARKET), tmp_path_factory.mktemp("market") / "bars.parquet")


def run(*arguments: str | Path) -> int:
    with pytest.raises(SystemExit) as caught:
        main([str(argument) for argument in arguments])
    assert isinstance(caught.value.code, int)
    return caught.value.code


def written(bars: Path, output: Path, *options: str) -> bytes:
    assert run("events", "--bars", bars, "--output", output, *options) == 0
    return output.read_bytes()


def messages(bars: Path, output: Path, *options: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in written(bars, output, *options).splitlines()]


def types_of(found: list[dict[str, Any]]) -> set[str]:
    return {message["session_id"].partition("_2025")[0].lower() for message in found}


def test_events_writes_sessions_and_says_what_is_next(
    bars: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "deep" / "events.jsonl"
    found = messages(bars, output)
    said = capsys.readouterr()
    assert types_of(found) == set(DEFAULT_SCHEDULES)
    assert "20 sessions from 2025-07-01 to 2025-07-03" in said.out
    assert "4320 read, 0 left out" in said.out
    assert "Finding events: 4320 of 4320 bars\n" in said.err
    command = shlex.split(said.out.partition("Train on them next:\n")[2].replace("\\\n", ""))
    assert command[:4] == ["stream-fp-offline", "train", "--input", str(output)]
    assert [path.name for path in output.parent.iterdir()] == ["events.jsonl"]


def test_what_it_says_to_run_next_runs(bars: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                       capsys: pytest.CaptureFixture[str]) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    written(bars, Path("events.jsonl"))
    command = shlex.split(capsys.readouterr().out.partition("Train on them next:\n")[2].replace("\\\n", ""))
    assert run(*command[1:], "--archetypes", "2") == 0


@pytest.mark.parametrize("name", ["bars.csv", "bars.parquet"])
@pytest.mark.parametrize(
    ("times", "options"),
    [
        (None, []),
        (pl.Series(MARKET.open_us // 1000), []),
        (pl.Series(MARKET.open_us + MARKET.bar_us), ["--stamp", "close"]),
        (
            frame_of(MARKET)["timestamp"].dt.convert_time_zone("Europe/London").dt.replace_time_zone(None),
            ["--bars-timezone", "Europe/London"],
        ),
        (frame_of(MARKET)["timestamp"].dt.convert_time_zone("Asia/Tokyo").dt.to_string("iso"), []),
    ],
)
def test_same_bars_in_any_form_give_the_same_bytes(
    bars: Path, tmp_path: Path, name: str, times: pl.Series | None, options: list[str]
) -> None:
    other = write_frame(frame_of(MARKET, times), tmp_path / name)
    assert written(other, tmp_path / "a.jsonl", *options) == written(bars, tmp_path / "b.jsonl")


def test_messy_rows_give_the_same_bytes_and_are_counted(
    bars: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    frame = frame_of(MARKET)
    broken = frame[5:6].with_columns(high=pl.lit(1.0))
    messy = write_frame(pl.concat([frame[100:], frame[:100], frame[7:9], broken]), tmp_path / "messy.csv")
    expected = written(bars, tmp_path / "b.jsonl")
    capsys.readouterr()
    assert written(messy, tmp_path / "a.jsonl") == expected
    said = capsys.readouterr().err
    assert "left out: 2 bars: time of an earlier bar\n" in said
    assert "left out: 1 bar: high below low" in said
    assert "note: 102 bars stood behind a later one" in said


def test_windows_can_be_changed_added_and_removed(bars: Path, tmp_path: Path) -> None:
    options = ["--window", "ny_am=10:00-11:00", "--window", "LUNCH=", "--window", "night=22:00-02:00"]
    found = messages(bars, tmp_path / "a.jsonl", *options, "--windows-timezone", "Europe/Berlin")
    assert types_of(found) == {*DEFAULT_SCHEDULES, "night"} - {"lunch"}
    metadata = {m["session_id"]: m["session_metadata"] for m in found if m.get("kind") == "session_start"}
    assert metadata["NY_AM_2025-07-02"] == {
        "session_type": "NY_AM", "date": "2025-07-02", "start_time": "10:00:00", "end_time": "11:00:00",
        "timezone": "Europe/Berlin",
    }  # fmt: skip
    assert metadata["LONDON_2025-07-02"]["timezone"] == "Europe/Berlin"
    (end,) = [m for m in found if m["session_id"] == "NIGHT_2025-07-01" and m.get("kind") == "session_end"]
    assert end["timestamp"] == "2025-07-02T02:00:00+02:00"


def test_instrument_ends_every_id(bars: Path, tmp_path: Path) -> None:
    found = messages(bars, tmp_path / "a.jsonl", "--instrument", "NQ")
    assert all(message["session_id"].endswith("-NQ") for message in found)


def test_named_columns_are_used(bars: Path, tmp_path: Path) -> None:
    frame = frame_of(MARKET).rename({"timestamp": "t0", "open": "a", "high": "b", "low": "d", "close": "e"})
    other = write_frame(frame, tmp_path / "bars.csv")
    options = ["--time-column", "t0", "--open-column", "a", "--high-column", "b", "--low-column", "d"]
    found = written(other, tmp_path / "a.jsonl", *options, "--close-column", "e")
    assert found == written(bars, tmp_path / "b.jsonl")


def test_missing_column_is_one_line_and_status_two(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = write_frame(frame_of(MARKET).rename({"high": "top"}), tmp_path / "bars.csv")
    assert run("events", "--bars", other, "--output", tmp_path / "a.jsonl") == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("stream-fp-offline: setting `high-column`: expected a column named one of high, h, ")
    assert last.endswith("found timestamp, open, top, low, close")
    assert not (tmp_path / "a.jsonl").exists()


def test_no_usable_bar_is_one_line_and_status_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = write_frame(frame_of(MARKET).with_columns(low=pl.lit(0.0)), tmp_path / "bars.csv")
    assert run("events", "--bars", other, "--output", tmp_path / "a.jsonl") == 1
    assert "not above 0 or not finite: 4320" in capsys.readouterr().err.splitlines()[-1]


def test_bars_without_a_session_are_one_line_and_status_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = write_frame(frame_of(first_bars(MARKET, 50)), tmp_path / "bars.csv")
    assert run("events", "--bars", other, "--output", tmp_path / "a.jsonl") == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert "50 bars from 2025-07-01 04:00 UTC to 2025-07-01 04:49 UTC" in last
    assert [path.name for path in tmp_path.iterdir()] == ["bars.csv"]


def test_existing_output_is_refused_before_reading_and_replaced_with_force(
    bars: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "events.jsonl"
    output.write_text("old")
    assert run("events", "--bars", bars, "--output", output) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "--force" in said
    assert output.read_text() == "old"
    assert written(bars, output, "--force").startswith(b'{"kind":"session_start"')


def test_output_is_never_the_bars(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_frame(frame_of(MARKET), tmp_path / "bars.csv")
    assert run("events", "--bars", path, "--output", path, "--force") == 2
    assert "holds the bars" in capsys.readouterr().err
    assert path.read_bytes().startswith(b"timestamp")


@pytest.mark.parametrize("place", ["file/deep/x.jsonl", "x" * 300 + "/x.jsonl", "."])
def test_output_that_cannot_be_written_is_refused_before_reading(
    bars: Path, tmp_path: Path, place: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    assert run("events", "--bars", bars, "--output", tmp_path / place) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert said.startswith(f"stream-fp-offline: setting `output`: {tmp_path / place}")


@pytest.mark.parametrize(
    "options",
    [
        ["--window", "ny_am"],
        ["--window", "ny_am=9:30"],
        ["--window", "ny_am=09:30-09:30"],
        ["--window", "ny_am=09:30-25:00"],
        ["--window", "=09:30-10:00"],
        ["--window", "x_2025_01_01=09:30-10:00"],
        ["--window", "a/b=09:30-10:00"],
        ["--windows-timezone", "Mars/Olympus"],
        ["--bars-timezone", "Mars/Olympus"],
        ["--instrument", "N Q"],
        ["--instrument", "../x"],
        ["--stamp", "middle"],
        ["--bar-minutes", "0"],
        ["--bar-minutes", "61"],
    ],
)
def test_wrong_option_is_a_usage_error(
    bars: Path, tmp_path: Path, options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("events", "--bars", bars, "--output", tmp_path / "a.jsonl", *options) == 2
    assert "Usage:" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_leaving_out_every_window_is_an_error(bars: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = [word for name in DEFAULT_SCHEDULES for word in ("--window", f"{name}=")]
    assert run("events", "--bars", bars, "--output", tmp_path / "a.jsonl", *options) == 2
    assert "setting `window`" in capsys.readouterr().err
