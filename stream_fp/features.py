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
from collections.abc import MutableSequence, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

from stream_fp.phases import N_PHASES, PHASES
from stream_fp.sessions import BYTES_PER_EVENT, CODE_BITS, CODE_MASK, NO_REGIME, Columns
from stream_fp.stamps import IS_COMPILED

__all__ = ["FEATURES", "FEATURE_NAMES", "N_FEATURES", "RANGE", "SCHEMA_VERSION", "Feature", "extract", "fingerprint",
           "log_of_range", "range_of_log"]  # fmt: skip

#: Changes whenever a definition below does; artifacts of another schema are refused.
SCHEMA_VERSION: Final = 2

#: Lists where interpreted, which Python reads fastest; views of the memory where compiled.
Values = MutableSequence[float]
Integers = Sequence[int]
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
#: The same as the public ones; compiled, they are C's.
_CODE_BITS: Final = CODE_BITS
_CODE_MASK: Final = CODE_MASK
_N_PHASES: Final = N_PHASES
_N_REGIMES: Final = NO_REGIME
_N_KINDS: Final = N_PHASES + 1
_MAX_ENTROPY: Final = math.log(_N_KINDS)
#: Below the rounding error of the mean there is no spread, only noise; as a share of the mean size, squared.
_NO_SPREAD: Final = 1e-24
#: Where each group begins.
_REGIMES: Final = N_PHASES
_RANGE_TEMPO: Final = _REGIMES + NO_REGIME
_TIMING: Final = _RANGE_TEMPO + 8
_DISTRIBUTION: Final = _TIMING + 8


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
    table = np.empty((n, 3))
    table.view(np.int64)[:, 0] = columns.times_us << CODE_BITS | columns.codes
    table[:, 1], table[:, 2] = columns.prices, columns.intensities
    return np.array(fingerprint(table.tobytes(), columns.start_us))


