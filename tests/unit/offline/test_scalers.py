from __future__ import annotations

import numpy as np
import pytest

from offline.scalers import ScalerKind, fit_scaler, scaler_arrays
from tests.support.datasets import blobs


@pytest.mark.parametrize("kind", ["standard", "robust"])
def test_constant_feature_gets_scale_one(kind: ScalerKind) -> None:
    vectors = blobs(30, 3)[0]
    vectors[:, 4] = 7.25
    scaler, replaced = fit_scaler(kind, vectors)
    assert scaler.scale_[4] == 1.0
    assert replaced == []
    assert (scaler.transform(vectors)[:, 4] == 0).all()


def test_feature_that_is_mostly_constant_gets_its_standard_deviation_in_a_robust_scaler() -> None:
    vectors = blobs(40, 2)[0]
    vectors[:, 4] = 0.0
    vectors[:6, 4] = 50.0
    scaler, replaced = fit_scaler("robust", vectors)
    assert replaced == [4]
    assert scaler.scale_[4] == pytest.approx(vectors[:, 4].std())


@pytest.mark.parametrize("kind", ["standard", "robust"])
def test_arrays_scale_as_the_scaler_does(kind: ScalerKind) -> None:
    vectors = blobs(40, 3)[0]
    scaler, _ = fit_scaler(kind, vectors)
    arrays = scaler_arrays(kind, scaler)
    assert arrays.kind == kind
    scaled = (vectors - arrays.center) / arrays.scale
    assert np.array_equal(scaled, scaler.transform(vectors))
    if kind == "robust":
        low, high = np.percentile(vectors, (25, 75), axis=0)
        np.testing.assert_allclose(arrays.scale, high - low)
        np.testing.assert_allclose(arrays.center, np.median(vectors, axis=0))
