"""Measure offline work on one process, on two, and on a Dask cluster of two workers, side by side.

Instruments of their own file each: bars become events, events are extracted to vectors (what `train`, `evaluate` and
`ab` begin with), archetypes are chosen, the A/B grid is run, and files are replayed through the engine. Every way does
the same work in each round, one after another, and must come to the same. The cluster is one of real processes, a
scheduler and two workers of one thread, on this machine: it shows what going through it costs, not what more machines
bring. Starting processes and connecting are left out, and told apart; what a worker holds between jobs stays.

Then what runs in one process whatever the back end, by the number of sessions: k-means with its refits, learning a
library of given archetypes, and judging one with its bootstrap over weeks. Last, how large messages are: the records
that a broker would hold, as they are and compressed by gzip in batches of 500, and predictions.

Prints tables and writes ``build/benchmarks/scaling.json``.

    python -m benchmarks.scaling [--rounds 3] [--instruments 8] [--weeks 8] [--seed 1] [--quick]
"""

from __future__ import annotations

import contextlib
import dataclasses
import gzip
import hashlib
import itertools
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from benchmarks.harness import new_parser, print_table, ratio, spread, trained_library, write_report
from benchmarks.training import write_bars
from offline.ab import AbOptions, run_grid
from offline.ab_parts import PartFolder
from offline.artifacts import write_library
from offline.backends import LOCAL, Backend, open_backend
from offline.clusters import fit_clusters
from offline.dataset import Dataset, load_dataset
from offline.evaluate import EvaluationOptions, evaluate
from offline.event_files import BarsFile, EventRequest, merged_events, open_parts, write_parts
from offline.places import write_whole
from offline.profiles import DEFAULT_PROFILE, profile_weights
from offline.selection import choose, refit_centroids
from offline.train import TrainingOptions, train
from stream_fp.classifier import Classifier
from stream_fp.completion import DEFAULT_SCHEDULES
from stream_fp.engine import Engine, EngineSettings
from stream_fp.files import read_records
from stream_fp.library import load_library, load_metadata
from stream_fp.messages import encode_prediction
from stream_fp.outcomes import Published
from stream_fp.predictor import Predictor
from tests.support.local_dask import LocalDask

