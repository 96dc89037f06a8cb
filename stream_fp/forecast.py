"""What a prediction says of its session: the forecast of the rest, in natural units and in those of training.

Pure: a library, a prefix and its features in, `PredictedStats` out. Everything that can be said of this session comes
from what was seen of it; the usual regime and session types are those of its archetype.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

from stream_fp.artifacts import ArchetypeStats
from stream_fp.features import RANGE, log_of_range, range_of_log
from stream_fp.library import Library
from stream_fp.messages import NaturalUnits, PredictedStats, Quantiles, RestOfSession
from stream_fp.phases import N_PHASES, PHASES
from stream_fp.prefix_model import OUTCOMES, RestForecast
from stream_fp.rounding import rounded

__all__ = ["VOLATILITY_CLASSES", "final_range_pct", "predicted_stats", "top_phases", "volatility_class"]

VOLATILITY_CLASSES: Final = ("low", "medium", "high")
_N_TOP_PHASES: Final = 3
#: Four decimals: finer than what any of these can be told to, and short to read.
_FINENESS: Final = 1e4
_N_EVENTS: Final = OUTCOMES.index("n_events")
_EFFICIENCY: Final = OUTCOMES.index("efficiency")
_FIRST_PHASE: Final = OUTCOMES.index(PHASES[0])


def predicted_stats(
    library: Library, archetype: ArchetypeStats, values: Sequence[float], n_seen: int, forecast: RestForecast
) -> PredictedStats:
    """Say what the session becomes.

    Parameters
    ----------
    library : Library
    archetype : ArchetypeStats
        The one that the session was assigned to.
    values : sequence of 30 floats
        Features of the prefix.
    n_seen : int
        Events in it.
    forecast : RestForecast
    """
    so_far_pct = range_of_log(values[RANGE])
    p10, p50, p90 = final_range_pct(archetype, so_far_pct, forecast)
    rates = _whole_session_rates(values[:N_PHASES], n_seen, forecast.outcomes)
    usual = library.usual
    z_scores = [(rate - center) / spread for rate, (center, spread) in zip(rates, usual[:N_PHASES], strict=True)]
    usual_range, usual_spread = usual[RANGE]
    return PredictedStats(
        volatility_class=volatility_class(p50, library.range_terciles_pct),
        range_p50=rounded((log_of_range(p50) - usual_range) / usual_spread, _FINENESS),
        dominant_htf_regime=archetype.dominant_htf_regime,
        top_phases=top_phases(rates, z_scores),
        session_type_probabilities=archetype.session_type_probabilities,
        natural_units=NaturalUnits(
            range_pct=Quantiles(p10=rounded(p10, _FINENESS), p50=rounded(p50, _FINENESS), p90=rounded(p90, _FINENESS)),
            range_so_far_pct=rounded(so_far_pct, _FINENESS),
            phase_rates_per_100_events={
                phase: rounded(rate, _FINENESS) for phase, rate in zip(PHASES, rates, strict=True)
            },
            rest=_rest(forecast.outcomes),
        ),
    )


def final_range_pct(archetype: ArchetypeStats, so_far_pct: float, forecast: RestForecast) -> tuple[float, float, float]:
    """Return P10, P50 and P90 of the whole session's range in per cent, never below the range so far.

    Where training never saw a price move, no more is known than what sessions of the archetype were like.
    """
    if forecast.final_range_pct is not None:
        return forecast.final_range_pct
    usual = archetype.natural_units.range_pct
    return max(usual.p10, so_far_pct), max(usual.p50, so_far_pct), max(usual.p90, so_far_pct)


def volatility_class(range_pct: float, terciles_pct: tuple[float, float]) -> str:
    """Return the class of a final range: in which third of the training sessions it lies.

    Examples
    --------
    >>> volatility_class(0.5, (0.4, 0.8))
    'medium'
    """
    return VOLATILITY_CLASSES[sum(range_pct > tercile for tercile in terciles_pct)]


def top_phases(rates: Sequence[float], z_scores: Sequence[float]) -> list[tuple[str, float]]:
    """Return the phases that stand out most, of those that occur at all, with how much: at most three.

    Parameters
    ----------
    rates, z_scores : sequence of 6 floats
        Events of each phase in 100 events; the same in standard deviations of the training sessions.

    Examples
    --------
    >>> top_phases([50.0, 0.0, 20.0, 0.0, 30.0, 0.0], [0.1, 9.0, 0.4, 9.0, -0.2, 9.0])
    [('consolidation_phase', 0.4), ('fvg_interaction', 0.1), ('reversal_signal', -0.2)]
    """
    occurring = [phase for phase in range(N_PHASES) if rates[phase] > 0]
    occurring.sort(key=lambda phase: -z_scores[phase])
    return [(PHASES[phase], rounded(z_scores[phase], _FINENESS)) for phase in occurring[:_N_TOP_PHASES]]


def _whole_session_rates(seen: Sequence[float], n_seen: int, outcomes: list[float]) -> list[float]:
    """Return the events of each phase in 100, those seen and those expected taken together."""
    n_rest = math.exp(outcomes[_N_EVENTS])
    if math.isnan(n_rest):
        return list(seen)
    return [
        (n_seen * rate + n_rest * (rate if math.isnan(share) else 100.0 * share)) / (n_seen + n_rest)
        for rate, share in zip(seen, outcomes[_FIRST_PHASE:], strict=True)
    ]


def _rest(outcomes: list[float]) -> RestOfSession:
    range_log, volatility_log, n_events_log = outcomes[:_EFFICIENCY]
    return RestOfSession(
        range_pct=_known(math.exp(range_log)),
        volatility_pct=_known(math.exp(volatility_log)),
        n_events=_known(math.exp(n_events_log)),
        efficiency=_known(outcomes[_EFFICIENCY]),
        phase_shares={phase: _known(share) for phase, share in zip(PHASES, outcomes[_FIRST_PHASE:], strict=True)},
    )


def _known(value: float) -> float | None:
    return None if math.isnan(value) else rounded(value, _FINENESS)
