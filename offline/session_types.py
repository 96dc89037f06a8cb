"""What training learns of session types before any prefix is cut: their usual windows and numbers of events.

Pure. The live service measures completion with these tables, so prefixes have to be cut with them too; where they
differ from what the first reading of the files went by, a second one is needed.
"""

from __future__ import annotations

from collections import Counter

import numpy as np

from offline.extract import ExtractedSession, ExtractionRequest
from stream_fp.completion import DEFAULT_SCHEDULES, Schedule

__all__ = ["could_change", "learned_schedules", "learned_typical_events"]


def learned_schedules(sessions: list[ExtractedSession]) -> dict[str, Schedule]:
    """Return the window that the metadata of each type declared most often, and the default ones of other types."""
    declared: dict[str, Counter[tuple[str, str, str]]] = {}
    for session in sessions:
        if (window := session.declared_window) is not None:
            by_window = declared.setdefault(session.session_type, Counter())
            by_window[window.start, window.end, window.timezone] += 1
    learned = {}
    for session_type, by_window in sorted(declared.items()):
        start, end, timezone = min(by_window, key=lambda window: (-by_window[window], window))
        learned[session_type] = Schedule(start=start, end=end, timezone=timezone)
    return {**DEFAULT_SCHEDULES, **learned}


def learned_typical_events(sessions: list[ExtractedSession]) -> dict[str, float]:
    """Return the median number of events by type."""
    counts: dict[str, list[int]] = {}
    for session in sessions:
        counts.setdefault(session.session_type, []).append(session.n_events)
    return {session_type: float(np.median(counts[session_type])) for session_type in sorted(counts)}


def could_change(sessions: list[ExtractedSession], used: ExtractionRequest, learned: ExtractionRequest) -> bool:
    """Tell whether the learned tables could give another prefix or another end of any session.

    A window is also the end of a session's hearing, so any new one counts; a typical count only where completion
    was, at some time, measured by nothing better.
    """
    return any(
        learned.schedules.get(session.session_type) != used.schedules.get(session.session_type)
        or session.completion_method in {"count", "unknown"}
        or session.n_untimed > 0
        for session in sessions
    )
