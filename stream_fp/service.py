"""The online service: joins the consumer group and keeps one worker for each partition it is given.

Rebalance listeners only note what changed; starting a worker (which reads from the broker and rebuilds state) happens
outside them, so that heartbeats go on. Revoked partitions are drained before the group moves on, within a budget.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import signal
import time
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

from aiokafka import ConsumerRebalanceListener, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import (
    KafkaConnectionError,
    KafkaError,
    NodeNotReadyError,
    NoOffsetForPartitionError,
    OffsetOutOfRangeError,
)

from stream_fp.classifier import Classifier
from stream_fp.config import Settings
from stream_fp.disk import may_pass
from stream_fp.errors import ConfigError, ServiceError, StreamFpError
from stream_fp.health import Health, HealthServer
from stream_fp.kafka.clients import close_within, new_admin, new_consumer
from stream_fp.kafka.consumer import Consumer
from stream_fp.kafka.diagnosis import unreachable
from stream_fp.kafka.topics import ensure_topics
from stream_fp.library import Library
from stream_fp.loading import load_classifier, load_tracing
from stream_fp.metrics import Metrics, PartitionView
from stream_fp.partition import PartitionWorker
from stream_fp.sinks.files import FileSinks
from stream_fp.sinks.sidecar import check_writable
from stream_fp.stamps import IS_COMPILED
from stream_fp.watch import ProgressWatch
from stream_fp.watchdog import Watchdog

if TYPE_CHECKING:
    from stream_fp.kafka.tracing import Tracing

__all__ = ["Service", "check_sinks", "run_service"]

_logger = logging.getLogger(__name__)

_LOOK_INTERVAL_S: Final = 1.0
#: Objects made and not gone since the collector last looked: ten times those of a batch, walked in a millisecond.
_GC_THRESHOLD: Final = 20_000
#: Part of the session time-out that draining revoked partitions may take; the rest is for the rejoin.
_REVOKE_BUDGET: Final = 0.5
#: Part of the grace period that draining may take; the rest is for leaving the group.
_DRAIN_SHARE: Final = 0.7
_RETRY_S: Final = 0.2
#: Joining a group takes less, unless there is something to say about it.
_LONG_JOIN_S: Final = 3.0
#: After the grace period, for the interpreter to end in.
_LAST_GRACE_S: Final = 5.0


def check_sinks(settings: Settings) -> None:
    """See whether the files that the settings name can be written.

    Raises
    ------
    ConfigError
        When one cannot, by what the settings name.
    ServiceError
        When one cannot for now: the disk is full or away. A supervisor may try again.
    """
    for setting, path in (
        ("sidecar_dir", Path(settings.sidecar_dir) if settings.sidecar_dir else None),
        ("minidash_path", Path(settings.minidash_path).parent if settings.minidash_path else None),
    ):
        try:
            if path is not None:
                check_writable(path)
        except OSError as error:
            why = f"cannot write to {path.absolute() if path else ''}: {error.strerror}"
            if may_pass(error):
                raise ServiceError(f"setting `{setting}`: {why}") from error
            raise ConfigError(setting, why) from error


async def run_service(settings: Settings, watchdog: Watchdog) -> None:
    """Run until SIGTERM or SIGINT.

    Parameters
    ----------
    settings : Settings
    watchdog : Watchdog
        Ends the process, so only who owns the process may start it.

    Raises
    ------
    StreamFpError
        When the service cannot start or go on.
    """
    _spare_the_collector()
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(_told_elsewhere)
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    service = Service(settings)
    beating = asyncio.create_task(_beat(watchdog))
    starting = asyncio.create_task(service.start())
    stopping = asyncio.create_task(stop.wait())
    try:
        # A broker that does not answer may keep the start waiting for long; a signal must not wait with it.
        await asyncio.wait({starting, stopping}, return_when="FIRST_COMPLETED")
        if starting.done():
            await starting
            await service.run(stop)
    finally:
        watchdog.end_within(settings.shutdown_grace_s + _LAST_GRACE_S)
        for task in (beating, starting, stopping):
            task.cancel()
        await asyncio.wait({starting})
        await service.aclose()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)


def _spare_the_collector() -> None:
    """Let the garbage collector walk what is new, seldom, and never what was imported.

    Records come and go by the thousand, and by counting of references alone. With Python's threshold of 700 the
    collector would walk them every few hundred records: a tenth of all the time.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_GC_THRESHOLD, *gc.get_threshold()[1:])


