"""A real `stream-fp run` in a process of its own, and what a test wants to know of it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

__all__ = ["Samples", "ServiceProcess", "free_port", "running_service", "start_service"]

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def free_port() -> int:
    """Return a port of the loopback address that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@dataclass
class ServiceProcess:
    """One process; `log` is where its output goes."""

    process: asyncio.subprocess.Process
    port: int
    log: Path
    _samples: Samples = field(default_factory=dict)

    async def get(self, path: str) -> tuple[int, str]:
        """Return status and body of an HTTP GET; status 0 where nobody answers."""
        return await asyncio.to_thread(_get, f"http://127.0.0.1:{self.port}{path}")

    async def wait_ready(self, timeout_s: float = 45.0) -> None:
        """Wait until /readyz says ok."""
        await self.wait_until("ready", "/readyz", timeout_s)

    async def wait_until(self, what: str, path: str, timeout_s: float) -> None:
        """Wait until a path answers 200; fail with the log where the process ends or the time is over."""
        async with asyncio.timeout(timeout_s):
            while True:
                status, body = await self.get(path)
                if status == 200:
                    return
                if self.process.returncode is not None:
                    msg = f"ended with {self.process.returncode} before it was {what}:\n{self.output()}"
                    raise AssertionError(msg)
                await asyncio.sleep(0.05)
                del body

    async def metrics(self) -> Samples:
        """Return all samples of /metrics by name and labels."""
        _, text = await self.get("/metrics")
        return {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }

    async def total(self, name: str, **labels: str) -> float:
        """Return the sum of the samples of `name` that have these labels."""
        wanted = set(labels.items())
        return sum(value for (n, found), value in (await self.metrics()).items() if n == name and wanted <= found)

    async def terminate(self, timeout_s: float = 30.0) -> int:
        """Send SIGTERM and return the exit status."""
        if self.process.returncode is None:
            self.process.send_signal(signal.SIGTERM)
        return await asyncio.wait_for(self.process.wait(), timeout_s)

    async def kill(self) -> None:
        """Send SIGKILL and wait for the end."""
        if self.process.returncode is None:
            self.process.kill()
        await self.process.wait()

    def output(self) -> str:
        """Return what it has written."""
        return self.log.read_text("utf-8", "replace")


async def start_service(
    log: Path,
    *arguments: str,
    environment: Mapping[str, str] | None = None,
    program: Sequence[str] | None = None,
) -> ServiceProcess:
    """Start `stream-fp run` (or another `program` that takes its arguments) on a free HTTP port."""
    port = free_port()
    command = [*(program or (sys.executable, "-m", "stream_fp")), "run"]
    with log.open("ab") as output:
        process = await asyncio.create_subprocess_exec(
            *command, "--http-host", "127.0.0.1", "--http-port", str(port), *arguments,
            stdout=output, stderr=output, env={**os.environ, **(environment or {})},
        )  # fmt: skip
    return ServiceProcess(process, port, log)


@contextlib.asynccontextmanager
async def running_service(
    log: Path, *arguments: str, environment: Mapping[str, str] | None = None
) -> AsyncIterator[ServiceProcess]:
    """Start `stream-fp run` as `start_service` does; it is killed in the end."""
    service = await start_service(log, *arguments, environment=environment)
    try:
        yield service
    finally:
        await service.kill()


def _get(url: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310 - loopback
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()
    except OSError:
        return 0, ""
