"""A consumer that only calls `getmany` and does nothing with the records: the limit of the Kafka client.

Reads one partition from its beginning to an offset, and prints as JSON, every 5,000 records: the offset reached, the
time (`time.perf_counter_ns`) and the processor time of the process in seconds. A process of its own, as the service is.

    python -m benchmarks.bare_consumer SERVERS TOPIC END_OFFSET
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import Final

from aiokafka import AIOKafkaConsumer, TopicPartition

#: With all that was prefetched at once it takes 0.74 of the speed.
_MAX_RECORDS: Final = 500
_MARK_EVERY: Final = 5_000


async def _read(servers: str, topic: str, end: int) -> list[tuple[int, int, float]]:
    partition = TopicPartition(topic, 0)
    # As the service has it, but for what only a group needs.
    consumer = AIOKafkaConsumer(
        bootstrap_servers=servers, enable_auto_commit=False, isolation_level="read_committed", auto_offset_reset="none"
    )
    await consumer.start()
    marks, position = [(0, time.perf_counter_ns(), time.process_time())], 0
    try:
        consumer.assign([partition])
        consumer.seek(partition, 0)
        while position < end:
            for records in (await consumer.getmany(timeout_ms=1000, max_records=_MAX_RECORDS)).values():
                position = records[-1].offset + 1
            if position - marks[-1][0] >= _MARK_EVERY or position >= end:
                marks.append((position, time.perf_counter_ns(), time.process_time()))
    finally:
        await consumer.stop()
    return marks


if __name__ == "__main__":
    sys.stdout.write(json.dumps(asyncio.run(_read(sys.argv[1], sys.argv[2], int(sys.argv[3])))))
