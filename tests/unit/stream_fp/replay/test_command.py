"""`stream-fp replay` over files: what goes with what, workers, going on, several settings, and clear refusals."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from offline.simulate import interleave, simulate_sessions
from stream_fp.config import ENABLE_VARIABLE, ENV_PREFIX
from stream_fp.replay.rows import decode_row
from tests.support.builders import write_tiny_library
from tests.support.datasets import write_lines


class Ended:
    """A command that has ended."""

    def __init__(self, process: subprocess.CompletedProcess[bytes]) -> None:
        self.status = process.returncode
        self.output = process.stdout
        self.error = process.stderr.decode()


def replay(*arguments: str | Path) -> Ended:
    environment = {k: v for k, v in os.environ.items() if not k.startswith(ENV_PREFIX) and k != ENABLE_VARIABLE}
    return Ended(
        subprocess.run(
            [sys.executable, "-m", "stream_fp", "replay", *map(str, arguments)],
            capture_output=True, check=False, timeout=120, env=environment,
        )
    )  # fmt: skip


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_library(tmp_path_factory.mktemp("model") / "v0.0.1")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Nine files of three sessions each, and one that nobody can read."""
    folder = tmp_path_factory.mktemp("sessions")
    sessions = list(simulate_sessions(27, seed=3))
    for i in range(9):
        write_lines(folder / f"{i}.jsonl", interleave(sessions[3 * i : 3 * i + 3]))
    (folder / "broken.json").write_bytes(b"")
    return folder


@pytest.fixture(scope="module")
def expected(folder: Path, model: Path) -> bytes:
    ended = replay("--input", folder, "--model-path", model)
    assert ended.status == 0, ended.error
    assert ended.output.count(b"\n") > 20
    return ended.output


@pytest.mark.parametrize("n_workers", [1, 3])
def test_files_give_the_same_bytes_from_any_number_of_workers(
    folder: Path, model: Path, expected: bytes, tmp_path: Path, n_workers: int
) -> None:
    output = tmp_path / "new" / "predictions.jsonl"
    ended = replay(
        "--input", folder, "--model-path", model, "--workers", str(n_workers), "--output", output, "--no-outcomes"
    )
    assert (ended.status, ended.output) == (0, b""), ended.error
    assert output.read_bytes() == expected
    assert [path.name for path in output.parent.iterdir()] == [output.name]
    assert f"not used: {folder}/broken.json: " in ended.error


def test_report_holds_predictions_outcomes_figures_and_page(
    folder: Path, model: Path, expected: bytes, tmp_path: Path
) -> None:
    report = tmp_path / "report"
    ended = replay("--input", folder, "--model-path", model, "--report", report)
    assert ended.status == 0, ended.error
    assert {path.name for path in report.iterdir()} == {
        "predictions.jsonl", "outcomes.jsonl", "outcomes.parquet", "backtest.json", "report.html",
    }  # fmt: skip
    assert (report / "predictions.jsonl").read_bytes() == expected
    rows = [decode_row(line) for line in (report / "outcomes.jsonl").read_bytes().splitlines()]
    said = [json.loads(line) for line in expected.splitlines()]
    assert [(row.session_id, row.pct_seen) for row in rows] == [(one["session_id"], one["pct_seen"]) for one in said]
    assert [(row.source, row.offset) for row in rows] == sorted((row.source, row.offset) for row in rows)
    again = replay("--input", folder, "--model-path", model, "--report", report)
    assert again.status == 2
    assert "setting `report`: " in again.error
    assert replay("--input", folder, "--model-path", model, "--report", report, "--force").status == 0


