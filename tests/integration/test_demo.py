"""The newcomer's first command, as a process of its own."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path


async def test_demo_ends_by_itself_and_agrees_with_replay(tmp_path: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "stream_fp", "demo", "--dir", str(tmp_path / "demo"),
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    output, _ = await asyncio.wait_for(process.communicate(), 60)
    text = " ".join(output.decode().split())
    assert process.returncode == 0, output.decode()
    assert "the same bytes as `stream-fp replay`" in text
    assert "at-least-once" in text
    assert len(list((tmp_path / "demo" / "sidecars").glob("*/session_fingerprint.json"))) >= 20
