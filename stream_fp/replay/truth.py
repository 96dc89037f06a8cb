"""What became of a session, seen when it is over: the whole of it, by the rules of training.

Pure: a closed session in, `SessionTruth` out. It follows the records in an engine of its own, which keeps the events
until the session closes; the engine that predicts lets them go at the last checkpoint, as it does live.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from stream_fp.classifier import nearest
from stream_fp.completion import Schedule
from stream_fp.engine import Engine
from stream_fp.engine_settings import EngineSettings
from stream_fp.features import RANGE, extract, range_of_log
from stream_fp.library import Library
from stream_fp.phases import N_PHASES
from stream_fp.rest import price_path, rest_outcomes
from stream_fp.sessions import Columns, Session

__all__ = ["SessionTruth", "truth_engine", "truth_settings"]

Array = npt.NDArray[np.float64]


@dataclass(slots=True, eq=False)
class SessionTruth:
    """A whole session, whose parts are made when they are asked for, and once.

    Parameters
    ----------
    session : Session
        Closed, with all its events.
    """

    session: Session
    _columns: Columns | None = None
    _vector: Array | None = None

    @property
    def is_whole(self) -> bool:
        """Whether all events of the session are held, and at least one."""
        return 0 < self.session.n_events == self.session.n_held

    @property
    def columns(self) -> Columns:
        """All events, in order of arrival."""
        if self._columns is None:
            self._columns = self.session.columns()
        return self._columns

    @property
    def vector(self) -> Array:
        """Features of the whole session, shape (30,)."""
        if self._vector is None:
            self._vector = extract(self.columns)
        return self._vector

    @property
    def range_pct(self) -> float:
        """Range in per cent of the first price."""
        return range_of_log(float(self.vector[RANGE]))

    @property
    def phase_rates(self) -> list[float]:
        """Events of each phase per 100 events."""
        rates: list[float] = self.vector[:N_PHASES].tolist()
        return rates

    @property
    def end_us(self) -> int:
        """Where `path` ends: end of the session where it is known, else its latest event."""
        times_us, end_us = self.columns.times_us, self.session.facts.end_us
        return int(times_us.max()) if end_us is None else max(end_us, int(times_us.min()))

    @property
    def path(self) -> Array:
        """Move from the first price in per cent at 41 steps of time, shape (41,); NaN before the first price."""
        return price_path(self.columns, self.session.facts.end_us)

    def archetype_of(self, library: Library) -> int:
        """Return the archetype of the whole session: the nearest centroid."""
        return nearest((self.vector - library.center) / library.scale, library.centroids)

    def rest_after(self, n_seen: int) -> Array:
        """Return what the events after the first `n_seen` were like, shape (10,); see `stream_fp.rest`."""
        return rest_outcomes(self.columns, n_seen)


def truth_settings(settings: EngineSettings) -> EngineSettings:
    """Return settings by which the same sessions open and close, and are held to their end.

    What decides over predictions alone is set to nothing, so that variants which differ in that share one engine.
    """
    return dataclasses.replace(settings, checkpoints_pct=(100.0,), completion="auto", min_events=1, keep_events=True)


def truth_engine(
    settings: EngineSettings,
    schedules: dict[str, Schedule],
    closed: Callable[[Session, str], None],
    *,
    silent_until: int,
    watermark_us: int | None,
) -> Engine:
    """Return an engine that hands over each session that closes, and why; it predicts nothing.

    Parameters
    ----------
    settings : EngineSettings
        As `truth_settings` gives them.
    schedules : dict of str to Schedule
    closed : callable
    silent_until : int
        See `Engine`.
    watermark_us : int or None
        See `Engine`.
    """
    return Engine(
        _Collector(closed),
        settings,
        schedules=schedules,
        typical_events={},
        published_offset=silent_until,
        watermark_us=watermark_us,
    )


class _Collector:
    """A forecaster that forecasts nothing and hands over what closes."""

    def __init__(self, closed: Callable[[Session, str], None]) -> None:
        self.closed = closed

    def forecast(self, session: Session, checkpoint_pct: float) -> None:
        """Forecast nothing."""
