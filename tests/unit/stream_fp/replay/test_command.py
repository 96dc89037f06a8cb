"""`stream-fp replay` over files: what goes with what, workers, going on, several settings, and clear refusals."""

from __future__ import annotations

import gzip
import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from offline.simulate import interleave, simulate_sessions
from stream_fp.config import ENABLE_VARIABLE, ENV_PREFIX, Settings
from stream_fp.errors import ServiceError
from stream_fp.replay.parts import locked
from stream_fp.replay.plan import Job, NamedSettings, Part
from stream_fp.replay.rows import decode_row
from stream_fp.replay.worker import run_part
from tests.support.builders import write_tiny_library
from tests.support.datasets import write_lines


class Ended:
    """A command that has ended."""

    def __init__(self, process: subprocess.CompletedProcess[bytes]) -> None:
        self.status = process.returncode
        self.output = process.stdout
        self.error = process.stderr.decode()


def replay(*arguments: str | Path | int, before: Callable[[], None] | None = None) -> Ended:
    environment = {k: v for k, v in os.environ.items() if not k.startswith(ENV_PREFIX) and k != ENABLE_VARIABLE}
    return Ended(
        subprocess.run(
            [sys.executable, "-m", "stream_fp", "replay", *map(str, arguments)],
            capture_output=True, check=False, timeout=120, env=environment, preexec_fn=before,
        )
    )  # fmt: skip


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_library(tmp_path_factory.mktemp("model") / "v0.0.1")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Nine files of three sessions each."""
    folder = tmp_path_factory.mktemp("sessions")
    sessions = list(simulate_sessions(27, seed=3))
    for i in range(9):
        write_lines(folder / f"{i}.jsonl", interleave(sessions[3 * i : 3 * i + 3]))
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
        (("--input", "{folder}", "--report", "r", "--no-outcomes"), "--report and --compare show outcomes"),
        (("--input", "{folder}", "--speed", "2x"), "--speed needs --output-topic"),
        (("--input", "{folder}", "--speed", "fast", "--output-topic", "x"), "fast"),
        (("--input", "{folder}", "--speed", "2x", "--output-topic", "x", "--workers", "2"), "leave --workers"),
        (("--input", "{folder}", "--workers", "0"), "--workers"),
        (("--input", "{folder}", "--scheduler", "tcp://127.0.0.1:1"), "setting `scheduler`"),
        (("--input", "{folder}", "--backend", "spark"), "setting `backend`: expected local, dask or ray"),
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


def copied(folder: Path, target: Path) -> Path:
    target.mkdir()
    for path in folder.glob("*.jsonl"):
        (target / path.name).write_bytes(path.read_bytes())
    return target


def test_files_that_cannot_be_read_are_told_and_the_others_replayed(
    folder: Path, model: Path, expected: bytes, tmp_path: Path
) -> None:
    source = copied(folder, tmp_path / "sessions")
    (source / "broken.json").write_bytes(b"")
    (source / "cut.jsonl.gz").write_bytes(gzip.compress((folder / "0.jsonl").read_bytes())[:-20])
    ended = replay("--input", source, "--model-path", model)
    assert ended.status == 1
    assert f"not used: {source}/broken.json: " in ended.error
    assert f"not used: {source}/cut.jsonl.gz: reading ended after line " in ended.error
    assert set(expected.splitlines()) <= set(ended.output.splitlines())


def interrupted(*arguments: str | Path | int, parts: Path) -> None:
    """Start a replay and kill it as soon as anything of it is noted."""
    process = subprocess.Popen(
        [sys.executable, "-m", "stream_fp", "replay", *map(str, arguments)],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    while not list(parts.glob("*.note")):
        assert process.poll() is None, "it ended before it could be killed"
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """More small files than are replayed in the time until something is noted; the last events of each are left out."""
    target = tmp_path_factory.mktemp("many")
    for number, session in enumerate(simulate_sessions(1_000, seed=9)):
        write_lines(target / f"{number:05}.jsonl", list(session.messages)[:-3])
    return target


@pytest.mark.parametrize("n_workers", [1, 2])
def test_killed_among_many_small_files_and_resumed_it_comes_to_the_same(
    many: Path, model: Path, tmp_path: Path, n_workers: int
) -> None:
    reports = {}
    for name in ("whole", "resumed"):
        report = tmp_path / name
        arguments = ("--input", many, "--model-path", model, "--report", report, "--workers", n_workers)
        if name == "resumed":
            interrupted(*arguments, parts=tmp_path / "resumed.parts")
        ended = replay(*arguments, "--resume")
        assert ended.status == 0, ended.error
        reports[name] = {path.name: path.read_bytes() for path in report.iterdir()}
    assert reports["whole"] == reports["resumed"]


def test_files_that_changed_are_not_gone_on_with(many: Path, model: Path, tmp_path: Path) -> None:
    source = copied(many, tmp_path / "sessions")
    arguments = ("--input", source, "--model-path", model, "--output", tmp_path / "p.jsonl", "--no-outcomes")
    interrupted(*arguments, parts=tmp_path / "p.jsonl.parts")
    changed = source / "00003.jsonl"
    content = changed.read_bytes()
    for line in (b"{}\n", content.splitlines(keepends=True)[-1]):
        changed.write_bytes(content + line)
        ended = replay(*arguments, "--resume")
        assert ended.status == 2
        assert "setting `resume`: the unfinished replay" in ended.error
    assert replay(*arguments).status == 0


def test_another_replay_at_work_in_the_same_place_is_refused(many: Path, model: Path, tmp_path: Path) -> None:
    parts = tmp_path / "p.jsonl.parts"
    arguments = ("--input", many, "--model-path", model, "--output", tmp_path / "p.jsonl", "--no-outcomes")
    interrupted(*arguments, parts=parts)
    for own in ((), ("--resume",)):
        with locked(parts / "lock"):
            ended = replay(*arguments, *own)
        assert ended.status == 1
        assert ended.error == f"stream-fp: {parts}: another replay is at work here\n"
    assert replay(*arguments, "--resume").status == 0


def test_a_damaged_note_or_plan_is_one_line(many: Path, model: Path, tmp_path: Path) -> None:
    parts = tmp_path / "p.jsonl.parts"
    arguments = ("--input", many, "--model-path", model, "--output", tmp_path / "p.jsonl", "--no-outcomes")
    interrupted(*arguments, parts=parts)
    next(parts.glob("*.note")).write_bytes(b"")
    ended = replay(*arguments, "--resume")
    assert ended.status == 1
    assert "is damaged" in ended.error.splitlines()[-1]
    assert "Traceback" not in ended.error
    (parts / "plan.json").write_bytes(b"{}")
    for own in ((), ("--resume",)):
        ended = replay(*arguments, *own)
        assert (ended.status, ended.error.count("\n")) == (2, 1)
        assert "expected the plan of a replay" in ended.error


def test_a_full_disk_ends_it_in_one_line_and_nothing_is_lost(many: Path, model: Path, tmp_path: Path) -> None:
    def limit_files() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))

    output = tmp_path / "p.jsonl"
    arguments = ("--input", many, "--model-path", model, "--output", output, "--no-outcomes", "--workers", "1")
    ended = replay(*arguments, before=limit_files)
    assert ended.status == 1
    last = ended.error.splitlines()[-1]
    assert last == f"stream-fp: {output}.parts: File too large; the same command with --resume goes on where it was"
    assert "not used" not in ended.error
    assert replay(*arguments, "--resume").status == 0
    assert output.read_bytes() == replay("--input", many, "--model-path", model).output


def test_an_output_that_is_read_is_refused(folder: Path, model: Path, tmp_path: Path) -> None:
    source = tmp_path / "s.jsonl"
    content = (folder / "0.jsonl").read_bytes()
    source.write_bytes(content)
    (tmp_path / "sub").mkdir()
    (tmp_path / "link").symlink_to(tmp_path)
    for output in (source, tmp_path / "sub" / ".." / "s.jsonl", tmp_path / "link" / "s.jsonl"):
        ended = replay("--input", source, "--model-path", model, "--output", output)
        assert ended.status == 2
        assert "holds the sessions; give another file" in ended.error
        assert source.read_bytes() == content
    ended = replay("--input", source, "--model-path", model, "--report", tmp_path, "--output", tmp_path / "p.jsonl")
    assert ended.status == 2
    assert "lies in the folder of the report" in ended.error


def test_a_model_that_changes_meanwhile_is_refused(folder: Path, tmp_path: Path) -> None:
    variant = NamedSettings(
        name="", settings=Settings(model_path=str(write_tiny_library(tmp_path / "v0.0.1"))), library="of another model"
    )
    part = Part(number=0, paths=(str(folder / "0.jsonl"),), size=1)
    with pytest.raises(ServiceError, match="the library was changed"):
        run_part(Job(part=part, variants=(variant,), folder=tmp_path, with_outcomes=False))


def test_what_it_wrote_itself_is_not_replayed(folder: Path, model: Path, expected: bytes, tmp_path: Path) -> None:
    source = copied(folder, tmp_path / "sessions")
    places = ("--output", source / "p.jsonl", "--report", source / "report")
    for _ in range(2):
        ended = replay("--input", source, "--model-path", model, *places, "--force")
        assert ended.status == 0, ended.error
        assert "not used" not in ended.error
        assert (source / "p.jsonl").read_bytes() == expected
