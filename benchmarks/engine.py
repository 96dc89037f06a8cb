"""Measure the engine alone: what an event costs from its bytes on, and how long a prediction takes.

One process, no Kafka. The stream is that of many instruments at once, seven sessions a day each. Decoding alone
(msgspec into the same structure) goes first in every round, the engine in five ways after it:

* bytes to buffered event: as the service runs it (one checkpoint), but nobody makes predictions. A session drops its
  events after its last checkpoint, so only those before it are buffered; later ones are decoded, checked and counted.
* a record a call: the same, without batches (the service takes up to 500 records at once).
* every event buffered: as the first, with all events held until their session closes, as training has it: the upper
  bound.
* with predictions, at one checkpoint and at four.

Then the prediction itself, on sessions of 20, 50, 150 and 1,000 events in turn: fingerprint and classification; and
all of it, `Predictor.forecast` of a session and the encoding of what it gives. Every sample is one call, by the wall
clock, after a warm-up: where other processes want the same cores, the upper quantiles are theirs.
Prints tables and writes ``build/benchmarks/engine.json``.

    python -m benchmarks.engine [--rounds 7] [--instruments 200] [--sessions 7] [--samples 1500] [--seed 1] [--quick]
"""

from __future__ import annotations

import argparse
import gc
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
import numpy as np

from benchmarks.harness import (
    Samples,
    new_parser,
    print_table,
    ratio,
    spread,
    stream_records,
    trained_library,
    write_report,
)
from stream_fp.classifier import Classifier
from stream_fp.config import Settings
from stream_fp.engine import Engine, EngineSettings, Forecaster
from stream_fp.features import fingerprint
from stream_fp.files import FileRecord
from stream_fp.library import Library, load_library
from stream_fp.messages import decode_message, encode_prediction
from stream_fp.outcomes import Counts
from stream_fp.phases import PHASES
from stream_fp.predictor import Forecast, Predictor
from stream_fp.sessions import Columns, Session
from stream_fp.times import format_us

DECODE, BUFFER, KEEP = "decode alone", "engine, bytes to buffered event", "engine, every event buffered"
SINGLE = "engine, a record a call"
ONE, FOUR = "engine with predictions", "engine with predictions, 4 checkpoints"
CLASSIFY, FORECAST = "fingerprint + classify", "forecast + encode"
PREFIX_LENGTHS = (20, 50, 150, 1000)
CHECKPOINT_PCT = 30.0
FOUR_CHECKPOINTS = (25.0, 30.0, 40.0, 50.0)
#: By phase code; the last one is of no phase.
PHASE_NAMES = (*PHASES, "news_print")
#: Sessions of each length that predictions are made of in turn; of as many, a processor does not remember the last.
N_VARIANTS = 100
BATCH = Settings().max_poll_records
N_QUICK_INSTRUMENTS = 40
N_QUICK_SAMPLES = 800

Latencies = dict[str, dict[int, list[float]]]


def main() -> int:
    """Run the benchmark; returns the exit status."""
    parser = new_parser(__doc__, rounds=7)
    parser.add_argument("--instruments", type=int, default=200)
    parser.add_argument("--sessions", type=int, default=7, help="of each instrument, one after another; seven a day")
    parser.add_argument("--samples", type=int, default=1500, help="predictions of each length in a round")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.instruments = min(arguments.instruments, N_QUICK_INSTRUMENTS)
        arguments.samples = min(arguments.samples, N_QUICK_SAMPLES)

    library = load_library(trained_library(arguments.seed))
    records = stream_records(arguments.instruments, arguments.sessions, arguments.seed)
    # The stream is the benchmark's own: the service would not hold it, so the garbage collector shall not walk it.
    gc.collect()
    gc.freeze()
    rounds, counts = _measure_stream(records, library, arguments.rounds)
    latencies = _measure_predictions(library, arguments)
    figures = _stream_figures(rounds) | _latency_figures(latencies)
    write_report(
        "engine",
        arguments,
        figures,
        n_records=len(records),
        buffered_fraction={name: counted.applied / counted.consumed for name, counted in counts.items()},
        us_per_record={name: samples.wall_us for name, samples in rounds.items()},
        cpu_us_per_record={name: samples.cpu_us for name, samples in rounds.items()},
        prediction_ms=latencies,
    )
    _print_stream(rounds, counts, len(records))
    _print_latencies(latencies)
    return 0


# ------------------------------------------------------------------------------------------------------- the stream


class _Silent:
    """A forecaster that has nothing to say."""

    def __init__(self) -> None:
        self.n_asked = 0

    def forecast(self, session: Session, checkpoint_pct: float) -> Forecast | None:  # noqa: ARG002
        """Count the checkpoint."""
        self.n_asked += 1
        return None

    def closed(self, session: Session, reason: str) -> None:
        """Do nothing."""


