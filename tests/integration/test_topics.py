"""The topics before the start: two are created where they are missing, the input topic never."""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import UnknownTopicOrPartitionError

from stream_fp.config import Settings
from stream_fp.errors import TopicMissingError
from stream_fp.kafka.clients import new_admin, new_producer
from stream_fp.kafka.embedded import embedded_broker
from stream_fp.kafka.topics import ensure_topics
from tests.conftest import TopicFactory

N_PARTITIONS = 3


@pytest.fixture
async def admin(broker: str) -> AsyncIterator[AIOKafkaAdminClient]:
    admin = new_admin(Settings(bootstrap_servers=broker))
    await admin.start()
    yield admin
    await admin.close()


@pytest.fixture
async def settings(broker: str, topic_factory: TopicFactory, admin: AIOKafkaAdminClient) -> AsyncIterator[Settings]:
    """Settings whose input topic exists and whose other two do not; what is created is deleted."""
    settings = with_new_names(Settings(bootstrap_servers=broker, input_topic=await topic_factory(N_PARTITIONS)))
    yield settings
    created = {settings.output_topic, settings.dead_letter_topic} & set(await admin.list_topics())
    if created:
        await admin.delete_topics(sorted(created))


def with_new_names(settings: Settings) -> Settings:
    suffix = uuid.uuid4().hex[:12]
    return msgspec.structs.replace(settings, output_topic=f"output-{suffix}", dead_letter_topic=f"dlq-{suffix}")


async def n_partitions(admin: AIOKafkaAdminClient, topic: str) -> int:
    """Ask until the topic has a leader everywhere: brokers hear of a new one a moment later."""
    async with asyncio.timeout(30):
        while True:
            (described,) = await admin.describe_topics([topic])
            partitions: list[dict[str, Any]] = described["partitions"]
            if partitions and all(partition["leader"] >= 0 for partition in partitions):
                return len(partitions)


async def config(admin: AIOKafkaAdminClient, topic: str, name: str) -> str:
    """Ask until the broker knows the topic, which may be a moment after it was created."""
    async with asyncio.timeout(30):
        while True:
            (response,) = await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, topic)])
            ((code, _, _, _, entries),) = response.resources
            if code != UnknownTopicOrPartitionError.errno:
                return next(str(entry[1]) for entry in entries if entry[0] == name)
            await asyncio.sleep(0.05)


async def test_missing_output_and_dead_letter_topic_are_created_with_the_partitions_of_the_input(
    admin: AIOKafkaAdminClient, settings: Settings
) -> None:
    found = await ensure_topics(admin, settings)
    for topic in (settings.input_topic, settings.output_topic, settings.dead_letter_topic):
        assert found[topic] == N_PARTITIONS
        assert await n_partitions(admin, topic) == N_PARTITIONS


async def test_created_dead_letter_topic_takes_the_largest_record_that_is_published(
    admin: AIOKafkaAdminClient, settings: Settings
) -> None:
    await ensure_topics(admin, settings)
    assert await config(admin, settings.dead_letter_topic, "max.message.bytes") == str(settings.max_request_bytes)
    await n_partitions(admin, settings.dead_letter_topic)
    async with new_producer(settings, None) as producer:
        # As much as the producer lets through, which is more than a broker takes by default.
        sent = await producer.send_and_wait(settings.dead_letter_topic, bytes(settings.max_request_bytes - 1_000))
    assert sent.topic == settings.dead_letter_topic


async def test_topics_that_exist_stay_as_they_are(
    admin: AIOKafkaAdminClient, settings: Settings, topic_factory: TopicFactory
) -> None:
    output = await topic_factory(1, settings={"max.message.bytes": "5000"})
    dead_letters = await topic_factory(2, settings={"max.message.bytes": "6000"})
    given = msgspec.structs.replace(settings, output_topic=output, dead_letter_topic=dead_letters)
    for _ in range(2):
        found = await ensure_topics(admin, given)
        assert (found[output], found[dead_letters]) == (1, 2)
    assert await config(admin, output, "max.message.bytes") == "5000"
    assert await config(admin, dead_letters, "max.message.bytes") == "6000"


async def test_second_call_finds_what_the_first_created(admin: AIOKafkaAdminClient, settings: Settings) -> None:
    await ensure_topics(admin, settings)
    for topic in (settings.output_topic, settings.dead_letter_topic):
        await n_partitions(admin, topic)
    never = msgspec.structs.replace(settings, create_topics=False)
    assert (await ensure_topics(admin, never))[settings.output_topic] == N_PARTITIONS


async def test_services_that_start_together_do_not_trip_over_each_other(
    admin: AIOKafkaAdminClient, settings: Settings
) -> None:
    results = await asyncio.gather(*(ensure_topics(admin, settings) for _ in range(5)))
    assert {result[settings.output_topic] for result in results} == {N_PARTITIONS}
    assert await n_partitions(admin, settings.output_topic) == N_PARTITIONS


@pytest.mark.parametrize("missing", ["output_topic", "dead_letter_topic"])
async def test_missing_topic_that_may_not_be_created_is_an_error_that_names_the_setting(
    admin: AIOKafkaAdminClient, settings: Settings, topic_factory: TopicFactory, missing: str
) -> None:
    other = {"output_topic": "dead_letter_topic", "dead_letter_topic": "output_topic"}[missing]
    given = msgspec.structs.replace(settings, create_topics=False, **{other: await topic_factory()})
    topic = getattr(given, missing)
    with pytest.raises(TopicMissingError, match=f"topic `{topic}` does not exist .* setting `{missing}`"):
        await ensure_topics(admin, given)
    assert topic not in await admin.list_topics()


async def test_missing_input_topic_is_an_error_and_nothing_is_created(
    admin: AIOKafkaAdminClient, settings: Settings
) -> None:
    given = msgspec.structs.replace(settings, input_topic=f"mistyped-{uuid.uuid4().hex[:12]}")
    with pytest.raises(TopicMissingError, match=f"topic `{given.input_topic}` .* setting `input_topic`"):
        await ensure_topics(admin, given)
    assert not {given.input_topic, given.output_topic, given.dead_letter_topic} & set(await admin.list_topics())


async def test_missing_input_topic_is_not_created_by_a_broker_that_creates_what_it_is_asked_for() -> None:
    with embedded_broker("other") as address:
        settings = Settings(bootstrap_servers=address, input_topic="mistyped")
        async with contextlib.AsyncExitStack() as stack:
            admin = new_admin(settings)
            stack.push_async_callback(admin.close)
            await admin.start()
            with pytest.raises(TopicMissingError, match="mistyped"):
                await ensure_topics(admin, settings)
            assert await admin.list_topics() == ["other"]
            # That it is such a broker: asked by name, it creates.
            async with AIOKafkaProducer(bootstrap_servers=address) as producer:
                assert await producer.partitions_for("asked-for")
            assert "asked-for" in await admin.list_topics()
