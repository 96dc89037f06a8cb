"""Measure `stream-fp replay`: records a second from a file of JSON Lines, and from a topic of a real broker.

The command itself, as one process that writes its predictions to a file; of the file also with what came of them. To
leave its start out (interpreter, imports, library, the client's first answers), each source is replayed whole and in
its first fifth, and the difference counts: so many more records took so much longer. The stream is that of many
instruments at once, in one partition. For comparison, decoding alone and the engine are measured in this process in
the same rounds. File and topic have to give the same bytes. Where there is no broker, the topic is left out. Prints a
table and writes ``build/benchmarks/replay.json``.

    python -m benchmarks.replay [--rounds 5] [--instruments 200] [--sessions 28] [--seed 1] [--quick]
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import statistics
import sys
import tempfile
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

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
from benchmarks.processes import run_module
from benchmarks.topics import filled_topic
from stream_fp.classifier import Classifier
from stream_fp.engine import Engine, EngineSettings
from stream_fp.files import FileRecord
from stream_fp.library import Library, load_library
from stream_fp.messages import decode_message
from stream_fp.predictor import Predictor
from tests.support.broker import BrokerUnavailableError, running_broker

DECODE, ENGINE = "decode alone", "engine with predictions"
FILE, JUDGED, TOPIC = "replay of a file", "the same, with outcomes and judgement", "replay of a topic"
#: One process, so that a record is compared with a record.
ALONE = ("--workers", "1", "--no-outcomes")
#: Of the records: what the shorter of the two replays has.
SHORT_FRACTION = 0.2
BATCH = 500
N_QUICK_INSTRUMENTS = 40


@dataclass
class Replays:
    """One source: arguments of the command for a part of it and for the whole, and the seconds of each, by round."""

    part: tuple[str, ...]
    whole: tuple[str, ...]
    part_s: list[float] = field(default_factory=list)
    whole_s: list[float] = field(default_factory=list)

    def us_per_record(self, n_more: int) -> list[float]:
        """Return what each of the records took that the whole has more than the part, by round."""
        return [1e6 * (whole - part) / n_more for whole, part in zip(self.whole_s, self.part_s, strict=True)]

    def start_s(self, n_more: int, n_part: int) -> list[float]:
        """Return what is left of the part when its records are taken off, by round."""
        return [s - n_part * us / 1e6 for s, us in zip(self.part_s, self.us_per_record(n_more), strict=True)]


def main() -> int:
    """Run the benchmark; returns the exit status."""
    parser = new_parser(__doc__)
    parser.add_argument("--instruments", type=int, default=200)
    parser.add_argument("--sessions", type=int, default=28, help="of each instrument, one after another; seven a day")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.instruments = min(arguments.instruments, N_QUICK_INSTRUMENTS)

    path = trained_library(arguments.seed)
    records = stream_records(arguments.instruments, arguments.sessions, arguments.seed)
    n_part = int(SHORT_FRACTION * len(records))
    with contextlib.ExitStack() as stack:
        try:
            broker = stack.enter_context(running_broker())
        except BrokerUnavailableError as error:
            print(f"Without Kafka: {error}")
            servers, origin = None, None
        else:
            servers, origin = broker.bootstrap_servers, broker.origin
        reference, replays = asyncio.run(_measure(records, n_part, path, servers, arguments.rounds))
    us = {name: found.us_per_record(len(records) - n_part) for name, found in replays.items()}
    figures = _figures(us, reference)
    write_report(
        "replay",
        arguments,
        figures,
        broker=origin,
        n_records=len(records),
        n_records_of_part=n_part,
        us_per_record={name: samples.wall_us for name, samples in reference.items()} | us,
        process_s={name: {"whole": found.whole_s, "part": found.part_s} for name, found in replays.items()},
    )
    rows = [
        _row(name, values, reference[DECODE].wall_us)
        for name, values in [*((name, samples.wall_us) for name, samples in reference.items()), *us.items()]
    ]
    print_table(
        f"Replay, {len(records):,} records, medians of {arguments.rounds} rounds",
        ("", "us a record", "min - max", "records/s", "over decode"),
        rows,
    )
    for name, found in replays.items():
        start_s = statistics.median(found.start_s(len(records) - n_part, n_part))
        print(f"{name}: start and end of the process took {start_s:.2f} s, which is not in the table.")
    return 0


# ------------------------------------------------------------------------------------------------------- the rounds


async def _measure(
    records: Sequence[FileRecord], n_part: int, path: Path, servers: str | None, n_rounds: int
) -> tuple[dict[str, Samples], dict[str, Replays]]:
    """Return the samples of this process and of the command."""
    library = load_library(path)
    reference = {name: Samples() for name in (DECODE, ENGINE)}
    gc.collect()
    gc.freeze()
    async with contextlib.AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="stream-fp-benchmark-")))
        sources = await stack.enter_async_context(_sources(records, n_part, folder, servers))
        for _ in range(n_rounds):
            n_predictions = _measure_engine(records, library, reference)
            # The commands hold up this loop, on which nobody else waits.
            outputs = {_measure_source(found, len(records), n_part, path, folder) for found in sources.values()}
            if len(outputs) != 1 or outputs.pop().count(b"\n") != n_predictions:
                msg = f"expected the same {n_predictions} predictions of engine, file and topic"
                raise RuntimeError(msg)
    return reference, sources


def _measure_source(found: Replays, n_records: int, n_part: int, library: Path, folder: Path) -> bytes:
    """Add a sample of one source, and return the predictions of the whole."""
    part_s, _ = _replay(found.part, library, folder, n_records=n_part)
    whole_s, predictions = _replay(found.whole, library, folder, n_records=n_records)
    if whole_s <= part_s:
        msg = (
            f"{n_records} records took no longer than {n_part}: there are too few to measure by, or too much else runs"
        )
        raise RuntimeError(msg)
    found.part_s.append(part_s)
    found.whole_s.append(whole_s)
    return predictions


def _measure_engine(records: Sequence[FileRecord], library: Library, reference: dict[str, Samples]) -> int:
    """Add a sample of decoding and of the engine, and return how many predictions it made."""
    with reference[DECODE].sample(len(records)):
        for record in records:
            decode_message(record.value)
    engine = Engine(
        Predictor(Classifier(library)),
        EngineSettings(),
        schedules=library.schedules,
        typical_events=library.typical_events,
    )
    with reference[ENGINE].sample(len(records)):
        for first in range(0, len(records), BATCH):
            engine.process_all(records[first : first + BATCH])
    return engine.counts.predictions


@contextlib.asynccontextmanager
async def _sources(
    records: Sequence[FileRecord], n_part: int, folder: Path, servers: str | None
) -> AsyncIterator[dict[str, Replays]]:
    """Yield what can be replayed, by name: part and whole of the records, as files and as topics."""
    files, judged, topics = [], [], []
    async with contextlib.AsyncExitStack() as stack:
        for length, some in (("part", records[:n_part]), ("whole", records)):
            path = folder / f"{length}.jsonl"
            path.write_bytes(b"\n".join(record.value or b"" for record in some))
            files.append(("--input", str(path), *ALONE))
            judged.append(("--input", str(path), "--workers", "1", "--outcomes"))
            if servers is not None:
                partition = await stack.enter_async_context(filled_topic("replay", servers, some))
                topics.append(("--bootstrap-servers", servers, "--input-topic", str(partition.topic), *ALONE))
        yield {FILE: Replays(files[0], files[1]), JUDGED: Replays(judged[0], judged[1])} | (
            {TOPIC: Replays(topics[0], topics[1])} if topics else {}
        )


def _replay(arguments: Sequence[str], library: Path, folder: Path, *, n_records: int) -> tuple[float, bytes]:
    """Run the command to its end, and return seconds and predictions."""
    output = folder / "predictions.jsonl"
    output.unlink(missing_ok=True)
    run = run_module("stream_fp", "replay", *arguments, "--model-path", str(library), "--output", str(output))
    if f" {n_records} records: " not in run.told:
        msg = f"expected {n_records} records, got: {run.told}"
        raise RuntimeError(msg)
    return run.wall_s, output.read_bytes()


# ------------------------------------------------------------------------------------------------------- the report


def _figures(us: dict[str, list[float]], reference: dict[str, Samples]) -> dict[str, float]:
    names = {FILE: "replay_file", JUDGED: "replay_judged", TOPIC: "replay_topic"}
    return {
        f"{names[name]}_{figure}": value
        for name, values in us.items()
        for figure, value in {
            "records_per_s": 1e6 / statistics.median(values),
            "over_engine": ratio(values, reference[ENGINE].wall_us),
        }.items()
    }


def _row(name: str, us: Sequence[float], decoding_us: Sequence[float]) -> tuple[str, ...]:
    median = statistics.median(us)
    return name, f"{median:.2f}", spread(us), f"{1e6 / median:,.0f}", f"{ratio(us, decoding_us):.2f}"


if __name__ == "__main__":
    sys.exit(main())
