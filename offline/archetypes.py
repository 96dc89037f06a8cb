"""What the full sessions of each archetype were like: the content of ``cluster_stats.json``.

Pure: a dataset and the archetype of each session in, `ArchetypeStats` out. These statistics are what a prediction
passes on to its reader, so they are rounded to what sampling error leaves meaningful.
"""

from __future__ import annotations

from collections import Counter
from typing import Final

import numpy as np
import numpy.typing as npt

from offline.dataset import NORMAL_REGIME, Dataset
from offline.naming import archetype_names
from offline.rounding import rounded
from stream_fp.artifacts import ArchetypeStats, TypicalUnits
from stream_fp.features import FEATURE_NAMES, RANGE
from stream_fp.forecast import top_phases, volatility_class
from stream_fp.messages import Quantiles
from stream_fp.phases import N_PHASES, PHASES

__all__ = ["UNKNOWN_TYPE", "archetype_stats"]

Array = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

#: Stands for a session type that nothing names.
UNKNOWN_TYPE: Final = "unknown"
_EFFICIENCY: Final = FEATURE_NAMES.index("path_efficiency")
_TEMPO: Final = FEATURE_NAMES.index("log_events_per_hour")


def archetype_stats(
    dataset: Dataset, z_scores: Array, labels: Ints, n_archetypes: int, terciles_pct: tuple[float, float]
) -> list[ArchetypeStats]:
    """Describe the archetypes.

    Parameters
    ----------
    dataset : Dataset
    z_scores : ndarray of shape (n_sessions, 30)
        Its full sessions, each feature by its center and spread, without weights.
    labels : ndarray of shape (n_sessions,), int64
        Archetype of each; every archetype has at least one session.
    n_archetypes : int
    terciles_pct : tuple of float
        Final ranges between the three classes of volatility.
    """
    names = archetype_names(dataset, labels, n_archetypes)
    return [
        _stats(archetype_id, names[archetype_id], dataset, z_scores, labels == archetype_id, terciles_pct)
        for archetype_id in range(n_archetypes)
    ]


def _stats(  # noqa: PLR0917 - what there is to say of one archetype
    archetype_id: int,
    name: str,
    dataset: Dataset,
    z_scores: Array,
    members: npt.NDArray[np.bool_],
    terciles_pct: tuple[float, float],
) -> ArchetypeStats:
    ranges = dataset.range_pct[members]
    rates = dataset.phase_rates[members]
    regime_shares = dataset.regime_shares[members].mean(axis=0)
    p10, p50, p90 = np.quantile(ranges, (0.1, 0.5, 0.9))
    return ArchetypeStats(
        archetype_id=archetype_id,
        name=name,
        n_sessions=int(members.sum()),
        volatility_class=volatility_class(float(p50), terciles_pct),
        range_p50=rounded(np.median(z_scores[members, RANGE])),
        dominant_htf_regime=int(regime_shares.argmax()) if regime_shares.any() else NORMAL_REGIME,
        top_phases=top_phases(rates.max(axis=0), z_scores[members, :N_PHASES].mean(axis=0)),
        session_type_probabilities=_type_shares(np.array(dataset.session_types)[members].tolist()),
        natural_units=TypicalUnits(
            range_pct=Quantiles(p10=rounded(p10), p50=rounded(p50), p90=rounded(p90)),
            phase_rates_per_100_events={
                phase: rounded(rate) for phase, rate in zip(PHASES, np.median(rates, axis=0), strict=True)
            },
            efficiency=rounded(np.median(dataset.full[members, _EFFICIENCY])),
            events_per_hour=rounded(np.expm1(np.median(dataset.full[members, _TEMPO]))),
        ),
    )


def _type_shares(session_types: list[str]) -> dict[str, float]:
    """Return the share of each type that occurs, the most frequent first."""
    counts = Counter(session_type or UNKNOWN_TYPE for session_type in session_types)
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return {session_type: rounded(n / len(session_types)) for session_type, n in ordered}
