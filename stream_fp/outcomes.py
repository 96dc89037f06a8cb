"""What comes of a record: predictions to publish, dead letters, and the books that account for every one.

The values that the engine hands to the edge; no behaviour beyond arithmetic.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from msgspec import Struct

from stream_fp.messages import Prediction, Record

__all__ = ["Counts", "DeadLetter", "Outcome", "Published"]


@dataclass(slots=True)
class Counts:
    """What became of the records: consumed = applied + sum of dead_lettered + sum of ignored, always."""

    consumed: int = 0
    applied: int = 0
    dead_lettered: dict[str, int] = field(default_factory=dict)
    ignored: dict[str, int] = field(default_factory=dict)
    predictions: int = 0
    unpredicted: dict[str, int] = field(default_factory=dict)
    sessions_opened: int = 0
    sessions_closed: dict[str, int] = field(default_factory=dict)

    def __add__(self, other: Counts) -> Counts:
        """Add two books field by field."""
        return Counts(
            consumed=self.consumed + other.consumed,
            applied=self.applied + other.applied,
            dead_lettered=_merged(self.dead_lettered, other.dead_lettered),
            ignored=_merged(self.ignored, other.ignored),
            predictions=self.predictions + other.predictions,
            unpredicted=_merged(self.unpredicted, other.unpredicted),
            sessions_opened=self.sessions_opened + other.sessions_opened,
            sessions_closed=_merged(self.sessions_closed, other.sessions_closed),
        )

    def copy(self) -> Counts:
        """Return the books as they stand, which later records do not change."""
        return self + Counts()

    @property
    def reconciles(self) -> bool:
        """Whether every consumed record is accounted for."""
        return self.consumed == self.applied + sum(self.dead_lettered.values()) + sum(self.ignored.values())


def _merged(one: dict[str, int], other: dict[str, int]) -> dict[str, int]:
    return {name: one.get(name, 0) + other.get(name, 0) for name in one.keys() | other.keys()}


class Published(Struct, frozen=True, kw_only=True, eq=False):
    """Outcome: a prediction to publish."""

    record: Record
    key: bytes
    prediction: Prediction
    extraction_ns: int
    classification_ns: int
    session_type: str = ""
    """As the session's id or its `session_start` has it; the prediction itself does not."""
    is_owed: bool = False
    """It comes late, after a change of settings: others, of later records, were published before."""


class DeadLetter(Struct, frozen=True, kw_only=True, eq=False):
    """Outcome: a record that cannot be used, and why."""

    record: Record
    stage: str
    error_class: str
    message: str


Outcome = Published | DeadLetter
