"""Run the benchmarks one after another, gather their figures, and judge them by their targets.

Each benchmark is a script of its own and runs as a process. One that fails does not keep the others from running. The
figures of the reports written in this run go to ``build/bench.json``, with the machine and the versions.

    python -m benchmarks [--quick] [NAME...]

Without names, all of them; with ``--quick``, those of `QUICK`, each with a smaller stream. Exit status 1 where one
failed; a target that is missed is told, and is no failure.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from rich.console import Console
from rich.table import Table

__all__ = ["QUICK", "SCRIPTS", "TARGETS", "Target", "gathered", "verdicts"]

#: In this order; a script of the name stands beside this file.
SCRIPTS: Final = (
    "engine", "service", "peers", "latency", "open_sessions", "startup", "rebuild", "scale_out", "replay", "training",
    "scaling", "poison", "hostile_records",
)  # fmt: skip
QUICK: Final = ("engine", "service", "peers", "latency", "open_sessions", "startup")
REPORTS: Final = Path("build/benchmarks")
OUTPUT: Final = Path("build/bench.json")
#: For a script that was interrupted to stop its processes and delete its topics.
CLEAN_UP_S: Final = 60.0

Report = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Target:
    """What a figure is meant to be at the most, or at the least."""

    figure: str
    relation: Literal["<=", ">="]
    bound: float

    def is_met(self, value: float) -> bool:
        """Tell whether a value keeps to it."""
        return value <= self.bound if self.relation == "<=" else value >= self.bound


TARGETS: Final = (
    Target("engine_over_decode", "<=", 4.0),
    Target("service_over_getmany", ">=", 0.50),
    Target("over_best_recoverable_peer", ">=", 2.5),
    Target("classify_50_p99_ms", "<=", 0.15),
    Target("latency_p99_over_roundtrip_ms", "<=", 10.0),
    Target("cost_100k_over_1k", "<=", 1.25),
    Target("rss_100k_mb", "<=", 350.0),
    Target("ready_s", "<=", 0.6),
    Target("idle_rss_mb", "<=", 70.0),
    Target("artifact_load_ms", "<=", 30.0),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what the command line names; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="smaller streams, of few minutes in all")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"some of {', '.join(SCRIPTS)}")
    given = parser.parse_args(arguments)
    if unknown := [name for name in given.names if name not in SCRIPTS]:
        parser.error(f"expected names of {', '.join(SCRIPTS)}, got {', '.join(unknown)}")
    names = tuple(given.names) or (QUICK if given.quick else SCRIPTS)

    reports: dict[str, Report] = {}
    failed = []
    for number, name in enumerate(names, 1):
        print(f"[{number}/{len(names)}] {name} ...", flush=True)
        started_s = time.monotonic()
        status, report = _run(name, quick=given.quick)
        if report is not None:
            reports[name] = report
        else:
            failed.append(name)
        how = "done" if report is not None else f"FAILED (exit status {status})" if status else "FAILED (no report)"
        print(f"[{number}/{len(names)}] {name}: {how} after {time.monotonic() - started_s:.0f} s", flush=True)
    if reports:
        found = gathered(reports, quick=given.quick)
        OUTPUT.write_text(json.dumps(found, indent=2) + "\n")
        _print(found["figures"])
        print(f"Figures of {', '.join(reports)}, engine {found['engine']}: {OUTPUT}")
    if failed:
        print(f"Failed: {', '.join(failed)}")
    return 1 if failed else 0


def gathered(reports: Mapping[str, Report], *, quick: bool) -> Report:
    """Return one report of several, by name: all figures, and the machine and versions, which they share.

    A figure whose name an earlier report has too is kept as ``<name of the report>.<figure>``.
    """
    figures: dict[str, float] = {}
    for name, report in reports.items():
        for figure, value in report["figures"].items():
            figures[f"{name}.{figure}" if figure in figures else figure] = value
    first = next(iter(reports.values()))
    return {
        "machine": first["machine"],
        "versions": first["versions"],
        "engine": first["engine"],
        "quick": quick,
        "figures": figures,
        "reports": {name: (REPORTS / f"{name}.json").as_posix() for name in reports},
    }


def verdicts(figures: Mapping[str, float]) -> list[tuple[str, str, str, str]]:
    """Return figure, value, target and verdict of each target."""
    rows = []
    for target in TARGETS:
        value = figures.get(target.figure)
        verdict = "not measured" if value is None else "met" if target.is_met(value) else "MISSED"
        shown = "-" if value is None else f"{value:.3g}" if abs(value) < 100 else f"{value:,.0f}"
        rows.append((target.figure, shown, f"{target.relation} {target.bound:g}", verdict))
    return rows


def _run(name: str, *, quick: bool) -> tuple[int, Report | None]:
    """Run a script; return its exit status, and its report where it succeeded and wrote one."""
    path = REPORTS / f"{name}.json"
    before = _written(path)
    process = subprocess.Popen([sys.executable, "-m", f"benchmarks.{name}", *(["--quick"] if quick else [])])
    try:
        status = process.wait()
    except KeyboardInterrupt:
        # The terminal has interrupted the script as well.
        process.wait(CLEAN_UP_S)
        raise
    if status or _written(path) == before:
        return status, None
    report: Report = json.loads(path.read_text())
    return status, report


def _written(path: Path) -> int | None:
    return path.stat().st_mtime_ns if path.exists() else None


def _print(figures: Mapping[str, float]) -> None:
    table = Table(title="Figures and their targets", title_justify="left")
    table.add_column("")
    for heading in ("measured", "target"):
        table.add_column(heading, justify="right")
    table.add_column("verdict")
    for row in verdicts(figures):
        table.add_row(*row)
    Console(width=120).print(table)


if __name__ == "__main__":
    sys.exit(main())
