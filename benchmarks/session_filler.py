"""The process that `benchmarks/open_sessions.py` starts for each size: opens sessions, fills them, and measures itself.

It imports no more than the engine needs, for its memory is measured. On each line of its standard input it does one
more step, and answers with a line of JSON: the first step opens every session, each further one gives every session a
few events; after the last one comes what there is to say of memory and garbage collection.

    python -m benchmarks.session_filler LIBRARY N_SESSIONS EVENTS_EACH N_STEPS SEED
"""

from __future__ import annotations

import gc
import json
import signal
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from stream_fp.classifier import Classifier
from stream_fp.engine import Engine, EngineSettings
from stream_fp.library import Library, load_library
from stream_fp.phases import PHASES
from stream_fp.predictor import Predictor

#: The checkpoint of 30 % lies at the 60th event, beyond all that are sent.
EXPECTED_EVENTS = 200
MAX_EVENTS_EACH = 59
#: Held at a time: a few megabytes.
N_IN_CHUNK = 10_000
#: Events that a step has to measure at the least; where the sessions give fewer, it is repeated with new ones.
MIN_MEASURED = 50_000
START = np.datetime64("2025-07-29T09:30:00.000")
#: Records that the service takes at once.
N_AT_ONCE = 500
WINDOW_MS = 149 * 60_000
METADATA = (
    '{"session_type":"NY_AM","date":"2025-07-29","start_time":"09:30:00","end_time":"11:59:00",'
    f'"timezone":"America/New_York","expected_events":{EXPECTED_EVENTS}}}'
)
N_ENDINGS = 997
#: What comes after the time in the JSON of an event.
ENDINGS = [
    f'-04:00","event_type":"{PHASES[at % 6]}","price":{20_000 + at % 397 / 4},"intensity":{at % 31 / 10},'
    f'"htf_regime":{at % 3}}}'.encode()
    for at in range(N_ENDINGS)
]


class ChunkRecord(msgspec.Struct, gc=False):
    """A record that the garbage collector does not see: what it sees shall be the engine's."""

    offset: int
    key: bytes
    value: bytes


class Pauses:
    """Times the garbage collector while it is asked to."""

    def __init__(self) -> None:
        self.is_on = False
        self.ms: dict[int, list[float]] = {0: [], 1: [], 2: []}
        self._started_ns = 0
        gc.callbacks.append(self._told)

    def _told(self, phase: str, about: dict[str, int]) -> None:
        if phase == "start":
            self._started_ns = time.perf_counter_ns()
        elif self.is_on:
            self.ms[about["generation"]].append((time.perf_counter_ns() - self._started_ns) / 1e6)

    def summary(self) -> dict[int, dict[str, float]]:
        """Return number, longest and sum of the pauses (ms) by generation."""
        return {
            generation: {"n": len(ms), "longest_ms": max(ms, default=0.0), "total_ms": sum(ms)}
            for generation, ms in self.ms.items()
        }


