from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from stream_fp.features import FEATURES, N_FEATURES, RANGE
from stream_fp.library import Library, load_library
from stream_fp.prefix_model import OUTCOMES, PrefixModel, RestForecast, quadratic, range_ratio, range_ratios
from tests.support.builders import SESSION_TYPES, tiny_library, tiny_stats, write_library
from tests.support.hostile_library import hostile_metadata

if TYPE_CHECKING:
    from pathlib import Path

Array = npt.NDArray[np.float64]

#: Legal events make no larger one: prices lie between 1e-9 and 1e12.
MAX_LOG_RANGE: Final = 60.0
KNOWN_TYPES = (*SESSION_TYPES, "unheard of", "")


def legal(vector: Array) -> Array:
    """Return the vector with each feature in the range in which events can put it."""
    bounds = np.array([(max(feature.low, -1e12), min(feature.high, 1e12)) for feature in FEATURES])
    bounds[RANGE, 1] = MAX_LOG_RANGE
    return np.clip(vector, bounds[:, 0], bounds[:, 1])


usual_vectors = arrays(np.float64, N_FEATURES, elements=st.floats(-10, 10)).map(legal)
extreme_vectors = arrays(np.float64, N_FEATURES, elements=st.floats(-1e12, 1e12)).map(legal)
vectors = usual_vectors | extreme_vectors
types = st.sampled_from(KNOWN_TYPES)


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Library:
    return tiny_library(tmp_path_factory.mktemp("library"))


@pytest.fixture(scope="module")
def model(library: Library) -> PrefixModel:
    return library.prefix_model(30.0)


def forecast(model: PrefixModel, vector: Array, session_type: str = "ny_am") -> RestForecast:
    inputs = model.inputs(vector, session_type)
    return model.forecast_rest(vector, inputs, model.probabilities(inputs))


def with_rest(model: PrefixModel, **changes: Any) -> PrefixModel:  # noqa: ANN401 - fields of `RestModel`
    return replace(model, rest=replace(model.rest, **changes))


# ------------------------------------------------------------------------------------------------------- the inputs


def test_inputs_are_one_then_standardised_features_then_the_type(model: PrefixModel) -> None:
    vector = model.input_center + 0.5 * model.input_scale
    found = model.inputs(vector, "ny_am")
    np.testing.assert_allclose(found, [1.0, *[0.5] * N_FEATURES, 0.0, 1.0])


@pytest.mark.parametrize(("deviations", "counted"), [(3.9, 3.9), (4.1, 4.0), (1e9, 4.0), (-4.1, -4.0), (-1e9, -4.0)])
def test_feature_beyond_the_clip_counts_as_that_much(model: PrefixModel, deviations: float, counted: float) -> None:
    assert model.input_clip == 4.0
    vector = model.input_center.copy()
    vector[5] += deviations * model.input_scale[5]
    found = model.inputs(vector, "ny_am")
    assert found[1 + 5] == pytest.approx(counted)
    assert np.flatnonzero(found[1 : 1 + N_FEATURES]).tolist() == [5]


@pytest.mark.parametrize(
    ("session_type", "expected"),
    [("lunch", [1, 0]), ("ny_am", [0, 1]), ("NY_AM", [0, 0]), ("asia", [0, 0]), ("", [0, 0])],
)
def test_session_type_is_one_input_of_its_own(model: PrefixModel, session_type: str, expected: list[float]) -> None:
    found = model.inputs(np.zeros(N_FEATURES), session_type)
    assert found[1 + N_FEATURES :].tolist() == expected


def test_model_without_session_types_takes_any(model: PrefixModel) -> None:
    assert replace(model, session_types={}).inputs(np.zeros(N_FEATURES), "ny_am").shape == (1 + N_FEATURES,)


def test_making_inputs_leaves_the_vector_unchanged(model: PrefixModel) -> None:
    vector = np.full(N_FEATURES, 1e9)
    vector.flags.writeable = False
    forecast(model, legal(vector))
    model.inputs(vector, "lunch")


# ------------------------------------------------------------------------------------------------ the probabilities


