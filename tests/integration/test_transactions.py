"""Transactions opened beforehand, on a real broker: they hold nobody up, end in time, and fail where it is handled."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import msgspec
import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import (
    ConcurrentTransactions,
    GroupAuthorizationFailedError,
    KafkaError,
    ProducerFenced,
    for_code,
)

from stream_fp.config import Settings
from stream_fp.kafka.offsets import committed_offset
from stream_fp.kafka.publisher import Publisher
from stream_fp.kafka.transactions import Transactions
from tests.integration.test_publisher import Desk, desk, open_desk, point, prediction, progress, settings, values

__all__ = ["desk", "settings"]  # fixtures

TIMEOUT_S = 2.0


async def until(condition: Callable[[], Awaitable[bool]], timeout_s: float = 20.0) -> None:
    async with asyncio.timeout(timeout_s):
        while not await condition():
            await asyncio.sleep(0.02)


def transactions_of(publisher: Publisher) -> Transactions:
    assert publisher._transactions is not None
    return publisher._transactions


async def opened(publisher: Publisher) -> None:
    """Wait until the next transaction is open; it is after the first publish."""

    async def is_open() -> bool:
        return transactions_of(publisher)._is_open

    await until(is_open)


async def end_of(desk: Desk, isolation_level: str) -> int:
    """Return where readers of the output partition of the desk's number come to its end."""
    output = TopicPartition(desk.settings.output_topic, desk.partition.partition)
    async with AIOKafkaConsumer(
        bootstrap_servers=desk.settings.bootstrap_servers, isolation_level=isolation_level
    ) as reader:
        return int((await reader.end_offsets([output]))[output])


async def test_opened_transaction_holds_back_neither_readers_nor_the_committed_offset(desk: Desk) -> None:
    record = await desk.record()
    mine = prediction(record, "A_2025-07-29")
    owner = await desk.started()
    await owner.publish([mine], low_offset=0, progress=progress(1))
    await opened(owner)

    # Another owner writes to the same output partition meanwhile, as with fewer output than input partitions.
    async with open_desk(msgspec.structs.replace(desk.settings, group_id=f"{desk.settings.group_id}-b"), 1) as other:
        theirs = prediction(record, "B_2025-07-29")
        await (await other.started()).publish([theirs], low_offset=0, progress=progress(1))
        await other.settle()

    assert transactions_of(owner)._is_open
    assert await desk.predictions() == values([mine, theirs])
    assert await end_of(desk, "read_committed") == await end_of(desk, "read_uncommitted")
    found = await asyncio.wait_for(
        committed_offset(desk.admin, desk.settings.group_id, desk.partition, stable=True), timeout=5
    )
    assert found.offset == 0


