"""Linear models against scikit-learn's."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from sklearn.linear_model import QuantileRegressor, Ridge
from sklearn.metrics import mean_pinball_loss

from offline.linear import PENALTIES, fit_quantile, fit_ridge, ridge_penalty
from offline.splits import blocks

Array = npt.NDArray[np.float64]


def problem(n: int = 200, n_targets: int = 3, seed: int = 0) -> tuple[Array, Array]:
    """Inputs with the constant in front, and targets that depend on them, with noise."""
    rng = np.random.default_rng(seed)
    is_set = (rng.random(n) < 0.3).astype(np.float64)
    inputs: Array = np.column_stack((np.ones(n), rng.normal(0.0, 1.0, (n, 5)), is_set))
    return inputs, inputs @ rng.normal(0.0, 1.0, (7, n_targets)) + rng.normal(0.0, 1.0, (n, n_targets)) + 5.0


def ridge_of_sklearn(inputs: Array, target: Array, penalty: float) -> Array:
    model = Ridge(alpha=penalty, solver="cholesky").fit(inputs[:, 1:], target)
    return np.hstack((model.intercept_, model.coef_))


def test_ridge_is_that_of_scikit_learn_with_a_free_intercept() -> None:
    inputs, targets = problem()
    penalties = np.array([0.1, 30.0, 3000.0])
    expected = [ridge_of_sklearn(inputs, targets[:, i], penalty) for i, penalty in enumerate(penalties)]
    np.testing.assert_allclose(fit_ridge(inputs, targets, penalties), np.array(expected).T, rtol=1e-9, atol=1e-9)
    same = fit_ridge(inputs, targets, 30.0)
    np.testing.assert_allclose(same[:, 1], expected[1], rtol=1e-9, atol=1e-9)


def test_rows_that_do_not_know_a_target_say_nothing_of_it() -> None:
    inputs, targets = problem()
    rng = np.random.default_rng(1)
    targets[rng.random(targets.shape) < (0.0, 0.1, 0.6)] = np.nan
    found = fit_ridge(inputs, targets, 20.0)
    for column in range(3):
        known = ~np.isnan(targets[:, column])
        expected = ridge_of_sklearn(inputs[known], targets[known, column], 20.0)
        np.testing.assert_allclose(found[:, column], expected, rtol=1e-9, atol=1e-9)


def test_target_that_no_row_knows_gets_zeros_and_harms_no_other() -> None:
    inputs, targets = problem()
    alone = fit_ridge(inputs, targets[:, :1], 20.0)
    targets[:, 1] = np.nan
    found = fit_ridge(inputs, targets, 20.0)
    assert (found[:, 1] == 0).all()
    np.testing.assert_allclose(found[:, :1], alone, rtol=1e-9, atol=1e-12)


def test_penalty_is_the_one_with_the_least_error_on_held_out_rows() -> None:
    rng = np.random.default_rng(4)
    inputs, targets = problem(120, 4)
    targets[:, 1] = rng.normal(0.0, 1.0, 120)  # noise alone
    targets[:, 2] = inputs[:, 1] + rng.normal(0.0, 3.0, 120)
    targets[::7, 3] = np.nan
    splits = list(blocks(np.arange(120)))
    errors = np.zeros((len(PENALTIES), 4))
    for judged, learned in splits:
        for column in range(4):
            known = learned[~np.isnan(targets[learned, column])]
            for place, penalty in enumerate(PENALTIES):
                found = inputs[judged] @ ridge_of_sklearn(inputs[known], targets[known, column], penalty)
                errors[place, column] += np.nansum((targets[judged, column] - found) ** 2)
    expected = [PENALTIES[i] for i in errors.argmin(axis=0)]
    assert ridge_penalty(inputs, targets, splits).tolist() == expected
    assert expected[0] == min(PENALTIES)
    assert expected[1] == max(PENALTIES)
    assert len(set(expected)) > 2


@pytest.mark.parametrize("quantile", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("is_weighted", [False, True])
def test_quantile_regression_loses_hardly_more_than_scikit_learn(quantile: float, *, is_weighted: bool) -> None:
    rng = np.random.default_rng(2)
    inputs, _ = problem(400)
    # Skewed, and wider where the first input is high: each quantile has a slope of its own.
    target = 3.0 + inputs[:, 1] + rng.lognormal(0.0, 0.8, 400) * np.exp(0.4 * inputs[:, 2])
    weights = rng.uniform(0.2, 3.0, 400) if is_weighted else np.ones(400)
    weights /= weights.mean()
    best = QuantileRegressor(quantile=quantile, alpha=0.0, solver="highs").fit(
        inputs[:, 1:], target, sample_weight=weights
    )
    found = fit_quantile(inputs, target, quantile, 0.0, weights)
    loss, least = (
        mean_pinball_loss(target, forecast, alpha=quantile, sample_weight=weights)
        for forecast in (inputs @ found, best.predict(inputs[:, 1:]))
    )
    assert least <= loss < 1.01 * least
    # About the promised share is below.
    assert weights[target < inputs @ found].sum() / 400 == pytest.approx(quantile, abs=0.03)


def test_strong_penalty_leaves_the_quantile_of_all() -> None:
    inputs, targets = problem(400)
    found = fit_quantile(inputs, targets[:, 0], 0.9, 1e9, np.ones(400))
    assert found[1:] == pytest.approx(0.0, abs=1e-4)
    assert found[0] == pytest.approx(np.quantile(targets[:, 0], 0.9), abs=0.1)


def test_quantile_regression_does_not_depend_on_the_unit_of_the_target() -> None:
    inputs, targets = problem(300)
    in_pct, in_bp = (fit_quantile(inputs, targets[:, 0] * unit, 0.9, 30.0, np.ones(300)) for unit in (1.0, 100.0))
    np.testing.assert_allclose(in_bp, 100.0 * in_pct, rtol=1e-6)


def test_target_without_spread_is_met() -> None:
    inputs, _ = problem(50)
    found = fit_quantile(inputs, np.full(50, 0.25), 0.5, 30.0, np.ones(50))
    np.testing.assert_allclose(inputs @ found, 0.25, atol=1e-3)
