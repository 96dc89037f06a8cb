"""Files of sessions in, one `Dataset` of arrays out: what training, evaluation and notebooks start from.

Between `stream_fp.files` and `offline.train`. Sessions are in order of time, whatever files they came from and however
many processes read them. What was left out is counted by reason in `Dataset.skipped`.

Invariant: prefixes are cut with exactly the schedules and typical counts that the dataset carries, and that training
writes into the library; so the live service, which reads them there, cuts at the same records.
"""

from __future__ import annotations

import dataclasses
import functools
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
from joblib import cpu_count

from offline.backends import LOCAL, Backend
from offline.extract import ExtractedSession, ExtractionRequest, FileExtract, extract_file
from offline.session_types import could_change, learned_schedules, learned_typical_events
from offline.splits import ordinals
from stream_fp.completion import DEFAULT_SCHEDULES, CompletionPolicy, Schedule
from stream_fp.errors import DocumentError
from stream_fp.features import FEATURE_NAMES, N_FEATURES, RANGE, range_of_log
from stream_fp.files import find_files
from stream_fp.phases import N_PHASES
from stream_fp.prefix_model import OUTCOMES
from stream_fp.rest import N_PATH_POINTS

__all__ = [
    "DEFAULT_CHECKPOINTS_PCT",
    "DEFAULT_MIN_EVENTS",
    "NORMAL_REGIME",
    "Dataset",
    "Prefixes",
    "Progress",
    "Tables",
    "load_dataset",
]

Array = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
#: Told the stage, how many files are done, and of how many.
Progress = Callable[[str, int, int], None]

DEFAULT_CHECKPOINTS_PCT: Final = (25.0, 30.0, 40.0, 50.0)
DEFAULT_MIN_EVENTS: Final = 5
#: Below this much input, starting worker processes (about 1 s) takes longer than they save.
_WORTH_WORKERS_BYTES: Final = 32 * 2**20
#: Remarks beyond these only say again what the counts say.
_MAX_REMARKS: Final = 20
_REGIME_0: Final = FEATURE_NAMES.index("htf_regime_0_share")
#: Said of sessions and prefixes whose events name no regime.
NORMAL_REGIME: Final = 1


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Prefixes:
    """The sessions cut at one checkpoint.

    Attributes
    ----------
    rows : ndarray of shape (n_prefixes,), int64
        Ascending rows of the sessions in the dataset; sessions that did not reach the checkpoint are missing.
    vectors : ndarray of shape (n_prefixes, 30)
    rests : ndarray of shape (n_prefixes, 10)
        What became of the part after the checkpoint; NaN where its events do not tell (`stream_fp.rest`).
    """

    rows: Ints
    vectors: Array
    rests: Array

    @property
    def range_so_far_pct(self) -> Array:
        """Range at the checkpoint in per cent of the first price, shape (n_prefixes,)."""
        return _ranges_pct(self.vectors)

    @property
    def dominant_regimes(self) -> Ints:
        """Most frequent regime so far, shape (n_prefixes,); 1 where the events name none."""
        shares = self.vectors[:, _REGIME_0 : _REGIME_0 + 3]
        return np.where(shares.any(axis=1), shares.argmax(axis=1), NORMAL_REGIME)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Dataset:
    """Sessions as arrays, in order of date, start and id.

    Attributes
    ----------
    session_ids, session_types, dates : tuple of str
        A type is empty where nothing names it; dates are ISO 8601.
    starts_us : ndarray of shape (n_sessions,), int64
        Microseconds since 1970.
    n_events : ndarray of shape (n_sessions,), int64
    full : ndarray of shape (n_sessions, 30)
        Features of whole sessions, unscaled.
    paths : ndarray of shape (n_sessions, 41)
        Move from the first price in per cent, from start to end of the session; NaN before the first price.
    prefixes : dict of float to Prefixes
        By checkpoint in per cent, ascending; a checkpoint that no session reached has no rows.
    completion : str
    min_events : int
    schedules : dict of str to Schedule
        Usual window by session type: the one declared most often, else the default one.
    typical_events : dict of str to float
        Median number of events by session type.
    n_unfinished : int
        Sessions that were still open when their file ended, and count as whole.
    skipped : dict of str to int
        What was left out by reason, which begins with what was: file, session, record, event, value, checkpoint.
    remarks : tuple of str
        Sentences about files and sessions that were left out, and the first unusable record of each file; the first 20.
    """

    session_ids: tuple[str, ...]
    session_types: tuple[str, ...]
    dates: tuple[str, ...]
    starts_us: Ints
    n_events: Ints
    full: Array
    paths: Array
    prefixes: dict[float, Prefixes]
    completion: CompletionPolicy
    min_events: int
    schedules: dict[str, Schedule]
    typical_events: dict[str, float]
    n_unfinished: int
    skipped: dict[str, int]
    remarks: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.session_ids)

    @property
    def phase_rates(self) -> Array:
        """Events of each phase in 100 events, shape (n_sessions, 6)."""
        return self.full[:, :N_PHASES]

    @property
    def regime_shares(self) -> Array:
        """Share of each regime, shape (n_sessions, 3); zeros where a session names none."""
        return self.full[:, _REGIME_0 : _REGIME_0 + 3]

    @property
    def range_pct(self) -> Array:
        """Range in per cent of the first price, shape (n_sessions,)."""
        return _ranges_pct(self.full)

    def days(self) -> Ints:
        """Return the dates as ordinals, shape (n_sessions,); ascending."""
        return ordinals(self.dates)

    def select(self, rows: Ints) -> Dataset:
        """Return the sessions at ascending `rows`, for a split by time; tables and counts stay those of the whole."""
        new_row = np.full(len(self), -1, dtype=np.int64)
        new_row[rows] = np.arange(len(rows))
        prefixes = {}
        for checkpoint_pct, cut in self.prefixes.items():
            kept = new_row[cut.rows] >= 0
            prefixes[checkpoint_pct] = Prefixes(
                rows=new_row[cut.rows[kept]], vectors=cut.vectors[kept], rests=cut.rests[kept]
            )
        return dataclasses.replace(
            self,
            session_ids=tuple(self.session_ids[row] for row in rows),
            session_types=tuple(self.session_types[row] for row in rows),
            dates=tuple(self.dates[row] for row in rows),
            starts_us=self.starts_us[rows],
            n_events=self.n_events[rows],
            full=self.full[rows],
            paths=self.paths[rows],
            prefixes=prefixes,
        )


