"""A library whose every number is at the bounds of what the loader accepts."""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from tests.support.builders import tiny_metadata

__all__ = ["HUGE", "hostile_metadata"]

#: What a library may hold at most and, where a number has to be above 0, one over it the least.
HUGE: Final = 1e30


def hostile_metadata(seed: int) -> dict[str, Any]:
    """Return ``metadata.json`` of the tiny library with seeded choices among the extremes."""
    rng = np.random.default_rng(seed)
    metadata = tiny_metadata()

    def positive(n: int) -> Any:  # noqa: ANN401 - as above
        return rng.choice([1 / HUGE, 1.0, HUGE], size=n).tolist()

    metadata["scaler"] |= {"center": _extreme((30,), rng), "scale": positive(30)}
    metadata["feature_weights"] = positive(30)
    metadata["centroids"] = _extreme((3, 30), rng)
    for model in metadata["prefix_models"]:
        model["scaler"] |= {"center": _extreme((30,), rng), "scale": positive(30)}
        model["centroids"] = _extreme((3, 30), rng)
        model["inputs"] |= {"center": _extreme((30,), rng), "scale": positive(30), "clip": 0.99 * HUGE}
        model["temperatures"] = dict(zip(("euclidean", "cosine", "mahalanobis"), positive(3), strict=True))
        membership, rest = model["membership"], model["rest"]
        membership["fingerprint"] = _extreme(np.shape(membership["fingerprint"]), rng)
        membership["logits"] = _extreme(np.shape(membership["logits"]), rng)
        rest["coefficients"] = _extreme(np.shape(rest["coefficients"]), rng)
        rest["quantile_coefficients"] = _extreme(np.shape(rest["quantile_coefficients"]), rng)
        rest["quantile_shifts"] = _extreme((3,), rng)
    return metadata


def _extreme(shape: tuple[int, ...], rng: np.random.Generator) -> Any:  # noqa: ANN401 - lists as deep as the shape
    """Return numbers at the bounds of what a library may hold, and zeros."""
    return rng.choice([-HUGE, 0.0, 1 / HUGE, HUGE], size=shape).tolist()
