"""When a file is made: by the clock, or as ``SOURCE_DATE_EPOCH`` has it, so that a build can be repeated."""

from __future__ import annotations

import os
from datetime import UTC, datetime

from stream_fp.errors import ConfigError

__all__ = ["creation_time"]


def creation_time() -> str:
    """Return the time of creation in ISO 8601, UTC.

    Raises
    ------
    ConfigError
        When ``SOURCE_DATE_EPOCH`` is set to what is no time.
    """
    epoch = os.environ.get("SOURCE_DATE_EPOCH", "")
    if not epoch:
        moment = datetime.now(UTC)
    else:
        try:
            moment = datetime.fromtimestamp(int(epoch), UTC)
        except (ValueError, OverflowError, OSError) as error:
            raise ConfigError("SOURCE_DATE_EPOCH", f"expected seconds since 1970, got {epoch[:32]!r}") from error
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
