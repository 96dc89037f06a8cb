"""Predictions of a replay to a topic: all of them in one transaction, so that a reader sees all or none.

Only where a topic was named for it. Key, value and partition are those that the live service would have used.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import msgspec
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from stream_fp.config import Settings
from stream_fp.errors import ServiceError
from stream_fp.kafka.clients import close_within, new_admin, new_producer
from stream_fp.kafka.history import Span, TopicHistory
from stream_fp.kafka.topics import ensure_topic, topic_layouts
from stream_fp.replay.parts import lines_path
from stream_fp.replay.plan import Part

__all__ = ["STAMP_HEADER", "publish_predictions"]

#: Of the transaction: brokers allow 15 minutes by default.
_TIMEOUT_S: Final = 900.0
#: Records on their way at once.
_IN_FLIGHT: Final = 1_000
_CLOSE_S: Final = 5.0
STAMP_HEADER: Final = "stream_fp.replay"
#: Of each partition, where others may have written since.
_LOOKED_AT: Final = 1_000


class _Identity(msgspec.Struct):
    session_id: str


_decode_identity: Final = msgspec.json.Decoder(_Identity).decode


async def publish_predictions(
    settings: Settings,
    parts: Sequence[Part],
    folder: Path,
    topic: str,
    inputs: Sequence[str],
    *,
    stamp: str,
    unless_there: bool,
) -> int:
    """Publish what the parts of the first variant hold; return how many predictions that is.

    Parameters
    ----------
    settings : Settings
    parts : sequence of Part
    folder : Path
    topic : str
        Made where it is missing, like the (first) input topic if there is one.
    inputs : sequence of str
        Topics that were replayed.
    stamp : str
        Of the replay; it travels in a header of every record.
    unless_there : bool
        Whether to look first if the last records of the topic have that stamp, and publish nothing then.

    Raises
    ------
    ServiceError
        When the brokers do not take them; then no reader sees any.
    """
    transaction_settings = msgspec.structs.replace(settings, transaction_timeout_s=_TIMEOUT_S)
    admin = new_admin(settings)
    producer = new_producer(transaction_settings, f"{settings.group_id}-replay-{topic}", compress=True)
    n_sent = 0
    headers = [(STAMP_HEADER, stamp.encode())]
    try:
        await admin.start()
        n_partitions = await ensure_topic(
            admin, topic, like=inputs[0], setting="output_topic", create=settings.create_topics
        )
        if unless_there and await _is_there(settings, topic, stamp):
            return 0
        n_inputs, _ = (await topic_layouts(admin)).get(inputs[0], (1, 1))
        await producer.start()
        async with producer.transaction():
            for part in parts:
                alike = len(inputs) == 1 and part.range is not None and n_partitions >= n_inputs
                partition = part.range.partition.partition if alike and part.range is not None else None
                n_sent += await _send(producer, topic, partition, _batches(folder, part), headers)
    except (KafkaError, OSError) as error:
        raise ServiceError(f"publishing predictions to `{topic}`: {error or type(error).__name__}") from error
    finally:
        await close_within(producer.stop, _CLOSE_S)
        await close_within(admin.close, _CLOSE_S)
    return n_sent


async def _is_there(settings: Settings, topic: str, stamp: str) -> bool:
    """Whether the last records of any partition have a stamp; in one transaction, all came or none."""
    async with TopicHistory(settings) as history:
        for found in await history.ranges([topic]):
            first = max(found.first, found.end - _LOOKED_AT)
            async for records in history.read(Span(partition=found.partition, first=first, end=found.end)):
                if any((STAMP_HEADER, stamp.encode()) in record.headers for record in records):
                    return True
    return False


async def _send(
    producer: AIOKafkaProducer,
    topic: str,
    partition: int | None,
    batches: Iterator[list[bytes]],
    headers: list[tuple[str, bytes]],
) -> int:
    n_sent = 0
    while values := await asyncio.to_thread(next, batches, None):
        keys = [_decode_identity(value).session_id.encode("utf-8", "surrogatepass") for value in values]
        sent = [
            await producer.send(topic, key=key, value=value, partition=partition, headers=headers)
            for key, value in zip(keys, values, strict=True)
        ]
        await asyncio.gather(*sent)
        n_sent += len(values)
    return n_sent


def _batches(folder: Path, part: Part) -> Iterator[list[bytes]]:
    with lines_path(folder, part.number, 0, "predictions").open("rb") as lines:
        while batch := [line.rstrip(b"\n") for line in itertools.islice(lines, _IN_FLIGHT)]:
            yield batch
