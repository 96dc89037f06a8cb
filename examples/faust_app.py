"""The job on Faust (faust-streaming): rows in a table.

Requirements: faust-streaming==0.15.3

A table is a dictionary in memory whose every change is sent to a changelog topic, from which it is read again at the
start. By default (``at_least_once``) table, output and offsets are not one: after a crash the events since the last
commit are added to rows that have them already, and predictions may come twice or be made of doubled events.

As the documentation has it: an agent that goes over ``stream.events()``, a table that is given its new value rather
than changed in place, the store in memory (its default); keys and values that are bytes already are ``raw``.

https://faust-streaming.github.io/faust/userguide/tables.html
https://faust-streaming.github.io/faust/userguide/settings.html

    python examples/faust_app.py --model-path models/session_fingerprints/v1.0.2
"""

from __future__ import annotations

import argparse
import sys

import faust

from job import DONE, Job, event_of, parse_arguments


def main() -> int:
    """Run until interrupted."""
    arguments = parse_arguments(__doc__)
    faust.Worker(new_app(arguments), loglevel="WARNING").execute_from_commandline()
    return 0


def new_app(arguments: argparse.Namespace) -> faust.App:
    """Return the app: one topic, one table, one agent."""
    job = Job(arguments.model_path)
    app = faust.App(
        arguments.group_id,
        broker=";".join(f"kafka://{server}" for server in arguments.bootstrap_servers.split(",")),
        datadir=str(arguments.state_dir),
        broker_commit_interval=arguments.commit_interval_s,
        topic_partitions=1,  # of the changelog: as many as the input has
        web_enabled=False,
    )
    topic = app.topic(arguments.input_topic, key_serializer="raw", value_serializer="raw")
    predictions = app.topic(arguments.output_topic, key_serializer="raw", value_serializer="raw")
    sessions = app.Table("sessions", key_type=bytes, value_type=bytes)

    @app.agent(topic)
    async def follow(stream: faust.Stream) -> None:
        async for event in stream.events():
            message = event_of(event.value)
            if message is None:
                continue
            key = event.key
            rows = sessions.get(key)
            if rows == DONE:
                continue
            session_id = key.decode()
            rows = (rows or b"") + job.row(message)
            if not job.crosses(session_id, rows):
                sessions[key] = rows
                continue
            sessions[key] = DONE
            prediction = job.prediction(session_id, rows, event.message.offset)
            if prediction is not None:
                await predictions.send(key=key, value=prediction)

    return app


if __name__ == "__main__":
    sys.exit(main())
