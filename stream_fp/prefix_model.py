"""What a prefix says of its session: the probability of each archetype, and a forecast of the part not seen yet.

Pure numpy. Arrays that training learned at one checkpoint (`stream_fp.artifacts`) are applied to one feature vector and
the session type. Three linear steps: the full fingerprint is forecast from the prefix, archetype probabilities are a
softmax of that forecast and its products (where between the archetypes will it come to lie?), and the rest is forecast
from prefix and probabilities together.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np
import numpy.typing as npt

from stream_fp.features import N_FEATURES, RANGE, range_of_log
from stream_fp.phases import PHASES

__all__ = ["OUTCOMES", "QUANTILES", "Membership", "PrefixModel", "RestForecast", "RestModel", "quadratic",
           "range_ratio", "range_ratios"]  # fmt: skip

Array = npt.NDArray[np.float64]

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
        # `clip` takes five times as long.
        inputs[1 : 1 + N_FEATURES] = np.minimum(np.maximum(standardised, -self.input_clip), self.input_clip)
        place = self.session_types.get(session_type)
        if place is not None:
            inputs[1 + N_FEATURES + place] = 1.0
        return inputs

    def probabilities(self, inputs: Array) -> Array:
        """Return the probability of each archetype of `archetype_ids`; they add up to 1."""
        expected = inputs @ self.membership.fingerprint
        # A handful of numbers: as plain floats they take half the time.
        logits = (quadratic(expected, inputs[1 + N_FEATURES :]) @ self.membership.logits).tolist()
        greatest = max(logits)
        weights = [math.exp(logit - greatest) for logit in logits]
        total = sum(weights)
        return np.array([weight / total for weight in weights])

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
        rest = self.rest
        known = np.concatenate((inputs, probabilities))
        # Ten numbers: as plain floats they take a third of the time that they take as an array.
        outcomes = [math.nan] * len(OUTCOMES)
        for place, value in zip(rest.columns.tolist(), (known @ rest.coefficients).tolist(), strict=True):
            bounds = (-_MAX_LOG, _MAX_LOG) if place < _N_LOGARITHMS else (0.0, 1.0)
            outcomes[place] = min(max(value, bounds[0]), bounds[1])
        total = sum(share for share in outcomes[_EFFICIENCY + 1 :] if share == share)  # noqa: PLR0124 - not NaN
        if total > 1.0:
            outcomes[_EFFICIENCY + 1 :] = [share / total for share in outcomes[_EFFICIENCY + 1 :]]
        final = None
        if rest.quantile_coefficients is not None:
            so_far_pct = range_of_log(float(vector[RANGE]))
            unit_pct = math.exp(outcomes[0])
            growth = np.concatenate((known, range_ratio(so_far_pct, unit_pct))) @ rest.quantile_coefficients
            p10, p50, p90 = sorted(
                so_far_pct + unit_pct * max(grown, 0.0) for grown in (growth + rest.quantile_shifts).tolist()
            )
            final = (p10, p50, p90)
            # The whole is no narrower than its rest; the two are forecast one by one.
            outcomes[0] = min(outcomes[0], math.log(max(p50, math.exp(-_MAX_LOG))))
        return RestForecast(outcomes=outcomes, final_range_pct=final)


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
