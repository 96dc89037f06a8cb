"""What a prefix says of its session: the probability of each archetype, and a forecast of the part not seen yet.

Pure numpy. Arrays that training learned at one checkpoint (`stream_fp.artifacts`) are applied to one feature vector and
the session type. Three linear steps: the full fingerprint is forecast from the prefix, archetype probabilities are a
softmax of that forecast and its products (where between the archetypes will it come to lie?), and the rest is forecast
from prefix and probabilities together.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from stream_fp.features import N_FEATURES, RANGE, range_of_log
from stream_fp.phases import PHASES

__all__ = ["OUTCOMES", "QUANTILES", "Membership", "PrefixModel", "RestForecast", "RestModel", "quadratic",
           "range_ratio", "range_ratios"]  # fmt: skip

Array = npt.NDArray[np.float64]
Numbers = list[float]

#: Of the events after the checkpoint: log of the price range (% of the first price of these events), log of the
#: standard deviation of log returns between events (%), log of their number, net move over path, share of each phase.
OUTCOMES: Final = ("range", "volatility", "n_events", "efficiency", *PHASES)
#: The first so many of `OUTCOMES` are natural logarithms.
_N_LOGARITHMS: Final = 3
QUANTILES: Final = (0.1, 0.5, 0.9)
#: Forecast logarithms beyond these are of no market, and would leave the range of floats.
_MAX_LOG: Final = 30.0
_ONE: Final = np.ones(1)
_EFFICIENCY: Final = OUTCOMES.index("efficiency")
#: A range so far of more than a hundred times what is expected, or less than a hundredth, is as good as that.
_MAX_RATIO: Final = 100.0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Membership:
    """Arrays of `artifacts.MembershipArrays`; `tables` has the last two as lists, row by row."""

    features: npt.NDArray[np.int64]
    fingerprint: Array
    logits: Array
    tables: tuple[Numbers, Numbers] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "tables", (self.fingerprint.ravel().tolist(), self.logits.ravel().tolist()))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RestModel:
    """Arrays of `artifacts.RestArrays`; `columns` are the places of its outcomes in `OUTCOMES`.

    `tables` has the coefficients as lists, row by row; the second is empty where there are none.
    """

    columns: npt.NDArray[np.int64]
    coefficients: Array
    quantile_coefficients: Array | None
    quantile_shifts: Array
    tables: tuple[Numbers, Numbers] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        quantiles = self.quantile_coefficients
        both = (self.coefficients.ravel().tolist(), [] if quantiles is None else quantiles.ravel().tolist())
        object.__setattr__(self, "tables", both)


class RestForecast(Struct, frozen=True, kw_only=True, eq=False, gc=False):
    """Forecast of one session at one checkpoint.

    Attributes
    ----------
    outcomes : list of 10 floats
        In the order of `OUTCOMES`, with the logarithms as they are; efficiency and phase shares within [0, 1]. NaN
        where the model could not learn the outcome.
    final_range_pct : tuple of float or None
        P10, P50, P90 of the whole session's range in per cent of its first price, never below the range so far.
    """

    outcomes: list[float]
    final_range_pct: tuple[float, float, float] | None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PrefixModel:
    """What was learned from sessions cut at one checkpoint.

    Attributes
    ----------
    checkpoint_pct : float
    archetype_ids : ndarray of shape (n_archetypes,), int64
        Archetypes that had a session at this checkpoint, ascending.
    center, scale : ndarray of shape (30,)
        Of the scaler for distances.
    centroids : ndarray of shape (n_archetypes, 30)
        Of prefixes, in scaled space.
    precision : ndarray of shape (30, 30) or None
        Inverse covariance in scaled space.
    temperatures : dict of str to float
        By distance metric.
    input_center, input_scale : ndarray of shape (30,)
    input_clip : float
    session_types : dict of str to int
        Place of each type among the inputs.
    membership : Membership
    rest : RestModel
    typical_confidence : float or None
        Mean confidence to expect, where the library says.
    standards : list of 30 tuples of float
        Center and scale of each input, as plain numbers.
    nearness : list of n_archetypes tuples of two lists
        Each centroid in units of the features, and the scale, as plain numbers.
    """

    checkpoint_pct: float
    archetype_ids: npt.NDArray[np.int64]
    center: Array
    scale: Array
    centroids: Array
    precision: Array | None
    temperatures: dict[str, float]
    input_center: Array
    input_scale: Array
    input_clip: float
    session_types: dict[str, int]
    membership: Membership
    rest: RestModel
    typical_confidence: float | None = None

    standards: list[tuple[float, float]] = field(init=False, repr=False)
    nearness: list[tuple[Numbers, Numbers]] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        pairs = list(zip(self.input_center.tolist(), self.input_scale.tolist(), strict=True))
        object.__setattr__(self, "standards", pairs)
        unscaled = (self.center + self.centroids * self.scale).tolist()
        object.__setattr__(self, "nearness", [(centroid, self.scale.tolist()) for centroid in unscaled])

    def inputs(self, vector: Array, session_type: str) -> Array:
        """Return the inputs of the linear models for one feature vector, shape (1 + 30 + n_session_types,)."""
        return np.array(self.known(vector.tolist(), session_type))

    def probabilities(self, inputs: Array) -> Array:
        """Return the probability of each archetype of `archetype_ids`; they add up to 1."""
        return np.array(self.shares(inputs.tolist()))

    def forecast_rest(self, vector: Array, inputs: Array, probabilities: Array) -> RestForecast:
        """Forecast the part after the checkpoint.

        Parameters
        ----------
        vector : ndarray of shape (30,)
            Features of the prefix.
        inputs : ndarray
            As `inputs` gives them.
        probabilities : ndarray of shape (n_archetypes,)
            As `probabilities` gives them.
        """
        return self.rest_of(vector.tolist(), inputs.tolist(), probabilities.tolist())

    # The same on lists: compiled, numpy's calls would take longer than the few hundred products.

    def known(self, values: Numbers, session_type: str) -> Numbers:
        """Return what `inputs` does, of the features as a list."""
        clip = self.input_clip
        known = [1.0]
        for value, (center, scale) in zip(values, self.standards, strict=True):
            known.append(_clipped((value - center) / scale, clip))
        known += [0.0] * len(self.session_types)
        place = self.session_types.get(session_type)
        if place is not None:
            known[1 + N_FEATURES + place] = 1.0
        return known

    def shares(self, known: Numbers) -> Numbers:
        """Return what `probabilities` does, of the inputs as a list."""
        fingerprint, table = self.membership.tables
        expected = _weighted(known, fingerprint, len(self.membership.features))
        terms = [1.0, *expected]
        for i, one in enumerate(expected):
            terms += [one * other for other in expected[i:]]
        terms += known[1 + N_FEATURES :]
        logits = _weighted(terms, table, self.membership.logits.shape[1])
        greatest = max(logits)
        weights = [math.exp(logit - greatest) for logit in logits]
        total = 0.0
        for weight in weights:
            total += weight
        return [weight / total for weight in weights]

    def rest_of(self, values: Numbers, known: Numbers, shares: Numbers) -> RestForecast:
        """Return what `forecast_rest` does, of lists."""
        rest = self.rest
        coefficients, quantiles = rest.tables
        known = known + shares
        places: list[int] = rest.columns.tolist()
        outcomes = [math.nan] * len(OUTCOMES)
        for place, value in zip(places, _weighted(known, coefficients, len(places)), strict=True):
            if place < _N_LOGARITHMS:
                outcomes[place] = _clipped(value, _MAX_LOG)
            else:
                outcomes[place] = min(max(value, 0.0), 1.0)
        total = 0.0
        for share in outcomes[_EFFICIENCY + 1 :]:
            if share == share:  # noqa: PLR0124 - not NaN
                total += share
        if total > 1.0:
            outcomes[_EFFICIENCY + 1 :] = [share / total for share in outcomes[_EFFICIENCY + 1 :]]
        final = None
        if quantiles:
            so_far_pct = range_of_log(values[RANGE])
            unit_pct = math.exp(outcomes[0])
            known += range_ratio(so_far_pct, unit_pct)
            shifts: Numbers = rest.quantile_shifts.tolist()
            growth = [
                grown + shift for grown, shift in zip(_weighted(known, quantiles, len(shifts)), shifts, strict=True)
            ]
            p10, p50, p90 = sorted([so_far_pct + unit_pct * max(grown, 0.0) for grown in growth])
            final = (p10, p50, p90)
            # The whole is no narrower than its rest; the two are forecast one by one.
            outcomes[0] = min(outcomes[0], math.log(max(p50, math.exp(-_MAX_LOG))))
        return RestForecast(outcomes=outcomes, final_range_pct=final)


def _clipped(value: float, bound: float) -> float:
    if value > bound:
        return bound
    return max(value, -bound)


def _weighted(weights: Numbers, table: Numbers, width: int) -> Numbers:
    """Return the sum of the table's rows, each with its weight.

    One number after another, so that the same bits come out whether compiled or not. Compiled, it is quicker than
    numpy, whose calls take longer than the few hundred products.
    """
    sums = []
    for column in range(width):
        total, at = 0.0, column
        for weight in weights:
            coefficient = table[at]
            total += weight * coefficient
            at += width
        sums.append(total)
    return sums


def range_ratio(so_far_pct: float, unit_pct: float) -> tuple[float, float]:
    """Return range so far over expected range of the rest, and its logarithm.

    Examples
    --------
    >>> range_ratio(0.25, 0.25)
    (1.0, 0.0)
    """
    ratio = min(so_far_pct / unit_pct, _MAX_RATIO)
    return ratio, math.log(max(ratio, 1.0 / _MAX_RATIO))


def range_ratios(so_far_pct: Array, unit_pct: Array) -> Array:
    """Return the same of many sessions; shape (2, n)."""
    ratio = np.minimum(so_far_pct / unit_pct, _MAX_RATIO)
    return np.array([ratio, np.log(np.maximum(ratio, 1.0 / _MAX_RATIO))])


def quadratic(expected: Array, session_type: Array) -> Array:
    """Return 1, the forecast features, their products, and the session type: what the logits are linear in.

    Parameters
    ----------
    expected : ndarray of shape (m,)
    session_type : ndarray of shape (n_session_types,)

    Returns
    -------
    ndarray of shape (1 + m + m (m + 1) / 2 + n_session_types,)

    Examples
    --------
    >>> quadratic(np.array([2.0, 3.0]), np.array([1.0])).tolist()
    [1.0, 2.0, 3.0, 4.0, 6.0, 9.0, 1.0]
    """
    one, other = _pairs(len(expected))
    return np.concatenate((_ONE, expected, expected[one] * expected[other], session_type))


@lru_cache
def _pairs(n: int) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Return the places of all pairs of `n`, each with itself too."""
    return np.triu_indices(n)
