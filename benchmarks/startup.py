"""Measure what it costs to start the service and to keep it waiting: seconds until ready, memory, loading artifacts.

In interleaved rounds, each time a fresh process: `stream-fp run` on an empty topic, from its spawning to the moment
when it has imported everything, has loaded and verified the library and turns to the broker (it logs "connecting to"),
then until /readyz says so, group joined; its resident memory some seconds later, when nothing happens; the library
alone, loaded for the first time and again, imports excluded; and for reference the bare interpreter and imports alone,
end of the process included. Byte code is warm, as after an installation: one uncounted run of each comes first, with a
cache of its own. Resident memory is VmRSS, and Pss where /proc has it (pages that are shared count by their share); MB
are 10^6 bytes. Prints a table and writes ``build/benchmarks/startup.json``.

    python -m benchmarks.startup [--rounds 5] [--idle-s 5] [--seed 1] [--quick]
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from benchmarks.harness import new_parser, print_table, spread, trained_library, write_report
from benchmarks.live import Topics, member_arguments, new_topics
from tests.support.broker import running_broker
from tests.support.service import free_port

PROGRAMS: Final = {
    "python, nothing else": "pass",
    "import numpy, aiokafka": "import numpy, aiokafka",
    "import stream_fp.service": "import stream_fp.service",
    "import stream_fp.cli": "import stream_fp.cli",
}
#: Prints how long each loading took, in milliseconds.
LOADING: Final = """
import json, sys, time
from pathlib import Path
from stream_fp.library import load_library
took_ms = []
for _ in range(6):
    started_s = time.perf_counter()
    load_library(Path(sys.argv[1]))
    took_ms.append(1e3 * (time.perf_counter() - started_s))
print(json.dumps(took_ms))
"""
READY, JOINED = "ready (joining excluded), s", "/readyz says ok (joining included), s"
RSS, PSS = "idle: resident memory, MB", "idle: its share of it (Pss), MB"
FIRST_LOAD, LATER_LOAD = "library: first load, ms", "library: later loads, ms"
READY_LINE: Final = b"connecting to"
#: How often /readyz is asked; so exact is the time until it says yes.
ASK_INTERVAL_S: Final = 0.01
TIMEOUT_S: Final = 60.0

Samples = dict[str, list[float]]


def main() -> int:
    """Run the benchmark; returns the exit status."""
    parser = new_parser(__doc__)
    parser.add_argument("--idle-s", type=float, default=5.0, help="how long a service has been idle when it is weighed")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.rounds, arguments.idle_s = min(arguments.rounds, 3), min(arguments.idle_s, 2.0)
    library = trained_library(arguments.seed)
    with running_broker() as broker, _byte_code_cache() as environment:
        samples = _measure(broker.bootstrap_servers, library, environment, arguments)
    figures = {
        "ready_s": statistics.median(samples[READY]),
        "joined_s": statistics.median(samples[JOINED]),
        "idle_rss_mb": statistics.median(samples[RSS]),
        "artifact_load_ms": statistics.median(samples[FIRST_LOAD]),
        "artifact_load_again_ms": statistics.median(samples[LATER_LOAD]),
    }
    write_report("startup", arguments, figures, broker=broker.origin, samples=samples)
    print_table(
        f"Start of the service, medians of {arguments.rounds} rounds",
        ["", "median", "min - max"],
        [[name, f"{statistics.median(values):.3f}", spread(values, 3)] for name, values in samples.items()],
    )
    return 0


@contextlib.contextmanager
def _byte_code_cache() -> Iterator[dict[str, str]]:
    """Yield an environment whose processes keep byte code in a folder of their own, whatever this one's says."""
    with tempfile.TemporaryDirectory() as folder:
        yield {**os.environ, "PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": folder}


