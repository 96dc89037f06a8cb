"""What the full sessions of each archetype were like: the content of ``cluster_stats.json``.

Pure: a dataset, its scaled vectors and the archetype of each session in, `ArchetypeStats` out. These statistics are
what a prediction passes on to its reader, so they are rounded to what sampling error leaves meaningful.
"""

from __future__ import annotations

from collections import Counter
from typing import Final

import numpy as np
import numpy.typing as npt

from offline.dataset import Dataset
from stream_fp.features import FEATURE_NAMES
from stream_fp.library import ArchetypeStats
from stream_fp.messages import NaturalUnits, Quantiles
from stream_fp.phases import N_PHASES, PHASES

__all__ = ["UNKNOWN_TYPE", "VOLATILITY_CLASSES", "archetype_stats"]

Array = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

VOLATILITY_CLASSES: Final = ("low", "medium", "high")
#: Stands for a session type that nothing names.
UNKNOWN_TYPE: Final = "unknown"
#: Said of sessions whose events name no regime.
_NORMAL_REGIME: Final = 1
_N_TOP_PHASES: Final = 3
_DECIMALS: Final = 4
_RANGE_PCT: Final = FEATURE_NAMES.index("range_pct")


def archetype_stats(dataset: Dataset, scaled: Array, labels: Ints, n_archetypes: int) -> list[ArchetypeStats]:
    """Describe the archetypes.

    Parameters
    ----------
    dataset : Dataset
    scaled : ndarray of shape (n_sessions, 30)
        Its full sessions, scaled.
    labels : ndarray of shape (n_sessions,), int64
        Archetype of each; every archetype has at least one session.
    n_archetypes : int
    """
    # Terciles of all sessions, so that the three classes mean the same in every archetype.
    terciles = np.quantile(dataset.range_pct, (1 / 3, 2 / 3))
    return [
        _stats(archetype_id, dataset, scaled, labels == archetype_id, terciles) for archetype_id in range(n_archetypes)
    ]


def _stats(
    archetype_id: int, dataset: Dataset, scaled: Array, members: npt.NDArray[np.bool_], terciles: Array
) -> ArchetypeStats:
    ranges = dataset.range_pct[members]
    rates = dataset.phase_rates[members]
    median_range = float(np.median(ranges))
    regime_shares = dataset.regime_shares[members].mean(axis=0)
    p10, p50, p90 = np.quantile(ranges, (0.1, 0.5, 0.9))
    return ArchetypeStats(
        archetype_id=archetype_id,
        n_sessions=int(members.sum()),
        volatility_class=VOLATILITY_CLASSES[int(np.searchsorted(terciles, median_range, side="left"))],
        range_p50=_rounded(np.median(scaled[members, _RANGE_PCT])),
        dominant_htf_regime=int(regime_shares.argmax()) if regime_shares.any() else _NORMAL_REGIME,
        top_phases=_top_phases(rates, scaled[members, :N_PHASES]),
        session_type_probabilities=_type_shares(np.array(dataset.session_types)[members].tolist()),
        natural_units=NaturalUnits(
            range_pct=Quantiles(p10=_rounded(p10), p50=_rounded(p50), p90=_rounded(p90)),
            phase_rates_per_100_events={
                phase: _rounded(rate) for phase, rate in zip(PHASES, np.median(rates, axis=0), strict=True)
            },
        ),
    )


def _top_phases(rates: Array, scaled_rates: Array) -> list[tuple[str, float]]:
    """Return the phases that stand out most, of those that occur at all, with their mean scaled rate."""
    means = scaled_rates.mean(axis=0)
    order = sorted(np.flatnonzero(rates.any(axis=0)).tolist(), key=lambda phase: (-means[phase], phase))
    return [(PHASES[phase], _rounded(means[phase])) for phase in order[:_N_TOP_PHASES]]


def _type_shares(session_types: list[str]) -> dict[str, float]:
    """Return the share of each type that occurs, the most frequent first."""
    counts = Counter(session_type or UNKNOWN_TYPE for session_type in session_types)
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return {session_type: _rounded(n / len(session_types)) for session_type, n in ordered}


def _rounded(value: float | np.floating[npt.NBitBase]) -> float:
    return round(float(value), _DECIMALS) + 0.0  # no negative zero
