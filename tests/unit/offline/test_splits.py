"""Splits over time: for any days, nothing that is judged is next to what was learned from."""

from __future__ import annotations

from datetime import date, timedelta

import numpy as np
import numpy.typing as npt
from hypothesis import given
from hypothesis import strategies as st

from offline.splits import EMBARGO_DAYS, blocks, forward_splits, ordinals

Ints = npt.NDArray[np.int64]

#: Several sessions a day, weekends and holes.
any_days = st.lists(st.integers(0, 40), min_size=1, max_size=60).map(lambda days: np.array(sorted(days)))


@given(days=any_days, n_blocks=st.integers(1, 8))
def test_blocks_cover_every_row_once_and_in_order(days: Ints, n_blocks: int) -> None:
    found = [block.tolist() for block, _ in blocks(days, n_blocks)]
    assert [row for block in found for row in block] == list(range(len(days)))
    assert len(found) == min(n_blocks, len(days))
    sizes = [len(block) for block in found]
    assert max(sizes) - min(sizes) <= 1


@given(days=any_days, n_blocks=st.integers(1, 8))
def test_blocks_are_judged_by_all_rows_outside_the_embargo_and_by_no_other(days: Ints, n_blocks: int) -> None:
    for block, others in blocks(days, n_blocks):
        outside = [
            row for row, day in enumerate(days) if all(abs(day - days[judged]) > EMBARGO_DAYS for judged in block)
        ]
        # Between the days of a block lie only days of it.
        outside = [row for row in outside if not block[0] < row < block[-1]]
        expected = outside or [row for row in range(len(days)) if row not in block]
        assert others.tolist() == expected


@given(days=any_days, n_splits=st.integers(1, 6))
def test_forward_splits_never_learn_from_the_future(days: Ints, n_splits: int) -> None:
    judged: list[int] = []
    for past, future in forward_splits(days, n_splits):
        # All that is a whole day and more before the first session judged.
        assert past.tolist() == [row for row, day in enumerate(days) if day < days[future].min() - EMBARGO_DAYS]
        assert not len(past) or days[past].max() + EMBARGO_DAYS < days[future].min()
        judged += future.tolist()
    assert judged == list(range(len(days) // 2, len(days)))


@given(st.lists(st.dates(date(1999, 1, 1), date(2031, 1, 1)), max_size=10))
def test_ordinals_differ_by_the_days_between(dates: list[date]) -> None:
    found = ordinals([day.isoformat() for day in dates])
    assert [date(1, 1, 1) + timedelta(days=int(day) - 1) for day in found] == dates
