"""The HTTP side: ``/metrics``, ``/healthz`` and ``/readyz``.

Served from a thread of its own, so that a scrape answers while the event loop is busy; it only reads.
"""

from __future__ import annotations

import contextlib
import errno
import socket
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import CollectorRegistry, make_wsgi_app
from prometheus_client.exposition import ThreadingWSGIServer

from stream_fp.errors import ConfigError

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIEnvironment

__all__ = ["Health", "HealthServer", "check_address"]

_PLAIN: Final = ("Content-Type", "text/plain; charset=utf-8")
#: How often the server looks whether it is to close: the wait for it is part of every shutdown.
_CLOSE_WITHIN_S: Final = 0.1
#: How long a connection may say nothing.
_SILENCE_S: Final = 5.0
#: Served at once, each by a thread; where more come, the oldest are closed.
_MAX_CONNECTIONS: Final = 16


@dataclass(slots=True)
class Health:
    """Why the service is not ready or not alive; empty means that it is.

    Ready: the model is loaded and every assigned partition has been rebuilt. Alive: every partition that has records
    waiting makes progress, and the event loop answers.
    """

    not_ready: dict[str, str] = field(default_factory=dict)
    not_alive: dict[str, str] = field(default_factory=dict)
    silence_s: float = 60.0
    """An event loop that has not beaten for so long is not alive."""
    beat_s: float | None = None
    """When the loop beat last (`time.monotonic`); None until it begins to."""

    def why_not_alive(self, now_s: float) -> dict[str, str]:
        """Return what is wrong at a moment; asked by a thread that runs when the loop does not."""
        silent_s = 0.0 if self.beat_s is None else now_s - self.beat_s
        if silent_s < self.silence_s:
            return self.not_alive
        return {**self.not_alive, "service": f"the event loop has not answered for {silent_s:.0f} s"}


def check_address(host: str) -> None:
    """See whether the machine has an address to listen on; the port may be in use.

    Raises
    ------
    ConfigError
        When it has not.
    """
    try:
        with socket.socket(_family_of(host)) as probe:
            probe.bind((host, 0))
    except (OSError, UnicodeError) as error:  # the latter of a name that is none
        raise _not_an_address(host, error) from error


class HealthServer:
    """Serves metrics and health until it is closed.

    Parameters
    ----------
    host, port : str, int
        Where to listen; port 0 takes any free one.
    registry : CollectorRegistry
    health : Health

    Raises
    ------
    ConfigError
        When the address cannot be bound.
    """

    def __init__(self, host: str, port: int, *, registry: CollectorRegistry, health: Health) -> None:
        self._metrics = make_wsgi_app(registry)
        self._health = health
        try:
            self._server: WSGIServer = make_server(
                host, port, self._answer, server_class=_Server, handler_class=_QuietHandler
            )
        except UnicodeError as error:
            raise _not_an_address(host, error) from error
        except OSError as error:
            if isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL:
                raise _not_an_address(host, error) from error
            raise ConfigError("http_port", f"cannot listen on {host}:{port}: {error.strerror or error}") from error
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(_CLOSE_WITHIN_S,), name="stream-fp-http", daemon=True
        )
        self._thread.start()

    @property
    def port(self) -> int:
        """Port it listens on."""
        return self._server.server_port

    def close(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _answer(self, environment: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        path = environment.get("PATH_INFO", "")
        if path == "/metrics":
            answer: Callable[[WSGIEnvironment, StartResponse], Iterable[bytes]] = self._metrics
            return answer(environment, start_response)
        if path == "/healthz":
            reasons = self._health.why_not_alive(time.monotonic())
        elif path == "/readyz":
            reasons = self._health.not_ready
        else:
            start_response("404 Not Found", [_PLAIN])
            return [b"expected /metrics, /healthz or /readyz\n"]
        if reasons:
            start_response("503 Service Unavailable", [_PLAIN])
            return [f"{what}: {why}\n".encode() for what, why in list(reasons.items())]
        start_response("200 OK", [_PLAIN])
        return [b"ok\n"]


def _family_of(host: str) -> socket.AddressFamily:
    """Return IPv4 or IPv6, whichever an address or name is of."""
    return socket.getaddrinfo(host or None, 0, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0][0]


def _not_an_address(host: str, error: Exception) -> ConfigError:
    why = getattr(error, "strerror", None) or error
    return ConfigError("http_host", f"expected an address of this machine, got {host!r}: {why}")


class _Server(ThreadingWSGIServer):
    """Of IPv4 or IPv6, as its address is; answers no more than so many at once.

    Where more come, the oldest goes: an answer takes milliseconds, so that is somebody who asks slowly or nothing, and
    such ones must not keep a probe or Prometheus out.
    """

    request_queue_size = 64

    def __init__(self, address: tuple[str, int], handler: type[WSGIRequestHandler]) -> None:
        self.address_family = _family_of(address[0])
        self._lock = threading.Lock()
        self._open: dict[socket.socket, None] = {}  # the oldest first
        super().__init__(address, handler)

    def process_request(self, request: Any, client_address: Any) -> None:  # noqa: ANN401 - as the base class has it
        """Take the place of the oldest connection where none is free."""
        with self._lock:
            if len(self._open) >= _MAX_CONNECTIONS:
                oldest = next(iter(self._open))
                del self._open[oldest]
                with contextlib.suppress(OSError):
                    oldest.shutdown(socket.SHUT_RDWR)  # its thread sees the end, and closes it
            self._open[request] = None
        try:
            super().process_request(request, client_address)
        except BaseException:
            self._forget(request)
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:  # noqa: ANN401
        """Answer, and give back the place."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._forget(request)

    def _forget(self, request: socket.socket) -> None:
        with self._lock:
            self._open.pop(request, None)


class _QuietHandler(WSGIRequestHandler):
    #: Each connection has a thread: one that says nothing does not keep it for ever.
    timeout = _SILENCE_S

    def handle(self) -> None:
        """Answer one request, or close a connection that sends none or had to go."""
        with contextlib.suppress(OSError):
            super().handle()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name that the base class gives it
        """Write no line for every scrape."""
