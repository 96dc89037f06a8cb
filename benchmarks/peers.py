"""Compare the service with the same job on other frameworks (`examples/`), in records a second from a real topic.

One topic of one partition holds the stream. In each round the service (`stream-fp run`, exactly once) and the examples
read it in turn from its beginning, each a process of its own with a new group, state directory and output topic; each
example runs in an environment of its own with the versions that it names, made once in ``build/peers``. All of them
commit, or take snapshots, at the same interval: that of the service's default, one second.

What is measured is the same for all and leaves the start out. A reader (of committed records) looks at the output
topic, notes when predictions become visible, and of each the offset of the record that brought it about. Predictions
that become visible together, as those of one transaction do, count as one mark, at the highest of their offsets. The
rate is taken between two marks, offsets over time: the first one beyond ``WARM_UP_RECORDS`` and a second after the very
first, and the last one. A process is stopped once ``--steady`` seconds lie between them, so a slow framework reads no
more than the first part of the stream; a fast one reads all of it. Processor time is that of the process and of
its children, between the same marks; the broker and the reader are on the same machine.

The examples do less than the service: they publish archetype and confidence without a forecast of the rest, close no
session, and know neither late nor repeated events, dead letters, sidecars or metrics.

A run counts only if it did its work. The engine, run over the same records beforehand, says which sessions have to be
predicted by the last mark, and as what: the service has to agree in all of them, the others in 95 %, because they do
not look at what a session declares of itself. No session may be predicted twice.

A table and ``build/benchmarks/peers.json`` have the results; `over_best_recoverable_peer` is the median over the rounds
of the service's rate over that of the better of Bytewax with recovery and Quix with State.

    python -m benchmarks.peers [--rounds 5] [--only NAME ...] [--instruments 50] [--sessions 300] [--seed 1] [--quick]
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import msgspec
from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from benchmarks.harness import new_parser, print_table, ratio, spread, stream_records, trained_library, write_report
from stream_fp.classifier import Classifier
from stream_fp.config import Settings
from stream_fp.engine import Engine
from stream_fp.files import FileRecord
from stream_fp.kafka.told import SOURCE_HEADER, source_of
from stream_fp.library import load_library
from stream_fp.outcomes import Published
from stream_fp.predictor import Predictor
from tests.support.broker import running_broker
from tests.support.service import free_port

ROOT: Final = Path(__file__).resolve().parent.parent
ENVIRONMENTS: Final = Path("build/peers")
OURS: Final = "stream-fp"
EXAMPLES: Final = {
    "quix": "quix_streams.py",
    "bytewax": "bytewax_dataflow.py",
    "faust": "faust_app.py",
    "faststream": "faststream_app.py",
    "confluent": "confluent_loop.py",
}
LOSSES: Final = {
    OURS: "nothing",
    "quix": "nothing",
    "bytewax": "nothing; repeats output",
    "faust": "counts events twice",
    "faststream": "all open sessions",
    "confluent": "all open sessions",
}
RECOVERABLE: Final = ("quix", "bytewax")
QUICK: Final = (OURS, *RECOVERABLE)

WARM_UP_RECORDS: Final = 10_000
WARM_UP_S: Final = 1.0
#: Predictions that come closer to one another than this are of one mark, unless that gets longer than `MARK_S`.
MARK_GAP_S: Final = 0.03
MARK_S: Final = 0.2
#: A stream that a framework gets through in less says nothing.
MIN_STEADY_S: Final = 1.0
#: Frameworks load libraries, make topics and join groups before the first prediction.
START_TIMEOUT_S: Final = 90.0
#: Between two marks, longer than the slowest framework takes from one checkpoint's wave of sessions to the next.
SILENCE_S: Final = 20.0
MIN_AGREEMENT: Final = 0.95
#: Of librdkafka: what it tries again is no news here.
LOG_LEVEL: Final = 3
TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")


class _Archetype(msgspec.Struct):
    """What service and examples publish alike; examples add the offset."""

    session_id: str
    archetype_id: int
    offset: int = -1


@dataclass(frozen=True, slots=True)
class Mark:
    """When predictions became visible, how far the stream had been read by then, and the processor time so far."""

    time_s: float
    offset: int
    cpu_s: float


@dataclass
class Run:
    """What one process has published."""

    marks: list[Mark] = field(default_factory=list)
    archetypes: dict[str, int] = field(default_factory=dict)
    repeated: list[str] = field(default_factory=list)
    mark_began_s: float = 0.0

    def steady(self) -> tuple[Mark, Mark] | None:
        """Return the two marks between which the rate is taken."""
        first_s = self.marks[0].time_s if self.marks else 0.0
        for mark in self.marks:
            if mark.offset >= WARM_UP_RECORDS and mark.time_s - first_s >= WARM_UP_S:
                last = self.marks[-1]
                return (mark, last) if last.offset > mark.offset else None
        return None

    def add(self, time_s: float, cpu_s: float, found: Sequence[_Archetype]) -> None:
        """Add predictions that became visible at `time_s`."""
        for one in found:
            if one.session_id in self.archetypes:
                self.repeated.append(one.session_id)
            self.archetypes[one.session_id] = one.archetype_id
        offset = max(one.offset for one in found)
        last = self.marks[-1] if self.marks else None
        if last is not None and time_s - last.time_s < MARK_GAP_S and time_s - self.mark_began_s < MARK_S:
            self.marks[-1] = Mark(time_s, max(offset, last.offset), cpu_s)
        else:
            self.mark_began_s = time_s
            self.marks.append(Mark(time_s, offset, cpu_s))


@dataclass
class Samples:
    """One framework: a sample a round."""

    records_per_s: list[float] = field(default_factory=list)
    cpu_us: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    n_records: list[int] = field(default_factory=list)
    n_predictions: list[int] = field(default_factory=list)
    agreement: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Expected:
    """What the engine predicts of the stream: archetype, and offset of the record that brings it about, by session."""

    archetypes: dict[str, int]
    offsets: dict[str, int]

    @property
    def last_offset(self) -> int:
        """Offset of the record that brings about the last prediction."""
        return max(self.offsets.values())


def main() -> int:
    """Run the benchmark; returns the exit status."""
    arguments = _arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # what is to be cleaned up then is
    names = [name for name in (OURS, *EXAMPLES) if name in arguments.only]
    pythons = {name: _environment(name) for name in names if name != OURS}
    model_path = trained_library(arguments.seed)
    records = stream_records(arguments.instruments, arguments.sessions, arguments.seed)
    expected = _expected(records, model_path)
    samples = {name: Samples() for name in names}
    with running_broker() as broker:
        servers = broker.bootstrap_servers
        n_records = len(records)
        with _filled_topic(servers, records) as topic:
            del records
            for _ in range(arguments.rounds):
                for name in names:
                    run = _run(
                        name, pythons.get(name), servers=servers, topic=topic, model_path=model_path,
                        expected=expected, arguments=arguments,
                    )  # fmt: skip
                    _sample(name, run, expected, samples[name])
        figures = _figures(samples)
        details = {name: vars(one) for name, one in samples.items()}
        write_report("peers", arguments, figures, n_records=n_records, broker=broker.origin, samples=details)
    _print(samples, figures, n_records)
    return 0


def _arguments() -> argparse.Namespace:
    parser = new_parser(__doc__)
    parser.add_argument("--only", nargs="+", choices=(OURS, *EXAMPLES), metavar="NAME", help="run these alone")
    parser.add_argument("--instruments", type=int, default=50)
    parser.add_argument("--sessions", type=int, default=300, help="of each instrument; seven a day")
    parser.add_argument("--steady", type=float, default=15.0, help="seconds to measure after the warm-up")
    parser.add_argument("--checkpoints", default="30", help="of the service; the examples know 30 alone")
    parser.add_argument("--commit-interval-s", type=float, default=Settings().commit_interval_s)
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.rounds, arguments.sessions, arguments.steady = min(arguments.rounds, 3), 210, 4.0
    arguments.only = arguments.only or (QUICK if arguments.quick else (OURS, *EXAMPLES))
    return arguments


# ------------------------------------------------------------------------------------------------- the environments


def _environment(name: str) -> Path:
    """Return the Python of a framework's environment, made or brought up to date where need be."""
    requirements = _requirements(ROOT / "examples" / EXAMPLES[name])
    folder = (ENVIRONMENTS / name).absolute()
    python, stamp = folder / "bin" / "python", folder / "installed"
    wanted = f"{sys.version}\n{requirements}\n{_digest()}\n"
    if stamp.exists() and stamp.read_text() == wanted:
        return python
    print(f"Installing {' '.join(requirements)} into {folder.relative_to(Path.cwd())} ...", flush=True)
    if not stamp.exists() or stamp.read_text().splitlines()[:-1] != wanted.splitlines()[:-1]:
        shutil.rmtree(folder, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        _pip(python, *requirements, str(ROOT))
    else:
        _pip(python, "--no-deps", "--force-reinstall", str(ROOT))
    stamp.write_text(wanted)
    return python


def _requirements(example: Path) -> list[str]:
    line = re.search(r"^Requirements: (.+)$", example.read_text("utf-8"), re.MULTILINE)
    if line is None:
        msg = f"{example} has no line `Requirements: ...` in its docstring"
        raise RuntimeError(msg)
    return line[1].split()


def _digest() -> str:
    """Return what changes whenever the project has to be installed anew."""
    digest = hashlib.sha256((ROOT / "pyproject.toml").read_bytes() + (ROOT / "setup.py").read_bytes())
    for path in sorted((ROOT / "stream_fp").rglob("*.p[yx]*")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _pip(python: Path, *arguments: str) -> None:
    command = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *arguments]
    subprocess.run(command, check=True)


# -------------------------------------------------------------------------------------------------------- the topics


def _expected(records: Sequence[FileRecord], model_path: Path) -> Expected:
    library = load_library(model_path)
    engine = Engine(
        Predictor(Classifier(library)),
        Settings().engine_settings(),
        schedules=library.schedules,
        typical_events=library.typical_events,
    )
    archetypes, offsets = {}, {}
    for outcome in engine.process_all(records):
        if isinstance(outcome, Published):
            session_id = outcome.prediction.session_id
            archetypes[session_id], offsets[session_id] = outcome.prediction.archetype_id, outcome.record.offset
    return Expected(archetypes, offsets)


@contextlib.contextmanager
def _filled_topic(servers: str, records: Sequence[FileRecord]) -> Iterator[str]:
    """Yield a topic of one partition that holds the records; every topic of this benchmark is deleted afterwards."""
    topic = f"peers-{uuid.uuid4().hex[:12]}"
    try:
        _create(servers, topic)
        producer = Producer(
            {
                "bootstrap.servers": servers,
                "log_level": LOG_LEVEL,
                "linger.ms": 5,
                "enable.idempotence": True,
                "queue.buffering.max.messages": len(records) + 1,
            }
        )
        for record in records:
            producer.produce(topic, record.value, record.key, partition=0)
        if producer.flush(60):
            msg = "the broker did not take the stream within a minute"
            raise RuntimeError(msg)
        del records, producer
        yield topic
    finally:
        _delete(servers, topic)


def _create(servers: str, topic: str) -> None:
    admin = AdminClient({"bootstrap.servers": servers, "log_level": LOG_LEVEL})  # answers come as long as it lives
    for created in admin.create_topics([NewTopic(topic, 1, 1)]).values():
        created.result(30)


def _delete(servers: str, prefix: str) -> None:
    """Delete a topic and all whose names contain its name: outputs, dead letters and changelogs."""
    admin = AdminClient({"bootstrap.servers": servers, "log_level": LOG_LEVEL})
    found = [name for name in admin.list_topics(timeout=30).topics if prefix in name]
    for deleted in admin.delete_topics(found).values() if found else ():
        with contextlib.suppress(KafkaException):
            deleted.result(30)


# ------------------------------------------------------------------------------------------------------- one process


def _run(
    name: str,
    python: Path | None,
    *,
    servers: str,
    topic: str,
    model_path: Path,
    expected: Expected,
    arguments: argparse.Namespace,
) -> Run:
    """Start one framework on the topic, follow its output and stop it."""
    group = f"{topic}-{name}-{uuid.uuid4().hex[:6]}"
    with tempfile.TemporaryDirectory(prefix="stream-fp-peers-") as folder:
        common = [
            "--bootstrap-servers", servers, "--input-topic", topic, "--output-topic", f"{group}-output",
            "--group-id", group, "--model-path", str(model_path),
            "--commit-interval-s", str(arguments.commit_interval_s),
        ]  # fmt: skip
        if python is None:
            command = [
                sys.executable, "-m", "stream_fp", "run", "--session-fingerprinting", *common,
                "--dead-letter-topic", f"{group}-dlq", "--checkpoints", arguments.checkpoints, "--sidecar-dir", "",
                "--delivery", "exactly-once", "--http-host", "127.0.0.1", "--http-port", str(free_port()),
            ]  # fmt: skip
        else:
            script = ROOT / "examples" / EXAMPLES[name]
            command = [str(python), str(script), *common, "--state-dir", str(Path(folder, "state"))]
        try:
            _create(servers, f"{group}-output")
            log = Path(folder, "log")
            with log.open("wb") as output:
                process = subprocess.Popen(command, stdout=output, stderr=output, cwd=folder, env=_variables(python))
            try:
                return _follow(
                    process, log, servers=servers, output=f"{group}-output",
                    last_offset=expected.last_offset, steady_s=arguments.steady,
                )  # fmt: skip
            finally:
                process.kill()
                process.wait()
        finally:
            _delete(servers, group)


def _variables(python: Path | None) -> dict[str, str]:
    """Return the environment of a process: that of the examples knows nothing of this checkout."""
    if python is None:
        return {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    return {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}


def _follow(
    process: subprocess.Popen[bytes], log: Path, *, servers: str, output: str, last_offset: int, steady_s: float
) -> Run:
    """Read the output until enough of it was seen, or there is no more."""
    consumer = Consumer(
        {
            "bootstrap.servers": servers,
            "group.id": f"{output}-reader",  # never used: partitions are assigned, nothing is committed
            "enable.auto.commit": False,
            "isolation.level": "read_committed",
            # The end of a transaction need not wake up a request that waits: it may wait only so long.
            "fetch.wait.max.ms": 10,
            "fetch.error.backoff.ms": 10,
        }
    )
    consumer.assign([TopicPartition(output, 0, 0)])
    run = Run()
    latest_s = time.monotonic()
    try:
        while True:
            found = [_archetype(record) for record in consumer.consume(1000, 0.02) if record.error() is None]
            now_s = time.monotonic()
            if found:
                run.add(now_s, _cpu_s(process.pid), found)
                latest_s = now_s
            if process.poll() is not None:
                msg = f"{output} ended with {process.returncode}:\n{log.read_text(errors='replace')[-3000:]}"
                raise RuntimeError(msg)
            if _is_enough(run, last_offset, steady_s, silence_s=now_s - latest_s):
                return run
            if now_s - latest_s > (SILENCE_S if run.marks else START_TIMEOUT_S):
                msg = f"{output}: nothing new for too long:\n{log.read_text(errors='replace')[-3000:]}"
                raise RuntimeError(msg)
    finally:
        consumer.close()


def _is_enough(run: Run, last_offset: int, steady_s: float, *, silence_s: float) -> bool:
    """Return whether the marks are far enough apart, or the last one is that of the end of the stream."""
    between = run.steady()
    if between is None:
        return False
    first, last = between
    seconds = last.time_s - first.time_s
    # Not in the middle of a mark, unless one follows another without a pause.
    is_long_enough = seconds >= (steady_s if silence_s else 2 * steady_s)
    return is_long_enough or (last.offset >= last_offset and silence_s > MARK_S)


def _archetype(record: Any) -> _Archetype:
    found = msgspec.json.decode(record.value(), type=_Archetype)
    if found.offset < 0:
        source = source_of(dict(record.headers())[SOURCE_HEADER])
        found.offset = -1 if source is None else source[1]
    return found


def _cpu_s(pid: int) -> float:
    """Return the processor time that a process and its children have used, those that ended included."""
    try:
        # The name of the process, in brackets, may hold anything; user, system, children's user and system follow.
        times = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:15]
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:  # it has ended
        return 0.0
    return sum(map(int, times)) / TICKS_PER_S + sum(_cpu_s(int(child)) for child in children)


# -------------------------------------------------------------------------------------------------------- the report


def _sample(name: str, run: Run, expected: Expected, samples: Samples) -> None:
    """Take the figures of a run that did its work; refuse any other."""
    between = run.steady()
    if between is None or run.repeated:
        msg = f"{name}: the run went wrong: {len(run.archetypes)} sessions, predicted twice: {run.repeated[:5]}"
        raise RuntimeError(msg)
    first, last = between
    n_records, seconds = last.offset - first.offset, last.time_s - first.time_s
    if seconds < MIN_STEADY_S:
        msg = f"{name}: the stream is too short for its speed: more --sessions"
        raise RuntimeError(msg)
    due = {session_id for session_id, offset in expected.offsets.items() if offset <= last.offset}
    asked = due | run.archetypes.keys()
    same = sum(run.archetypes.get(session_id) == expected.archetypes.get(session_id) for session_id in asked)
    agreement = same / len(asked)
    if agreement < (1.0 if name == OURS else MIN_AGREEMENT):
        msg = f"{name}: of {len(asked)} predictions only {same} agree with the engine's"
        raise RuntimeError(msg)
    samples.records_per_s.append(n_records / seconds)
    samples.cpu_us.append(1e6 * (last.cpu_s - first.cpu_s) / n_records)
    samples.seconds.append(seconds)
    samples.n_records.append(n_records)
    samples.n_predictions.append(len(run.archetypes))
    samples.agreement.append(agreement)


def _figures(samples: dict[str, Samples]) -> dict[str, float]:
    figures = {f"records_per_s_{name}": statistics.median(one.records_per_s) for name, one in samples.items()}
    figures |= {f"cpu_us_{name}": statistics.median(one.cpu_us) for name, one in samples.items()}
    if OURS not in samples:
        return figures
    ours = samples[OURS].records_per_s
    figures |= {f"over_{name}": ratio(ours, one.records_per_s) for name, one in samples.items() if name != OURS}
    peers = [samples[name].records_per_s for name in RECOVERABLE if name in samples]
    if len(peers) == len(RECOVERABLE):
        figures["over_best_recoverable_peer"] = ratio(ours, [max(rates) for rates in zip(*peers, strict=True)])
    return figures


def _print(samples: dict[str, Samples], figures: dict[str, float], n_records: int) -> None:
    rows = []
    for name, one in samples.items():
        ours = samples[OURS].records_per_s if OURS in samples else None
        rows.append(
            [
                name,
                f"{statistics.median(one.records_per_s):,.0f}",
                f"{min(one.records_per_s):,.0f} - {max(one.records_per_s):,.0f}",
                f"{statistics.median(one.cpu_us):.1f}",
                "" if ours is None else f"{ratio(one.records_per_s, ours):.2f}",
                spread(one.seconds, 1),
                LOSSES[name],
            ]
        )
    headings = ("", "records/s", "min - max", "CPU us a record", "of ours", "s measured", "what a crash loses")
    print_table(f"The same job, a topic of {n_records:,} records, one partition", headings, rows)
    if (over := figures.get("over_best_recoverable_peer")) is not None:
        print(f"Over the better of Bytewax and Quix, median of the rounds: {over:.2f}")


if __name__ == "__main__":
    sys.exit(main())
