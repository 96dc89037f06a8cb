"""Visits every reachable state of the model of the exactly-once protocol.

Breadth first, so that the first violation found is one with a shortest trace; without a violation, all states within
the bounds that `protocol_model` names have been seen.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

from tests.support.builders import Record
from tests.support.protocol_model import NAMES, Broker, Consumer, Kind, Model, Protocol, ProtocolBrokenError

__all__ = ["Exploration", "Violation", "explore"]


@dataclass(frozen=True, slots=True)
class Violation:
    """A property that does not hold, and the shortest way there."""

    kind: Kind
    detail: str
    trace: tuple[str, ...]

    def __str__(self) -> str:
        return "\n".join([f"{self.kind}: {self.detail}", *self.trace])


@dataclass(frozen=True, slots=True)
class Exploration:
    """What was seen of a protocol."""

    n_states: int
    n_complete: int
    """States in which all outputs of the uninterrupted run are visible."""
    steps: frozenset[str]
    """What happened somewhere."""
    violation: Violation | None


def explore(stream: tuple[Record, ...], protocol: Protocol, *, n_starts: int, may_go_back: bool = False) -> Exploration:
    """Visit every reachable state, nearest first, up to the first violation.

    Parameters
    ----------
    stream : tuple of Record
        The input, from offset 0.
    protocol : Protocol
    n_starts : int
        How often each of the two consumers may start.
    may_go_back : bool
        Go on where only the committed position went backwards, to see what comes of it.
    """
    return _Explorer(Model(stream, protocol, n_starts=n_starts, may_go_back=may_go_back)).run()


#: A state of the whole as the numbers of the broker's state and of each consumer's.
_State = tuple[int, int, int]


class _Explorer:
    """Breadth-first search. There are far fewer states of broker and consumer than of the whole: each is numbered, and
    the steps of each consumer with each state of the broker are reckoned once."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self._brokers: list[Broker] = []
        self._consumers: list[Consumer] = []
        self._number_of_broker: dict[Broker, int] = {}
        self._number_of_consumer: dict[Consumer, int] = {}
        self._broker_steps: dict[int, list[tuple[str, int]]] = {}
        self._consumer_steps: dict[tuple[int, int, int], list[tuple[str, int, int]]] = {}
        self._taken: set[str] = set()

    def run(self) -> Exploration:
        model = self._model
        consumer = self._consumer(model.consumer)
        initial: _State = (self._broker(model.broker), consumer, consumer)
        came_from: dict[_State, _State | None] = {initial: None}
        frontier = deque([initial])
        violation = None
        while frontier:
            state = frontier.popleft()
            try:
                for _, _, after in self._steps(state):
                    if after not in came_from:
                        came_from[after] = state
                        frontier.append(after)
            except ProtocolBrokenError as broken:
                trace = (*self._trace(came_from, state), broken.by)
                violation = Violation(broken.kind, broken.detail, trace)
                break
        complete = {number for number, broker in enumerate(self._brokers) if model.is_complete(broker)}
        n_complete = sum(state[0] in complete for state in came_from)
        return Exploration(len(came_from), n_complete, frozenset(self._taken), violation)

    def _steps(self, state: _State) -> Iterator[tuple[str, str, _State]]:
        broker, a, b = state
        # A new state of the broker is checked here, so before anything that could come of it.
        for what, after in self._steps_of_broker(broker):
            yield "broker", what, (after, a, b)
        for what, after, consumer in self._steps_of_consumer(0, broker, a):
            yield NAMES[0], what, (after, consumer, b)
        for what, after, consumer in self._steps_of_consumer(1, broker, b):
            yield NAMES[1], what, (after, a, consumer)

    def _steps_of_broker(self, broker: int) -> list[tuple[str, int]]:
        steps = self._broker_steps.get(broker)
        if steps is None:
            self._model.check_completion(self._brokers[broker])
            found = self._model.broker_steps(self._brokers[broker])
            steps = self._broker_steps[broker] = [(what, self._broker(after)) for what, after in found]
            self._taken.update(what for what, _ in steps)
        return steps

    def _steps_of_consumer(self, i: int, broker: int, consumer: int) -> list[tuple[str, int, int]]:
        steps = self._consumer_steps.get((i, broker, consumer))
        if steps is None:
            found = self._model.consumer_steps(i, self._consumers[consumer], self._brokers[broker])
            steps = [(what, self._broker(after), self._consumer(moved)) for what, after, moved in found]
            self._consumer_steps[i, broker, consumer] = steps
            self._taken.update(what for what, _, _ in steps)
        return steps

    def _broker(self, broker: Broker) -> int:
        number = self._number_of_broker.setdefault(broker, len(self._brokers))
        if number == len(self._brokers):
            self._brokers.append(broker)
        return number

    def _consumer(self, consumer: Consumer) -> int:
        number = self._number_of_consumer.setdefault(consumer, len(self._consumers))
        if number == len(self._consumers):
            self._consumers.append(consumer)
        return number

    def _trace(self, came_from: dict[_State, _State | None], last: _State) -> Iterator[str]:
        states = [last]
        while (former := came_from[states[-1]]) is not None:
            states.append(former)
        states.reverse()
        for state, after in itertools.pairwise(states):
            who, what = next((who, what) for who, what, other in self._steps(state) if other == after)
            yield f"{who}: {what}{self._change(state, after)}"

    def _change(self, state: _State, after: _State) -> str:
        """Say what a step changed that a reader of the trace wants to know."""
        before, then = self._brokers[state[0]], self._brokers[after[0]]
        change = ""
        for one, moved in zip(state[1:], after[1:], strict=True):
            position = self._consumers[moved].position
            if position > self._consumers[one].position:
                change += f"; at offset {position}"
        if then.note is not None and before.note != then.note:
            change += f"; committed is {then.note.low_offset}, published {then.note.published}"
        if before.visible != then.visible:
            change += f"; {then.visible.bit_count()} of {self._model.history.n_expected} outputs are visible"
        return change
