from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Final

import msgspec
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from stream_fp.features import N_FEATURES, RANGE, log_of_range, range_of_log
from stream_fp.forecast import VOLATILITY_CLASSES, predicted_stats, top_phases, volatility_class
from stream_fp.library import Library
from stream_fp.phases import N_PHASES, PHASES
from stream_fp.prefix_model import OUTCOMES, RestForecast
from tests.support.builders import tiny_library

if TYPE_CHECKING:
    from stream_fp.messages import PredictedStats

Array = npt.NDArray[np.float64]

#: Of the rest: 0.4 % of range, 0.02 % between events, 60 events, then efficiency and the shares of the six phases.
REST: Final = (math.log(0.4), math.log(0.02), math.log(60), 0.25, 0.1, 0.5, 0.0, 0.2, 0.05, 0.15)
RATES_SEEN: Final = (50.0, 10.0, 20.0, 0.0, 5.0, 0.0)


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Library:
    return tiny_library(tmp_path_factory.mktemp("library"))


def prefix(range_pct: float = 0.3) -> Array:
    vector = np.zeros(N_FEATURES)
    vector[:N_PHASES] = RATES_SEEN
    vector[RANGE] = log_of_range(range_pct)
    return vector


def said(
    library: Library,
    *,
    vector: Array | None = None,
    n_seen: int = 20,
    outcomes: tuple[float, ...] = REST,
    final: tuple[float, float, float] | None = (0.35, 0.5, 0.9),
    archetype_id: int = 1,
) -> PredictedStats:
    forecast = RestForecast(outcomes=list(outcomes), final_range_pct=final)
    archetype = library.archetypes[archetype_id]
    return predicted_stats(library, archetype, (prefix() if vector is None else vector).tolist(), n_seen, forecast)


def without(*names: str) -> tuple[float, ...]:
    return tuple(math.nan if outcome in names else value for outcome, value in zip(OUTCOMES, REST, strict=True))


@pytest.mark.parametrize(
    ("range_pct", "expected"),
    [(0.0, "low"), (0.4, "low"), (0.4001, "medium"), (0.8, "medium"), (0.8001, "high"), (1e9, "high")],
)
def test_volatility_class_is_the_third_in_which_the_range_lies(range_pct: float, expected: str) -> None:
    assert volatility_class(range_pct, (0.4, 0.8)) == expected


def test_thirds_of_the_training_sessions_have_a_class_each() -> None:
    ranges = np.random.default_rng(3).lognormal(size=999)
    low, high = np.quantile(ranges, (1 / 3, 2 / 3)).tolist()
    classes = [volatility_class(range_pct, (low, high)) for range_pct in ranges.tolist()]
    assert [classes.count(name) for name in VOLATILITY_CLASSES] == [333, 333, 333]


def test_equal_terciles_leave_no_middle() -> None:
    assert {volatility_class(range_pct, (0.4, 0.4)) for range_pct in (0.0, 0.4, 0.40001)} == {"low", "high"}


def test_top_phases_are_the_three_that_stand_out_most() -> None:
    found = top_phases([10.0] * 6, [0.5, -1.0, 2.0, 0.0, 1.5, -0.2])
    assert found == [("consolidation_phase", 2.0), ("reversal_signal", 1.5), ("fvg_interaction", 0.5)]


def test_phase_that_does_not_occur_is_no_top_phase_however_far_it_stands_out() -> None:
    found = top_phases([0.0, 1.0, 0.0, 0.0, 0.0, 2.0], [9.0, -1.0, 9.0, 9.0, 9.0, -3.0])
    assert found == [("expansion_phase", -1.0), ("liquidity_sweep", -3.0)]
    assert top_phases([0.0] * 6, [1.0] * 6) == []


def test_phases_that_stand_out_alike_come_in_their_usual_order() -> None:
    assert [phase for phase, _ in top_phases([1.0] * 6, [0.0] * 6)] == list(PHASES[:3])


def test_rates_of_the_whole_session_take_seen_and_expected_events_together(library: Library) -> None:
    # 20 events seen and 60 expected: a quarter of the session has been seen.
    expected = {
        phase: 0.25 * seen + 0.75 * 100 * share for phase, seen, share in zip(PHASES, RATES_SEEN, REST[4:], strict=True)
    }
    assert said(library).natural_units.phase_rates_per_100_events == pytest.approx(expected, abs=1e-4)


@given(
    counts=arrays(np.int64, N_PHASES + 1, elements=st.integers(0, 500)).filter(np.any),
    rest=arrays(np.int64, N_PHASES + 1, elements=st.integers(0, 500)).filter(np.any),
)
def test_rates_equal_those_of_the_session_where_the_forecast_is_right(
    library: Library, counts: npt.NDArray[np.int64], rest: npt.NDArray[np.int64]
) -> None:
    n_seen, n_rest, both = int(counts.sum()), int(rest.sum()), counts + rest
    vector = prefix()
    vector[:N_PHASES] = 100 * counts[:N_PHASES] / n_seen
    outcomes = (*REST[:2], math.log(n_rest), REST[3], *(rest[:N_PHASES] / n_rest).tolist())
    found = said(library, vector=vector, n_seen=n_seen, outcomes=outcomes).natural_units.phase_rates_per_100_events
    whole = 100 * both[:N_PHASES] / both.sum()
    assert list(found.values()) == pytest.approx(whole.tolist(), abs=1e-4)


