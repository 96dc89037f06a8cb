"""What is wrong with a disk rather than with a setting."""

from __future__ import annotations

import errno
from typing import Final

__all__ = ["may_pass"]

#: Full, over quota, read-only since an error, away.
_MAY_PASS: Final = frozenset(
    {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.ESTALE, errno.ENOTCONN, errno.EHOSTDOWN, errno.ETIMEDOUT}
)


def may_pass(error: OSError) -> bool:
    """Return whether an error is one of the disk, so that a new start may go better.

    Examples
    --------
    >>> may_pass(OSError(errno.ENOSPC, "No space left on device")), may_pass(OSError(errno.ENOENT, "No such file"))
    (True, False)
    """
    return error.errno in _MAY_PASS
