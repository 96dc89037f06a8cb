"""Fixtures that every test may use, and a summary that says which broker was used and what was skipped.

What a machine cannot offer is skipped with the reason in the summary, never quietly. With
`STREAM_FP_REQUIRE_BROKER=1`, as in CI, a missing broker is a failure.
"""

from __future__ import annotations

import contextlib
import uuid
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import for_code
from hypothesis import HealthCheck, settings

from tests.support.broker import Broker, BrokerUnavailableError, LocalKafka, running_broker
from tests.support.lacking import lacking

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Mapping

REAL_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
REAL_SESSIONS = REAL_DATA / "ironforge"
REAL_BARS = REAL_DATA / "nsxusd_m1_2018-01_2019-06.parquet"
PACKAGE = Path(__file__).resolve().parents[1] / "stream_fp"
REQUIRE_BROKER = "STREAM_FP_REQUIRE_BROKER"

_broker_used = pytest.StashKey[Broker]()
_broker_lacking = pytest.StashKey[str]()
_brokers_of_workers = pytest.StashKey[list[str]]()


# How long an example takes says as much of the machine as of the code: times are measured by benchmarks. Set here, for
# a test's own settings begin with these as soon as its file is read.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")


def pytest_configure() -> None:
    """Refuse to test what was compiled from other sources than those that are there."""
    for compiled in PACKAGE.glob("*.so"):
        source = compiled.with_name(f"{compiled.name.partition('.')[0]}.py")
        types = source.with_suffix(".pxd")
        if compiled.stat().st_mtime < max(file.stat().st_mtime for file in (source, types) if file.exists()):
            pytest.exit(f"{source.name} has changed since it was compiled: `make compile`, or delete {compiled}", 4)


class TopicFactory(Protocol):
    """Creates a topic with a name of its own and returns the name once every partition has a leader."""

    async def __call__(
        self,
        n_partitions: int = 1,
        *,
        prefix: str = "test",
        name: str = "",
        replication_factor: int = 1,
        settings: Mapping[str, str] | None = None,
    ) -> str: ...


@pytest.fixture(scope="session")
def broker(request: pytest.FixtureRequest) -> Iterator[str]:
    """Bootstrap servers of a real Kafka broker that all tests share: use topics and groups of your own."""
    with contextlib.ExitStack() as stack:
        reason, must_fail = "", False
        try:
            found = stack.enter_context(running_broker(is_brief=True))
        except BrokerUnavailableError as error:
            reason = f"no real Kafka broker: {error}"
        except TimeoutError as error:
            # A broker was named and is not there: that is never what anybody meant.
            reason, must_fail = f"no real Kafka broker: {error}", True
        if reason:
            request.config.stash[_broker_lacking] = reason
            if must_fail:
                pytest.fail(reason, pytrace=False)
            lacking(reason, required_by=REQUIRE_BROKER)
        request.config.stash[_broker_used] = found
        yield found.bootstrap_servers


class Cluster(Protocol):
    """Starts a Kafka of so many nodes for one test."""

    def __call__(self, n_nodes: int = 1) -> LocalKafka: ...


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    """Start a Kafka of its own for a test that kills brokers: the one that others share would not do."""
    with contextlib.ExitStack() as stack:

        def start(n_nodes: int = 1) -> LocalKafka:
            try:
                return stack.enter_context(LocalKafka(n_nodes=n_nodes, is_brief=True))
            except BrokerUnavailableError as error:
                lacking(f"no Kafka of our own to kill: {error}", required_by=REQUIRE_BROKER)

        yield start