def plain_probabilities(model: PrefixModel, vector: Array, session_type: str) -> list[float]:
    """Compute the probabilities from their definition, one number at a time."""
    inputs = [1.0]
    for value, center, scale in zip(vector.tolist(), model.input_center, model.input_scale, strict=True):
        inputs.append(max(-model.input_clip, min(model.input_clip, (value - center) / scale)))
    is_type = [1.0 if name == session_type else 0.0 for name in model.session_types]
    inputs += is_type
    fingerprint, table = model.membership.fingerprint.tolist(), model.membership.logits.tolist()
    m = len(model.membership.features)
    expected = [math.fsum(x * row[i] for x, row in zip(inputs, fingerprint, strict=True)) for i in range(m)]
    terms = [1.0, *expected]
    for i in range(m):
        terms += [expected[i] * expected[j] for j in range(i, m)]
    terms += is_type
    logits = [math.fsum(x * row[k] for x, row in zip(terms, table, strict=True)) for k in range(len(table[0]))]
    weights = [math.exp(logit - max(logits)) for logit in logits]
    return [weight / math.fsum(weights) for weight in weights]


@given(vector=vectors, session_type=types)
@settings(deadline=None)
def test_probabilities_equal_a_plain_computation_and_add_up_to_one(
    model: PrefixModel, vector: Array, session_type: str
) -> None:
    found = model.probabilities(model.inputs(vector, session_type))
    assert found.sum() == pytest.approx(1.0, abs=1e-12)
    assert (found >= 0).all()
    np.testing.assert_allclose(found, plain_probabilities(model, vector, session_type), rtol=1e-9)


def test_session_type_changes_the_probabilities(model: PrefixModel) -> None:
    found = {name: model.probabilities(model.inputs(np.zeros(N_FEATURES), name)).tolist() for name in KNOWN_TYPES}
    assert found["lunch"] != found["ny_am"] != found[""]
    assert found["unheard of"] == found[""]


def test_one_archetype_has_probability_one(model: PrefixModel) -> None:
    alone = replace(model, membership=replace(model.membership, logits=model.membership.logits[:, :1]))
    assert alone.probabilities(alone.inputs(np.ones(N_FEATURES), "ny_am")).tolist() == [1.0]


@given(values=arrays(np.float64, st.integers(0, 7), elements=st.floats(-100, 100)))
def test_quadratic_terms_are_the_upper_triangle_of_the_outer_product(values: Array) -> None:
    upper = np.outer(values, values)[np.triu_indices(len(values))]
    assert quadratic(values, np.array([0.0, 1.0])).tolist() == [1.0, *values, *upper, 0.0, 1.0]


# ------------------------------------------------------------------------------------------- the forecast of the rest


def plain_forecast(model: PrefixModel, vector: Array, session_type: str) -> tuple[list[float], list[float]]:
    """Compute outcomes and final range from their definitions, one number at a time."""
    inputs = model.inputs(vector, session_type).tolist()
    known = inputs + plain_probabilities(model, vector, session_type)
    table = model.rest.coefficients.tolist()
    outcomes = [math.fsum(x * row[k] for x, row in zip(known, table, strict=True)) for k in range(len(OUTCOMES))]
    outcomes[:3] = [max(-30.0, min(30.0, value)) for value in outcomes[:3]]
    outcomes[3:] = [max(0.0, min(1.0, value)) for value in outcomes[3:]]
    if (total := math.fsum(outcomes[4:])) > 1:
        outcomes[4:] = [share / total for share in outcomes[4:]]
    so_far = (math.exp(vector[RANGE]) - 1) / 100
    unit = math.exp(outcomes[0])
    ratio = min(100.0, so_far / unit)
    known += [ratio, math.log(max(0.01, ratio))]
    assert model.rest.quantile_coefficients is not None
    growth = [
        math.fsum(x * row[k] for x, row in zip(known, model.rest.quantile_coefficients.tolist(), strict=True)) + shift
        for k, shift in enumerate(model.rest.quantile_shifts.tolist())
    ]
    final = [so_far + unit * step for step in sorted(max(0.0, step) for step in growth)]
    # The whole is no narrower than its rest.
    outcomes[0] = min(outcomes[0], math.log(max(final[1], math.exp(-30))))
    return outcomes, final


