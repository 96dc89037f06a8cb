"""The client's consumer without the part of it that costs most: what it does for each record in Python.

aiokafka decodes record batches in C, into records that have offset, time stamp, key, value and headers. It then takes
them one by one through two generators and copies each into a ``ConsumerRecord`` of eleven fields. Nothing here needs
what that adds (topic and partition are known, and nothing is deserialised by the client), so whole batches are decoded
at once and handed out as they are. Measured beside each other on one topic (`benchmarks/service.py`), `getmany` alone
takes a third of the time.

This reaches inside the client, whose version is pinned; `tests/integration/test_consumer.py` compares what both give.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from typing import Any, NoReturn

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.consumer.fetcher import READ_COMMITTED, FetchError, FetchResult, PartitionRecords
from aiokafka.errors import CorruptRecordException

__all__ = ["Consumer"]

Records = list[Any]
#: No position; a result that stands there is thrown away by the client.
_NOWHERE = -1


class Consumer(AIOKafkaConsumer):  # type: ignore[misc]
    """A consumer whose records have ``offset``, ``timestamp``, ``key``, ``value`` and ``headers``, and no more."""

    async def start(self) -> None:
        """Connect, and join the group where there is one; see `AIOKafkaConsumer.start`."""
        await super().start()
        self._fetcher._records = _Results(self._fetcher._records)  # noqa: SLF001

    @property
    def is_member(self) -> bool:
        """Whether the group counts this consumer among its members, as far as the client knows."""
        return bool(self._coordinator.generation >= 0)

    async def getone(self, *partitions: TopicPartition) -> NoReturn:
        """Refuse: what `getmany` has decoded and not handed out yet would be passed over.

        Raises
        ------
        NotImplementedError
        """
        raise NotImplementedError

    async def __anext__(self) -> NoReturn:
        """Refuse, as `getone`."""
        raise NotImplementedError


class _Results(OrderedDict[TopicPartition, "FetchResult | FetchError"]):
    """What was fetched and not handed out yet; every result that comes in will hand out whole batches."""

    def __setitem__(self, partition: TopicPartition, result: FetchResult | FetchError) -> None:
        if isinstance(result, FetchResult):
            # The client asks for the exact type of the result, so a class of our own cannot take its place.
            result.getall = _Batches(result).take
        super().__setitem__(partition, result)


class _Batches:
    """Hands out the records of one fetched result, in place of `FetchResult.getall`."""

    def __init__(self, result: FetchResult) -> None:
        self._result = result
        self._fetched: PartitionRecords = result._partition_records  # noqa: SLF001
        self._batches = self._decoded()
        self._decoded_to: int = self._fetched.next_fetch_offset
        self._left: Records = []

    def take(self, max_records: int | None = None) -> Records:
        """Return the next records, at most so many; none where position or assignment have changed since the fetch."""
        result, fetched = self._result, self._fetched
        if not result.check_assignment(result._topic_partition) or not result.has_more():  # noqa: SLF001
            return []
        found, self._left = self._left, []
        while max_records is None or len(found) < max_records:
            try:
                batch = next(self._batches, None)
            except BaseException:
                # What was taken before is not handed out: the position stays, and the whole is fetched anew.
                fetched.next_fetch_offset = _NOWHERE
                raise
            if batch is None:  # all was handed out
                fetched.next_fetch_offset = self._decoded_to
                result._partition_records = None  # noqa: SLF001
                del result.getall  # which holds the result that holds it
                break
            found = found + batch if found else batch
        else:
            self._left = found[max_records:]
            del found[max_records:]
            fetched.next_fetch_offset = found[-1].offset + 1
        state = result._assignment.state_value(result._topic_partition)  # noqa: SLF001
        state.consumed_to(fetched.next_fetch_offset)
        return found

    def _decoded(self) -> Iterator[Records]:
        """Yield the records of each batch that the isolation level lets through, from the position of the fetch on."""
        fetched = self._fetched
        first_offset = fetched.next_fetch_offset
        while fetched._records.has_next():  # noqa: SLF001
            batch = fetched._records.next_batch()  # noqa: SLF001
            if fetched._check_crcs and not batch.validate_crc():  # noqa: SLF001
                raise CorruptRecordException(f"wrong checksum in {fetched._tp}")  # noqa: SLF001
            is_aborted = self._is_aborted(batch)
            records = [] if is_aborted or batch.is_control_batch else list(batch)
            # After the batch, even if its last records were compacted away: who asks for these again is given the same
            # batch for ever.
            self._decoded_to = batch.next_offset
            if records and records[0].offset < first_offset:  # a fetch begins with the batch that holds its offset
                records = [record for record in records if record.offset >= first_offset]
            if records:
                yield records

    def _is_aborted(self, batch: Any) -> bool:  # noqa: ANN401 - of two compiled kinds
        """Whether a batch belongs to an aborted transaction; takes note of where such begin and end."""
        fetched = self._fetched
        if fetched._isolation_level != READ_COMMITTED or batch.producer_id is None:  # noqa: SLF001
            return False
        fetched._consume_aborted_up_to(batch.base_offset)  # noqa: SLF001
        aborted: set[int] = fetched._aborted_producers  # noqa: SLF001
        if batch.is_control_batch and fetched._contains_abort_marker(batch):  # noqa: SLF001
            aborted.discard(batch.producer_id)
        return bool(batch.is_transactional and batch.producer_id in aborted)
