"""Splits over time: never at random, with days between that belong to neither side.

Sessions of one day share its news and its volatility, so a session of the same day in training would tell of the one
that is judged. The embargo leaves such days out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import date
from typing import Final

import numpy as np
import numpy.typing as npt

__all__ = ["EMBARGO_DAYS", "N_BLOCKS", "blocks", "forward_splits", "ordinals"]

Ints = npt.NDArray[np.int64]

#: Whole days between what is learned from and what is judged.
EMBARGO_DAYS: Final = 1
#: Contiguous blocks of time; each is judged by a model of the others. More change little and take longer.
N_BLOCKS: Final = 5


def ordinals(dates: Sequence[str]) -> Ints:
    """Return dates (ISO 8601) as days since 0001-01-01; shape (n,)."""
    return np.array([date.fromisoformat(day).toordinal() for day in dates], dtype=np.int64)


def blocks(days: Ints, n_blocks: int = N_BLOCKS) -> Iterator[tuple[Ints, Ints]]:
    """Yield the rows of each contiguous block of time, and those of the others that keep the embargo.

    Parameters
    ----------
    days : ndarray of shape (n,)
        Ascending, as `ordinals` gives them.
    n_blocks : int

    Yields
    ------
    block, others : ndarray
        Where the embargo would leave no other row (all sessions within days), it is not kept.

    Examples
    --------
    >>> [(block.tolist(), others.tolist()) for block, others in blocks(np.array([1, 2, 3, 4, 5, 6]), 2)]
    [([0, 1, 2], [4, 5]), ([3, 4, 5], [0, 1])]
    """
    n = len(days)
    rows = np.arange(n)
    for block in np.array_split(rows, min(n_blocks, n)):
        first, last = days[block[0]] - EMBARGO_DAYS, days[block[-1]] + EMBARGO_DAYS
        others = rows[(days < first) | (days > last)]
        yield block, others if len(others) else np.setdiff1d(rows, block)


def forward_splits(days: Ints, n_splits: int) -> Iterator[tuple[Ints, Ints]]:
    """Yield rows to learn from, and the later rows to judge, in steps over the second half of the time.

    Parameters
    ----------
    days : ndarray of shape (n,)
        Ascending, as `ordinals` gives them.
    n_splits : int

    Examples
    --------
    >>> [(past.tolist(), future.tolist()) for past, future in forward_splits(np.arange(8), 2)]
    [([0, 1, 2], [4, 5]), ([0, 1, 2, 3, 4], [6, 7])]
    """
    rows = np.arange(len(days))
    for future in np.array_split(rows[len(rows) // 2 :], n_splits):
        if len(future):
            past = rows[days < days[future[0]] - EMBARGO_DAYS]
            yield past, future
