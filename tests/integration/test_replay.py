"""Backtests on a real broker: what the live service said over a year, to the byte, from any range, after any stop."""

from __future__ import annotations

import asyncio
import random
import re
import resource
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest
from aiokafka import AIOKafkaProducer, ConsumerRecord, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete

from offline.bars import read_bars
from offline.market_events import find_events, find_sessions, session_messages
from offline.simulate import interleave, simulate_sessions
from stream_fp.completion import DEFAULT_SCHEDULES
from stream_fp.kafka.told import SOURCE_HEADER
from stream_fp.replay.rows import decode_row
from stream_fp.times import zone_of
from tests.conftest import TopicFactory
from tests.support.builders import event, write_tiny_library
from tests.support.history import new_history, serve
from tests.support.topics import publish_all, read_all

#: A year and a quarter of seven sessions each weekday.
N_SESSIONS = 3_600
N_PARTITIONS = 4

pytestmark = pytest.mark.timeout(300)


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """A topic, what the live service said over it, and where each prediction was due."""

    broker: str
    topic: str
    model: Path
    n_records: int
    published: list[ConsumerRecord]

    def said(self, first: int = 0, end: int = sys.maxsize) -> list[bytes]:
        """Return what was said because of records at offsets from `first` to before `end`, in order of partitions."""
        return [
            value
            for _, offset, value in sorted(
                (record.partition, int(dict(record.headers)[SOURCE_HEADER].rpartition(b"@")[2]), record.value)
                for record in self.published
            )
            if first <= offset < end
        ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """A replay that has ended."""

    status: int | None
    output: bytes
    errors: str


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_library(tmp_path_factory.mktemp("model") / "v0.0.1")


@pytest.fixture(scope="module")
def year(broker: str, model: Path, tmp_path_factory: pytest.TempPathFactory) -> History:
    messages = list(interleave(simulate_sessions(N_SESSIONS, seed=21)))
    assert len(messages) > 300_000
    log = tmp_path_factory.mktemp("year") / "log"

    async def live() -> History:
        topic = await new_history(broker, "year", N_PARTITIONS, messages)
        published = await read_all(broker, await serve(broker, topic, model, log))
        return History(broker=broker, topic=topic, model=model, n_records=len(messages), published=published)

    return asyncio.run(live())


async def replay(history: History, *arguments: str, topic: str = "", before: Callable[[], None] | None = None) -> Ended:
    process = await start(history, *arguments, topic=topic, before=before)
    output, errors = await process.communicate()
    return Ended(status=process.returncode, output=output, errors=errors.decode())


def _leave_little_room() -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))


async def start(
    history: History, *arguments: str, topic: str = "", before: Callable[[], None] | None = None
) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "stream_fp", "replay", "--bootstrap-servers", history.broker,
        "--input-topic", topic or history.topic, "--model-path", str(history.model), *arguments,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, preexec_fn=before,
    )  # fmt: skip


async def replayed(history: History, *arguments: str, topic: str = "") -> list[bytes]:
    ended = await replay(history, *arguments, topic=topic)
    assert ended.status == 0, ended.errors
    return ended.output.splitlines()


# ----------------------------------------------------------------------------------------------------- the same bytes


async def test_a_year_replayed_by_any_number_of_workers_is_what_the_service_said(year: History, tmp_path: Path) -> None:
    assert len(year.published) > 3_000
    expected = b"".join(value + b"\n" for value in year.said())
    for n_workers in (1, 2, 4):
        output = tmp_path / f"{n_workers}.jsonl"
        ended = await replay(year, "--workers", str(n_workers), "--output", str(output), "--no-outcomes")
        assert ended.status == 0, ended.errors
        assert output.read_bytes() == expected
        assert f"{year.n_records} records" in ended.errors


