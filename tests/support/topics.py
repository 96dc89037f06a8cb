"""Whole topics for tests: fill them, read them to the end, and wait for a service that works through them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRecord

from tests.support.service import ServiceProcess

__all__ = ["LARGE", "Keyed", "consumed", "consumed_up_to_end", "publish_all", "read_all"]

Keyed = tuple[bytes | None, bytes | None]

#: Bytes of the largest record of any test.
LARGE = 4 * 2**20


async def publish_all(broker: str, topic: str, records: Iterable[Keyed]) -> None:
    """Publish records in order; those of one key keep it."""
    async with AIOKafkaProducer(bootstrap_servers=broker, max_request_size=LARGE) as producer:
        sent = [await producer.send(topic, key=key, value=value) for key, value in records]
        await asyncio.gather(*sent)


async def read_all(broker: str, topic: str) -> list[ConsumerRecord]:
    """Read a topic up to its end, committed records only."""
    consumer = AIOKafkaConsumer(
        topic, bootstrap_servers=broker, auto_offset_reset="earliest", isolation_level="read_committed",
        max_partition_fetch_bytes=LARGE,
    )  # fmt: skip
    await consumer.start()
    found: list[ConsumerRecord] = []
    try:
        partitions = list(consumer.assignment())
        ends = await consumer.end_offsets(partitions)
        while any([await consumer.position(p) < ends[p] for p in partitions]):
            for records in (await consumer.getmany(timeout_ms=200)).values():
                found += records
    finally:
        await consumer.stop()
    return found


async def consumed(service: ServiceProcess, n_records: int) -> None:
    """Wait until the service has accounted for so many records."""
    async with asyncio.timeout(30):
        while await service.total("stream_fp_records_consumed_total") < n_records:
            await asyncio.sleep(0.05)


async def consumed_up_to_end(service: ServiceProcess, timeout_s: float = 30.0) -> None:
    """Wait until every partition that the service owns has been read up to its end, and that is committed."""
    async with asyncio.timeout(timeout_s):
        quiet = 0
        while quiet < 3:
            samples = await service.metrics()
            lags = [value for (name, _), value in samples.items() if name == "stream_fp_position_lag_records"]
            owned = samples["stream_fp_assigned_partitions", frozenset()]
            quiet = quiet + 1 if len(lags) == owned > 0 and sum(lags) == 0 else 0
            await asyncio.sleep(0.1)
