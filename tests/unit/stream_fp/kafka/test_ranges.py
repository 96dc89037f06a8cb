"""Bounds as they are written, and which one holds for a partition."""

from __future__ import annotations

import pytest
from aiokafka import TopicPartition
from hypothesis import given
from hypothesis import strategies as st

from stream_fp.errors import ConfigError
from stream_fp.kafka.ranges import Bound, bound_of, check_bounds, parse_bound

TOPICS = st.from_regex(r"[a-zA-Z0-9._\-]{1,20}", fullmatch=True)


@given(TOPICS, st.integers(0, 999), st.integers(0, 10**15))
def test_offsets_are_read_as_they_are_written_everywhere(topic: str, partition: int, offset: int) -> None:
    assert parse_bound(f"@{offset}") == Bound(offset=offset)
    assert parse_bound(f"{topic}@{offset}") == Bound(offset=offset, topic=topic)
    written = Bound(offset=offset, topic=topic, partition=partition)
    assert parse_bound(f"{topic}[{partition}]@{offset}") == written


@given(st.text(max_size=40))
def test_any_text_is_a_bound_or_one_clear_error(text: str) -> None:
    try:
        bound = parse_bound(text)
    except ValueError as error:
        assert "expected a time or an offset" in str(error)  # noqa: PT017 - either is right
    else:
        assert (bound.time_us is None) != (bound.offset is None)


@pytest.mark.parametrize("text", ["", "@", "@-1", "events[x]@3", "[2]@3", "@3@4", "tomorrow", "12:00", "@" + "9" * 40])
def test_what_is_neither_time_nor_offset_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected a time or an offset"):
        parse_bound(text)


def test_the_most_particular_bound_holds_and_of_equals_the_last() -> None:
    bounds = [Bound(offset=1), Bound(offset=2, topic="t", partition=0), Bound(offset=3, topic="t"), Bound(offset=4)]
    found = {place: bound_of(bounds, TopicPartition(*place)) for place in (("t", 0), ("t", 1), ("u", 0))}
    assert {place: bound and bound.offset for place, bound in found.items()} == {("t", 0): 2, ("t", 1): 3, ("u", 0): 4}
    assert bound_of([], TopicPartition("t", 0)) is None


@pytest.mark.parametrize(("topic", "partition"), [("u", None), ("t", 3)])
def test_bounds_of_what_is_not_replayed_are_refused(topic: str, partition: int | None) -> None:
    with pytest.raises(ConfigError, match="setting `from`: names"):
        check_bounds([Bound(offset=1, topic=topic, partition=partition)], {"t": 3}, "from")