ONE, TWO, DASK = "1 process", "2 processes", "Dask, 2 workers"
EVENTS, EXTRACT, CHOOSE, GRID, REPLAY = "events", "extraction", "choice of archetypes", "A/B grid", "replay of files"
#: What the choice and the grid are given at the most: they take the longest, and more does not change the ratios.
MAX_SESSIONS: Final = 1200
#: Sessions that the parts of one process are timed with.
KMEANS_SIZES: Final = (2_000, 20_000, 200_000)
SESSION_SIZES: Final = (500, 1000, 2000)
N_QUICK_INSTRUMENTS: Final = 4
N_QUICK_WEEKS: Final = 3
BATCH: Final = 500
_FIXED: Final = TrainingOptions(model_version="0", n_archetypes=4, profile=DEFAULT_PROFILE, n_jobs=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """What all ways are given: a file of bars and one of messages for each instrument, and how much that is."""

    bars: Sequence[Path]
    messages: Sequence[Path]
    library: Path
    n_bars: int
    n_messages: int
    n_sessions: int
    bars_bytes: int
    messages_bytes: int


@dataclass(slots=True, kw_only=True)
class Work:
    """One kind of work: its seconds by way, a sample a round, and what it came to, which has to be the same.

    `n_items` and `n_bytes` are what it takes in; 0 bytes where it takes in no files.
    """

    do: Callable[[Backend, int], str]
    what: str
    n_items: int
    n_bytes: int = 0
    seconds: dict[str, list[float]] = field(default_factory=lambda: {ONE: [], TWO: [], DASK: []})
    results: set[str] = field(default_factory=set)

    def sample(self, way: str, backend: Backend, n_jobs: int) -> None:
        """Do it once."""
        started_s = time.perf_counter()
        self.results.add(self.do(backend, n_jobs))
        self.seconds[way].append(time.perf_counter() - started_s)
        if len(self.results) > 1:
            msg = f"{way} came to another result"
            raise RuntimeError(msg)


def main() -> int:
    """Run the benchmark; returns the exit status."""
    parser = new_parser(__doc__, rounds=3)
    parser.add_argument("--instruments", type=int, default=8)
    parser.add_argument("--weeks", type=int, default=8, help="of bars")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.instruments = min(arguments.instruments, N_QUICK_INSTRUMENTS)
        arguments.weeks = min(arguments.weeks, N_QUICK_WEEKS)

    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="stream-fp-benchmark-")))
        inputs = _inputs(folder, arguments.instruments, arguments.weeks, arguments.seed)
        dataset = load_dataset(folder / "messages", n_jobs=1)
        works = _works(inputs, dataset, folder)
        started_s = time.perf_counter()
        logs = folder / "dask"
        logs.mkdir()
        started = stack.enter_context(LocalDask(logs))
        started.add_workers(2)
        cluster_s = time.perf_counter() - started_s
        started_s = time.perf_counter()
        cluster = stack.enter_context(open_backend("dask", started.address))
        connect_s = time.perf_counter() - started_s
        ways = ((ONE, LOCAL, 1), (TWO, LOCAL, 2), (DASK, cluster, -1))
        for _, backend, n_jobs in ways:  # once unmeasured, so that processes are there, with their imports
            works[EXTRACT].do(backend, n_jobs)
        for _ in range(arguments.rounds):
            for work in works.values():
                for way, backend, n_jobs in ways:
                    work.sample(way, backend, n_jobs)
        alone = _alone(dataset, folder)
        record_bytes, gzip_bytes = _record_sizes(inputs.messages)
        n_predictions, prediction_bytes, _ = replay_file(inputs.messages[0], inputs.library)
    figures = _figures(works, alone) | {
        "scaling_record_bytes": record_bytes,
        "scaling_record_gzip_bytes": gzip_bytes,
        "scaling_prediction_bytes": prediction_bytes / n_predictions,
        "scaling_connect_s": connect_s,
    }
    write_report(
        "scaling",
        arguments,
        figures,
        n_bars=inputs.n_bars,
        n_messages=inputs.n_messages,
        n_sessions=inputs.n_sessions,
        bars_bytes=inputs.bars_bytes,
        messages_bytes=inputs.messages_bytes,
        seconds={name: work.seconds for name, work in works.items()},
        alone_s=alone,
        cluster_start_s=cluster_s,
    )
    print_table(
        f"{len(inputs.bars)} files: {inputs.n_bars:,} bars ({inputs.bars_bytes / 1e6:.0f} MB), {inputs.n_messages:,} "
        f"messages ({inputs.messages_bytes / 1e6:.0f} MB), {inputs.n_sessions:,} sessions; {arguments.rounds} rounds",
        ("", "s", "min - max", "a second", "MB/s", "over 1 process"),
        [row for name, work in works.items() for row in _rows(name, work)],
    )
    print_table(
        "In one process, whatever the back end",
        ("", "sessions", "s", "us a session"),
        [
            (name, f"{n:,}", f"{s:.2f}", f"{1e6 * s / n:,.0f}")
            for name, found in alone.items()
            for n, s in found.items()
        ],
    )
    print(f"A record has {record_bytes:.0f} bytes, {gzip_bytes:.0f} compressed (key and value, without headers).")
    print(f"A prediction has {prediction_bytes / n_predictions:,.0f} bytes.")
    print(f"The cluster took {cluster_s:.1f} s to start, connecting to it {connect_s:.2f} s; neither is in the table.")
    return 0


# ------------------------------------------------------------------------------------------------------- what is given


