"""Publishes the stream of a chaos run, at a pace that follows the faults, whatever happens to the brokers.

Every record arrives at least once; one that is sent again is just one more of what real producers do. What counts for
the judge is what lies on the topic.
"""

from __future__ import annotations

import asyncio
import functools
import math
import time
from collections.abc import Sequence
from typing import Final

from confluent_kafka import Producer

from tests.chaos.stream import Keyed

__all__ = ["Feeder"]

_BURST_S: Final = 0.05
#: A producer that has delivered nothing for so long, with records under way, is replaced: librdkafka was seen to wait
#: for ever after a broker's restart in good order.
_STUCK_S: Final = 15.0


class Feeder:
    """Publishes records in order, up to `allowed` of them and `per_s` a second.

    Parameters
    ----------
    bootstrap_servers, topic : str
    records : sequence of (bytes or None, bytes)
    """

    def __init__(self, bootstrap_servers: str, topic: str, records: Sequence[Keyed]) -> None:
        self.allowed = 0.0
        self.per_s = 0.0
        self.n_sent = 0
        self.n_producers = 0
        self._topic = topic
        self._records = records
        self._under_way: dict[int, Keyed] = {}
        self._config = {
            "bootstrap.servers": bootstrap_servers,
            # In order without being idempotent.
            "max.in.flight.requests.per.connection": 1,
            "acks": "all",
            "linger.ms": 5,
            "message.timeout.ms": 300_000,
            "reconnect.backoff.max.ms": 1_000,
            "topic.metadata.refresh.interval.ms": 2_000,
            "log_level": 0,
        }
        self._producer = self._new_producer()
        self._moved_s = time.monotonic()

    @property
    def n_records(self) -> int:
        """Records in all."""
        return len(self._records)

    @property
    def n_under_way(self) -> int:
        """Records sent and not yet acknowledged."""
        return len(self._under_way)

    async def run(self) -> None:
        """Publish until every record has been acknowledged."""
        while self.n_sent < len(self._records) or self._under_way:
            until = min(int(self.allowed), self.n_sent + math.ceil(self.per_s * _BURST_S))
            for index in range(self.n_sent, until):
                self._under_way[index] = self._records[index]
                self._send(index)
            self.n_sent = max(self.n_sent, until)
            self._producer.poll(0)
            if not self._under_way:
                self._moved_s = time.monotonic()
            elif time.monotonic() - self._moved_s > _STUCK_S:
                self._start_over()
            await asyncio.sleep(_BURST_S)

    def _new_producer(self) -> Producer:
        self.n_producers += 1
        return Producer(self._config)

    def _send(self, index: int) -> None:
        key, value = self._records[index]
        delivered = functools.partial(self._delivered, self.n_producers, index)
        self._producer.produce(self._topic, value=value, key=key, on_delivery=delivered)

    def _delivered(self, producer: int, index: int, error: object, _message: object) -> None:
        if error is None and producer == self.n_producers:
            self._under_way.pop(index, None)
            self._moved_s = time.monotonic()

    def _start_over(self) -> None:
        self._producer.purge()
        self._producer = self._new_producer()
        self._moved_s = time.monotonic()
        for index in sorted(self._under_way):
            self._send(index)
