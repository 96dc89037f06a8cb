"""How clients are made from settings."""

from __future__ import annotations

import pytest

from stream_fp.config import Settings
from stream_fp.kafka.clients import new_consumer


@pytest.mark.parametrize("stall_exit_s", [Settings().stall_exit_s, 60.0, 900_000.0])
async def test_consumer_leaves_its_group_later_than_the_service_ends(stall_exit_s: float) -> None:
    consumer = new_consumer(Settings(stall_exit_s=stall_exit_s))
    try:
        assert stall_exit_s * 1000 < consumer._max_poll_interval_ms < 2**31
    finally:
        await consumer.stop()
