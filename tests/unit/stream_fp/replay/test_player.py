"""The pace of a rehearsal, with a clock that is told to pass; and its files."""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Sequence
from datetime import UTC
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_fp.files import read_records
from stream_fp.messages import Record
from stream_fp.replay import sources
from stream_fp.replay.player import RehearsalSummary, play
from stream_fp.replay.sources import FileSource, OpenFiles, Source
from tests.support.builders import end, event, records, start, us_at


class Clock:
    """Stands still but for who sleeps."""

    def __init__(self) -> None:
        self.time_s = 1_000.0
        self.slept_s: list[float] = []

    def now_s(self) -> float:
        return self.time_s

    async def sleep(self, delay_s: float) -> None:
        self.slept_s.append(delay_s)
        self.time_s += delay_s


class Listed:
    """A source that has its records in a list."""

    def __init__(self, number: int, messages: Sequence[dict[str, Any]], n_at_once: int = 3) -> None:
        self.partition = number
        self.n_in_all = len(messages)
        self._records = records(messages)
        self._n_at_once = n_at_once
        self._n_read = 0

    def n_done(self, record: Record) -> int:
        return record.offset + 1

    def place(self, record: Record) -> str:
        return f"{self.partition}@{record.offset}"

    async def read(self) -> Sequence[Record]:
        first, self._n_read = self._n_read, self._n_read + self._n_at_once
        return self._records[first : self._n_read]

    async def rewind(self) -> None:
        self._n_read = 0


class Sent:
    """Notes when each record was sent, and takes its time if told to."""

    def __init__(self, clock: Clock, *, takes_s: float = 0.0) -> None:
        self._clock = clock
        self._takes_s = takes_s
        self._waiting: list[tuple[int, int]] = []
        self.sent: list[tuple[float, int, int]] = []

    async def add(self, record: Record, source: Source) -> None:
        self._waiting.append((source.partition, record.offset))
        self._clock.time_s += self._takes_s

    async def send(self) -> None:
        self.sent += [(self._clock.time_s - 1_000.0, *one) for one in self._waiting]
        self._waiting.clear()


async def played(
    streams: Sequence[Sequence[dict[str, Any]]], speed: float | None, *, takes_s: float = 0.0
) -> tuple[list[tuple[float, int, int]], RehearsalSummary, list[str], list[tuple[int, int]]]:
    clock, said, calls = Clock(), list[str](), list[tuple[int, int]]()
    sink = Sent(clock, takes_s=takes_s)
    summary = RehearsalSummary(output_topic="t", n_partitions=1, n_sources=len(streams))
    await play(
        [Listed(number, stream) for number, stream in enumerate(streams)], sink, zone=UTC, speed=speed,
        summary=summary, clock=clock, say=said.append, progress=lambda *call: calls.append(call),
    )  # fmt: skip
    return sink.sent, summary, said, calls


async def test_records_are_sent_when_they_are_due() -> None:
    streams = [[event(minute=0), event(minute=1), event(minute=3)], [event(minute=0.5), event(minute=2)]]
    sent, summary, said, calls = await played(streams, 10.0)
    assert [(round(time_s, 6), source, offset) for time_s, source, offset in sent] == [
        (0, 0, 0), (3, 1, 0), (6, 0, 1), (12, 1, 1), (18, 0, 2),
    ]  # fmt: skip
    assert (summary.first_us, summary.last_us) == (us_at(0), us_at(3))
    assert summary.behind_s == pytest.approx(0)
    assert said == []
    assert calls[0] == (0, 5)
    assert calls[-1] == (5, 5)


async def test_what_names_no_time_comes_right_behind_what_is_before_it_and_late_events_are_not_delayed() -> None:
    stream = [start(), event(minute=5), event(timestamp="soon"), event(minute=1), end(minute=60), event(minute=6)]
    sent, summary, _, _ = await played([[event(minute=0)], stream], 1.0)
    # Of the second stream all but the last are due at minute 5: its beginning with its first event.
    assert [(round(time_s), source) for time_s, source, _ in sent] == [(0, 0), *[(300, 1)] * 5, (360, 1)]
    assert [offset for _, source, offset in sent if source] == list(range(6))
    assert summary.n_untimed == 3


async def test_first_event_is_found_however_far_it_lies_behind_what_names_no_time() -> None:
    streams = [[event(minute=1)], [*[start()] * 20, event(minute=0)]]
    sent, summary, _, _ = await played(streams, 1.0)
    assert [(round(time_s), source) for time_s, source, _ in sent] == [*[(0, 1)] * 21, (60, 0)]
    assert summary.first_us == us_at(0)


async def test_records_without_any_time_go_at_once() -> None:
    sent, summary, _, _ = await played([[start(), end()], [], [{"kind": "?"}]], 1.0)
    assert [time_s for time_s, _, _ in sent] == [0, 0, 0]
    assert (summary.first_us, summary.last_us, summary.n_untimed) == (None, None, 3)


async def test_long_wait_is_told_of_before_it_begins_and_kept() -> None:
    sent, _, said, calls = await played([[event(minute=0), event(minute=15 * 60)]], 10.0)
    assert sent[-1][0] == pytest.approx(90 * 60)
    assert said == ["next: event time 2025-07-30T04:30:00.000000 UTC, in 1:30:00"]
    assert (1, 2) in calls


