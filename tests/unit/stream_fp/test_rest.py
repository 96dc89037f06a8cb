"""What the part after a checkpoint was like: by hand, and never from the part that was seen."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream_fp.features import extract
from stream_fp.prefix_model import OUTCOMES
from stream_fp.rest import N_PATH_POINTS, price_path, rest_outcomes
from stream_fp.sessions import Columns

MINUTE = 60_000_000
#: One event: minute, price or None, intensity or None, phase 0-6, regime 0-3.
Row = tuple[int, float | None, float | None, int, int]

rows_of_events = st.lists(
    st.tuples(
        st.integers(0, 300),
        st.none() | st.integers(8_000, 12_000).map(lambda ticks: ticks / 4),
        st.none() | st.floats(0, 6),
        st.integers(0, 6),
        st.integers(0, 3),
    ),
    min_size=1,
    max_size=40,
)


def columns_of(rows: list[Row]) -> Columns:
    return Columns(
        times_us=np.array([row[0] * MINUTE for row in rows], dtype=np.int64),
        prices=np.array([math.nan if row[1] is None else row[1] for row in rows], dtype=np.float64),
        intensities=np.array([math.nan if row[2] is None else row[2] for row in rows], dtype=np.float64),
        codes=np.array([row[3] * 4 + row[4] for row in rows], dtype=np.uint8),
        start_us=0,
    )


def test_outcomes_of_a_small_rest_are_as_reckoned_by_hand() -> None:
    seen: list[Row] = [(0, 500.0, 1.0, 0, 1), (1, 900.0, 1.0, 0, 1)]
    rest: list[Row] = [(2, 100.0, 1.0, 1, 1), (3, 102.0, 1.0, 1, 1), (4, 101.0, 1.0, 2, 1), (5, 104.0, 1.0, 6, 1)]
    found = dict(zip(OUTCOMES, rest_outcomes(columns_of(seen + rest), 2).tolist(), strict=True))
    moves = np.diff(np.log([100.0, 102.0, 101.0, 104.0]))
    assert found["range"] == pytest.approx(math.log(4.0))
    assert found["volatility"] == pytest.approx(math.log(100 * moves.std()))
    assert found["n_events"] == pytest.approx(math.log(4))
    assert found["efficiency"] == pytest.approx(moves.sum() / np.abs(moves).sum())
    assert (found["expansion_phase"], found["consolidation_phase"], found["fvg_interaction"]) == (0.5, 0.25, 0.0)


@given(seen=rows_of_events, rest=rows_of_events, others=rows_of_events)
@settings(max_examples=150, deadline=None)
def test_outcomes_do_not_depend_on_what_was_seen_nor_features_on_what_came(
    seen: list[Row], rest: list[Row], others: list[Row]
) -> None:
    outcomes = rest_outcomes(columns_of(seen + rest), len(seen))
    np.testing.assert_array_equal(outcomes, rest_outcomes(columns_of(others + rest), len(others)))
    whole = columns_of(seen + rest)
    n = len(seen)
    prefix = Columns(
        times_us=whole.times_us[:n], prices=whole.prices[:n], intensities=whole.intensities[:n],
        codes=whole.codes[:n], start_us=0,
    )  # fmt: skip
    np.testing.assert_array_equal(extract(prefix), extract(columns_of(seen)))


@given(rows=rows_of_events)
@settings(max_examples=100, deadline=None)
def test_outcomes_are_known_or_nan_and_shares_add_up_to_at_most_one(rows: list[Row]) -> None:
    found = rest_outcomes(columns_of(rows), 0)
    assert not np.isinf(found).any()
    assert np.isnan(found[[0, 1, 3]]).all() or not np.isnan(found[[0, 1, 3]]).any()
    assert found[4:].sum() <= 1 + 1e-9
    assert np.isnan(rest_outcomes(columns_of(rows), len(rows))).all()


def test_path_has_the_latest_price_at_each_step_and_nothing_before_the_first() -> None:
    path = price_path(
        columns_of([(20, 100.0, None, 0, 3), (10, None, None, 0, 3), (30, 110.0, None, 0, 3)]), 40 * MINUTE
    )
    assert len(path) == N_PATH_POINTS
    assert np.isnan(path[:20]).all()
    assert path[20] == path[29] == 0.0
    assert path[30] == path[40] == pytest.approx(10.0)
    assert np.isnan(price_path(columns_of([(1, None, None, 0, 3)]), None)).all()