def load_dataset(
    source: Path,
    *,
    checkpoints_pct: tuple[float, ...] = DEFAULT_CHECKPOINTS_PCT,
    completion: CompletionPolicy = "auto",
    min_events: int = DEFAULT_MIN_EVENTS,
    tables: Tables | None = None,
    first_date: str | None = None,
    last_date: str | None = None,
    n_jobs: int | None = None,
    backend: Backend = LOCAL,
    progress: Progress | None = None,
) -> Dataset:
    """Read the sessions of a file or folder.

    Each document is followed by an engine of its own, each JSON Lines file by one engine, as one partition.
    The files are read a second time where the windows and counts learned from them could change a prefix.

    Parameters
    ----------
    source : Path
        A session document, a JSON Lines file of messages, or a folder of such files.
    checkpoints_pct : tuple of float
        Completions at which prefixes are cut, in per cent; in any order.
    completion : {"auto", "declared", "schedule", "count"}
        How completion is measured.
    min_events : int
        Sessions and prefixes with fewer events are left out.
    tables : Tables, optional
        Windows and counts to go by, as those of a library that is to be judged; learned from the sessions by default.
    first_date, last_date : str, optional
        Leave out sessions dated before or after (ISO 8601), as if they were not there: nothing is learned from them.
    n_jobs : int, optional
        Processes that read files, -1 for one a core; by default chosen by the size of the input, or all workers of a
        cluster. The result is the same for any number.
    backend : Backend
        Where they run. Those of a cluster read the files themselves, this process opens none.
    progress : callable, optional
        Told after each file.

    Raises
    ------
    DocumentError
        When there is no file, or no usable session in them.
    """
    files = find_files(source)
    period = (first_date or "", last_date or "9999")
    read = functools.partial(_extract_all, files, _n_workers(files, n_jobs, backend), backend, progress)
    request = ExtractionRequest(
        checkpoints_pct=tuple(sorted({float(pct) for pct in checkpoints_pct})),
        completion=completion,
        min_events=min_events,
        schedules=DEFAULT_SCHEDULES if tables is None else tables.schedules,
        typical_events={} if tables is None else tables.typical_events,
    )
    gathered = _Gathered(read("Reading sessions", request), period)
    sessions = gathered.sessions
    learned = request
    if tables is None:
        learned = dataclasses.replace(
            request, schedules=learned_schedules(sessions), typical_events=learned_typical_events(sessions)
        )
    if tables is None and could_change(sessions, request, learned):
        gathered = _Gathered(read("Cutting prefixes with what was learned", learned), period)
    if not gathered.sessions:
        raise DocumentError(str(source), f"expected sessions of at least {min_events} events, {_nothing(gathered)}")
    return _dataset(gathered, learned)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tables:
    """Usual window and number of events by session type."""

    schedules: dict[str, Schedule]
    typical_events: dict[str, float]


