"""Publishing the outcomes of one partition together with its progress: all of it or nothing.

With exactly-once delivery, predictions, dead letters and the group's offset are one Kafka transaction by a producer
whose id belongs to the input partition, so that starting it fences whoever owned the partition before. At least once,
the same is sent without a transaction, offsets last: a crash in between repeats, never loses.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import Awaitable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import (
    InvalidTransactionTimeout,
    KafkaError,
    MessageSizeTooLargeError,
    ProducerClosed,
    RecordListTooLargeError,
)
from aiokafka.structs import OffsetAndMetadata

from stream_fp.config import Settings
from stream_fp.errors import ServiceError
from stream_fp.kafka.clients import new_producer
from stream_fp.kafka.progress import Progress
from stream_fp.kafka.told import GROUP_HEADER, OWED_HEADER, SOURCE_HEADER
from stream_fp.kafka.transactions import Transactions
from stream_fp.messages import encode_prediction
from stream_fp.outcomes import DeadLetter, Outcome, Published

if TYPE_CHECKING:
    from stream_fp.kafka.tracing import Tracing

__all__ = ["TOO_LARGE", "Publisher"]

Headers = list[tuple[str, bytes]]

#: What a record that broker or client takes for too large fails with.
TOO_LARGE: Final = (MessageSizeTooLargeError, RecordListTooLargeError)
#: Bytes of the value, and of key and of headers, that a dead letter keeps, by how often in a row it was refused as too
#: large; a header says what was left out, and the original stays where topic, partition and offset say. In the
#: batches of that time the last step fits wherever 8 KiB do.
_LARGEST_KEPT: Final[tuple[tuple[float, float], ...]] = (
    (math.inf, math.inf),
    (math.inf, math.inf),
    (100_000, math.inf),
    (1_000, 1_000),
)
#: Of a batch, by the same number: brokers judge its size, and take a megabyte where nobody has set `max.message.bytes`.
#: The client takes the next one only when it has sent the last, so floods of dead letters want large ones.
_BATCH_BYTES: Final = (768 * 2**10, 128 * 2**10, 6 * 2**10)
_MAX_REASON_LENGTH: Final = 1_000
#: Records handed to the client before others have their turn; it takes some 40 us for each, and of dead letters, which
#: are handed over in batches, a tenth of that.
_SENT_AT_ONCE: Final = 200
#: What a record takes on the wire beside key, value and headers, at most; for each header likewise.
_RECORD_OVERHEAD: Final = 64
_HEADER_OVERHEAD: Final = 10
#: What an abandoned producer gets for taking its leave.
_ABANDON_S: Final = 1.0


class Publisher:
    """Publishes for one input partition.

    Parameters
    ----------
    settings : Settings
    partition : TopicPartition
        The input partition.
    n_output_partitions : int
        Of the output topic.
    consumer : AIOKafkaConsumer
        Commits the offset where delivery is at least once.
    n_refused : int
        How often in a row broker or client have refused what is due as too large. After the first time it is
        compressed, after the second large dead letters go without their value, after the third also without the key
        and the headers that they came with, where these are large; each time with a header that says so.
    tracing : Tracing, optional
        Makes a trace of each outcome.
    """

    def __init__(
        self,
        settings: Settings,
        partition: TopicPartition,
        *,
        n_output_partitions: int,
        consumer: AIOKafkaConsumer,
        n_refused: int = 0,
        tracing: Tracing | None = None,
    ) -> None:
        self._settings = settings
        self._tracing = tracing
        self._partition = partition
        # The output partition of the same number: then a partition's output tells which of its sessions are done.
        self._output_partition = partition.partition if partition.partition < n_output_partitions else None
        self._consumer = consumer
        self._compress = n_refused >= 1
        self._batch_bytes = _BATCH_BYTES[min(n_refused, len(_BATCH_BYTES) - 1)]
        self._largest_value, self._largest_rest = _LARGEST_KEPT[min(n_refused, len(_LARGEST_KEPT) - 1)]
        self._keeps_all = self._largest_value == math.inf
        self._source_headers = [
            _error_header("topic", partition.topic),
            _error_header("partition", str(partition.partition)),
        ]
        self._kind_headers: dict[tuple[str, str], Headers] = {}
        self._exactly_once = settings.delivery == "exactly-once"
        self._producer: AIOKafkaProducer | None = None
        self._transactions: Transactions | None = None
        #: Whether what was refused as too large was a dead letter: a prediction does not get smaller.
        self.has_refused_dead_letter = False
        #: How long the broker took to commit the last transaction.
        self.commit_s = 0.0

    @property
    def is_transactional(self) -> bool:
        """Whether what it publishes is one transaction."""
        return self._exactly_once

    @property
    def transactional_id(self) -> str:
        """Id of the transactional producer: the same for every owner of the partition."""
        return f"{self._settings.group_id}-{self._partition.topic}-{self._partition.partition}"

    async def start(self) -> None:
        """Start the producer; with exactly-once delivery this fences the partition's former owner.

        Raises
        ------
        KafkaError, TimeoutError
            When the broker refuses, or does not answer in time.
        ServiceError
            When it never will do otherwise: the transaction time-out is above the broker's limit.
        """
        transactional_id = self.transactional_id if self._exactly_once else None
        producer = new_producer(
            self._settings, transactional_id, compress=self._compress, batch_bytes=self._batch_bytes
        )
        self._producer = producer
        try:
            async with asyncio.timeout(self._settings.transaction_timeout_s):
                await _translated(producer.start())
        except InvalidTransactionTimeout as error:
            await self.abandon()
            raise ServiceError(
                f"setting `transaction_timeout_s`: the broker refuses {self._settings.transaction_timeout_s:g} s; its "
                "own setting `transaction.max.timeout.ms` allows less"
            ) from error
        except BaseException:
            await self.abandon()
            raise
        if self._exactly_once:
            output = self._output_partition
            self._transactions = Transactions(
                producer,
                group_id=self._settings.group_id,
                output=None if output is None else TopicPartition(self._settings.output_topic, output),
                timeout_s=self._settings.transaction_timeout_s,
            )

    async def aclose(self) -> None:
        """Stop the producer in good order; call `abandon` instead where it has failed."""
        producer, transactions = self._let_go()
        is_clean = transactions is None or await transactions.aclose()
        if producer is None:
            return
        try:
            if is_clean:
                await producer.stop()
        except BaseException:
            is_clean = False
            raise
        finally:
            if not is_clean:
                await _abandon(producer)

    async def abandon(self) -> None:
        """Throw away a producer that has failed, with whatever it was about to send.

        Its transaction is aborted by its successor or by its time-out. Nothing is waited for: a producer that has lost
        its way may try for ever, and an idempotent one never gives up a batch by itself.
        """
        producer, transactions = self._let_go()
        if transactions is not None:
            transactions.abandon()
        if producer is not None:
            await _abandon(producer)

    def _let_go(self) -> tuple[AIOKafkaProducer | None, Transactions | None]:
        producer, transactions = self._producer, self._transactions
        self._producer = self._transactions = None
        return producer, transactions

    async def publish(self, outcomes: Sequence[Outcome], low_offset: int, progress: Progress) -> None:
        """Publish outcomes and commit progress; returns once the broker has acknowledged all of it.

        Raises
        ------
        aiokafka.errors.KafkaError, TimeoutError
            When it failed, whatever the cause. The publisher has to be abandoned then, and the state rebuilt from the
            committed offset; after one of `TOO_LARGE`, the next publisher should be told. (The broker's
            refusal of a batch leaves the producer without a valid sequence, so the same one cannot try again.)
        """
        # The wall clock goes into a header and nowhere else: key and value are the same in live and replay.
        processed_at = datetime.now(UTC).isoformat().encode()
        dead_letters = [outcome for outcome in outcomes if isinstance(outcome, DeadLetter)]
        predictions = [outcome for outcome in outcomes if isinstance(outcome, Published)]
        records = [self._to_record(prediction, processed_at) for prediction in predictions]
        if self._tracing is None:
            await self._publish(records, dead_letters, low_offset, progress)
            return
        with self._tracing.publishing([*predictions, *dead_letters], self._partition) as spans:
            # A dead letter's headers are those that it came with, its context among them.
            for record, context in zip(records, spans.headers, strict=False):
                record["headers"] += context
            await self._publish(records, dead_letters, low_offset, progress)

    async def _publish(
        self, records: list[dict[str, Any]], dead_letters: list[DeadLetter], low_offset: int, progress: Progress
    ) -> None:
        offsets = {self._partition: OffsetAndMetadata(low_offset, progress.encode())}
        producer = self._producer
        if producer is None:
            msg = "expected a started publisher"
            raise RuntimeError(msg)
        # A transaction that takes longer is aborted by the broker in any case; and where a background task of the
        # client has died (aiokafka #1098, #1151), it would never come to an end.
        async with asyncio.timeout(self._settings.transaction_timeout_s):
            if self._transactions is not None:
                publishing = self._publish_in_transaction(producer, self._transactions, records, dead_letters, offsets)
            else:
                publishing = self._publish_at_least_once(producer, records, dead_letters, offsets)
            await _translated(publishing)

    async def _publish_at_least_once(
        self,
        producer: AIOKafkaProducer,
        records: Sequence[dict[str, Any]],
        dead_letters: Sequence[DeadLetter],
        offsets: dict[TopicPartition, OffsetAndMetadata],
    ) -> None:
        await self._send(producer, records, dead_letters)
        await self._consumer.commit(offsets)

    async def _publish_in_transaction(
        self,
        producer: AIOKafkaProducer,
        transactions: Transactions,
        records: Sequence[dict[str, Any]],
        dead_letters: Sequence[DeadLetter],
        offsets: dict[TopicPartition, OffsetAndMetadata],
    ) -> None:
        # Not `producer.transaction()`: it would try to abort after a failure, with a producer that may be unable to.
        await transactions.begin()
        await producer.send_offsets_to_transaction(offsets, self._settings.group_id)
        await self._send(producer, records, dead_letters)
        started_s = time.perf_counter()
        await producer.commit_transaction()
        self.commit_s = time.perf_counter() - started_s
        transactions.open_ahead()

    async def _send(
        self, producer: AIOKafkaProducer, records: Sequence[dict[str, Any]], dead_letters: Sequence[DeadLetter]
    ) -> None:
        """Hand predictions and dead letters to the client, and wait until the broker has acknowledged them."""
        letters = await self._send_dead_letters(producer, dead_letters) if dead_letters else []
        acknowledgements = list[Awaitable[object]](letters)
        for n_sent, record in enumerate(records, 1):
            acknowledgements.append(await producer.send(**record))
            if n_sent % _SENT_AT_ONCE == 0:
                await asyncio.sleep(0)
        try:
            await asyncio.gather(*acknowledgements)
        except TOO_LARGE:
            done = [letter for letter in letters if letter.done() and not letter.cancelled()]
            self.has_refused_dead_letter = any(isinstance(letter.exception(), TOO_LARGE) for letter in done)
            raise

    async def _send_dead_letters(
        self, producer: AIOKafkaProducer, dead_letters: Sequence[DeadLetter]
    ) -> list[asyncio.Future[object]]:
        """Hand dead letters to the client in batches: whoever floods the topic with them must not hold up the rest.

        They go to the partition of the same number, or round it, so they keep the order of their source.
        """
        topic = self._settings.dead_letter_topic
        partitions = sorted(await producer.partitions_for(topic))
        partition = partitions[self._partition.partition % len(partitions)]
        acknowledgements = []
        batch = producer.create_batch()
        self._check_size(*self._dead_letter(dead_letters[0]))
        for n_sent, outcome in enumerate(dead_letters, 1):
            timestamp: int = outcome.record.timestamp  # type: ignore[attr-defined]
            key, value, headers = self._dead_letter(outcome)
            if batch.append(timestamp=timestamp, key=key, value=value, headers=headers) is None:  # full
                acknowledgements.append(await producer.send_batch(batch, topic, partition=partition))
                self._check_size(key, value, headers)
                batch = producer.create_batch()  # the first one always fits
                batch.append(timestamp=timestamp, key=key, value=value, headers=headers)
            if n_sent % _SENT_AT_ONCE == 0:
                await asyncio.sleep(0)
        acknowledgements.append(await producer.send_batch(batch, topic, partition=partition))
        return acknowledgements

    def _check_size(self, key: bytes | None, value: bytes | None, headers: Headers) -> None:
        """Refuse what the client would refuse if it were not part of a batch: such a one is the first of its batch."""
        n_bytes = _RECORD_OVERHEAD + len(key or b"") + len(value or b"")
        n_bytes += sum(_HEADER_OVERHEAD + len(name) + len(text or b"") for name, text in headers)
        if n_bytes > self._settings.max_request_bytes:
            self.has_refused_dead_letter = True
            raise MessageSizeTooLargeError(
                f"a dead letter of {n_bytes} bytes, with `max_request_bytes` = {self._settings.max_request_bytes}"
            )

    def _to_record(self, outcome: Published, processed_at: bytes) -> dict[str, Any]:
        return {
            "topic": self._settings.output_topic,
            "partition": self._output_partition,
            "key": outcome.key,
            "value": encode_prediction(outcome.prediction),
            "headers": self._prediction_headers(outcome, processed_at),
        }

    def _dead_letter(self, outcome: DeadLetter) -> tuple[bytes | None, bytes | None, Headers]:
        """Return key, value and headers."""
        record: Any = outcome.record
        kind = outcome.stage, outcome.error_class
        if kind not in self._kind_headers:  # few
            self._kind_headers[kind] = [_error_header("stage", kind[0]), _error_header("class", kind[1])]
        errors = [
            *self._source_headers,
            ("stream_fp.errors.offset", b"%d" % record.offset),
            *self._kind_headers[kind],
            ("stream_fp.errors.message", outcome.message[:_MAX_REASON_LENGTH].encode("utf-8", "replace")),
        ]
        key, value, headers = record.key, record.value, record.headers
        if self._keeps_all:
            return key, value, [*headers, *errors] if headers else errors
        omitted: dict[str, int] = {}
        if value is not None and len(value) > self._largest_value:
            omitted["value"], value = len(value), None
        if key is not None and len(key) > self._largest_rest:
            omitted["key"], key = len(key), None
        if (n_bytes := sum(len(name.encode()) + len(text or b"") for name, text in headers)) > self._largest_rest:
            omitted["headers"], headers = n_bytes, []
        errors += [_error_header(f"{what}_omitted_bytes", str(n)) for what, n in omitted.items()]
        return key, value, [*headers, *errors]

    def _prediction_headers(self, outcome: Published, processed_at: bytes) -> Headers:
        source = f"{self._partition.topic}-{self._partition.partition}@{outcome.record.offset}"
        headers = [
            (SOURCE_HEADER, source.encode()),
            (GROUP_HEADER, self._settings.group_id.encode()),
            ("stream_fp.model_version", outcome.prediction.classification_metadata.model_version.encode()),
            ("stream_fp.processed_at", processed_at),
        ]
        return [*headers, (OWED_HEADER, b"1")] if outcome.is_owed else headers


def _error_header(name: str, text: str) -> tuple[str, bytes]:
    return f"stream_fp.errors.{name}", text.encode()


async def _translated(call: Awaitable[None]) -> None:
    """Await a call of the client, whose own state machine gives out by assertions and key errors: failures to us."""
    try:
        await call
    except (KafkaError, TimeoutError):
        raise
    except Exception as error:
        raise KafkaError(f"inside the client: {error!r}") from error


async def _abandon(producer: AIOKafkaProducer) -> None:
    # The public `stop` waits until everything has been delivered, so this reaches inside; the version is pinned.
    accumulator, sender = producer._message_accumulator, producer._sender  # noqa: SLF001
    await producer.client.close()
    task = sender.sender_task if sender is not None else None
    deadline_s = time.monotonic() + _ABANDON_S
    while task is not None and not task.done() and time.monotonic() < deadline_s:
        # When cancelled, the task waits for the requests under way. Most of them have failed with the connections; one
        # that looks for a coordinator looks for ever, and is itself cancelled the second time.
        task.cancel()
        await asyncio.wait({task}, timeout=_ABANDON_S / 5)
    accumulator.fail_all(ProducerClosed())
    if task is None or task.done():
        with contextlib.suppress(Exception):
            async with asyncio.timeout(_ABANDON_S):
                await producer.stop()