class Filler:
    """An engine and the stream that fills it: turn 0 opens every session, each further turn gives each one event.

    The turns after the first go through the sessions in the same random order, so that neighbours in the stream are
    none in memory.
    """

    def __init__(self, library: Library, n_sessions: int, events_each: int, seed: int) -> None:
        self.engine = Engine(
            Predictor(Classifier(library)),
            # The bounds are the service's to choose; here none shall be felt.
            EngineSettings(max_open_sessions=n_sessions, max_buffered_bytes=2**62),
            schedules=library.schedules,
            typical_events=library.typical_events,
        )
        self._n = n_sessions
        self._step_ms = WINDOW_MS / (n_sessions * events_each)
        self._order: npt.NDArray[np.int32] = np.random.default_rng(seed).permutation(n_sessions).astype(np.int32)

    def run(self, first_turn: int, end_turn: int, pauses: Pauses | None = None) -> tuple[float, float]:
        """Process these turns; return the seconds of wall and processor that the engine took for them.

        Pauses, where given, are timed meanwhile. To make a chunk of records and to drop it is not counted.
        """
        process_all = self.engine.process_all
        took_s = cpu_s = 0.0
        for turn in range(first_turn, end_turn):
            for chunk in self._chunks(turn):
                if pauses is not None:
                    pauses.is_on = True
                started_s, started_cpu_s = time.perf_counter(), time.process_time()
                for first in range(0, len(chunk), N_AT_ONCE):
                    process_all(chunk[first : first + N_AT_ONCE])
                cpu_s += time.process_time() - started_cpu_s
                took_s += time.perf_counter() - started_s
                if pauses is not None:
                    pauses.is_on = False
        return took_s, cpu_s

    def check(self, n_turns: int) -> None:
        """Refuse an engine that does not hold every session with every event."""
        engine, n_events = self.engine, self._n * (n_turns - 1)
        counts = engine.counts
        if (engine.n_open_sessions, engine.n_buffered_events) != (self._n, n_events) or counts.ignored:
            msg = f"expected {self._n} sessions with {n_events} events: {engine.n_open_sessions}, {counts}"
            raise RuntimeError(msg)

    def _chunks(self, turn: int) -> Iterator[list[ChunkRecord]]:
        for first in range(0, self._n, N_IN_CHUNK):
            end = min(first + N_IN_CHUNK, self._n)
            offset = turn * self._n + first
            yield self._starts(first, end) if turn == 0 else self._events(first, end, offset)

    def _starts(self, first: int, end: int) -> list[ChunkRecord]:
        names = [f"NY_AM_2025-07-29-{number:06d}" for number in range(first, end)]
        return [
            ChunkRecord(
                offset,
                name.encode(),
                f'{{"kind":"session_start","session_id":"{name}","session_metadata":{METADATA}}}'.encode(),
            )
            for offset, name in enumerate(names, first)
        ]

    def _events(self, first: int, end: int, offset: int) -> list[ChunkRecord]:
        places = np.arange(offset - self._n, offset - self._n + end - first)
        moments = START + (places * self._step_ms).astype("timedelta64[ms]")
        stamps = np.datetime_as_string(moments, unit="ms").astype("S").tolist()
        keys = [b"NY_AM_2025-07-29-%06d" % number for number in self._order[first:end].tolist()]
        return [
            ChunkRecord(at, key, b'{"session_id":"%b","timestamp":"%b%b' % (key, stamp, ENDINGS[at % N_ENDINGS]))
            for at, (key, stamp) in enumerate(zip(keys, stamps, strict=True), offset)
        ]


class Work:
    """The steps of one process, in order."""

    def __init__(self, library: Library, n_sessions: int, events_each: int, n_steps: int, seed: int) -> None:
        if events_each > MAX_EVENTS_EACH or n_steps > events_each:
            msg = f"expected up to {MAX_EVENTS_EACH} events a session in no more steps, got {events_each}, {n_steps}"
            raise ValueError(msg)
        self._make = partial(Filler, library, n_sessions, events_each, seed)
        self._n = n_sessions
        # Turn 0 is a step of its own.
        self._bounds = [0, *(1 + events_each * step // n_steps for step in range(n_steps + 1))]
        self._step = 0
        self._filler = self._make()
        self._pauses = Pauses()
        self._empty_rss_mb = resident_mb()

    def next(self) -> dict[str, Any]:
        """Do one step; return what a record took, and after the last step what the whole came to."""
        first, end = self._bounds[self._step : self._step + 2]
        n_records = self._n * (end - first)
        n_repeats = -(-MIN_MEASURED // n_records)
        took_s = cpu_s = 0.0
        for number in range(n_repeats):
            if number:
                self._filler = self._make()
                self._filler.run(0, first)
            seconds = self._filler.run(first, end, self._pauses)
            took_s, cpu_s = took_s + seconds[0], cpu_s + seconds[1]
            self._filler.check(end)
        self._step += 1
        n_measured = n_records * n_repeats
        answer: dict[str, Any] = {"us": 1e6 * took_s / n_measured, "cpu_us": 1e6 * cpu_s / n_measured, "n": n_measured}
        if self._step == len(self._bounds) - 1:
            answer |= {
                "empty_rss_mb": self._empty_rss_mb,
                "rss_mb": resident_mb(),
                "reckoned_mb": self._filler.engine.n_buffered_bytes / 1e6,
                "pauses": self._pauses.summary(),
            }
        return answer


def resident_mb() -> float:
    """Return the resident memory of this process in 10^6 bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 / 1e6 for line in lines if line.startswith("VmRSS:"))


def main() -> int:
    """Work step by step, as asked on standard input; returns the exit status."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # whoever started it ends it
    path, *numbers = sys.argv[1:]
    n_sessions, events_each, n_steps, seed = map(int, numbers)
    work = Work(load_library(Path(path)), n_sessions, events_each, n_steps, seed)
    for _ in sys.stdin:
        print(json.dumps(work.next()), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
