"""What a replay hands over is said and written: whole, the same every time, and only where it may be."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest

from offline.backtest import COMPARISON_FILE, check_folder, present
from offline.backtest.page import render_backtest_page
from offline.backtest.results import BACKTEST_FILES, decode_backtest
from offline.backtest.scoring import score
from offline.backtest.sessions import MAX_SESSIONS, session_data
from stream_fp.errors import ConfigError
from stream_fp.extensions import load_extension
from tests.support.backtests import a_row, write_result
from tests.unit.offline.backtest.test_scoring import replayed_of

if TYPE_CHECKING:
    from tests.unit.offline.backtest.conftest import Run

HOSTILE = "</script><script>alert(1)</script><!--<script>\u2028&amp;{{ 7 * 7 }}"


def data_of(page: str) -> Any:  # noqa: ANN401 - JSON
    found = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    assert len(found) == 1
    return json.loads(found[0])


def test_extension_is_found_by_its_name() -> None:
    assert load_extension("backtest", setting="report") is present


def test_files_are_written_and_hold_the_same(replay: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    present([replay.result], tmp_path / "a", force=False, to_stderr=False)
    said = capsys.readouterr()
    assert "Out of sample" in said.out
    assert said.err == ""
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == sorted(BACKTEST_FILES)
    assert replay.result.rows_path is not None
    assert (tmp_path / "a" / "outcomes.jsonl").read_bytes() == replay.result.rows_path.read_bytes()
    assert pl.read_parquet(tmp_path / "a" / "outcomes.parquet").equals(replay.replayed.table)
    assert decode_backtest((tmp_path / "a" / "backtest.json").read_bytes()) == score(replay.replayed)
    sessions = data_of((tmp_path / "a" / "report.html").read_text("utf-8"))["sessions"]
    assert {session[0] for session in sessions} == {row.session_id for row in replay.rows}
    assert sum(len(session[-1]) for session in sessions) == len(replay.rows)

    present([replay.result], tmp_path / "b", force=False, to_stderr=True)
    said = capsys.readouterr()
    assert said.out == ""
    assert "Out of sample" in said.err
    for name in BACKTEST_FILES:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_files_that_exist_are_refused_before_anything_is_said(
    replay: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "backtest.json").write_text("mine")
    with pytest.raises(ConfigError, match=r"setting `report`.*exists"):
        check_folder(tmp_path, [""], force=False)
    with pytest.raises(ConfigError, match=r"setting `report`.*exists"):
        present([replay.result], tmp_path, force=False, to_stderr=False)
    assert capsys.readouterr().out == ""
    assert (tmp_path / "backtest.json").read_text() == "mine"
    check_folder(tmp_path, [""], force=True)


def test_sets_of_settings_get_a_folder_each_and_are_compared(
    replay: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    few = [row for row in replay.rows if row.date > replay.metadata.training.last_date]
    results = [write_result(tmp_path / "rows", few, replay.library.path, name=name) for name in ("one", "two")]
    present(results, tmp_path / "out", force=False, to_stderr=False)
    assert "the same" in capsys.readouterr().out
    assert sorted(str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*.*")) == sorted(
        [COMPARISON_FILE, *(f"{name}/{file}" for name in ("one", "two") for file in BACKTEST_FILES)]
    )
    with pytest.raises(ConfigError, match=r"setting `report`"):
        check_folder(tmp_path / "out", ["one", "two"], force=False)
    with pytest.raises(ConfigError, match=r"setting `compare`.*'one' twice"):
        present([results[0], results[0]], None, force=False, to_stderr=False)


def test_replay_without_rows_says_and_writes_nothing(
    replay: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    present([dataclasses.replace(replay.result, rows_path=None)], tmp_path / "out", force=False, to_stderr=False)
    assert capsys.readouterr().out == ""
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "rows",
    [[], [a_row(400, outcome="open")], [a_row(400)], [a_row(3)]],
    ids=["none", "open", "one", "in sample"],
)
def test_any_number_of_rows_is_shown(
    replay: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str], rows: list[Any]
) -> None:
    result = write_result(tmp_path, rows, replay.library.path)
    present([result], tmp_path / "out", force=False, to_stderr=False)
    said, page = capsys.readouterr().out, (tmp_path / "out" / "report.html").read_text("utf-8")
    if rows and rows[0].date <= replay.metadata.training.last_date:
        assert "IN SAMPLE" in said
        assert "This is no backtest" in page
    assert len(data_of(page)["sessions"]) == len(rows)


def test_hostile_texts_stay_data(replay: Run, tmp_path: Path) -> None:
    rows = [a_row(400 + i, session_id=HOSTILE, session_type=HOSTILE, source=HOSTILE) for i in range(2)]
    replayed = replayed_of(replay, tmp_path, rows)
    page = render_backtest_page(score(replayed), replayed)
    assert "<script>alert" not in page
    assert page.count("<script") == page.count("</script>") == 3
    assert [session[:3] for session in data_of(page)["sessions"]] == [[HOSTILE, 1, HOSTILE], [HOSTILE, 2, HOSTILE]]
    assert not re.search("[<>&\u2028]", session_data(replayed, is_in_sample=False))


def test_page_holds_the_latest_sessions_where_there_are_too_many(
    replay: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert MAX_SESSIONS == 5000
    for module in ("sessions", "page"):
        monkeypatch.setattr(f"offline.backtest.{module}.MAX_SESSIONS", 3)
    replayed = replayed_of(replay, tmp_path, [a_row(i) for i in (404, 400, 403, 401)])
    page = render_backtest_page(score(replayed), replayed)
    assert [session[3] for session in data_of(page)["sessions"]] == ["2026-02-06", "2026-02-08", "2026-02-09"]
    assert "the latest 3 of 4" in page