@given(vector=usual_vectors, session_type=types)
@settings(deadline=None)
def test_forecast_equals_a_plain_computation(model: PrefixModel, vector: Array, session_type: str) -> None:
    outcomes, final = plain_forecast(model, vector, session_type)
    found = forecast(model, vector, session_type)
    np.testing.assert_allclose(found.outcomes, outcomes, rtol=1e-9, atol=1e-12)
    assert found.final_range_pct is not None
    np.testing.assert_allclose(found.final_range_pct, final, rtol=1e-9, atol=1e-12)


def check_is_possible(found: RestForecast, vector: Array) -> None:
    """Check what holds of every forecast, whatever the coefficients."""
    assert len(found.outcomes) == len(OUTCOMES)
    assert np.isfinite(found.outcomes).all()
    assert all(0 <= outcome <= 1 for outcome in found.outcomes[3:])
    assert sum(found.outcomes[4:]) <= 1 + 1e-12
    assert found.final_range_pct is not None
    p10, p50, p90 = found.final_range_pct
    assert math.expm1(vector[RANGE]) / 100 <= p10 <= p50 <= p90 < math.inf
    assert math.exp(found.outcomes[0]) <= p50 * (1 + 1e-9) + 1e-12


@given(
    vector=vectors,
    session_type=types,
    constants=arrays(np.float64, len(OUTCOMES) + 3, elements=st.floats(-50, 50)),
    slope=st.floats(-10, 10),
)
@settings(max_examples=200, deadline=None)
def test_any_vector_and_any_coefficients_give_a_possible_forecast(
    model: PrefixModel, vector: Array, session_type: str, constants: Array, slope: float
) -> None:
    assert model.rest.quantile_coefficients is not None
    coefficients = model.rest.coefficients * 100 * slope
    coefficients[0] = constants[:-3]
    quantiles = model.rest.quantile_coefficients * 100 * slope
    quantiles[0] = constants[-3:]
    bent = with_rest(model, coefficients=coefficients, quantile_coefficients=quantiles)
    check_is_possible(forecast(bent, vector, session_type), vector)


def test_range_never_shrinks_where_no_growth_is_expected(model: PrefixModel) -> None:
    assert model.rest.quantile_coefficients is not None
    still = with_rest(
        model, quantile_coefficients=np.zeros_like(model.rest.quantile_coefficients), quantile_shifts=-np.ones(3)
    )
    vector = np.zeros(N_FEATURES)
    vector[RANGE] = math.log1p(100 * 0.7)
    assert forecast(still, vector).final_range_pct == pytest.approx((0.7, 0.7, 0.7), rel=1e-12)


@pytest.mark.parametrize("so_far", [0.0, 0.001])
def test_rest_of_a_session_whose_range_does_not_grow_is_no_wider_than_the_whole(
    model: PrefixModel, so_far: float
) -> None:
    assert model.rest.quantile_coefficients is not None
    still = with_rest(
        model, quantile_coefficients=np.zeros_like(model.rest.quantile_coefficients), quantile_shifts=np.zeros(3)
    )
    vector = np.zeros(N_FEATURES)
    vector[RANGE] = math.log1p(100 * so_far)
    assert math.exp(forecast(model, vector).outcomes[0]) > 0.1
    assert math.exp(forecast(still, vector).outcomes[0]) == pytest.approx(so_far, abs=1e-12)


def test_quantiles_that_cross_are_put_in_order(model: PrefixModel) -> None:
    assert model.rest.quantile_coefficients is not None
    crossed = np.zeros_like(model.rest.quantile_coefficients)
    crossed[0] = (3.0, 2.0, 1.0)
    found = forecast(with_rest(model, quantile_coefficients=crossed, quantile_shifts=np.zeros(3)), np.zeros(N_FEATURES))
    unit = math.exp(found.outcomes[0])
    assert found.final_range_pct == pytest.approx((unit, 2 * unit, 3 * unit))


def test_shares_beyond_one_are_scaled_down_and_those_below_zero_count_as_none(model: PrefixModel) -> None:
    coefficients = np.zeros_like(model.rest.coefficients)
    coefficients[0, 4:] = (0.5, 0.5, 0.5, 0.5, -0.5, 1.5)
    found = forecast(with_rest(model, coefficients=coefficients), np.zeros(N_FEATURES))
    np.testing.assert_allclose(found.outcomes[4:], np.array([0.5, 0.5, 0.5, 0.5, 0.0, 1.0]) / 3)


