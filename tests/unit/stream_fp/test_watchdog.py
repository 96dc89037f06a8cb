"""In processes of their own: what a watchdog does cannot be tested in the process that tests.

The sleeps in those processes are the matter itself: they keep the event loop from answering.
"""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import asyncio, logging, time
from stream_fp.watchdog import Watchdog

logging.basicConfig()
watchdog = Watchdog({silence_s})
watchdog.start()

async def main():
    {body}

asyncio.run(main())
"""


def status_and_errors(body: str, silence_s: float = 1.0) -> tuple[int, str]:
    process = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(body=body, silence_s=silence_s)],
        capture_output=True, text=True, check=False, timeout=30,
    )  # fmt: skip
    return process.returncode, process.stderr


def test_loop_that_stops_answering_ends_the_process_with_a_message() -> None:
    status, errors = status_and_errors("time.sleep(20)")
    assert status == 1
    assert "the event loop has not answered for 1 s (setting `stall_exit_s`)" in errors


@pytest.mark.parametrize(
    "body", ["await asyncio.sleep(0.1)", "[(watchdog.beat(), time.sleep(0.2)) for _ in range(10)]"]
)
def test_loop_that_answers_or_ends_is_left_alone(body: str) -> None:
    assert status_and_errors(body) == (0, "")


def test_shutdown_that_outlasts_its_time_is_cut_short_although_the_loop_answers() -> None:
    status, errors = status_and_errors(
        "watchdog.end_within(1.0); [(watchdog.beat(), time.sleep(0.2)) for _ in range(50)]", silence_s=100.0
    )
    assert status == 1
    assert "the shutdown has taken more than 1 s" in errors
