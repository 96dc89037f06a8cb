"""`stream-fp` with a fault of its own, to prove that the harness finds it: progress is committed before the output.

``python -m tests.chaos.early_commit run ...`` takes the arguments of ``stream-fp run``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

from stream_fp.cli import main
from stream_fp.kafka.progress import Progress
from stream_fp.kafka.publisher import Publisher
from stream_fp.outcomes import Outcome

#: Between the two: long enough that a fault at a random moment mostly falls between them.
_GAP_S: Final = 0.6

_publish_both = Publisher.publish


async def _publish_too_late(self: Publisher, outcomes: Sequence[Outcome], low_offset: int, progress: Progress) -> None:
    await _publish_both(self, [], low_offset, progress)
    if outcomes:
        await asyncio.sleep(_GAP_S)
        await _publish_both(self, outcomes, low_offset, progress)


if __name__ == "__main__":
    Publisher.publish = _publish_too_late  # type: ignore[method-assign]
    main()
