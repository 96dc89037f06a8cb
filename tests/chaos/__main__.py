"""``python -m tests.chaos``: a long chaos run; the last line is the verdict, the exit status says whether it held."""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.table import Table

from tests.chaos.run import Plan, run_chaos
from tests.chaos.verdict import Report
from tests.support.local_kafka import LocalKafka

OUTPUT: Final = Path("build/chaos")


def main() -> int:
    """Run; returns the exit status."""
    parser = argparse.ArgumentParser(description="Faults at random moments, then a comparison with a replay.")
    parser.add_argument("--faults", type=_positive, default=20)
    parser.add_argument("--seed", type=_positive, default=1)
    parser.add_argument("--sessions", type=_positive, default=3_290, help="about 83 events each")
    parser.add_argument("--brokers", type=int, default=1, choices=(1, 3))
    arguments = parser.parse_args()
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    plan = Plan(seed=arguments.seed, n_faults=arguments.faults, n_sessions=arguments.sessions)
    console = Console(width=120)
    started_s = time.monotonic()

    def say(line: str) -> None:
        console.print(f"{time.monotonic() - started_s:7.1f} s  {line}", highlight=False, markup=False, soft_wrap=True)

    OUTPUT.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f"seed-{plan.seed}-", dir=OUTPUT))
    say(f"starting {arguments.brokers} broker(s); logs in {folder}")
    with LocalKafka(n_nodes=arguments.brokers) as kafka:
        report = asyncio.run(run_chaos(kafka, plan, folder, say))
    (folder / "report.json").write_text(json.dumps({**report.figures, "divergences": report.divergences}, indent=2))
    console.print(_table(report))
    for line in report.lines():
        console.print(line, markup=False, soft_wrap=True)
    console.print(report.verdict, markup=False, soft_wrap=True)
    return 1 if report.divergences else 0


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        msg = f"expected a whole number above 0, got {text}"
        raise argparse.ArgumentTypeError(msg)
    return number


def _table(report: Report) -> Table:
    table = Table(title="Chaos run", title_justify="left", show_header=False)
    for name, value in report.figures.items():
        shown = ", ".join(f"{n} {what}" for what, n in value.items()) if isinstance(value, dict) else str(value)
        table.add_row(name, shown or "none")
    return table


if __name__ == "__main__":
    sys.exit(main())
