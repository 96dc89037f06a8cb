"""What each training of the A/B grid leaves on disk, so that a run that was killed goes on where it stood.

Between `offline.ab`, which makes parts, and `offline.ab_results`, which reads them. A part is one file of MessagePack,
written whole; it carries the fingerprint of the run: sessions, options and package versions.

Invariant: a part is used only for the very run that it was made for, and no result is replaced without being told to.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Final, TypeVar

import msgspec
import numpy as np
from msgspec import Struct

from offline.dataset import Dataset
from offline.places import check_place, write_whole
from offline.scalers import ScalerKind
from stream_fp.classifier import AssignmentMethod, ConfidenceMethod, DistanceMetric
from stream_fp.errors import ConfigError

__all__ = ["Cell", "CheckpointPart", "Choice", "Part", "PartFolder", "Scores", "sessions_digest"]

RESULT_FILE: Final = "ab.json"
TABLE_FILE: Final = "ab.csv"
_PARTS_FOLDER: Final = "parts"
_SUFFIX: Final = ".msgpack"


class Cell(Struct, frozen=True, kw_only=True, order=True):
    """One way to assign and to be confident; what it ignores is null."""

    scaler: ScalerKind
    assignment: AssignmentMethod
    metric: DistanceMetric | None
    confidence: ConfidenceMethod | None

    @property
    def name(self) -> str:
        """The cell in words, unique within the grid."""
        return " ".join(word for word in (self.assignment, self.metric, self.confidence, self.scaler) if word)


class Scores(Struct, frozen=True, kw_only=True):
    """What one way to predict got, session by session: lists of equal length."""

    is_right: list[bool]
    log_loss: list[float]
    brier: list[float]
    confidence: list[float]


class CheckpointPart(Struct, frozen=True, kw_only=True):
    """The future of one split, judged at one checkpoint by all cells of one scaler."""

    checkpoint_pct: float
    rows: list[int]
    """Sessions judged, as rows of the dataset, ascending; none where no session of the past reached the checkpoint."""
    labels: list[int]
    """Their archetypes, by the k-means of the past."""
    scores: list[Scores]
    """In the order of `Part.cells`."""
    guess: Scores
    """Guessing from session type and regime seen so far, as counted in the past."""
    without_covariance: bool
    """Whether mahalanobis had to fall back to euclidean."""


class Part(Struct, frozen=True, kw_only=True):
    """One training: a split and a scaler."""

    fingerprint: str
    split: int
    scaler: ScalerKind
    profile: str
    n_archetypes: int
    cells: list[Cell]
    checkpoints: list[CheckpointPart]


class Choice(Struct, frozen=True, kw_only=True):
    """Archetypes chosen from the past of one split, the same for both scalers."""

    fingerprint: str
    profile: str
    n_archetypes: int


_T = TypeVar("_T", Part, Choice)


class _Fingerprint(Struct):
    fingerprint: str


class PartFolder:
    """The output folder of a run.

    Parameters
    ----------
    path : Path
    force : bool
        Whether what other runs left there is deleted.

    Raises
    ------
    ConfigError
        When the folder cannot be written, or holds what no run has made.
    """

    def __init__(self, path: Path, *, force: bool) -> None:
        self._path = path
        self._force = force
        try:
            if (path.exists() or path.is_symlink()) and not path.is_dir():
                raise ConfigError("output", f"{path} is no folder")
            known = (RESULT_FILE, TABLE_FILE, _PARTS_FOLDER)
            others = [] if not path.is_dir() else [p.name for p in path.iterdir() if not _is_ours(p.name, known)]
        except OSError as error:
            raise ConfigError("output", f"{path}: {error.strerror or error}") from error
        if others:
            raise ConfigError("output", f"{path} holds more than an A/B run ({min(others)}); give another folder")
        check_place("output", path / RESULT_FILE)

    def begin(self, fingerprint: str) -> None:
        """Make sure that all parts in the folder are of this run; with `force` by deleting every one.

        Raises
        ------
        ConfigError
            When results of another run are there and `force` is not set.
        """
        parts = self._path / _PARTS_FOLDER
        try:
            files = [*parts.glob(f"*{_SUFFIX}"), self._path / RESULT_FILE]
            if not self._force:
                for file in files:
                    if file.is_file() and _fingerprint(file) not in {fingerprint, None}:
                        raise ConfigError(
                            "output",
                            f"{self._path} exists, with results of other sessions, options or package versions "
                            f"({file.relative_to(self._path)}); give another folder, or --force to start anew",
                        )
                files = []
            # A temporary file is what remains of a write that was killed.
            for file in [*files, self._path / TABLE_FILE, *parts.glob(f".*{_SUFFIX}-*"), *self._path.glob(".ab.*-*")]:
                if self._force or file.name.startswith("."):
                    file.unlink(missing_ok=True)
        except OSError as error:
            raise ConfigError("output", f"{self._path}: {error.strerror or error}") from error

    def read(self, name: str, shape: type[_T]) -> _T | None:
        """Return a finished part, or None where there is none that can be read."""
        try:
            return msgspec.msgpack.decode(self._part(name).read_bytes(), type=shape)
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
            return None

    def write(self, name: str, part: Part | Choice) -> None:
        """Keep a finished part."""
        write_whole("output", self._part(name), [msgspec.msgpack.encode(part)])

    def write_results(self, result: bytes, table: bytes) -> tuple[Path, Path]:
        """Write what the run is for, and return where; the result comes last, so that where it is, all is."""
        write_whole("output", self._path / TABLE_FILE, [table])
        write_whole("output", self._path / RESULT_FILE, [result])
        return self._path / RESULT_FILE, self._path / TABLE_FILE

    def _part(self, name: str) -> Path:
        return self._path / _PARTS_FOLDER / f"{name}{_SUFFIX}"


def sessions_digest(dataset: Dataset) -> str:
    """Return the SHA-256 of all that training and judging see of the sessions."""
    tables = msgspec.json.encode(
        {
            "session_ids": dataset.session_ids,
            "session_types": dataset.session_types,
            "dates": dataset.dates,
            "completion": dataset.completion,
            "min_events": dataset.min_events,
            "schedules": {
                name: (window.start, window.end, window.timezone) for name, window in sorted(dataset.schedules.items())
            },
            "typical_events": dict(sorted(dataset.typical_events.items())),
            "checkpoints": list(dataset.prefixes),
        }
    )
    found = hashlib.sha256(tables)
    arrays = [dataset.starts_us, dataset.n_events, dataset.full, dataset.paths]
    arrays += [array for cut in dataset.prefixes.values() for array in (cut.rows, cut.vectors, cut.rests)]
    for array in arrays:
        found.update(repr((array.shape, array.dtype.str)).encode())
        found.update(np.ascontiguousarray(array).tobytes())
    return found.hexdigest()


def _is_ours(name: str, known: tuple[str, ...]) -> bool:
    return name in known or any(name.startswith(f".{file}-") for file in known)


def _fingerprint(file: Path) -> str | None:
    """Return the fingerprint of the run that wrote a file, or None where it is damaged and so is made anew."""
    decode = msgspec.msgpack.decode if file.suffix == _SUFFIX else msgspec.json.decode
    try:
        return decode(file.read_bytes(), type=_Fingerprint).fingerprint
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None
