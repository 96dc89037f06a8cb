"""The six phases of a session, and the one table that maps free-text event types onto them.

An event type is looked up in lower case with blanks and hyphens turned into underscores; where the whole text is not
in the table, trailing words are dropped until a leading part is (``expansion_higher_fpfvg_redelivery`` begins with
``expansion``). What remains unknown is an event of no phase (`UNKNOWN`): it counts as an event, never as an error.
"""

from __future__ import annotations

from typing import Final

__all__ = ["ALIASES", "N_PHASES", "PHASES", "PHASE_CODES", "UNKNOWN", "phase_of"]

PHASES: Final = (
    "fvg_interaction",
    "expansion_phase",
    "consolidation_phase",
    "retracement_event",
    "reversal_signal",
    "liquidity_sweep",
)
N_PHASES: Final = len(PHASES)
UNKNOWN: Final = N_PHASES

ALIASES: Final[dict[str, tuple[str, ...]]] = {
    "fvg_interaction": (
        "fvg", "fair_value_gap", "fair_value_gap_interaction", "fpfvg", "gap", "imbalance", "interaction",
        "redelivery", "redelivered", "gap_fill",
    ),
    "expansion_phase": ("expansion", "expand", "impulse", "displacement", "breakout", "structural_trend"),
    "consolidation_phase": ("consolidation", "consolidate", "range", "ranging", "accumulation", "balance"),
    # To rebalance is to come back through an earlier move; with the gap named (`fvg_rebalance`) it is the gap's.
    "retracement_event": ("retracement", "retrace", "pullback", "correction", "rebalance", "rebalanced"),
    "reversal_signal": (
        "reversal", "reverse", "regime_shift", "failure_swing", "support_test", "resistance_test",
        "change_of_character", "choch", "market_structure_shift", "mss",
    ),
    "liquidity_sweep": (
        "liquidity", "sweep", "liquidity_event", "liquidity_grab", "stop_hunt", "stop_run", "level_break",
        "session_low_liquidity_sweep", "session_high_liquidity_sweep",
    ),
}  # fmt: skip

_PHASE_OF_ALIAS: Final = {alias: code for code, phase in enumerate(PHASES) for alias in (phase, *ALIASES[phase])}
# Event types are free text that a producer controls: remember only so many spellings, so that memory stays bounded.
_N_REMEMBERED: Final = 4096


class _PhaseCodes(dict[str, int]):
    """Codes by event type, those met so far; the others are looked up."""

    def __missing__(self, event_type: str) -> int:
        code = _look_up(event_type)
        if len(self) < _N_REMEMBERED and len(event_type) <= 64:
            self[event_type] = code
        return code


#: Code of any event type, as `phase_of` gives it.
PHASE_CODES: Final = _PhaseCodes()


def phase_of(event_type: str) -> int:
    """Return the index into `PHASES` of an event type, or `UNKNOWN`.

    Examples
    --------
    >>> PHASES[phase_of("Fair Value Gap")]
    'fvg_interaction'
    >>> PHASES[phase_of("expansion_higher")]
    'expansion_phase'
    >>> phase_of("news_print") == UNKNOWN
    True
    """
    return PHASE_CODES[event_type]


def _look_up(event_type: str) -> int:
    # No alias is longer than 64 characters; cutting keeps a huge text from costing more than a short one.
    name = event_type[:64].strip().lower().replace(" ", "_").replace("-", "_")
    while name:
        code = _PHASE_OF_ALIAS.get(name)
        if code is not None:
            return code
        name, _, _ = name.rpartition("_")
    return UNKNOWN
