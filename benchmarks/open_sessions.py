"""Measure what an event costs, and what memory the process takes, with 1,000 to 1,000,000 sessions open at once.

The engine alone, from bytes. Each size has a fresh process (memory is not given back), which imports what the engine
needs and nothing else: `benchmarks/session_filler.py`. Its collector is as the service has it, Python's default. First
every session is opened by its ``session_start``, then every session gets one event, then the next, up to 50. Events go
through the sessions in one fixed random order: every event finds another session than the one before, somewhere else
in memory. Ids are those of many instruments on one morning (``NY_AM_2025-07-29-000123``), time goes on evenly through
that session's two and a half hours, and each start declares 200 events, so that the checkpoint of 30 % lies at the 60th
event and nothing but buffering is measured. The bounds on sessions and memory are set so high that none is felt.

Records are made in chunks of 10,000 outside the measured time, dropped at once, and invisible to the collector (those
of a real client are not, so it collects a little more often there). The processes of one round exist side by side, and
take turns in steps of a few events for every session; a ratio is taken within a step. So `--quick`, with one round of
three steps and the sizes 1,000 and 100,000, has three interleaved samples too. Small sizes repeat a step with new
sessions until it has 50,000 events. A million sessions get 5 events each instead of 50 and one round of their own, and
are left out where memory does not suffice.

MB are 10^6 bytes; memory is the VmRSS of the whole process: interpreter, numpy, library and sessions. Prints tables and
writes ``build/benchmarks/open_sessions.json``. Linux only, for it reads /proc.

    python -m benchmarks.open_sessions [--rounds 5] [--steps 5] [--events 50] [--seed 1] [--quick]
"""

from __future__ import annotations

import contextlib
import json
import statistics
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.harness import Samples, new_parser, print_table, ratio, spread, trained_library, write_report
from stream_fp.sessions import BYTES_PER_EVENT, BYTES_PER_SESSION

SIZES = (1_000, 10_000, 100_000)
QUICK_SIZES = (1_000, 100_000)
HUGE, HUGE_EVENTS = 1_000_000, 5
#: Beside what the engine reckons: interpreter, numpy, library, and room to breathe.
SPARE_BYTES = 10**9
STOP_S = 10.0


@dataclass
class Size:
    """What was measured of one number of sessions; `last` is what each process said at its end."""

    n_sessions: int
    events_each: int
    opening: Samples = field(default_factory=Samples)
    events: Samples = field(default_factory=Samples)
    last: list[dict[str, Any]] = field(default_factory=list)

    @property
    def rss_mb(self) -> list[float]:
        """Resident memory of each process in the end."""
        return [answer["rss_mb"] for answer in self.last]


def main() -> int:
    """Run the benchmark; returns the exit status."""
    parser = new_parser(__doc__)
    parser.add_argument("--steps", type=int, default=5, help="interleaved samples in a round")
    parser.add_argument("--events", type=int, default=50, help="of each session")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.rounds, arguments.steps = 1, 3

    library = trained_library(arguments.seed)
    sizes = [Size(n, arguments.events) for n in (QUICK_SIZES if arguments.quick else SIZES)]
    for _ in range(arguments.rounds):
        _measure(sizes, library, arguments.steps, arguments.seed)
    if not arguments.quick and _has_memory(HUGE, HUGE_EVENTS):
        sizes.append(Size(HUGE, HUGE_EVENTS))
        _measure(sizes[-1:], library, HUGE_EVENTS, arguments.seed)
    figures = _figures({size.n_sessions: size for size in sizes})
    write_report("open_sessions", arguments, figures, sizes=[_details(size) for size in sizes])
    _print(sizes)
    return 0


# ------------------------------------------------------------------------------------------------------- the rounds


def _measure(sizes: Sequence[Size], library: Path, n_steps: int, seed: int) -> None:
    """Fill one process of each size, in turn step by step, and add what they say."""
    with contextlib.ExitStack() as stack:
        fillers = [
            stack.enter_context(_filler(str(library), size.n_sessions, size.events_each, n_steps, seed))
            for size in sizes
        ]
        for step in range(n_steps + 1):
            for size, filler in zip(sizes, fillers, strict=True):
                answer = _next(filler)
                samples = size.events if step else size.opening
                samples.wall_us.append(answer["us"])
                samples.cpu_us.append(answer["cpu_us"])
                if step == n_steps:
                    size.last.append(answer)


@contextlib.contextmanager
def _filler(*arguments: object) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "benchmarks.session_filler", *map(str, arguments)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with process:  # closes the pipes, and waits
        try:
            yield process
        finally:
            process.kill()


