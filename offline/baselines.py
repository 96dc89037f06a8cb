"""What a prediction has to beat: guesses from the session type, and from session type and regime seen so far.

Pure: learned from the same sessions as the model, stored beside it, applied to sessions that neither has seen. The last
row of a table is that of all sessions, for types that training did not see.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from stream_fp.artifacts import BaselineArrays, Metadata
from stream_fp.errors import ModelLoadError
from stream_fp.prefix_model import OUTCOMES, QUANTILES

__all__ = ["N_REGIMES", "Baselines", "check_tables", "fit_baselines"]

Array = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

N_REGIMES: Final = 3
#: Sessions of the overall mix that are added to each type, so that what did not occur is unlikely but not impossible.
_PRIOR_SESSIONS: Final = 5.0
#: Sessions of the type's own mix that are added to each of its regimes: one seen seldom says little beyond the type.
_PRIOR_SESSIONS_OF_TYPE: Final = 20.0


def fit_baselines(
    session_types: Sequence[str],
    regimes: Ints,
    labels: Ints,
    n_archetypes: int,
    *,
    rests: Array,
    ranges_pct: Array,
) -> BaselineArrays:
    """Learn the tables.

    Parameters
    ----------
    session_types : sequence of str
    regimes : ndarray of shape (n,), int64
        Dominant regime seen so far.
    labels : ndarray of shape (n,), int64
        Places of the archetypes among those that occur.
    n_archetypes : int
    rests : ndarray of shape (n, 10)
    ranges_pct : ndarray of shape (n, 2)
        Range so far and final range.
    """
    names = sorted(set(session_types))
    types = np.array([names.index(session_type) for session_type in session_types])
    counts = np.zeros((len(names), N_REGIMES, n_archetypes), dtype=np.int64)
    np.add.at(counts, (types, regimes, labels), 1)
    by_type = np.array([_means(rests[types == t]) for t in range(len(names))])
    by_type_regime = [
        [_means(rests[(types == t) & (regimes == r)]) for r in range(N_REGIMES)] for t in range(len(names))
    ]
    deviations = rests - by_type[types]
    so_far_pct, final_pct = ranges_pct.T
    moved = so_far_pct > 0
    ratios = final_pct / np.where(moved, so_far_pct, 1.0)
    return BaselineArrays(
        session_types=names,
        archetype_counts=counts.tolist(),
        rest_mean=_nullable(_means(rests)),
        rest_by_type=[_nullable(row) for row in by_type],
        rest_by_type_regime=[[_nullable(row) for row in rows] for rows in by_type_regime],
        rest_by_archetype=[_nullable(_means(deviations[labels == label])) for label in range(n_archetypes)],
        range_ratio_quantiles=_quantiles(ratios[moved], types[moved], len(names)),
        range_quantiles=_quantiles(final_pct, types, len(names)),
    )


def check_tables(metadata: Metadata) -> None:
    """Refuse tables and refits that do not fit the library; the service does not read them, nor check them.

    Raises
    ------
    ModelLoadError
    """
    for model in metadata.prefix_models:
        n_types, n_archetypes = len(model.baselines.session_types), len(model.archetype_ids)
        n_outcomes, n_quantiles = len(OUTCOMES), len(QUANTILES)
        for name, shape in (
            ("archetype_counts", (n_types, N_REGIMES, n_archetypes)),
            ("rest_mean", (n_outcomes,)),
            ("rest_by_type", (n_types, n_outcomes)),
            ("rest_by_type_regime", (n_types, N_REGIMES, n_outcomes)),
            ("rest_by_archetype", (n_archetypes, n_outcomes)),
            ("range_ratio_quantiles", (n_types + 1, n_quantiles)),
            ("range_quantiles", (n_types + 1, n_quantiles)),
        ):
            _check_shape(f"{model.checkpoint_pct:g} %: baselines.{name}", getattr(model.baselines, name), shape)
    stability = metadata.stability
    n_refits = len(stability.centroids)
    if n_refits:
        shape = (n_refits, metadata.n_archetypes, len(stability.features))
        _check_shape("stability.centroids", stability.centroids, shape)
    if any(not 0 <= place < len(metadata.feature_names) for place in stability.features):
        raise ModelLoadError(
            f"metadata.json: stability.features: expected places of features, got {stability.features}"
        )


def _check_shape(name: str, rows: list[Any], shape: tuple[int, ...]) -> None:
    try:
        found = np.array(rows, dtype=np.float64).shape
    except (TypeError, ValueError) as error:
        raise ModelLoadError(f"metadata.json: {name}: {error}") from error
    if found != shape:
        raise ModelLoadError(f"metadata.json: {name}: expected shape {shape}, got {found}")


class Baselines:
    """The tables, applied to sessions.

    Parameters
    ----------
    arrays : BaselineArrays
    session_types : sequence of str
        Of the sessions to guess.
    regimes : ndarray of shape (n,), int64
        Dominant regime seen so far.
    """

    def __init__(self, arrays: BaselineArrays, session_types: Sequence[str], regimes: Ints) -> None:
        places = {name: place for place, name in enumerate(arrays.session_types)}
        self._types = np.array([places.get(name, len(places)) for name in session_types], dtype=np.int64)
        self._regimes = regimes
        self._arrays = arrays
        counts = np.array(arrays.archetype_counts, dtype=np.float64)
        self._counts = np.concatenate((counts, np.zeros((1, *counts.shape[1:]))))

    def archetypes_by_type(self) -> Array:
        """Return probabilities from the session type, shape (n, n_archetypes)."""
        return self._by_type()[self._types]

    def archetypes_by_type_regime(self) -> Array:
        """Return probabilities from session type and regime so far, shape (n, n_archetypes)."""
        added = self._counts + _PRIOR_SESSIONS_OF_TYPE * self._by_type()[:, None, :]
        shares = added / added.sum(axis=-1, keepdims=True)
        return np.asarray(shares[self._types, self._regimes])

    def rest_mean(self) -> Array:
        """Return the mean of each outcome, shape (10,)."""
        return np.array(self._arrays.rest_mean, dtype=np.float64)

    def rest_by_type(self) -> Array:
        """Return the outcomes that are usual for the type, shape (n, 10)."""
        table = np.array([*self._arrays.rest_by_type, self._arrays.rest_mean], dtype=np.float64)
        return _filled(table[self._types], self.rest_mean())

    def rest_by_type_regime(self) -> Array:
        """Return the outcomes that are usual for type and regime so far, shape (n, 10)."""
        overall = [[self._arrays.rest_mean] * N_REGIMES]
        table = np.array([*self._arrays.rest_by_type_regime, *overall], dtype=np.float64)
        return _filled(table[self._types, self._regimes], self.rest_by_type())

    def rest_by_archetype(self, shares: Array) -> Array:
        """Return the outcomes from type and archetype.

        Parameters
        ----------
        shares : ndarray of shape (n, n_archetypes)
            Probability of each archetype; 0 and 1 where it is known.

        Returns
        -------
        ndarray of shape (n, 10)
        """
        deviations = np.nan_to_num(np.array(self._arrays.rest_by_archetype, dtype=np.float64), nan=0.0)
        return self.rest_by_type() + shares @ deviations

    def range_by_type(self) -> Array:
        """Return P10, P50, P90 of the final range that are usual for the type, shape (n, 3)."""
        return np.array(self._arrays.range_quantiles)[self._types]

    def range_by_ratio(self, so_far_pct: Array) -> Array:
        """Return range so far times the ratios that are usual for the type, shape (n, 3)."""
        ratios: Array = np.array(self._arrays.range_ratio_quantiles)[self._types]
        return so_far_pct[:, None] * ratios

    def _by_type(self) -> Array:
        total = self._counts.sum(axis=(0, 1))
        added = self._counts.sum(axis=1) + _PRIOR_SESSIONS * total / total.sum()
        return np.asarray(added / added.sum(axis=-1, keepdims=True))


def _means(rows: Array) -> Array:
    known = ~np.isnan(rows)
    n = known.sum(axis=0)
    sums = np.where(known, rows, 0.0).sum(axis=0)
    return np.where(n > 0, sums / np.maximum(n, 1), np.nan)


def _filled(rows: Array, otherwise: Array) -> Array:
    return np.where(np.isnan(rows), otherwise, rows)


def _nullable(row: Array) -> list[float | None]:
    return [None if np.isnan(value) else float(value) for value in row]


def _quantiles(values: Array, types: Ints, n_types: int) -> list[list[float]]:
    groups = [values[types == t] for t in range(n_types)]
    return [np.quantile(group if len(group) else values, QUANTILES).tolist() if len(values) else [0.0] * 3
            for group in [*groups, values]]  # fmt: skip
