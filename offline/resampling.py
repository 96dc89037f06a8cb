"""Bootstrap intervals of scores, by resampling days: sessions of one day are not independent of each other."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

__all__ = ["DayBootstrap"]

Array = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

_N_SAMPLES: Final = 1000
_TAILS: Final = (0.025, 0.975)


class DayBootstrap:
    """Samples of days, the same for every score, so that scores of the same sessions are compared in pairs.

    Parameters
    ----------
    days : ndarray of shape (n_sessions,)
        Day of each session, at least one.
    seed : int
    """

    def __init__(self, days: Ints, seed: int = 0) -> None:
        _, self._place = np.unique(days, return_inverse=True)
        n_days = int(self._place.max()) + 1
        rng = np.random.default_rng(seed)
        self._weights = rng.multinomial(n_days, np.full(n_days, 1.0 / n_days), _N_SAMPLES).astype(np.float64)

    def sums(self, values: Array) -> Array:
        """Return the sum of `values`, shape (n_sessions,) or (n_sessions, m), in each sample; NaN counts as nothing.

        Returns
        -------
        ndarray of shape (1000,) or (1000, m)
        """
        known = np.nan_to_num(values, nan=0.0)
        by_day = np.zeros((self._weights.shape[1], *values.shape[1:]))
        np.add.at(by_day, self._place, known)
        return np.asarray(self._weights @ by_day)

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
