from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pytest

from stream_fp import __version__
from stream_fp.cli import main
from stream_fp.config import ENABLE_VARIABLE, ENV_PREFIX, Settings
from stream_fp.loading import load_classifier
from stream_fp.messages import Prediction
from stream_fp.replay.files import replay_files
from tests.support.builders import SESSION_ID, tiny_metadata, tiny_stats, write_library, write_tiny_library
from tests.support.service import free_port

NO_MODEL = "stream-fp: setting `model_path`: expected the folder of a trained library, got none\n"
ENABLE_FLAG = "--session-fingerprinting"


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What a command line came to."""

    status: int
    output: bytes
    error: str


class CommandLine:
    """Runs `stream-fp` as its entry point does, in this process."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capture: pytest.CaptureFixture[bytes]) -> None:
        self._monkeypatch = monkeypatch
        self._capture = capture

    def __call__(self, *arguments: str | Path) -> Result:
        self._monkeypatch.setattr(sys, "argv", ["stream-fp", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        output, error = self._capture.readouterr()
        assert isinstance(ended.value.code, int)
        return Result(status=ended.value.code, output=output, error=error.decode())


@pytest.fixture(autouse=True)
def _no_settings_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in [name for name in os.environ if name.startswith(ENV_PREFIX) or name == ENABLE_VARIABLE]:
        monkeypatch.delenv(variable)


@pytest.fixture
def stream_fp(monkeypatch: pytest.MonkeyPatch, capsysbinary: pytest.CaptureFixture[bytes]) -> CommandLine:
    return CommandLine(monkeypatch, capsysbinary)


@pytest.fixture
def library_dir(tmp_path: Path) -> Path:
    return write_tiny_library(tmp_path / "v0.0.1")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A folder with one session of one prediction."""
    folder = tmp_path / "source"
    folder.mkdir()
    write_document(folder / "session.json")
    return folder


def write_document(path: Path, session_id: str = SESSION_ID) -> Path:
    events = [
        {
            "timestamp": f"{9 + (30 + 2 * i) // 60:02}:{(30 + 2 * i) % 60:02}:00",
            "event_type": ("expansion", "consolidation", "reversal")[i % 3],
            "price": 100.0 + i % 7 / 4,
        }
        for i in range(74)
    ]
    metadata = {"session_type": "NY_AM", "date": session_id[6:16], "timezone": "America/New_York"}
    path.write_text(json.dumps({"session_id": session_id, "events": events, "session_metadata": metadata}))
    return path


def in_a_process(*arguments: str | Path, environment: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "stream_fp", *map(str, arguments)],
        capture_output=True, text=True, check=False, timeout=60, env={**os.environ, **(environment or {})},
    )  # fmt: skip


def settings_file(folder: Path, text: str) -> Path:
    path = folder / "settings.toml"
    path.write_text(text)
    return path


def assert_one_line(error: str) -> None:
    assert error.startswith("stream-fp: ")
    assert error.endswith("\n")
    assert error.count("\n") == 1


# ---------------------------------------------------------------------------------------------------------------- run


@pytest.mark.parametrize("state", ["not mentioned", "off in the environment", "off in the file"])
def test_run_that_is_off_says_how_to_turn_it_on_and_ends_well(
    stream_fp: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, state: str
) -> None:
    arguments: list[str | Path] = []
    if state == "off in the environment":
        monkeypatch.setenv(ENABLE_VARIABLE, "0")
    if state == "off in the file":
        arguments = ["--config", settings_file(tmp_path, "enabled = false\n")]
    result = stream_fp("run", *arguments)
    assert (result.status, result.error) == (0, "")
    text = result.output.decode()
    assert "is off" in text
    for way in (ENABLE_FLAG, f"{ENABLE_VARIABLE}=1", "`enabled = true`"):
        assert way in text


def test_run_that_is_off_loads_nothing(stream_fp: CommandLine, tmp_path: Path) -> None:
    assert stream_fp("run", "--model-path", tmp_path / "absent").status == 0


@pytest.mark.parametrize("way", ["flag", "known variable", "variable of the setting", "file"])
def test_each_way_to_turn_it_on_reaches_the_start(tmp_path: Path, way: str) -> None:
    arguments: list[str | Path] = []
    environment: dict[str, str] = {}
    if way == "flag":
        arguments = [ENABLE_FLAG]
    elif way == "known variable":
        environment = {ENABLE_VARIABLE: "1"}
    elif way == "variable of the setting":
        environment = {f"{ENV_PREFIX}ENABLED": "true"}
    else:
        arguments = ["--config", settings_file(tmp_path, "enabled = true\n")]
    process = in_a_process("run", *arguments, environment=environment)
    assert (process.returncode, process.stdout, process.stderr) == (2, "", NO_MODEL)


def test_run_without_a_library_at_the_path_fails_with_the_sentence_of_the_contract(tmp_path: Path) -> None:
    process = in_a_process("run", ENABLE_FLAG, "--model-path", tmp_path / "absent")
    assert process.returncode == 2
    assert process.stderr.splitlines() == [
        (
            f"stream-fp: setting `model_path`: Model path does not exist: {tmp_path / 'absent'} "
            "Please ensure the offline library has been built (Stage 2) before enabling online classification."
        )
    ]


def test_run_without_a_broker_fails_and_names_the_address(library_dir: Path) -> None:
    address = f"127.0.0.1:{free_port()}"
    process = in_a_process(
        "run", ENABLE_FLAG, "--model-path", library_dir, "--bootstrap-servers", address, "--http-port", "0",
        "--http-host", "127.0.0.1",
    )  # fmt: skip
    assert process.returncode == 1
    assert f"stream-fp: cannot reach Kafka at {address} with PLAINTEXT (settings `bootstrap_servers`" in process.stderr
    assert "Traceback" not in process.stderr


# ------------------------------------------------------------------------------------------------------ wrong settings


@pytest.mark.parametrize("command", ["run", "check"])
@pytest.mark.parametrize(
    ("arguments", "setting"),
    [
        (["--http-port", "70000"], "http_port"),
        (["--checkpoints", "10"], "checkpoints"),
        (["--timezone", "Mars"], "timezone"),
        (["--delivery", ""], "delivery"),
        (["--group-id", ""], "group_id"),
        (["--output-topic", "session-events"], "output_topic"),
        (["--config", "no-such-file.toml"], "config"),
    ],
)
def test_wrong_setting_is_one_line_that_names_it(
    stream_fp: CommandLine, command: str, arguments: list[str], setting: str
) -> None:
    result = stream_fp(command, *arguments)
    assert (result.status, result.output) == (2, b"")
    assert_one_line(result.error)
    assert f"setting `{setting}`" in result.error


@pytest.mark.parametrize("command", ["run", "check", "replay"])
def test_wrong_setting_says_where_it_came_from(
    stream_fp: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    needed = ["--input", "x"] if command == "replay" else []
    file = settings_file(tmp_path, "min_events = 0\n")
    monkeypatch.setenv(f"{ENV_PREFIX}CONFIG", str(file))
    from_file = stream_fp(command, *needed)
    monkeypatch.delenv(f"{ENV_PREFIX}CONFIG")
    from_flag = stream_fp(command, *needed, "--min-events", "0")
    monkeypatch.setenv(f"{ENV_PREFIX}MIN_EVENTS", "0")
    from_variable = stream_fp(command, *needed)
    for result, where in ((from_file, f"file {file}"), (from_flag, "command line"), (from_variable, "environment")):
        assert result.status == 2
        assert_one_line(result.error)
        assert f"setting `min_events` ({where}): " in result.error


def test_wrong_setting_in_a_process_leaves_no_traceback() -> None:
    process = in_a_process("run", environment={ENABLE_VARIABLE: "perhaps"})
    assert (process.returncode, process.stdout) == (2, "")
    assert_one_line(process.stderr)
    assert "setting `enabled` (environment)" in process.stderr
    assert "Traceback" not in process.stderr


def test_secret_in_the_environment_is_not_in_what_is_printed() -> None:
    process = in_a_process(
        "run", ENABLE_FLAG, "--log-level", "DEBUG", environment={f"{ENV_PREFIX}SASL_PASSWORD": "hunter2-zebra"}
    )
    assert process.stderr.endswith(NO_MODEL)
    assert "hunter2" not in process.stdout + process.stderr


@pytest.mark.parametrize(
    "arguments",
    [["no-such-command"], ["run", "--no-such-flag"], ["run", "extra"], ["replay", "--to", "soon"], []],
    ids=" ".join,
)
def test_wrong_command_line_is_explained(stream_fp: CommandLine, arguments: list[str]) -> None:
    result = stream_fp(*arguments)
    assert (result.status, result.output) == (2, b"")
    assert "Usage: stream-fp" in result.error


def test_flag_without_its_value_is_explained(stream_fp: CommandLine) -> None:
    result = stream_fp("run", "--http-port")
    assert (result.status, result.output) == (2, b"")
    assert "'--http-port' requires an argument" in result.error


@pytest.mark.parametrize("arguments", [["--help"], ["-h"], ["run", "--help"], ["replay", "-h"], ["check", "--help"]])
def test_help_is_printed(stream_fp: CommandLine, arguments: list[str]) -> None:
    result = stream_fp(*arguments)
    assert (result.status, result.error) == (0, "")
    assert result.output.startswith(b"Usage: stream-fp")


def test_version_is_printed(stream_fp: CommandLine) -> None:
    assert stream_fp("--version").output.decode().split() == ["stream-fp,", "version", __version__]


def test_help_of_replay_offers_to_read_kafka_and_no_setting_of_the_service(stream_fp: CommandLine) -> None:
    text = stream_fp("replay", "--help").output.decode()
    assert {"--model-path", "--input-topic", "--from", "--to"} <= set(text.split())
    assert not {"--dead-letter-topic", "--group-id", "--delivery"} & set(text.split())


# -------------------------------------------------------------------------------------------------------------- check


def test_check_of_a_good_library_says_what_is_in_it(stream_fp: CommandLine, library_dir: Path) -> None:
    result = stream_fp("check", "--model-path", library_dir)
    assert (result.status, result.error) == (0, "")
    text = result.output.decode()
    assert "settings  ok (off)" in text
    assert f"library   ok: version 0.0.1, 3 archetypes, {library_dir}" in text
    assert "prefix models at 30 %, 50 %" in text
    assert "note" not in text


def test_check_tells_which_prefix_model_stands_in(stream_fp: CommandLine, library_dir: Path) -> None:
    text = stream_fp("check", "--model-path", library_dir, "--checkpoints", "30,35,45").output.decode()
    assert [line.split(maxsplit=1)[1] for line in text.splitlines() if line.startswith("note")] == [
        "no prefix model at 35 %: the one at 30 % will be used",
        "no prefix model at 45 %: the one at 50 % will be used",
    ]


def test_check_says_whether_it_is_on(
    stream_fp: CommandLine, library_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(ENABLE_VARIABLE, "1")
    assert b"settings  ok (on)" in stream_fp("check", "--model-path", library_dir).output


def test_check_without_a_library_names_the_setting(stream_fp: CommandLine) -> None:
    result = stream_fp("check")
    assert (result.status, result.output, result.error) == (2, b"", NO_MODEL)


def spoil_nothing(library_dir: Path) -> None:
    shutil.rmtree(library_dir)


def spoil_pickle(library_dir: Path) -> None:
    (library_dir / "kmeans_model.pkl").write_bytes(b"somebody else's")


def spoil_json(library_dir: Path) -> None:
    (library_dir / "metadata.json").write_text("{")


def spoil_dimensions(library_dir: Path) -> None:
    metadata: dict[str, Any] = tiny_metadata()
    metadata["centroids"] = [row[:17] for row in metadata["centroids"]]
    write_library(library_dir, metadata, tiny_stats())


@pytest.mark.parametrize(
    ("spoil", "first", "last"),
    [
        (spoil_nothing, "Model path does not exist: ", "Please ensure the offline library has been built (Stage 2)"),
        (spoil_pickle, "Failed to load clustering artifacts: kmeans_model.pkl: ", "Please verify the offline library"),
        (spoil_json, "Failed to load clustering artifacts: metadata.json: ", "Please verify the offline library"),
        (spoil_dimensions, "Feature dimension mismatch: expected 30D, got 17D", "Please rebuild offline library"),
    ],
)
def test_check_of_a_bad_library_says_what_is_wrong_and_what_to_do(
    stream_fp: CommandLine,
    library_dir: Path,
    spoil: Callable[[Path], None],
    first: str,
    last: str,
) -> None:
    spoil(library_dir)
    result = stream_fp("check", "--model-path", library_dir)
    assert (result.status, result.output) == (2, b"")
    (line,) = result.error.splitlines()
    assert line.startswith(f"stream-fp: setting `model_path`: {first}")
    assert last in line


@pytest.mark.parametrize(
    ("setting", "value", "others"),
    [
        ("sasl_password_file", "absent", {"security_protocol": "SASL_PLAINTEXT", "sasl_username": "u"}),
        ("ssl_ca_file", "absent", {"security_protocol": "SSL"}),
        ("ssl_cert_file", "absent", {"security_protocol": "SSL", "ssl_key_file": "absent"}),
        ("http_host", "203.0.113.7", {}),
        ("input_topic", "a b/c", {}),
    ],
)  # fmt: skip
def test_check_refuses_what_a_start_would_refuse(
    stream_fp: CommandLine, library_dir: Path, setting: str, value: str, others: dict[str, str]
) -> None:
    flags = [
        text for name, given in ({setting: value} | others).items() for text in (f"--{name.replace('_', '-')}", given)
    ]
    result = stream_fp("check", "--model-path", library_dir, *flags)
    assert (result.status, result.output) == (2, b"")
    assert_one_line(result.error)
    assert f"setting `{setting}`" in result.error


# ------------------------------------------------------------------------------------------------------------- replay


def expected_lines(source: Path, library_dir: Path, **settings: Any) -> bytes:  # noqa: ANN401 - those of `Settings`
    """Return what the replay itself writes."""
    lines: list[bytes] = []
    chosen = Settings(model_path=str(library_dir), **settings)
    replay_files(source, load_classifier(chosen), chosen, lines.append)
    return b"".join(lines)


def test_replay_without_output_writes_predictions_to_standard_output(
    stream_fp: CommandLine, source: Path, library_dir: Path
) -> None:
    result = stream_fp("replay", "--input", source, "--model-path", library_dir)
    assert result.status == 0
    assert result.output == expected_lines(source, library_dir)
    assert msgspec.json.decode(result.output, type=Prediction).session_id == SESSION_ID


def test_replay_to_a_file_makes_its_folders_and_writes_the_same(
    stream_fp: CommandLine, source: Path, library_dir: Path, tmp_path: Path
) -> None:
    output = tmp_path / "new" / "folder" / "predictions.jsonl"
    result = stream_fp("replay", "--input", source, "--model-path", library_dir, "--output", output)
    assert result.status == 0
    assert output.read_bytes() == expected_lines(source, library_dir)
    assert str(output) in result.error


def test_replay_takes_engine_settings_from_flags_environment_and_file(
    stream_fp: CommandLine, source: Path, library_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = settings_file(tmp_path, f"model_path = {json.dumps(str(library_dir))}\ncheckpoints = [30, 40]\n")
    monkeypatch.setenv(f"{ENV_PREFIX}DISTANCE_METRIC", "cosine")
    result = stream_fp("replay", "--input", source, "--config", file, "--confidence-method", "calibrated")
    expected = expected_lines(
        source, library_dir, checkpoints=(30.0, 40.0), distance_metric="cosine", confidence_method="calibrated"
    )
    assert result.output == expected
    assert len(expected.splitlines()) == 2


def test_replay_ends_with_a_summary_on_standard_error(stream_fp: CommandLine, source: Path, library_dir: Path) -> None:
    lines = [b"{broken", b'{"kind": "session_end", "session_id": "LONDON_2025-07-29"}']
    (source / "events.jsonl").write_bytes(b"\n".join(lines))
    (source / "broken.json").write_bytes(b"{")
    error = stream_fp("replay", "--input", source, "--model-path", library_dir).error
    *not_used, summary = error.splitlines()
    assert [line.partition(" expected")[0] for line in not_used] == [
        f"not used: {source / 'broken.json'}:",
        *[line.partition(" expected")[0] for line in not_used[1:]],
    ]
    assert not_used[1].startswith(f"not used: {source / 'events.jsonl'}:1: ")
    assert len(not_used) == 2
    assert summary.startswith("3 files, 78 records: ")
    assert "1 RecordDecodeError" in summary
    assert "1 end_of_unknown_session" in summary
    assert summary.endswith("1 session, 1 prediction")


def test_replay_says_why_a_session_has_no_prediction(stream_fp: CommandLine, source: Path, library_dir: Path) -> None:
    error = stream_fp("replay", "--input", source, "--model-path", library_dir, "--min-events", "60").error
    assert error.splitlines()[-1].endswith("0 predictions (without one: 1 too_few_events)")


@pytest.mark.parametrize("to_file", [False, True])
def test_replay_of_a_folder_without_sessions_fails_in_one_line(
    stream_fp: CommandLine, library_dir: Path, tmp_path: Path, *, to_file: bool
) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    output = ["--output", str(tmp_path / "out.jsonl")] if to_file else []
    result = stream_fp("replay", "--input", empty, "--model-path", library_dir, *output)
    assert (result.status, result.output) == (1, b"")
    assert_one_line(result.error)
    assert f"{empty}: expected files ending in" in result.error


def test_replay_of_nothing_leaves_an_older_output_as_it_is(
    stream_fp: CommandLine, library_dir: Path, tmp_path: Path
) -> None:
    output = tmp_path / "predictions.jsonl"
    output.write_bytes(b"of yesterday\n")
    arguments = ("replay", "--input", tmp_path / "mistyped", "--model-path", library_dir, "--output", output)
    assert stream_fp(*arguments).status == 1
    assert output.read_bytes() == b"of yesterday\n"


@pytest.mark.parametrize("to_file", [False, True])
def test_replay_of_unreadable_files_alone_fails_without_a_traceback(
    stream_fp: CommandLine, source: Path, library_dir: Path, tmp_path: Path, *, to_file: bool
) -> None:
    (source / "session.json").write_bytes(b'{"events": ["\xff"]}')
    output = ["--output", str(tmp_path / "out.jsonl")] if to_file else []
    result = stream_fp("replay", "--input", source, "--model-path", library_dir, *output)
    assert (result.status, result.output) == (1, b"")
    assert "none of 1 files can be read" in result.error.splitlines()[-1]


def test_replay_to_where_nothing_can_be_written_names_the_output(
    stream_fp: CommandLine, source: Path, library_dir: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").write_bytes(b"")
    output = tmp_path / "file" / "predictions.jsonl"
    result = stream_fp("replay", "--input", source, "--model-path", library_dir, "--output", output)
    assert result.status == 2
    assert_one_line(result.error)
    assert f"setting `output`: {output}: " in result.error


def test_replay_without_a_library_names_the_setting(stream_fp: CommandLine, source: Path) -> None:
    result = stream_fp("replay", "--input", source)
    assert (result.status, result.error) == (2, NO_MODEL)


def test_replay_gives_the_same_bytes_in_every_process(source: Path, library_dir: Path) -> None:
    for day in range(10, 15):
        session_id = f"NY_AM_2025-07-{day}"
        write_document(source / f"{session_id}.json", session_id)
    # The order of sets differs with the seed.
    first, second = (
        in_a_process("replay", "--input", source, "--model-path", library_dir, environment={"PYTHONHASHSEED": seed})
        for seed in ("1", "2")
    )
    assert first.returncode == second.returncode == 0
    assert len(first.stdout.splitlines()) == 6
    assert (first.stdout, first.stderr) == (second.stdout, second.stderr)


def test_replay_into_a_pipe_that_closes_ends_quietly(source: Path, library_dir: Path) -> None:
    for day in range(10, 30):
        session_id = f"NY_AM_2025-07-{day}"
        write_document(source / f"{session_id}.json", session_id)
    reading, writing = os.pipe()
    os.close(reading)
    try:
        process = subprocess.run(
            [sys.executable, "-m", "stream_fp", "replay", "--input", source, "--model-path", library_dir],
            stdout=writing, stderr=subprocess.PIPE, text=True, check=False, timeout=60,
        )  # fmt: skip
    finally:
        os.close(writing)
    assert process.returncode == 1
    assert "Traceback" not in process.stderr


# ------------------------------------------------------------------------------------------- commands of other packages


@pytest.fixture
def plugins(tmp_path: Path) -> Path:
    """A folder with two commands for `stream-fp`, laid out as pip installs them: one works, one lacks its package."""
    folder = tmp_path / "site"
    info = folder / "plugins-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: plugins\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[stream_fp.commands]\nfriendly = friendly_command:command\nlonely = no_such_package.cli:command\n"
    )
    (folder / "friendly_command.py").write_text(
        "import click\n\n"
        "@click.command()\n"
        '@click.option("--times", type=int, default=1, help="How often.")\n'
        '@click.argument("name")\n'
        "def command(times, name):\n"
        '    click.echo(" ".join(["hello", name] * times))\n'
        "    return 3\n"
    )
    return folder


def with_plugins(plugins: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    search = os.pathsep.join(filter(None, [str(plugins), os.environ.get("PYTHONPATH", "")]))
    return in_a_process(*arguments, environment={"PYTHONPATH": search})


def test_command_of_another_package_gets_its_arguments_and_returns_its_status(plugins: Path) -> None:
    process = with_plugins(plugins, "friendly", "--times", "2", "you")
    assert (process.returncode, process.stdout, process.stderr) == (3, "hello you hello you\n", "")


def test_command_of_another_package_shows_its_own_help(plugins: Path) -> None:
    process = with_plugins(plugins, "friendly", "--help")
    assert process.returncode == 0
    assert process.stdout.startswith("Usage: stream-fp friendly") or "friendly [OPTIONS] NAME" in process.stdout
    assert "How often." in process.stdout


def test_command_of_another_package_refuses_wrong_arguments_in_its_own_words(plugins: Path) -> None:
    process = with_plugins(plugins, "friendly", "--times", "often", "you")
    assert process.returncode == 2
    assert "'often' is not a valid integer" in process.stderr
    assert "Traceback" not in process.stderr


def test_command_whose_package_is_missing_says_what_to_install(plugins: Path) -> None:
    process = with_plugins(plugins, "lonely")
    assert (process.returncode, process.stdout) == (2, "")
    assert_one_line(process.stderr)
    assert "needs `no_such_package`, which is not installed: pip install 'stream-fp[lonely]'" in process.stderr


def test_command_whose_package_is_missing_is_listed_all_the_same(plugins: Path) -> None:
    process = with_plugins(plugins, "--help")
    assert process.returncode == 0
    for name in ("run", "replay", "check", "friendly", "lonely"):
        assert f"\n  {name} " in process.stdout