@pytest.fixture
async def topic_factory(broker: str) -> AsyncIterator[TopicFactory]:
    """Create topics on the real broker; they are deleted when the test ends."""
    admin = AIOKafkaAdminClient(bootstrap_servers=broker)
    await admin.start()
    created: list[str] = []

    async def create(
        n_partitions: int = 1,
        *,
        prefix: str = "test",
        name: str = "",
        replication_factor: int = 1,
        settings: Mapping[str, str] | None = None,
    ) -> str:
        name = name or f"{prefix}-{uuid.uuid4().hex[:12]}"
        topic = NewTopic(name, n_partitions, replication_factor, topic_configs=dict(settings or {}))
        response = await admin.create_topics([topic])
        for _, code, message in response.topic_errors:
            if code:
                raise for_code(code)(f"topic {name} was not created: {message}")
        created.append(name)
        # The controller has it; the brokers that clients ask hear of it a moment later.
        while not _is_served((await admin.describe_topics([name]))[0], n_partitions):
            pass
        return name

    try:
        yield create
    finally:
        if created:
            await admin.delete_topics(created)
        await admin.close()


@pytest.fixture(scope="session")
def real_sessions_dir() -> Path:
    """The folder of real session documents, which lies beside the checkout and is not part of it."""
    if not REAL_SESSIONS.is_dir():
        pytest.skip(f"no real session documents: {REAL_SESSIONS} is missing")
    return REAL_SESSIONS


@pytest.fixture(scope="session")
def real_bars_file() -> Path:
    """The file of real one-minute bars, which lies beside the checkout and is not part of it."""
    if not REAL_BARS.is_file():
        pytest.skip(f"no real bars: {REAL_BARS} is missing")
    return REAL_BARS


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what needs a broker or real data, so that `-m "not broker"` leaves out all of it."""
    for item in items:
        fixtures: tuple[str, ...] = getattr(item, "fixturenames", ())
        if {"real_sessions_dir", "real_bars_file"} & set(fixtures):
            item.add_marker(pytest.mark.real_data)
        if "cluster" in fixtures:
            item.add_marker(pytest.mark.broker)
        if "broker" in fixtures:
            item.add_marker(pytest.mark.broker)
            # The first one waits for the broker, which may have to be fetched: that has its own time limits.
            limit = item.get_closest_marker("timeout")
            args, kwargs = (limit.args, dict(limit.kwargs)) if limit else ((), {})
            item.add_marker(pytest.mark.timeout(*args, **(kwargs | {"func_only": True})), append=False)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Hand what a worker of pytest-xdist knows of its broker to the process that sums up."""
    if (output := getattr(session.config, "workeroutput", None)) is not None:
        output["broker"] = _told_of_broker(session.config)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:  # noqa: ANN401 - of pytest-xdist, where that is used
    """Take what a worker knows of its broker."""
    if text := getattr(node, "workeroutput", {}).get("broker"):
        node.config.stash.setdefault(_brokers_of_workers, []).append(text)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Say which broker was used, and what was skipped and why."""
    terminalreporter.section("broker and skipped tests")
    told = config.stash.get(_brokers_of_workers, []) or [_told_of_broker(config)]
    for text in sorted({text for text in told if text}) or ["no test asked for one"]:
        terminalreporter.line(f"broker: {text}")
    reasons = Counter(
        report.longrepr[2].removeprefix("Skipped: ") if isinstance(report.longrepr, tuple) else str(report.longrepr)
        for report in terminalreporter.getreports("skipped")
    )
    for reason, n_tests in reasons.most_common():
        terminalreporter.line(f"SKIPPED {n_tests}: {reason}")
    if not reasons:
        terminalreporter.line("skipped: nothing")


def _told_of_broker(config: pytest.Config) -> str:
    if used := config.stash.get(_broker_used, None):
        return f"{used.origin} at {used.bootstrap_servers}, ready after {used.start_s:.1f} s"
    return config.stash.get(_broker_lacking, "")


def _is_served(topic: Mapping[str, object], n_partitions: int) -> bool:
    partitions = topic["partitions"]
    return (
        isinstance(partitions, list)
        and len(partitions) == n_partitions
        and all(partition["leader"] >= 0 for partition in partitions)
    )
