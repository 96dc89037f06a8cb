from __future__ import annotations

import datetime as dt

import numpy as np
import pytest

from offline.regimes import HISTORY_DAYS, LEAST_DAYS, market_regimes
from stream_fp.times import MINUTE_US, zone_of
from tests.support.market import utc

NEW_YORK = zone_of("America/New_York")
N_DAYS = 40
BAR_US = 10 * MINUTE_US
PER_DAY = 144


def regimes_of(
    scale_by_day: np.ndarray, shape: np.ndarray | None = None, start: str = "2025-06-02T04:00"
) -> np.ndarray:
    """Return regimes, by day, of days whose true range has a shape within the day and a scale of its own."""
    within = np.ones(PER_DAY) if shape is None else shape
    spread = (scale_by_day[:, None] * within).ravel()
    open_us = utc(start) + np.arange(len(spread)) * BAR_US
    found = market_regimes(open_us, spread, np.full(len(spread), 20_000.0), bar_us=BAR_US, zone=NEW_YORK)
    return found.reshape(len(scale_by_day), PER_DAY)


def test_regime_is_middle_until_there_is_a_history() -> None:
    found = regimes_of(np.arange(1.0, N_DAYS))
    assert set(found[:LEAST_DAYS].ravel()) == {1}
    assert set(found[LEAST_DAYS:].ravel()) == {2}


def test_lively_hours_of_every_day_are_no_high_regime() -> None:
    rng = np.random.default_rng(3)
    shape = np.where(np.arange(PER_DAY) // 36 == 2, 5.0, 1.0)
    found = regimes_of(rng.lognormal(0.0, 0.3, 400), shape)[HISTORY_DAYS:]
    for hours in (slice(10, 30), slice(80, 100)):
        shares = np.bincount(found[:, hours].ravel(), minlength=3) / found[:, hours].size
        assert shares == pytest.approx([1 / 3] * 3, abs=0.08)


@pytest.mark.parametrize(("scale", "regime"), [(0.5, 0), (1.01, 1), (2.0, 2)])
def test_day_is_compared_with_the_days_before(scale: float, regime: int) -> None:
    days = np.tile(np.linspace(0.8, 1.2, 5), 6)
    found = regimes_of(np.append(days, scale))
    assert set(found[-1, 60:]) == {regime}


def test_history_forgets_what_is_older_than_its_days() -> None:
    days = np.concatenate((np.full(30, 100.0), np.tile([0.9, 1.0, 1.1], 7), [1.6]))
    assert set(regimes_of(days)[-1, 60:]) == {2}


def test_half_hours_follow_the_clocks_of_the_zone() -> None:
    # Lively from 9:30 to 12:00 in New York, over the change of clocks on 2 November.
    start = utc("2025-10-01T04:00")
    open_us = start + np.arange(60 * PER_DAY) * BAR_US
    local = [dt.datetime.fromtimestamp(us / 1e6, NEW_YORK) for us in open_us.tolist()]
    lively = np.array([dt.time(9, 30) <= moment.time() < dt.time(12) for moment in local])
    rng = np.random.default_rng(1)
    day = np.array([moment.toordinal() for moment in local])
    spread = np.where(lively, 30.0, 1.0) * rng.lognormal(0.0, 0.2, 100)[day - day[0]]
    found = market_regimes(open_us, spread, np.full(len(spread), 20_000.0), bar_us=BAR_US, zone=NEW_YORK)
    first_days = np.array([dt.date(2025, 11, 2) < moment.date() < dt.date(2025, 11, 8) for moment in local])
    at_ten = first_days & np.array([moment.hour == 10 for moment in local])
    assert set(found[at_ten]) != {2}


def test_dead_market_has_a_regime() -> None:
    assert set(regimes_of(np.zeros(N_DAYS)).ravel()) <= {0, 1}