def _inputs(folder: Path, n_instruments: int, n_weeks: int, seed: int) -> Inputs:
    bars, messages = folder / "bars", folder / "messages"
    bars.mkdir()
    messages.mkdir()
    n_bars, n_messages, n_sessions = 0, 0, 0
    paths = []
    for number in range(n_instruments):
        path = bars / f"M{number:03d}.parquet"
        n_bars += write_bars(path, n_weeks, 1000 * seed + number)
        paths.append(path)
    with open_parts(messages / "parts") as name:
        found = write_parts(_files(paths), _request(), Path(name), backend=LOCAL, n_jobs=-1, progress=_tell_nobody)
        for file in found:
            lines = list(merged_events([file], Path(name)))
            write_whole("output", messages / f"{file.path.stem}.jsonl", lines)
            n_messages += len(lines)
            n_sessions += len(file.sessions)
    return Inputs(
        bars=paths,
        messages=sorted(messages.glob("*.jsonl")),
        library=trained_library(seed),
        n_bars=n_bars,
        n_messages=n_messages,
        n_sessions=n_sessions,
        bars_bytes=sum(path.stat().st_size for path in paths),
        messages_bytes=sum(path.stat().st_size for path in messages.glob("*.jsonl")),
    )


def _files(paths: Sequence[Path]) -> list[BarsFile]:
    return [BarsFile(path=path, instrument=path.stem) for path in paths]


def _request() -> EventRequest:
    return EventRequest(
        columns={},
        timezone="UTC",
        stamp="open",
        bar_minutes=None,
        schedules=DEFAULT_SCHEDULES,
        windows_timezone="America/New_York",
    )


def _tell_nobody(_stage: str, _n_done: int, _n_all: int) -> None:
    pass


# ---------------------------------------------------------------------------------------------------- what is compared


def _works(inputs: Inputs, dataset: Dataset, folder: Path) -> dict[str, Work]:
    few = dataset.select(np.arange(len(dataset))[-MAX_SESSIONS:])
    one_checkpoint = dataclasses.replace(few, prefixes={30.0: few.prefixes[30.0]})
    numbers = itertools.count()

    def events(backend: Backend, n_jobs: int) -> str:
        output = folder / "events.jsonl"
        with open_parts(output) as name:
            found = write_parts(
                _files(inputs.bars), _request(), Path(name), backend=backend, n_jobs=n_jobs, progress=_tell_nobody
            )
            write_whole("output", output, merged_events(found, Path(name)))
        return hashlib.sha256(output.read_bytes()).hexdigest()

    def extraction(backend: Backend, n_jobs: int) -> str:
        found = load_dataset(inputs.messages[0].parent, n_jobs=n_jobs, backend=backend)
        return hashlib.sha256(found.full.tobytes() + found.paths.tobytes()).hexdigest()

    def choice(backend: Backend, n_jobs: int) -> str:
        return repr(
            choose(few, n_archetypes=4, profile=None, scaler="standard", seed=0, n_jobs=n_jobs, backend=backend)
        )

    def grid(backend: Backend, n_jobs: int) -> str:
        options = AbOptions(n_splits=2, n_archetypes=4, profile=DEFAULT_PROFILE, n_jobs=n_jobs, backend=backend)
        parts = run_grid(one_checkpoint, options, PartFolder(folder / f"grid-{next(numbers)}", force=False))
        return hashlib.sha256(repr(parts).encode()).hexdigest()

    def replay(backend: Backend, n_jobs: int) -> str:
        return repr(list(backend.run(replay_file, [(path, inputs.library) for path in inputs.messages], n_jobs=n_jobs)))

    n_bytes = inputs.messages_bytes
    return {
        EVENTS: Work(do=events, what="bars", n_items=inputs.n_bars, n_bytes=inputs.bars_bytes),
        EXTRACT: Work(do=extraction, what="sessions", n_items=inputs.n_sessions, n_bytes=n_bytes),
        CHOOSE: Work(do=choice, what="sessions", n_items=len(few)),
        GRID: Work(do=grid, what="sessions", n_items=len(few)),
        REPLAY: Work(do=replay, what="records", n_items=inputs.n_messages, n_bytes=n_bytes),
    }


def replay_file(path: Path, library_path: Path) -> tuple[int, int, str]:
    """Replay one file through the engine, as `stream-fp replay` does; return predictions, their bytes and digest."""
    library = load_library(library_path)
    engine = Engine(
        Predictor(Classifier(library)),
        EngineSettings(),
        schedules=library.schedules,
        typical_events=library.typical_events,
    )
    digest, n_predictions, n_bytes = hashlib.sha256(), 0, 0
    records = read_records(path)
    while batch := list(itertools.islice(records, BATCH)):
        for outcome in engine.process_all(batch):
            if isinstance(outcome, Published):
                encoded = encode_prediction(outcome.prediction)
                digest.update(encoded)
                n_predictions, n_bytes = n_predictions + 1, n_bytes + len(encoded)
    engine.close()
    return n_predictions, n_bytes, digest.hexdigest()


