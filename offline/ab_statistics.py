"""Which differences are more than chance, however many there are: between cells of the A/B grid, and of backtests.

Pure. Two things can differ. The log loss, which probabilities are for: its band is widened so that all pairs of cells
hold at once (largest studentised difference over all pairs, in the same samples of days), hence also the pair of any
cell and a reference that was picked from these very sessions. And the archetype named: McNemar's exact test on the
sessions that only one of two cells got right, Holm-corrected over the cells. It takes sessions as independent, which
those of one day are not quite, so it decides only where the log loss does not.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy.stats import binomtest, norm, t

from offline.ab_results import DecidedBy, Verdict
from offline.report import Interval

__all__ = ["holm", "joint_bands", "mcnemar", "simultaneous_bands", "verdict_of"]

Array = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

#: Chance, over all cells of a checkpoint together, that one is called different although it is not.
_LEVEL: Final = 0.05
#: Spread of a difference, in nats, below which two cells said the same but for rounding.
_NO_SPREAD: Final = 1e-12
#: A spread between clusters needs two of them.
_MIN_CLUSTERS: Final = 2


def mcnemar(n_only_first: int, n_only_second: int) -> float:
    """Return McNemar's exact two-sided p-value, from how often only the one and only the other was right.

    Examples
    --------
    >>> mcnemar(0, 5), mcnemar(0, 0)
    (0.0625, 1.0)
    """
    n = n_only_first + n_only_second
    return float(binomtest(n_only_first, n).pvalue) if n else 1.0


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values corrected for their number (Holm 1979), in the order given.

    Examples
    --------
    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    corrected = [0.0] * len(p_values)
    highest = 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[place]))
        corrected[place] = highest
    return corrected


def simultaneous_bands(samples: Array, means: Array, reference: int) -> tuple[Array, Array]:
    """Return bands of each column's mean minus that of the reference, which hold for all pairs of columns at once.

    Parameters
    ----------
    samples : ndarray of shape (n_samples, n_cells)
        Means in bootstrap samples.
    means : ndarray of shape (n_cells,)
    reference : int

    Returns
    -------
    low, high : ndarray of shape (n_cells,)
    """
    centered = samples - means
    largest = np.zeros(len(samples))
    for column in range(len(means) - 1):
        largest = np.maximum(largest, _largest(centered[:, column, None] - centered[:, column + 1 :]))
    reach = np.quantile(largest, 1.0 - _LEVEL) * (centered - centered[:, [reference]]).std(axis=0)
    differences = means - means[reference]
    return differences - reach, differences + reach


def joint_bands(samples: Array, differences: Array, n_clusters: Ints) -> tuple[Array, Array]:
    """Return bands of differences which hold for all of them at once, whatever each is a difference of.

    The spread of bootstrap samples of n clusters is too small by the root of (n - 1) / n, and is itself known only so
    well: hence Student's t with n - 1 degrees of freedom in place of the normal distribution.

    Parameters
    ----------
    samples : ndarray of shape (n_samples, n_differences)
        In the same bootstrap samples.
    differences : ndarray of shape (n_differences,)
    n_clusters : ndarray of shape (n_differences,), int64
        How many were resampled; a single one counts as two, whose bands are wide.

    Returns
    -------
    low, high : ndarray of shape (n_differences,)
    """
    centered = samples - differences
    n = np.maximum(n_clusters, _MIN_CLUSTERS)
    quantile = t.isf(norm.sf(np.quantile(_largest(centered), 1.0 - _LEVEL)), n - 1) * np.sqrt(n / (n - 1))
    reach = quantile * centered.std(axis=0)
    return differences - reach, differences + reach


def _largest(errors: Array) -> Array:
    """Return the largest studentised error in each sample, shape (n_samples,); those without a spread do not count."""
    spread = errors.std(axis=0)
    differ = spread > _NO_SPREAD
    if not differ.any():
        return np.zeros(len(errors))
    return np.asarray((np.abs(errors[:, differ]) / spread[differ]).max(axis=1))


def verdict_of(band: Interval, accuracy_difference: float, p_holm: float) -> tuple[Verdict, DecidedBy]:
    """Return the verdict on a cell beside the reference, and what decided.

    Examples
    --------
    >>> verdict_of(Interval(low=-0.01, high=0.02), -0.03, 0.2)
    ('no difference', None)
    >>> verdict_of(Interval(low=0.01, high=0.02), 0.03, 0.001)
    ('worse', 'log loss')
    """
    if band.low > 0 or band.high < 0:
        return ("worse" if band.low > 0 else "better"), "log loss"
    if p_holm < _LEVEL:
        return ("worse" if accuracy_difference < 0 else "better"), "accuracy"
    return "no difference", None