def test_shares_below_one_stay_as_they_are(model: PrefixModel) -> None:
    coefficients = np.zeros_like(model.rest.coefficients)
    coefficients[0, 4:] = (0.1, 0.2, 0.0, 0.1, 0.1, 0.3)
    found = forecast(with_rest(model, coefficients=coefficients), np.zeros(N_FEATURES))
    assert found.outcomes[4:] == [0.1, 0.2, 0.0, 0.1, 0.1, 0.3]


@pytest.mark.parametrize("left_out", OUTCOMES)
def test_outcome_that_was_not_learned_is_nan_and_leaves_the_others_alone(model: PrefixModel, left_out: str) -> None:
    kept = np.array([place for place, outcome in enumerate(OUTCOMES) if outcome != left_out])
    quantiles = None if left_out == "range" else model.rest.quantile_coefficients
    partial = with_rest(
        model, columns=kept, coefficients=model.rest.coefficients[:, kept], quantile_coefficients=quantiles
    )
    vector = np.linspace(0, 1, N_FEATURES)
    whole, found = forecast(model, vector), forecast(partial, vector)
    assert sum(whole.outcomes[4:]) < 1  # else the shares that are left would be scaled in another way
    assert math.isnan(found.outcomes[OUTCOMES.index(left_out)])
    np.testing.assert_allclose(np.array(found.outcomes)[kept], np.array(whole.outcomes)[kept], rtol=1e-12)
    if quantiles is not None:
        assert found.final_range_pct == pytest.approx(whole.final_range_pct, rel=1e-12)


def test_model_that_learned_nothing_of_the_rest_says_nothing(model: PrefixModel) -> None:
    empty = with_rest(
        model,
        columns=np.array([], dtype=np.int64),
        coefficients=np.empty((len(model.rest.coefficients), 0)),
        quantile_coefficients=None,
    )
    found = forecast(empty, np.zeros(N_FEATURES))
    assert np.isnan(found.outcomes).all()
    assert found.final_range_pct is None


def test_without_quantiles_there_is_no_final_range(model: PrefixModel) -> None:
    found = forecast(with_rest(model, quantile_coefficients=None), np.zeros(N_FEATURES))
    assert found.final_range_pct is None
    assert np.isfinite(found.outcomes).all()


@pytest.mark.parametrize(
    ("so_far", "unit", "ratio"), [(0.5, 0.25, 2.0), (0.0, 0.25, 0.0), (1e9, 1e-9, 100.0), (0.001, 1.0, 0.001)]
)
def test_range_ratio_and_its_logarithm_are_bounded(so_far: float, unit: float, ratio: float) -> None:
    assert range_ratio(so_far, unit) == pytest.approx((ratio, math.log(max(ratio, 0.01))))


def test_range_ratios_of_many_sessions_are_those_of_each() -> None:
    so_far, unit = np.array([0.0, 0.5, 1e6]), np.array([0.1, 0.25, 1e-3])
    one_by_one = [range_ratio(a, b) for a, b in zip(so_far.tolist(), unit.tolist(), strict=True)]
    np.testing.assert_allclose(range_ratios(so_far, unit), np.array(one_by_one).T, rtol=1e-15)


# -------------------------------------------------------------------------------------------------- hostile libraries


@pytest.mark.parametrize("seed", range(8))
def test_largest_numbers_of_a_library_give_possible_forecasts_without_a_warning(tmp_path: Path, seed: int) -> None:
    library = load_library(write_library(tmp_path, hostile_metadata(seed), tiny_stats()))
    rng = np.random.default_rng(seed)
    for model in library.prefix_models:
        for scale in (1.0, 1e6, 1e12):
            vector = legal(scale * rng.normal(size=N_FEATURES))
            probabilities = model.probabilities(model.inputs(vector, "ny_am"))
            assert probabilities.sum() == pytest.approx(1.0)
            check_is_possible(forecast(model, vector), vector)
