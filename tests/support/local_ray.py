"""A Ray cluster of real processes on loopback, started and ended by tests: a head without CPUs, and nodes of one."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Final, Self

__all__ = ["LocalRay"]

_ROOT: Final = Path(__file__).resolve().parents[2]
_START_S: Final = 60.0
_HOST: Final = "127.0.0.1"
_STORE_BYTES: Final = 80 * 2**20


class LocalRay:
    """A head that runs no tasks, and nodes that run one at a time; all of them end with the block.

    Ray's processes are in groups of their own, each begun by `ray start --block`, which ends them all.
    """

    def __init__(self) -> None:
        # Its sockets lie there, and their paths may have no more than 107 bytes.
        self._folder = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))
        self._environment = os.environ | {
            "PYTHONPATH": os.pathsep.join((str(_ROOT), *filter(None, [os.environ.get("PYTHONPATH")]))),
            # Nobody outside is told what is used.
            "RAY_USAGE_STATS_ENABLED": "0",
            # A node that was killed is missed within seconds.
            "RAY_health_check_initial_delay_ms": "2000",
            "RAY_health_check_period_ms": "1000",
            "RAY_health_check_timeout_ms": "2000",
            "RAY_health_check_failure_threshold": "2",
        }
        self._processes: list[subprocess.Popen[bytes]] = []
        self._port, client_port = _free_port(), _free_port()
        self.address = f"ray://{_HOST}:{client_port}"
        try:
            self._start_head(client_port)
        except BaseException:
            self.__exit__()
            raise

    def _start_head(self, client_port: int) -> None:
        self._start(
            "--head", "--port", str(self._port), "--ray-client-server-port", str(client_port), "--num-cpus", "0",
            "--include-dashboard", "false", "--temp-dir", str(self._folder),
        )  # fmt: skip
        deadline_s = time.monotonic() + _START_S
        while True:
            try:
                return socket.create_connection((_HOST, client_port), timeout=1).close()
            except OSError:
                if time.monotonic() > deadline_s:
                    raise
                time.sleep(0.05)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        for process in reversed(self._processes):
            process.send_signal(signal.SIGTERM)
        for process in self._processes:
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        shutil.rmtree(self._folder, ignore_errors=True)

    def add_nodes(self, n_nodes: int) -> None:
        """Start nodes that run one task at a time."""
        for _ in range(n_nodes):
            self._start("--address", f"{_HOST}:{self._port}", "--num-cpus", "1")

    def kill_node(self) -> None:
        """End the node that was added last, with its workers, without a word."""
        self._kill(self._processes.pop())

    def kill_head(self) -> None:
        """End the head without a word."""
        self._kill(self._processes.pop(0))

    def _kill(self, process: subprocess.Popen[bytes]) -> None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def _start(self, *options: str) -> None:
        log = self._folder / f"start-{len(self._processes)}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [
                    sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--node-ip-address", _HOST,
                    "--object-store-memory", str(_STORE_BYTES), "--min-worker-port", "0", "--max-worker-port", "0",
                    "--disable-usage-stats", *options,
                ],
                env=self._environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True,
            )  # fmt: skip
        self._processes.append(process)
        deadline_s = time.monotonic() + _START_S
        while "Ray runtime started" not in log.read_text():
            if process.poll() is not None or time.monotonic() > deadline_s:
                raise RuntimeError(f"no Ray: {log.read_text()[-2000:]}")
            time.sleep(0.05)


def _free_port() -> int:
    with socket.socket() as listening:
        listening.bind((_HOST, 0))
        return int(listening.getsockname()[1])
