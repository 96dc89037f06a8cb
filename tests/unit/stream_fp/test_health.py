from __future__ import annotations

import contextlib
import http.client
import socket
import threading
import time
import urllib.parse
from collections.abc import Iterator

import pytest
from prometheus_client import CollectorRegistry, Counter
from prometheus_client.parser import text_string_to_metric_families

import stream_fp.health as health_module
from stream_fp.errors import ConfigError
from stream_fp.health import Health, HealthServer, check_address

HOST = "127.0.0.1"


@pytest.fixture
def health() -> Health:
    return Health()


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def server(registry: CollectorRegistry, health: Health) -> Iterator[HealthServer]:
    server = HealthServer(HOST, 0, registry=registry, health=health)
    yield server
    server.close()


def get(port: int, path: str, method: str = "GET") -> tuple[int, str, str]:
    """Return status, content type and body."""
    connection = http.client.HTTPConnection(HOST, port, timeout=10)
    try:
        connection.request(method, path)
        answer = connection.getresponse()
        return answer.status, answer.headers.get("Content-Type", ""), answer.read().decode()
    finally:
        connection.close()


def test_metrics_are_what_the_registry_holds_now(server: HealthServer, registry: CollectorRegistry) -> None:
    counter = Counter("things", "Things seen.", ["kind"], registry=registry)
    for expected in (1.0, 2.0):
        counter.labels(kind='odd "one"').inc()
        status, content_type, body = get(server.port, "/metrics")
        family = next(family for family in text_string_to_metric_families(body) if family.name == "things")
        values = {sample.name: (sample.labels, sample.value) for sample in family.samples}
        assert status == 200
        assert content_type.startswith("text/plain")
        assert values["things_total"] == ({"kind": 'odd "one"'}, expected)


def test_it_listens_where_it_was_told_and_nowhere_else(server: HealthServer) -> None:
    with socket.create_connection((HOST, server.port), timeout=5):
        pass
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.2", server.port), timeout=5)


def test_connection_that_says_nothing_is_closed_and_leaves_no_thread(
    server: HealthServer, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(health_module._QuietHandler, "timeout", 0.2)
    before = set(threading.enumerate())
    with contextlib.ExitStack() as stack:
        idle = [stack.enter_context(socket.create_connection((HOST, server.port), timeout=10)) for _ in range(20)]
        assert [connection.recv(1) for connection in idle] == [b""] * 20
        assert get(server.port, "/healthz")[0] == 200
    for thread in set(threading.enumerate()) - before:
        thread.join(10)
        assert not thread.is_alive()
    assert capfd.readouterr().err == ""


def test_metrics_can_be_asked_for_by_name(server: HealthServer, registry: CollectorRegistry) -> None:
    for name in ("one", "two"):
        Counter(name, "A counter.", registry=registry)
    _, _, body = get(server.port, "/metrics?" + urllib.parse.urlencode({"name[]": "one_total"}))
    assert "one_total 0.0" in body
    assert "two_total" not in body


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
def test_nothing_wrong_is_200(server: HealthServer, path: str) -> None:
    assert get(server.port, path) == (200, "text/plain; charset=utf-8", "ok\n")


def test_not_ready_is_503_with_every_reason_and_alive_all_the_same(server: HealthServer, health: Health) -> None:
    health.not_ready = {"events[0]": "rebuilding, 7 records to go", "events[3]": "Anführer gesucht"}
    status, content_type, body = get(server.port, "/readyz")
    assert (status, content_type) == (503, "text/plain; charset=utf-8")
    assert body == "events[0]: rebuilding, 7 records to go\nevents[3]: Anführer gesucht\n"
    assert get(server.port, "/healthz")[0] == 200


def test_not_alive_is_503_with_every_reason_and_ready_all_the_same(server: HealthServer, health: Health) -> None:
    health.not_alive["events[1]"] = "no progress for 61 s"
    status, _, body = get(server.port, "/healthz")
    assert (status, body) == (503, "events[1]: no progress for 61 s\n")
    assert get(server.port, "/readyz")[0] == 200


def test_answers_follow_what_changes(server: HealthServer, health: Health) -> None:
    seen = []
    for reasons in ({"service": "starting"}, {}, {"service": "stopping"}):
        health.not_ready = reasons
        seen.append(get(server.port, "/readyz")[0])
    assert seen == [503, 200, 503]


@pytest.mark.parametrize("path", ["/", "/metrics/", "/health", "/readyz/x", "/../healthz", "/%2e%2e/etc/passwd"])
def test_other_paths_are_404_and_name_the_right_ones(server: HealthServer, path: str) -> None:
    status, _, body = get(server.port, path)
    assert status == 404
    assert body == "expected /metrics, /healthz or /readyz\n"


def test_probe_may_ask_with_head_and_query(server: HealthServer) -> None:
    assert get(server.port, "/healthz", "HEAD")[0] == 200
    assert get(server.port, "/healthz?verbose=1")[0] == 200


def test_requests_leave_no_line_on_standard_error(server: HealthServer, capfd: pytest.CaptureFixture[str]) -> None:
    for path in ("/metrics", "/healthz", "/nowhere"):
        get(server.port, path)
    assert capfd.readouterr() == ("", "")


def test_slow_client_does_not_keep_the_others_waiting(server: HealthServer) -> None:
    with_nothing_to_say = http.client.HTTPConnection(HOST, server.port, timeout=10)
    with_nothing_to_say.connect()
    try:
        assert get(server.port, "/healthz")[0] == 200
    finally:
        with_nothing_to_say.close()


def test_port_that_is_taken_is_a_wrong_setting(server: HealthServer) -> None:
    with pytest.raises(ConfigError, match=rf"cannot listen on {HOST}:{server.port}: .*in use") as caught:
        HealthServer(HOST, server.port, registry=CollectorRegistry(), health=Health())
    assert caught.value.setting == "http_port"
    assert get(server.port, "/healthz")[0] == 200


@pytest.mark.parametrize("host", ["203.0.113.7", "no.such.host.invalid", "..", "x" * 64])
def test_address_that_is_not_ours_is_a_wrong_setting(host: str) -> None:
    with pytest.raises(ConfigError, match=f"expected an address of this machine, got '{host}'") as starting:
        HealthServer(host, 0, registry=CollectorRegistry(), health=Health())
    with pytest.raises(ConfigError) as checking:
        check_address(host)
    assert starting.value.setting == checking.value.setting == "http_host"


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "0.0.0.0", "::", "::1", ""])  # noqa: S104 - closed at once
def test_address_of_either_family_is_listened_on(host: str) -> None:
    check_address(host)
    server = HealthServer(host, 0, registry=CollectorRegistry(), health=Health())
    try:
        there = "::1" if ":" in host else HOST
        with socket.create_connection((there, server.port), timeout=5) as connection:
            connection.sendall(b"GET /healthz HTTP/1.0\r\n\r\n")
            assert connection.recv(100).startswith(b"HTTP/1.0 200")
    finally:
        server.close()