def _next(filler: subprocess.Popen[str]) -> dict[str, Any]:
    """Have one step done and return the answer; what the process has to say against it stands on standard error."""
    if filler.stdin is None or filler.stdout is None:
        raise TypeError(filler)
    filler.stdin.write("\n")
    filler.stdin.flush()
    line = filler.stdout.readline()
    if not line:
        msg = f"{filler.args!r} ended with {filler.wait(STOP_S)}"
        raise RuntimeError(msg)
    answer: dict[str, Any] = json.loads(line)
    return answer


def _has_memory(n_sessions: int, events_each: int) -> bool:
    """Tell whether so many sessions fit; say so where they do not."""
    needed = n_sessions * (BYTES_PER_SESSION + 2 * BYTES_PER_EVENT * events_each) + SPARE_BYTES
    lines = Path("/proc/meminfo").read_text().splitlines()
    available = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    if available < needed:
        print(
            f"LEFT OUT: {n_sessions:,} sessions need {needed / 1e9:.1f} GB, of which {available / 1e9:.1f} GB are free"
        )
    return available >= needed


# ------------------------------------------------------------------------------------------------------- the report


def _figures(sizes: dict[int, Size]) -> dict[str, float]:
    base, large = sizes[1_000], sizes[100_000]
    figures = {
        "cost_100k_over_1k": ratio(large.events.wall_us, base.events.wall_us),
        "cost_100k_over_1k_cpu": ratio(large.events.cpu_us, base.events.cpu_us),
        "event_us_1k": statistics.median(base.events.wall_us),
        "event_us_100k": statistics.median(large.events.wall_us),
        "rss_1k_mb": statistics.median(base.rss_mb),
        "rss_100k_mb": statistics.median(large.rss_mb),
        "gc_longest_100k_ms": _longest_ms(large),
    }
    if (huge := sizes.get(HUGE)) is not None:
        figures |= {
            "event_us_1m": statistics.median(huge.events.wall_us),
            "rss_1m_mb": statistics.median(huge.rss_mb),
            "gc_longest_1m_ms": _longest_ms(huge),
        }
    return figures


def _longest_ms(size: Size) -> float:
    return max(float(pauses["longest_ms"]) for answer in size.last for pauses in answer["pauses"].values())


def _details(size: Size) -> dict[str, Any]:
    return {
        "n_sessions": size.n_sessions,
        "events_each": size.events_each,
        "opening_us": size.opening.wall_us,
        "event_us": size.events.wall_us,
        "opening_cpu_us": size.opening.cpu_us,
        "event_cpu_us": size.events.cpu_us,
        "processes": size.last,
    }


def _print(sizes: Sequence[Size]) -> None:
    base = sizes[0]
    rows = []
    for size in sizes:
        is_alike = size.events_each == base.events_each
        rows.append((
            f"{size.n_sessions:,}", str(size.events_each), f"{statistics.median(size.opening.wall_us):.1f}",
            f"{statistics.median(size.events.wall_us):.2f}", spread(size.events.wall_us),
            f"{statistics.median(size.events.cpu_us):.2f}",
            f"{ratio(size.events.wall_us, base.events.wall_us):.2f}" if is_alike else "-",
            f"{statistics.median(size.rss_mb):,.0f}",
            f"{size.last[0]['empty_rss_mb']:,.0f}",
            f"{size.last[0]['reckoned_mb']:,.0f}",
        ))  # fmt: skip
    print_table(
        f"Open sessions, medians of {len(base.events.wall_us)} interleaved steps; memory in MB",
        ("sessions", "events each", "us to open", "us an event", "min - max", "CPU", "over 1,000", "VmRSS", "empty",
         "reckoned"),
        rows,
    )  # fmt: skip
    print_table(
        "Pauses of the garbage collector, ms",
        ("sessions, generation", "pauses", "longest", "all"),
        [
            (f"{size.n_sessions:,}, {generation}", *_pause_cells(size, generation))
            for size in sizes
            for generation in ("0", "1", "2")
        ],
    )


def _pause_cells(size: Size, generation: str) -> tuple[str, str, str]:
    pauses = [answer["pauses"][generation] for answer in size.last]
    return (
        f"{statistics.median(pause['n'] for pause in pauses):,.0f}",
        f"{statistics.median(pause['longest_ms'] for pause in pauses):.1f}",
        f"{statistics.median(pause['total_ms'] for pause in pauses):,.0f}",
    )


if __name__ == "__main__":
    sys.exit(main())
