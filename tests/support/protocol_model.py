"""A model of the exactly-once protocol of one input partition; `protocol_explorer` visits all its states.

The model is a broker and two consumers. Both may believe at any time that they own the partition: offsets sent in a
transaction carry no generation of the group, so nothing but the epoch of the transactional id tells them apart. What
the engine makes of the input is not modelled but asked of the real one (`protocol_history`).

One step is one request that the broker answers, or one thing that the broker does by itself:

* InitProducerId bumps the epoch. An open transaction of the former epoch is fenced and aborted, one that is being
  completed has to be waited for: the answer is CONCURRENT_TRANSACTIONS until all its markers are written.
* OffsetFetch with RequireStable waits while an offset sent in a transaction is pending in the group coordinator.
* TxnOffsetCommit, Produce and EndTxn are refused with an epoch that is not the latest. EndTxn is answered at
  PrepareCommit; a next transaction begins after CompleteCommit.
* A consumer that has nothing in hand may open its next transaction, and end one that is open and unused. There is
  nothing in it: no offset that is pending, no output. Whatever else befalls a transaction may befall it.
* The broker writes the markers of the output partition and of `__consumer_offsets` in any order and at any time. The
  group coordinator materialises the offset some time after its marker is written. A transaction that is open may time
  out at any time, whether its owner has crashed or is only slow.

A consumer crashes and starts again between any two steps; one that stays dead is one that takes no more steps. What
nobody else can see is no step of its own: a crash is taken together with the restart, fetching the offset with the
rebuilding up to the published position, reading a batch with the first request that publishes it.

Bounds: two consumers, each with a limited number of starts; the whole of a short input, in batches of one or two.
Records without outputs may be passed without a commit, so a commit may cover any number of these. Epochs are not
counted: it is kept who holds the latest. A producer's next TxnOffsetCommit waits until its last one is materialised, as
it does with brokers since KAFKA-17507; InitProducerId does not wait for that here, so the model allows more than they.

In every reachable state:

1. the visible outputs hold no repeat and nothing that one uninterrupted run would not have published;
2. were all consumers dead and the broker done with what it has begun, one fresh consumer alone would complete the
   visible outputs to exactly those of the uninterrupted run;
3. the published position of the committed note has never gone backwards.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final, Literal, NamedTuple

from tests.support.builders import Record
from tests.support.protocol_history import BEGINNING, History, Note, NoteRule

__all__ = ["NAMES", "Broker", "Consumer", "Kind", "Model", "Protocol", "ProtocolBrokenError"]

NAMES: Final = ("A", "B")
BATCH_SIZES: Final = (1, 2)
#: Nobody that still lives holds the latest epoch.
NOBODY: Final = -1

Phase = Literal["Empty", "Ongoing", "PrepareCommit", "PrepareAbort"]
Call = Literal["InitProducerId", "OffsetFetch", "TxnOffsetCommit", "Produce", "EndTxn"]
Kind = Literal["repeat", "foreign", "loss", "backwards"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Protocol:
    """What consumers and broker do; the defaults are right, every other choice is a mutant."""

    start: tuple[Call, ...] = ("InitProducerId", "OffsetFetch")
    transactions: tuple[tuple[Call, ...], ...] = (("TxnOffsetCommit", "Produce"),)
    """Of one batch, in their order; each ends with EndTxn, and what has nothing to send is left out."""
    require_stable: bool = True
    id_per_partition: bool = True
    """Otherwise each consumer has a transactional id of its own."""
    notes: NoteRule = field(default_factory=NoteRule)
    one_pending_per_producer: bool = False
    """The broker before KAFKA-17507: an offset takes the place of the one before that is not materialised yet, and
    whatever is there is materialised."""

    def calls(self, *, with_outputs: bool) -> tuple[Call, ...]:
        """Return the requests that publish one batch."""
        calls: list[Call] = []
        for transaction in self.transactions:
            sent = [call for call in transaction if with_outputs or call != "Produce"]
            calls += [*sent, "EndTxn"] if sent else []
        return tuple(calls)


class Transaction(NamedTuple):
    """One transactional id at the transaction coordinator."""

    owner: int = NOBODY
    """Consumer that holds the latest epoch."""
    phase: Phase = "Empty"
    outputs: tuple[int, ...] = ()
    """Written to the output partition, their marker not yet."""
    offsets: bool = False
    """Whether `__consumer_offsets` has part in it and lacks its marker."""


class Pending(NamedTuple):
    """An offset that was sent in a transaction, at the group coordinator."""

    producer: int
    note: Note | None
    """None where one that was sent later has been committed before: the order of the log decides."""
    committed: bool | None = None
    """What the marker says; None while it is not written."""


class Broker(NamedTuple):
    """All that outlives the consumers."""

    transactions: tuple[Transaction, ...]
    pending: tuple[Pending, ...] = ()
    note: Note | None = None
    """The committed offset and its metadata, as OffsetFetch gives them."""
    visible: int = 0
    """Set of the outputs that a read_committed reader sees, one bit each."""


class Consumer(NamedTuple):
    """One consumer in its present life."""

    starts_left: int
    todo: tuple[Call, ...] | None
    """Requests to come; empty while it may read on, None once it is fenced for good."""
    start: Note | None = None
    """Where its engine began."""
    batch: int = 0
    """First record of the batch in hand."""
    position: int = 0


class ProtocolBrokenError(Exception):
    """A property that does not hold any more.

    Parameters
    ----------
    kind : {"repeat", "foreign", "loss", "backwards"}
    detail : str
        What was repeated, lost and so on.
    by : str
        The step that did it.
    """

    def __init__(self, kind: Kind, detail: str, by: str) -> None:
        super().__init__(f"{kind}: {detail}, by {by}")
        self.kind: Kind = kind
        self.detail = detail
        self.by = by


class Model:
    """The steps and the checks.

    Parameters
    ----------
    stream : tuple of Record
        The input, from offset 0.
    protocol : Protocol
    n_starts : int
        How often each consumer may start.
    may_go_back : bool
        Leave property 3 unchecked.
    """

    def __init__(
        self, stream: tuple[Record, ...], protocol: Protocol, *, n_starts: int, may_go_back: bool = False
    ) -> None:
        self.protocol = protocol
        self.history = History(stream, protocol.notes)
        self.broker = Broker((Transaction(),) * (1 if protocol.id_per_partition else len(NAMES)))
        self.consumer = Consumer(n_starts - 1, protocol.start)
        self._n_records = len(stream)
        self._calls = {some: protocol.calls(with_outputs=some) for some in (False, True)}
        self._may_go_back = may_go_back

    def is_complete(self, broker: Broker) -> bool:
        """Tell whether all outputs of the uninterrupted run are visible."""
        return broker.visible == (1 << self.history.n_expected) - 1

    # --------------------------------------------------------------------------------------------- the two consumers

    def consumer_steps(self, i: int, consumer: Consumer, broker: Broker) -> Iterator[tuple[str, Broker, Consumer]]:
        """Yield every step that a consumer can take next, with what it makes of the broker and of itself."""
        if consumer.todo is None:
            return
        if consumer.starts_left and consumer.todo != self.protocol.start:
            yield "crashes and starts again", *self._starts_again(i, consumer, broker)
        if consumer.todo:
            yield from self._call(i, consumer, broker)
            return
        yield from self._ahead(i, consumer, broker)
        for size in BATCH_SIZES:
            position = consumer.position + size
            if position > self._n_records:
                return
            read = consumer._replace(batch=consumer.position, position=position)
            has_outputs = bool(self._outputs(read))
            for what, after, moved in self._call(i, read._replace(todo=self._calls[has_outputs]), broker):
                yield f"reads {size}, {what}", after, moved
            if not has_outputs:
                yield f"reads {size}", broker, read._replace(batch=position)

    def _ahead(self, i: int, consumer: Consumer, broker: Broker) -> Iterator[tuple[str, Broker, Consumer]]:
        """Yield what the consumer can do about its next transaction; one that is fenced need not notice yet."""
        mine = self._id_of(i)
        transaction = broker.transactions[mine]
        if transaction.owner != i:
            return
        if transaction.phase == "Empty":
            yield "opens a transaction", _with(broker, mine, transaction._replace(phase="Ongoing")), consumer
        elif transaction.phase == "Ongoing":
            unused = _with(broker, mine, transaction._replace(phase="PrepareAbort"))
            yield "ends an unused transaction", unused, consumer

    def _starts_again(self, i: int, consumer: Consumer, broker: Broker) -> tuple[Broker, Consumer]:
        mine = self._id_of(i)
        transaction = broker.transactions[mine]
        if transaction.owner == i:
            broker = _with(broker, mine, transaction._replace(owner=NOBODY))
        left = consumer.starts_left
        return broker, Consumer(left - 1, self.protocol.start) if left else Consumer(0, None)

    def _call(self, i: int, consumer: Consumer, broker: Broker) -> Iterator[tuple[str, Broker, Consumer]]:
        """Yield what comes of the consumer's next request; nothing while it would only be told to ask again."""
        assert consumer.todo
        call, mine = consumer.todo[0], self._id_of(i)
        transaction = broker.transactions[mine]
        match call:
            case "OffsetFetch":
                if not (self.protocol.require_stable and broker.pending):
                    yield call, broker, self._fetched(consumer, broker.note)
            case "InitProducerId":
                if transaction.phase == "Empty":
                    yield call, _with(broker, mine, transaction._replace(owner=i)), _done(consumer)
                elif transaction.phase == "Ongoing":
                    yield f"{call} fences a transaction", _with(broker, mine, _aborted(transaction)), consumer
            case _ if transaction.owner != i:
                yield f"{call} is fenced", *self._starts_again(i, consumer, broker)
            case _ if transaction.phase in ("Empty", "Ongoing"):
                sent = self._sent(broker, mine, consumer, call)
                if sent is not None:
                    yield call, sent, _done(consumer)

    def _sent(self, broker: Broker, mine: int, consumer: Consumer, call: Call) -> Broker | None:
        """Return the broker after a request of the producer, None where the request has to wait."""
        transaction = broker.transactions[mine]
        if call == "EndTxn":
            return _with(broker, mine, transaction._replace(phase="PrepareCommit"))
        if call == "Produce":
            written = transaction._replace(phase="Ongoing", outputs=self._outputs(consumer))
            return _with(broker, mine, written)
        pending = Pending(mine, self._note(consumer))
        others = tuple(one for one in broker.pending if one.producer != mine)
        if len(others) < len(broker.pending):
            if not self.protocol.one_pending_per_producer:
                return None
            former = next(one for one in broker.pending if one.producer == mine)
            pending = pending._replace(committed=former.committed)
        broker = broker._replace(pending=(*others, pending))
        return _with(broker, mine, transaction._replace(phase="Ongoing", offsets=True))

    def _fetched(self, consumer: Consumer, found: Note | None) -> Consumer:
        """Seek to the low offset and rebuild; where nothing was committed, commit where this one begins."""
        start = BEGINNING if found is None else found
        begun = _done(consumer._replace(start=start, batch=start.published, position=start.published))
        assert begun.todo is not None
        return begun if found is not None else begun._replace(todo=begun.todo + self._calls[False])

    def _outputs(self, consumer: Consumer) -> tuple[int, ...]:
        assert consumer.start is not None
        moments = self.history.moments(consumer.start)
        first, last = consumer.batch - consumer.start.low_offset, consumer.position - consumer.start.low_offset
        return tuple(output for moment in moments[first + 1 : last + 1] for output in moment.outputs)

    def _note(self, consumer: Consumer) -> Note:
        assert consumer.start is not None
        return self.history.moments(consumer.start)[consumer.position - consumer.start.low_offset].note

    def _id_of(self, i: int) -> int:
        return 0 if self.protocol.id_per_partition else i

    # --------------------------------------------------------------------------------------------------- the broker

    def broker_steps(self, broker: Broker) -> Iterator[tuple[str, Broker]]:
        """Yield every step that the broker can take by itself, with what it makes of it."""
        for number, transaction in enumerate(broker.transactions):
            if transaction.phase == "Ongoing":
                yield "a transaction times out", _with(broker, number, _aborted(transaction))
            elif transaction.phase != "Empty":
                yield from self._markers(broker, number, transaction)
        for number, pending in enumerate(broker.pending):
            if pending.committed is not None:
                yield self._materialised(broker, number, pending)

    def _markers(self, broker: Broker, number: int, transaction: Transaction) -> Iterator[tuple[str, Broker]]:
        commits = transaction.phase == "PrepareCommit"
        which = "commit" if commits else "abort"
        if not (transaction.outputs or transaction.offsets):
            yield f"{which} markers of nothing", _with(broker, number, _marked(transaction))
        if transaction.outputs:
            what = f"{which} marker of the outputs"
            visible = self._show(broker.visible, transaction.outputs, f"broker: {what}") if commits else broker.visible
            yield what, _with(broker._replace(visible=visible), number, _marked(transaction._replace(outputs=())))
        if transaction.offsets:
            pending = tuple(
                one._replace(committed=commits) if one.producer == number and one.committed is None else one
                for one in broker.pending
            )
            marked = _marked(transaction._replace(offsets=False))
            yield f"{which} marker of the offset", _with(broker._replace(pending=pending), number, marked)

    def _materialised(self, broker: Broker, number: int, pending: Pending) -> tuple[str, Broker]:
        earlier, later = broker.pending[:number], broker.pending[number + 1 :]
        if not pending.committed:
            return "the aborted offset is dropped", broker._replace(pending=earlier + later)
        what, note = "the offset is materialised", pending.note
        if note is None:
            return what, broker._replace(pending=earlier + later)
        former = broker.note
        if former is not None and former.published > note.published and not self._may_go_back:
            detail = f"published {note.published} after {former.published}"
            raise ProtocolBrokenError("backwards", detail, f"broker: {what}")
        earlier = tuple(one._replace(note=None) for one in earlier)
        return what, broker._replace(pending=earlier + later, note=note)

    # --------------------------------------------------------------------------------------------------- the checks

    def _show(self, visible: int, outputs: Iterable[int], by: str) -> int:
        """Make outputs visible; raise for one that is already, or that should never be."""
        everything, n_expected = self.history.outputs, self.history.n_expected
        for number in outputs:
            output = everything[number]
            detail = f"output of {output.key!r} at offset {output.offset}"
            if number >= n_expected:
                said = (i for i in range(n_expected) if everything[i].subject == output.subject and visible >> i & 1)
                # Other bytes about what has been said before repeat it all the same.
                kind: Kind = "foreign" if next(said, None) is None else "repeat"
                raise ProtocolBrokenError(kind, detail, by)
            if visible >> number & 1:
                raise ProtocolBrokenError("repeat", detail, by)
            visible |= 1 << number
        return visible

    def check_completion(self, broker: Broker) -> None:
        """Let the broker finish and one fresh consumer run to the end of the input, alone; raise for what is wrong."""
        by = "all consumers die, the broker finishes, a fresh consumer runs to the end of the input"
        note, visible = broker.note, broker.visible
        for producer, sent, committed in broker.pending:
            decided = broker.transactions[producer].phase == "PrepareCommit" if committed is None else committed
            if decided and sent is not None:
                note = sent
        for transaction in broker.transactions:
            if transaction.phase == "PrepareCommit":
                visible = self._show(visible, transaction.outputs, by)
        moments = self.history.moments(BEGINNING if note is None else note)
        published = [output for moment in moments for output in moment.outputs]
        for number, output in enumerate(self.history.outputs[: self.history.n_expected]):
            if not visible >> number & 1 and number not in published:
                raise ProtocolBrokenError("loss", f"output of {output.key!r} at offset {output.offset}", by)
        self._show(visible, published, by)


def _with(broker: Broker, number: int, transaction: Transaction) -> Broker:
    transactions = (*broker.transactions[:number], transaction, *broker.transactions[number + 1 :])
    return broker._replace(transactions=transactions)


def _done(consumer: Consumer) -> Consumer:
    """Strike out the request that was answered."""
    assert consumer.todo
    todo = consumer.todo[1:]
    return consumer._replace(todo=todo, batch=consumer.batch if todo else consumer.position)


def _aborted(transaction: Transaction) -> Transaction:
    """Bump the epoch and begin to abort."""
    return transaction._replace(owner=NOBODY, phase="PrepareAbort")


def _marked(transaction: Transaction) -> Transaction:
    """Complete the transaction if that was the last of its markers."""
    lacks_one = transaction.outputs or transaction.offsets
    return transaction if lacks_one else transaction._replace(phase="Empty")