def _told_elsewhere(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Pass on what nobody has asked for, but for failures that an abandoned client leaves behind: those were told."""
    if isinstance(context.get("exception"), KafkaError):
        _logger.debug("%s: %r", context["message"], context["exception"])
    else:
        loop.default_exception_handler(context)


async def _reached(call: Callable[[], Awaitable[dict[str, int]]], budget_s: float) -> dict[str, int]:
    """Repeat a call that fails because it met a node that is down: the client asks another one each time."""
    deadline_s = time.monotonic() + budget_s
    while True:
        try:
            return await call()
        except (KafkaConnectionError, NodeNotReadyError):
            if time.monotonic() >= deadline_s:
                raise
        await asyncio.sleep(_RETRY_S)


async def _beat(watchdog: Watchdog) -> None:
    while True:
        watchdog.beat()
        await asyncio.sleep(_LOOK_INTERVAL_S)


class Service:
    """Consumer, workers, metrics and health of one process; an async context manager.

    Parameters
    ----------
    settings : Settings
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.health = Health(not_ready={"service": "starting"}, silence_s=settings.stall_timeout_s)
        self.metrics = Metrics(self.views, is_alive=lambda: not self.health.why_not_alive(time.monotonic()))
        self._workers: dict[TopicPartition, PartitionWorker] = {}
        self._tasks: dict[TopicPartition, asyncio.Task[None]] = {}
        self._failure: asyncio.Future[None] | None = None
        self._sinks = FileSinks(settings, self.metrics)
        self._stack = contextlib.AsyncExitStack()
        self._consumer: Consumer
        self._admin: AIOKafkaAdminClient
        self._classifier: Classifier
        self._tracing: Tracing | None = None
        self._n_output_partitions = 0
        self._started = False

    async def __aenter__(self) -> Self:
        try:
            await self.start()
        except BaseException:
            await self.aclose()
            raise
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.aclose()

    async def start(self) -> None:
        """Load the library and join the group; `aclose` has to follow, whether it succeeds or not.

        Raises
        ------
        StreamFpError
            When a setting, the library or the broker is at fault.
        """
        settings = self.settings
        started_s = time.perf_counter()
        await asyncio.to_thread(check_sinks, settings)
        self._tracing = await asyncio.to_thread(load_tracing, settings)
        if self._tracing is not None:
            self._stack.push_async_callback(asyncio.to_thread, self._tracing.close)
        self._classifier = await asyncio.to_thread(load_classifier, settings)
        self.metrics.artifact_load.observe(time.perf_counter() - started_s)
        library: Library = self._classifier.library
        self.metrics.follow(self._classifier, settings.checkpoints)
        server = HealthServer(
            settings.http_host, settings.http_port, registry=self.metrics.registry, health=self.health
        )
        self._stack.push_async_callback(asyncio.to_thread, server.close)
        self.http_port = server.port
        _logger.info("connecting to %s", settings.bootstrap_servers)
        try:
            self._admin = new_admin(settings)
            self._stack.push_async_callback(
                close_within, self._admin.close, settings.shutdown_grace_s * (1 - _DRAIN_SHARE)
            )
            await self._admin.start()
            n_partitions = await _reached(lambda: ensure_topics(self._admin, settings), settings.request_timeout_s)
            self._n_output_partitions = n_partitions[settings.output_topic]
            self._consumer = new_consumer(settings)
            self._stack.push_async_callback(
                close_within, self._consumer.stop, settings.shutdown_grace_s * (1 - _DRAIN_SHARE)
            )
            self._failure = asyncio.get_running_loop().create_future()
            self._consumer.subscribe([settings.input_topic], listener=_Listener(self._revoked, self._assigned))
            # A member that was killed a moment ago keeps everybody waiting.
            waiting = asyncio.get_running_loop().call_later(
                _LONG_JOIN_S, _logger.info,
                "still joining group %s; a member that died keeps it for up to its session time-out", settings.group_id,
            )  # fmt: skip
            try:
                await self._consumer.start()
            finally:
                waiting.cancel()
        except (KafkaError, OSError) as error:
            raise await unreachable(settings, error) from error
        self._started = True
        _logger.info(
            "group %s follows %s with model %s, %s, engine %s; metrics on port %d",
            settings.group_id, settings.input_topic, library.version, settings.delivery,
            "compiled" if IS_COMPILED else "interpreted", server.port,
        )  # fmt: skip

    async def run(self, stop: asyncio.Event) -> None:
        """Serve until `stop` is set.

        Raises
        ------
        ServiceError
            When a worker failed for good.
        """
        if self._failure is None:
            msg = "expected a started service"
            raise RuntimeError(msg)
        waiter = asyncio.ensure_future(stop.wait())
        watcher = ProgressWatch(
            self.settings,
            admin=self._admin,
            health=self.health,
            workers=lambda: self._workers,
            is_member=lambda: self._consumer.is_member,
        )
        watch = asyncio.create_task(watcher.run(), name="progress watch")
        try:
            while not (stop.is_set() or self._failure.done() or watch.done()):
                watched: set[asyncio.Future[Any]] = {waiter, watch, self._failure}
                await asyncio.wait(watched, timeout=_LOOK_INTERVAL_S, return_when="FIRST_COMPLETED")
                await self._look()
        except KafkaError as error:
            raise ServiceError(f"group {self.settings.group_id}: {error!r}") from error
        finally:
            waiter.cancel()
            watch.cancel()
        for ended in (self._failure, watch):
            if ended.done() and not ended.cancelled():
                ended.result()

    async def aclose(self) -> None:
        """Drain, publish, commit and leave the group, within the grace period."""
        self.health.not_ready["service"] = "stopping"
        if self._started:
            _logger.info("stopping: publishing and committing what is done")
        try:
            await self._stop_workers(list(self._tasks), self.settings.shutdown_grace_s * _DRAIN_SHARE)
        finally:
            await self._stack.aclose()
        if self._started:
            _logger.info("stopped")

    # ---------------------------------------------------------------------------------------------------- rebalancing

    async def _revoked(self, partitions: Iterable[TopicPartition]) -> None:
        await self._stop_workers(list(partitions), self.settings.session_timeout_s * _REVOKE_BUDGET)

    async def _assigned(self, partitions: Iterable[TopicPartition]) -> None:
        self.metrics.rebalances.inc()
        for partition in partitions:
            # Nothing may be fetched before the worker has said from where; a position keeps the client from asking
            # for the committed offset on its own.
            self._consumer.pause(partition)
            self._consumer.seek(partition, 0)
            worker = PartitionWorker(
                partition,
                consumer=self._consumer,
                admin=self._admin,
                classifier=self._classifier,
                settings=self.settings,
                metrics=self.metrics,
                n_output_partitions=self._n_output_partitions,
                sinks=self._sinks,
                tracing=self._tracing,
            )
            task = asyncio.create_task(worker.run(), name=worker.name)
            task.add_done_callback(self._worker_done)
            self._workers[partition], self._tasks[partition] = worker, task
        self.metrics.assigned.set(len(self._workers))

    async def _stop_workers(self, partitions: list[TopicPartition], budget_s: float) -> None:
        stopping = {p: self._tasks[p] for p in partitions if p in self._tasks}
        for partition in stopping:
            await self._workers[partition].stop()
        if stopping:
            _, late = await asyncio.wait(stopping.values(), timeout=budget_s)
            for task in late:
                # Its transaction is never committed; the next owner's producer ends it.
                _logger.warning("%s: not finished within %.1f s, given up", task.get_name(), budget_s)
                task.cancel()
            if late:
                await asyncio.wait(late, timeout=1.0)
        for partition in stopping:
            # Whoever else was stopping the same workers may have been quicker.
            self._workers.pop(partition, None)
            self._tasks.pop(partition, None)
        self.metrics.assigned.set(len(self._workers))

    def _worker_done(self, task: asyncio.Task[None]) -> None:
        if task.cancelled() or (error := task.exception()) is None:
            return
        if not isinstance(error, StreamFpError):
            _logger.error("%s: unexpected", task.get_name(), exc_info=error)
            error = ServiceError(f"{task.get_name()}: {error!r}")
        if self._failure is not None and not self._failure.done():
            self._failure.set_exception(error)
        else:
            _logger.error("%s: %s", task.get_name(), error)

    # --------------------------------------------------------------------------------------------------- looking after

    async def _look(self) -> None:
        """Refresh readiness, and keep the client's poll clock running while there is nothing to poll."""
        self.health.beat_s = time.monotonic()
        self.metrics.tasks.set(len(asyncio.all_tasks()))
        reasons = {w.name: w.not_ready for w in list(self._workers.values()) if w.not_ready}
        if not self._workers:
            reasons["service"] = "no partition assigned"
            # What it returns, or complains of, is of partitions that are just being taken away or given: their workers
            # seek on their own.
            with contextlib.suppress(NoOffsetForPartitionError, OffsetOutOfRangeError):
                await self._consumer.getmany(timeout_ms=0)
        self.health.not_ready = reasons

    def views(self) -> list[PartitionView]:
        """Return the books of the partitions owned now."""
        return [worker.view() for worker in list(self._workers.values())]


class _Listener(ConsumerRebalanceListener):  # type: ignore[misc]
    def __init__(
        self,
        revoked: Callable[[Iterable[TopicPartition]], Awaitable[None]],
        assigned: Callable[[Iterable[TopicPartition]], Awaitable[None]],
    ) -> None:
        self._revoked = revoked
        self._assigned = assigned

    async def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        await self._revoked(revoked)

    async def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        await self._assigned(assigned)
