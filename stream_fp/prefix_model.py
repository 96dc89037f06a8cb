"""What a prefix says of its session: the probability of each archetype, and a forecast of the part not seen yet.

Pure numpy. Arrays that training learned at one checkpoint (`stream_fp.artifacts`) are applied to one feature vector and
the session type. Three linear steps: the full fingerprint is forecast from the prefix, archetype probabilities are a
softmax of that forecast and its products (where between the archetypes will it come to lie?), and the rest is forecast
from prefix and probabilities together.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from stream_fp.features import N_FEATURES, RANGE, range_of_log
from stream_fp.phases import PHASES

__all__ = ["OUTCOMES", "QUANTILES", "Membership", "PrefixModel", "RestForecast", "RestModel", "quadratic",
           "range_ratio"]  # fmt: skip

Array = npt.NDArray[np.float64]

#: Of the events after the checkpoint: log of the price range (% of the first price of these events), log of the
#: standard deviation of log returns between events (%), log of their number, net move over path, share of each phase.
OUTCOMES: Final = ("range", "volatility", "n_events", "efficiency", *PHASES)
#: The first so many of `OUTCOMES` are natural logarithms.
_N_LOGARITHMS: Final = 3
QUANTILES: Final = (0.1, 0.5, 0.9)
#: Forecast logarithms beyond these are of no market, and would leave the range of floats.
_MAX_LOG: Final = 30.0
_EFFICIENCY: Final = OUTCOMES.index("efficiency")
#: A range so far of more than a hundred times what is expected, or less than a hundredth, is as good as that.
_MAX_RATIO: Final = 100.0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Membership:
    """Arrays of `artifacts.MembershipArrays`."""

    features: npt.NDArray[np.int64]
    fingerprint: Array
    logits: Array


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RestModel:
    """Arrays of `artifacts.RestArrays`; `columns` are the places of its outcomes in `OUTCOMES`."""

    columns: npt.NDArray[np.int64]
    coefficients: Array
    quantile_coefficients: Array | None
    quantile_shifts: Array


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RestForecast:
    """Forecast of one session at one checkpoint.

    Attributes
    ----------
    outcomes : ndarray of shape (10,)
        In the order of `OUTCOMES`, with the logarithms as they are; efficiency and phase shares within [0, 1]. NaN
        where the model could not learn the outcome.
    final_range_pct : tuple of float or None
        P10, P50, P90 of the whole session's range in per cent of its first price, never below the range so far.
    """

    outcomes: Array
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

    def inputs(self, vector: Array, session_type: str) -> Array:
        """Return the inputs of the linear models for one feature vector, shape (1 + 30 + n_session_types,)."""
        inputs = np.zeros(1 + N_FEATURES + len(self.session_types))
        inputs[0] = 1.0
        standardised = (vector - self.input_center) / self.input_scale
        inputs[1 : 1 + N_FEATURES] = np.minimum(np.maximum(standardised, -self.input_clip), self.input_clip)
        place = self.session_types.get(session_type)
        if place is not None:
            inputs[1 + N_FEATURES + place] = 1.0
        return inputs

    def probabilities(self, inputs: Array) -> Array:
        """Return the probability of each archetype of `archetype_ids`; they add up to 1."""
        expected = inputs @ self.membership.fingerprint
        logits = quadratic(expected, inputs[1 + N_FEATURES :]) @ self.membership.logits
        weights = np.exp(logits - logits.max())
        return np.asarray(weights / weights.sum())

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
        known = np.concatenate((inputs, probabilities))
        outcomes = np.full(len(OUTCOMES), np.nan)
        outcomes[self.rest.columns] = known @ self.rest.coefficients
        outcomes[:_N_LOGARITHMS] = np.clip(outcomes[:_N_LOGARITHMS], -_MAX_LOG, _MAX_LOG)
        outcomes[_EFFICIENCY:] = np.clip(outcomes[_EFFICIENCY:], 0.0, 1.0)
        shares = outcomes[_EFFICIENCY + 1 :]
        total = float(np.nansum(shares))
        if total > 1.0:
            shares /= total
        final = None
        if self.rest.quantile_coefficients is not None:
            so_far_pct = range_of_log(float(vector[RANGE]))
            unit_pct = math.exp(outcomes[0])
            growth = np.concatenate((known, range_ratio(so_far_pct, unit_pct))) @ self.rest.quantile_coefficients
            growth = np.sort(np.maximum(growth + self.rest.quantile_shifts, 0.0))
            p10, p50, p90 = (so_far_pct + unit_pct * growth).tolist()
            final = (p10, p50, p90)
            # The whole is no narrower than its rest; the two are forecast one by one.
            outcomes[0] = min(float(outcomes[0]), math.log(max(p50, math.exp(-_MAX_LOG))))
        return RestForecast(outcomes=outcomes, final_range_pct=final)


def range_ratio(so_far_pct: float | Array, unit_pct: float | Array) -> Array:
    """Return range so far over expected range of the rest, and its logarithm; shape (2,) or (2, n)."""
    ratio = np.minimum(np.asarray(so_far_pct, dtype=np.float64) / unit_pct, _MAX_RATIO)
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
    m = len(expected)
    products = [expected[i] * expected[i:] for i in range(m)]
    return np.concatenate(([1.0], expected, *products, session_type))
