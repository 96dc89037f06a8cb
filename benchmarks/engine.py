"""Measure the engine alone: records a second from bytes, and the latency of a fingerprint with its classification.

One process, no Kafka. Decoding alone (msgspec into the same structure) is measured in the same rounds, interleaved, so
that the ratio holds on a machine whose speed drifts. Prints a table and writes ``build/benchmarks/engine.json``.

    python benchmarks/engine.py [--rounds 7] [--sessions 400] [--seed 1]
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from pathlib import Path

import msgspec
import numpy as np
from rich.console import Console
from rich.table import Table

from offline.artifacts import write_library
from offline.dataset import load_dataset
from offline.simulate import interleave, simulate_sessions
from offline.train import TrainingOptions, train
from stream_fp import __version__
from stream_fp.classifier import Classifier
from stream_fp.engine import Engine, EngineSettings
from stream_fp.features import extract
from stream_fp.files import FileRecord
from stream_fp.library import Library, load_library
from stream_fp.messages import decode_message
from stream_fp.predictor import Predictor
from stream_fp.sessions import Columns

PREFIX_LENGTHS = (20, 50, 150, 1000)
OUTPUT = Path("build/benchmarks/engine.json")


def main() -> int:
    """Run the benchmark; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--sessions", type=int, default=400)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()

    messages = list(interleave(simulate_sessions(arguments.sessions, seed=arguments.seed)))
    records = [
        FileRecord(offset, message["session_id"].encode(), msgspec.json.encode(message))
        for offset, message in enumerate(messages)
    ]
    with tempfile.TemporaryDirectory() as folder:
        library = train_library(Path(folder), records)
    rounds: dict[str, list[float]] = {"decode alone": [], "engine": [], "engine, 4 checkpoints": []}
    gc.collect()
    for _ in range(arguments.rounds):
        rounds["decode alone"].append(_time_decoding(records))
        rounds["engine"].append(_time_engine(records, library, (30.0,)))
        rounds["engine, 4 checkpoints"].append(_time_engine(records, library, (25.0, 30.0, 40.0, 50.0)))
    latencies = {n: _time_predictions(library, n, arguments.rounds, arguments.seed) for n in PREFIX_LENGTHS}
    report = {
        "machine": {"python": sys.version, "platform": platform.platform(), "cpus": os.cpu_count()},
        "versions": {"stream_fp": __version__, "numpy": np.__version__, "msgspec": msgspec.__version__},
        "arguments": vars(arguments),
        "n_records": len(records),
        "us_per_record": rounds,
        "prediction_ms": latencies,
        "figures": {
            "engine_over_decode": statistics.median(rounds["engine"]) / statistics.median(rounds["decode alone"]),
            "classify_50_p99_ms": latencies[50]["p99"],
        },
    }
    OUTPUT.parent.mkdir(parents=True, exist_ok=True)
    OUTPUT.write_text(json.dumps(report, indent=2) + "\n")
    _print(rounds, latencies, len(records))
    return 0


def train_library(folder: Path, records: list[FileRecord]) -> Library:
    """Train a library on records, in `folder`."""
    path = folder / "sessions.jsonl"
    path.write_bytes(b"\n".join(record.value or b"" for record in records))
    options = TrainingOptions(model_version="0", n_archetypes=4, profile="pace")
    write_library(train(load_dataset(path), options), folder / "v0")
    return load_library(folder / "v0")


def _time_decoding(records: list[FileRecord]) -> float:
    started_s = time.perf_counter()
    for record in records:
        decode_message(record.value)
    return 1e6 * (time.perf_counter() - started_s) / len(records)


def _time_engine(records: list[FileRecord], library: Library, checkpoints_pct: tuple[float, ...]) -> float:
    engine = Engine(
        Predictor(Classifier(library)),
        EngineSettings(checkpoints_pct=checkpoints_pct),
        schedules=library.schedules,
        typical_events=library.typical_events,
    )
    started_s = time.perf_counter()
    for record in records:
        engine.process(record)
    took_s = time.perf_counter() - started_s
    if not engine.counts.predictions or not engine.counts.reconciles:
        msg = f"the run went wrong: {engine.counts}"
        raise RuntimeError(msg)
    return 1e6 * took_s / len(records)


def _time_predictions(library: Library, n_events: int, n_rounds: int, seed: int) -> dict[str, float]:
    rng = np.random.default_rng(seed)
    classifier = Classifier(library)
    took_ms = []
    for _ in range(300 * n_rounds):
        columns = Columns(
            times_us=np.sort(rng.integers(0, 3_600_000_000, n_events)) + 1_700_000_000_000_000,
            prices=20_000 + np.cumsum(rng.normal(size=n_events)),
            intensities=rng.gamma(2.0, 0.5, n_events),
            codes=rng.integers(0, 28, n_events).astype(np.uint8),
            start_us=1_700_000_000_000_000,
        )
        started_ns = time.perf_counter_ns()
        classifier.classify(extract(columns), 30.0)
        took_ms.append((time.perf_counter_ns() - started_ns) / 1e6)
    p50, p99, p999 = np.percentile(took_ms[len(took_ms) // 10 :], [50, 99, 99.9]).tolist()
    return {"p50": p50, "p99": p99, "p99.9": p999}


def _print(rounds: dict[str, list[float]], latencies: dict[int, dict[str, float]], n_records: int) -> None:
    console = Console()
    decoding = statistics.median(rounds["decode alone"])
    table = Table(title=f"Engine from bytes, {n_records} records")
    for heading in ("", "us a record (median)", "min - max", "records/s", "over decode alone"):
        table.add_column(heading, justify="right")
    for name, values in rounds.items():
        median = statistics.median(values)
        spread = f"{min(values):.2f} - {max(values):.2f}"
        table.add_row(name, f"{median:.2f}", spread, f"{1e6 / median:,.0f}", f"{median / decoding:.2f}")
    console.print(table)
    table = Table(title="Fingerprint and classification, ms")
    for heading in ("events", "p50", "p99", "p99.9"):
        table.add_column(heading, justify="right")
    for n, figures in latencies.items():
        table.add_row(str(n), *(f"{figures[name]:.3f}" for name in ("p50", "p99", "p99.9")))
    console.print(table)


if __name__ == "__main__":
    sys.exit(main())
