"""The forecast of the rest on data whose truth is known."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from offline.rest_models import fit_rest
from stream_fp.artifacts import RestArrays
from stream_fp.features import N_FEATURES
from stream_fp.prefix_model import OUTCOMES, range_ratios

Array = npt.NDArray[np.float64]


def world(n: int, seed: int) -> tuple[Array, Array, Array, Array]:
    """Inputs, probabilities, outcomes and ranges: log range follows a feature, the growth of the range is skewed."""
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(n, N_FEATURES))
    inputs = np.column_stack((np.ones(n), features, np.ones(n)))
    probabilities = rng.dirichlet([2, 1, 1], n)
    rests = rng.normal(size=(n, len(OUTCOMES)))
    rests[:, 0] = -1.0 + 0.5 * features[:, 2] + 0.3 * rng.normal(size=n)
    so_far = np.exp(-1.2 + 0.3 * features[:, 2] + 0.2 * rng.normal(size=n))
    growth = np.maximum(rng.gamma(1.5, 0.5, n) - 0.15, 0.0) * np.exp(-1.0 + 0.5 * features[:, 2])
    return inputs, probabilities, rests, np.column_stack((so_far, so_far + growth))


def quantiles_of(arrays: RestArrays, inputs: Array, probabilities: Array, so_far: Array) -> Array:
    known = np.hstack((inputs, probabilities))
    unit = np.exp((known @ np.array(arrays.coefficients))[:, 0])
    rows = np.hstack((known, range_ratios(so_far, unit).T))
    growth = np.maximum(rows @ np.array(arrays.quantile_coefficients) + arrays.quantile_shifts, 0.0)
    return np.asarray(so_far[:, None] + unit[:, None] * np.sort(growth, axis=1))


def test_quantiles_hold_on_new_sessions() -> None:
    inputs, probabilities, rests, ranges = world(1500, 1)
    arrays = fit_rest(inputs, probabilities, rests, ranges, np.arange(1500))
    later = world(3000, 2)
    found = quantiles_of(arrays, later[0], later[1], later[3][:, 0])
    final = later[3][:, 1]
    assert abs((final <= found[:, 2]).mean() - 0.9) < 0.025
    assert abs((final <= found[:, 1]).mean() - 0.5) < 0.04
    assert abs(((final >= found[:, 0]) & (final <= found[:, 2])).mean() - 0.8) < 0.05
    assert (found >= later[3][:, :1]).all()


def test_outcomes_are_forecast_as_far_as_they_can_be() -> None:
    inputs, probabilities, rests, ranges = world(1500, 3)
    arrays = fit_rest(inputs, probabilities, rests, ranges, np.arange(1500))
    later = world(1000, 4)
    found = np.hstack(later[:2]) @ np.array(arrays.coefficients)
    errors = np.square(later[2] - found).mean(axis=0)
    assert errors[0] < 0.3**2 * 1.1
    assert (errors[1:] < 1.15).all()  # pure noise: no more is said than its mean


def test_sessions_without_prices_have_no_forecast_of_prices() -> None:
    inputs, probabilities, rests, ranges = world(80, 5)
    rests[:, [0, 1, 3]] = np.nan
    arrays = fit_rest(inputs, probabilities, rests, np.zeros_like(ranges), np.arange(80))
    assert arrays.outcomes == [name for name in OUTCOMES if name not in {"range", "volatility", "efficiency"}]
    assert arrays.quantile_coefficients == []
    assert arrays.quantile_shifts == [0.0, 0.0, 0.0]


def test_few_sessions_give_a_finite_forecast_near_the_mean() -> None:
    inputs, probabilities, rests, ranges = world(14, 6)
    rests[:3] = np.nan
    arrays = fit_rest(inputs, probabilities, rests, ranges, np.arange(14))
    found = np.hstack((inputs, probabilities)) @ np.array(arrays.coefficients)
    assert np.isfinite(found).all()
    assert np.abs(found - np.nanmean(rests, axis=0)).max() < 1.0
    assert np.isfinite(quantiles_of(arrays, inputs, probabilities, ranges[:, 0])).all()


def test_no_learnable_outcome_leaves_nothing_to_forecast() -> None:
    inputs, probabilities, rests, ranges = world(5, 7)
    arrays = fit_rest(inputs, probabilities, rests, ranges, np.arange(5))
    assert (arrays.outcomes, arrays.quantile_coefficients) == ([], [])
