"""Which partitions have records waiting and make no progress: what liveness reports.

Pure: positions, ends and times in, reasons out. A client that has lost its way after a broker's restart gives no other
sign (aiokafka #1154), so progress is the sign to watch, not whether a broker answers.
"""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["StallDetector"]


class StallDetector:
    """Remembers since when each partition has stood still.

    Parameters
    ----------
    timeout_s : float
        Standing still for so long, with records waiting, is a stall.
    """

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._still_since_s: dict[str, tuple[int, float]] = {}
        self.longest_s = 0.0
        """How long the partition that has stood still longest has done so, at the last look."""

    def still_since_s(self, name: str) -> float | None:
        """Return since when a partition has stood still with records waiting, as of the last look, if it has."""
        position_and_since = self._still_since_s.get(name)
        return None if position_and_since is None else position_and_since[1]

    def observe(self, positions: Mapping[str, tuple[int, int]], now_s: float) -> dict[str, str]:
        """Take note of where the partitions are; return the reason for each that is stalled.

        Parameters
        ----------
        positions : mapping of str to (int, int)
            Position and end offset of each partition owned now; others are forgotten.
        now_s : float
            On any clock that does not jump.

        Examples
        --------
        >>> detector = StallDetector(60.0)
        >>> detector.observe({"t[0]": (5, 9)}, now_s=0.0)
        {}
        >>> detector.observe({"t[0]": (5, 9)}, now_s=61.0)
        {'t[0]': 'no progress for 61 s with 4 records waiting at offset 5'}
        """
        stalled = {}
        self.longest_s = 0.0
        still: dict[str, tuple[int, float]] = {}
        for name, (position, end) in positions.items():
            if position >= end:
                continue
            before, since_s = self._still_since_s.get(name, (-1, now_s))
            still[name] = (position, since_s if before == position else now_s)
            lasted_s = now_s - still[name][1]
            self.longest_s = max(self.longest_s, lasted_s)
            if lasted_s >= self._timeout_s:
                stalled[name] = (
                    f"no progress for {lasted_s:.0f} s with {end - position} records waiting at offset {position}"
                )
        self._still_since_s = still
        return stalled
