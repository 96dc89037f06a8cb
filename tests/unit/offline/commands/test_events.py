"""``stream-fp-offline events`` from the command line: what it writes, what it says, and how it fails."""

from __future__ import annotations

import json
import shlex
from datetime import datetime
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


OTHER = random_market(2, 3 * 1440)
THIRD = random_market(3, 2 * 1440, start="2025-07-01T16:00:00")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("markets")
    for name, market in (("NQ.parquet", MARKET), ("es-mini.csv", OTHER), ("GC.csv", THIRD)):
        write_frame(frame_of(market), path / name)
    (path / "readme.txt").write_text("no bars")
    return path


def merged_by_hand(files: list[tuple[Path, str]], folder: Path) -> bytes:
    """What each file gives alone, in order of time and then of files."""
    lines = []
    for number, (path, instrument) in enumerate(files):
        alone = written(path, folder / f"{number}.jsonl", "--instrument", instrument).splitlines(keepends=True)
        known: list[datetime] = []
        for line in reversed(alone):
            message = json.loads(line)
            # A start is known when its first event is, the line after it.
            at = known[-1] if message.get("kind") == "session_start" else datetime.fromisoformat(message["timestamp"])
            known.append(at)
        lines += [
            (at, number, place, line) for place, (at, line) in enumerate(zip(reversed(known), alone, strict=True))
        ]
    return b"".join(line for *_, line in sorted(lines))


@pytest.mark.parametrize("n_jobs", ["1", "2"])
def test_folder_gives_what_its_files_give_merged_by_time_and_then_by_file(
    folder: Path, tmp_path: Path, n_jobs: str, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out" / "events.jsonl"
    found = written(folder, output, "--n-jobs", n_jobs)
    said = capsys.readouterr()
    files = [(folder / "GC.csv", "GC"), (folder / "NQ.parquet", "NQ"), (folder / "es-mini.csv", "es_mini")]
    assert found == merged_by_hand(files, tmp_path)
    assert "Finding events: 3 of 3 files\n" in said.err
    assert "of 3 of 3 files from 2025-07-01 04:00 UTC to" in said.out
    assert f"{2 * 4320 + 2880} read, 0 left out" in said.out
    assert [path.name for path in output.parent.iterdir()] == ["events.jsonl"]


def test_files_keep_the_order_in_which_they_are_given(folder: Path, tmp_path: Path) -> None:
    output, twin = tmp_path / "a.jsonl", write_frame(frame_of(MARKET), tmp_path / "AA.parquet")
    assert run("events", "--bars", folder / "NQ.parquet", "--bars", twin, "--output", output) == 0
    assert output.read_bytes() == merged_by_hand([(folder / "NQ.parquet", "NQ"), (twin, "AA")], tmp_path)
    first, second = (json.loads(line)["session_id"] for line in output.read_bytes().splitlines()[:3:2])
    assert (first[-3:], second[-3:]) == ("-NQ", "-AA")


def test_more_parts_than_may_be_open_are_merged_in_steps(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = written(folder, tmp_path / "a.jsonl")
    monkeypatch.setattr("offline.event_files._MAX_OPEN", 2)
    assert written(folder, tmp_path / "b.jsonl") == expected
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.jsonl", "b.jsonl"]


def test_folder_of_one_file_is_called_by_its_name_unless_one_is_given(bars: Path, tmp_path: Path) -> None:
    named = written(bars, tmp_path / "a.jsonl", "--instrument", "bars")
    assert written(bars.parent, tmp_path / "b.jsonl") == named
    assert written(bars.parent, tmp_path / "c.jsonl", "--instrument", "X") == named.replace(b'-bars"', b'-X"')


def test_file_among_several_that_cannot_be_used_is_told_and_left_out(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = tmp_path / "broken.parquet"
    broken.write_text("no parquet")
    short = write_frame(frame_of(first_bars(MARKET, 50)), tmp_path / "short.csv")
    alone = written(folder / "NQ.parquet", tmp_path / "a.jsonl", "--instrument", "NQ")
    options = ("--bars", broken, "--bars", short, "--output", tmp_path / "b.jsonl")
    assert run("events", "--bars", folder / "NQ.parquet", *options) == 0
    said = capsys.readouterr()
    assert (tmp_path / "b.jsonl").read_bytes() == alone
    assert f"left out: {broken}: cannot be read" in said.err
    assert f"left out: {short}: 50 bars" in said.err
    assert "of 1 of 3 files" in said.out
    assert run("events", "--bars", short, *options, "--force") == 2  # one name twice
    assert run("events", "--bars", broken, "--bars", short, "--output", tmp_path / "c.jsonl") == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith(f"stream-fp-offline: {broken}: cannot be read")
    assert last.endswith("none of 2 files gives a message")
    assert not (tmp_path / "c.jsonl").exists()


@pytest.mark.parametrize(
    ("files", "options", "said"),
    [
        (["NQ.csv", "deep/NQ.parquet"], [], "setting `bars`: expected one file an instrument"),
        (["NQ.csv", "ES.csv"], ["--instrument", "X"], "setting `instrument`: names one instrument, and there are 2"),
        (["NQ.csv", "---.csv"], [], "setting `bars`: expected a file name"),
        (["NQ.csv", "x" * 33 + ".csv"], [], "setting `bars`: expected a file name"),
        (["NQ.csv", "ES.csv"], ["--open-column", "nope"], "setting `open-column`: expected a column named nope"),
    ],
)
def test_wrong_setting_of_several_files_is_one_line(
    tmp_path: Path, files: list[str], options: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words: list[str | Path] = []
    for name in files:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        words += ["--bars", write_frame(frame_of(first_bars(MARKET, 50)), tmp_path / name)]
    assert run("events", *words, "--output", tmp_path / "events.jsonl", *options) == 2
    assert said in capsys.readouterr().err.splitlines()[-1]
    assert not list(tmp_path.glob(".*"))


def test_folder_without_bars_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "notes.txt").write_text("")
    assert run("events", "--bars", tmp_path, "--output", tmp_path / "events.jsonl") == 1
    assert "expected files ending in .parquet, .csv, .csv.gz" in capsys.readouterr().err
