"""Profiles: which features tell archetypes apart, and how much each counts in the distance between full sessions."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from stream_fp.features import FEATURE_NAMES, N_FEATURES

__all__ = ["DEFAULT_PROFILE", "NO_WEIGHT", "PROFILES", "profile_weights"]

#: Of a feature that plays no part in a profile: a millionth counts for nothing, and keeps the scale finite.
NO_WEIGHT: Final = 1e-6
#: Where there are too few sessions to choose by evidence.
DEFAULT_PROFILE: Final = "pace"
#: Features that tell archetypes apart, with their weights. All are candidates; `offline.selection` chooses by evidence.
PROFILES: Final[dict[str, dict[str, float]]] = {
    "pace": {"log_path_per_hour": 1.0, "consolidation_phase_rate": 1.0},
    "pace_range": {
        "log_path_per_hour": 1.0,
        "log_range": 1.0,
        "log_intensity": 1.0,
        "consolidation_phase_rate": 1.0,
    },
    "pace_trend": {
        "log_path_per_hour": 1.0,
        "log_range": 0.7,
        "consolidation_phase_rate": 1.0,
        "path_efficiency": 0.7,
    },
    "pace_phases": {
        "log_path_per_hour": 1.0,
        "expansion_phase_rate": 0.7,
        "consolidation_phase_rate": 0.7,
        "retracement_event_rate": 0.4,
        "reversal_signal_rate": 0.4,
        "liquidity_sweep_rate": 0.4,
        "fvg_interaction_rate": 0.4,
    },
    "all": dict.fromkeys(FEATURE_NAMES, 1.0),
}


def profile_weights(profile: str) -> npt.NDArray[np.float64]:
    """Return the weight of each feature, shape (30,)."""
    weights = np.full(N_FEATURES, NO_WEIGHT)
    for name, weight in PROFILES[profile].items():
        weights[FEATURE_NAMES.index(name)] = weight
    return weights
