"""The newcomer's first command, as a process of its own."""

from __future__ import annotations

import asyncio
import os
import re
import shlex
import sys
from pathlib import Path

import pytest


async def stream_fp(folder: Path, *arguments: str) -> str:
    """Run the program in a folder, with nothing set in the environment; gives what it says."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("STREAM_FP_")}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "stream_fp", *arguments,
        cwd=folder, env=environment | {"COLUMNS": "80"},
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    output, _ = await asyncio.wait_for(process.communicate(), 150)
    assert process.returncode == 0, output.decode()
    return output.decode()


@pytest.mark.timeout(400)
async def test_demo_ends_by_itself_and_the_replay_that_it_suggests_agrees(tmp_path: Path) -> None:
    said = await stream_fp(tmp_path, "demo")
    text = " ".join(said.split())
    assert "the same bytes as `stream-fp replay`" in text
    assert "at-least-once" in text
    assert max(map(len, said.splitlines())) <= 80

    demo = tmp_path / "build" / "demo"
    sidecars = sorted(path.read_bytes() for path in (demo / "sidecars").glob("*/session_fingerprint.json"))
    assert len(sidecars) >= 20
    books = re.search(r"(\d+) predictions for (\d+) sessions; (\d+) had fewer than 5 events at the 30 %", text)
    assert books is not None
    n_predictions, n_sessions, n_too_short = map(int, books.groups())
    assert n_predictions == len(sidecars) == n_sessions - n_too_short
    assert "came after their session's last checkpoint" in text

    replay, run = re.findall(r"^   stream-fp (?:.*\\\n)*.*", said, re.MULTILINE)
    assert "--bootstrap-servers" in run
    await stream_fp(tmp_path, *shlex.split(replay.replace("\\\n", ""))[1:])
    assert sorted((demo / "predictions.jsonl").read_bytes().splitlines()) == [value.strip() for value in sidecars]

    again = await stream_fp(tmp_path, "demo")
    assert "the same bytes" in " ".join(again.split())
    assert not (demo / "predictions.jsonl").exists()
