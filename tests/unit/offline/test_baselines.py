"""Guesses that a prediction has to beat, against plain loops."""

from __future__ import annotations

import numpy as np
import pytest

from offline.baselines import Baselines, fit_baselines
from stream_fp.prefix_model import OUTCOMES

RNG = np.random.default_rng(3)
N = 200
TYPES = [str(name) for name in RNG.choice(["asia", "lunch", ""], N)]
REGIMES = RNG.integers(0, 3, N)
LABELS = RNG.integers(0, 4, N)
RESTS = np.where(RNG.random((N, len(OUTCOMES))) < 0.1, np.nan, RNG.normal(size=(N, len(OUTCOMES))))
RANGES = np.column_stack((RNG.uniform(0, 1, N), RNG.uniform(1, 2, N)))
RANGES[:5, 0] = 0.0
TABLES = fit_baselines(TYPES, REGIMES, LABELS, 4, rests=RESTS, ranges_pct=RANGES)
GUESSES = Baselines(TABLES, TYPES, REGIMES)


def test_archetypes_by_type_and_regime_back_off_to_the_type_and_the_type_to_all() -> None:
    by_both, by_type = GUESSES.archetypes_by_type_regime(), GUESSES.archetypes_by_type()
    overall = np.bincount(LABELS, minlength=4) / N
    for row in range(20):
        alike = [label for t, label in zip(TYPES, LABELS, strict=True) if t == TYPES[row]]
        of_type = (np.bincount(alike, minlength=4) + 5 * overall) / (len(alike) + 5)
        np.testing.assert_allclose(by_type[row], of_type)
        cell = (TYPES[row], REGIMES[row])
        alike = [label for t, r, label in zip(TYPES, REGIMES, LABELS, strict=True) if (t, r) == cell]
        np.testing.assert_allclose(by_both[row], (np.bincount(alike, minlength=4) + 20 * of_type) / (len(alike) + 20))


def test_outcomes_are_means_of_those_that_are_known() -> None:
    types = np.array(TYPES)
    np.testing.assert_allclose(GUESSES.rest_mean(), np.nanmean(RESTS, axis=0))
    np.testing.assert_allclose(GUESSES.rest_by_type()[7], np.nanmean(RESTS[types == TYPES[7]], axis=0))
    cell = RESTS[(types == TYPES[7]) & (REGIMES[7] == REGIMES)]
    np.testing.assert_allclose(GUESSES.rest_by_type_regime()[7], np.nanmean(cell, axis=0))


def test_outcomes_of_an_archetype_are_its_mean_deviation_from_the_type() -> None:
    deviations = RESTS - GUESSES.rest_by_type()
    expected = GUESSES.rest_by_type()[9] + np.nanmean(deviations[LABELS[9] == LABELS], axis=0)
    np.testing.assert_allclose(GUESSES.rest_by_archetype(np.eye(4)[LABELS])[9], expected)


def test_range_guesses_are_quantiles_of_the_type() -> None:
    members = np.array(TYPES) == TYPES[11]
    np.testing.assert_allclose(GUESSES.range_by_type()[11], np.quantile(RANGES[members, 1], (0.1, 0.5, 0.9)))
    moved = members & (RANGES[:, 0] > 0)
    ratios = np.quantile(RANGES[moved, 1] / RANGES[moved, 0], (0.1, 0.5, 0.9))
    np.testing.assert_allclose(GUESSES.range_by_ratio(RANGES[:, 0])[11], RANGES[11, 0] * ratios)


def test_type_that_training_did_not_see_is_guessed_from_all_sessions() -> None:
    strange = Baselines(TABLES, ["tokyo"], np.array([1]))
    np.testing.assert_allclose(strange.archetypes_by_type_regime()[0], np.bincount(LABELS, minlength=4) / N)
    np.testing.assert_allclose(strange.rest_by_type_regime()[0], np.nanmean(RESTS, axis=0))
    np.testing.assert_allclose(strange.range_by_type()[0], np.quantile(RANGES[:, 1], (0.1, 0.5, 0.9)))


def test_empty_cell_falls_back_to_the_type() -> None:
    tables = fit_baselines(["asia"] * 4, np.array([0, 0, 0, 0]), LABELS[:4], 4, rests=RESTS[:4], ranges_pct=RANGES[5:9])
    guess = Baselines(tables, ["asia"], np.array([2]))
    np.testing.assert_allclose(guess.rest_by_type_regime()[0], guess.rest_by_type()[0])
    assert guess.archetypes_by_type_regime()[0].sum() == pytest.approx(1.0)
