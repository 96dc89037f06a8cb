"""The measures by which sets of settings are compared: of each set, on the sessions that every set predicted.

Pure: `Judged` in, values out, each with its course over the same bootstrap samples, so that their differences are those
of pairs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from offline.backtest.comparison_results import MeasureName
from offline.judging import Judged, is_covered, pinball_by_quantile
from offline.resampling import WeekBootstrap
from offline.scores import brier_scores, log_losses

__all__ = ["Paired", "Score", "paired_scores", "share_score"]

Array = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

_MEANT_COVERAGE: Final = 0.8


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Score:
    """A measure of one set of settings.

    Attributes
    ----------
    value : float
    compared : float
        What is compared of it: of the coverage its distance from 0.8, else the value.
    samples : ndarray of shape (1000,)
        What is compared of it, in each bootstrap sample.
    """

    value: float
    compared: float
    samples: Array


class Paired:
    """Values of some sessions among all, in samples of all their weeks.

    Parameters
    ----------
    places : ndarray of shape (n,), int64
        Of these sessions among all, at least one.
    samples : WeekBootstrap
        Of all.
    """

    def __init__(self, places: Ints, samples: WeekBootstrap) -> None:
        self._places, self._samples = places, samples
        self._counts = self.sums(np.ones(len(places)))

    def sums(self, values: Array) -> Array:
        """Return the sum of values of shape (n,) or (n, m) in each sample, shape (1000,) or (1000, m)."""
        wide = np.zeros((self._samples.n_sessions, *values.shape[1:]))
        wide[self._places] = values
        return self._samples.sums(wide)

    def means(self, values: Array) -> Array:
        """Return the mean of values of shape (n,) in each sample; that of all where a sample holds none of them."""
        sums = self.sums(values)
        found: Array = np.full(len(sums), values.mean())
        np.divide(sums, self._counts, out=found, where=self._counts > 0)
        return found


def paired_scores(
    judged: Judged, seen: Array, told: npt.NDArray[np.bool_], rest_mean: Array, among: Paired
) -> Iterator[tuple[MeasureName, Score]]:
    """Yield the measures of one set at one checkpoint that can be computed.

    Parameters
    ----------
    judged : Judged
        The n sessions that every set predicted.
    seen : ndarray of shape (n,)
        Share of the session seen, per cent.
    told : ndarray of shape (n, 10), bool
        Outcomes of the rest that are known to every set.
    rest_mean : ndarray of shape (10,)
        What R2 is measured against, for every set the same.
    among : Paired
    """

    def mean_of(values: Array) -> Score:
        value = float(values.mean())
        return Score(value=value, compared=value, samples=among.means(values))

    yield "pct_seen", mean_of(seen)
    yield "pinball", mean_of(pinball_by_quantile(judged.range_pct, judged.range_forecasts).mean(axis=1))
    covered = is_covered(judged.range_pct, judged.range_forecasts)
    coverage = float(covered.mean())
    yield (
        "coverage_80",
        Score(
            value=coverage,
            compared=abs(coverage - _MEANT_COVERAGE),
            samples=np.abs(among.means(covered) - _MEANT_COVERAGE),
        ),
    )
    errors = np.where(told, np.square(judged.rests - judged.rest_forecasts), 0.0)
    around = np.where(told, np.square(judged.rests - rest_mean), 0.0)
    varies = among.sums(around).min(axis=0) > 0
    if varies.any():
        value = float((1.0 - errors.sum(axis=0)[varies] / around.sum(axis=0)[varies]).mean())
        in_samples = (1.0 - among.sums(errors)[:, varies] / among.sums(around)[:, varies]).mean(axis=1)
        yield "rest_r2", Score(value=value, compared=value, samples=in_samples)
    yield "accuracy", mean_of((judged.probabilities.argmax(axis=1) == judged.labels).astype(np.float64))
    yield "log_loss", mean_of(log_losses(judged.probabilities, judged.labels))
    yield "brier", mean_of(brier_scores(judged.probabilities, judged.labels))


def share_score(values: Array, samples: WeekBootstrap) -> Score:
    """Return the share of all sessions that have 1 in `values`, shape (n_sessions,); the others have 0."""
    value = float(values.mean())
    return Score(value=value, compared=value, samples=samples.sums(values) / samples.sums(np.ones(len(values))))
