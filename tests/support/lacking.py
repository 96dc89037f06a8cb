"""What becomes of a test that lacks something: it is skipped, loudly, or fails where that is required."""

from __future__ import annotations

import os
from typing import NoReturn

import pytest

__all__ = ["lacking"]


def lacking(what: str, *, required_by: str) -> NoReturn:
    """Skip the test, or fail it where the variable `required_by` is 1, as in CI."""
    if os.environ.get(required_by) == "1":
        pytest.fail(what, pytrace=False)
    pytest.skip(what)
