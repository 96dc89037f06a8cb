"""Measure the way from bars to a library: `stream-fp-offline events`, then `stream-fp-offline train`.

Both commands as processes, with all that belongs to them (interpreter, imports, reading, writing). The bars are those
of a year, one a minute: a seeded random walk with a daily rhythm of volatility, Sunday 18:00 to Friday 17:00 in New
York with an hour's pause a day, some 360,000 in a Parquet file. `train` learns from the events that `events` found,
with its defaults: number and profile of the archetypes are chosen by evidence, which is most of its work. Memory is
the peak of the command's largest process (`train` may use one for each core), MB are 10^6 bytes. Prints a table and
writes ``build/benchmarks/training.json``.

    python -m benchmarks.training [--rounds 3] [--weeks 52] [--seed 1] [--quick]
"""

from __future__ import annotations

import re
import statistics
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import polars as pl

from benchmarks.harness import new_parser, print_table, spread, write_report
from benchmarks.processes import Run, run_module

EVENTS, TRAIN = "events", "train"
N_QUICK_WEEKS = 8
FIRST_SUNDAY = np.datetime64("2025-01-05T18:00")
MINUTES_A_DAY, MINUTES_OPEN = 24 * 60, 23 * 60
TICK = 0.25
_LEARNED = re.compile(r"Learning from (\d+) sessions")


def main() -> int:
    """Run the benchmark; returns the exit status."""
    parser = new_parser(__doc__, rounds=3)
    parser.add_argument("--weeks", type=int, default=52, help="of bars")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.weeks = min(arguments.weeks, N_QUICK_WEEKS)

    runs: dict[str, list[Run]] = {EVENTS: [], TRAIN: []}
    with tempfile.TemporaryDirectory(prefix="stream-fp-benchmark-") as name:
        folder = Path(name)
        bars, events, library = folder / "bars.parquet", folder / "events.jsonl", folder / "v0"
        n_bars = write_bars(bars, arguments.weeks, arguments.seed)
        for _ in range(arguments.rounds):
            runs[EVENTS].append(
                run_module("offline", "events", "--bars", str(bars), "--output", str(events), "--force")
            )
            runs[TRAIN].append(
                run_module("offline", "train", "--input", str(events), "--output", str(library), "--force")
            )
            _check(events, library)
        n_messages = events.read_bytes().count(b"\n")
    n_sessions = _n_sessions(runs[TRAIN][-1])
    figures = _figures(runs, n_bars, n_sessions)
    write_report(
        "training",
        arguments,
        figures,
        n_bars=n_bars,
        n_messages=n_messages,
        n_sessions=n_sessions,
        runs={name: [asdict(run) for run in found] for name, found in runs.items()},
    )
    print_table(
        f"{n_bars:,} bars, {n_messages:,} messages, {n_sessions:,} sessions",
        ("", "s", "min - max", "CPU", "a second", "peak MB"),
        [_row("events", runs[EVENTS], n_bars, "bars"), _row("train", runs[TRAIN], n_sessions, "sessions")],
    )
    return 0


def write_bars(path: Path, n_weeks: int, seed: int) -> int:
    """Write the bars of so many weeks and return how many they are."""
    rng = np.random.default_rng(seed)
    day = np.arange(MINUTES_OPEN)
    week = np.concatenate([number * MINUTES_A_DAY + day for number in range(5)])
    minutes = np.concatenate([number * 7 * MINUTES_A_DAY + week for number in range(n_weeks)])
    n_bars = len(minutes)
    local = (18 * 60 + minutes % MINUTES_A_DAY) % MINUTES_A_DAY
    rhythm = 2.0 + 9.0 * np.exp(-(((local - 10 * 60) / 90.0) ** 2)) + 4.0 * np.exp(-(((local - 15.5 * 60) / 60.0) ** 2))
    # Volatility wanders from day to day, so that there are calm and wild ones.
    moods = np.exp(0.25 * np.clip(np.cumsum(0.3 * rng.standard_normal(5 * n_weeks)), -3.0, 3.0))
    sigma = rhythm * np.repeat(moods, MINUTES_OPEN)
    close = _on_tick(20_000.0 * np.exp(np.cumsum(sigma * rng.standard_t(5, n_bars)) / 20_000.0))
    opened = np.concatenate((close[:1], close[:-1]))
    up, down = 0.4 * sigma * np.abs(rng.standard_normal((2, n_bars)))
    frame = pl.DataFrame({
        "timestamp": pl.Series((FIRST_SUNDAY + minutes).astype("datetime64[us]"))
        .dt.replace_time_zone("America/New_York", ambiguous="earliest", non_existent="null"),
        "open": opened, "high": _on_tick(np.maximum(opened, close) + up),
        "low": _on_tick(np.minimum(opened, close) - down), "close": close,
    }).drop_nulls()  # fmt: skip
    frame.write_parquet(path)
    return frame.height


def _on_tick(prices: np.ndarray[tuple[int], np.dtype[np.float64]]) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    return np.round(prices / TICK) * TICK


def _check(events: Path, library: Path) -> None:
    """Refuse to measure commands that did not do their work."""
    if not events.stat().st_size or not (library / "metadata.json").exists():
        msg = f"no events in {events}, or no library in {library}"
        raise RuntimeError(msg)


def _n_sessions(run: Run) -> int:
    found = _LEARNED.search(run.told)
    if found is None:
        msg = f"the command does not say how many sessions it learned from:\n{run.told}"
        raise RuntimeError(msg)
    return int(found[1])


def _figures(runs: dict[str, list[Run]], n_bars: int, n_sessions: int) -> dict[str, float]:
    events_s, train_s = (statistics.median(run.wall_s for run in runs[name]) for name in (EVENTS, TRAIN))
    return {
        "events_s": events_s,
        "events_bars_per_s": n_bars / events_s,
        "events_peak_mb": max(run.peak_mb for run in runs[EVENTS]),
        "train_s": train_s,
        "train_sessions_per_s": n_sessions / train_s,
        "train_peak_mb": max(run.peak_mb for run in runs[TRAIN]),
    }


def _row(name: str, runs: Sequence[Run], n_items: int, what: str) -> tuple[str, ...]:
    seconds = [run.wall_s for run in runs]
    median = statistics.median(seconds)
    return (
        name, f"{median:.1f}", spread(seconds, 1), f"{statistics.median(run.cpu_s for run in runs):.1f}",
        f"{n_items / median:,.0f} {what}", f"{max(run.peak_mb for run in runs):,.0f}",
    )  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