def fingerprint(rows: bytes | bytearray, start_us: int) -> list[float]:
    """Compute the same from a session's rows.

    Parameters
    ----------
    rows : bytes or bytearray
        As `sessions.Session` holds them; at least one.
    start_us : int
        Start of the session.

    Returns
    -------
    list of 30 floats
        In the order of `FEATURE_NAMES`, all finite.

    Raises
    ------
    ValueError
        When there is no event.
    """
    if len(rows) < BYTES_PER_EVENT:
        msg = "expected at least one event, got none"
        raise ValueError(msg)
    block = memoryview(rows)
    words: Any = block.cast("q")
    numbers: Any = block.cast("d")
    if not _is_in_order(words if IS_COMPILED else words.tolist()):
        order = sorted(range(len(words) // 3), key=[word >> CODE_BITS for word in words[::3]].__getitem__)
        block = memoryview(b"".join([bytes(block[BYTES_PER_EVENT * i : BYTES_PER_EVENT * (i + 1)]) for i in order]))
        words, numbers = block.cast("q"), block.cast("d")
    if IS_COMPILED:
        vector: Any = memoryview(bytearray(8 * N_FEATURES)).cast("d")
        _fill(vector, words, numbers, start_us)
        found: list[float] = vector.tolist()
        return found
    values = [0.0] * N_FEATURES
    _fill(values, words.tolist(), numbers.tolist(), start_us)
    return values


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


# Loops over numbers, one after another: compiled, 50 events take a tenth of what numpy's calls took. Whatever is
# added up is added up in the order of the events, and logarithms are those of C, so that the same bits come out
# whether compiled or not.
#
# `words` and `numbers` are the same rows, as whole numbers and as floats: word, price, intensity; word, price, ...


def _is_in_order(words: Integers) -> bool:
    before = words[0] >> _CODE_BITS
    for i in range(3, len(words), 3):
        time_us = words[i] >> _CODE_BITS
        if time_us < before:
            return False
        before = time_us
    return True


def _fill(vector: Values, words: Integers, numbers: Values, start_us: int) -> None:
    """Write the features of events in the order of time."""
    elapsed = _minute(words, len(words) - 3, start_us)
    _composition(vector, words)
    _moves(vector, words, numbers, start_us, elapsed)
    _timing(vector, words, start_us, elapsed)
    _intensity_shape(vector, numbers)


def _minute(words: Integers, i: int, start_us: int) -> float:
    """Return the minutes from the start to an event.

    What comes before the start counts as coming at the start: it may be early by a moment, or have a time that is no
    more than a default. Integers are subtracted before they become floats, which could not hold them.
    """
    since_us = (words[i] >> _CODE_BITS) - start_us
    return since_us / _MINUTE_US if since_us > 0 else 0.0


def _composition(vector: Values, words: Integers) -> None:
    """Write what the codes tell: rates of phases, shares of regimes, entropy, switches and runs of phases."""
    n = len(words) // 3
    n_unknown = n_named = n_switches = run = longest_run = 0
    before = -1
    for i in range(0, len(words), 3):
        code = words[i] & _CODE_MASK
        phase, regime = code >> 2, code & 3
        if phase < _N_PHASES:
            vector[phase] += 1.0
        else:
            n_unknown += 1
        if regime < _N_REGIMES:
            vector[_REGIMES + regime] += 1.0
            n_named += 1
        if phase == before:
            run += 1
        else:
            n_switches += 1
            run = 1
            before = phase
        longest_run = max(longest_run, run)
    entropy = 0.0
    for i in range(_N_KINDS):
        share = (vector[i] if i < _N_PHASES else n_unknown) / n
        if share > 0.0:
            entropy -= share * math.log(share)
    for i in range(_N_PHASES):
        vector[i] = 100.0 * vector[i] / n
    if n_named > 0:
        for i in range(_REGIMES, _REGIMES + _N_REGIMES):
            vector[i] /= n_named
    vector[_DISTRIBUTION] = entropy / _MAX_ENTROPY if entropy > 0.0 else 0.0
    vector[_DISTRIBUTION + 1] = (n_switches - 1) / (n - 1) if n > 1 else 0.0
    vector[_DISTRIBUTION + 2] = longest_run / n


def _moves(vector: Values, words: Integers, numbers: Values, start_us: int, elapsed: float) -> None:
    """Write what the prices tell: range, net move, path, places of last, highest and lowest; and the tempo."""
    n_prices, at_high, at_low = 0, 0, 0
    first = last = high = low = early_high = early_low = path = logarithm = first_logarithm = 0.0
    half, n_early = elapsed / 2, 0
    for i in range(0, len(words), 3):
        price = numbers[i + 1]
        if price != price:  # noqa: PLR0124 - NaN: an event without a quote
            continue
        before, logarithm = logarithm, math.log(price)
        if n_prices == 0:
            first = high = low = price
            first_logarithm = logarithm
            at_high = at_low = i
        else:
            path += math.fabs(logarithm - before)
            if price > high:
                high, at_high = price, i
            if price < low:
                low, at_low = price, i
        n_prices += 1
        last = price
        if _minute(words, i, start_us) <= half:
            early_high, early_low, n_early = high, low, n_early + 1
    is_timed = n_prices > 0 and elapsed > 0
    vector[_TIMING + 5] = _minute(words, at_high, start_us) / elapsed if is_timed else 0.5
    vector[_TIMING + 6] = _minute(words, at_low, start_us) / elapsed if is_timed else 0.5
    hours, span = elapsed / 60.0, high - low
    span_of_first = net = efficiency = path_per_hour = late_share = 0.0
    close_position = 0.5
    if span > 0 and path > 0:  # a span may be below the resolution of logarithms
        span_of_first, net = span / first, logarithm - first_logarithm
        efficiency = math.fabs(net) / path
        path_per_hour = path / hours if hours > 0 else 0.0
        late_share = 1.0 - (early_high - early_low) / span if n_early else 1.0
        close_position = (last - low) / span
    vector[_RANGE_TEMPO] = math.log1p(_BP_PER_PCT * (100.0 * span_of_first))
    vector[_RANGE_TEMPO + 1] = 100.0 * net
    vector[_RANGE_TEMPO + 2] = min(1.0, efficiency)
    vector[_RANGE_TEMPO + 3] = close_position
    vector[_RANGE_TEMPO + 4] = math.log1p(100.0 * _BP_PER_PCT * path_per_hour)
    vector[_RANGE_TEMPO + 5] = math.log1p(len(words) // 3 / hours) if hours > 0 else 0.0
    vector[_RANGE_TEMPO + 7] = late_share


def _timing(vector: Values, words: Integers, start_us: int, elapsed: float) -> None:
    """Write how events lie in time, but for the times of the highest and lowest price."""
    n = len(words) // 3
    median_gap = gap_cv = longest_share = recent = 0.0
    centroid = 0.5
    if elapsed > 0:
        gaps = []
        total, threshold, n_recent = 0.0, 0.75 * elapsed, 0
        before = first = _minute(words, 0, start_us)
        for i in range(0, len(words), 3):
            minute = _minute(words, i, start_us)
            total += minute
            if minute >= threshold:
                n_recent += 1
            if i > 0:
                gaps.append(minute - before)
            before = minute
        centroid, recent = total / (n * elapsed), n_recent / n
        active = elapsed - first
        if n > 1 and active > 0:
            gaps.sort()
            n_gaps = n - 1
            middle = n_gaps // 2
            median_gap = gaps[middle]
            if n_gaps % 2 == 0:
                gap = gaps[middle - 1]
                median_gap = (gap + median_gap) / 2
            mean_gap, squares = active / n_gaps, 0.0
            for i in range(n_gaps):
                gap = gaps[i]
                squares += gap * gap
            variance = squares / n_gaps - mean_gap * mean_gap
            gap_cv = math.sqrt(variance) / mean_gap if variance > 0 else 0.0
            longest_share = gap / active
    vector[_TIMING] = elapsed
    vector[_TIMING + 1] = math.log1p(median_gap)
    vector[_TIMING + 2] = gap_cv
    vector[_TIMING + 3] = min(1.0, longest_share)
    vector[_TIMING + 4] = min(1.0, centroid)
    vector[_TIMING + 7] = recent


def _intensity_shape(vector: Values, numbers: Values) -> None:
    """Write what the intensities tell: their mean, their spread, and their trend over the order of events."""
    m = 0
    total = size = 0.0
    for i in range(2, len(numbers), 3):
        value = numbers[i]
        if value == value:  # noqa: PLR0124 - not NaN: an event that names one
            total += value
            size += math.fabs(value)
            m += 1
    mean = total / m if m else 0.0
    vector[_RANGE_TEMPO + 6] = math.asinh(mean)
    if m < 2:
        return
    squares = products = 0.0
    order = -(m - 1) / 2
    for i in range(2, len(numbers), 3):
        value = numbers[i]
        if value == value:  # noqa: PLR0124
            squares += (value - mean) * (value - mean)
            products += (value - mean) * order
            order += 1.0
    variance, size = squares / m, size / m
    if variance <= _NO_SPREAD * size * size or size == 0.0:
        return
    order_variance = (m * m - 1) / 12
    trend = products / m / math.sqrt(variance * order_variance)
    vector[_DISTRIBUTION + 3] = math.sqrt(variance) / size
    vector[_DISTRIBUTION + 4] = max(-1.0, min(1.0, trend))
