from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from offline.detect import DetectedEvent, detect_events
from offline.measures import Bars, trailing_mean, true_range
from offline.price_paths import bars_around

if TYPE_CHECKING:
    from collections.abc import Iterable


def random_bars(seed: int, n_bars: int, point: float = 8.0) -> Bars:
    rng = np.random.default_rng(seed)
    close = 20_000 + np.cumsum(point * rng.standard_t(3, n_bars))
    up, down = point * np.abs(rng.standard_normal((2, n_bars)))
    return bars_around(close, up, down)


def bars_from(closes: Iterable[float], wick: float = 0.5) -> Bars:
    close = np.array(list(closes), dtype=np.float64)
    return bars_around(close, np.full(len(close), wick), np.full(len(close), wick))


def found_in(bars: Bars, *, first_bar: int = 0, unit: float | None = None) -> list[DetectedEvent]:
    """Return the events in a unit that is given, or else the mean true range of the last 14 bars."""
    recent = trailing_mean(true_range(bars), 14)
    units = np.concatenate((recent[:1], recent[:-1])) if unit is None else np.full(len(bars), unit)
    return detect_events(bars, unit=units, regime=np.arange(len(bars)) % 3, first_bar=first_bar)


def phases_at(bars: Bars, bar: int) -> list[str]:
    return [event.phase for event in found_in(bars) if event.bar == bar]


@given(seed=st.integers(0, 10_000), n_bars=st.integers(2, 120), cut=st.integers(2, 120))
@settings(max_examples=60, deadline=None)
def test_cutting_later_bars_leaves_earlier_events_unchanged(seed: int, n_bars: int, cut: int) -> None:
    bars = random_bars(seed, n_bars)
    whole = found_in(bars)
    seen = found_in(bars.between(0, cut))
    assert seen == [event for event in whole if event.bar < cut]


@given(seed=st.integers(0, 10_000), first_bar=st.integers(0, 90))
@settings(max_examples=30, deadline=None)
def test_warmup_bars_hide_events_and_change_none(seed: int, first_bar: int) -> None:
    bars = random_bars(seed, 90)
    everything = found_in(bars)
    later = found_in(bars, first_bar=first_bar)
    assert later == [event for event in everything if event.bar >= first_bar]


def test_dead_market_gives_finite_intensities() -> None:
    events = found_in(bars_from([20_000.0] * 40, wick=0.0))
    assert {event.phase for event in events} <= {"consolidation_phase"}
    assert all(np.isfinite(event.intensity) for event in events)


def test_no_bars_give_no_events() -> None:
    assert found_in(bars_from([])) == []


def test_single_bar_may_be_an_expansion_whatever_follows() -> None:
    one = np.array([100.0])
    bar = Bars(open=one, high=one + 5, low=one, close=one + 5)
    assert [event.phase for event in found_in(bar, unit=1.0)] == ["expansion_phase"]


def test_event_has_the_regime_of_its_bar() -> None:
    events = found_in(random_bars(1, 90))
    assert events
    assert all(event.htf_regime == event.bar % 3 for event in events)


@pytest.mark.parametrize(("unit", "intensity"), [(1.0, 3.5), (2.0, 1.75), (0.5, 6.0)])
def test_intensity_is_in_units_and_bounded(unit: float, intensity: float) -> None:
    bars = bars_from([100.0] * 30 + [103.0], wick=0.25)
    (event,) = [event for event in found_in(bars, unit=unit) if event.phase == "expansion_phase"]
    assert (event.bar, event.intensity) == (30, intensity)


def test_gap_is_known_at_its_third_bar_only() -> None:
    bars = bars_from([100.0, 101.0] * 15 + [106.0, 110.0])
    assert "fvg_interaction" not in phases_at(bars.between(0, 31), 30)
    assert "fvg_interaction" in phases_at(bars, 31)


def test_break_that_closes_back_is_a_sweep_at_the_level() -> None:
    bars = bars_from([100.0, 101.0] * 15 + [100.5])
    bars.high[-1] = 104.0
    sweeps = [event for event in found_in(bars) if event.phase == "liquidity_sweep"]
    assert [(event.bar, event.price) for event in sweeps] == [(30, 101.5)]


def test_break_that_holds_is_no_sweep() -> None:
    assert "liquidity_sweep" not in phases_at(bars_from([100.0, 101.0] * 15 + [104.0]), 30)


@pytest.mark.parametrize("side", [1.0, -1.0])
def test_counter_move_is_first_a_retracement_then_a_reversal(side: float) -> None:
    away = [200.0 + side * 2 * step for step in range(20)]
    back = [away[-1] - side * 2 * step for step in range(1, 25)]
    lead = [200.0 - side * step for step in range(12, 0, -1)]  # so that the leg under way has this side
    events = found_in(bars_from(lead + away + back), first_bar=12)
    turns = [event for event in events if event.phase in {"retracement_event", "reversal_signal"}]
    assert [event.phase for event in turns] == ["retracement_event", "reversal_signal"]
    # The leg spans 51 points, wicks included: 38.2 % of it are 19.5 and 78.6 % are 40.1, from the wick's end.
    assert [abs(event.price - away[-1]) for event in turns] == [20.0, 40.0]