async def test_publish_into_an_opened_transaction_announces_nothing_more(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = await desk.record()
    made = [prediction(record, f"S{i}_2025-07-29") for i in range(3)]
    publisher = await desk.started()
    await publisher.publish(made[:1], low_offset=0, progress=progress(1))
    await opened(publisher)
    producer = publisher._producer
    assert producer is not None
    sent: list[str] = []
    send = producer.client.send

    async def noted(node_id: int, request: object, **options: object) -> object:
        sent.append(type(request).__name__.partition("Request")[0])
        return await send(node_id, request, **options)

    monkeypatch.setattr(producer.client, "send", noted)

    await publisher.publish(made[1:], low_offset=0, progress=progress(2))

    assert sent == ["TxnOffsetCommit", "Produce", "EndTxn"]
    await opened(publisher)
    await desk.settle()
    assert await desk.predictions() == values(made)
    assert await desk.point_after_filling() == point(0, progress(2))


async def test_publisher_idle_for_longer_than_a_transaction_may_take_goes_on(settings: Settings) -> None:
    quick = msgspec.structs.replace(settings, transaction_timeout_s=TIMEOUT_S)
    async with open_desk(quick, partition=1) as desk:
        record = await desk.record()
        made = [prediction(record, f"S{i}_2025-07-29") for i in range(2)]
        publisher = await desk.started()
        await publisher.publish(made[:1], low_offset=0, progress=progress(1))
        await opened(publisher)
        # Twice the time-out and the second that the broker of the tests takes to look at it.
        await asyncio.sleep(2 * TIMEOUT_S + 1)
        assert not transactions_of(publisher)._is_open

        await publisher.publish(made[1:], low_offset=1, progress=progress(2))

        await desk.settle()
        assert await desk.predictions() == values(made)
        assert await desk.point_after_filling() == point(1, progress(2))


async def test_opened_transaction_of_an_owner_that_died_delays_its_successor_by_no_time_out(desk: Desk) -> None:
    record = await desk.record()
    made = [prediction(record, f"S{i}_2025-07-29") for i in range(2)]
    first = await desk.started()
    await first.publish(made[:1], low_offset=0, progress=progress(1))
    await opened(first)
    await first.abandon()  # asks nothing more of the broker, as a process that was killed

    async with asyncio.timeout(desk.settings.transaction_timeout_s / 3):
        second = await desk.started()
        assert await desk.point_after_filling() == point(0, progress(1))
        await second.publish(made[1:], low_offset=1, progress=progress(2))

    await desk.settle()
    assert await desk.predictions() == values(made)


async def test_closing_ends_the_opened_transaction(desk: Desk) -> None:
    publisher = await desk.started()
    await publisher.publish([], low_offset=0, progress=progress(1))
    await opened(publisher)
    transactions = transactions_of(publisher)
    before = await end_of(desk, "read_uncommitted")

    await publisher.aclose()

    assert not transactions._is_open

    async def has_marker() -> bool:
        return await end_of(desk, "read_uncommitted") == before + 1

    await until(has_marker)


async def test_predictions_are_found_behind_the_markers_of_commits_without_any(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stream_fp.kafka.told._FIRST_SPAN", 3)
    records = [await desk.record() for _ in range(3)]
    publisher = await desk.started()
    await publisher.publish([prediction(record) for record in records], low_offset=0, progress=progress(3))
    for i in range(12):
        await publisher.publish([], low_offset=0, progress=progress(4 + i))
    await publisher.aclose()
    assert await desk.last_told() == records[-1].offset


@pytest.mark.parametrize("how", ["closed", "abandoned"])
async def test_publisher_can_be_left_at_any_moment_of_the_opening(desk: Desk, how: str) -> None:
    record = await desk.record()
    made = [prediction(record, f"S{i:02}_2025-07-29") for i in range(12)]
    for i, one in enumerate(made):
        publisher = await desk.started()
        await publisher.publish([one], low_offset=i, progress=progress(i + 1))
        await asyncio.sleep(0.001 * i)
        await (publisher.aclose() if how == "closed" else publisher.abandon())
    await desk.settle()
    assert await desk.predictions() == values(made)
    assert await desk.point_after_filling() == point(11, progress(12))


async def test_owner_fenced_while_its_transaction_is_open_is_told_at_its_next_publish(desk: Desk) -> None:
    record = await desk.record()
    first = await desk.started()
    await first.publish([], low_offset=0, progress=progress(1))
    await opened(first)
    second = await desk.started()
    with pytest.raises(ProducerFenced):
        await first.publish([prediction(record)], low_offset=7, progress=progress(8))
    await first.abandon()
    await second.publish([], low_offset=1, progress=progress(2))
    await desk.settle()
    assert await desk.predictions() == []
    assert await desk.point_after_filling() == point(1, progress(2))


@pytest.mark.parametrize("idle_s", [0.0, 1.0])
async def test_owner_fenced_before_its_next_transaction_is_open_is_told_at_its_next_publish(
    settings: Settings, idle_s: float
) -> None:
    quick = msgspec.structs.replace(settings, transaction_timeout_s=TIMEOUT_S)
    async with open_desk(quick, partition=1) as desk:
        first = await desk.started()
        await first.publish([], low_offset=0, progress=progress(1))
        second = await desk.started()
        # While it opens the next one, or after what would have ended it unused.
        await asyncio.sleep(idle_s)
        with pytest.raises(ProducerFenced):
            await first.publish([], low_offset=7, progress=progress(8))
        await second.publish([], low_offset=1, progress=progress(2))
        await desk.settle()
        assert await desk.point_after_filling() == point(1, progress(2))


async def test_opening_that_failed_is_a_failure_of_the_next_publish(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    publisher = await desk.started()
    producer = publisher._producer
    assert producer is not None

    async def broken() -> None:
        raise KeyError("a state that the client did not foresee")

    await publisher.publish([], low_offset=0, progress=progress(1))
    monkeypatch.setattr(producer, "begin_transaction", broken)
    with pytest.raises(KafkaError, match="did not foresee"):
        await publisher.publish([], low_offset=1, progress=progress(2))
    await publisher.abandon()
    await desk.settle()
    assert await desk.point_after_filling() == point(0, progress(1))


async def test_opening_waits_for_the_markers_of_the_transaction_before(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The broker refuses a transaction that begins before; the client asks again, and the publisher need not know."""
    refused = 0

    def counted(code: int) -> type[KafkaError]:
        nonlocal refused
        error: type[KafkaError] = for_code(code)
        refused += error is ConcurrentTransactions
        return error

    monkeypatch.setattr("aiokafka.producer.sender.Errors.for_code", counted)
    monkeypatch.setattr("stream_fp.kafka.transactions._MARKERS_S", 0.0)
    publisher = await desk.started()
    for i in range(40):
        await publisher.publish([], low_offset=i, progress=progress(i + 1))
    await desk.settle()
    assert refused > 0
    assert await desk.point_after_filling() == point(39, progress(40))


async def test_announcement_that_is_not_allowed_fails_the_publish_by_its_name(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = await desk.record()
    publisher = await desk.started()
    producer = publisher._producer
    assert producer is not None
    send = producer.client.send

    async def refused(node_id: int, request: object, **options: object) -> object:
        response = await send(node_id, request, **options)
        if type(request).__name__.startswith("AddOffsetsToTxn"):
            response.error_code = GroupAuthorizationFailedError.errno
        return response

    monkeypatch.setattr(producer.client, "send", refused)
    with pytest.raises(GroupAuthorizationFailedError):
        await publisher.publish([prediction(record, "A_2025-07-29")], low_offset=0, progress=progress(1))
    assert await desk.predictions() == []


async def test_closing_while_no_broker_answers_gives_up_soon(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    record = await desk.record()
    publisher = await desk.started()
    await publisher.publish([prediction(record, "A_2025-07-29")], low_offset=0, progress=progress(1))
    await opened(publisher)
    producer = publisher._producer
    assert producer is not None

    async def silent(*_: object, **__: object) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(producer.client, "send", silent)
    async with asyncio.timeout(10):
        await publisher.aclose()
    assert producer._sender.sender_task.done()