# ------------------------------------------------------------------------------------------------ what is not compared


def _alone(dataset: Dataset, folder: Path) -> dict[str, dict[int, float]]:
    """Return seconds by number of sessions of what runs in one process; for k-means sessions are drawn around these."""
    rng = np.random.default_rng(0)
    kmeans: dict[int, float] = {}
    refits: dict[int, float] = {}
    for n in KMEANS_SIZES:
        vectors = dataset.full[rng.integers(0, len(dataset), n)]
        vectors = vectors + 0.05 * dataset.full.std(axis=0) * rng.standard_normal(vectors.shape)
        with threadpool_limits(limits=1):
            with _timed(kmeans, n):
                clusters = fit_clusters(
                    vectors, n_archetypes=4, weights=profile_weights(DEFAULT_PROFILE), scaler="standard", seed=0
                )
            with _timed(refits, n):
                refit_centroids(clusters, vectors, 0)
    learned: dict[int, float] = {}
    judged: dict[int, float] = {}
    for n in sorted({min(n, len(dataset)) for n in SESSION_SIZES}):
        some = dataset.select(np.unique(np.linspace(0, len(dataset) - 1, n).astype(np.int64)))
        library = folder / f"library-{n}"
        with _timed(learned, n):
            trained = train(some, _FIXED)
        write_library(trained, library)
        options = EvaluationOptions(created_at="", n_left_out={})
        with _timed(judged, n):
            evaluate(some, load_library(library), load_metadata(library), options)
    return {
        "k-means, 4 archetypes": kmeans,
        "its ten refits": refits,
        "learning, archetypes given": learned,
        "judging, with the bootstrap": judged,
    }


@contextlib.contextmanager
def _timed(seconds: dict[int, float], n: int) -> Iterator[None]:
    started_s = time.perf_counter()
    yield
    seconds[n] = time.perf_counter() - started_s


def _record_sizes(paths: Sequence[Path]) -> tuple[float, float]:
    """Return the mean bytes of key and value of a record, and what gzip leaves of them in batches."""
    n_records, n_bytes, n_compressed = 0, 0, 0
    for path in paths[:2]:
        records = read_records(path)
        while batch := list(itertools.islice(records, BATCH)):
            data = b"".join((record.key or b"") + (record.value or b"") for record in batch)
            n_records, n_bytes = n_records + len(batch), n_bytes + len(data)
            n_compressed += len(gzip.compress(data, 6))
    return n_bytes / n_records, n_compressed / n_records


def _figures(works: dict[str, Work], alone: dict[str, dict[int, float]]) -> dict[str, float]:
    figures = {}
    for name, work in works.items():
        key = f"scaling_{name.replace(' ', '_').replace('/', '')}".lower()
        figures[f"{key}_per_s"] = work.n_items / statistics.median(work.seconds[ONE])
        figures[f"{key}_2_over_1"] = ratio(work.seconds[ONE], work.seconds[TWO])
        figures[f"{key}_dask_over_1"] = ratio(work.seconds[ONE], work.seconds[DASK])
    for name, found in alone.items():
        largest = max(found)
        figures[f"scaling_us_a_session_{name.split(',')[0].replace(' ', '_')}"] = 1e6 * found[largest] / largest
    return figures


def _rows(name: str, work: Work) -> Iterator[tuple[str, ...]]:
    for way, seconds in work.seconds.items():
        median_s = statistics.median(seconds)
        yield (
            f"{name}: {way}", f"{median_s:.2f}", spread(seconds), f"{work.n_items / median_s:,.0f} {work.what}",
            f"{work.n_bytes / median_s / 1e6:.2f}" if work.n_bytes else "", f"{ratio(work.seconds[ONE], seconds):.2f}",
        )  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