def _measure_stream(
    records: Sequence[FileRecord], library: Library, n_rounds: int
) -> tuple[dict[str, Samples], dict[str, Counts]]:
    """Return the samples by name, and what the engines counted in the last round."""
    rounds = {name: Samples() for name in (DECODE, BUFFER, SINGLE, KEEP, ONE, FOUR)}
    counts: dict[str, Counts] = {}
    n = len(records)
    for _ in range(n_rounds):
        with rounds[DECODE].sample(n):
            for record in records:
                decode_message(record.value)
        silent = _Silent()
        engines = {
            BUFFER: _new_engine(library, silent, EngineSettings()),
            SINGLE: _new_engine(library, _Silent(), EngineSettings()),
            KEEP: _new_engine(library, _Silent(), EngineSettings(keep_events=True)),
            ONE: _new_engine(library, Predictor(Classifier(library)), EngineSettings()),
            FOUR: _new_engine(
                library, Predictor(Classifier(library)), EngineSettings(checkpoints_pct=FOUR_CHECKPOINTS)
            ),
        }
        for name, engine in engines.items():
            batch = 1 if name == SINGLE else BATCH
            with rounds[name].sample(n):
                for first in range(0, n, batch):
                    engine.process_all(records[first : first + batch])
            counts[name] = engine.counts
        _check_stream(counts, silent.n_asked, n)
    return rounds, counts


def _new_engine(library: Library, forecaster: Forecaster, settings: EngineSettings) -> Engine:
    return Engine(forecaster, settings, schedules=library.schedules, typical_events=library.typical_events)


def _check_stream(counts: dict[str, Counts], n_asked: int, n_records: int) -> None:
    """Refuse to measure engines that did not do their work."""
    n_predictions = {name: counted.predictions for name, counted in counts.items()}
    is_sound = (
        all(counted.reconciles and counted.consumed == n_records for counted in counts.values())
        and 0 < n_asked == n_predictions[ONE] < n_predictions[FOUR]
        and n_predictions[BUFFER] == n_predictions[SINGLE] == n_predictions[KEEP] == 0
        and counts[BUFFER].applied < counts[KEEP].applied
    )
    if not is_sound:
        msg = f"the run went wrong: {counts}, {n_asked} checkpoints without prediction"
        raise RuntimeError(msg)


# --------------------------------------------------------------------------------------------------- the prediction


class _Collecting(_Silent):
    """Holds on to the sessions that reach their checkpoint."""

    def __init__(self) -> None:
        super().__init__()
        self.sessions: list[Session] = []

    def forecast(self, session: Session, checkpoint_pct: float) -> Forecast | None:
        """Keep the session."""
        self.sessions.append(session)
        return super().forecast(session, checkpoint_pct)


def _measure_predictions(library: Library, arguments: argparse.Namespace) -> Latencies:
    """Return the milliseconds of each call, by what it does and by the number of events it is done of."""
    rng = np.random.default_rng(arguments.seed)
    prefixes = {n: [_prefix(rng, n) for _ in range(N_VARIANTS)] for n in PREFIX_LENGTHS}
    sessions = {n: _sessions_of(library, prefixes[n]) for n in PREFIX_LENGTHS}
    classifier = Classifier(library)
    predictor = Predictor(classifier)

    def classify(n: int, variant: int) -> None:
        session = sessions[n][variant]
        classifier.classify(fingerprint(session.rows, session.start_us), CHECKPOINT_PCT, "ny_am")

    def forecast(n: int, variant: int) -> None:
        encode_prediction(predictor.forecast(sessions[n][variant], CHECKPOINT_PCT).prediction)

    ways = {CLASSIFY: classify, FORECAST: forecast}
    _take_samples(ways, N_VARIANTS)
    latencies: Latencies = {name: {n: [] for n in PREFIX_LENGTHS} for name in ways}
    for _ in range(arguments.rounds):
        for name, found in _take_samples(ways, arguments.samples).items():
            for n, values in found.items():
                latencies[name][n] += values
    return latencies


def _take_samples(ways: Mapping[str, Callable[[int, int], None]], n_samples: int) -> Latencies:
    """Call each way once for each length, and so on in turn."""
    found: Latencies = {name: {n: [] for n in PREFIX_LENGTHS} for name in ways}
    clock = time.perf_counter_ns
    for number in range(n_samples):
        for n in PREFIX_LENGTHS:
            for name, call in ways.items():
                started_ns = clock()
                call(n, number % N_VARIANTS)
                found[name][n].append(round((clock() - started_ns) / 1e6, 4))
    return found


def _prefix(rng: np.random.Generator, n_events: int) -> Columns:
    start_us = 1_753_795_800_000_000  # 2025-07-29 09:30 in New York
    return Columns(
        times_us=np.sort(rng.integers(0, 2_700_000_000, n_events)) + start_us,
        prices=20_000 + np.cumsum(rng.normal(size=n_events)),
        intensities=rng.gamma(2.0, 0.5, n_events),
        codes=(rng.integers(0, 7, n_events) << 2 | rng.integers(0, 3, n_events)).astype(np.uint8),
        start_us=start_us,
    )


