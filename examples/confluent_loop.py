"""The job in a plain loop on Confluent's client: batches into a dictionary.

Requirements: confluent-kafka==2.16.1

Nothing can be recovered: rows live in a dictionary of this process, offsets are committed in the background, and a
crash loses the rows of all open sessions. As the documentation has it: ``consume`` for batches, ``poll`` after
``produce`` to serve delivery reports, and commits left to the client, here as often as in the service.

https://docs.confluent.io/platform/current/clients/confluent-kafka-python/html/index.html
https://github.com/confluentinc/librdkafka/blob/master/CONFIGURATION.md

    python examples/confluent_loop.py --model-path models/session_fingerprints/v1.0.2
"""

from __future__ import annotations

import argparse
import sys

from confluent_kafka import Consumer, KafkaException, Message, Producer

from job import DONE, Job, event_of, parse_arguments

BATCH = 500


def main() -> int:
    """Run until interrupted."""
    arguments = parse_arguments(__doc__)
    job = Job(arguments.model_path)
    sessions: dict[bytes, bytes | bytearray] = {}
    producer = Producer({"bootstrap.servers": arguments.bootstrap_servers})
    consumer = _new_consumer(arguments)
    try:
        while True:
            for record in consumer.consume(BATCH, timeout=0.1):
                if (error := record.error()) is not None:
                    raise KafkaException(error)
                prediction = _take(job, sessions, record)
                if prediction is not None:
                    producer.produce(arguments.output_topic, prediction, record.key())
            producer.poll(0)
    except KeyboardInterrupt:
        return 0
    finally:
        producer.flush()
        consumer.close()


def _new_consumer(arguments: argparse.Namespace) -> Consumer:
    consumer = Consumer(
        {
            "bootstrap.servers": arguments.bootstrap_servers,
            "group.id": arguments.group_id,
            "auto.offset.reset": "earliest",
            "auto.commit.interval.ms": int(1000 * arguments.commit_interval_s),
            # Without it librdkafka stops fetching for a second whenever its queue is full: a third of the speed.
            "fetch.queue.backoff.ms": 5,
        }
    )
    consumer.subscribe([arguments.input_topic])
    return consumer


def _take(job: Job, sessions: dict[bytes, bytes | bytearray], record: Message) -> bytes | None:
    """Add one record to its session; return the prediction that it brings about."""
    message, key, offset = event_of(record.value()), record.key(), record.offset()
    if message is None or key is None or offset is None:
        return None
    rows = sessions.get(key)
    if rows is None:
        rows = sessions[key] = bytearray()
    elif rows == DONE:
        return None
    rows += job.row(message)
    session_id = key.decode()
    if not job.crosses(session_id, rows):
        return None
    sessions[key] = DONE
    return job.prediction(session_id, rows, offset)


if __name__ == "__main__":
    sys.exit(main())