async def test_what_is_due_within_a_tick_is_sent_together_and_never_early() -> None:
    stream = [event(minute=millisecond / 60_000) for millisecond in range(1_000)]
    sent, _, _, _ = await played([stream], 1.0)
    late_s = [time_s - offset / 1_000 for time_s, _, offset in sent]
    assert all(-1e-9 <= late <= 0.0101 for late in late_s)
    assert len({time_s for time_s, _, _ in sent}) <= 101


async def test_sink_that_cannot_keep_up_is_waited_for_and_told_of() -> None:
    stream = [event(minute=i / 60) for i in range(10)]
    sent, summary, _, _ = await played([stream], 1.0, takes_s=3.0)
    assert [offset for _, _, offset in sent] == list(range(10))
    assert summary.behind_s == pytest.approx(9 * 3.0 - 9.0)


async def test_without_a_pace_nothing_waits() -> None:
    sent, summary, said, _ = await played([[event(minute=0), event(minute=10_000)], [event(minute=5_000)]], None)
    assert sent == [(0, 0, 0), (0, 1, 0), (0, 0, 1)]
    assert (summary.last_us, said) == (us_at(10_000), [])


minutes = st.none() | st.integers(0, 60)


@given(st.lists(st.lists(minutes, max_size=15), max_size=4), st.sampled_from((0.5, 1.0, 60.0)))
async def test_nothing_is_early_lost_doubled_or_out_of_order(streams: list[list[int | None]], speed: float) -> None:
    messages = [[start() if minute is None else event(minute=minute) for minute in stream] for stream in streams]
    sent, summary, _, _ = await played(messages, speed)
    for number, stream in enumerate(streams):
        assert [offset for _, source, offset in sent if source == number] == list(range(len(stream)))
    first = min((minute for stream in streams for minute in stream[:1] if minute is not None), default=None)
    assert [time_s for time_s, _, _ in sent] == sorted(time_s for time_s, _, _ in sent)
    if first is not None and summary.first_us is not None:
        for time_s, source, offset in sent:
            if (minute := streams[source][offset]) is not None:
                assert time_s >= (minute - (summary.first_us - us_at(0)) / 6e7) * 60 / speed - 1e-6


# -------------------------------------------------------------------------------------------------------------- files


def lines_of(folder: Path, n_files: int, n_lines: int) -> list[Path]:
    paths = [folder / f"{number:03d}.jsonl" for number in range(n_files)]
    for number, path in enumerate(paths):
        path.write_text("\n".join(json.dumps(event(f"S{number}_2025-07-29", minute)) for minute in range(n_lines)))
    return paths


class Opened:
    """A sink that looks how many of the files are open."""

    def __init__(self, folder: Path) -> None:
        self._folder = str(folder)
        self.n_open = 0
        self.values: list[bytes | None] = []

    async def add(self, record: Record, _source: Source) -> None:
        self.values.append(record.value)
        self.n_open = max(self.n_open, n_open_below(self._folder))

    async def send(self) -> None:
        pass


def n_open_below(folder: str) -> int:
    return sum(os.path.realpath(link).startswith(folder) for link in Path("/proc/self/fd").iterdir())


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="needs /proc to see which files are open")
async def test_files_side_by_side_are_read_with_few_of_them_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "_N_AT_ONCE", 7)
    paths = lines_of(tmp_path, 20, 30)
    files, sink = OpenFiles(max_open=3), Opened(tmp_path)
    summary = RehearsalSummary(output_topic="t", n_partitions=1, n_sources=20)
    found = [FileSource(path, number, files) for number, path in enumerate(paths)]
    await play(found, sink, zone=UTC, speed=None, summary=summary)
    assert 1 <= sink.n_open <= 3
    expected = [record.value for path in paths for record in read_records(path)]
    assert len(sink.values) == len(expected)
    assert sorted(filter(None, sink.values)) == sorted(filter(None, expected))
    stamps = [json.loads(value or b"")["timestamp"] for value in sink.values]
    assert stamps == sorted(stamps)


async def test_file_goes_on_where_it_was_left_and_from_the_start_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "_N_AT_ONCE", 4)
    (path,) = lines_of(tmp_path, 1, 10)
    expected = list(read_records(path))
    file = FileSource(path, 0, OpenFiles())
    for _ in range(2):
        found = list(await file.read())
        file.close()
        while some := await file.read():
            found += some
        assert found == expected
        await file.rewind()


async def test_damaged_file_gives_what_is_before_and_says_why(tmp_path: Path) -> None:
    (path,) = lines_of(tmp_path, 1, 10)
    packed = tmp_path / "cut.jsonl.gz"
    packed.write_bytes(gzip.compress(path.read_bytes() + b"\n")[:-4])
    file = FileSource(packed, 0, OpenFiles())
    assert [record.value for record in await file.read()] == [record.value for record in read_records(path)]
    assert await file.read() == ()
    assert file.error.startswith(f"{packed}: reading ended after line 10: ")
