"""Rounding of what is published: to decimals that are far finer than what a figure can be told to, and short to read.

Pure, and compiled where a C compiler was there at installation.
"""

from __future__ import annotations

import math

__all__ = ["rounded"]


def rounded(value: float, fineness: float) -> float:
    """Round a finite number to the nearest multiple of one over `fineness`, a power of ten; up where two are as near.

    By way of whole numbers: `round` goes by way of text, and took a tenth of a whole prediction.

    Examples
    --------
    >>> rounded(0.123456, 1e4), rounded(-2.5, 1.0)
    (0.1235, -2.0)
    """
    return math.floor(value * fineness + 0.5) / fineness