def test_several_settings_are_replayed_at_once_and_compared(
    folder: Path, model: Path, expected: bytes, tmp_path: Path
) -> None:
    early, late = tmp_path / "early.toml", tmp_path / "late.toml"
    early.write_text(f'model_path = "{model}"\n')
    late.write_text(f'model_path = "{model}"\ncheckpoints = [50.0]\n')
    report, output = tmp_path / "report", tmp_path / "p.jsonl"
    ended = replay("--input", folder, "--report", report, "--output", output, "--compare", early, late)
    assert ended.status == 0, ended.error
    assert (tmp_path / "p-early.jsonl").read_bytes() == expected
    alone = replay("--input", folder, "--config", late)
    assert (tmp_path / "p-late.jsonl").read_bytes() == alone.output != expected
    assert (report / "comparison.json").is_file()
    assert (report / "early" / "report.html").is_file()
    assert b"early" in ended.output
    assert b"late" in ended.output


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--input", "{folder}", "--topic", "x"), "either --input or a topic"),
        (("--input", "{folder}", "--from", "@3"), "--from and --to are for topics"),
        (("--input", "{folder}", "--compare"), "--compare needs settings files"),
        (("--input", "{folder}", "a.toml"), "settings files follow --compare"),
        (("--input", "{folder}", "--resume"), "--resume needs --output or --report"),
        (("--input", "{folder}", "--report", "r", "--no-outcomes"), "--report shows outcomes"),
        (("--input", "{folder}", "--speed", "2x"), "--speed needs --output-topic"),
        (("--input", "{folder}", "--speed", "fast", "--output-topic", "x"), "fast"),
        (("--input", "{folder}", "--workers", "0"), "--workers"),
        (("--input", "{folder}", "--scheduler", "tcp://127.0.0.1:1"), "setting `scheduler`"),
        (("--input", "{folder}", "--backend", "spark"), "--backend"),
        (("--to", "2025-07-32"), "expected a time or an offset"),
    ],
)
def test_what_does_not_go_together_is_refused_before_anything_is_done(
    folder: Path, model: Path, tmp_path: Path, arguments: Sequence[str], words: str
) -> None:
    given = [argument.format(folder=folder) for argument in arguments]
    ended = replay("--model-path", model, *given)
    assert (ended.status, ended.output) == (2, b"")
    assert words in ended.error
    assert "Traceback" not in ended.error
    assert not (tmp_path / "r").exists()


def test_settings_files_that_read_other_topics_are_not_compared(folder: Path, model: Path, tmp_path: Path) -> None:
    for name, topic in (("a", "one"), ("b", "two")):
        (tmp_path / f"{name}.toml").write_text(f'model_path = "{model}"\ninput_topic = "{topic}"\n')
    ended = replay("--input", folder, "--compare", tmp_path / "a.toml", tmp_path / "b.toml")
    assert ended.status == 2
    assert "setting `input_topic`: expected the same in all settings files" in ended.error


def test_a_folder_that_is_not_ours_is_not_swept_away(folder: Path, model: Path, tmp_path: Path) -> None:
    precious = tmp_path / "p.jsonl.parts" / "precious"
    precious.parent.mkdir()
    precious.write_bytes(b"")
    ended = replay("--input", folder, "--model-path", model, "--output", tmp_path / "p.jsonl")
    assert ended.status == 2
    assert "holds something else" in ended.error
    assert precious.exists()


def test_files_that_changed_are_not_gone_on_with(folder: Path, model: Path, expected: bytes, tmp_path: Path) -> None:
    source = tmp_path / "sessions"
    source.mkdir()
    for path in folder.glob("*.jsonl"):
        (source / path.name).write_bytes(path.read_bytes())
    output = tmp_path / "p.jsonl"
    arguments = ("--input", source, "--model-path", model, "--output", output, "--no-outcomes")
    parts = tmp_path / "p.jsonl.parts"
    assert replay(*arguments).status == 0
    assert not parts.exists()
    parts.mkdir()
    (parts / "plan.json").write_text('{"fingerprint": "of another", "parts": []}')
    ended = replay(*arguments, "--resume")
    assert ended.status == 2
    assert "setting `resume`: the unfinished replay" in ended.error
    assert replay(*arguments).status == 0
    assert output.read_bytes().splitlines() == [
        line.replace(str(folder).encode(), str(source).encode()) for line in expected.splitlines()
    ]


def test_what_it_wrote_itself_is_not_replayed(folder: Path, model: Path, expected: bytes, tmp_path: Path) -> None:
    source = tmp_path / "sessions"
    source.mkdir()
    for path in folder.glob("*.jsonl"):
        (source / path.name).write_bytes(path.read_bytes())
    places = ("--output", source / "p.jsonl", "--report", source / "report")
    for _ in range(2):
        ended = replay("--input", source, "--model-path", model, *places, "--force")
        assert ended.status == 0, ended.error
        assert "not used" not in ended.error
        assert (source / "p.jsonl").read_bytes() == expected
