"""What the benchmarks share: arguments, samples taken in interleaved rounds, the stream, the report.

Every script prints a table and writes ``build/benchmarks/<name>.json`` with the machine, the versions, its arguments,
every sample and its figures. Ways that are compared are measured one after another within each round, so that their
ratios hold on a machine whose speed drifts; a ratio is the median of the ratios within the rounds.
"""

from __future__ import annotations

import argparse
import atexit
import contextlib
import gc
import json
import os
import platform
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

import msgspec
from rich.console import Console
from rich.table import Table

from offline.artifacts import write_library
from offline.dataset import load_dataset
from offline.simulate import SimulatedSession, interleave, simulate_instrument, simulate_sessions
from offline.train import TrainingOptions, train
from stream_fp.files import FileRecord
from stream_fp.stamps import IS_COMPILED

__all__ = ["Samples", "new_parser", "print_table", "ratio", "spread", "stream_records", "trained_library",
           "write_report"]  # fmt: skip

FOLDER: Final = Path("build/benchmarks")
_PACKAGES: Final = ("stream-fp", "aiokafka", "msgspec", "numpy", "scikit-learn")
_N_TRAINING_SESSIONS: Final = 400


@dataclass
class Samples:
    """One way of doing the work: wall and processor time of one item in microseconds, a sample a round."""

    wall_us: list[float] = field(default_factory=list)
    cpu_us: list[float] = field(default_factory=list)

    @contextlib.contextmanager
    def sample(self, n_items: int) -> Iterator[None]:
        """Add what the block takes, by item; processor time is that of this process."""
        gc.collect()
        started_s, started_cpu_s = time.perf_counter(), time.process_time()
        yield
        self.cpu_us.append(1e6 * (time.process_time() - started_cpu_s) / n_items)
        self.wall_us.append(1e6 * (time.perf_counter() - started_s) / n_items)


def ratio(one: Sequence[float], other: Sequence[float]) -> float:
    """Return the median of the ratios within each round."""
    return statistics.median(a / b for a, b in zip(one, other, strict=True))


def spread(values: Sequence[float], decimals: int = 2) -> str:
    """Return lowest and highest value as text."""
    return f"{min(values):.{decimals}f} - {max(values):.{decimals}f}"


def new_parser(doc: str | None, *, rounds: int = 5) -> argparse.ArgumentParser:
    """Return a parser with the arguments that every benchmark has: ``--rounds``, ``--seed`` and ``--quick``."""
    parser = argparse.ArgumentParser(description=(doc or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=rounds)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="a smaller stream, as in `make bench-quick`")
    return parser


def stream_records(n_instruments: int, n_sessions: int, seed: int) -> list[FileRecord]:
    """Return the events of many instruments as records of one topic partition, in time order.

    Parameters
    ----------
    n_instruments : int
        Open at the same time.
    n_sessions : int
        Of each instrument, one after another; seven a day, of about 83 events each.
    seed : int
    """
    numbers = range(n_instruments)
    with ProcessPoolExecutor() as pool:
        simulated = pool.map(_instrument, numbers, [n_sessions] * n_instruments, [seed] * n_instruments, chunksize=4)
        instruments = [session for sessions in simulated for session in sessions]
    return [
        FileRecord(offset, message["session_id"].encode(), msgspec.json.encode(message))
        for offset, message in enumerate(interleave(instruments))
    ]


def _instrument(number: int, n_sessions: int, seed: int) -> list[SimulatedSession]:
    return list(simulate_instrument(f"{number:03d}", n_sessions, seed=1000 * seed + number))


@lru_cache(maxsize=4)
def trained_library(seed: int) -> Path:
    """Train a library of four archetypes on 400 simulated sessions; return its folder, which lasts as the process."""
    folder = Path(tempfile.mkdtemp(prefix="stream-fp-benchmark-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    path = folder / "sessions.jsonl"
    messages = interleave(simulate_sessions(_N_TRAINING_SESSIONS, seed=seed))
    path.write_bytes(b"\n".join(msgspec.json.encode(message) for message in messages))
    options = TrainingOptions(model_version="0", n_archetypes=4, profile="pace")
    write_library(train(load_dataset(path), options), folder / "v0")
    return folder / "v0"


def write_report(name: str, arguments: argparse.Namespace, figures: dict[str, float], **details: Any) -> Path:
    """Write ``build/benchmarks/<name>.json``; `details` hold every sample. Returns its path."""
    report = {
        "machine": {"python": sys.version, "platform": platform.platform(), "cpus": os.cpu_count(), "cpu": _cpu()},
        "engine": "compiled" if IS_COMPILED else "interpreted",
        "versions": {package: found for package in _PACKAGES if (found := _version(package))},
        "arguments": vars(arguments),
        "figures": figures,
        **details,
    }
    FOLDER.mkdir(parents=True, exist_ok=True)
    path = FOLDER / f"{name}.json"
    path.write_text(json.dumps(report, indent=2, default=str) + "\n")
    return path


def print_table(title: str, headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table whose first column is text and whose others are numbers."""
    table = Table(title=title, title_justify="left")
    for i, heading in enumerate(headings):
        table.add_column(heading, justify="right" if i else "left", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    Console(width=120).print(table)


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
