"""Bootstrap intervals against analytic ones and scipy's."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from scipy import stats

from offline.resampling import WeekBootstrap

Array = npt.NDArray[np.float64]


def width(bounds: tuple[float, float]) -> float:
    return bounds[1] - bounds[0]


def test_interval_of_a_mean_of_one_session_a_week_is_the_analytic_one() -> None:
    values = np.random.default_rng(1).normal(5.0, 2.0, 400)
    low, high = WeekBootstrap(7 * np.arange(400)).mean(values)
    error = values.std() / 20.0
    assert low == pytest.approx(values.mean() - 1.96 * error, abs=0.12 * error)
    assert high == pytest.approx(values.mean() + 1.96 * error, abs=0.12 * error)


def test_interval_is_twice_as_wide_where_the_four_sessions_of_a_week_are_one() -> None:
    rng = np.random.default_rng(2)
    days = np.repeat(np.arange(150), 4)
    alike, different = np.repeat(rng.normal(0.0, 1.0, 150), 4), rng.normal(0.0, 1.0, 600)
    samples = WeekBootstrap(7 * days)
    scaled = [width(samples.mean(values)) / values.std() for values in (alike, different)]
    assert scaled[0] / scaled[1] == pytest.approx(2.0, rel=0.15)


def test_interval_of_a_ratio_is_that_of_scipy_on_weeks() -> None:
    rng = np.random.default_rng(3)
    days = np.sort(rng.integers(0, 120, 500))
    denominator = rng.gamma(2.0, 1.0, 500)
    numerator = 0.8 * denominator + rng.normal(0.0, 0.5, 500)
    by_day = [np.bincount(days, values)[np.unique(days)] for values in (numerator, denominator)]
    expected = stats.bootstrap(
        by_day, lambda a, b, axis: a.sum(axis=axis) / b.sum(axis=axis), paired=True, vectorized=True,
        method="percentile", n_resamples=5000, rng=rng,
    ).confidence_interval  # fmt: skip
    found = WeekBootstrap(7 * days).ratio(numerator, denominator)
    assert found == pytest.approx((expected.low, expected.high), abs=0.12 * (expected.high - expected.low))


def test_scores_of_the_same_sessions_are_compared_in_pairs() -> None:
    rng = np.random.default_rng(4)
    values = rng.gamma(2.0, 1.0, 80)
    assert WeekBootstrap(7 * (np.arange(80) // 2)).ratio(0.75 * values, values) == pytest.approx(
        (0.75, 0.75), abs=1e-12
    )


def test_sums_of_columns_are_those_of_each_and_skip_what_is_unknown() -> None:
    values = np.random.default_rng(5).normal(0.0, 1.0, (60, 3))
    values[::4, 1] = np.nan
    samples = WeekBootstrap(7 * (np.arange(60) // 3))
    together = samples.sums(values)
    assert together.shape == (1000, 3)
    for column in range(3):
        np.testing.assert_allclose(together[:, column], samples.sums(np.nan_to_num(values[:, column])), atol=1e-12)
    # Each sample has as many weeks as there are.
    assert samples.sums(np.ones(60)).tolist() == [60.0] * 1000


def test_sample_without_any_session_that_counts_gives_no_warning() -> None:
    counts = np.zeros(50)
    counts[0] = 1.0
    low, high = WeekBootstrap(7 * np.arange(50)).ratio(counts, counts)
    assert (low, high) == (0.0, 1.0)


def test_single_week_is_certain_of_itself() -> None:
    assert WeekBootstrap(np.zeros(3, dtype=np.int64)).mean(np.array([1.0, 2.0, 6.0])) == (3.0, 3.0)


def test_same_seed_gives_the_same_interval_and_another_seed_another() -> None:
    values, days = np.random.default_rng(6).normal(0.0, 1.0, 90), np.arange(90)
    first, again, other = (WeekBootstrap(7 * days, seed).mean(values) for seed in (1, 1, 2))
    assert first == again != other


def test_days_of_one_week_stay_together() -> None:
    monday = 739_000 - 739_000 % 7 + 1
    week = np.arange(monday, monday + 7)
    assert WeekBootstrap(week).mean(np.arange(7.0)) == (3.0, 3.0)
    assert WeekBootstrap(week + 1).mean(np.arange(7.0)) != (3.0, 3.0)
