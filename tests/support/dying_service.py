"""`stream-fp` that dies (status 9) after what is owed has been published and before the commit that would say so."""

from __future__ import annotations

import os
from collections.abc import Sequence

from stream_fp.cli import main
from stream_fp.kafka.progress import Progress
from stream_fp.kafka.publisher import Publisher
from stream_fp.outcomes import Outcome, Published

_publish = Publisher.publish


async def _publish_and_die(self: Publisher, outcomes: Sequence[Outcome], low_offset: int, progress: Progress) -> None:
    await _publish(self, outcomes, low_offset, progress)
    if any(isinstance(outcome, Published) and outcome.is_owed for outcome in outcomes):
        os._exit(9)


if __name__ == "__main__":
    Publisher.publish = _publish_and_die  # type: ignore[method-assign]
    main()
