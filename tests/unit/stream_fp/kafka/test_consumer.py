"""What the consumer's batches hand out, beside what the client's own generator would: records and positions.

Fetch responses are built in memory; no broker is needed.
"""

from __future__ import annotations

import struct
from typing import Any, Final

import pytest
from aiokafka import TopicPartition
from aiokafka.consumer.fetcher import FetchResult, PartitionRecords
from aiokafka.errors import CorruptRecordException
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.legacy_records import LegacyRecordBatchBuilder
from aiokafka.record.memory_records import MemoryRecords
from hypothesis import given, settings
from hypothesis import strategies as st

from stream_fp.kafka.consumer import _Results

TP: Final = TopicPartition("t", 0)
READ_COMMITTED: Final = 1


class State:
    paused = False

    def __init__(self, position: int) -> None:
        self.position = position

    def consumed_to(self, position: int) -> None:
        self.position = position


class Assignment:
    active = True

    def __init__(self, position: int) -> None:
        self.state = State(position)

    def state_value(self, _partition: TopicPartition) -> State:
        return self.state


def batch_of(
    first: int, n: int, *, n_lost: int = 0, producer_id: int = -1, marker: int | None = None, codec: int = 0
) -> bytes:
    """Return a batch of `n` records; the last `n_lost` offsets of it were compacted away."""
    builder = DefaultRecordBatchBuilder(
        magic=2, compression_type=codec, is_transactional=int(producer_id >= 0), producer_id=producer_id,
        producer_epoch=0, base_sequence=0, batch_size=10**8,
    )  # fmt: skip
    if marker is not None:
        builder.append(0, 1, struct.pack(">hh", 0, marker), b"\x00" * 6, [])
    for i in range(n):
        builder.append(i, 1000 + i, b"key", f"{first + i}".encode(), [])
    data = bytearray(builder.build())
    data[0:8] = first.to_bytes(8, "big")
    last_delta = (0 if marker is not None else n - 1) + n_lost
    attributes = int.from_bytes(data[21:23], "big") | (0x20 if marker is not None else 0)
    data[21:23] = attributes.to_bytes(2, "big")
    data[23:27] = last_delta.to_bytes(4, "big")
    return bytes(data)


def fetched(
    data: bytes, position: int, aborted: list[tuple[int, int]] | None, *, is_ours: bool, check_crcs: bool = False
) -> tuple[Any, State]:
    assignment = Assignment(position)
    records = PartitionRecords(TP, MemoryRecords(data), aborted, position, None, None, check_crcs, READ_COMMITTED)
    result = FetchResult(TP, assignment=assignment, partition_records=records, backoff=0)
    results: Any = _Results() if is_ours else {}
    results[TP] = result
    return result, assignment.state


def drained(
    data: bytes, position: int, cap: int | None, aborted: list[tuple[int, int]] | None = None, *, is_ours: bool
) -> tuple[list[int], int]:
    """Return the offsets handed out and the position in the end; each position must be at or after what was given."""
    result, state = fetched(data, position, aborted, is_ours=is_ours)
    offsets: list[int] = []
    while result.has_more():
        offsets += [record.offset for record in result.getall(cap)]
        assert not offsets or state.position > offsets[-1], f"position {state.position} after record {offsets[-1]}"
    return offsets, state.position


@pytest.mark.parametrize(("sizes", "cap"), [((800,), 500), ((300, 300), 500), ((3,), 2), ((1, 1, 3), 4)])
def test_last_records_of_a_fetch_move_the_position(sizes: tuple[int, ...], cap: int) -> None:
    """What was left over of the last batch is handed out last; else it would be fetched and counted again."""
    data, first = b"", 0
    for n in sizes:
        data, first = data + batch_of(first, n), first + n
    assert drained(data, 0, cap, is_ours=True) == (list(range(first)), first)


BATCHES: Final = st.lists(
    st.tuples(
        st.integers(1, 7),  # records
        st.integers(0, 3),  # offsets lost to compaction at its end
        st.sampled_from(("plain", "plain", "one", "other", "commit one", "abort one", "abort other")),
        st.sampled_from((0, 0, 1)),
    ),
    min_size=1,
    max_size=8,
)


@given(batches=BATCHES, cap=st.one_of(st.none(), st.integers(1, 12)), begin=st.integers(0, 6))
@settings(max_examples=400, deadline=None)
def test_same_records_and_end_as_the_client(batches: list[Any], cap: int | None, begin: int) -> None:
    data, first, open_since = b"", 0, dict[int, int]()
    aborted: list[tuple[int, int]] = []
    first_length = 1 if " " in batches[0][2] else batches[0][0] + batches[0][1]
    for n, n_lost, kind, codec in batches:
        producer_id = {"one": 1, "other": 2}.get(kind.split()[-1], -1)
        if " " in kind:
            data += batch_of(first, 0, producer_id=producer_id, marker=int(kind.startswith("commit")))
            since = open_since.pop(producer_id, None)
            if kind.startswith("abort") and since is not None:
                aborted.append((producer_id, since))
            first += 1
        else:
            if producer_id > 0:
                open_since.setdefault(producer_id, first)
            data += batch_of(first, n, n_lost=n_lost, producer_id=producer_id, codec=codec)
            first += n + n_lost
    # A broker's answer begins with the batch that holds the position; a client that meets another gives too much.
    position = min(begin, first_length - 1)
    theirs, _ = fetched(data, position, list(aborted), is_ours=False)
    expected = [record.offset for record in theirs.getall(None)]
    offsets, end = drained(data, position, cap, list(aborted), is_ours=True)
    assert offsets == expected
    assert end == first


@pytest.mark.parametrize("magic", [0, 1])
def test_same_of_older_formats(magic: int) -> None:
    builder = LegacyRecordBatchBuilder(magic=magic, compression_type=0, batch_size=10**6)
    for i in range(9):
        builder.append(i, 1000 + i, b"key", b"value")
    data = bytes(builder.build())
    for cap in (None, 1, 2, 4, 9):
        assert drained(data, 0, cap, is_ours=True) == drained(data, 0, cap, is_ours=False) == (list(range(9)), 9)


@pytest.mark.parametrize("cap", [None, 2, 3, 5, 100])
def test_records_before_a_broken_batch_are_never_passed_over(cap: int | None) -> None:
    """Whoever asks again after the failure is given them by a new fetch: the position has not moved past them."""
    broken = bytearray(batch_of(6, 3))
    broken[-1] ^= 0xFF
    data = batch_of(0, 3) + batch_of(3, 3) + bytes(broken)
    result, state = fetched(data, 0, None, is_ours=True, check_crcs=True)
    offsets: list[int] = []
    n_failed = 0
    while result.has_more() and n_failed < 3:
        try:
            offsets += [record.offset for record in result.getall(cap)]
        except CorruptRecordException:
            n_failed += 1
        assert state.position == len(offsets), f"position {state.position}, but only {offsets} were handed out"
    assert n_failed
