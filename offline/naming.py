"""Names of archetypes in plain words, made from their statistics: how wide, how led, how straight, and when.

Pure. A word is only said where the archetype differs enough from all sessions; width and pace are judged against the
usual of the same session type, so that a name tells more than the time of day. Names are different from each other.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from offline.dataset import Dataset
from stream_fp.features import FEATURE_NAMES
from stream_fp.phases import PHASES

__all__ = ["archetype_names"]

Array = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

#: Median range over the median of the same session type, from which on each word holds.
_WIDTHS: Final = ((2.0, "very wide"), (1.3, "wide"), (0.8, "of usual width"), (0.55, "narrow"), (0.0, "very narrow"))
#: The same of path per hour.
_PACES: Final = ((1.9, "wild"), (1.25, "lively"), (0.8, "steady"), (0.0, "calm"))
#: Standard errors are far below; in standard deviations of all sessions.
_STANDS_OUT: Final = 0.35
#: Relative spread below which a feature is constant but for rounding, and nothing stands out.
_NO_SPREAD: Final = 1e-9
_PHASE_WORDS: Final = {
    "fvg_interaction": "gaps",
    "expansion_phase": "expansions",
    "consolidation_phase": "consolidations",
    "retracement_event": "retracements",
    "reversal_signal": "reversals",
    "liquidity_sweep": "sweeps",
}


def archetype_names(dataset: Dataset, labels: Ints, n_archetypes: int) -> list[str]:
    """Name the archetypes of sessions.

    Parameters
    ----------
    dataset : Dataset
    labels : ndarray of shape (n_sessions,), int64
    n_archetypes : int

    Returns
    -------
    list of str
        By archetype id; an archetype without sessions is called so.
    """
    spread = dataset.full.std(axis=0)
    differs = spread > _NO_SPREAD * (1.0 + np.abs(dataset.full).max(axis=0))
    z_scores = np.where(differs, dataset.full - dataset.full.mean(axis=0), 0.0) / np.where(differs, spread, 1.0)
    widths = _against_type(dataset.range_pct, dataset.session_types)
    paces = _against_type(np.expm1(dataset.full[:, _place("log_path_per_hour")]), dataset.session_types)
    names: list[str] = []
    for label in range(n_archetypes):
        members = labels == label
        if not members.any():
            names.append(_distinct(["without sessions"], names))
            continue
        words = _words(
            z_scores[members].mean(axis=0), float(np.median(widths[members])), float(np.median(paces[members]))
        )
        names.append(_distinct(words, names))
    return names


def _words(z_scores: Array, width: float, pace: float) -> list[str]:
    words = [f"{_word(pace, _PACES)} and {_word(width, _WIDTHS)}"]
    leading = [phase for phase in np.argsort(-z_scores[: len(PHASES)]) if z_scores[phase] > _STANDS_OUT][:2]
    if leading:
        words.append("many " + " and ".join(_PHASE_WORDS[PHASES[phase]] for phase in leading))
    for name, high, low in (
        ("path_efficiency", "straight", "back and forth"),
        ("late_range_share", "opens up late", "made early"),
        ("recent_tempo", "busy at the end", "quiet at the end"),
    ):
        z_score = z_scores[_place(name)]
        if abs(z_score) > _STANDS_OUT:
            words.append(high if z_score > 0 else low)
    lacking = [phase for phase in np.argsort(z_scores[: len(PHASES)]) if z_scores[phase] < -_STANDS_OUT][:1]
    words += [f"few {_PHASE_WORDS[PHASES[phase]]}" for phase in lacking]
    return words


def _distinct(words: list[str], taken: list[str]) -> str:
    """Join the first three words; more where another archetype is called so, and a number where all words are spent."""
    for n in range(min(3, len(words)), len(words) + 1):
        name = ", ".join(words[:n])
        if name not in taken:
            return name
    number = 2
    while f"{name} ({number})" in taken:
        number += 1
    return f"{name} ({number})"


def _word(value: float, scale: tuple[tuple[float, str], ...]) -> str:
    return next(word for least, word in scale if value >= least)


def _against_type(values: Array, session_types: tuple[str, ...]) -> Array:
    types = np.array(session_types)
    ratios = np.ones_like(values)
    for session_type in np.unique(types):
        members = types == session_type
        usual = float(np.median(values[members]))
        if usual > 0:
            ratios[members] = values[members] / usual
    return ratios


def _place(name: str) -> int:
    return FEATURE_NAMES.index(name)
