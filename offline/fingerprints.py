"""The table of fingerprints: every feature vector of a dataset as a row of a CSV file, for notebooks and spreadsheets.

A prefix carries the archetype of its full session, since that is what it should be recognised as.
"""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from offline.dataset import Dataset
from stream_fp.errors import ConfigError
from stream_fp.features import FEATURE_NAMES
from stream_fp.sinks.sidecar import write_atomically

__all__ = ["COLUMNS", "write_fingerprints"]

COLUMNS: Final = ("session_id", "session_type", "date", "kind", "checkpoint_pct", "archetype_id", *FEATURE_NAMES)


def write_fingerprints(dataset: Dataset, labels: npt.NDArray[np.int64], path: Path) -> None:
    """Write full sessions, then the prefixes of each checkpoint, all in order of time and unscaled.

    Parameters
    ----------
    dataset : Dataset
    labels : ndarray of shape (n_sessions,), int64
        Archetype of each session.
    path : Path
        Replaced where it exists.

    Raises
    ------
    ConfigError
        When the file cannot be written.
    """
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(COLUMNS)
    for row, vector in enumerate(dataset.full):
        table.writerow(_row(dataset, labels, row, "full", "", vector))
    for checkpoint_pct, prefixes in dataset.prefixes.items():
        for row, vector in zip(prefixes.rows.tolist(), prefixes.vectors, strict=True):
            table.writerow(_row(dataset, labels, row, "prefix", f"{checkpoint_pct:g}", vector))
    try:
        write_atomically(path, text.getvalue().encode())
    except OSError as error:
        raise ConfigError("fingerprints", f"{path}: {error.strerror or error}") from error


def _row(  # noqa: PLR0917 - one row of the table, left to right
    dataset: Dataset,
    labels: npt.NDArray[np.int64],
    row: int,
    kind: str,
    checkpoint: str,
    vector: npt.NDArray[np.float64],
) -> list[object]:
    names = (dataset.session_ids[row], dataset.session_types[row], dataset.dates[row])
    return [*names, kind, checkpoint, int(labels[row]), *vector.tolist()]
