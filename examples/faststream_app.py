"""The job on FastStream: batches into a dictionary.

Requirements: faststream[confluent]==0.7.8 confluent-kafka==2.16.1

FastStream keeps no state: rows live in a dictionary of this process, and a crash or a rebalance loses those of all open
sessions, whose offsets are committed by then. As the documentation has it: a batch subscriber for high volumes, and a
decoder of one's own where the default one, which tries JSON on every record, is of no use. It does not say which of its
two Kafka brokers is the faster; Confluent's, taken here, can be tuned, and aiokafka's was no faster when tried.

https://faststream.airt.ai/latest/kafka/kafka/
https://faststream.airt.ai/latest/getting-started/serialization/
https://github.com/airtai/faststream/blob/main/docs/docs/en/kafka/Subscriber/batch_subscriber.md

    python examples/faststream_app.py --model-path models/session_fingerprints/v1.0.2
"""

from __future__ import annotations

import argparse
import asyncio
import sys

from confluent_kafka import Message
from faststream import FastStream
from faststream.confluent import KafkaBroker, KafkaMessage

from job import DONE, Job, event_of, parse_arguments


def main() -> int:
    """Run until interrupted."""
    asyncio.run(new_app(parse_arguments(__doc__)).run())
    return 0


def new_app(arguments: argparse.Namespace) -> FastStream:
    """Return the app: one broker, one batch subscriber, one publisher."""
    job = Job(arguments.model_path)
    sessions: dict[bytes, bytes | bytearray] = {}
    broker = KafkaBroker(
        arguments.bootstrap_servers,
        apply_types=False,  # the handler takes the records as they are
        config={"fetch.queue.backoff.ms": 5},
        logger=None,
    )
    publisher = broker.publisher(arguments.output_topic)

    @broker.subscriber(
        arguments.input_topic,
        group_id=arguments.group_id,
        auto_offset_reset="earliest",
        auto_commit_interval_ms=int(1000 * arguments.commit_interval_s),
        batch=True,
        max_records=500,
        decoder=_undecoded,
    )
    async def follow(records: tuple[Message, ...]) -> None:
        for record in records:
            message, key, offset = event_of(record.value()), record.key(), record.offset()
            if message is None or key is None or offset is None:
                continue
            rows = sessions.get(key)
            if rows is None:
                rows = sessions[key] = bytearray()
            elif rows == DONE:
                continue
            rows += job.row(message)
            session_id = key.decode()
            if not job.crosses(session_id, rows):
                continue
            sessions[key] = DONE
            prediction = job.prediction(session_id, rows, offset)
            if prediction is not None:
                await publisher.publish(prediction, key=key)

    return FastStream(broker, logger=None)


async def _undecoded(message: KafkaMessage) -> object:
    return message.raw_message


if __name__ == "__main__":
    sys.exit(main())
