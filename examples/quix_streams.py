"""The job on Quix Streams: rows in its State, exactly once.

Requirements: quixstreams==3.28.1

State is RocksDB on disk with a changelog topic. With exactly-once, state changes, predictions and offsets of a
checkpoint are one transaction, so a crash costs what was done since the last checkpoint, which is done again; the next
owner of the partition reads the changelog. As the documentation has it: a function with ``stateful=True``, bytes kept
with ``set_bytes`` where one encodes the state oneself, and a shorter commit interval where others wait for the output.

https://quix.io/docs/quix-streams/advanced/stateful-processing.html
https://quix.io/docs/quix-streams/configuration.html#processing-guarantees

    python examples/quix_streams.py --model-path models/session_fingerprints/v1.0.2
"""

from __future__ import annotations

import sys
from typing import Any, Final

from quixstreams import Application, State, message_context

from job import DONE, Job, event_of, parse_arguments

ROWS: Final = "rows"


def main() -> int:
    """Run until interrupted."""
    arguments = parse_arguments(__doc__)
    job = Job(arguments.model_path)

    def take(value: bytes, key: bytes, _timestamp: int, _headers: Any, state: State) -> bytes | None:  # noqa: ANN401
        message = event_of(value)
        if message is None:
            return None
        rows = state.get_bytes(ROWS)
        if rows == DONE:
            return None
        session_id = key.decode()
        rows = (rows or b"") + job.row(message)
        if not job.crosses(session_id, rows):
            state.set_bytes(ROWS, rows)
            return None
        state.set_bytes(ROWS, DONE)
        return job.prediction(session_id, rows, message_context().offset)

    app = Application(
        broker_address=arguments.bootstrap_servers,
        consumer_group=arguments.group_id,
        state_dir=arguments.state_dir,
        auto_offset_reset="earliest",
        processing_guarantee="exactly-once",
        commit_interval=arguments.commit_interval_s,
        # Without it librdkafka stops fetching for a second whenever its queue is full.
        consumer_extra_config={"fetch.queue.backoff.ms": 5},
        loglevel="WARNING",
    )
    events = app.topic(arguments.input_topic, key_deserializer="bytes", value_deserializer="bytes")
    predictions = app.topic(arguments.output_topic, key_serializer="bytes", value_serializer="bytes")
    frame = app.dataframe(events)
    frame = frame.apply(take, stateful=True, metadata=True)
    frame = frame.filter(lambda prediction: prediction is not None)
    frame.to_topic(predictions)
    app.run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
