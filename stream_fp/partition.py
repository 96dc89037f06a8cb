"""One input partition from assignment to revocation: engine, sidecars and publisher in their order.

The order is what correctness rests on:

1. start the producer, which fences the former owner and ends its transaction;
2. read the committed offset and its progress note; seek there;
3. feed the engine, which is silent up to the published position;
4. for each batch: write the sidecars, then publish outcomes and progress in one transaction (`outbox.py`). A crash in
   between writes the same sidecar again.

When publishing fails, producer, engine and outbox are thrown away and all four are gone through again.

Where settings or model are other than those of the last commit, step 3 also asks the output topic what sessions that
are still open have been told, and what they are owed under the new settings is published before anything else.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import IllegalStateError, KafkaError, ProducerFenced

from stream_fp.classifier import Classifier
from stream_fp.config import Settings
from stream_fp.engine import Engine
from stream_fp.kafka.intake import Intake
from stream_fp.kafka.progress import Progress, StartingPoint, find_starting_point, fingerprint_of
from stream_fp.kafka.publisher import TOO_LARGE, Publisher
from stream_fp.kafka.rights import lacking_right
from stream_fp.kafka.told import Told, find_told, last_told
from stream_fp.ledger import PartitionLedger
from stream_fp.logs import Log, at
from stream_fp.messages import Record
from stream_fp.metrics import Metrics, PartitionView
from stream_fp.outbox import FIRST_BACKOFF_S, MAX_BACKOFF_S, Commit, Outbox
from stream_fp.predictor import Predictor
from stream_fp.sinks.files import FileSinks

if TYPE_CHECKING:
    from stream_fp.kafka.tracing import Tracing

__all__ = ["PartitionWorker"]

_logger = logging.getLogger(__name__)

#: Of the session time-out: two heartbeats.
_FENCED_PAUSE: Final = 2 / 3
#: For what has come since a batch that brought something.
_LOOK_MS: Final = 1
#: Predictions owed after a change of settings go out in transactions of so many.
_OWED_AT_ONCE: Final = 500


class PartitionWorker:
    """Follows one partition until it is stopped.

    Parameters
    ----------
    partition : TopicPartition
    consumer : AIOKafkaConsumer
        Shared by the workers; each takes the records of its own partition.
    admin : AIOKafkaAdminClient
    classifier : Classifier
    settings : Settings
    metrics : Metrics
    n_output_partitions : int
        Of the output topic.
    sinks : FileSinks
        Shared by the workers.
    tracing : Tracing, optional
        Likewise.
    """

    def __init__(
        self,
        partition: TopicPartition,
        *,
        consumer: AIOKafkaConsumer,
        admin: AIOKafkaAdminClient,
        classifier: Classifier,
        settings: Settings,
        metrics: Metrics,
        n_output_partitions: int,
        sinks: FileSinks,
        tracing: Tracing | None = None,
    ) -> None:
        self.partition = partition
        self.name = f"{partition.topic}[{partition.partition}]"
        self._consumer = consumer
        self._admin = admin
        self._classifier = classifier
        self._settings = settings
        self._metrics = metrics
        self._n_output_partitions = n_output_partitions
        self._sinks = sinks
        self._tracing = tracing
        self._fingerprint = fingerprint_of(
            settings.engine_settings(),
            classifier.library,
            settings.distance_metric,
            settings.confidence_method,
            settings.assignment,
        )
        self._publisher: Publisher | None = None
        self._engine: Engine | None = None
        self._outbox: Outbox | None = None
        self._intake = Intake(consumer, partition, n_at_once=settings.max_poll_records)
        self._stopping = asyncio.Event()
        model_version = classifier.library.version
        self._log = Log(_logger, **at(partition, model_version=model_version))
        self._ledger = PartitionLedger(partition, metrics, model_version=model_version)
        self._changed_at = 0
        #: Offset up to which records were taken and, where anything was due, published: what stalls are judged by.
        self.furthest = 0
        #: End of the partition as the brokers were last asked, by somebody else than the client that consumes.
        self.known_end: int | None = None
        #: Since when no record has been taken although some wait, as was last seen; None where that is not so.
        self.still_since_s: float | None = None
        self._rebuilding = False
        self._n_failures = 0
        self._n_refused = 0
        self._state = "starting"

    @property
    def not_ready(self) -> str:
        """What keeps the worker from being ready; empty where it is."""
        return self._state or ("" if self._outbox is None else self._outbox.cannot_write)

    # ------------------------------------------------------------------------------------------------------- running

    async def run(self) -> None:
        """Follow the partition until `stop`; failures that can pass are started over, others are raised.

        Raises
        ------
        ServiceError
            When no new attempt could go better.
        """
        while not self._stopping.is_set():
            try:
                await self._start()
                while not self._stopping.is_set():
                    await self._step()
                await self._running_outbox().flush()
                await self._close_publisher()
            except ProducerFenced:
                # Somebody else owns the partition, or the broker has ended a transaction that took too long. To start
                # a producer now could fence a rightful owner, to no harm but delay; by the second heartbeat from now
                # the group has told us, and taken the partition away, if there is one.
                self._log.warning("fenced by another owner or by a transaction that took too long")
                self._state = "fenced"
                self._metrics.publish_failures.inc()
                await self._abandon_publisher()
                await self._pause(_FENCED_PAUSE * self._settings.session_timeout_s)
            except (KafkaError, TimeoutError, OSError) as error:
                if isinstance(error, TOO_LARGE):
                    is_dead_letter = self._publisher is not None and self._publisher.has_refused_dead_letter
                    self._n_refused = max(1, self._n_refused + is_dead_letter)
                backoff_s = min(FIRST_BACKOFF_S * 2**self._n_failures, MAX_BACKOFF_S)
                self._n_failures += 1
                self._metrics.publish_failures.inc()
                if self._stopping.is_set():
                    self._log.warning("not published, left to the next owner: %r", error)
                    break
                why = lacking_right(error, self._settings) or f"{type(error).__name__}: {error}"
                self._state = f"starting over after {why}"
                self._log.warning("starting over in %.1f s: %s", backoff_s, why)
                await self._abandon_publisher()
                await self._pause(backoff_s)
            finally:
                await self._abandon_publisher()

    async def stop(self) -> None:
        """Ask `run` to finish what it has begun and to return."""
        self._stopping.set()
        self._intake.stop()

    async def _start(self) -> None:
        settings = self._settings
        started_s = time.perf_counter()
        publisher = Publisher(
            settings,
            self.partition,
            n_output_partitions=self._n_output_partitions,
            consumer=self._consumer,
            n_refused=self._n_refused,
            tracing=self._tracing,
        )
        self._publisher = publisher
        await publisher.start()
        point = await find_starting_point(
            self._consumer,
            self._admin,
            group_id=settings.group_id,
            partition=self.partition,
            start_from=settings.start_from,
            offset_lost=settings.offset_lost,
            last_told=lambda: last_told(settings, self.partition, n_output_partitions=self._n_output_partitions),
            stable=settings.delivery == "exactly-once",
            timeout_s=settings.request_timeout_s,
        )
        told = await self._told_under_other_settings(point)
        library = self._classifier.library
        self._engine = Engine(
            Predictor(self._classifier, clock=time.perf_counter_ns),
            settings.engine_settings(),
            schedules=library.schedules,
            typical_events=library.typical_events,
            published_offset=point.published_offset,
            watermark_us=point.watermark_us,
            already_told=None if told is None else told.covers,
            clock=time.perf_counter_ns,
        )
        if point.is_new:
            note = self._progress(point.published_offset, point.low_offset, point.watermark_us)
            await publisher.publish([], point.low_offset, note)
        self._ledger.begin(self._engine, point.low_offset)
        self._outbox = Outbox(
            self.name,
            self._engine,
            publisher,
            position=point.published_offset,
            progress=self._progress,
            settings=settings,
            metrics=self._metrics,
            sinks=self._sinks,
            log=self._log,
            stopping=self._stopping,
            committed=self._committed,
            nothing_due=self._nothing_due,
        )
        self._intake.seek(point.low_offset)
        self._log.info("reads from offset %d, publishes from %d", point.low_offset, point.published_offset)
        self._rebuilding = True
        beyond = await self._rebuild(self._engine, point.low_offset, point.published_offset)
        self._rebuilding = False
        self._ledger.rebuilding(0)
        if told is not None and not self._stopping.is_set():
            await self._publish_owed(self._engine, point)
        if beyond and not self._stopping.is_set():
            await self._take(self._engine, beyond)
        self._metrics.rebuild.observe(time.perf_counter() - started_s)
        if not self._n_failures:
            self._state = ""

    async def _rebuild(self, engine: Engine, low_offset: int, published_offset: int) -> Sequence[Record]:
        """Read what was published before once more, until the engine is where it was.

        Returns the records that came along and lie beyond: what is owed has to be published before them.
        """
        position, beyond = low_offset, list[Record]()
        while position < published_offset and not self._stopping.is_set():
            self._state = f"rebuilding, {published_offset - position} records to go"
            self._ledger.rebuilding(published_offset - position)
            records = await self._fetch()
            beyond = [record for record in records if record.offset >= published_offset]
            if not await self._take(engine, records[: len(records) - len(beyond)]) or beyond:
                # Records may have been deleted or be markers: the client's position tells that they were passed.
                position = await self._consumer.position(self.partition)
            else:
                position = engine.position or position
            self.furthest = max(self.furthest, min(position, published_offset))
        return beyond

    async def _told_under_other_settings(self, point: StartingPoint) -> Told | None:
        """Return what open sessions have been told, where settings or model have changed since; else None."""
        self._changed_at = point.changed_at
        if point.fingerprint not in (None, self._fingerprint):
            self._changed_at = point.published_offset
            self._log.warning("settings or model differ from those of the last commit")
        if point.low_offset >= self._changed_at:
            return None
        self._log.info(
            "looking in %s for what sessions open now were told since offset %d",
            self._settings.output_topic,
            point.low_offset,
        )
        self._state = "reading its own output, after a change of settings or model"
        return await find_told(
            self._settings,
            self.partition,
            since=point.low_offset,
            changed_at=self._changed_at,
            n_output_partitions=self._n_output_partitions,
        )

    async def _publish_owed(self, engine: Engine, point: StartingPoint) -> None:
        """Publish what sessions open now are owed under the new settings, and commit these.

        Until all is published the commit says nothing of settings: after a crash in between, whoever comes next, with
        these settings or with those before, looks into the output topic again.
        """
        outcomes = list(engine.speak())
        self._log.info("%d predictions owed after the change of settings or model", len(outcomes))
        publisher = self._running_publisher()
        unsettled = Progress(
            published=point.published_offset,
            watermark_us=point.watermark_us,
            fingerprint="",
            changed_at=point.published_offset,
        )
        for first in range(0, len(outcomes), _OWED_AT_ONCE):
            owed = outcomes[first : first + _OWED_AT_ONCE]
            await self._running_outbox().write_sidecars(owed)
            await publisher.publish(owed, point.low_offset, unsettled)
            self._ledger.committed(engine, engine.counts.copy(), point.low_offset, owed)
        low_offset, watermark_us = engine.low_offset or (point.published_offset, engine.watermark_us)
        await publisher.publish([], low_offset, self._progress(point.published_offset, low_offset, watermark_us))
        self._ledger.committed(engine, engine.counts.copy(), low_offset, [])

    async def _step(self) -> None:
        engine = self._running_engine()
        # When stopping, what the client has passed need not have come here.
        if not await self._take(engine, await self._fetch()) and not self._stopping.is_set():
            # Markers of transactions are passed without a record; the client knows.
            with contextlib.suppress(IllegalStateError):  # taken away meanwhile
                position = await self._consumer.position(self.partition)
                engine.pass_over(position)
                self._ledger.passed(position)
                if self._running_outbox().is_empty:
                    self.furthest = max(self.furthest, position)

    async def _take(self, engine: Engine, records: Sequence[Record]) -> bool:
        """Process records and publish what is due; return whether there were any."""
        # Records that were prefetched come without a pause: let heartbeats and other partitions have their turn, and
        # the client ask for more, so that it comes while the engine is busy.
        await asyncio.sleep(0)
        outbox = self._running_outbox()
        await outbox.put(engine.process_all(records), n_behind=self._batches_behind(engine))
        if outbox.is_empty:
            self.furthest = max(self.furthest, engine.position or 0)
        self._ledger.observe_decoding(engine)
        return bool(records)

    def _batches_behind(self, engine: Engine) -> float:
        """How much there is to read, of what is taken at once."""
        # Of a partition that is being taken away the client knows nothing any more.
        with contextlib.suppress(AssertionError, AttributeError, KeyError):
            end: int | None = self._consumer.last_stable_offset(self.partition)
            if end is not None and engine.position is not None:
                return (end - engine.position) / self._settings.max_poll_records
        return 0.0

    # ---------------------------------------------------------------------------------------------------- the details

    async def _fetch(self) -> list[Record]:
        """Return the next records, or none after the commit interval or when stopping."""
        outbox = self._running_outbox()
        if outbox.is_empty:
            return await self._intake.wait(self._settings.commit_interval_s)
        records = await self._intake.look(_LOOK_MS if outbox.looks_once_more else 0)
        if records or outbox.looks_once_more:
            return records
        return await self._intake.wait(outbox.patience_s)

    def _committed(self, commit: Commit) -> None:
        self._n_refused = 0
        self._recovered()
        self.furthest = max(self.furthest, commit.position)
        self._ledger.committed(self._running_engine(), commit.counts, commit.low_offset, commit.outcomes)

    def _nothing_due(self) -> None:
        if not self._rebuilding:
            self._recovered()

    def _progress(self, published: int, low_offset: int, watermark_us: int | None) -> Progress:
        # Once no session is open from before the change, nobody has to know of it any more.
        changed_at = self._changed_at if low_offset < self._changed_at else 0
        return Progress(
            published=published, watermark_us=watermark_us, fingerprint=self._fingerprint, changed_at=changed_at
        )

    def _recovered(self) -> None:
        """Take note that publishing works, or that there is nothing to publish."""
        if self._n_failures:
            self._n_failures = 0
            self._state = ""

    def _running_engine(self) -> Engine:
        if self._engine is None:
            msg = "expected a started worker"
            raise RuntimeError(msg)
        return self._engine

    def _running_outbox(self) -> Outbox:
        if self._outbox is None:
            msg = "expected a started worker"
            raise RuntimeError(msg)
        return self._outbox

    def _running_publisher(self) -> Publisher:
        if self._publisher is None:
            msg = "expected a started worker"
            raise RuntimeError(msg)
        return self._publisher

    async def _pause(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), seconds)

    async def _close_publisher(self) -> None:
        """Stop the producer in good order after all is published."""
        publisher, self._publisher = self._publisher, None
        if publisher is not None:
            try:
                async with asyncio.timeout(self._settings.request_timeout_s):
                    await publisher.aclose()
            except (KafkaError, TimeoutError) as error:
                self._log.warning("closing the producer: %r", error)

    async def _abandon_publisher(self) -> None:
        outbox, self._outbox = self._outbox, None
        if outbox is not None:
            await outbox.abandon()
        publisher, self._publisher = self._publisher, None
        if publisher is not None:
            await publisher.abandon()

    # ------------------------------------------------------------------------------------------------------- looking

    def view(self) -> PartitionView:
        """Return what a scrape sees; called from another thread, so it only reads."""
        # Where nothing is fetched any more, the client does not learn that the partition grows.
        fetched, asked = self._consumer.highwater(self.partition), self.known_end
        end = fetched if asked is None else max(asked, fetched or 0)
        still_since_s = self.still_since_s
        return self._ledger.view(end, stalled_s=0.0 if still_since_s is None else time.monotonic() - still_since_s)
