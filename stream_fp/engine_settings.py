"""What the engine's behaviour depends on, beside the model: part of the fingerprint that travels with each commit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from stream_fp.completion import CompletionPolicy
from stream_fp.times import MINUTE_US

__all__ = ["RULES_VERSION", "EngineSettings"]

#: Changes whenever the code would make something else of the same records and settings: when sessions open, close or
#: cross. It is part of the fingerprint that travels with each commit.
RULES_VERSION: Final = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSettings:
    """What the engine's behaviour depends on, beside the model.

    Attributes
    ----------
    checkpoints_pct : tuple of float
        Completions at which a session is predicted, ascending, each once.
    completion : {"auto", "declared", "schedule", "count"}
        How completion is measured.
    min_events : int
        A session with fewer events at a checkpoint gets no prediction there.
    grace_us : int
        How long after its end a session stays open for late events.
    idle_timeout_us : int
        How long a session without a known end may be silent before it is closed.
    timezone : str
        Of time stamps without an offset, where the session names none.
    max_open_sessions, max_events_per_session, max_buffered_bytes, max_record_bytes : int
        Bounds on memory; what lies beyond is ignored and counted (records too large become dead letters).
    keep_events : bool
        Hold the events of a session until it closes, for those who want to see the whole of it (training).
    """

    checkpoints_pct: tuple[float, ...] = (30.0,)
    completion: CompletionPolicy = "auto"
    min_events: int = 5
    grace_us: int = 30 * MINUTE_US
    idle_timeout_us: int = 6 * 60 * MINUTE_US
    timezone: str = "UTC"
    max_open_sessions: int = 1_000_000
    max_events_per_session: int = 50_000
    max_buffered_bytes: int = 2 * 2**30
    max_record_bytes: int = 2**20
    keep_events: bool = False
