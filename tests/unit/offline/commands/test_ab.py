"""``stream-fp-offline ab``: what it writes and says, that it may be killed, and how it fails."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from offline.cli import main
from offline.simulate import interleave, simulate_sessions

ROOT = Path(__file__).resolve().parents[4]
OPTIONS = ("--splits", "2", "--archetypes", "3", "--profile", "pace", "--checkpoints", "30", "--n-jobs", "1")


@pytest.fixture(scope="module")
def sessions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("simulated") / "sessions.jsonl"
    messages = interleave(simulate_sessions(150, seed=6))
    path.write_text("".join(json.dumps(message) + "\n" for message in messages))
    return path


@pytest.fixture(scope="module")
def finished(sessions: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("finished") / "ab"
    assert run("--input", sessions, "--output", output, *OPTIONS) == 0
    return output


def run(*arguments: str | Path) -> int:
    with pytest.raises(SystemExit) as caught:
        main(["ab", *map(str, arguments)])
    assert isinstance(caught.value.code, int)
    return caught.value.code


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_second_run_keeps_the_parts_and_says_the_same(
    sessions: Path, finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = contents(finished)
    places = {path.name: path.stat().st_ino for path in (finished / "parts").iterdir()}
    assert len(places) == 4
    assert run("--input", sessions, "--output", finished, *OPTIONS) == 0
    said = capsys.readouterr()
    assert contents(finished) == before
    assert {path.name: path.stat().st_ino for path in (finished / "parts").iterdir()} == places
    assert "Training and judging: 4 of 4 tasks\n" in said.err
    assert "At 30 %: " in said.out
    assert f"Written to {finished / 'ab.json'} and {finished / 'ab.csv'}\n" in said.out


def test_killed_run_leaves_nothing_half_written_and_ends_with_the_same_bytes(
    sessions: Path, finished: Path, tmp_path: Path
) -> None:
    output = tmp_path / "ab"
    command = [sys.executable, "-m", "offline", "ab", "--input", str(sessions), "--output", str(output), *OPTIONS]
    process = subprocess.Popen(command, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, stderr=subprocess.DEVNULL)
    try:
        while process.poll() is None and not list(output.glob("parts/*.msgpack")):
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(0.01)
    finally:
        process.kill()
    assert process.wait() == -signal.SIGKILL
    left = contents(output)
    whole = {name: content for name, content in left.items() if "/." not in name}
    assert 0 < len(whole) < 4
    expected = contents(finished)
    assert whole.items() <= expected.items()
    assert run("--input", sessions, "--output", output, *OPTIONS) == 0
    assert contents(output) == expected


def test_results_of_other_options_are_refused_in_one_line_and_replaced_with_force(
    sessions: Path, finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "ab"
    output.mkdir()
    (output / "ab.json").write_bytes((finished / "ab.json").read_bytes())
    other = ("--input", sessions, "--output", output, *OPTIONS[:-2], "--splits", "1", "--seed", "2")
    assert run(*other) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith(f"stream-fp-offline: setting `output`: {output} exists, with results of other sessions")
    assert last.endswith("--force to start anew")
    assert contents(output) == {"ab.json": (finished / "ab.json").read_bytes()}
    assert run(*other, "--force") == 0
    assert json.loads((output / "ab.json").read_bytes())["seed"] == 2


def test_folder_that_holds_something_else_is_refused_before_reading(
    sessions: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    for output, why in ((tmp_path, "(thesis.txt)"), (tmp_path / "thesis.txt", "is no folder")):
        assert run("--input", sessions, "--output", output, *OPTIONS, "--force") == 2
        said = capsys.readouterr().err
        assert said.count("\n") == 1
        assert why in said
    assert contents(tmp_path) == {"thesis.txt": b"mine"}


def test_too_few_sessions_for_the_splits_is_one_line_and_writes_nothing(
    sessions: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("--input", sessions, "--output", tmp_path / "ab", *OPTIONS, "--splits", "9") == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("stream-fp-offline: setting `splits`: expected at least 20 sessions")
    assert list(tmp_path.iterdir()) == []


def test_unreadable_input_is_one_line_and_status_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.json").write_text("{")
    assert run("--input", tmp_path / "a.json", "--output", tmp_path / "ab") == 1
    said = capsys.readouterr().err.splitlines()
    assert said[-1].startswith(f"stream-fp-offline: {tmp_path / 'a.json'}: expected sessions")
    assert not any("Traceback" in line for line in said)
    assert not (tmp_path / "ab").exists()


@pytest.mark.parametrize(
    "options",
    [["--splits", "0"], ["--checkpoints", "0,30"], ["--archetypes", "0"], ["--profile", "best"], ["--until", "soon"]],
)
def test_wrong_option_is_a_usage_error(
    sessions: Path, tmp_path: Path, options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("--input", sessions, "--output", tmp_path / "ab", *options) == 2
    assert "Usage:" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_help_exits_with_zero(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--help") == 0
    assert "--checkpoints" in capsys.readouterr().out
