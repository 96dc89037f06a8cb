"""The transactions of one producer, each opened before anything is due that would have to wait for it.

A transaction is a row of requests: the group's offsets and the output partition are announced to the coordinator, then
come offset and records, then the end. The announcements say nothing of what will be published, and right after another
transaction the broker refuses them until it has written that one's markers. So they are made once a transaction is
committed, while nothing is due: publishing then has to wait for offset, records and end alone.

An opened transaction holds nobody up. Readers of the output wait for records of open transactions, and there are none
yet; who asks for the committed offset waits for offsets that were sent, and none was. But it has begun, and a broker
ends what takes too long, by which the producer is fenced. So one that stays unused is ended in time, and none is opened
in its place: a partition that falls silent asks nothing of the broker.

This reaches inside the client, whose version is pinned; `tests/integration/test_transactions.py` has what it relies on.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any, Final

from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.client import CoordinationType
from aiokafka.errors import KafkaError
from aiokafka.producer.sender import AddOffsetsToTxnHandler, AddPartitionsToTxnHandler, BaseHandler

__all__ = ["Transactions"]

#: Of its time-out, how long a transaction may stay open unused; what is left is for what will be published in it.
_UNUSED: Final = 0.25
#: The markers of a transaction are written within some milliseconds; to ask sooner keeps the broker from doing so.
_MARKERS_S: Final = 0.003
#: How long to wait before an announcement is made again, where markers are late, and longer and longer from then on:
#: something is wrong, and asking more often does not mend it.
_FIRST_PAUSE_S: Final = 0.002
_MAX_PAUSE_S: Final = 0.1
_LONGER: Final = 1.25
#: What an unused transaction gets for being ended when the producer is closed; its successor ends it otherwise.
_CLOSE_S: Final = 1.0


class Transactions:
    """Begins transactions; sending and committing are the producer's own.

    Parameters
    ----------
    producer : AIOKafkaProducer
        Transactional, and started.
    group_id : str
        The group whose offsets each transaction will hold.
    output : TopicPartition, optional
        The partition that its records go to, where there is only one; those of others are announced as they come.
    timeout_s : float
        After which the broker ends a transaction.
    """

    def __init__(
        self, producer: AIOKafkaProducer, *, group_id: str, output: TopicPartition | None, timeout_s: float
    ) -> None:
        self._producer = producer
        self._group_id = group_id
        self._output = output
        self._unused_s = _UNUSED * timeout_s
        self._under_way: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._is_open = False

    def open_ahead(self) -> None:
        """Open the next transaction in the background; what fails is raised by `begin`."""
        self._go_on(self._open_ahead())

    async def begin(self) -> None:
        """Return once a transaction is open, for the caller to use and to commit.

        Raises
        ------
        aiokafka.errors.KafkaError
            When opening failed (topic or group not allowed, for instance), be it now or beforehand, or what was to end
            an unused transaction did.
        """
        await self._settled()
        if not self._is_open:
            await self._open()
        self._is_open = False

    async def aclose(self) -> bool:
        """End a transaction that was opened and not used; return whether that went well.

        Where it did not, the successor ends it at once, and the producer has to be abandoned: stopped, it would go on
        trying to end it for as long as no broker answers.
        """
        is_ended = False
        with contextlib.suppress(Exception):
            async with asyncio.timeout(_CLOSE_S):
                await self._settled()
                if self._is_open:
                    await self._producer.abort_transaction()
            is_ended = True
        self.abandon()
        return is_ended

    def abandon(self) -> None:
        """Let go of everything at once, whatever the broker may still do."""
        self._is_open = False
        if self._timer is not None:
            self._timer.cancel()
        if self._under_way is not None:
            self._under_way.cancel()

    async def _settled(self) -> None:
        """Wait for what was begun in the background, and let nothing more begin there."""
        while self._under_way is not None:
            under_way, self._under_way = self._under_way, None
            await under_way
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _go_on(self, work: Any) -> None:  # noqa: ANN401 - a coroutine
        self._under_way = asyncio.create_task(work)
        # Where nobody asks any more, nobody need be told.
        self._under_way.add_done_callback(lambda task: task.cancelled() or task.exception())

    async def _open_ahead(self) -> None:
        await asyncio.sleep(_MARKERS_S)
        await self._open()
        self._timer = asyncio.get_running_loop().call_later(self._unused_s, self._end_unused)

    def _end_unused(self) -> None:
        self._timer, self._is_open = None, False
        self._go_on(self._producer.abort_transaction())

    async def _open(self) -> None:
        await self._producer.begin_transaction()
        sender = self._producer._sender  # noqa: SLF001
        if self._output is not None:
            await self._announce(_AddPartition(sender, self._output))
        await self._announce(AddOffsetsToTxnHandler(sender, self._group_id))
        self._is_open = True

    async def _announce(self, handler: BaseHandler) -> None:
        """Make a request of the transaction's coordinator until it is granted; raises where it never will be."""
        sender = handler._sender  # noqa: SLF001
        handler._default_backoff = _FIRST_PAUSE_S  # noqa: SLF001 - what it waits for, before it says no
        coordinator = (CoordinationType.TRANSACTION, sender._txn_manager.transactional_id)  # noqa: SLF001
        while not await handler.do(await sender._find_coordinator(*coordinator)):  # noqa: SLF001
            handler._default_backoff = min(_LONGER * handler._default_backoff, _MAX_PAUSE_S)  # noqa: SLF001
        manager = sender._txn_manager  # noqa: SLF001
        if not manager.is_in_transaction():
            # What is not allowed, the handler takes for done: it fails the transaction and says nothing.
            await manager.wait_for_transaction_end()
            raise KafkaError("the transaction was given up before it began")


class _AddPartition(AddPartitionsToTxnHandler):  # type: ignore[misc]
    """Announces a partition before there are records for it.

    The client's own way would be to let its sender do so, which waits for 20 ms before it asks again.
    """

    def __init__(self, sender: Any, partition: TopicPartition) -> None:  # noqa: ANN401 - of the client
        super().__init__(sender, {partition})
        self._partition = partition

    def handle_response(self, resp: Any) -> float | None:  # noqa: ANN401 - of the client
        """Take note of the answer; returns how long to wait before asking again."""
        manager = self._sender._txn_manager  # noqa: SLF001
        # The client strikes a partition out from those that its sender is to announce: it is one for just so long.
        manager._pending_txn_partitions.add(self._partition)  # noqa: SLF001
        try:
            refused = super().handle_response(resp)
        finally:
            manager._pending_txn_partitions.discard(self._partition)  # noqa: SLF001
        return None if refused is None else self._default_backoff