class _Gathered:
    """The sessions of all files, each id once, in order of time."""

    def __init__(self, extracts: Iterator[FileExtract], period: tuple[str, str]) -> None:
        self.sessions: list[ExtractedSession] = []
        self.n_files = 0
        self.skipped: Counter[str] = Counter()
        self.remarks: list[str] = []
        first_path: dict[str, Path] = {}
        for found in extracts:
            self.n_files += 1
            self.skipped.update(found.skipped)
            self.remarks += found.remarks
            for session in found.sessions:
                if not period[0] <= session.date <= period[1]:
                    self.skipped["session: outside the period"] += 1
                elif session.session_id not in first_path:
                    first_path[session.session_id] = found.path
                    self.sessions.append(session)
                else:
                    self.skipped["session: id seen before"] += 1
                    self.remarks.append(
                        f"{found.path}: session {session.session_id} left out: "
                        f"read before from {first_path[session.session_id]}"
                    )
        self.sessions.sort(key=_time_order)


def _time_order(session: ExtractedSession) -> tuple[str, int, str]:
    return session.date, session.start_us, session.session_id


def _n_workers(files: list[Path], n_jobs: int | None, backend: Backend) -> int:
    if backend.is_cluster:
        return n_jobs or -1
    if n_jobs is None:
        n_bytes = sum(path.stat().st_size for path in files)
        n_jobs = -1 if n_bytes >= _WORTH_WORKERS_BYTES else 1
    if n_jobs < 0:
        n_jobs = max(1, cpu_count() + 1 + n_jobs)
    return max(1, min(n_jobs, len(files)))


def _extract_all(  # noqa: PLR0917 - first what stays the same from stage to stage
    files: list[Path],
    n_workers: int,
    backend: Backend,
    progress: Progress | None,
    stage: str,
    request: ExtractionRequest,
) -> Iterator[FileExtract]:
    extracts: Iterator[FileExtract]
    if n_workers == 1:
        extracts = (extract_file(path, request) for path in files)
    else:
        # In order of the files, whichever worker is done first.
        extracts = backend.run(extract_file, ((path, request) for path in files), n_jobs=n_workers)
    for n_done, found in enumerate(extracts, 1):
        if progress is not None:
            progress(stage, n_done, len(files))
        yield found


def _dataset(gathered: _Gathered, request: ExtractionRequest) -> Dataset:
    sessions = gathered.sessions
    prefixes = {}
    for checkpoint_pct in request.checkpoints_pct:
        rows = [row for row, session in enumerate(sessions) if checkpoint_pct in session.prefixes]
        prefixes[checkpoint_pct] = Prefixes(
            rows=np.array(rows, dtype=np.int64),
            vectors=_stacked([sessions[row].prefixes[checkpoint_pct] for row in rows], N_FEATURES),
            rests=_stacked([sessions[row].rests[checkpoint_pct] for row in rows], len(OUTCOMES)),
        )
    remarks = gathered.remarks[:_MAX_REMARKS]
    if (n_more := len(gathered.remarks) - _MAX_REMARKS) > 0:
        remarks.append(f"and {n_more} more")
    return Dataset(
        session_ids=tuple(session.session_id for session in sessions),
        session_types=tuple(session.session_type for session in sessions),
        dates=tuple(session.date for session in sessions),
        starts_us=np.array([session.start_us for session in sessions], dtype=np.int64),
        n_events=np.array([session.n_events for session in sessions], dtype=np.int64),
        full=_stacked([session.full for session in sessions], N_FEATURES),
        paths=_stacked([session.path for session in sessions], N_PATH_POINTS),
        prefixes=prefixes,
        completion=request.completion,
        min_events=request.min_events,
        schedules=request.schedules,
        typical_events=request.typical_events,
        n_unfinished=sum(session.is_unfinished for session in sessions),
        skipped=dict(sorted(gathered.skipped.items())),
        remarks=tuple(remarks),
    )


def _ranges_pct(vectors: Array) -> Array:
    """Return ranges, shape (n,), to the bit those of the online package; numpy's are so on some processors only."""
    return np.array([range_of_log(value) for value in vectors[:, RANGE].tolist()], dtype=np.float64)


def _stacked(vectors: list[Array], length: int) -> Array:
    # Through a new array, so that nothing of the process that made the vectors (its dtype objects) lives on.
    stacked = np.empty((len(vectors), length), dtype=np.float64)
    for row, vector in enumerate(vectors):
        stacked[row] = vector
    return stacked


def _nothing(gathered: _Gathered) -> str:
    counts = "; ".join(f"{reason}: {n}" for reason, n in sorted(gathered.skipped.items()))
    first = f". First: {gathered.remarks[0]}" if gathered.remarks else ""
    return (
        f"found none in {gathered.n_files} file{'s' * (gathered.n_files != 1)} ({counts or 'nothing in them'}){first}"
    )
