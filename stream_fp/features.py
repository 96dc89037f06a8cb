"""The 30 features of a session or of the part of it seen so far.

Pure: `Columns` in, vector out. Each feature is declared once, in `FEATURES`, with its definition, unit and range, and
computed once, in `extract`. They use the five event fields and the start of the session, nothing else; every one is
defined on a prefix, bounded by the events in it and finite for every legal input.

Quantities that differ by factors between sessions (range, path, tempo) are logarithms, because centroids and linear
models see differences: a range of 0.2 % is to one of 0.4 % as 1 % to 2 %. ``ln(1 + x)`` keeps zero in place; bp are
hundredths of a per cent.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from stream_fp.phases import N_PHASES, PHASES, UNKNOWN
from stream_fp.sessions import NO_REGIME, Columns

__all__ = ["FEATURES", "FEATURE_NAMES", "N_FEATURES", "RANGE", "SCHEMA_VERSION", "Feature", "extract", "log_of_range",
           "range_of_log"]  # fmt: skip

#: Changes whenever a definition below does; artifacts of another schema are refused.
SCHEMA_VERSION: Final = 2

Array = npt.NDArray[np.float64]
Group = Literal["phase", "regime", "range_tempo", "timing", "distribution"]


@dataclass(frozen=True, slots=True)
class Feature:
    """Definition of one feature."""

    name: str
    group: Group
    unit: str
    low: float
    high: float
    definition: str


_INF: Final = math.inf
FEATURES: Final[tuple[Feature, ...]] = (
    *(
        Feature(f"{phase}_rate", "phase", "per 100 events", 0, 100, f"events of phase {phase} in 100 events")
        for phase in PHASES
    ),
    *(
        Feature(f"htf_regime_{r}_share", "regime", "1", 0, 1, f"share of regime {r} among the events that name one")
        for r in range(NO_REGIME)
    ),
    Feature("log_range", "range_tempo", "ln(1 + bp)", 0, _INF, "highest minus lowest price, of the first price"),
    Feature("net_move_pct", "range_tempo", "% (log)", -_INF, _INF, "log of last over first price, times 100"),
    Feature("path_efficiency", "range_tempo", "1", 0, 1, "net move over the path, both as absolute log price moves"),
    Feature("close_position", "range_tempo", "1", 0, 1, "last price between lowest (0) and highest (1); 0.5 if flat"),
    Feature("log_path_per_hour", "range_tempo", "ln(1 + bp/h)", 0, _INF, "sum of absolute log price moves per hour"),
    Feature("log_events_per_hour", "range_tempo", "ln(1 + 1/h)", 0, _INF, "events per hour from start to latest event"),
    Feature("log_intensity", "range_tempo", "asinh", -_INF, _INF, "mean of the intensities that are known"),
    Feature("late_range_share", "range_tempo", "1", 0, 1, "share of the range made in the second half of the time"),
    Feature("elapsed_min", "timing", "min", 0, _INF, "time from the session's start to its latest event"),
    Feature("log_median_gap", "timing", "ln(1 + min)", 0, _INF, "median time between events"),
    Feature("gap_cv", "timing", "1", 0, _INF, "standard deviation over mean of the time between events"),
    Feature("longest_gap_share", "timing", "1", 0, 1, "longest time between events over the time from first to last"),
    Feature("time_centroid", "timing", "1", 0, 1, "mean event time between start (0) and latest event (1)"),
    Feature("high_time_share", "timing", "1", 0, 1, "time of the highest price between start and latest event"),
    Feature("low_time_share", "timing", "1", 0, 1, "time of the lowest price between start and latest event"),
    Feature("recent_tempo", "timing", "1", 0, 1, "share of the events in the last quarter of the time"),
    Feature("phase_entropy", "distribution", "1", 0, 1, "entropy of the phases (unknown is one) over its maximum"),
    Feature("phase_switch_share", "distribution", "1", 0, 1, "share of events whose phase differs from the one before"),
    Feature("longest_run_share", "distribution", "1", 0, 1, "longest run of events of one phase over all events"),
    Feature("intensity_cv", "distribution", "1", 0, _INF, "standard deviation over mean size of the intensities"),
    Feature("intensity_trend", "distribution", "1", -1, 1, "correlation of intensity with event order"),
)  # fmt: skip

FEATURE_NAMES: Final = tuple(feature.name for feature in FEATURES)
N_FEATURES: Final = len(FEATURE_NAMES)
#: Place of the range, which forecasts start from.
RANGE: Final = FEATURE_NAMES.index("log_range")

_MINUTE_US: Final = 60e6
_BP_PER_PCT: Final = 100.0
_N_KINDS: Final = N_PHASES + 1
_N_CODES: Final = 4 * _N_KINDS
_MAX_ENTROPY: Final = math.log(_N_KINDS)
#: As methods of arrays (`sum`, `max`, `min`) they take twice as long on prefixes, which are short: 1 us each, and a
#: fifth of the whole.
_total, _greatest, _least = np.add.reduce, np.maximum.reduce, np.minimum.reduce


def extract(columns: Columns) -> npt.NDArray[np.float64]:
    """Compute the features of the events in `columns`.

    Parameters
    ----------
    columns : Columns
        At least one event; order does not matter, events of the same time keep their order of arrival.

    Returns
    -------
    ndarray of shape (30,), float64
        In the order of `FEATURE_NAMES`, all finite.

    Raises
    ------
    ValueError
        When there is no event.
    """
    n = len(columns.times_us)
    if n == 0:
        msg = "expected at least one event, got none"
        raise ValueError(msg)
    times_us, prices, intensities, codes = columns.times_us, columns.prices, columns.intensities, columns.codes
    if n > 1 and _least(times_us[1:] - times_us[:-1]) < 0:
        order = times_us.argsort(kind="stable")
        times_us, prices, intensities, codes = times_us[order], prices[order], intensities[order], codes[order]
    # Integers are subtracted before they become floats, which could not hold them. What comes before the start counts
    # as coming at the start: it may be early by a moment, or have a time that is no more than a default.
    minutes = np.maximum((times_us - columns.start_us) / _MINUTE_US, 0.0)
    elapsed = float(minutes[-1])
    counts = np.bincount(codes, minlength=_N_CODES).reshape(_N_KINDS, _N_CODES // _N_KINDS)
    phase_counts, regime_counts = _total(counts, axis=1).tolist(), _total(counts, axis=0).tolist()
    values, total = _known(intensities)
    move, high_time, low_time = _moves(minutes, prices, elapsed)
    return np.array(
        _composition(phase_counts, regime_counts[:NO_REGIME], n)
        + _range_tempo(move, total / len(values) if len(values) else 0.0, elapsed, n)
        + _timing(minutes, elapsed, n, high_time, low_time)
        + _distribution(phase_counts, np.right_shift(codes, 2, dtype=np.uint8), n)
        + _intensity_shape(values, total),
        dtype=np.float64,
    )


def log_of_range(range_pct: float) -> float:
    """Return ``log_range`` of a range in per cent of the first price.

    Examples
    --------
    >>> round(range_of_log(log_of_range(0.25)), 12)
    0.25
    """
    return math.log1p(_BP_PER_PCT * range_pct)


def range_of_log(log_range: float) -> float:
    """Return the range in per cent of the first price that ``log_range`` stands for."""
    return math.expm1(log_range) / _BP_PER_PCT


def _known(values: Array) -> tuple[Array, float]:
    """Leave out NaN, and return the sum too. The values are bounded: only NaN makes their sum NaN."""
    total = float(_total(values))
    if total == total:  # noqa: PLR0124 - the fastest test for NaN
        return values, total
    values = values[values == values]  # noqa: PLR0124
    return values, float(_total(values))


def _composition(phase_counts: list[int], regime_counts: list[int], n: int) -> list[float]:
    n_known = sum(regime_counts)
    return [
        *(100.0 * count / n for count in phase_counts[:UNKNOWN]),
        *(count / n_known if n_known else 0.0 for count in regime_counts),
    ]


@dataclass(frozen=True, slots=True)
class _Move:
    """What the prices did: range, net move, path (sums of log moves), last place in the range, late share of it."""

    range_of_first: float = 0.0
    net: float = 0.0
    path: float = 0.0
    close_position: float = 0.5
    late_share: float = 0.0


_STILL: Final = _Move()


def _moves(minutes: Array, prices: Array, elapsed: float) -> tuple[_Move, float, float]:
    """Return the move, and the times of the highest and the lowest price between start (0) and latest event (1)."""
    p, _ = _known(prices)
    if not len(p):
        return _STILL, 0.5, 0.5
    t = minutes if p is prices else minutes[prices == prices]  # noqa: PLR0124
    at_high, at_low = p.argmax(), p.argmin()
    times = (float(t[at_high]) / elapsed, float(t[at_low]) / elapsed) if elapsed > 0 else (0.5, 0.5)
    high, low, first, last = float(p[at_high]), float(p[at_low]), float(p[0]), float(p[-1])
    span = high - low
    if span <= 0:
        return _STILL, *times
    logs = np.log(p)
    path = float(_total(np.abs(logs[1:] - logs[:-1])))
    if path <= 0:  # a span below the resolution of logarithms
        return _STILL, *times
    early = p[: t.searchsorted(elapsed / 2, side="right")]
    early_span = float(_greatest(early) - _least(early)) if len(early) else 0.0
    move = _Move(span / first, float(logs[-1] - logs[0]), path, (last - low) / span, 1.0 - early_span / span)
    return move, *times


def _range_tempo(move: _Move, mean_intensity: float, elapsed: float, n: int) -> list[float]:
    hours = elapsed / 60.0
    return [
        log_of_range(100.0 * move.range_of_first),
        100.0 * move.net,
        min(1.0, abs(move.net) / move.path) if move.path else 0.0,
        move.close_position,
        math.log1p(100.0 * _BP_PER_PCT * move.path / hours) if hours > 0 else 0.0,
        math.log1p(n / hours) if hours > 0 else 0.0,
        math.asinh(mean_intensity),
        move.late_share,
    ]


def _timing(minutes: Array, elapsed: float, n: int, high_time: float, low_time: float) -> list[float]:
    if elapsed <= 0:
        return [0.0, 0.0, 0.0, 0.0, 0.5, 0.5, 0.5, 0.0]
    centroid = float(_total(minutes)) / (n * elapsed)
    recent = (n - int(minutes.searchsorted(0.75 * elapsed))) / n
    median_gap = gap_cv = longest_share = 0.0
    active = elapsed - float(minutes[0])
    if n > 1 and active > 0:
        gaps = minutes[1:] - minutes[:-1]
        mean_gap = active / (n - 1)
        gaps.sort()
        middle = (n - 1) // 2
        median_gap = float(gaps[middle]) if n % 2 == 0 else float(gaps[middle - 1] + gaps[middle]) / 2
        variance = float(gaps @ gaps) / (n - 1) - mean_gap * mean_gap
        gap_cv = math.sqrt(max(0.0, variance)) / mean_gap
        longest_share = min(1.0, float(gaps[-1]) / active)
    return [elapsed, math.log1p(median_gap), gap_cv, longest_share, min(1.0, centroid), high_time, low_time, recent]


def _distribution(phase_counts: list[int], phases: npt.NDArray[np.uint8], n: int) -> list[float]:
    entropy = 0.0
    for count in phase_counts:
        if count:
            entropy -= count / n * math.log(count / n)
    switches = (phases[1:] != phases[:-1]).nonzero()[0]
    n_switches = len(switches)
    longest_run = n
    if n_switches:
        longest_run = max(int(switches[0]) + 1, n - 1 - int(switches[-1]))
        if n_switches > 1:
            longest_run = max(longest_run, int(_greatest(switches[1:] - switches[:-1])))
    return [
        max(0.0, entropy) / _MAX_ENTROPY,
        n_switches / (n - 1) if n > 1 else 0.0,
        longest_run / n,
    ]


@lru_cache(256)
def _centred_order(m: int) -> Array:
    return np.arange(m, dtype=np.float64) - (m - 1) / 2


def _intensity_shape(values: Array, total: float) -> list[float]:
    m = len(values)
    if m < 2:
        return [0.0, 0.0]
    centred = values - total / m
    variance = float(centred @ centred) / m
    size = float(_total(np.abs(values))) / m
    # Below the rounding error of the mean there is no spread, only noise.
    if variance <= 1e-24 * size * size or size == 0.0:
        return [0.0, 0.0]
    order = _centred_order(m)
    order_variance = (m * m - 1) / 12
    trend = float(centred @ order) / m / math.sqrt(variance * order_variance)
    return [math.sqrt(variance) / size, max(-1.0, min(1.0, trend))]
