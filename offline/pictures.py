"""What the sessions of each archetype look like: paths, bands and rates for the pictures of a report."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from offline.dataset import Dataset
from offline.report import MAX_EXAMPLES, N_BAND_STEPS, ArchetypePicture, Band, PricePath
from offline.rounding import rounded
from stream_fp.artifacts import ArchetypeStats
from stream_fp.features import FEATURE_NAMES
from stream_fp.messages import Quantiles
from stream_fp.phases import PHASES

__all__ = ["overall_phase_rates", "picture"]

Array = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

_EFFICIENCY: Final = FEATURE_NAMES.index("path_efficiency")


def overall_phase_rates(dataset: Dataset) -> dict[str, float]:
    """Return the mean rate of each phase per 100 events over all sessions."""
    return _rates(dataset.phase_rates)


def picture(stats: ArchetypeStats, dataset: Dataset, labels: Ints, scaled: Array, centroid: Array) -> ArchetypePicture:
    """Draw one archetype from the sessions that are judged.

    Parameters
    ----------
    stats : ArchetypeStats
        Its name and, where no session judged is of it, its statistics of training.
    dataset : Dataset
    labels : ndarray of shape (n_sessions,), int64
        Archetype of each session.
    scaled : ndarray of shape (n_sessions, 30)
    centroid : ndarray of shape (30,)
        Of the archetype; the sessions nearest to it are the examples.
    """
    rows = np.flatnonzero(labels == stats.archetype_id)
    usual = stats.natural_units
    if not len(rows):
        return ArchetypePicture(
            archetype_id=stats.archetype_id, name=stats.name, n_sessions=0, share=0.0, examples=[],
            mean_band=Band(p10=[0.0] * N_BAND_STEPS, p50=[0.0] * N_BAND_STEPS, p90=[0.0] * N_BAND_STEPS),
            phase_rates=usual.phase_rates_per_100_events, range_pct=usual.range_pct,
            session_types=stats.session_type_probabilities, efficiency=usual.efficiency,
            volatility_class=stats.volatility_class,
        )  # fmt: skip
    nearest = rows[np.argsort(np.square(scaled[rows] - centroid).sum(axis=1), kind="stable")]
    types, counts = np.unique([dataset.session_types[row] or "unknown" for row in rows], return_counts=True)
    order = np.argsort(-counts, kind="stable")
    p10, p50, p90 = np.quantile(dataset.range_pct[rows], (0.1, 0.5, 0.9)).tolist()
    return ArchetypePicture(
        archetype_id=stats.archetype_id,
        name=stats.name,
        n_sessions=len(rows),
        share=len(rows) / len(dataset),
        examples=[_path(dataset, int(row)) for row in nearest[:MAX_EXAMPLES]],
        mean_band=_band(dataset.paths[rows]),
        phase_rates=_rates(dataset.phase_rates[rows]),
        range_pct=Quantiles(p10=rounded(p10), p50=rounded(p50), p90=rounded(p90)),
        session_types={str(types[i]): rounded(counts[i] / len(rows)) for i in order},
        efficiency=rounded(np.median(dataset.full[rows, _EFFICIENCY])),
        volatility_class=stats.volatility_class,
    )


def _path(dataset: Dataset, row: int) -> PricePath:
    moves = dataset.paths[row]
    known = ~np.isnan(moves)
    times = np.linspace(0.0, 1.0, len(moves))
    return PricePath(
        session_id=dataset.session_ids[row],
        time=[rounded(time) for time in times[known]],
        move_pct=[rounded(move) for move in moves[known]],
    )


def _band(paths: Array) -> Band:
    # Before its first price a session has not moved.
    moves = np.nan_to_num(paths, nan=0.0)
    steps = np.linspace(0, paths.shape[1] - 1, N_BAND_STEPS).round().astype(np.int64)
    p10, p50, p90 = np.quantile(moves[:, steps], (0.1, 0.5, 0.9), axis=0)
    return Band(p10=[rounded(x) for x in p10], p50=[rounded(x) for x in p50], p90=[rounded(x) for x in p90])


def _rates(rates: Array) -> dict[str, float]:
    return {phase: rounded(rate) for phase, rate in zip(PHASES, rates.mean(axis=0), strict=True)}
