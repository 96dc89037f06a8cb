"""The command line of the offline part: what it prints, what it writes, and how it fails."""

from __future__ import annotations

import csv
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import get_args

import numpy as np
import pytest

from offline.cli import cli, main
from offline.console import command_lines, program_path
from offline.dataset import DEFAULT_CHECKPOINTS_PCT, load_dataset
from offline.scalers import ScalerKind
from offline.simulate import interleave, simulate_sessions
from stream_fp.features import FEATURE_NAMES
from stream_fp.library import load_library

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def sessions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("simulated") / "sessions.jsonl"
    messages = interleave(simulate_sessions(70, seed=4))
    path.write_text("".join(json.dumps(message) + "\n" for message in messages))
    return path


#: For tests of what the choices that these spare have no part in.
BRIEFLY = ("--archetypes", "3", "--profile", "pace", "--checkpoints", "30")


def run(*arguments: str | Path) -> int:
    with pytest.raises(SystemExit) as caught:
        main([str(argument) for argument in arguments])
    assert isinstance(caught.value.code, int)
    return caught.value.code


def test_train_writes_a_library_and_says_what_is_next(
    sessions: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "models" / "v1.0.2"
    assert run("train", "--input", sessions, "--output", output) == 0
    said = capsys.readouterr()
    command = said.out.partition("Check it next:\n")[2]
    assert shlex.split(command.replace("\\\n", "")) == ["stream-fp", "check", "--model-path", str(output)]
    assert "70 sessions from 2025-01-06" in said.out
    assert "Reading sessions: 1 of 1 file\n" in said.err
    library = load_library(output)
    assert library.version == "1.0.2"
    assert len(library.archetypes) == 4
    assert tuple(model.checkpoint_pct for model in library.prefix_models) == DEFAULT_CHECKPOINTS_PCT


def test_train_takes_every_option(sessions: Path, tmp_path: Path) -> None:
    output = tmp_path / "mine"
    options = [
        "--archetypes",
        "3",
        "--scaler",
        "robust",
        "--seed",
        "7",
        "--checkpoints",
        "30",
        "--checkpoints",
        "45,25",
    ]
    options += ["--completion", "schedule", "--n-jobs", "2", "--model-version", "9"]
    assert run("train", "--input", sessions, "--output", output, *options) == 0
    metadata = json.loads((output / "metadata.json").read_text())
    assert (metadata["n_archetypes"], metadata["seed"], metadata["completion"]) == (3, 7, "schedule")
    assert metadata["scaler"]["kind"] == "robust"
    assert metadata["model_version"] == "9"
    assert [model["checkpoint_pct"] for model in metadata["prefix_models"]] == [25, 30, 45]


@pytest.mark.parametrize(("folder", "version"), [("v2.1", "2.1"), ("v3", "3"), ("vienna", "vienna"), ("4.0", "4.0")])
def test_version_is_the_folder_name_without_its_v(sessions: Path, tmp_path: Path, folder: str, version: str) -> None:
    assert run("train", "--input", sessions, "--output", tmp_path / folder, *BRIEFLY) == 0
    assert load_library(tmp_path / folder).version == version


def test_fingerprints_hold_every_vector_as_it_is(sessions: Path, tmp_path: Path) -> None:
    table = tmp_path / "deep" / "fingerprints.csv"
    assert run("train", "--input", sessions, "--output", tmp_path / "v1", "--fingerprints", table) == 0
    dataset = load_dataset(sessions)
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    n_prefixes = sum(len(cut.rows) for cut in dataset.prefixes.values())
    assert len(rows) == len(dataset) + n_prefixes
    full = [row for row in rows if row["kind"] == "full"]
    archetype_by_session = {row["session_id"]: row["archetype_id"] for row in full}
    assert np.array_equal([[float(row[name]) for name in FEATURE_NAMES] for row in full], dataset.full)
    cut = [row for row in rows if row["checkpoint_pct"] == "30"]
    found = [[float(row[name]) for name in FEATURE_NAMES] for row in cut]
    assert np.array_equal(found, dataset.prefixes[30.0].vectors)
    assert all(row["archetype_id"] == archetype_by_session[row["session_id"]] for row in rows)


def test_what_was_left_out_is_in_the_summary(
    sessions: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "input"
    folder.mkdir()
    (folder / "sessions.jsonl").write_bytes(sessions.read_bytes())
    (folder / "broken.json").write_text("{")
    assert run("train", "--input", folder, "--output", tmp_path / "v1") == 0
    said = capsys.readouterr()
    assert "file: broken JSON" in said.out
    assert "broken.json" in said.err


def test_missing_input_is_a_usage_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("train", "--input", tmp_path / "nowhere", "--output", tmp_path / "v1") == 2
    assert "does not exist" in capsys.readouterr().err


def test_existing_output_is_refused_before_reading_and_replaced_with_force(
    sessions: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ("train", "--input", sessions, "--output", tmp_path / "v1", *BRIEFLY)
    assert run(*arguments) == 0
    capsys.readouterr()
    assert run(*arguments) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "--force" in said
    assert run(*arguments, "--archetypes", "2", "--force") == 0
    assert len(load_library(tmp_path / "v1").archetypes) == 2


def test_too_few_sessions_names_both_numbers_and_writes_nothing(
    sessions: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("train", "--input", sessions, "--output", tmp_path / "v1", "--archetypes", "71") == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert "70" in last
    assert "71" in last
    assert list(tmp_path.iterdir()) == []


def test_nothing_usable_is_one_line_and_status_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.json").write_text("{")
    assert run("train", "--input", tmp_path, "--output", tmp_path / "v1") == 1
    said = capsys.readouterr().err.splitlines()
    assert said[-1].startswith("stream-fp-offline: ")
    assert "broken JSON: 1" in said[-1]
    assert f"First: {tmp_path / 'a.json'}: " in said[-1]
    assert not any("Traceback" in line for line in said)


def test_lines_that_are_no_messages_are_named_by_the_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('\n{"session_id": "A",\nnonsense\n')
    assert run("train", "--input", path, "--output", tmp_path / "v1") == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert f"none in 1 file (record: dead letter, RecordDecodeError: 2). First: {path}:2: " in last
    assert "1 more unusable record in this file" in last


@pytest.mark.parametrize("option", ["--output", "--fingerprints"])
@pytest.mark.parametrize("place", ["file/deep/x.csv", "x" * 300 + "/x.csv"])
def test_place_that_cannot_be_written_is_refused_before_reading(
    sessions: Path, tmp_path: Path, option: str, place: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    options = {"--output": tmp_path / "v1", option: tmp_path / place}
    assert run("train", "--input", sessions, *(word for pair in options.items() for word in pair)) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert said.startswith(f"stream-fp-offline: setting `{option[2:]}`: {tmp_path / place}")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize(
    ("called", "program"),
    [
        (".venv/bin/stream-fp-offline", ".venv/bin/stream-fp"),
        ("./stream-fp-offline", "./stream-fp"),
        (".venv/bin/stream-fp", ".venv/bin/stream-fp"),
        ("/somewhere/offline/__main__.py", "stream-fp"),
    ],
)
def test_program_to_run_next_is_the_sibling_of_the_one_called(
    called: str, program: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", [called])
    assert program_path() == program


def test_commands_fit_80_columns_and_a_shell_reads_them_as_given() -> None:
    parts = [("a/b/stream-fp", "replay"), *((f"--option-{i}", "value of it " + "x" * 3 * i) for i in range(9))]
    spelled = command_lines(*parts)
    assert max(map(len, spelled.splitlines())) <= 80
    assert shlex.split(spelled.replace("\\\n", "")) == [word for part in parts for word in part]


def test_summary_labels_its_quantiles_and_has_no_negative_zero(
    sessions: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for seed in range(3):
        assert (
            run(
                "train",
                "--input",
                sessions,
                "--output",
                tmp_path / str(seed),
                "--seed",
                str(seed),
                "--checkpoints",
                "30",
            )
            == 0
        )
    said = capsys.readouterr().out
    assert "range, %: P50" in said
    assert "+0.0" in said
    assert "-0.0" not in said.split()


@pytest.mark.parametrize(
    "options",
    [
        ["--checkpoints", "thirty"],
        ["--checkpoints", "0,30"],
        ["--checkpoints", "24.9"],
        ["--checkpoints", "30,50.1"],
        ["--checkpoints", "nan"],
        ["--archetypes", "0"],
        ["--scaler", "minmax"],
        ["--completion", "guess"],
        ["--seed", "-1"],
        ["--fingerprints", "table.parquet"],
        ["--model-version", " "],
        ["--unknown"],
    ],
)
def test_wrong_option_is_a_usage_error(
    sessions: Path, tmp_path: Path, options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("train", "--input", sessions, "--output", tmp_path / "v1", *options) == 2
    assert "Usage:" in capsys.readouterr().err
    assert not (tmp_path / "v1").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["-h"],
        ["--version"],
        ["train", "--help"],
        ["train", "-h"],
        ["events", "--help"],
        ["simulate", "--help"],
    ],
)
def test_help_exits_with_zero(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*arguments) == 0
    assert capsys.readouterr().out


def test_scaler_choices_are_those_of_training() -> None:
    command = cli.commands["train"]
    scaler = next(parameter for parameter in command.params if parameter.name == "scaler")
    assert tuple(getattr(scaler.type, "choices", ())) == get_args(ScalerKind)


def test_module_gives_the_same_bytes_whatever_the_number_of_threads(sessions: Path, tmp_path: Path) -> None:
    for name, n_threads in (("a", "1"), ("b", "3")):
        environment = os.environ | {
            "SOURCE_DATE_EPOCH": "0", "OMP_NUM_THREADS": n_threads, "OPENBLAS_NUM_THREADS": n_threads,
            "PYTHONHASHSEED": n_threads,
        }  # fmt: skip
        command = [sys.executable, "-m", "offline", "train", "--input", str(sessions), "--output", str(tmp_path / name)]
        subprocess.run([*command, "--model-version", "1"], cwd=ROOT, env=environment, check=True, capture_output=True)
    first, second = ({path.name: path.read_bytes() for path in (tmp_path / name).iterdir()} for name in "ab")
    assert len(first) == 4
    assert first == second
