from __future__ import annotations

import math
from itertools import pairwise
from statistics import median
from typing import TYPE_CHECKING, Final

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream_fp.features import FEATURE_NAMES, FEATURES, N_FEATURES, extract
from stream_fp.phases import PHASES
from stream_fp.sessions import Columns

if TYPE_CHECKING:
    from collections.abc import Sequence

MINUTE: Final = 60_000_000
T0: Final = 1_753_795_800_000_000
NAN: Final = math.nan

#: One event: microseconds after the start, price or None, intensity or None, phase 0-6, regime 0-3 (3 for none).
Row = tuple[int, float | None, float | None, int, int]


def columns_of(rows: Sequence[Row], start_us: int = T0) -> Columns:
    return Columns(
        times_us=np.array([T0 + row[0] for row in rows], dtype=np.int64),
        prices=np.array([NAN if row[1] is None else row[1] for row in rows], dtype=np.float64),
        intensities=np.array([NAN if row[2] is None else row[2] for row in rows], dtype=np.float64),
        codes=np.array([row[3] * 4 + row[4] for row in rows], dtype=np.uint8),
        start_us=start_us,
    )


def named(columns: Columns) -> dict[str, float]:
    return dict(zip(FEATURE_NAMES, extract(columns).tolist(), strict=True))


def reference(rows: Sequence[Row], start_us: int = T0) -> dict[str, float]:
    """Compute each feature from its definition in plain Python, one event at a time."""
    rows = sorted(rows, key=lambda row: row[0])
    n = len(rows)
    minutes = [max(0.0, (T0 + row[0] - start_us) / MINUTE) for row in rows]
    elapsed = minutes[-1]
    phases, regimes = [row[3] for row in rows], [row[4] for row in rows if row[4] < 3]
    found = {f"{phase}_rate": 100 * phases.count(code) / n for code, phase in enumerate(PHASES)}
    found |= {f"htf_regime_{r}_share": regimes.count(r) / len(regimes) if regimes else 0.0 for r in range(3)}

    quotes = [(minute, row[1]) for minute, row in zip(minutes, rows, strict=True) if row[1] is not None]
    intensities = [row[2] for row in rows if row[2] is not None]
    prices = [price for _, price in quotes]
    span = max(prices) - min(prices) if prices else 0.0
    steps = [math.log(b) - math.log(a) for a, b in pairwise(prices)]
    moved = bool(span > 0 and any(steps))
    early = [price for minute, price in quotes if minute <= elapsed / 2]
    early_span = max(early) - min(early) if early else 0.0
    net = math.log(prices[-1]) - math.log(prices[0]) if prices else 0.0
    found |= {
        "log_range": math.log(1 + 10_000 * span / prices[0]) if moved else 0.0,
        "net_move_pct": 100 * net if moved else 0.0,
        "path_efficiency": abs(net) / math.fsum(map(abs, steps)) if moved else 0.0,
        "close_position": (prices[-1] - min(prices)) / span if moved else 0.5,
        "log_path_per_hour": (
            math.log(1 + 10_000 * math.fsum(map(abs, steps)) / (elapsed / 60)) if moved and elapsed else 0.0
        ),
        "log_events_per_hour": math.log(1 + n / (elapsed / 60)) if elapsed else 0.0,
        "log_intensity": math.asinh(math.fsum(intensities) / len(intensities)) if intensities else 0.0,
        "late_range_share": 1 - early_span / span if moved else 0.0,
    }

    gaps = [b - a for a, b in pairwise(minutes)]
    active = minutes[-1] - minutes[0]
    mean_gap = active / len(gaps) if gaps else 0.0
    high_at, low_at = 0.5, 0.5
    if prices and elapsed:
        high_at = next(minute for minute, price in quotes if price == max(prices)) / elapsed
        low_at = next(minute for minute, price in quotes if price == min(prices)) / elapsed
    found |= {
        "elapsed_min": elapsed,
        "log_median_gap": math.log(1 + median(gaps)) if gaps else 0.0,
        "gap_cv": math.sqrt(math.fsum((gap - mean_gap) ** 2 for gap in gaps) / len(gaps)) / mean_gap if active else 0.0,
        "longest_gap_share": max(gaps) / active if active else 0.0,
        "time_centroid": math.fsum(minutes) / n / elapsed if elapsed else 0.5,
        "high_time_share": high_at,
        "low_time_share": low_at,
        "recent_tempo": sum(minute >= 0.75 * elapsed for minute in minutes) / n if elapsed else 0.0,
    }

    shares = [phases.count(code) / n for code in range(7)]
    runs, longest = 1, 1
    for before, after in pairwise(phases):
        runs = runs + 1 if before == after else 1
        longest = max(longest, runs)
    cv, trend = reference_intensity(intensities)
    return found | {
        "phase_entropy": -math.fsum(share * math.log(share) for share in shares if share) / math.log(7),
        "phase_switch_share": sum(a != b for a, b in pairwise(phases)) / (n - 1) if n > 1 else 0.0,
        "longest_run_share": longest / n,
        "intensity_cv": cv,
        "intensity_trend": trend,
    }


