"""Which part of a topic is meant: bounds as people write them, and the offsets of each partition that they come to.

Pure: texts and numbers in, ranges out; `stream_fp.kafka.history` asks the brokers. A range holds what is at or after
its first bound and before its last one, in times as in offsets.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC
from typing import Final

from aiokafka import TopicPartition

from stream_fp.errors import ConfigError
from stream_fp.times import parse_timestamp_us

__all__ = ["Bound", "Range", "bound_of", "check_bounds", "parse_bound"]

#: ``@1200``, ``events@1200`` and ``events[2]@1200``: as places are written everywhere in messages.
_OFFSET: Final = re.compile(r"(?:(?P<topic>[\w.\-]+)(?:\[(?P<partition>\d{1,9})\])?)?@(?P<offset>\d{1,18})")
_EXAMPLES: Final = "2025-07-29T14:30:00+00:00, @1200 or session-events[2]@1200"


@dataclass(frozen=True, slots=True, kw_only=True)
class Bound:
    """A moment, or an offset: of all partitions, of those of a topic, or of one partition."""

    time_us: int | None = None
    """Microseconds since 1970; compared with the time stamps of Kafka records."""
    offset: int | None = None
    topic: str | None = None
    partition: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Range:
    """What is replayed of one partition."""

    partition: TopicPartition
    read_from: int
    """Offset to read from: sessions that are open at `first` may have begun there."""
    first: int
    """First offset whose outcomes count."""
    end: int
    """Offset just behind the last one."""
    lacks_older: bool = False
    """There are, or were, records before `read_from` that may have begun sessions: not looked back at, or gone."""
    mark: str = ""
    """Of the record at `read_from`: another one there is another topic of the same name."""

    @property
    def name(self) -> str:
        """Topic and partition, as in ``events[2]``."""
        return f"{self.partition.topic}[{self.partition.partition}]"


def parse_bound(text: str) -> Bound:
    """Read a bound.

    Parameters
    ----------
    text : str
        A time (ISO 8601, in UTC where it names no offset, or an epoch number) or an offset: ``@1200``,
        ``topic@1200``, ``topic[2]@1200``.

    Raises
    ------
    ValueError
        When it is neither.

    Examples
    --------
    >>> parse_bound("events[2]@1200")
    Bound(time_us=None, offset=1200, topic='events', partition=2)
    >>> parse_bound("2001-09-09T01:46:40Z").time_us
    1000000000000000
    """
    if match := _OFFSET.fullmatch(text.strip()):
        number = match["partition"]
        return Bound(
            offset=int(match["offset"]), topic=match["topic"], partition=None if number is None else int(number)
        )
    time_us = parse_timestamp_us(float(text) if text.replace(".", "", 1).isdecimal() else text, UTC)
    if time_us is None:
        raise ValueError(f"expected a time or an offset, such as {_EXAMPLES}, got {text!r}")
    return Bound(time_us=time_us)


def bound_of(bounds: Sequence[Bound], partition: TopicPartition) -> Bound | None:
    """Return the bound that holds for a partition: the most particular one, and of equals the last."""
    holding = [
        bound
        for bound in bounds
        if bound.topic in (None, partition.topic) and bound.partition in (None, partition.partition)
    ]
    return max(reversed(holding), key=_particularity, default=None)


def _particularity(bound: Bound) -> int:
    return (bound.topic is not None) + (bound.partition is not None)


def check_bounds(bounds: Sequence[Bound], layouts: dict[str, int], setting: str) -> None:
    """Refuse bounds of topics and partitions that are not replayed.

    Parameters
    ----------
    bounds : sequence of Bound
    layouts : dict of str to int
        Number of partitions of each topic that is replayed.
    setting : str

    Raises
    ------
    ConfigError
    """
    for bound in bounds:
        if bound.topic is None:
            continue
        if bound.topic not in layouts:
            raise ConfigError(
                setting, f"names topic `{bound.topic}`, which is not replayed (replayed: {', '.join(layouts)})"
            )
        if bound.partition is not None and bound.partition >= layouts[bound.topic]:
            raise ConfigError(
                setting,
                f"names {bound.topic}[{bound.partition}], but the topic has partitions 0 to {layouts[bound.topic] - 1}",
            )
