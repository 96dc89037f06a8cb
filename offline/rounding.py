"""How figures are rounded that people read in JSON."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

__all__ = ["rounded"]

_DECIMALS: Final = 4


def rounded(value: float | np.floating[npt.NBitBase]) -> float:
    """Return `value` with 4 decimals."""
    return round(float(value), _DECIMALS) + 0.0  # no negative zero
