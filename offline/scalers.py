"""Scalers of feature vectors: scikit-learn's, with one repair, and as arrays."""

from __future__ import annotations

from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt
from sklearn.preprocessing import RobustScaler, StandardScaler

from stream_fp.artifacts import ScalerArrays

__all__ = ["Scaler", "ScalerKind", "fit_scaler", "scaler_arrays"]

Array = npt.NDArray[np.float64]
ScalerKind = Literal["standard", "robust"]
Scaler: TypeAlias = StandardScaler | RobustScaler


def fit_scaler(kind: ScalerKind, vectors: Array) -> tuple[Scaler, list[int]]:
    """Fit a scikit-learn scaler; return it and the features whose interquartile range is zero though they vary.

    Constant features get the scale 1, as scikit-learn does. A feature that varies in less than half of the sessions
    would be left unscaled by `RobustScaler`, and outweigh all others: it gets its standard deviation instead.

    Parameters
    ----------
    kind : {"standard", "robust"}
    vectors : ndarray of shape (n_vectors, 30)

    Returns
    -------
    scaler : StandardScaler or RobustScaler
    replaced : list of int
        Columns scaled by their standard deviation in a robust scaler.
    """
    standard = StandardScaler().fit(vectors)
    if kind == "standard":
        return standard, []
    robust = RobustScaler().fit(vectors)
    upper, lower = np.percentile(vectors, (75, 25), axis=0)
    replaced = np.flatnonzero((upper - lower <= 0) & (standard.scale_ != 1.0))
    robust.scale_[replaced] = standard.scale_[replaced]
    return robust, replaced.tolist()


def scaler_arrays(kind: ScalerKind, scaler: Scaler) -> ScalerArrays:
    """Return center and scale of a fitted scaler."""
    center = scaler.mean_ if kind == "standard" else scaler.center_
    return ScalerArrays(kind=kind, center=center.tolist(), scale=scaler.scale_.tolist())