async def test_outcomes_are_the_same_from_any_number_of_workers(year: History, tmp_path: Path) -> None:
    found = []
    for n_workers in (1, 2):
        folder = tmp_path / str(n_workers)
        ended = await replay(year, "--workers", str(n_workers), "--report", str(folder), "--to", "@20000")
        assert ended.status == 0, ended.errors
        found.append({path.name: path.read_bytes() for path in sorted(folder.iterdir())})
    assert found[0].keys() >= {"outcomes.jsonl", "outcomes.parquet", "report.html"}
    assert found[0] == found[1]
    rows = [decode_row(line) for line in found[0]["outcomes.jsonl"].splitlines()]
    assert len(rows) == len(year.said(end=20_000))
    assert {row.outcome for row in rows} >= {"known"}


async def test_events_of_real_bars_replayed_are_what_the_service_said(
    broker: str, model: Path, tmp_path: Path, real_bars_file: Path, year: History
) -> None:
    market = read_bars(real_bars_file)
    sessions = find_sessions(market, find_events(market, zone=zone_of("America/New_York")), DEFAULT_SCHEDULES)
    topic = await new_history(broker, "bars", 2, list(session_messages(sessions)))
    published = await read_all(broker, await serve(broker, topic, model, tmp_path / "log"))
    assert len(published) > 2_000
    history = History(broker=broker, topic=topic, model=model, n_records=0, published=published)
    assert await replayed(history, "--workers", "2") == history.said()
    # Several topics come in the order in which they were named.
    both = await replayed(history, "--topic", topic, "--topic", year.topic, "--to", "@3000")
    assert both == [*history.said(end=3_000), *year.said(end=3_000)]


# --------------------------------------------------------------------------------------------------------- its range