def _measure(servers: str, library: Path, environment: dict[str, str], arguments: argparse.Namespace) -> Samples:
    samples: Samples = {}
    for warm_up in (True, *(False for _ in range(arguments.rounds))):
        found = {f"{name}, s": _time_program(code, environment) for name, code in PROGRAMS.items()}
        found |= _time_loading(library, environment)
        with new_topics(servers) as topics:
            found |= _start_service(topics, library, environment, 0.0 if warm_up else arguments.idle_s)
        if not warm_up:
            for name, value in found.items():
                samples.setdefault(name, []).append(value)
    return samples


def _time_program(code: str, environment: dict[str, str]) -> float:
    started_s = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True, env=environment, timeout=TIMEOUT_S)
    return time.perf_counter() - started_s


def _time_loading(library: Path, environment: dict[str, str]) -> dict[str, float]:
    command = [sys.executable, "-c", LOADING, str(library)]
    answer = subprocess.run(command, check=True, env=environment, timeout=TIMEOUT_S, capture_output=True)
    first_ms, *later_ms = json.loads(answer.stdout)
    return {FIRST_LOAD: first_ms, LATER_LOAD: statistics.median(later_ms)}


def _start_service(topics: Topics, library: Path, environment: dict[str, str], idle_s: float) -> dict[str, float]:
    """Start the service, see it ready, joined and idle, and end it."""
    port = free_port()
    command = [
        sys.executable, "-m", "stream_fp", "run", "--http-host", "127.0.0.1", "--http-port", str(port),
        *member_arguments(topics, library),
    ]  # fmt: skip
    started_s = time.perf_counter()
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE)
    # Whatever it hangs in, reading its output ends with it.
    watchdog = threading.Timer(TIMEOUT_S + idle_s, process.kill)
    watchdog.start()
    try:
        ready_s = _wait_for_line(process) - started_s
        joined_s = _wait_until_ready(port, process) - started_s
        time.sleep(idle_s)
        found = {READY: ready_s, JOINED: joined_s, **_memory_mb(process)}
        process.terminate()
        if process.wait() != 0:
            msg = f"the service ended with {process.returncode}"
            raise RuntimeError(msg)
    finally:
        watchdog.cancel()
        process.kill()
        process.communicate()
    return found


def _wait_for_line(process: subprocess.Popen[bytes]) -> float:
    """Return when the service said that it turns to the broker."""
    said = []
    for line in process.stderr or ():
        if READY_LINE in line:
            return time.perf_counter()
        said.append(line.decode(errors="replace"))
    msg = f"the service ended before it was ready:\n{''.join(said)}"
    raise RuntimeError(msg)


def _wait_until_ready(port: int, process: subprocess.Popen[bytes]) -> float:
    while process.poll() is None:
        with contextlib.suppress(urllib.error.URLError, ConnectionError):
            urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5).close()
            return time.perf_counter()
        time.sleep(ASK_INTERVAL_S)
    msg = f"the service ended with {process.returncode} before it had joined"
    raise RuntimeError(msg)


def _memory_mb(process: subprocess.Popen[bytes]) -> dict[str, float]:
    """Return resident memory of a process, and its share where pages are shared; from /proc, or else from `ps`."""
    folder = Path(f"/proc/{process.pid}")
    if not folder.exists():
        answer = subprocess.run(["ps", "-o", "rss=", "-p", str(process.pid)], check=True, capture_output=True)
        return {RSS: int(answer.stdout) * 1024 / 1e6}
    found = {RSS: _kib("VmRSS", folder / "status") * 1024 / 1e6}
    with contextlib.suppress(OSError):
        found[PSS] = _kib("Pss", folder / "smaps_rollup") * 1024 / 1e6
    return found


def _kib(name: str, path: Path) -> int:
    line = re.search(rf"^{name}:\s+(\d+) kB", path.read_text(), re.MULTILINE)
    if line is None:
        msg = f"{path}: expected {name}"
        raise RuntimeError(msg)
    return int(line[1])


if __name__ == "__main__":
    sys.exit(main())