def test_connections_that_ask_nothing_or_slowly_keep_nobody_out(server: HealthServer) -> None:
    before = threading.active_count()
    with contextlib.ExitStack() as stack:
        many = [stack.enter_context(socket.create_connection((HOST, server.port), timeout=10)) for _ in range(40)]
        for connection in many[1::2]:
            with contextlib.suppress(OSError):  # it had to go already
                connection.sendall(b"GET /he")
        for _ in range(20):
            assert get(server.port, "/healthz")[0] == 200
        assert _is_closed(many[0])
        # A thread whose connection was closed may be about to end.
        deadline_s = time.monotonic() + 5
        while threading.active_count() - before > 16 and time.monotonic() < deadline_s:
            time.sleep(0.01)
        assert 0 < threading.active_count() - before <= 16


def _is_closed(connection: socket.socket) -> bool:
    connection.settimeout(0.05)
    try:
        return connection.recv(1) == b""
    except TimeoutError:
        return False


def test_closed_server_answers_no_more_and_leaves_no_thread(registry: CollectorRegistry, health: Health) -> None:
    server = HealthServer(HOST, 0, registry=registry, health=health)
    port = server.port
    assert get(port, "/healthz")[0] == 200
    server.close()
    with pytest.raises(ConnectionRefusedError):
        get(port, "/healthz")
    assert not [thread for thread in threading.enumerate() if thread.name == "stream-fp-http"]


def test_port_is_free_again_after_closing(registry: CollectorRegistry, health: Health) -> None:
    first = HealthServer(HOST, 0, registry=registry, health=health)
    port = first.port
    get(port, "/healthz")
    first.close()
    second = HealthServer(HOST, port, registry=registry, health=health)
    try:
        assert get(port, "/healthz")[0] == 200
    finally:
        second.close()


def test_loop_that_has_stopped_beating_is_not_alive() -> None:
    health = Health(silence_s=60.0)
    assert health.why_not_alive(1e9) == {}  # it has not begun to beat
    health.beat_s = 100.0
    assert health.why_not_alive(159.0) == {}
    health.not_alive = {"t[0]": "stalled"}
    assert health.why_not_alive(170.0) == {"t[0]": "stalled", "service": "the event loop has not answered for 70 s"}
