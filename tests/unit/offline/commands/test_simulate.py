"""``stream-fp-offline simulate`` from the command line."""

from __future__ import annotations

import datetime as dt
import json
import shlex
from pathlib import Path

import pytest

from offline.cli import main
from offline.simulate import simulate_sessions


def run(*arguments: str | Path) -> int:
    with pytest.raises(SystemExit) as caught:
        main([str(argument) for argument in arguments])
    assert isinstance(caught.value.code, int)
    return caught.value.code


def test_simulate_writes_the_sessions_of_its_seed_and_says_what_is_next(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "sessions.jsonl"
    assert run("simulate", "--sessions", "42", "--seed", "5", "--output", output) == 0
    expected = [message for session in simulate_sessions(42, seed=5) for message in session.messages]
    assert [json.loads(line) for line in output.read_bytes().splitlines()] == expected
    said = capsys.readouterr()
    assert "42 sessions from 2025-01-06 to 2025-01-13" in said.out
    assert "Simulating: 42 of 42 sessions\n" in said.err
    command = shlex.split(said.out.partition("Train on them next:\n")[2].replace("\\\n", ""))
    assert command[:4] == ["stream-fp-offline", "train", "--input", str(output)]
    assert run(*command[1:4], "--output", tmp_path / "v1", "--archetypes", "3") == 0


def test_first_date_is_that_of_the_first_session(tmp_path: Path) -> None:
    output = tmp_path / "sessions.jsonl"
    assert run("simulate", "--sessions", "1", "--output", output, "--first-date", "2024-02-28") == 0
    assert b"MIDNIGHT_2024-02-28" in output.read_bytes()


def test_several_instruments_have_sessions_at_the_same_time_in_order_of_time(tmp_path: Path) -> None:
    output = tmp_path / "sessions.jsonl"
    assert run("simulate", "--sessions", "2", "--instruments", "3", "--output", output) == 0
    messages = [json.loads(line) for line in output.read_bytes().splitlines()]
    expected = {f"{name}_2025-01-06-{number:03d}" for name in ("MIDNIGHT", "LONDON") for number in range(3)}
    assert {message["session_id"] for message in messages} == expected
    times = [dt.datetime.fromisoformat(message["timestamp"]) for message in messages if "timestamp" in message]
    assert times == sorted(times)
    prices = {message["session_id"]: message["price_level"] for message in messages if "price_level" in message}
    assert len(set(prices.values())) == len(prices)


def test_existing_output_is_replaced_with_force_only(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ("simulate", "--sessions", "1", "--output", tmp_path / "sessions.jsonl")
    assert run(*arguments) == 0
    first = (tmp_path / "sessions.jsonl").read_bytes()
    capsys.readouterr()
    assert run(*arguments, "--seed", "2") == 2
    assert "--force" in capsys.readouterr().err
    assert (tmp_path / "sessions.jsonl").read_bytes() == first
    assert run(*arguments, "--seed", "2", "--force") == 0
    assert (tmp_path / "sessions.jsonl").read_bytes() != first


@pytest.mark.parametrize(
    "options", [["--sessions", "0"], ["--seed", "-1"], ["--first-date", "soon"], ["--first-date", "1066-10-14"]]
)
def test_wrong_option_is_a_usage_error(tmp_path: Path, options: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run("simulate", "--output", tmp_path / "a.jsonl", *options) == 2
    assert "Usage:" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
