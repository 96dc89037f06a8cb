"""What ``events`` and ``simulate`` say when they are done: the sessions by type, the phases, and what to run next."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Final

from rich.markup import escape
from rich.table import Table

from offline.console import command_lines, program_path, result_console
from stream_fp.phases import PHASES, phase_of

if TYPE_CHECKING:
    from offline.market_events import MarketSession
    from offline.simulate import SimulatedSession

__all__ = ["ToldSession", "print_topic_summary", "told_market_sessions", "told_simulated_sessions"]

#: A session with fewer of its bars is one that a holiday or a hole cut short.
_WHOLE_FRACTION: Final = 0.9
_NO_PHASE: Final = "no phase"


@dataclass(frozen=True, slots=True, kw_only=True)
class ToldSession:
    """What the summary needs of a session: how many of its bars were there is None where there is no question of it."""

    session_type: str
    day: date
    n_by_phase: Counter[str]
    bars_fraction: float | None = None

    @property
    def n_events(self) -> int:
        """Events of all phases, and of none."""
        return self.n_by_phase.total()


def told_market_sessions(sessions: Iterable[MarketSession]) -> list[ToldSession]:
    """Return what the summary needs of recorded sessions."""
    return [
        ToldSession(
            session_type=session.session_type,
            day=session.day,
            n_by_phase=Counter(event.phase for event in session.events),
            bars_fraction=session.bars_fraction,
        )
        for session in sessions
    ]


def told_simulated_sessions(sessions: Iterable[SimulatedSession]) -> list[ToldSession]:
    """Return what the summary needs of simulated sessions."""
    return [
        ToldSession(
            session_type=session.session_type,
            day=date.fromisoformat(session.session_id[len(session.session_type) + 1 :][:10]),
            n_by_phase=Counter(
                (*PHASES, _NO_PHASE)[phase_of(message["event_type"])]
                for message in session.messages
                if "event_type" in message
            ),
        )
        for session in sessions
    ]


def print_topic_summary(sessions: Sequence[ToldSession], output: Path, *, source: str) -> None:
    """Print the summary of a written file of messages to stdout.

    Parameters
    ----------
    sessions
        At least one.
    output
        The file.
    source
        One line on where the sessions came from.
    """
    console = result_console()
    console.print(_by_type(sessions))
    console.print(_by_phase(sessions))
    first, last = min(session.day for session in sessions), max(session.day for session in sessions)
    n_events = sum(session.n_events for session in sessions)
    train = (f"{program_path()}-offline", "train")
    library = ("--output", "models/session_fingerprints/v1.0.0")
    lines = [
        "",
        source,
        f"{len(sessions)} session{'s' * (len(sessions) != 1)} from {first} to {last}, {n_events} events",
        f"Messages written to {output}",
        "",
        "Train on them next:",
        command_lines(train, ("--input", output), library),
    ]
    for line in lines:
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def _table(title: str) -> Table:
    return Table(title=f"\n{title}", title_justify="left", box=None, pad_edge=False, padding=(0, 2, 0, 0))


def _by_type(sessions: Sequence[ToldSession]) -> Table:
    has_bars = any(session.bars_fraction is not None for session in sessions)
    table = _table("Sessions")
    table.add_column("type")
    table.add_column("sessions", justify="right")
    table.add_column("events, median", justify="right")
    if has_bars:
        table.add_column(f"with {_WHOLE_FRACTION:.0%} of their bars", justify="right")
    for session_type in dict.fromkeys(session.session_type for session in sessions):
        chosen = [session for session in sessions if session.session_type == session_type]
        row = [escape(session_type), str(len(chosen)), f"{median(session.n_events for session in chosen):g}"]
        if has_bars:
            n_whole = sum((session.bars_fraction or 0.0) >= _WHOLE_FRACTION for session in chosen)
            row.append(f"{n_whole / len(chosen):.0%}")
        table.add_row(*row)
    return table


def _by_phase(sessions: Sequence[ToldSession]) -> Table:
    counts: Counter[str] = Counter()
    for session in sessions:
        counts.update(session.n_by_phase)
    table = _table("Phases")
    table.add_column("phase")
    table.add_column("share of events", justify="right")
    for phase in (*PHASES, _NO_PHASE):
        if phase in PHASES or counts[phase]:
            table.add_row(phase, f"{counts[phase] / max(1, counts.total()):.1%}")
    return table
