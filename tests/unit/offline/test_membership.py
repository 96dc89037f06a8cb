"""Archetype probabilities: what they mean on data whose truth is known, and what few sessions leave of them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from sklearn.linear_model import LogisticRegression

from offline.inputs import INPUT_CLIP, fit_inputs, make_inputs, quadratics
from offline.membership import fit_membership, predict_membership
from offline.scores import expected_calibration_error, log_losses
from stream_fp.features import N_FEATURES

Array = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


def world(n: int, seed: int) -> tuple[Array, Array, Ints]:
    """Prefixes, full fingerprints that follow from two features of them with noise, and their archetypes (by sign)."""
    rng = np.random.default_rng(seed)
    prefixes = rng.normal(size=(n, N_FEATURES))
    full = np.zeros((n, N_FEATURES))
    full[:, 3] = 0.8 * prefixes[:, 5] + 0.6 * rng.normal(size=n)
    full[:, 7] = -0.8 * prefixes[:, 11] + 0.6 * rng.normal(size=n)
    return prefixes, full, 2 * (full[:, 3] > 0) + (full[:, 7] > 0)


def inputs_of(prefixes: Array) -> Array:
    types = ["ny_am" if i % 2 else "asia" for i in range(len(prefixes))]
    return make_inputs(fit_inputs(prefixes, types), prefixes, types)


def truth_of(prefixes: Array) -> Array:
    from scipy.stats import norm  # noqa: PLC0415 - the one place that knows how the world is made

    up, right = norm.cdf(0.8 * prefixes[:, 5] / 0.6), norm.cdf(-0.8 * prefixes[:, 11] / 0.6)
    return np.column_stack(((1 - up) * (1 - right), (1 - up) * right, up * (1 - right), up * right))


def test_probabilities_of_new_sessions_are_nearly_the_true_ones() -> None:
    prefixes, full, labels = world(3000, 1)
    later, _, came = world(1500, 2)
    model = fit_membership(inputs_of(prefixes), full, labels, np.arange(3000), [3, 7], hold_out=False)
    found, truth = predict_membership(model.arrays, inputs_of(later)), truth_of(later)
    assert np.abs(found - truth).mean() < 0.03
    assert log_losses(found, came).mean() < log_losses(truth, came).mean() + 0.02
    assert expected_calibration_error(found.max(axis=1), found.argmax(axis=1) == came) < 0.04


def test_held_out_probabilities_are_no_better_than_those_of_new_sessions() -> None:
    prefixes, full, labels = world(600, 3)
    fit = fit_membership(inputs_of(prefixes), full, labels, np.arange(600), [3, 7])
    assert log_losses(fit.held_out, labels).mean() > log_losses(truth_of(prefixes), labels).mean() - 0.05
    shuffled = np.random.default_rng(0).permutation(labels)
    nothing = fit_membership(inputs_of(prefixes), full[np.random.default_rng(1).permutation(600)], shuffled,
                             np.arange(600), [3, 7])  # fmt: skip
    # Where there is nothing to learn, held-out probabilities must not look as if there were.
    assert log_losses(nothing.held_out, shuffled).mean() > np.log(4) - 0.03


def test_stored_logits_are_those_of_scikit_learn() -> None:
    prefixes, full, labels = world(400, 4)
    inputs = inputs_of(prefixes)
    arrays = fit_membership(inputs, full, labels, np.arange(400), [3, 7], hold_out=False).arrays
    rows = quadratics(inputs @ np.array(arrays.fingerprint), inputs[:, 1 + N_FEATURES :])
    logits = np.array(arrays.logits)
    reference = LogisticRegression()
    reference.classes_, reference.coef_, reference.intercept_ = np.arange(4), logits[1:].T, logits[0]
    np.testing.assert_allclose(predict_membership(arrays, inputs), reference.predict_proba(rows[:, 1:]), atol=1e-12)


@pytest.mark.parametrize("n_archetypes", [1, 2, 3])
def test_few_sessions_of_few_archetypes_give_probabilities(n_archetypes: int) -> None:
    prefixes, full, _ = world(12, 5)
    labels = np.arange(12) % n_archetypes
    fit = fit_membership(inputs_of(prefixes), full, labels, np.arange(12), [3, 7])
    for found in (fit.held_out, predict_membership(fit.arrays, inputs_of(prefixes))):
        assert found.shape == (12, n_archetypes)
        np.testing.assert_allclose(found.sum(axis=1), 1.0)
        assert np.isfinite(found).all()


def test_archetype_of_one_block_only_stays_possible_elsewhere() -> None:
    prefixes, full, _ = world(100, 6)
    labels = np.zeros(100, dtype=np.int64)
    labels[50:] = 1
    labels[:5] = 2
    fit = fit_membership(inputs_of(prefixes), full, labels, np.arange(100), [3, 7])
    assert (fit.held_out > 0).all()
    assert fit.held_out[:20, 2].max() < 0.01


def test_outliers_count_as_no_more_than_the_clip() -> None:
    prefixes, _, _ = world(50, 7)
    types = ["asia"] * 50
    arrays = fit_inputs(prefixes, types)
    prefixes[0] = 1e9
    assert make_inputs(arrays, prefixes, types)[0, 1 : 1 + N_FEATURES].max() == INPUT_CLIP
