"""Predictions beside the guesses that need no model: what `offline.judging` compares, put together in one place.

Pure: what was known at a checkpoint, what was said and what came in, `Judged` out. `offline.evaluate` predicts the
sessions of a dataset itself, `offline.backtest` takes what a replay published; here both become the same, with the
guesses that training stored beside the model.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from offline.baselines import Baselines
from offline.judging import Judged
from stream_fp.artifacts import PrefixModelArrays

__all__ = ["Came", "Moments", "Named", "judged_beside_guesses"]

Array = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Moments:
    """What was known of n sessions when they were predicted.

    Attributes
    ----------
    days : ndarray of shape (n,), int64
        Date as an ordinal.
    months, session_types : list of str
        A type is empty where nothing names it.
    regimes : ndarray of shape (n,), int64
        Dominant regime seen so far.
    range_so_far_pct : ndarray of shape (n,)
    """

    days: Ints
    months: list[str]
    session_types: list[str]
    regimes: Ints
    range_so_far_pct: Array


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Named:
    """What was said of them.

    Attributes
    ----------
    probabilities, by_full_centroid : ndarray of shape (n, n_archetypes)
        By the assignment that is judged, and by the nearest centroid of full sessions.
    rests : ndarray of shape (n, 10)
        Forecast of the rest; NaN where the model could not learn an outcome.
    ranges_pct : ndarray of shape (n, 3)
        P10, P50 and P90 of the final range.
    """

    probabilities: Array
    by_full_centroid: Array
    rests: Array
    ranges_pct: Array


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Came:
    """What came of them.

    Attributes
    ----------
    labels : ndarray of shape (n,), int64
        Archetype of the whole session.
    rests : ndarray of shape (n, 10)
        NaN where the events after the prediction do not tell.
    range_pct : ndarray of shape (n,)
        Final range.
    """

    labels: Ints
    rests: Array
    range_pct: Array


def judged_beside_guesses(known: Moments, said: Named, came: Came, arrays: PrefixModelArrays) -> Judged:
    """Put predictions beside the guesses of the checkpoint that `arrays` was learned at."""
    n_archetypes = said.probabilities.shape[1]
    guesses = Baselines(arrays.baselines, known.session_types, known.regimes)
    mean = guesses.rest_mean()
    # Archetypes that no training session had at this checkpoint are not among the columns of the tables.
    places = np.array(arrays.archetype_ids)
    is_label = (came.labels[:, None] == places[None]).astype(np.float64)
    return Judged(
        days=known.days,
        months=known.months,
        session_types=[session_type or "unknown" for session_type in known.session_types],
        labels=came.labels,
        probabilities=said.probabilities,
        by_type=_spread(guesses.archetypes_by_type(), places, n_archetypes),
        by_type_regime=_spread(guesses.archetypes_by_type_regime(), places, n_archetypes),
        by_full_centroid=said.by_full_centroid,
        rests=came.rests,
        rest_forecasts=np.where(np.isnan(said.rests), mean, said.rests),
        rest_by_type=guesses.rest_by_type(),
        rest_by_type_regime=guesses.rest_by_type_regime(),
        rest_by_true_archetype=guesses.rest_by_archetype(is_label),
        rest_mean=mean,
        range_pct=came.range_pct,
        range_forecasts=said.ranges_pct,
        range_by_ratio=guesses.range_by_ratio(known.range_so_far_pct),
        range_by_type=guesses.range_by_type(),
    )


def _spread(probabilities: Array, places: Ints, n_archetypes: int) -> Array:
    wide = np.zeros((len(probabilities), n_archetypes))
    wide[:, places] = probabilities
    return wide
