"""The job on Bytewax: rows in the state of a stateful step, with recovery.

Requirements: bytewax==0.21.1 confluent-kafka==2.16.1

At the end of each snapshot interval the states that changed and the input's offsets go into SQLite files in the
recovery directory; who starts again there goes on from the last snapshot. Output is at least once: the predictions
since the last snapshot are published a second time. Offsets live in the recovery directory too, so the group id is
of no use. As the documentation has it: Kafka source and sink of the package, recovery partitions made beforehand (here
at the first start), one for each worker; ``cli_main`` is what ``python -m bytewax.run -r DIR -s SECONDS`` calls.

The step is ``stateful_flat_map``, on which ``stateful_map`` itself is built: it emits nothing for most records, where
``stateful_map`` would emit a None for each of them, to be filtered out in a further step.

https://docs.bytewax.io/v0.20.0/guide/concepts/recovery.html
https://docs.bytewax.io/stable/api/bytewax/bytewax.operators.html

    python examples/bytewax_dataflow.py --model-path models/session_fingerprints/v1.0.2
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from datetime import timedelta
from pathlib import Path

from bytewax import operators as op
from bytewax.connectors.kafka import KafkaSink, KafkaSinkMessage, KafkaSource, KafkaSourceMessage
from bytewax.dataflow import Dataflow
from bytewax.recovery import RecoveryConfig, init_db_dir
from bytewax.run import cli_main
from confluent_kafka import OFFSET_BEGINNING

from job import DONE, Job, event_of, parse_arguments

Rows = bytes | bytearray
Step = Callable[[Rows | None, KafkaSourceMessage], tuple[Rows | None, Iterable[KafkaSinkMessage]]]


def main() -> int:
    """Run until interrupted."""
    arguments = parse_arguments(__doc__)
    servers = arguments.bootstrap_servers.split(",")
    flow = Dataflow("stream_fp")
    source = KafkaSource(
        servers,
        [arguments.input_topic],
        starting_offset=OFFSET_BEGINNING,
        # Without it librdkafka stops fetching for a second whenever its queue is full.
        add_config={"fetch.queue.backoff.ms": "5"},
    )
    records = op.input("events", flow, source)
    keyed = op.key_on("session", records, lambda record: record.key.decode())
    predicted = op.stateful_flat_map("checkpoint", keyed, _step(Job(arguments.model_path)))
    op.output("predictions", op.key_rm("unkeyed", predicted), KafkaSink(servers, arguments.output_topic))
    cli_main(
        flow,
        epoch_interval=timedelta(seconds=arguments.commit_interval_s),
        recovery_config=RecoveryConfig(_recovery_directory(arguments.state_dir)),
    )
    return 0


def _step(job: Job) -> Step:
    def take(rows: Rows | None, record: KafkaSourceMessage) -> tuple[Rows | None, Iterable[KafkaSinkMessage]]:
        message = event_of(record.value)
        if message is None or rows == DONE:
            return rows, ()
        if rows is None:
            rows = bytearray()
        rows += job.row(message)
        session_id = record.key.decode()
        if not job.crosses(session_id, rows):
            return rows, ()
        prediction = job.prediction(session_id, rows, record.offset)
        return DONE, () if prediction is None else (KafkaSinkMessage(record.key, prediction),)

    return take


def _recovery_directory(folder: Path) -> Path:
    if not folder.exists():
        folder.mkdir(parents=True)
        init_db_dir(folder, 1)
    return folder


if __name__ == "__main__":
    sys.exit(main())
