"""Prefixes of sessions as the inputs of the linear models, all at once; `PrefixModel.inputs` makes them one by one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from stream_fp.artifacts import InputArrays

__all__ = ["INPUT_CLIP", "fit_inputs", "make_inputs", "quadratics"]

Array = npt.NDArray[np.float64]

#: In standard deviations: beyond it a linear model would follow single sessions.
INPUT_CLIP: Final = 4.0
#: Relative spread below which a feature is constant but for rounding.
_NO_SPREAD: Final = 1e-9


def fit_inputs(vectors: Array, session_types: Sequence[str]) -> InputArrays:
    """Return how to standardise `vectors`, shape (n, 30), and the session types; constant features get the scale 1."""
    spread = vectors.std(axis=0)
    return InputArrays(
        center=vectors.mean(axis=0).tolist(),
        scale=np.where(spread > _NO_SPREAD * (1.0 + np.abs(vectors).max(axis=0)), spread, 1.0).tolist(),
        clip=INPUT_CLIP,
        session_types=sorted({session_type for session_type in session_types if session_type}),
    )


def make_inputs(arrays: InputArrays, vectors: Array, session_types: Sequence[str]) -> Array:
    """Return the inputs of each prefix, shape (n, 1 + 30 + n_session_types)."""
    standardised = (vectors - np.array(arrays.center)) / np.array(arrays.scale)
    places = {session_type: place for place, session_type in enumerate(arrays.session_types)}
    is_type = np.zeros((len(vectors), len(places)))
    for row, session_type in enumerate(session_types):
        if session_type in places:
            is_type[row, places[session_type]] = 1.0
    return np.hstack((np.ones((len(vectors), 1)), np.clip(standardised, -arrays.clip, arrays.clip), is_type))


def quadratics(expected: Array, is_type: Array) -> Array:
    """Return `stream_fp.prefix_model.quadratic` of each row.

    Parameters
    ----------
    expected : ndarray of shape (n, m)
    is_type : ndarray of shape (n, n_session_types)
    """
    i, j = np.triu_indices(expected.shape[1])
    return np.hstack((np.ones((len(expected), 1)), expected, expected[:, i] * expected[:, j], is_type))
