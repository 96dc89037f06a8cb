"""The files that a service writes for its predictions: sidecars, and the minidash page where one is wanted.

Writing goes on in threads, so that the event loop does not wait for a disk. To write the same prediction again changes
nothing, so whoever fails half-way may simply begin anew.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path

from stream_fp.config import Settings
from stream_fp.messages import Prediction, encode_prediction
from stream_fp.metrics import Metrics
from stream_fp.sinks.minidash import write_row
from stream_fp.sinks.sidecar import write_session_sidecar

__all__ = ["FileSinks"]


class FileSinks:
    """Writes where the settings say; one for all partitions of a process.

    Parameters
    ----------
    settings : Settings
    metrics : Metrics
    """

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        self._sidecar_dir = Path(settings.sidecar_dir) if settings.sidecar_dir else None
        self._minidash_path = Path(settings.minidash_path) if settings.minidash_path else None
        self._metrics = metrics
        # The page is one for all partitions, and is read before it is written.
        self._page = asyncio.Lock()

    async def write(self, predictions: Sequence[Prediction]) -> None:
        """Write sidecars and minidash rows; they are on disk when this returns.

        Raises
        ------
        OSError
            When one cannot be written; some of the others may have been.
        """
        if self._sidecar_dir is not None:
            for took_s in await asyncio.to_thread(_write_sidecars, self._sidecar_dir, predictions):
                self._metrics.sidecar_write.observe(took_s)
        if self._minidash_path is not None:
            async with self._page:
                await asyncio.to_thread(_write_rows, self._minidash_path, predictions)


def _write_sidecars(folder: Path, predictions: Sequence[Prediction]) -> list[float]:
    took_s = []
    for prediction in predictions:
        started_s = time.perf_counter()
        write_session_sidecar(folder, prediction.session_id, encode_prediction(prediction))
        took_s.append(time.perf_counter() - started_s)
    return took_s


def _write_rows(page: Path, predictions: Sequence[Prediction]) -> None:
    for prediction in predictions:
        write_row(prediction, page)
