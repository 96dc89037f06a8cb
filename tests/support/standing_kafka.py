"""Run a Kafka to try things on, until Ctrl-C: `make broker`.

The same one-node Kafka that the tests start from its jars (`local_kafka.py`), but on a port that examples can name. Its
data is deleted at the end.

    python -m tests.support.standing_kafka [--port 9092]
"""

from __future__ import annotations

import argparse
import contextlib
import signal
import socket
import sys
import threading
from typing import Final

import click

from tests.support.local_kafka import BrokerStartError, BrokerUnavailableError, LocalKafka

DEFAULT_PORT: Final = 9092
#: How often it is looked whether Ctrl-C or SIGTERM has come, and whether the broker still answers.
LOOK_INTERVAL_S: Final = 1.0


class StandingKafka(LocalKafka):
    """One node that listens where it is told."""

    def __init__(self, port: int) -> None:
        super().__init__()
        for node in self._nodes.values():
            node.port = port

    @property
    def is_running(self) -> bool:
        return all(node.is_running for node in self._nodes.values())


def main() -> int:
    """Run the broker; returns the exit status."""
    parser = argparse.ArgumentParser(description="Run a Kafka to try things on, until Ctrl-C.")
    parser.add_argument("--port", type=int, default=DEFAULT_PORT)
    port = parser.parse_args().port
    ended = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ended.set())
    if _is_taken(port):
        click.echo(f"port {port} is taken: make broker BROKER_PORT=...", err=True)
        return 1
    click.echo("Starting Kafka (the first time its jars are fetched) ...")
    try:
        with StandingKafka(port) as kafka:
            click.echo(f"Kafka {kafka.version} serves at {kafka.bootstrap_servers}. Ctrl-C ends it.")
            while kafka.is_running and not ended.wait(LOOK_INTERVAL_S):
                pass
            if not ended.is_set():
                click.echo("the broker has ended by itself", err=True)
                return 1
    except (BrokerUnavailableError, BrokerStartError) as error:
        click.echo(str(error), err=True)
        return 1
    return 0


def _is_taken(port: int) -> bool:
    with contextlib.closing(socket.socket()) as held:
        # As Kafka does: connections of one that ended a moment ago are no matter.
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            held.bind(("127.0.0.1", port))
        except OSError:
            return True
    return False


if __name__ == "__main__":
    sys.exit(main())