def _sessions_of(library: Library, prefixes: Sequence[Columns]) -> list[Session]:
    """Return sessions with the same numbers of events, as the engine builds them up to their checkpoint."""
    collecting = _Collecting()
    engine = _new_engine(library, collecting, EngineSettings(checkpoints_pct=(CHECKPOINT_PCT,), keep_events=True))
    messages = [message for number, prefix in enumerate(prefixes) for message in _messages(number, prefix)]
    for offset, message in enumerate(messages):
        engine.process(FileRecord(offset, message["session_id"].encode(), msgspec.json.encode(message)))
    if len(collecting.sessions) != len(prefixes) or engine.counts.applied != len(messages):
        msg = f"expected {len(prefixes)} sessions at their checkpoint: {engine.counts}"
        raise RuntimeError(msg)
    return collecting.sessions


def _messages(number: int, prefix: Columns) -> list[dict[str, Any]]:
    """Return the messages of a session that reaches its checkpoint with the last event of the prefix."""
    session_id = f"NY_AM_2025-07-29-{number:06d}"
    expected_events = int(100.0 / CHECKPOINT_PCT * len(prefix.times_us))
    columns = (prefix.times_us, prefix.prices, prefix.intensities, prefix.codes)
    return [
        {"kind": "session_start", "session_id": session_id, "session_metadata": {"expected_events": expected_events}},
        *(
            {"session_id": session_id, "timestamp": format_us(time_us) + "+00:00", "event_type": PHASE_NAMES[code >> 2],
             "price": price, "intensity": intensity, "htf_regime": code & 3}
            for time_us, price, intensity, code in zip(*(column.tolist() for column in columns), strict=True)
        ),
    ]  # fmt: skip


# ------------------------------------------------------------------------------------------------------- the report


def _stream_figures(rounds: dict[str, Samples]) -> dict[str, float]:
    decoding = rounds[DECODE].wall_us
    return {
        "engine_over_decode": ratio(rounds[BUFFER].wall_us, decoding),
        "engine_a_record_a_call_over_decode": ratio(rounds[SINGLE].wall_us, decoding),
        "engine_every_event_buffered_over_decode": ratio(rounds[KEEP].wall_us, decoding),
        "engine_with_predictions_over_decode": ratio(rounds[ONE].wall_us, decoding),
        "engine_with_4_checkpoints_over_decode": ratio(rounds[FOUR].wall_us, decoding),
        "decode_us": statistics.median(decoding),
        "engine_us": statistics.median(rounds[BUFFER].wall_us),
        "engine_with_predictions_us": statistics.median(rounds[ONE].wall_us),
        "engine_with_predictions_events_per_s": 1e6 / statistics.median(rounds[ONE].wall_us),
    }


def _latency_figures(latencies: Latencies) -> dict[str, float]:
    figures = {}
    for prefix, name in (("classify", CLASSIFY), ("forecast", FORECAST)):
        for n, values in latencies[name].items():
            for quantile, value in _quantiles(values).items():
                figures[f"{prefix}_{n}_{quantile}_ms"] = value
    return figures


def _quantiles(values: Sequence[float]) -> dict[str, float]:
    p50, p99, p999 = np.percentile(values, (50, 99, 99.9)).tolist()
    return {"p50": p50, "p99": p99, "p99.9": p999}


def _print_stream(rounds: dict[str, Samples], counts: dict[str, Counts], n_records: int) -> None:
    rows = []
    for name, samples in rounds.items():
        median = statistics.median(samples.wall_us)
        counted = counts.get(name)
        rows.append((
            name, f"{median:.2f}", spread(samples.wall_us), f"{statistics.median(samples.cpu_us):.2f}",
            f"{1e6 / median:,.0f}", f"{ratio(samples.wall_us, rounds[DECODE].wall_us):.2f}",
            "" if counted is None else f"{counted.applied / counted.consumed:.0%}",
        ))  # fmt: skip
    print_table(
        f"Engine from bytes, {n_records:,} records, medians of {len(rounds[DECODE].wall_us)} rounds",
        ("", "us a record", "min - max", "CPU", "records/s", "over decode", "buffered"),
        rows,
    )


def _print_latencies(latencies: Latencies) -> None:
    rows = [
        (f"{name}, {n:,} events", *(f"{value:.3f}" for value in _quantiles(values).values()), f"{len(values):,}")
        for name, found in latencies.items()
        for n, values in found.items()
    ]
    print_table("A prediction, ms", ("", "p50", "p99", "p99.9", "samples"), rows)


if __name__ == "__main__":
    sys.exit(main())
