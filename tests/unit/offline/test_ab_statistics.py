"""Bands of differences hold as often as they say, from few weeks too."""

from __future__ import annotations

import numpy as np
import pytest

from offline.ab_statistics import joint_bands
from offline.resampling import WeekBootstrap

N_TRIALS = 800
SESSIONS_A_WEEK = 20


@pytest.mark.parametrize(("n_weeks", "n_differences"), [(8, 5), (20, 1), (20, 5)])
def test_differences_that_are_none_are_rarely_called_one(n_weeks: int, n_differences: int) -> None:
    rng = np.random.default_rng(7)
    days = np.repeat(1 + 7 * np.arange(n_weeks), SESSIONS_A_WEEK)
    bootstrap = WeekBootstrap(days, seed=0)
    n_sessions = len(days)
    n_called = 0
    for _ in range(N_TRIALS):
        weekly = np.repeat(rng.normal(size=(n_weeks, n_differences)), SESSIONS_A_WEEK, axis=0)
        values = weekly + rng.normal(size=(n_sessions, n_differences))
        samples = bootstrap.sums(values) / bootstrap.sums(np.ones(n_sessions))[:, None]
        low, high = joint_bands(samples, values.mean(axis=0), np.full(n_differences, n_weeks))
        n_called += bool(((low > 0) | (high < 0)).any())
    # 5 % are meant; four standard errors of 800 trials are 3 more.
    assert n_called / N_TRIALS < 0.085
