"""Bootstrap intervals of scores, by resampling weeks: sessions of near days are not independent of each other."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

__all__ = ["WeekBootstrap"]

Array = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

#: Enough for two digits of an interval.
_N_SAMPLES: Final = 1000
_DAYS_A_WEEK: Final = 7
_TAILS: Final = (0.025, 0.975)


class WeekBootstrap:
    """Samples of calendar weeks, the same for every score, so that scores of the same sessions are compared in pairs.

    Parameters
    ----------
    days : ndarray of shape (n_sessions,)
        Day of each session as an ordinal (1 is a Monday), at least one.
    seed : int
    """

    def __init__(self, days: Ints, seed: int = 0) -> None:
        _, self._place = np.unique((days - 1) // _DAYS_A_WEEK, return_inverse=True)
        n_weeks = int(self._place.max()) + 1
        rng = np.random.default_rng(seed)
        self._weights = rng.multinomial(n_weeks, np.full(n_weeks, 1.0 / n_weeks), _N_SAMPLES).astype(np.float64)

    @property
    def n_sessions(self) -> int:
        """Sessions whose weeks are resampled."""
        return len(self._place)

    @property
    def n_weeks(self) -> int:
        """Weeks that have a session."""
        return int(self._weights.shape[1])

    def sums(self, values: Array) -> Array:
        """Return the sum of `values`, shape (n_sessions,) or (n_sessions, m), in each sample; NaN counts as nothing.

        Returns
        -------
        ndarray of shape (1000,) or (1000, m)
        """
        known = np.nan_to_num(values, nan=0.0)
        by_week = np.zeros((self._weights.shape[1], *values.shape[1:]))
        np.add.at(by_week, self._place, known)
        return np.asarray(self._weights @ by_week)

    def ratio(self, numerator: Array, denominator: Array) -> tuple[float, float]:
        """Return the 95 % interval of the sum of one over the sum of the other, each of shape (n_sessions,)."""
        return self.interval(_over(self.sums(numerator), self.sums(denominator)))

    def mean(self, values: Array) -> tuple[float, float]:
        """Return the 95 % interval of the mean of `values`, shape (n_sessions,)."""
        return self.ratio(values, np.ones(len(values)))

    def interval(self, samples: Array) -> tuple[float, float]:
        """Return the 95 % interval of samples of a score, shape (1000,)."""
        low, high = np.quantile(samples, _TAILS)
        return float(low), float(high)


def _over(numerator: Array, denominator: Array) -> Array:
    # A sample may hold no session that counts.
    return np.divide(numerator, denominator, out=np.zeros_like(numerator), where=denominator != 0)
