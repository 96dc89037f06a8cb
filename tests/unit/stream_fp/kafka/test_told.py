from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
from aiokafka import TopicPartition

from stream_fp.kafka.told import OWED_HEADER, SOURCE_HEADER, Told, _note, source_of
from stream_fp.messages import encode_prediction
from stream_fp.sessions import Session
from tests.support.builders import make_prediction

SOURCE = TopicPartition("events-of-ny", 3)
KEY = b"NY_AM_2025-07-29"


@dataclass
class Output:
    """A record of the output topic, as the client hands it over."""

    offset: int
    source: bytes
    checkpoint_pct: float = 30.0
    value: bytes | None = None
    is_owed: bool = False
    key: bytes = KEY
    headers: list[tuple[str, bytes]] = field(init=False)

    def __post_init__(self) -> None:
        self.headers = [(SOURCE_HEADER, self.source), *([(OWED_HEADER, b"1")] if self.is_owed else [])]
        if self.value is None:
            self.value = encode_prediction(make_prediction(checkpoint_pct=self.checkpoint_pct))


def noted(*records: Any, since: int = 100) -> tuple[Told, bool]:  # noqa: ANN401 - stands in for a client's record
    told = Told()
    return told, _note(records, SOURCE, since, told)


def session_opened_at(offset: int) -> Session:
    return Session(KEY.decode(), first_offset=offset, opened_at_watermark_us=None)


def test_session_with_a_prediction_is_covered_at_that_checkpoint_and_those_before() -> None:
    told, reached = noted(Output(0, b"events-of-ny-3@120", 40.0))
    assert not reached
    session = session_opened_at(110)
    assert told.covers(session, 30.0)
    assert told.covers(session, 40.0)
    assert not told.covers(session, 50.0)


def test_prediction_of_an_earlier_session_of_that_id_does_not_cover_it() -> None:
    told, _ = noted(Output(0, b"events-of-ny-3@120"))
    assert not told.covers(session_opened_at(121), 30.0)


def test_session_that_opened_elsewhere_by_the_former_settings_is_covered_all_the_same() -> None:
    told, _ = noted(Output(0, b"events-of-ny-3@120"))
    told.changed_at = 150
    assert told.covers(session_opened_at(130), 30.0)
    assert not told.covers(session_opened_at(150), 30.0)


def test_session_never_heard_of_is_not_covered() -> None:
    assert not Told().covers(session_opened_at(0), 30.0)


@pytest.mark.parametrize("source", [b"events-of-ny-4@120", b"other-3@120", b"", b"events-of-ny-3", b"\xff@1", b"-3@1"])
def test_record_of_another_source_says_nothing(source: bytes) -> None:
    told, reached = noted(Output(0, source))
    assert not reached
    assert not told.by_key


@pytest.mark.parametrize("value", [b"{", b"{}", b"[]", b'{"classification_metadata":3}'])
def test_record_that_is_no_prediction_says_nothing(value: bytes) -> None:
    assert not noted(Output(0, b"events-of-ny-3@120", value=value))[0].by_key


def test_reading_back_ends_below_the_low_offset_but_not_at_one_that_was_published_late() -> None:
    assert noted(Output(0, b"events-of-ny-3@99"))[1]
    assert not noted(Output(0, b"events-of-ny-3@99", is_owed=True))[1]
    assert not noted(Output(0, b"events-of-ny-3@100"))[1]


def test_source_is_read_as_it_is_written() -> None:
    assert source_of(b"events-of-ny-3@120") == (SOURCE, 120)