@pytest.mark.parametrize("unknown", [("n_events",), ("n_events", *PHASES), PHASES])
def test_rates_are_those_seen_where_the_rest_is_unknown(library: Library, unknown: tuple[str, ...]) -> None:
    found = said(library, outcomes=without(*unknown)).natural_units.phase_rates_per_100_events
    assert found == dict(zip(PHASES, RATES_SEEN, strict=True))


def test_phase_whose_share_is_unknown_goes_on_as_it_was_seen(library: Library) -> None:
    found = said(library, outcomes=without("fvg_interaction")).natural_units.phase_rates_per_100_events
    assert found["fvg_interaction"] == 50.0
    assert found["expansion_phase"] == pytest.approx(0.25 * 10 + 0.75 * 50)


def test_range_is_the_forecast_in_per_cent_and_in_spreads_of_the_training_sessions(library: Library) -> None:
    stats = said(library, final=(0.35, 0.5, 0.9))
    band = stats.natural_units.range_pct
    assert (band.p10, band.p50, band.p90) == (0.35, 0.5, 0.9)
    assert stats.natural_units.range_so_far_pct == 0.3
    z_score = (math.log(1 + 100 * 0.5) - library.center[RANGE]) / library.spread[RANGE]
    assert stats.range_p50 == pytest.approx(z_score, abs=1e-4)
    assert stats.volatility_class == "medium"


def test_spread_is_that_of_the_sessions_without_the_weight_of_the_feature(library: Library) -> None:
    weights = np.array([1.0 if place in {2, 9, 13} else 0.5 for place in range(N_FEATURES)])
    np.testing.assert_array_equal(library.spread, library.scale * weights)
    found = dict(said(library).top_phases)
    rates = said(library).natural_units.phase_rates_per_100_events
    for phase, z_score in found.items():
        place = PHASES.index(phase)
        spread = library.scale[place] * weights[place]
        assert z_score == pytest.approx((rates[phase] - library.center[place]) / spread, abs=1e-3)


@pytest.mark.parametrize(("p50", "expected"), [(0.35, "low"), (0.5, "medium"), (0.85, "high")])
def test_volatility_class_is_that_of_the_median_forecast(library: Library, p50: float, expected: str) -> None:
    assert said(library, final=(0.1, p50, 2.0), archetype_id=0).volatility_class == expected


def test_regime_and_session_types_are_those_of_the_archetype(library: Library) -> None:
    for archetype_id, archetype in library.archetypes.items():
        stats = said(library, archetype_id=archetype_id)
        assert stats.dominant_htf_regime == archetype.dominant_htf_regime
        assert stats.session_type_probabilities == archetype.session_type_probabilities


@pytest.mark.parametrize(
    ("so_far", "expected"),
    [(0.05, (0.1, 0.5, 1.5)), (0.3, (0.3, 0.5, 1.5)), (0.7, (0.7, 0.7, 1.5)), (9.0, (9.0, 9.0, 9.0))],
)
def test_without_a_forecast_the_range_is_that_of_the_archetype_but_not_below_the_range_so_far(
    library: Library, so_far: float, expected: tuple[float, float, float]
) -> None:
    stats = said(library, vector=prefix(so_far), final=None, outcomes=without("range", "volatility"))
    band = stats.natural_units.range_pct
    assert (band.p10, band.p50, band.p90) == expected
    assert stats.volatility_class == volatility_class(expected[1], library.range_terciles_pct)
    assert stats.range_p50 == pytest.approx(
        (log_of_range(expected[1]) - library.center[RANGE]) / library.spread[RANGE], abs=1e-4
    )


def test_rest_is_in_units_that_people_use(library: Library) -> None:
    rest = said(library).natural_units.rest
    assert (rest.range_pct, rest.volatility_pct, rest.n_events, rest.efficiency) == (0.4, 0.02, 60.0, 0.25)
    assert rest.phase_shares == dict(zip(PHASES, REST[4:], strict=True))


@pytest.mark.parametrize("outcome", OUTCOMES)
def test_outcome_that_training_could_not_learn_is_null(library: Library, outcome: str) -> None:
    rest = msgspec.to_builtins(said(library, outcomes=without(outcome)).natural_units.rest)
    field = {"range": "range_pct", "volatility": "volatility_pct"}.get(outcome, outcome)
    flat = {**rest, **rest["phase_shares"]}
    assert [name for name, value in flat.items() if value is None] == [field]


def test_nothing_learned_of_the_rest_still_gives_stats_of_what_is_known(library: Library) -> None:
    stats = said(library, outcomes=without(*OUTCOMES), final=None)
    # A number that is not finite would be written as null, too.
    assert msgspec.json.encode(stats).count(b"null") == len(OUTCOMES)


@given(range_pct=st.floats(0, 1e20))
def test_range_and_its_logarithm_are_each_others_inverse(range_pct: float) -> None:
    assert range_of_log(log_of_range(range_pct)) == pytest.approx(range_pct, rel=1e-9, abs=1e-15)
    assert log_of_range(range_pct) == pytest.approx(float(np.log1p(100 * range_pct)), rel=1e-12)


def test_other_terciles_give_other_classes(library: Library) -> None:
    wide = replace(library, range_terciles_pct=(5.0, 6.0))
    assert said(wide).volatility_class == "low"
    assert said(replace(library, range_terciles_pct=(0.0, 0.0))).volatility_class == "high"
