"""Commands as processes, run to their end: how long they took, and what of the machine."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

__all__ = ["Run", "run_module"]

_LAUNCHER: Final = Path(__file__).with_name("launcher.py")
_TIMEOUT_S: Final = 1800


@dataclass(frozen=True, slots=True)
class Run:
    """What a command took, with all that belongs to it: interpreter, imports, work, end.

    `peak_mb` is the resident memory of its largest process in 10^6 bytes; `told` is all that it wrote to its output.
    """

    wall_s: float
    cpu_s: float
    peak_mb: float
    told: str = field(repr=False)


def run_module(module: str, *arguments: str) -> Run:
    """Run ``python -m module`` to its end; what does not end within half an hour is killed.

    Raises
    ------
    RuntimeError
        When the exit status is not 0; the text has the output.
    """
    command = [sys.executable, "-m", module, *arguments]
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", str(_LAUNCHER), str(_TIMEOUT_S), *command],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=output,
        )  # fmt: skip
        try:
            answer, _ = process.communicate()
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait()
        output.seek(0)
        told = output.read().decode()
    found = json.loads(answer or '{"status": "an interruption"}')
    if found.pop("status") != 0:
        msg = f"`{' '.join(command)}` failed or was ended:\n{told}"
        raise RuntimeError(msg)
    return Run(**found, told=told)
