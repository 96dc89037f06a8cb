"""Publishing on a real broker: outcomes and progress are one, whoever dies, comes second or is too large."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import random
import uuid
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRecord, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete
from aiokafka.errors import KafkaError, MessageSizeTooLargeError, ProducerFenced
from aiokafka.structs import OffsetAndMetadata

from stream_fp.config import Settings
from stream_fp.errors import OffsetLostError
from stream_fp.kafka.clients import new_admin, new_consumer
from stream_fp.kafka.offsets import committed_offset
from stream_fp.kafka.progress import Progress, StartingPoint, find_starting_point
from stream_fp.kafka.publisher import TOO_LARGE, Publisher
from stream_fp.kafka.told import last_told
from stream_fp.messages import encode_prediction
from stream_fp.outcomes import DeadLetter, Outcome, Published
from tests.conftest import TopicFactory
from tests.support.builders import make_prediction

FINGERPRINT = "0123456789abcdef"
#: Of the topics whose limit is tested; below it lies what a dead letter may always have.
SMALL_LIMIT = 200_000
ERROR_HEADERS = ("topic", "partition", "offset", "stage", "class", "message")

Read = Callable[[str, str], Any]


@dataclass(kw_only=True)
class Desk:
    """One input partition with its group and topics, and who works on it."""

    settings: Settings
    partition: TopicPartition
    consumer: AIOKafkaConsumer
    admin: AIOKafkaAdminClient
    n_output_partitions: int = 3
    publishers: list[Publisher] = field(default_factory=list)

    def publisher(self, *, n_refused: int = 0) -> Publisher:
        publisher = Publisher(
            self.settings, self.partition, n_output_partitions=self.n_output_partitions, consumer=self.consumer,
            n_refused=n_refused,
        )  # fmt: skip
        self.publishers.append(publisher)
        return publisher

    async def started(self, *, n_refused: int = 0) -> Publisher:
        publisher = self.publisher(n_refused=n_refused)
        await publisher.start()
        return publisher

    async def starting_point(self, *, start_from: str = "earliest", offset_lost: str = "fail") -> StartingPoint:
        return await find_starting_point(
            self.consumer, self.admin, group_id=self.settings.group_id, partition=self.partition,
            start_from=start_from, offset_lost=offset_lost, last_told=self.last_told,
        )  # fmt: skip

    async def last_told(self) -> int | None:
        return await last_told(self.settings, self.partition, n_output_partitions=self.n_output_partitions)

    async def point_after_filling(self, n_records: int = 50) -> StartingPoint:
        """Return the starting point, once the partition has as many records as a progress of these tests may name."""
        end = (await self.consumer.end_offsets([self.partition]))[self.partition]
        async with AIOKafkaProducer(bootstrap_servers=self.settings.bootstrap_servers) as producer:
            for _ in range(end, n_records):
                await producer.send(self.partition.topic, b"{filler", partition=self.partition.partition)
        return await self.starting_point()

    async def settle(self) -> None:
        """Wait for the end of the last transaction, as the next owner of the partition does; fences the others."""
        publisher = await self.started()
        await publisher.aclose()

    async def read(self, topic: str, isolation_level: str = "read_committed") -> list[ConsumerRecord]:
        return await read_to_end(self.settings.bootstrap_servers, topic, isolation_level)

    async def predictions(self) -> list[bytes]:
        return [record.value for record in await self.read(self.settings.output_topic)]

    async def dead_letters(self) -> list[ConsumerRecord]:
        return await self.read(self.settings.dead_letter_topic)

    async def record(self, value: bytes | None = b"{broken", **fields: Any) -> ConsumerRecord:  # noqa: ANN401 - of `send`
        """Put a record on the input partition and return it as the service meets it."""
        async with AIOKafkaProducer(
            bootstrap_servers=self.settings.bootstrap_servers, max_request_size=4 * 2**20
        ) as producer:
            sent = await producer.send_and_wait(
                self.partition.topic, value, partition=self.partition.partition, **{"key": b"session", **fields}
            )
        records = await self.read(self.partition.topic)
        return next(r for r in records if (r.partition, r.offset) == (self.partition.partition, sent.offset))


@contextlib.asynccontextmanager
async def open_desk(settings: Settings, partition: int) -> AsyncIterator[Desk]:
    source = TopicPartition(settings.input_topic, partition)
    async with contextlib.AsyncExitStack() as stack:
        consumer, admin = new_consumer(settings), new_admin(settings)
        stack.push_async_callback(consumer.stop)
        stack.push_async_callback(admin.close)
        await admin.start()
        await consumer.start()
        consumer.assign([source])
        consumer.seek(source, 0)
        consumer.pause(source)
        desk = Desk(settings=settings, partition=source, consumer=consumer, admin=admin)
        try:
            yield desk
        finally:
            for publisher in desk.publishers:
                with contextlib.suppress(KafkaError):
                    await publisher.aclose()


@pytest.fixture
async def settings(broker: str, topic_factory: TopicFactory) -> Settings:
    return Settings(
        bootstrap_servers=broker,
        group_id=f"group-{uuid.uuid4().hex[:12]}",
        input_topic=await topic_factory(3, prefix="input", settings={"max.message.bytes": str(4 * 2**20)}),
        output_topic=await topic_factory(3, prefix="output", settings={"max.message.bytes": str(SMALL_LIMIT)}),
        dead_letter_topic=await topic_factory(3, prefix="dlq", settings={"max.message.bytes": str(SMALL_LIMIT)}),
    )


@pytest.fixture
async def desk(settings: Settings) -> AsyncIterator[Desk]:
    async with open_desk(settings, partition=1) as desk:
        yield desk


@pytest.fixture
async def at_least_once_desk(settings: Settings) -> AsyncIterator[Desk]:
    async with open_desk(msgspec.structs.replace(settings, delivery="at-least-once"), partition=1) as desk:
        yield desk


def prediction(record: ConsumerRecord, session_id: str = "NY_AM_2025-07-29", *, notes: Sequence[str] = ()) -> Published:
    return Published(
        record=record,
        key=session_id.encode(),
        prediction=make_prediction(session_id=session_id, notes=notes),
        extraction_ns=0,
        classification_ns=0,
    )


def dead_letter(record: ConsumerRecord, message: str = "expected JSON, got `{broken`") -> DeadLetter:
    return DeadLetter(record=record, stage="decode", error_class="RecordDecodeError", message=message)


def progress(published: int, watermark_us: int | None = 1_753_799_700_000_000) -> Progress:
    return Progress(published=published, watermark_us=watermark_us, fingerprint=FINGERPRINT)


def point(low_offset: int, note: Progress) -> StartingPoint:
    return StartingPoint(
        low_offset=low_offset,
        published_offset=note.published,
        watermark_us=note.watermark_us,
        fingerprint=note.fingerprint,
    )


def noise(n_bytes: int) -> bytes:
    """Return bytes that no compression makes smaller."""
    return random.Random(n_bytes).randbytes(n_bytes)


def values(outcomes: Iterable[Published]) -> list[bytes]:
    return [encode_prediction(outcome.prediction) for outcome in outcomes]


async def read_to_end(broker: str, topic: str, isolation_level: str) -> list[ConsumerRecord]:
    """Read all partitions of a topic, past the markers that end each transaction."""
    async with AIOKafkaConsumer(
        topic,
        bootstrap_servers=broker,
        isolation_level=isolation_level,
        auto_offset_reset="earliest",
        max_partition_fetch_bytes=8 * 2**20,
    ) as consumer:
        ends = await consumer.end_offsets(list(consumer.assignment()))
        found: list[ConsumerRecord] = []
        while any([await consumer.position(partition) < end for partition, end in ends.items()]):
            for records in (await consumer.getmany(timeout_ms=100)).values():
                found += records
    return sorted(found, key=lambda record: (record.partition, record.offset))


# ----------------------------------------------------------------------------------------------------- all or nothing


async def test_outcomes_offset_and_progress_of_a_publish_are_there_together(desk: Desk) -> None:
    record = await desk.record()
    made = [prediction(record, "A_2025-07-29"), prediction(record, "B_2025-07-29")]
    note = progress(record.offset + 1)
    publisher = await desk.started()

    await publisher.publish([made[0], dead_letter(record), made[1]], low_offset=0, progress=note)

    await desk.settle()
    assert await desk.predictions() == values(made)
    assert [letter.value for letter in await desk.dead_letters()] == [b"{broken"]
    assert await desk.point_after_filling() == point(0, note)


async def test_transaction_left_open_shows_nothing_and_its_successor_ends_it(desk: Desk) -> None:
    record = await desk.record()
    made = prediction(record)
    first = await desk.started()
    await first.publish([], low_offset=0, progress=progress(1))
    # What `publish` does, up to where the process dies.
    producer = first._producer
    assert producer is not None
    await producer.begin_transaction()
    offsets = {desk.partition: OffsetAndMetadata(5, progress(6).encode())}
    await producer.send_offsets_to_transaction(offsets, desk.settings.group_id)
    await producer.send_and_wait(**first._to_record(made, b"now"))
    assert [r.value for r in await desk.read(desk.settings.output_topic, "read_uncommitted")] == values([made])
    assert await desk.predictions() == []

    second = await desk.started()

    assert await desk.point_after_filling() == point(0, progress(1))
    await second.publish([made], low_offset=5, progress=progress(6))
    await desk.settle()
    assert await desk.predictions() == values([made])
    assert await desk.point_after_filling() == point(5, progress(6))


async def test_prediction_that_the_broker_refuses_takes_all_of_its_publish_with_it(desk: Desk) -> None:
    record = await desk.record()
    publisher = await desk.started()
    await publisher.publish([], low_offset=0, progress=progress(1))
    too_large = prediction(record, "large_2025-07-29", notes=[noise(SMALL_LIMIT).hex()])

    with pytest.raises(MessageSizeTooLargeError):
        await publisher.publish([prediction(record), dead_letter(record), too_large], 5, progress(6))

    await desk.settle()
    assert await desk.predictions() == []
    assert await desk.dead_letters() == []
    assert await desk.point_after_filling() == point(0, progress(1))


async def test_many_publishes_keep_their_order(desk: Desk) -> None:
    record = await desk.record()
    made = [prediction(record, f"S{i:02}_2025-07-29") for i in range(40)]
    publisher = await desk.started()
    for i in range(0, 40, 4):
        await publisher.publish(made[i : i + 4], low_offset=i, progress=progress(i + 4))
    await desk.settle()
    assert await desk.predictions() == values(made)
    assert await desk.point_after_filling() == point(36, progress(40))


async def test_publish_without_outcomes_moves_the_progress(desk: Desk) -> None:
    for low, note in ((0, progress(3, None)), (3, progress(9)), (3, progress(50, -5))):
        publisher = await desk.started()
        await publisher.publish([], low_offset=low, progress=note)
        await desk.settle()
        assert await desk.point_after_filling() == point(low, note)
    assert await desk.predictions() == []


# ---------------------------------------------------------------------------------------------------------- one owner


async def test_second_start_fences_the_first(desk: Desk) -> None:
    record = await desk.record()
    made = [prediction(record, "A_2025-07-29"), prediction(record, "B_2025-07-29")]
    first = await desk.started()
    await first.publish(made[:1], low_offset=0, progress=progress(1))

    second = await desk.started()

    with pytest.raises(ProducerFenced):
        await first.publish(made, low_offset=7, progress=progress(8))
    assert await desk.point_after_filling() == point(0, progress(1))
    await second.publish(made[1:], low_offset=1, progress=progress(2))
    await desk.settle()
    assert await desk.predictions() == values(made)
    assert await desk.point_after_filling() == point(1, progress(2))


async def test_fenced_publisher_closes_and_starts_again_as_the_owner(desk: Desk) -> None:
    first, second = await desk.started(), await desk.started()
    with pytest.raises(ProducerFenced):
        await first.publish([], low_offset=7, progress=progress(8))
    await first.aclose()
    await first.start()
    with pytest.raises(ProducerFenced):
        await second.publish([], low_offset=7, progress=progress(8))
    await first.publish([], low_offset=1, progress=progress(2))
    await desk.settle()
    assert await desk.point_after_filling() == point(1, progress(2))


async def test_owners_of_other_partitions_and_groups_are_not_fenced(desk: Desk, settings: Settings) -> None:
    mine = await desk.started()
    other_group = msgspec.structs.replace(settings, group_id=f"{settings.group_id}-b")
    async with open_desk(settings, partition=2) as beside, open_desk(other_group, partition=1) as elsewhere:
        owners = [mine, await beside.started(), await elsewhere.started()]
        assert len({owner.transactional_id for owner in owners}) == 3
        for i, owner in enumerate(owners):
            await owner.publish([], low_offset=i, progress=progress(i + 10))
        for i, one in enumerate((desk, beside, elsewhere)):
            await one.settle()
            assert await one.point_after_filling() == point(i, progress(i + 10))


async def test_publisher_that_is_not_started_or_is_closed_publishes_nothing(desk: Desk) -> None:
    publisher = desk.publisher()
    with pytest.raises(RuntimeError, match="expected a started publisher"):
        await publisher.publish([], 0, progress(1))
    await publisher.aclose()
    await publisher.start()
    await publisher.aclose()
    await publisher.aclose()
    with pytest.raises(RuntimeError, match="expected a started publisher"):
        await publisher.publish([], 0, progress(1))


# ---------------------------------------------------------------------------------------------------------- the output


async def test_prediction_carries_its_key_its_value_and_where_it_came_from(desk: Desk) -> None:
    record = await desk.record()
    made = prediction(record, "Zürich_2025-07-29")
    publisher = await desk.started()
    await publisher.publish([made], 0, progress(1))
    await desk.settle()
    (found,) = await desk.read(desk.settings.output_topic)
    headers = dict(found.headers)
    assert found.key == "Zürich_2025-07-29".encode()
    assert found.value == encode_prediction(made.prediction)
    assert found.partition == desk.partition.partition
    assert headers["stream_fp.source"] == f"{desk.partition.topic}-1@{record.offset}".encode()
    assert headers["stream_fp.model_version"] == b"0.0.1"
    assert headers["stream_fp.processed_at"].startswith(b"20")


async def test_output_with_fewer_partitions_keeps_a_session_in_one(desk: Desk) -> None:
    record = await desk.record()
    desk.n_output_partitions = 1
    made = [prediction(record, f"S{i}_2025-07-29") for i in range(8)]
    publisher = await desk.started()
    await publisher.publish([*made, *made], 0, progress(1))
    await desk.settle()
    found = await desk.read(desk.settings.output_topic)
    assert len(found) == 16
    assert len({(r.key, r.partition) for r in found}) == 8
    assert len({r.partition for r in found}) > 1


# ------------------------------------------------------------------------------------------------------- dead letters


@pytest.mark.parametrize(
    ("key", "value", "headers"),
    [
        (b"session", b"{broken", [("trace", b"\x00\xff"), ("trace", b"again"), ("empty", b""), ("stream_fp.x", b"y")]),
        (None, b"\xff\xfe", []),
        (b"\xff", None, [("nothing", None)]),
        (b"", b"", []),
    ],
)
async def test_dead_letter_keeps_what_the_record_had_and_gets_its_error(
    desk: Desk, key: bytes | None, value: bytes | None, headers: list[tuple[str, bytes | None]]
) -> None:
    record = await desk.record(value, key=key, headers=headers, timestamp_ms=1_600_000_000_123)
    publisher = await desk.started()
    await publisher.publish([dead_letter(record, "expected `ä`, got nothing")], 0, progress(record.offset + 1))
    await desk.settle()
    (found,) = await desk.dead_letters()
    assert (found.key, found.value, found.timestamp) == (key, value, 1_600_000_000_123)
    assert list(found.headers[: len(headers)]) == headers
    assert found.headers[len(headers) :] == tuple(
        zip(
            (f"stream_fp.errors.{name}" for name in ERROR_HEADERS),
            (
                desk.partition.topic.encode(), b"1", str(record.offset).encode(), b"decode", b"RecordDecodeError",
                "expected `ä`, got nothing".encode(),
            ),
            strict=True,
        )
    )  # fmt: skip


async def test_long_reason_is_cut_and_half_a_surrogate_is_replaced(desk: Desk) -> None:
    record = await desk.record()
    publisher = await desk.started()
    await publisher.publish([dead_letter(record, "got \ud800" + "x" * 5_000)], 0, progress(1))
    await desk.settle()
    (found,) = await desk.dead_letters()
    assert dict(found.headers)["stream_fp.errors.message"] == b"got ?" + b"x" * 995


@pytest.mark.parametrize("who_refuses", ["the broker", "the client"])
async def test_dead_letter_too_large_to_publish_goes_without_its_value(desk: Desk, who_refuses: str) -> None:
    size = SMALL_LIMIT + 1_000
    record = await desk.record(noise(size), headers=[("trace", b"1")], timestamp_ms=1_600_000_000_123)
    small = await desk.record(b"{small")
    if who_refuses == "the client":
        desk.settings = msgspec.structs.replace(desk.settings, max_request_bytes=SMALL_LIMIT)
    made = prediction(record)
    outcomes: list[Outcome] = [made, dead_letter(record), dead_letter(small)]
    refused = await desk.started()
    with pytest.raises(TOO_LARGE):
        await refused.publish(outcomes, 0, progress(2))
    await refused.aclose()

    publisher = await desk.started(n_refused=2)
    await publisher.publish(outcomes, 0, progress(2))
    await publisher.publish([made, dead_letter(small)], 2, progress(3))

    await desk.settle()
    found = {letter.value: letter for letter in await desk.dead_letters()}
    omitted = found.pop(None)
    assert (omitted.key, omitted.timestamp) == (b"session", 1_600_000_000_123)
    headers = dict(omitted.headers)
    assert headers["trace"] == b"1"
    assert headers["stream_fp.errors.value_omitted_bytes"] == str(size).encode()
    assert headers["stream_fp.errors.offset"] == str(record.offset).encode()
    assert found.keys() == {b"{small"}
    assert "stream_fp.errors.value_omitted_bytes" not in dict(found[b"{small"].headers)
    assert len(await desk.dead_letters()) == 3
    assert await desk.predictions() == values([made, made])
    assert await desk.point_after_filling() == point(2, progress(3))


async def test_dead_letter_without_key_and_value_is_published_like_any_other(desk: Desk) -> None:
    record = await desk.record(b"{", key=None)
    empty = dataclasses.replace(record, value=None)
    publisher = await desk.started()
    await publisher.publish([dead_letter(empty)], 0, progress(1))
    await desk.settle()
    (found,) = await desk.dead_letters()
    assert (found.key, found.value) == (None, None)
    assert dict(found.headers)["stream_fp.errors.offset"] == str(record.offset).encode()


async def test_flood_of_dead_letters_goes_to_one_partition_in_its_order(
    desk: Desk, topic_factory: TopicFactory
) -> None:
    topic = await topic_factory(3, prefix="dlq")
    desk.settings = msgspec.structs.replace(desk.settings, dead_letter_topic=topic)
    record = await desk.record()
    flood = [dataclasses.replace(record, offset=n, value=b"{%d" % n, key=b"%d" % (n % 7)) for n in range(3_000)]
    made = prediction(record)
    publisher = await desk.started()
    await publisher.publish([*map(dead_letter, flood[:1_000]), made, *map(dead_letter, flood[1_000:])], 0, progress(1))
    await desk.settle()
    found = await desk.dead_letters()
    assert [letter.value for letter in found] == [one.value for one in flood]
    assert len({letter.partition for letter in found}) == 1
    assert await desk.predictions() == values([made])


async def test_flood_of_dead_letters_fits_a_topic_that_takes_less_than_a_batch(
    desk: Desk, topic_factory: TopicFactory
) -> None:
    limit = 10_000
    topic = await topic_factory(3, prefix="dlq", settings={"max.message.bytes": str(limit)})
    desk.settings = msgspec.structs.replace(desk.settings, dead_letter_topic=topic)
    record = await desk.record()
    flood = [dataclasses.replace(record, offset=n, value=noise(900)) for n in range(200)]
    outcomes: list[Outcome] = [prediction(record), *map(dead_letter, flood)]
    refused = await desk.started()
    with pytest.raises(TOO_LARGE):
        await refused.publish(outcomes, 0, progress(1))
    assert refused.has_refused_dead_letter
    await refused.aclose()
    publisher = await desk.started(n_refused=2)
    await publisher.publish(outcomes, 0, progress(1))
    await desk.settle()
    assert [letter.value for letter in await desk.dead_letters()] == [one.value for one in flood]


async def test_prediction_too_large_says_nothing_of_the_dead_letters(desk: Desk) -> None:
    record = await desk.record()
    too_large = prediction(record, "large_2025-07-29", notes=[noise(SMALL_LIMIT).hex()])
    publisher = await desk.started()
    with pytest.raises(TOO_LARGE):
        await publisher.publish([too_large, dead_letter(record)], 0, progress(1))
    assert not publisher.has_refused_dead_letter


async def test_dead_letter_too_large_by_its_key_and_headers_goes_without_them(desk: Desk) -> None:
    size = SMALL_LIMIT + 1_000
    by_key = await desk.record(b"{key", key=noise(size))
    by_headers = await desk.record(b"{headers", headers=[("much", noise(size)), ("null", None)])
    small = await desk.record(b"{small", headers=[("trace", b"1")])
    outcomes: list[Outcome] = [dead_letter(record) for record in (by_key, by_headers, small)]
    for n_refused in range(3):
        publisher = await desk.started(n_refused=n_refused)
        with pytest.raises(TOO_LARGE):
            await publisher.publish(outcomes, 0, progress(3))
        await publisher.aclose()
    publisher = await desk.started(n_refused=3)
    await publisher.publish(outcomes, 0, progress(3))

    await desk.settle()
    found = {letter.value: letter for letter in await desk.dead_letters()}
    assert found.keys() == {b"{key", b"{headers", b"{small"}
    assert found[b"{key"].key is None
    assert dict(found[b"{key"].headers)["stream_fp.errors.key_omitted_bytes"] == str(size).encode()
    headers = dict(found[b"{headers"].headers)
    assert "much" not in headers
    assert headers["stream_fp.errors.headers_omitted_bytes"] == str(size + len("much") + len("null")).encode()
    assert headers["stream_fp.errors.offset"] == str(by_headers.offset).encode()
    kept = found[b"{small"]
    assert (kept.key, dict(kept.headers)["trace"]) == (b"session", b"1")
    assert not [name for name, _ in kept.headers if name.endswith("omitted_bytes")]


async def test_large_dead_letter_that_the_topic_takes_keeps_its_value(desk: Desk) -> None:
    record = await desk.record(noise(SMALL_LIMIT - 5_000))
    publisher = await desk.started()
    await publisher.publish([dead_letter(record)], 0, progress(1))
    await desk.settle()
    (found,) = await desk.dead_letters()
    assert found.value == record.value


# ------------------------------------------------------------------------------------------------------- at least once


async def test_at_least_once_outcomes_are_there_and_the_consumer_commits(at_least_once_desk: Desk) -> None:
    desk = at_least_once_desk
    record = await desk.record()
    made = prediction(record)
    publisher = await desk.started()
    await publisher.publish([made, dead_letter(record)], low_offset=0, progress=progress(1))
    # No transaction, so nothing to wait for.
    assert await desk.predictions() == values([made])
    assert [letter.value for letter in await desk.dead_letters()] == [b"{broken"]
    assert await desk.point_after_filling() == point(0, progress(1))
    assert await desk.consumer.committed(desk.partition) == 0


async def test_at_least_once_failure_leaves_the_progress_where_it_was(at_least_once_desk: Desk) -> None:
    desk = at_least_once_desk
    record = await desk.record()
    publisher = await desk.started()
    await publisher.publish([], low_offset=0, progress=progress(1))
    too_large = prediction(record, "large_2025-07-29", notes=[noise(SMALL_LIMIT).hex()])
    with pytest.raises(MessageSizeTooLargeError):
        await publisher.publish([too_large], low_offset=5, progress=progress(6))
    assert await desk.point_after_filling() == point(0, progress(1))


async def test_at_least_once_dead_letter_too_large_goes_without_its_value(at_least_once_desk: Desk) -> None:
    desk = at_least_once_desk
    record = await desk.record(noise(SMALL_LIMIT + 1_000))
    publisher = await desk.started(n_refused=2)
    await publisher.publish([dead_letter(record)], low_offset=0, progress=progress(1))
    (found,) = await desk.dead_letters()
    assert found.value is None
    assert "stream_fp.errors.value_omitted_bytes" in dict(found.headers)
    assert await desk.point_after_filling() == point(0, progress(1))


async def test_at_least_once_second_publisher_does_not_harm_the_first(at_least_once_desk: Desk) -> None:
    first, second = await at_least_once_desk.started(), await at_least_once_desk.started()
    outcomes: list[Outcome] = []
    await first.publish(outcomes, low_offset=0, progress=progress(1))
    await second.publish(outcomes, low_offset=1, progress=progress(2))
    await first.publish(outcomes, low_offset=2, progress=progress(3))
    assert await at_least_once_desk.point_after_filling() == point(2, progress(3))


# --------------------------------------------------------------------------------------------------- where one begins


async def test_group_that_never_committed_begins_at_the_edge_it_was_told(desk: Desk) -> None:
    for _ in range(3):
        await desk.record()
    for start_from, offset in (("earliest", 0), ("latest", 3)):
        assert await desk.starting_point(start_from=start_from) == StartingPoint(
            low_offset=offset, published_offset=offset, watermark_us=None, fingerprint=None, is_new=True
        )


async def test_committed_offset_of_zero_is_a_commit(desk: Desk) -> None:
    await desk.record()
    publisher = await desk.started()
    await publisher.publish([], low_offset=0, progress=progress(1))
    await desk.settle()
    assert await desk.starting_point(start_from="latest") == point(0, progress(1))


@pytest.mark.parametrize("metadata", ["", "somebody else's", '{"published": "many"}'])
async def test_commit_of_somebody_else_is_taken_as_it_stands(desk: Desk, metadata: str) -> None:
    for _ in range(3):
        await desk.record()
    await desk.consumer.commit({desk.partition: OffsetAndMetadata(2, metadata)})
    assert await desk.starting_point() == StartingPoint(
        low_offset=2, published_offset=2, watermark_us=None, fingerprint=None
    )


@pytest.mark.parametrize(
    ("offset_lost", "published", "low_offset", "published_offset"),
    [("earliest", 4, 3, 4), ("earliest", 2, 3, 3), ("latest", 4, 5, 5)],
)
async def test_lost_offset_goes_on_where_the_settings_say_and_repeats_nothing(
    desk: Desk, offset_lost: str, published: int, low_offset: int, published_offset: int
) -> None:
    await lose_the_first_three_of_five(desk, published)
    assert await desk.starting_point(offset_lost=offset_lost) == StartingPoint(
        low_offset=low_offset, published_offset=published_offset, watermark_us=None, fingerprint=None, is_new=True
    )


async def test_lost_offset_is_refused_with_both_offsets_where_nothing_is_said(desk: Desk) -> None:
    await lose_the_first_three_of_five(desk, published=4)
    with pytest.raises(OffsetLostError, match=r"\[1\]: the committed offset 1 is gone, the oldest record kept is 3"):
        await desk.starting_point(offset_lost="fail")


async def lose_the_first_three_of_five(desk: Desk, published: int) -> None:
    """Commit offset 1 and delete the records below 3, as retention does."""
    for _ in range(5):
        await desk.record()
    publisher = await desk.started()
    await publisher.publish([], low_offset=1, progress=progress(published))
    await desk.settle()
    await desk.admin.delete_records({desk.partition: RecordsToDelete(before_offset=3)})


@pytest.mark.parametrize(("offset_lost", "low_offset"), [("earliest", 0), ("latest", 2)])
async def test_topic_made_anew_goes_on_where_the_settings_say(desk: Desk, offset_lost: str, low_offset: int) -> None:
    await lose_all_above_two(desk)
    with pytest.raises(OffsetLostError, match="published up to offset 9, but the partition ends at 2"):
        await desk.starting_point()
    assert await desk.starting_point(offset_lost=offset_lost) == StartingPoint(
        low_offset=low_offset, published_offset=low_offset, watermark_us=None, fingerprint=None, is_new=True
    )


async def test_partition_whose_records_were_all_published_and_are_all_gone_goes_on(desk: Desk) -> None:
    for _ in range(3):
        await desk.record()
    publisher = await desk.started()
    await publisher.publish([], low_offset=1, progress=progress(3))
    await desk.settle()
    await desk.admin.delete_records({desk.partition: RecordsToDelete(before_offset=3)})
    found = await desk.starting_point()
    assert (found.low_offset, found.published_offset, found.is_new) == (3, 3, True)
    assert found.watermark_us == progress(3).watermark_us


async def lose_all_above_two(desk: Desk) -> None:
    """Commit what a topic of the same name had before it was deleted and made anew."""
    for _ in range(2):
        await desk.record()
    publisher = await desk.started()
    await publisher.publish([], low_offset=7, progress=progress(9))
    await desk.settle()


async def test_committed_offset_is_not_read_while_a_transaction_is_about_to_replace_it(desk: Desk) -> None:
    """What the coordinator has in memory may be older than what the transaction's end made valid."""
    await desk.record()
    first = await desk.started()
    await first.publish([], low_offset=0, progress=progress(1))
    producer = first._producer
    assert producer is not None
    await producer.begin_transaction()
    await producer.send_offsets_to_transaction(
        {desk.partition: OffsetAndMetadata(1, progress(2).encode())}, desk.settings.group_id
    )
    asked = asyncio.create_task(committed_offset(desk.admin, desk.settings.group_id, desk.partition, stable=True))
    plain = await committed_offset(desk.admin, desk.settings.group_id, desk.partition, stable=False)
    await asyncio.sleep(1.0)
    assert not asked.done()
    await producer.commit_transaction()
    assert (await asyncio.wait_for(asked, 5)).offset == 1
    assert plain.offset == 0
