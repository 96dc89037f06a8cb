"""A Kafka broker inside this process, for the demo: librdkafka's mock cluster.

The wire protocol is real, the broker is not: logs are small and in memory, and offsets sent in a transaction take no
effect, so nothing about exactly-once can be shown on it. Needs the package ``confluent-kafka`` (extra ``demo``).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

__all__ = ["embedded_broker"]

_TIMEOUT_S = 10.0


@contextlib.contextmanager
def embedded_broker(*topics: str) -> Iterator[str]:
    """Run the mock cluster with these topics; gives its bootstrap address and ends with the context."""
    from confluent_kafka import Producer  # noqa: PLC0415 - an extra that only the demo installs

    # The cluster lives as long as the client that made it.
    client = Producer({"bootstrap.servers": "mock", "test.mock.num.brokers": 1, "log_level": 2})
    brokers = client.list_topics(timeout=_TIMEOUT_S).brokers.values()
    for topic in topics:
        # The mock cluster creates what it is asked about, with four partitions.
        client.list_topics(topic, timeout=_TIMEOUT_S)
    try:
        yield ",".join(f"{broker.host}:{broker.port}" for broker in brokers)
    finally:
        client.flush(_TIMEOUT_S)
        del client
