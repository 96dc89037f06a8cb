"""A Dask cluster of real processes on loopback, started and ended by tests: ``dask scheduler`` and ``dask worker``."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Final, Self

__all__ = ["LocalDask"]

_ROOT: Final = Path(__file__).resolve().parents[2]
_START_S: Final = 60.0
_OPTIONS: Final = ("--host", "127.0.0.1", "--no-dashboard")
#: Whoever was killed before it could end them leaves them behind; then they end by themselves.
_IDLE_S: Final = "1800"
_ORPHAN_S: Final = "60"


class LocalDask:
    """A scheduler and its workers; the folder takes what they write. Workers have no nanny: one that dies stays dead.

    Parameters
    ----------
    folder
        Working folder of the processes.
    settings
        Further settings of distributed, such as ``{"SCHEDULER__ALLOWED_FAILURES": "0"}``.
    """

    def __init__(self, folder: Path, settings: dict[str, str] | None = None) -> None:
        self._folder = folder
        # A free port of its own choice, which the file tells.
        self._file = folder / "scheduler.json"
        self._environment = os.environ | {
            "PYTHONPATH": os.pathsep.join((str(_ROOT), *filter(None, [os.environ.get("PYTHONPATH")])))
        }
        self._environment |= {f"DASK_DISTRIBUTED__{name}": value for name, value in (settings or {}).items()}
        self.workers: list[subprocess.Popen[bytes]] = []
        self.scheduler = self._start(
            "scheduler", "--port", "0", "--scheduler-file", str(self._file), "--idle-timeout", _IDLE_S
        )
        self.address = ""

    def __enter__(self) -> Self:
        try:
            deadline_s = time.monotonic() + _START_S
            while not self.address:
                self._check(deadline_s)
                if self._file.exists() and (told := self._file.read_text()).endswith("}"):
                    self.address = json.loads(told)["address"]
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_error: object) -> None:
        for process in (*self.workers, self.scheduler):
            process.kill()
        for process in (*self.workers, self.scheduler):
            process.wait()

    def add_workers(self, n_workers: int, *options: str) -> None:
        """Start workers of one thread, and wait until the scheduler knows them."""
        n_before = len(self.workers)
        for number in range(n_before, n_before + n_workers):
            name = f"worker-{number}"
            self.workers.append(
                self._start(
                    "worker", self.address, "--nthreads", "1", "--no-nanny", "--name", name,
                    "--death-timeout", _ORPHAN_S, *options,
                )
            )  # fmt: skip
        deadline_s = time.monotonic() + _START_S
        while self._log("scheduler").count("Register worker") < len(self.workers):
            self._check(deadline_s)

    def kill_worker(self, number: int) -> None:
        """End a worker without a word."""
        self.workers[number].send_signal(signal.SIGKILL)
        self.workers[number].wait()

    def kill_scheduler(self) -> None:
        """End the scheduler without a word."""
        self.scheduler.kill()
        self.scheduler.wait()

    def _start(self, what: str, *options: str) -> subprocess.Popen[bytes]:
        name = what if what == "scheduler" else f"{what}-{len(self.workers)}"
        with (self._folder / f"{name}.log").open("wb") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "dask", what, *options, *_OPTIONS],
                cwd=self._folder, env=self._environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip

    def _check(self, deadline_s: float) -> None:
        for process in (self.scheduler, *self.workers):
            if process.poll() is not None:
                raise RuntimeError(f"a process of the cluster ended: {self._logs()}")
        if time.monotonic() > deadline_s:
            raise TimeoutError(f"no cluster after {_START_S:g} s: {self._logs()}")
        time.sleep(0.05)

    def _log(self, name: str) -> str:
        return (self._folder / f"{name}.log").read_text()

    def _logs(self) -> str:
        return "\n".join(path.read_text()[-2000:] for path in sorted(self._folder.glob("*.log")))
