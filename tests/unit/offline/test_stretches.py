from __future__ import annotations

import numpy as np
import pytest

from offline.stretches import DAY_MINUTES, WARMUP_BARS, find_stretches
from tests.support.market import random_market


def starts_of(n_bars: int = 400, **changes: object) -> list[int]:
    market = random_market(5, n_bars, **changes)  # type: ignore[arg-type]
    return [int(start) for start in find_stretches(market.open_us, market.bars, bar_us=market.bar_us).starts]


@pytest.mark.parametrize(
    ("bar_minutes", "hole", "is_break"), [(1, 4, False), (1, 5, True), (5, 20, False), (5, 25, True)]
)
def test_hole_of_more_than_five_minutes_and_five_bars_is_a_break(bar_minutes: int, hole: int, is_break: bool) -> None:
    assert starts_of(bar_minutes=bar_minutes, holes={200: hole}) == ([0, 200] if is_break else [0])


@pytest.mark.parametrize("points", [-60.0, 60.0])
def test_step_of_many_units_is_a_break_and_no_volatility(points: float) -> None:
    plain = random_market(5, 400)
    rolled = random_market(5, 400, steps={200: points})
    found = find_stretches(rolled.open_us, rolled.bars, bar_us=rolled.bar_us)
    before = find_stretches(plain.open_us, plain.bars, bar_us=plain.bar_us)
    assert found.starts.tolist() == [0, 200]
    assert np.abs(found.unit - before.unit).max() < 0.02 * before.unit.max()


def test_small_step_is_none() -> None:
    assert starts_of(steps={200: 12.0}) == [0]


def test_roll_after_roll_is_judged_in_a_unit_without_the_first() -> None:
    assert starts_of(steps={200: 500.0, 203: -500.0, 206: 60.0}) == [0, 200, 203, 206]


def test_two_contracts_that_alternate_break_at_every_bar() -> None:
    steps = {bar: 300.0 * (-1) ** bar for bar in range(WARMUP_BARS, 400)}
    assert starts_of(steps=steps) == [0, *range(WARMUP_BARS, 400)]


def test_unit_is_the_mean_true_range_of_the_day_before() -> None:
    market = random_market(5, 2 * DAY_MINUTES)
    found = find_stretches(market.open_us, market.bars, bar_us=market.bar_us)
    for bar in (1, 100, DAY_MINUTES, 2 * DAY_MINUTES - 1):
        expected = found.spread[max(0, bar - DAY_MINUTES) : bar].mean()
        assert found.unit[bar] == pytest.approx(expected)


def test_unit_of_longer_bars_is_that_of_as_many_minutes() -> None:
    market = random_market(5, 600, bar_minutes=5)
    found = find_stretches(market.open_us, market.bars, bar_us=market.bar_us)
    assert found.unit[500] == pytest.approx(found.spread[500 - DAY_MINUTES // 5 : 500].mean())


def test_dead_market_has_a_unit_above_zero_and_wakes_up() -> None:
    market = random_market(5, 3 * DAY_MINUTES)
    for prices in (market.bars.open, market.bars.high, market.bars.low, market.bars.close):
        prices[: 2 * DAY_MINUTES] = 20_000.0
    found = find_stretches(market.open_us, market.bars, bar_us=market.bar_us)
    assert found.unit.min() > 0
    assert found.unit[-1] > 1


def test_prices_sampled_once_a_bar_are_no_breaks() -> None:
    market = random_market(5, 600)
    bars = market.bars
    for prices in (bars.open, bars.high, bars.low):
        prices[:] = bars.close
    found = find_stretches(market.open_us, bars, bar_us=market.bar_us)
    assert found.starts.tolist() == [0]
    assert found.unit[-1] > 0.5


@pytest.mark.parametrize("n_bars", [1, 61, 205, 330])
def test_cut_bars_have_the_same_breaks_and_unit(n_bars: int) -> None:
    market = random_market(5, 400, holes={100: 30, 300: 5}, steps={200: 90.0, 204: -90.0, 320: 45.0})
    found = find_stretches(market.open_us, market.bars, bar_us=market.bar_us)
    cut = find_stretches(market.open_us[:n_bars], market.bars.between(0, n_bars), bar_us=market.bar_us)
    assert cut.starts.tolist() == [start for start in found.starts.tolist() if start < n_bars]
    assert cut.unit.tolist() == found.unit[:n_bars].tolist()
