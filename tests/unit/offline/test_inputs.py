"""Inputs of all prefixes at once are those that the service makes one by one."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from offline.dataset import Dataset
from offline.inputs import INPUT_CLIP, fit_inputs, make_inputs, quadratics
from stream_fp.features import N_FEATURES
from stream_fp.prefix_model import quadratic
from tests.support.datasets import online_model

Array = npt.NDArray[np.float64]
TYPES = ["ny_am", "asia", "", "ny_am", "lunch"] * 8


def vectors(n: int = 40, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_t(2, (n, N_FEATURES)) * np.linspace(0.1, 30.0, N_FEATURES)


def test_inputs_equal_those_of_the_prefix_model_row_by_row() -> None:
    arrays = fit_inputs(vectors(), TYPES)
    model = online_model(inputs=arrays)
    others = vectors(seed=1) * 3.0
    session_types = ["asia", "tokyo", "", "lunch", "ny_am"] * 8
    found = make_inputs(arrays, others, session_types)
    one_by_one = [model.inputs(vector, kind) for vector, kind in zip(others, session_types, strict=True)]
    assert found.tobytes() == np.array(one_by_one).tobytes()
    assert np.abs(found[:, 1 : 1 + N_FEATURES]).max() == INPUT_CLIP


def test_inputs_of_simulated_sessions_equal_those_of_the_prefix_model(simulated: Dataset) -> None:
    cut = simulated.prefixes[30.0]
    kinds = [simulated.session_types[row] for row in cut.rows]
    arrays = fit_inputs(cut.vectors[:200], kinds[:200])
    model = online_model(inputs=arrays)
    found = make_inputs(arrays, cut.vectors, kinds)
    assert (
        found.tobytes()
        == np.array([model.inputs(v, kind) for v, kind in zip(cut.vectors, kinds, strict=True)]).tobytes()
    )


def test_first_input_is_one_and_the_last_name_the_type() -> None:
    arrays = fit_inputs(vectors(), TYPES)
    assert arrays.session_types == ["asia", "lunch", "ny_am"]
    found = make_inputs(arrays, vectors(3), ["lunch", "", "tokyo"])
    assert (found[:, 0] == 1).all()
    assert found[:, 1 + N_FEATURES :].tolist() == [[0, 1, 0], [0, 0, 0], [0, 0, 0]]


def test_features_are_standardised_by_the_sessions_learned_from() -> None:
    normal = np.random.default_rng(2).normal(3.0, 0.5, (400, N_FEATURES))
    found = make_inputs(fit_inputs(normal, [""] * 400), normal, [""] * 400)[:, 1:]
    assert found.shape == (400, N_FEATURES)
    np.testing.assert_allclose(found.mean(axis=0), 0.0, atol=1e-2)
    np.testing.assert_allclose(found.std(axis=0), 1.0, atol=1e-2)


@pytest.mark.parametrize("constant", [0.0, 0.1, -7e8])
def test_feature_that_is_constant_but_for_rounding_gets_scale_one(constant: float) -> None:
    some = vectors()
    some[:, 4] = constant * (1.0 + 1e-15 * np.arange(40))
    arrays = fit_inputs(some, TYPES)
    assert arrays.scale[4] == 1.0
    assert np.abs(make_inputs(arrays, some, TYPES)[:, 5]).max() < 1e-3


def test_products_equal_those_of_the_prefix_model_row_by_row() -> None:
    rng = np.random.default_rng(3)
    expected, is_type = rng.normal(0.0, 1.0, (20, 4)), np.eye(3)[rng.integers(0, 3, 20)]
    one_by_one = [quadratic(*row) for row in zip(expected, is_type, strict=True)]
    assert quadratics(expected, is_type).tobytes() == np.array(one_by_one).tobytes()