async def test_a_range_in_the_middle_of_sessions_is_what_the_service_said_there(year: History) -> None:
    rng = random.Random(4)
    for _ in range(3):
        first, end = sorted(rng.sample(range(1, year.n_records // N_PARTITIONS), 2))
        ended = await replay(year, "--from", f"@{first}", "--to", f"@{end}")
        assert ended.output.splitlines() == year.said(first, end)
        assert "cut at the start: " in ended.errors
        assert "cut at the end: " in ended.errors


async def test_times_mean_the_records_at_or_after_the_one_and_before_the_other(year: History) -> None:
    stamps = sorted({msgspec.json.decode(value)["classification_metadata"]["timestamp"] for value in year.said()})
    first, end = stamps[500], stamps[900]
    found = await replayed(year, "--from", first + "Z", "--to", end + "Z")
    times = [msgspec.json.decode(value)["classification_metadata"]["timestamp"] for value in found]
    assert min(times) == first
    assert max(times) < end
    assert set(found) <= set(year.said())
    assert len(found) > 200


async def test_bounds_of_single_partitions_win_over_those_of_all(year: History) -> None:
    mixed = await replayed(year, "--from", "@5000", "--from", f"{year.topic}[1]@9000", "--to", f"{year.topic}@9500")
    by_partition = [
        value
        for partition in range(N_PARTITIONS)
        for value in _of_partition(year, partition, 9_000 if partition == 1 else 5_000, 9_500)
    ]
    assert mixed == by_partition


def _of_partition(year: History, partition: int, first: int, end: int) -> list[bytes]:
    mine = [record for record in year.published if record.partition == partition]
    return History(
        broker=year.broker, topic=year.topic, model=year.model, n_records=0, published=mine
    ).said(first, end)  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (("--from", "@7", "--to", "@3"), 2, "lies before `from`"),
        (("--from", "2025-03-01", "--to", "2025-02-01"), 2, "expected a time after that of --from"),
        (("--from", "yesterday"), 2, "expected a time or an offset"),
        (("--from", "other@3"), 2, "names topic `other`, which is not replayed"),
        (("--to", "{topic}[9]@3"), 2, "partitions 0 to 3"),
        (("--from", "2099-01-01"), 1, "no record lies in the range"),
        (("--from", "@100", "--to", "@100"), 1, "no record lies in the range"),
        (("--topic", "nobody-made-this"), 1, "topic `nobody-made-this` does not exist"),
        (("--output-topic", "{topic}"), 2, "expected another topic than sessions are read from"),
    ],
)
async def test_what_cannot_be_replayed_is_one_line(
    year: History, arguments: Sequence[str], status: int, words: str
) -> None:
    ended = await replay(year, *(argument.format(topic=year.topic) for argument in arguments), "--no-outcomes")
    assert ended.status == status
    assert ended.output == b""
    assert words in ended.errors.splitlines()[-1]
    assert "Traceback" not in ended.errors


# --------------------------------------------------------------------------------------------------------- its stops


@pytest.fixture(scope="module")
def outcomes(year: History, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """What came of the first predictions, from a replay that was not stopped."""
    folder = tmp_path_factory.mktemp("outcomes") / "report"
    ended = asyncio.run(replay(year, "--report", str(folder), "--to", "@60000"))
    assert ended.status == 0, ended.errors
    assert (folder / "predictions.jsonl").read_bytes().splitlines() == year.said(end=60_000)
    return (folder / "outcomes.jsonl").read_bytes()


async def test_stopped_at_random_and_resumed_it_comes_to_the_same(
    year: History, outcomes: bytes, tmp_path: Path
) -> None:
    output, report = tmp_path / "predictions.jsonl", tmp_path / "report"
    # What was asked for is part of what is gone on with.
    arguments = ("--output", str(output), "--report", str(report), "--to", "@60000")
    parts = tmp_path / "predictions.jsonl.parts"
    rng = random.Random(9)
    n_stopped = 0
    for n_workers, how in (("2", signal.SIGKILL), ("1", signal.SIGTERM), ("2", signal.SIGINT)):
        process = await start(year, *arguments, "--workers", n_workers, "--resume")
        before = _noted(parts)
        async with asyncio.timeout(60):
            # Until something more is noted down, and a while.
            while process.returncode is None and _noted(parts) <= before:
                await asyncio.sleep(0.02)
            await asyncio.sleep(rng.random() / 4)
        if process.returncode is None:
            process.send_signal(how)
        await process.communicate()
        if process.returncode == 0:
            break  # a quick machine is through with all of it in two or three seconds
        n_stopped += 1
    assert n_stopped >= 1
    if process.returncode != 0:
        ended = await replay(year, *arguments, "--workers", "2", "--resume")
        assert ended.status == 0, ended.errors
    assert output.read_bytes().splitlines() == year.said(end=60_000)
    assert (report / "outcomes.jsonl").read_bytes() == outcomes
    assert not parts.exists()


def _noted(parts: Path) -> float:
    """Return when anything was last noted down."""
    return max((path.stat().st_mtime for path in _notes(parts)), default=0.0)


def _notes(parts: Path) -> Iterator[Path]:
    yield from parts.glob("*.note")


async def test_resume_with_another_model_or_range_is_refused(year: History, tmp_path: Path) -> None:
    output = tmp_path / "predictions.jsonl"
    process = await start(year, "--output", str(output), "--no-outcomes")
    async with asyncio.timeout(60):
        while not list(_notes(tmp_path / "predictions.jsonl.parts")):
            await asyncio.sleep(0.02)
    process.kill()
    await process.communicate()
    for other in (("--to", "@60000"), ("--checkpoints", "40"), ("--outcomes",)):
        ended = await replay(year, "--output", str(output), "--no-outcomes", *other, "--resume")
        assert ended.status == 2
        assert ended.errors.splitlines()[-1].startswith("stream-fp: setting `resume`: ")
    ended = await replay(year, "--output", str(output), "--no-outcomes", "--resume")
    assert output.read_bytes().splitlines() == year.said()


# ------------------------------------------------------------------------------------------------- what it leaves alone


async def test_it_joins_no_group_commits_nothing_and_writes_only_where_it_was_told(year: History) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=year.broker)
    await admin.start()
    try:
        group = f"group-{year.topic}"
        before = await admin.list_consumer_groups(), set(await admin.list_topics())
        offsets = await admin.list_consumer_group_offsets(group)
        told = f"{year.topic}-told"
        await replayed(year, "--output-topic", told)
        assert await admin.list_consumer_groups() == before[0]
        assert set(await admin.list_topics()) == {*before[1], told}
        assert await admin.list_consumer_group_offsets(group) == offsets
    finally:
        await admin.close()
    copies = await read_all(year.broker, told)
    place = sorted((record.partition, record.key, record.value) for record in copies)
    assert place == sorted((record.partition, record.key, record.value) for record in year.published)


# ---------------------------------------------------------------------------------------------------- difficult topics


async def test_markers_aborted_holes_and_dead_records_do_not_matter(
    broker: str, model: Path, topic_factory: TopicFactory, tmp_path: Path
) -> None:
    topic = await topic_factory(1, prefix="difficult")
    messages = list(interleave(simulate_sessions(40, seed=6)))
    producer = AIOKafkaProducer(bootstrap_servers=broker, transactional_id=f"of-{topic}")
    await producer.start()
    rng = random.Random(3)
    for i in range(0, len(messages), 50):
        await producer.begin_transaction()
        for message in messages[i : i + 50]:
            await producer.send(topic, key=str(message["session_id"]).encode(), value=msgspec.json.encode(message))
        if rng.random() < 0.3:
            await producer.send(topic, key=b"NY_AM_2025-01-06", value=b"{ broken")
        await producer.commit_transaction()
        if rng.random() < 0.5:
            await producer.begin_transaction()
            await producer.send(topic, key=b"NY_AM_2025-01-06", value=msgspec.json.encode(event()))
            await producer.abort_transaction()
    await producer.stop()
    published = await read_all(broker, await serve(broker, topic, model, tmp_path / "log"))
    history = History(broker=broker, topic=topic, model=model, n_records=0, published=published)
    assert len(published) > 30
    ended = await replay(history)
    assert ended.output.splitlines() == history.said()
    assert "RecordDecodeError" in ended.errors
    assert f"not used: {topic}[0]@" in ended.errors
    for first, end in ((100, 2_000), (1_234, 1_235), (600, 2_400)):
        ended = await replay(history, "--from", f"@{first}", "--to", f"@{end}")
        assert ended.output.splitlines() == history.said(first, end)


async def test_a_compacted_topic_is_what_the_service_said_over_what_is_left(
    broker: str, model: Path, topic_factory: TopicFactory, tmp_path: Path
) -> None:
    topic = await topic_factory(
        1,
        prefix="compacted",
        settings={
            "cleanup.policy": "compact", "segment.bytes": "50000", "min.cleanable.dirty.ratio": "0.01",
            "max.compaction.lag.ms": "100", "min.compaction.lag.ms": "0", "delete.retention.ms": "0",
        },
    )  # fmt: skip
    # The same few sessions again and again: of the earlier turns, nothing but what lies in the last segment is left.
    session = [event(minute=minute) for minute in range(60)]
    filler = [(f"LUNCH_2025-07-{day:02}".encode(), b"x" * 2_000) for day in range(1, 29)]
    keyed = [(b"NY_AM_2025-07-29", msgspec.json.encode(message)) for message in session]
    await publish_all(broker, topic, [*keyed[:10], *filler * 3, *keyed[10:20], *filler * 3, *keyed[20:]])
    async with asyncio.timeout(120):
        while (n_left := len(await read_all(broker, topic))) == len(keyed) + 6 * len(filler):
            await asyncio.sleep(1)
    assert n_left < len(keyed) + 6 * len(filler)
    published = await read_all(broker, await serve(broker, topic, model, tmp_path / "log"))
    history = History(broker=broker, topic=topic, model=model, n_records=0, published=published)
    assert (await replay(history)).output.splitlines() == history.said()
    assert len(published) == 1


async def test_sessions_whose_beginning_is_gone_are_reported(
    broker: str, model: Path, topic_factory: TopicFactory
) -> None:
    topic = await topic_factory(1, prefix="trimmed")
    session = [event(minute=minute) for minute in range(80)]
    await publish_all(broker, topic, [(b"NY_AM_2025-07-29", msgspec.json.encode(message)) for message in session])
    admin = AIOKafkaAdminClient(bootstrap_servers=broker)
    await admin.start()
    try:
        await admin.delete_records({TopicPartition(topic, 0): RecordsToDelete(before_offset=15)})
    finally:
        await admin.close()
    history = History(broker=broker, topic=topic, model=model, n_records=0, published=[])
    for outcomes in ("--outcomes", "--no-outcomes"):
        ended = await replay(history, outcomes)
        assert len(ended.output.splitlines()) == 1
        assert "cut at the start: 1 session began before the range, or may have; of these, 1 reached" in ended.errors
        assert "cut at the end: 1 session not over where the records end, 1 of them predicted" in ended.errors


async def test_without_looking_back_sessions_that_may_have_begun_before_are_reported(year: History) -> None:
    n_cut = n_predicted = 0
    for first in range(3_000, 3_120, 15):
        short = await replay(year, "--from", f"@{first}", "--to", f"@{first + 150}", "--look-back", "0")
        assert short.status == 0
        if cut := re.search(r"cut at the start: (\d+) sessions? .* of these, (\d+) reached", short.errors):
            n_cut, n_predicted = n_cut + int(cut[1]), n_predicted + int(cut[2])
    assert n_cut >= n_predicted > 0


async def test_one_odd_time_stamp_does_not_shorten_the_look_back(
    broker: str, model: Path, topic_factory: TopicFactory, tmp_path: Path
) -> None:
    topic = await topic_factory(1, prefix="odd", settings={"retention.ms": "-1"})
    messages = list(interleave(simulate_sessions(21, seed=12)))
    first = len(messages) // 2
    async with AIOKafkaProducer(bootstrap_servers=broker) as producer:
        for offset, message in enumerate(messages):
            stamp_ms = 4_000_000_000_000 if offset == first else 1_736_000_000_000 + offset
            key, value = str(message["session_id"]).encode(), msgspec.json.encode(message)
            await producer.send(topic, key=key, value=value, timestamp_ms=stamp_ms)
    published = await read_all(broker, await serve(broker, topic, model, tmp_path / "log"))
    history = History(broker=broker, topic=topic, model=model, n_records=0, published=published)
    ended = await replay(history, "--from", f"@{first}")
    assert ended.output.splitlines() == history.said(first)


async def test_publishing_is_not_repeated_by_who_goes_on(year: History, tmp_path: Path) -> None:
    told = f"{year.topic}-once"
    report = tmp_path / "report"
    arguments = ("--to", "@4000", "--report", str(report), "--output-topic", told)
    assert (await replay(year, *arguments)).status == 0
    # As if it had been killed between publishing and the end.
    parts = await start(year, "--to", "@4000", "--report", str(tmp_path / "other"), "--output-topic", told, "--resume")
    await parts.communicate()
    copies = await read_all(year.broker, told)
    assert sorted(record.value for record in copies) == sorted(year.said(end=4_000))


async def test_a_topic_made_anew_is_not_gone_on_with(
    broker: str, model: Path, topic_factory: TopicFactory, tmp_path: Path
) -> None:
    output = tmp_path / "p.jsonl"
    topic = await topic_factory(1, prefix="anew")
    history = History(broker=broker, topic=topic, model=model, n_records=0, published=[])
    sessions = [list(interleave(simulate_sessions(200, seed=seed))) for seed in (1, 2)]
    keyed = [[(str(m["session_id"]).encode(), msgspec.json.encode(m)) for m in messages] for messages in sessions]
    await publish_all(broker, topic, keyed[0])
    # No room for all predictions: it ends in the middle, and leaves what it has.
    ended = await replay(history, "--output", str(output), "--no-outcomes", before=_leave_little_room)
    assert (ended.status, (tmp_path / "p.jsonl.parts").is_dir()) == (1, True), ended.errors
    admin = AIOKafkaAdminClient(bootstrap_servers=broker)
    await admin.start()
    await admin.delete_topics([topic])
    async with asyncio.timeout(30):
        while topic in await admin.list_topics():
            await asyncio.sleep(0.1)
    await admin.close()
    await topic_factory(1, name=topic)
    await publish_all(broker, topic, keyed[1])
    ended = await replay(history, "--output", str(output), "--no-outcomes", "--resume")
    assert ended.status == 2
    assert "setting `resume`: " in ended.errors
