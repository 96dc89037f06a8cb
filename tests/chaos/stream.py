"""The stream that a chaos run publishes: many simulated sessions at once, with what real producers do wrong.

From a seed alone. About one event in fifty comes late and out of order, one in a hundred comes twice, one record in
two hundred cannot be used, and some sessions never end.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any, Final

import msgspec

from offline.simulate import SimulatedSession as Session
from offline.simulate import interleave, simulate_sessions

__all__ = ["BAD_SHARE", "Keyed", "chaos_stream", "training_sessions"]

Keyed = tuple[bytes | None, bytes]

#: Seven session types on the five days of a week, for each instrument.
SESSIONS_PER_INSTRUMENT: Final = 35
_LATE_SHARE: Final = 0.02
_TWICE_SHARE: Final = 0.01
BAD_SHARE: Final = 0.005
#: Records by which a late or repeated one is moved back.
_MAX_DELAY: Final = 400
_BAD_VALUES: Final = (
    b'{"timestamp": "2025-01-0',
    b"[1, 2]",
    b'{"kind":"session_pause"}',
    b'{"timestamp":"2025-01-06T14:35:00Z","event_type":"expansion","price":-5}',
    b'{"timestamp":"2025-01-06T14:35:00Z","event_type":"expansion"}',
    b'{"session_id":"SOMEBODY_ELSE_2025-01-06","timestamp":1736174100,"event_type":"e","price":1.0}',
)


def chaos_stream(n_sessions: int, *, seed: int, bad_share: float = BAD_SHARE) -> list[Keyed]:
    """Return the records of at least `n_sessions` sessions in the order in which they are published."""
    rng = random.Random(seed)
    messages = interleave(_sessions(n_sessions, seed))
    placed: list[tuple[float, int, Keyed]] = []
    for position, (key, message) in enumerate(_keyed(messages)):
        record = key, msgspec.json.encode(message)
        is_event = "event_type" in message
        delay = rng.uniform(0, _MAX_DELAY) if is_event and rng.random() < _LATE_SHARE else 0.0
        placed.append((position + delay, len(placed), record))
        if is_event and rng.random() < _TWICE_SHARE:
            placed.append((position + delay + rng.uniform(0, _MAX_DELAY), len(placed), record))
        if rng.random() < bad_share:
            bad_key = None if rng.random() < 0.1 else key
            placed.append((float(position), len(placed), (bad_key, rng.choice(_BAD_VALUES))))
    placed.sort()
    return [record for _, _, record in placed]


def training_sessions(n_sessions: int, *, seed: int) -> list[dict[str, Any]]:
    """Return the messages of sessions to train on, of which none is in the stream."""
    return list(interleave(list(simulate_sessions(n_sessions, seed=seed + 500_000))))


def _sessions(n_sessions: int, seed: int) -> list[Session]:
    n_instruments = -(-n_sessions // SESSIONS_PER_INSTRUMENT)
    return [
        Session(
            session_id=f"{session.session_id}-{instrument:03d}",
            session_type=session.session_type,
            messages=tuple(
                {**message, "session_id": f"{message['session_id']}-{instrument:03d}"} for message in session.messages
            ),
        )
        for instrument in range(n_instruments)
        for session in simulate_sessions(SESSIONS_PER_INSTRUMENT, seed=1_000 * seed + instrument)
    ]


def _keyed(messages: Iterator[dict[str, Any]]) -> Iterator[tuple[bytes, dict[str, Any]]]:
    counts: dict[str, int] = {}
    for message in messages:
        session_id = message["session_id"]
        if "event_type" in message:
            counts[session_id] = counts.get(session_id, 0) + 1
            message["event_id"] = counts[session_id]
        yield session_id.encode(), message
