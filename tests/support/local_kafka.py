"""Run a real Kafka, one node or several, from its jars on the loopback interface.

`broker.py` uses it for the broker that all integration tests share; a test that kills brokers starts one of
its own. The jars come from `kafka_jars.py`. A node keeps its ports and its data from `start` to `close`, so a
client may outlive any number of kills and restarts.

Every call blocks: from a coroutine use `asyncio.to_thread(kafka.restart)`.
"""

from __future__ import annotations

import atexit
import base64
import contextlib
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Self

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from tests.support.kafka_jars import RESOURCES, ROOT, BrokerUnavailableError, fetch_jars, find_java, kafka_version

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping

__all__ = ["BrokerStartError", "BrokerUnavailableError", "LocalKafka", "wait_until_ready"]

LOGS = ROOT / "build" / "kafka" / "logs"

HEAP = "512m"
#: The quick compiler alone, and the collector that needs no threads.
_BRIEF = ("-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC")
# A machine that is busy with other tests may need it: a warm start takes about four seconds.
START_TIMEOUT_S = 90.0
STOP_TIMEOUT_S = 30.0
POLL_INTERVAL_S = 0.05
# Below Linux's ephemeral range (32768 and up): no outgoing connection can take a killed node's port, and no
# client that keeps reconnecting to it can end up connected to itself.
PORTS = range(20_000, 32_000)
N_LOGS_KEPT = 20


class BrokerStartError(RuntimeError):
    """Raised when a node did not become ready. The text names its log and ends with the log's last lines."""

    def __init__(self, what: str, log: Path) -> None:
        lines = log.read_text(errors="replace").splitlines() if log.exists() else []
        tail = [line for line in lines if not line.startswith("\tat ")][-10:]
        super().__init__("\n".join([f"{what}. Its log: {log}", *(f"  {line}" for line in tail)]))


