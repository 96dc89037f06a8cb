"""What commands say while they work with records: some lines on stderr, or a bar on a terminal."""

from __future__ import annotations

import re

import pytest

from offline.console import record_progress
from stream_fp.extensions import load_extension


def test_extension_is_found_by_its_name() -> None:
    assert load_extension("progress", setting="replay") is record_progress


@pytest.mark.parametrize(("n_all", "step"), [(1_000_000, 500), (7, 1), (1, 1)])
def test_elsewhere_than_on_a_terminal_there_are_about_ten_lines(
    capsys: pytest.CaptureFixture[str], n_all: int, step: int
) -> None:
    with record_progress("Replaying") as tell:
        for n_done in range(step, n_all + 1, step):
            tell(n_done, n_all)
    said = capsys.readouterr()
    assert said.out == ""
    lines = said.err.splitlines()
    assert 1 <= len(lines) <= 10
    assert all(re.match(r"Replaying: [\d,]+ of [\d,]+ records, [\d,]+ records/s", line) for line in lines)
    assert all(line.endswith(" left") for line in lines[:-1])
    assert lines[-1].startswith(f"Replaying: {n_all:,} of {n_all:,}")


def test_nothing_to_do_is_said_once(capsys: pytest.CaptureFixture[str]) -> None:
    with record_progress("Replaying") as tell:
        tell(0, 0)
        tell(0, 0)
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_on_a_terminal_there_is_a_bar_with_the_speed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "120")
    with record_progress("Replaying") as tell:
        for n_done in range(0, 3001, 1000):
            tell(n_done, 3000)
    said = capsys.readouterr()
    assert said.out == ""
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", said.err)
    assert "3000/3000" in plain
    assert "records/s" in plain
