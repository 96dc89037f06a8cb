"""Exactly once whatever dies, whenever: every reachable state of the protocol between consumers and broker is visited.

And because a checker that finds nothing proves nothing, each way to get the protocol wrong is shown to be found.
"""

from __future__ import annotations

import pytest

from tests.support.builders import Record, RecordingForecaster, event, make_engine, records, run
from tests.support.protocol_explorer import explore
from tests.support.protocol_history import LATE_OPENING, SETTINGS, TOMBSTONE, History, NoteRule
from tests.support.protocol_model import Kind, Protocol

#: No record of these has an output.
QUIET = tuple(records([event(minute=minute) for minute in range(3)]))

#: What can happen at all; a model in which some of it never does would prove less than it says.
STEPS = {
    "InitProducerId", "InitProducerId fences a transaction", "OffsetFetch", "crashes and starts again",
    "TxnOffsetCommit", "Produce", "EndTxn",
    "TxnOffsetCommit is fenced", "Produce is fenced", "EndTxn is fenced",
    "reads 1", "reads 1, TxnOffsetCommit", "reads 1, TxnOffsetCommit is fenced",
    "reads 2", "reads 2, TxnOffsetCommit", "reads 2, TxnOffsetCommit is fenced",
    "a transaction times out", "commit marker of the outputs", "commit marker of the offset",
    "abort marker of the outputs", "abort marker of the offset",
    "opens a transaction", "ends an unused transaction", "abort markers of nothing",
    "the offset is materialised", "the aborted offset is dropped",
}  # fmt: skip


@pytest.mark.parametrize(
    ("stream", "n_starts", "n_states"),
    [
        pytest.param(TOMBSTONE, 2, 300_000, id="tombstone"),
        pytest.param(LATE_OPENING, 2, 300_000, id="late opening"),
        pytest.param(TOMBSTONE[:5], 3, 150_000, id="tombstone, three starts"),
        pytest.param(LATE_OPENING[:5], 3, 150_000, id="late opening, three starts"),
    ],
)
def test_protocol_in_every_reachable_state_repeats_and_loses_nothing(
    stream: tuple[Record, ...], n_starts: int, n_states: int
) -> None:
    explored = explore(stream, Protocol(), n_starts=n_starts)
    assert explored.violation is None, str(explored.violation)
    assert explored.n_states > n_states
    assert explored.n_complete > 1_000
    assert explored.steps == STEPS


REPEAT: Kind = "repeat"
LOSS: Kind = "loss"


@pytest.mark.parametrize(
    ("protocol", "stream", "kind"),
    [
        pytest.param(
            Protocol(start=("OffsetFetch", "InitProducerId")), TOMBSTONE, REPEAT, id="offset fetched before fencing"
        ),
        pytest.param(Protocol(require_stable=False), TOMBSTONE, REPEAT, id="offset fetched without RequireStable"),
        pytest.param(Protocol(notes=NoteRule(low_offset="position")), TOMBSTONE, LOSS, id="position committed"),
        pytest.param(
            Protocol(notes=NoteRule(low_offset="waiting")), TOMBSTONE, REPEAT, id="low offset not held by tombstones"
        ),
        pytest.param(
            Protocol(notes=NoteRule(keeps_published=False)), TOMBSTONE, REPEAT, id="published position forgotten"
        ),
        pytest.param(Protocol(notes=NoteRule(keeps_watermark=False)), LATE_OPENING, LOSS, id="watermark forgotten"),
        pytest.param(
            Protocol(transactions=(("TxnOffsetCommit",), ("Produce",))), TOMBSTONE, LOSS, id="offset committed first"
        ),
        pytest.param(
            Protocol(transactions=(("Produce",), ("TxnOffsetCommit",))), TOMBSTONE, REPEAT, id="outputs committed first"
        ),
        pytest.param(Protocol(id_per_partition=False), TOMBSTONE, REPEAT, id="transactional id per consumer"),
        pytest.param(
            Protocol(one_pending_per_producer=True), TOMBSTONE, LOSS, id="broker that mixes up pending offsets"
        ),
    ],
)
def test_protocol_with_one_rule_broken_is_found_out(protocol: Protocol, stream: tuple[Record, ...], kind: Kind) -> None:
    violation = explore(stream, protocol, n_starts=2, may_go_back=True).violation
    assert violation is not None
    assert violation.kind == kind, str(violation)


@pytest.mark.parametrize(
    "protocol",
    [
        pytest.param(Protocol(start=("OffsetFetch", "InitProducerId")), id="offset fetched before fencing"),
        pytest.param(Protocol(require_stable=False), id="offset fetched without RequireStable"),
        pytest.param(Protocol(id_per_partition=False), id="transactional id per consumer"),
    ],
)
def test_protocol_with_one_rule_broken_takes_the_committed_position_back(protocol: Protocol) -> None:
    violation = explore(QUIET, protocol, n_starts=2).violation
    assert violation is not None
    assert violation.kind == "backwards", str(violation)


def test_violation_tells_the_steps_that_led_to_it() -> None:
    violation = explore(TOMBSTONE, Protocol(require_stable=False), n_starts=2).violation
    assert violation is not None
    told = str(violation).splitlines()
    assert told[0] == "repeat: output of b'NY_AM_2025-07-29' at offset 1"
    assert told[1] == "A: InitProducerId"
    # The one step that matters: the former owner's offset has its marker and is not materialised yet.
    marked = max(i for i, line in enumerate(told) if line == "broker: commit marker of the offset")
    materialised = max(i for i, line in enumerate(told) if line.startswith("broker: the offset is materialised"))
    assert marked < told.index("B: OffsetFetch") < materialised


@pytest.mark.parametrize(
    ("stream", "n_outputs", "closures"),
    [
        (TOMBSTONE, 4, [("CUSTOM_2025-07-29", "expired"), ("NY_AM_2025-07-29", "expired")]),
        (LATE_OPENING, 5, [("NY_AM_2025-07-29", "ended")]),
    ],
)
def test_input_of_the_model_has_what_it_is_for(
    stream: tuple[Record, ...], n_outputs: int, closures: list[tuple[str, str]]
) -> None:
    forecaster = RecordingForecaster()
    assert len(run(make_engine(forecaster, **SETTINGS), stream)) == n_outputs
    assert forecaster.closures == closures
    history = History(stream, NoteRule())
    assert history.n_expected == n_outputs