class LocalKafka:
    """A Kafka cluster in KRaft mode; each node is broker and controller at once.

    Parameters
    ----------
    n_nodes
        Number of nodes. Internal topics are replicated to all of them.
    settings
        Broker properties that replace those of `kafka/server.properties`.
    is_brief
        Whether it is to live for a test: it starts with 40 % less of the processor's time, and is slower at full load.
    """

    def __init__(self, *, n_nodes: int = 1, settings: Mapping[str, str] | None = None, is_brief: bool = False) -> None:
        self._settings = dict(settings or {})
        self._is_brief = is_brief
        self._java = ""
        self._jars = Path()
        self._folder: Path | None = None
        ports = _free_ports(2 * n_nodes)
        self._nodes = {
            node_id: _Node(node_id, port=ports[2 * node_id - 2], controller_port=ports[2 * node_id - 1])
            for node_id in range(1, n_nodes + 1)
        }

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def bootstrap_servers(self) -> str:
        return ",".join(f"127.0.0.1:{node.port}" for node in self._nodes.values())

    @property
    def node_ids(self) -> list[int]:
        return list(self._nodes)

    @property
    def version(self) -> str:
        """The version of Kafka that `kafka/pom.xml` names."""
        return kafka_version()

    def start(self) -> None:
        """Fetch the jars if need be, format the nodes' storage, start all of them and wait until they serve.

        Raises
        ------
        BrokerUnavailableError
            There is no Java, or there are no jars and no Maven to fetch them.
        BrokerStartError
            A node ended, or was not ready in time.
        """
        self._java = find_java()
        self._jars = fetch_jars()
        self._folder = Path(tempfile.mkdtemp(prefix="stream-fp-kafka-"))
        atexit.register(self.close)
        try:
            self._format(self._folder)
            self._launch(self._nodes)
        except BaseException:
            self.close()
            raise

    def stop(self, node_id: int | None = None) -> None:
        """Ask a node, or all of them, to shut down in good order, and wait for it."""
        nodes = self._choose(node_id)
        for node in nodes:
            node.signal(signal.SIGTERM)
        for node in nodes:
            node.wait(STOP_TIMEOUT_S)

    def kill(self, node_id: int | None = None) -> None:
        """Kill a node, or all of them, with no warning (SIGKILL). Its data and ports stay."""
        for node in self._choose(node_id):
            node.signal(signal.SIGKILL)
            node.wait(STOP_TIMEOUT_S)

    def restart(self, node_id: int | None = None) -> None:
        """Start a node, or all, again on the same ports and data; one that still runs is stopped first."""
        if self._folder is None:
            message = "LocalKafka.restart() comes after start() and before close()"
            raise RuntimeError(message)
        self.stop(node_id)
        self._launch(node.node_id for node in self._choose(node_id))

    def close(self) -> None:
        """Kill what still runs and delete the data. Safe to call twice; the log files stay."""
        atexit.unregister(self.close)
        self.kill()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None

    def _choose(self, node_id: int | None) -> list[_Node]:
        return list(self._nodes.values()) if node_id is None else [self._nodes[node_id]]

    def _format(self, folder: Path) -> None:
        cluster_id = _random_id()
        voters = ",".join(
            f"{node.node_id}@127.0.0.1:{node.controller_port}:{_random_id()}" for node in self._nodes.values()
        )
        for node in self._nodes.values():
            node.folder = folder / f"node-{node.node_id}"
            node.folder.mkdir()
            node.log = _new_log(node.node_id)
            node.properties.write_text(self._properties(node))
            command = self._command("kafka.tools.StorageTool", "format", "--config", str(node.properties))
            command += ["--cluster-id", cluster_id, "--initial-controllers", voters]
            with node.log.open("ab") as log:
                status = subprocess.run(command, stdout=log, stderr=log, check=False).returncode
            if status:
                raise BrokerStartError(f"formatting Kafka node {node.node_id} ended with status {status}", node.log)

    def _properties(self, node: _Node) -> str:
        n_nodes = len(self._nodes)
        own = {
            "node.id": node.node_id,
            "listeners": f"PLAINTEXT://127.0.0.1:{node.port},CONTROLLER://127.0.0.1:{node.controller_port}",
            "advertised.listeners": f"PLAINTEXT://127.0.0.1:{node.port}",
            "controller.quorum.bootstrap.servers": ",".join(
                f"127.0.0.1:{other.controller_port}" for other in self._nodes.values()
            ),
            "log.dirs": node.folder / "data",
            "default.replication.factor": n_nodes,
            "offsets.topic.replication.factor": n_nodes,
            "transaction.state.log.replication.factor": n_nodes,
            "transaction.state.log.min.isr": max(1, n_nodes - 1),
        } | self._settings
        # Of two lines with the same name, a properties file keeps the later one.
        lines = (f"{name}={value}\n" for name, value in own.items())
        return (RESOURCES / "server.properties").read_text() + "".join(lines)

    def _command(self, main_class: str, *arguments: str) -> list[str]:
        log4j = (RESOURCES / "log4j.properties").as_uri()
        options = ["-Xms128m", f"-Xmx{HEAP}", "-Djava.awt.headless=true", f"-Dlog4j.configuration={log4j}"]
        if self._is_brief:
            options += _BRIEF
        return [self._java, *options, "-cp", f"{self._jars}/*", main_class, *arguments]

    def _launch(self, node_ids: Iterable[int]) -> None:
        nodes = [self._nodes[node_id] for node_id in node_ids]
        for node in nodes:
            node.launch(self._command("kafka.Kafka", str(node.properties)))

        def check_alive() -> None:
            for node in nodes:
                node.check_alive()

        # Asked of each: they hear of one another at different times, and a client may begin with any of them.
        running = {node.node_id for node in self._nodes.values() if node.is_running}
        for node in nodes:
            try:
                wait_until_ready(
                    f"127.0.0.1:{node.port}",
                    timeout_s=START_TIMEOUT_S,
                    node_ids=running,
                    check_alive=check_alive,
                )
            except TimeoutError as error:
                raise BrokerStartError(f"Kafka node {node.node_id}: {error}", node.log) from error


