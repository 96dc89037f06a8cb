"""The sessions of one partition that are open, in the order in which they were opened, and when each will close.

Pure state behind the engine. A session closes in event time: when the watermark has passed its scheduled end (and the
last moment it was heard of) by the grace, or, where its id names no schedule, when it has been silent for the idle
timeout; and in any case after days of silence, since an id may name the wrong year. Only the id decides which, never
what a session declares of itself: when a session closes has to be the same for an engine that starts at a later low
offset and has not seen the declaration.
"""

from __future__ import annotations

import heapq
from typing import Final

from stream_fp.sessions import BYTES_PER_EVENT, BYTES_PER_EVENT_ID, BYTES_PER_SESSION, Session
from stream_fp.times import HOUR_US

__all__ = ["LONG_SILENCE_US", "OpenSessions"]

#: Three days: longer than a weekend for which a session may be announced, shorter than any retention.
LONG_SILENCE_US: Final = 3 * 24 * HOUR_US
_NEVER: Final = float("inf")


class OpenSessions:
    """Open sessions by record key.

    Parameters
    ----------
    grace_us : int
        How long after its end a session stays open.
    idle_timeout_us : int
        How long a session without a known end may be silent.

    Attributes
    ----------
    by_key : dict of bytes to Session
        In ascending order of first offset; read it, change it through the methods.
    n_events : int
        Events held in all columns.
    n_other_bytes : int
        What the sessions take beside their events, event ids included.
    next_deadline_us : float
        Below this watermark no session closes; infinity where none is open.
    """

    __slots__ = ("_deadlines", "_grace_us", "_idle_timeout_us", "_long_silence_us", "by_key", "n_events",
                 "n_other_bytes",
                 "next_deadline_us")  # fmt: skip

    def __init__(self, *, grace_us: int, idle_timeout_us: int) -> None:
        # At least one: a session must not close at the very event by which it is heard of.
        self._grace_us = max(1, grace_us)
        self._idle_timeout_us = max(1, idle_timeout_us)
        self._long_silence_us = max(LONG_SILENCE_US, self._grace_us, self._idle_timeout_us)
        self._deadlines: list[tuple[int, int, bytes]] = []
        self.by_key: dict[bytes, Session] = {}
        self.n_events = 0
        self.n_other_bytes = 0
        self.next_deadline_us = _NEVER

    def __len__(self) -> int:
        return len(self.by_key)

    @property
    def n_bytes(self) -> int:
        """Memory that the sessions take, reckoned from counts."""
        return self.n_events * BYTES_PER_EVENT + self.n_other_bytes

    @property
    def oldest(self) -> Session | None:
        """The open session with the lowest first offset."""
        return next(iter(self.by_key.values()), None)

    def add(self, key: bytes, session: Session) -> None:
        """Open a session; its first offset must be above those of all sessions before it."""
        self.by_key[key] = session
        self.n_other_bytes += BYTES_PER_SESSION
        self._push(key, session)

    def remember(self, session: Session, event_id: str | int) -> None:
        """Remember the id of an event of a session."""
        session.remember(event_id)
        self.n_other_bytes += BYTES_PER_EVENT_ID

    def release(self, session: Session) -> None:
        """Drop the events of a session that needs them no more; it stays open as a tombstone."""
        self.n_other_bytes -= len(session.event_ids) * BYTES_PER_EVENT_ID
        self.n_events -= session.release()

    def remove(self, key: bytes) -> Session:
        """Close a session and return it; its events stay until `release`."""
        self.n_other_bytes -= BYTES_PER_SESSION
        return self.by_key.pop(key)

    def expire(self, watermark_us: int) -> list[Session]:
        """Close and return the sessions whose time is over at `watermark_us`, as `remove` does, by deadline."""
        closed = []
        while self._deadlines and self._deadlines[0][0] <= watermark_us:
            entry = heapq.heappop(self._deadlines)
            if not self._is_current(entry):
                continue  # closed before, or opened anew since
            key = entry[2]
            session = self.by_key[key]
            if session.touched_us == 0 and not self._is_past(session, watermark_us):
                session.touched_us = watermark_us  # heard of before any time was known
            if self._deadline_us(session) <= watermark_us:
                closed.append(self.remove(key))
            else:
                self._push(key, session)
        self.next_deadline_us = self._deadlines[0][0] if self._deadlines else _NEVER
        return closed

    def _is_past(self, session: Session, watermark_us: int) -> bool:
        return session.id_end_us is not None and session.id_end_us + self._grace_us <= watermark_us

    def _deadline_us(self, session: Session) -> int:
        end_us = session.id_end_us
        if end_us is None:
            return session.touched_us + self._idle_timeout_us
        return min(max(end_us, session.touched_us) + self._grace_us, session.touched_us + self._long_silence_us)

    def _push(self, key: bytes, session: Session) -> None:
        # Sessions that were ended leave entries behind; sweep them out when they have become the most.
        if len(self._deadlines) > 2 * len(self.by_key) + 1024:
            self._deadlines = [entry for entry in self._deadlines if self._is_current(entry)]
            heapq.heapify(self._deadlines)
        heapq.heappush(self._deadlines, (self._deadline_us(session), session.first_offset, key))
        self.next_deadline_us = self._deadlines[0][0]

    def _is_current(self, entry: tuple[int, int, bytes]) -> bool:
        _, first_offset, key = entry
        session = self.by_key.get(key)
        return session is not None and session.first_offset == first_offset