def reference_intensity(values: list[float]) -> tuple[float, float]:
    if len(values) < 2 or len(set(values)) == 1:
        return 0.0, 0.0
    mean, size = math.fsum(values) / len(values), math.fsum(map(abs, values)) / len(values)
    spread = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / len(values))
    order = [i - (len(values) - 1) / 2 for i in range(len(values))]
    order_spread = math.sqrt(math.fsum(i * i for i in order) / len(values))
    covariance = math.fsum((value - mean) * i for value, i in zip(values, order, strict=True)) / len(values)
    return spread / size, covariance / (spread * order_spread)


# Grid values: whole steps, so that no quantity falls below the resolution at which reference and code may differ.
rows_on_a_grid = st.lists(
    st.tuples(
        st.integers(0, 600).map(lambda step: step * MINUTE // 4),
        st.none() | st.integers(8_000, 12_000).map(lambda ticks: ticks / 4),
        st.none() | st.integers(-8, 80).map(lambda steps: steps / 16),
        st.integers(0, 6),
        st.integers(0, 3),
    ),
    min_size=1,
    max_size=80,
)


@given(rows=rows_on_a_grid, start_min=st.integers(-30, 200))
@settings(max_examples=300, deadline=None)
def test_features_equal_a_plain_computation_from_their_definitions(rows: list[Row], start_min: int) -> None:
    start_us = T0 + start_min * MINUTE
    found, expected = named(columns_of(rows, start_us)), reference(rows, start_us)
    assert set(found) == set(expected)
    for name in FEATURE_NAMES:
        # The spread of gaps is a difference of squares: its rounding error is the root of that of its terms.
        assert found[name] == pytest.approx(expected[name], rel=1e-9, abs=1e-6 if name == "gap_cv" else 1e-9), name


legal_times = st.integers(-86_400_000_000, 30 * 86_400_000_000) | st.just(0)
legal_prices = st.none() | st.floats(1e-9, 1e12) | st.sampled_from((1e-9, 1e12, 100.0, math.nextafter(100.0, 101.0)))
legal_rows = st.lists(
    st.tuples(
        legal_times,
        legal_prices,
        st.none() | st.floats(-1e9, 1e9) | st.sampled_from((0.0, 5e-324, 1e9)),
        st.integers(0, 6),
        st.integers(0, 3),
    ),
    min_size=1,
    max_size=40,
)


@given(rows=legal_rows, start=st.integers(-86_400_000_000, 86_400_000_000))
@settings(max_examples=400, deadline=None)
def test_features_of_any_legal_events_are_finite_and_in_their_declared_range(rows: list[Row], start: int) -> None:
    with np.errstate(all="raise", under="ignore"):
        found = named(columns_of(rows, T0 + start))
    for feature in FEATURES:
        value = found[feature.name]
        assert math.isfinite(value), feature.name
        assert feature.low <= value <= feature.high, (feature.name, value)


@pytest.mark.parametrize(
    "rows",
    [
        [(0, 100.0, 1.0, 0, 0)],
        [(5 * MINUTE, None, None, 6, 3)],
        [(MINUTE, 100.0, 1.0, 1, 1)] * 20,
        [(i * MINUTE, 100.0, 1.0, 1, 1) for i in range(20)],
        [(i * MINUTE, None, None, i % 7, 3) for i in range(20)],
        [(i, 1e-9 if i % 2 else 1e12, 1e9 if i % 2 else -1e9, i % 7, i % 4) for i in range(20)],
        [(i * MINUTE, math.nextafter(1e12, 0) if i % 2 else 1e12, 5e-324, 0, 0) for i in range(20)],
        [((20 - i) * MINUTE, 100.0 + i, float(i), i % 7, i % 4) for i in range(20)],
    ],
    ids=["one", "bare", "equal times", "equal prices", "no prices", "huge and tiny", "least step", "backwards"],
)
def test_features_at_the_edges_are_finite_and_in_range(rows: list[Row]) -> None:
    for start in (0, -MINUTE, MINUTE * 60):
        found = named(columns_of(rows, T0 + start))
        assert all(math.isfinite(value) for value in found.values())
        assert all(feature.low <= found[feature.name] <= feature.high for feature in FEATURES)


@given(rows=rows_on_a_grid, seed=st.integers(0, 2**32 - 1))
@settings(deadline=None)
def test_order_of_arrival_does_not_matter(rows: list[Row], seed: int) -> None:
    rows = list({row[0]: row for row in rows}.values())  # at equal times the order is the only one there is
    order = np.random.default_rng(seed).permutation(len(rows))
    assert extract(columns_of([rows[i] for i in order])).tobytes() == extract(columns_of(sorted(rows))).tobytes()


def test_events_of_equal_time_keep_their_order_of_arrival() -> None:
    rows: list[Row] = [(MINUTE, 100.0, 1.0, 0, 0), (MINUTE, 110.0, 2.0, 1, 1), (0, 90.0, 3.0, 2, 2)]
    found = named(columns_of(rows))
    assert found["close_position"] == 1.0
    assert found["net_move_pct"] == pytest.approx(100 * math.log(110 / 90))


def test_no_event_is_a_value_error() -> None:
    with pytest.raises(ValueError, match="at least one event"):
        extract(columns_of([]))


def test_table_has_the_groups_of_the_design_in_order() -> None:
    groups = [feature.group for feature in FEATURES]
    assert groups == ["phase"] * 6 + ["regime"] * 3 + ["range_tempo"] * 8 + ["timing"] * 8 + ["distribution"] * 5
    assert N_FEATURES == len(set(FEATURE_NAMES)) == 30
    assert tuple(feature.name for feature in FEATURES) == FEATURE_NAMES


@pytest.mark.parametrize("feature", FEATURES, ids=FEATURE_NAMES)
def test_every_feature_says_what_it_is(feature: object) -> None:
    assert isinstance(feature, type(FEATURES[0]))
    assert feature.definition
    assert feature.unit
    assert feature.low < feature.high


def test_features_of_a_small_session_are_as_reckoned_by_hand() -> None:
    rows: list[Row] = [
        (0, 100.0, 1.0, 1, 1),
        (10 * MINUTE, 104.0, 3.0, 1, 1),
        (20 * MINUTE, 102.0, 2.0, 3, 2),
        (40 * MINUTE, 108.0, None, 6, 3),
    ]
    found = named(columns_of(rows))
    assert found["expansion_phase_rate"] == 50
    assert found["retracement_event_rate"] == 25
    assert found["htf_regime_1_share"] == pytest.approx(2 / 3)
    assert found["log_range"] == pytest.approx(math.log(801))
    assert found["log_path_per_hour"] == pytest.approx(
        math.log(1 + 1e4 * math.log(104 / 100 * 104 / 102 * 108 / 102) * 1.5)
    )
    assert found["close_position"] == 1.0
    assert found["log_events_per_hour"] == pytest.approx(math.log(7))
    assert found["log_intensity"] == pytest.approx(math.asinh(2))
    assert found["late_range_share"] == pytest.approx(0.5)
    assert found["elapsed_min"] == 40
    assert found["log_median_gap"] == pytest.approx(math.log(11))
    assert found["longest_gap_share"] == pytest.approx(0.5)
    assert found["time_centroid"] == pytest.approx(17.5 / 40)
    assert found["recent_tempo"] == 0.25
    assert found["phase_switch_share"] == pytest.approx(2 / 3)
    assert found["longest_run_share"] == 0.5
    assert found["intensity_trend"] == pytest.approx(0.5)
