"""Find a real Kafka broker for the tests: the first of three that is there.

1. `KAFKA_BOOTSTRAP_SERVERS`: a broker that already runs. One that is named and does not answer is an error.
2. A Docker engine: a container, through testcontainers.
3. Java and Maven: Kafka from its jars (`local_kafka.py`).
"""

from __future__ import annotations

import contextlib
import gc
import os
import time
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.support.local_kafka import BrokerStartError, BrokerUnavailableError, LocalKafka, wait_until_ready

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Broker", "BrokerStartError", "BrokerUnavailableError", "LocalKafka", "running_broker"]

ENVIRONMENT_NAME = "KAFKA_BOOTSTRAP_SERVERS"
# The default of testcontainers itself (Kafka 3.6): its start script and the log line it waits for fit it.
IMAGE = "confluentinc/cp-kafka:7.6.0"
IMAGE_START_TIMEOUT_S = 120
ENGINE_TIMEOUT_S = 5
ANSWER_TIMEOUT_S = 30.0


@dataclass(frozen=True, kw_only=True)
class Broker:
    """A broker that serves.

    `origin` says where it came from, for people to read; `start_s` is how long they waited for it.
    """

    bootstrap_servers: str
    origin: str
    start_s: float


@contextlib.contextmanager
def running_broker(*, is_brief: bool = False) -> Iterator[Broker]:
    """Yield a broker that serves; stop it afterwards if it was started here.

    Parameters
    ----------
    is_brief
        See `LocalKafka`.

    Raises
    ------
    BrokerUnavailableError
        There is none to be had. The text lists each way and what it lacks.
    TimeoutError
        `KAFKA_BOOTSTRAP_SERVERS` is set and nothing answers there.
    """
    with contextlib.ExitStack() as stack:
        start = time.monotonic()
        bootstrap_servers, origin = _first_there_is(stack, is_brief=is_brief)
        wait_until_ready(bootstrap_servers, timeout_s=ANSWER_TIMEOUT_S)
        yield Broker(bootstrap_servers=bootstrap_servers, origin=origin, start_s=time.monotonic() - start)


def _first_there_is(stack: contextlib.ExitStack, *, is_brief: bool) -> tuple[str, str]:
    if named := os.environ.get(ENVIRONMENT_NAME):
        return named, f"the one that {ENVIRONMENT_NAME} names"
    lacking = [f"{ENVIRONMENT_NAME} is not set"]
    try:
        return stack.enter_context(_container()), f"a container of {IMAGE}"
    except BrokerUnavailableError as error:
        lacking.append(f"Docker: {error}")
    try:
        kafka = stack.enter_context(LocalKafka(is_brief=is_brief))
    except (BrokerUnavailableError, BrokerStartError) as error:
        lacking.append(f"Kafka from its jars: {error}")
    else:
        return kafka.bootstrap_servers, f"Kafka {kafka.version} from its jars"
    raise BrokerUnavailableError("; ".join(lacking))


@contextlib.contextmanager
def _container() -> Iterator[str]:
    # Imported here: slow, and of no use to the other two ways.
    try:
        from testcontainers.community.kafka import KafkaContainer  # noqa: PLC0415
    except ImportError as error:
        message = f"testcontainers 4.15 or later is not installed ({error})"
        raise BrokerUnavailableError(message) from error
    if not _engine_answers():
        message = "no engine answers"
        raise BrokerUnavailableError(message)
    container = KafkaContainer(IMAGE).with_kraft()
    for name, value in {
        "KAFKA_AUTO_CREATE_TOPICS_ENABLE": "false",
        "KAFKA_GROUP_MIN_SESSION_TIMEOUT_MS": "1000",
        "KAFKA_TRANSACTION_ABORT_TIMED_OUT_TRANSACTION_CLEANUP_INTERVAL_MS": "1000",
        "KAFKA_TRANSACTION_STATE_LOG_MIN_ISR": "1",
        "KAFKA_TRANSACTION_STATE_LOG_REPLICATION_FACTOR": "1",
    }.items():
        container.with_env(name, value)
    try:
        container.start(timeout=IMAGE_START_TIMEOUT_S)
    except Exception as error:
        # Whatever went wrong in the engine (no network, no space, no such image), the jars may still work.
        container.stop()
        message = f"{IMAGE} did not start ({error})"
        raise BrokerUnavailableError(message) from error
    try:
        yield container.get_bootstrap_server()
    finally:
        container.stop()


def _engine_answers() -> bool:
    import docker  # noqa: PLC0415

    with warnings.catch_warnings():
        # The client leaves the socket of a refused connection to the garbage collector, which then warns.
        warnings.simplefilter("ignore", ResourceWarning)
        try:
            with contextlib.closing(docker.from_env(timeout=ENGINE_TIMEOUT_S)) as engine:
                answers = bool(engine.ping())
        except docker.errors.DockerException:
            answers = False
        gc.collect()
    return answers