class _Node:
    """One broker process, its folder and its log."""

    def __init__(self, node_id: int, *, port: int, controller_port: int) -> None:
        self.node_id = node_id
        self.port = port
        self.controller_port = controller_port
        self.folder = Path()
        self.log = Path()
        self._process: subprocess.Popen[bytes] | None = None
        self._watchdog: subprocess.Popen[bytes] | None = None

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def properties(self) -> Path:
        return self.folder / "server.properties"

    def launch(self, command: list[str]) -> None:
        with self.log.open("ab") as log:
            # A session of its own: Ctrl-C at the terminal is for pytest, whose fixtures then stop the node.
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.folder,
                start_new_session=True,
            )
        # Its standard input closes when this Python process ends, however it ends: no broker is left behind.
        self._watchdog = subprocess.Popen(
            ["sh", "-c", 'read -r _; kill -KILL "$1"; rm -rf "$2"', "sh", str(self._process.pid), str(self.folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def signal(self, number: int) -> None:
        if self._process is not None:
            self._process.send_signal(number)

    def wait(self, timeout_s: float) -> None:
        """Wait for the end of the process; after `timeout_s` seconds, make an end of it."""
        if self._process is None:
            return
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None
        self._dismiss_watchdog()

    def check_alive(self) -> None:
        if self._process is not None and (status := self._process.poll()) is not None:
            self._process = None
            self._dismiss_watchdog()
            raise BrokerStartError(
                f"Kafka node {self.node_id} ended with status {status} before it was ready", self.log
            )

    def _dismiss_watchdog(self) -> None:
        # Before its pipe closes: the number of the process that it guards may belong to another one by now.
        if self._watchdog is not None:
            self._watchdog.kill()
            self._watchdog.communicate()
            self._watchdog = None


def wait_until_ready(
    bootstrap_servers: str,
    *,
    timeout_s: float,
    node_ids: Collection[int] = (),
    check_alive: Callable[[], None] = lambda: None,
) -> None:
    """Wait until the cluster lists all of `node_ids`, or any node at all, as alive.

    A node answers requests only after it has caught up with its log and the controller lets it serve, so an
    open port alone proves nothing. Raises `TimeoutError` after `timeout_s` seconds; `check_alive` may end the
    wait sooner.
    """
    deadline = time.monotonic() + timeout_s
    client = AdminClient(
        {
            "bootstrap.servers": bootstrap_servers,
            "log_level": 0,  # a refused connection is no news here
            "reconnect.backoff.max.ms": 200,
        }
    )
    while time.monotonic() < deadline:
        check_alive()
        with contextlib.suppress(KafkaException):
            brokers = client.list_topics(timeout=0.5).brokers
            if brokers and brokers.keys() >= set(node_ids):
                return
        time.sleep(POLL_INTERVAL_S)
    message = f"nothing ready at {bootstrap_servers} after {timeout_s:g} s"
    raise TimeoutError(message)


def _new_log(node_id: int) -> Path:
    LOGS.mkdir(parents=True, exist_ok=True)
    old = sorted(LOGS.glob("*.log"), key=lambda path: path.stat().st_mtime)
    for path in old[: -N_LOGS_KEPT or None]:
        path.unlink(missing_ok=True)
    return LOGS / f"{time.strftime('%Y%m%d-%H%M%S')}-{uuid.uuid4().hex[:6]}-node-{node_id}.log"


def _random_id() -> str:
    # Kafka's own form of a UUID. One that begins with a dash would look like an option on the command line.
    while (text := base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")).startswith("-"):
        pass
    return text


def _free_ports(n: int) -> list[int]:
    ports: list[int] = []
    with contextlib.ExitStack() as stack:
        for port in random.Random(uuid.uuid4().int).sample(PORTS, len(PORTS)):
            held = stack.enter_context(socket.socket())
            with contextlib.suppress(OSError):
                held.bind(("127.0.0.1", port))
                ports.append(port)
            if len(ports) == n:
                return ports
    message = f"no {n} free ports between {PORTS.start} and {PORTS.stop}"
    raise BrokerUnavailableError(message)
