"""What was fetched is handed out in slices, in order, once; a seek and a stop throw away what is left."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

import pytest
from aiokafka import TopicPartition

from stream_fp.kafka.intake import Intake

TP = TopicPartition("events", 0)


@dataclass
class Consumer:
    """Hands out one fetch after another, each whole, and waits where there is none."""

    fetches: list[list[Any]]
    calls: list[Any] = field(default_factory=list)

    def seek(self, _partition: TopicPartition, offset: int) -> None:
        self.calls.append(("seek", offset))

    def resume(self, _partition: TopicPartition) -> None:
        self.calls.append("resume")

    async def getmany(
        self, *partitions: TopicPartition, timeout_ms: int, max_records: int
    ) -> dict[TopicPartition, list[Any]]:
        assert partitions == (TP,)
        assert max_records > 1000
        self.calls.append("getmany")
        if self.fetches:
            return {TP: self.fetches.pop(0)}
        await asyncio.sleep(timeout_ms / 1000)
        return {}


async def test_fetches_come_in_slices_and_in_order() -> None:
    intake: Any = Intake(Consumer([list(range(7)), [7], list(range(8, 14))]), TP, n_at_once=3)
    slices = [await intake.wait(0.0) for _ in range(3)]
    slices += [await intake.look() for _ in range(3)]
    assert slices == [[0, 1, 2], [3, 4, 5], [6], [7], [8, 9, 10], [11, 12, 13]]
    assert await intake.look() == []
    assert await intake.wait(0.0) == []


async def test_next_fetch_is_asked_for_only_when_all_was_handed_out() -> None:
    consumer = Consumer([[0, 1, 2, 3], [4]])
    intake: Any = Intake(consumer, TP, n_at_once=2)
    await intake.wait(0.0)
    await intake.look()
    assert consumer.calls == ["getmany"]
    assert await intake.look() == [4]


async def test_seek_throws_away_what_is_kept() -> None:
    consumer = Consumer([[0, 1, 2, 3], [8, 9]])
    intake: Any = Intake(consumer, TP, n_at_once=2)
    assert await intake.look() == [0, 1]
    intake.seek(8)
    assert consumer.calls[1:] == [("seek", 8), "resume"]
    assert await intake.look() == [8, 9]


async def test_stop_lets_go_of_who_waits_and_gives_out_no_more() -> None:
    consumer = Consumer([[0, 1, 2, 3]])
    intake: Any = Intake(consumer, TP, n_at_once=4)
    assert await intake.wait(60.0) == [0, 1, 2, 3]
    waiting = asyncio.create_task(intake.wait(60.0))
    await asyncio.sleep(0)
    intake.stop()
    async with asyncio.timeout(5):
        assert await waiting == []
    consumer.fetches.append([4])
    assert await intake.look() == []
    assert await intake.wait(60.0) == []


async def test_cancelling_who_waits_is_no_stop() -> None:
    consumer = Consumer([])
    intake: Any = Intake(consumer, TP, n_at_once=4)
    waiting = asyncio.create_task(intake.wait(60.0))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    consumer.fetches.append([0])
    assert await intake.look() == [0]


async def test_client_that_keeps_back_what_it_has_is_not_waited_for() -> None:
    class Rebalancing(Consumer):
        async def getmany(
            self, *partitions: TopicPartition, timeout_ms: int, max_records: int
        ) -> dict[TopicPartition, list[Any]]:
            await asyncio.Event().wait()
            return await super().getmany(*partitions, timeout_ms=timeout_ms, max_records=max_records)

    intake: Any = Intake(Rebalancing([[0]]), TP, n_at_once=4)
    async with asyncio.timeout(5):
        assert await intake.look() == []
