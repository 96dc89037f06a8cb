"""Records on their way to the topic of a rehearsal.

At the edge, behind `stream_fp.replay.player`. Records of a partition keep their order; a batch that the brokers do not
take ends the rehearsal.
"""

from __future__ import annotations

import asyncio
import functools
from typing import Any, Final

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError
from aiokafka.partitioner import murmur2

from stream_fp.errors import ServiceError
from stream_fp.files import MAX_LINE_BYTES
from stream_fp.messages import Record
from stream_fp.replay.sources import Source

__all__ = ["Outbox", "wait_until_known"]

#: Keys whose partition is remembered: finding it takes 7 us.
_N_KEYS: Final = 2**16
#: Between two looks whether the producer knows a topic that was just created.
_LOOK_S: Final = 0.05


class Outbox:
    """Records on their way to the output topic, in batches; the `Sink` of a rehearsal.

    The client's own `send` keeps books of every record, which takes as long as all the rest.

    Parameters
    ----------
    producer : AIOKafkaProducer
        Started; idempotent.
    topic : str
    n_partitions : int
        Of the topic.
    by_number : bool
        Whether records keep the number of their partition.
    max_bytes : int
        Setting `max_request_bytes`.

    Attributes
    ----------
    n_delivered : int
        Records that the brokers have acknowledged.
    """

    def __init__(
        self, producer: AIOKafkaProducer, topic: str, n_partitions: int, *, by_number: bool, max_bytes: int
    ) -> None:
        self._producer = producer
        self._topic = topic
        self._n_partitions = n_partitions
        self._by_number = by_number
        self._max_bytes = max_bytes
        self._open: dict[int, Any] = {}
        self._under_way: set[asyncio.Future[Any]] = set()
        self._error: BaseException | None = None
        self._partition_of_key = functools.lru_cache(_N_KEYS)(self._hashed)
        self.n_delivered = 0

    async def add(self, record: Record, source: Source) -> None:
        """Put a record into its partition's batch; send that, where it is full.

        Raises
        ------
        ServiceError
            When the record is too large, or something could not be delivered.
        """
        key, value = record.key, record.value
        n_bytes = len(key or b"") + len(value or b"")
        if n_bytes > self._max_bytes or n_bytes > MAX_LINE_BYTES:
            raise ServiceError(
                f"{source.place(record)}: expected a record of at most {min(self._max_bytes, MAX_LINE_BYTES)} bytes "
                f"(setting `max_request_bytes`), got {n_bytes}"
            )
        if self._by_number:
            partition = source.partition
        else:
            partition = source.partition % self._n_partitions if key is None else self._partition_of_key(key)
        # Records of files have none.
        headers: list[tuple[str, bytes]] = getattr(record, "headers", [])
        batch = self._open.get(partition)
        if batch is None or batch.append(timestamp=None, key=key, value=value, headers=headers) is None:
            if batch is not None:
                await self._send(partition)
            batch = self._open[partition] = self._producer.create_batch()
            batch.append(timestamp=None, key=key, value=value, headers=headers)

    async def send(self) -> None:
        """Send what has been put into batches so far."""
        for partition in list(self._open):
            await self._send(partition)

    async def settle(self) -> None:
        """Send everything, and wait until it is delivered.

        Raises
        ------
        ServiceError
            When something was not.
        """
        await self.send()
        while self._under_way:
            await asyncio.wait(self._under_way)
        self._check()

    def _hashed(self, key: bytes) -> int:
        # As the client's default partitioner, and that of Java, find it.
        return int(murmur2(key) & 0x7FFFFFFF) % self._n_partitions

    async def _send(self, partition: int) -> None:
        self._check()
        batch = self._open[partition]
        n_records = batch.record_count()
        try:
            # Waits while the one before is not yet on its way. Who is stopped meanwhile still has the batch to send.
            delivery = await self._producer.send_batch(batch, self._topic, partition=partition)
        except KafkaError as error:
            raise self._broken(error) from error
        del self._open[partition]
        self._under_way.add(delivery)
        delivery.add_done_callback(functools.partial(self._delivered, n_records))

    def _delivered(self, n_records: int, delivery: asyncio.Future[Any]) -> None:
        self._under_way.discard(delivery)
        if delivery.cancelled():
            return
        error = delivery.exception()
        if error is None:
            self.n_delivered += n_records
        else:
            self._error = self._error or error

    def _check(self) -> None:
        if self._error is not None:
            raise self._broken(self._error) from self._error

    def _broken(self, error: BaseException) -> ServiceError:
        return ServiceError(f"publishing to topic `{self._topic}` ended after {self.n_delivered} records: {error!r}")


async def wait_until_known(producer: AIOKafkaProducer, topic: str, n_partitions: int, within_s: float) -> None:
    """Wait until the producer knows a topic that may have been created a moment ago."""
    try:
        async with asyncio.timeout(within_s):
            while len(await producer.partitions_for(topic)) < n_partitions:
                await producer.client.force_metadata_update()
                await asyncio.sleep(_LOOK_S)
    except TimeoutError as error:
        raise ServiceError(f"topic `{topic}`: its {n_partitions} partitions have no leaders yet") from error
