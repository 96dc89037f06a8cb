"""What one partition has published, for metrics and log: kept by its worker, read by scrapes from another thread.

The engine's own books run ahead of what is published, and are thrown away when publishing fails. These are replaced as
a whole with each commit, so that a scrape never sees half of one.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from typing import Final

from aiokafka import TopicPartition

from stream_fp.engine import Engine
from stream_fp.logs import Log, Ration, at
from stream_fp.metrics import Metrics, PartitionView
from stream_fp.outcomes import Counts, DeadLetter, Outcome, Published

__all__ = ["PartitionLedger"]

_logger = logging.getLogger(__name__)

#: Lines at once and seconds between further ones, for each partition; of dead letters, for each kind of error too.
_PREDICTIONS_LOGGED: Final = (20, 1.0)
_DEAD_LETTERS_LOGGED: Final = (10, 10.0)
#: Of an id or a reason, which may be as long as a record.
_MAX_SHOWN: Final = 200


class PartitionLedger:
    """Books, positions and latencies of one partition in its owner's life, over any number of engines.

    Parameters
    ----------
    partition : TopicPartition
    metrics : Metrics
    model_version : str
        For the log.
    """

    def __init__(self, partition: TopicPartition, metrics: Metrics, *, model_version: str) -> None:
        self._partition = partition
        self._log = Log(_logger, **at(partition, model_version=model_version))
        self._prediction_ration = Ration(*_PREDICTIONS_LOGGED)
        self._dead_letter_rations: dict[str, Ration] = {}
        self._metrics = metrics
        self._engine: Engine | None = None
        # Those of former engines and those of this one.
        self._books = (Counts(), Counts())
        self._n_rebuilt = 0
        self._low_offset = 0
        self._position = 0
        self._rebuild_left = 0

    def begin(self, engine: Engine, low_offset: int) -> None:
        """Take note of an engine that starts at a committed low offset; what the former one published stays."""
        former, current = self._books
        self._books = (former + current, Counts())
        self._engine = engine
        self._low_offset = low_offset

    def committed(self, engine: Engine, counts: Counts, low_offset: int, outcomes: Sequence[Outcome]) -> None:
        """Take note of outcomes that the broker has acknowledged, with a commit; `counts` are those of its position."""
        self._low_offset = low_offset
        self._books = (self._books[0], counts)
        self._n_rebuilt += engine.n_rebuilt
        engine.n_rebuilt = 0
        held_back: dict[str, int] = {}
        for outcome in outcomes:
            if isinstance(outcome, Published):
                self._observe(outcome)
            elif (kind := outcome.error_class) in held_back:
                held_back[kind] += 1  # in a flood, without a look at the clock for each
            elif not self._log_dead_letter(outcome):
                held_back[kind] = 0
        for kind, n in held_back.items():
            self._dead_letter_rations[kind].hold_back(n)

    def rebuilding(self, n_left: int) -> None:
        """Take note of how many records there are to read again."""
        self._rebuild_left = n_left

    def passed(self, position: int) -> None:
        """Take note of where the client stands when there is nothing to read."""
        self._position = position

    def observe_decoding(self, engine: Engine) -> None:
        """Hand over the decoding times that an engine has measured."""
        for took_ns in engine.decode_ns:
            self._metrics.decode.observe(took_ns / 1e9)
        engine.decode_ns.clear()

    def view(self, end: int | None, *, stalled_s: float) -> PartitionView:
        """Return what a scrape sees, given the end of the partition where it is known; only reads."""
        engine = self._engine
        position = max(self._position, self._low_offset, (engine and engine.position) or 0)
        published, current = self._books
        return PartitionView(
            topic=self._partition.topic,
            partition=self._partition.partition,
            counts=published + current,
            n_rebuilt=self._n_rebuilt,
            n_open_sessions=engine.n_open_sessions if engine else 0,
            n_buffered_events=engine.n_buffered_events if engine else 0,
            n_buffered_bytes=engine.n_buffered_bytes if engine else 0,
            committed_lag=None if end is None else max(0, end - self._low_offset),
            position_lag=None if end is None else max(0, end - position),
            rebuild_left=self._rebuild_left,
            stalled_s=stalled_s,
        )

    def _observe(self, outcome: Published) -> None:
        metrics = self._metrics
        timestamp_ms: int | None = outcome.record.timestamp  # type: ignore[attr-defined]
        # The age of those owed says nothing of this service's speed, and records of before Kafka 0.10 have no time.
        if not outcome.is_owed and timestamp_ms is not None and timestamp_ms >= 0:
            metrics.end_to_end.observe(max(0.0, time.time() - timestamp_ms / 1000))
        metrics.published(outcome)
        self._log_prediction(outcome)

    def _log_prediction(self, outcome: Published) -> None:
        if not _logger.isEnabledFor(logging.INFO) or (held_back := self._prediction_ration.take()) is None:
            return
        said = outcome.prediction
        session_id = said.session_id[:_MAX_SHOWN]
        self._log.info(
            "session %s becomes archetype %d, confidence %.2f, seen %.0f %%",
            session_id, said.archetype_id, said.confidence, said.pct_seen,
            extra={"session_id": session_id, "offset": outcome.record.offset, "held_back": held_back},
        )  # fmt: skip

    def _log_dead_letter(self, outcome: DeadLetter) -> bool:
        """Log one if its ration allows; tells whether it did."""
        ration = self._dead_letter_rations.get(outcome.error_class)
        if ration is None:
            ration = self._dead_letter_rations[outcome.error_class] = Ration(*_DEAD_LETTERS_LOGGED)
        if (held_back := ration.take()) is not None:
            key = outcome.record.key
            self._log.warning(
                "dead letter: %s", outcome.message[:_MAX_SHOWN],
                extra={
                    "session_id": None if key is None else key[:_MAX_SHOWN].decode("utf-8", "replace"),
                    "offset": outcome.record.offset,
                    "held_back": held_back,
                },
            )  # fmt: skip
        return held_back is not None
