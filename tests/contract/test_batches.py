"""Records taken many at a time, one at a time, or by the general way alone: the same outcomes and the same state."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from stream_fp.engine import Engine
from stream_fp.errors import RecordError
from stream_fp.messages import Message
from stream_fp.outcomes import Outcome
from stream_fp.sessions import BYTES_PER_EVENT, BYTES_PER_SESSION
from stream_fp.times import MINUTE_US
from tests.support.builders import Record, RecordingForecaster, at, describe, make_engine

KEYS: Final = (b"NY_AM_2025-07-29", b"LUNCH_2025-07-29", b"CUSTOM_2025-07-29", b"free text", b"", None)
SETTINGS: Final[dict[str, Any]] = {
    "checkpoints_pct": (30.0, 50.0),
    "min_events": 2,
    "grace_us": 30 * MINUTE_US,
    "idle_timeout_us": 60 * MINUTE_US,
    "max_record_bytes": 400,
}
BOUNDS: Final[tuple[dict[str, Any], ...]] = (
    {},
    {"keep_events": True},
    {"max_events_per_session": 6},
    {"max_open_sessions": 2},
    {"max_buffered_bytes": 3 * BYTES_PER_SESSION + 9 * BYTES_PER_EVENT},
)


def stamps(minute: float) -> st.SearchStrategy[object]:
    """Draw the same moment in the ways in which producers write it, and what is no time at all."""
    text = at(minute)
    return st.sampled_from(
        (text, text, text, f"{text[:19]}.250{text[19:]}", f"{text[:19]}.250999{text[19:]}", text[:19], text[11:19],
         1_753_799_700 + int(60 * minute), 1e12, "?", None, "2199-12-31T23:59:59.999-14:00"),
    )  # fmt: skip


@st.composite
def messages(draw: st.DrawFn, minute: float) -> bytes | None:
    """Draw mostly events as a stream is made of, with everything else that may lie between them."""
    kind = draw(st.sampled_from(("event",) * 12 + ("start", "end", "other", "garbage", "nothing", "long")))
    match kind:
        case "event":
            message: dict[str, Any] = {
                "timestamp": draw(stamps(minute)),
                "event_type": draw(st.sampled_from(("range", "Fair Value Gap", "unheard of", "sweep", None))),
                "price": draw(st.sampled_from((100.0, 101.5, 99.0, 0, None, -1.0, 1e300))),
                "intensity": draw(st.sampled_from((0.5, None, -2.0, 1e10))),
                "htf_regime": draw(st.sampled_from((0, 1, 2, None))),
            }
            if draw(st.integers(0, 7)) == 0:
                message["event_id"] = draw(st.sampled_from((1, 2, "a")))
            if draw(st.integers(0, 4)) == 0:
                message["session_id"] = draw(st.sampled_from(("NY_AM_2025-07-29", "free text")))
            if draw(st.integers(0, 9)) == 0:
                del message["price"]
        case "start":
            expected = draw(st.sampled_from((None, 4, 12)))
            message = {"kind": "session_start", "session_metadata": {"expected_events": expected}}
        case "end":
            message = {"kind": "session_end"}
        case "other":
            message = {"kind": "other"}
        case "long":
            message = {"timestamp": at(minute), "event_type": "range", "price": 1.0, "more": "x" * 400}
        case _:
            return b"{" if kind == "garbage" else None
    return msgspec.json.encode(message)


@st.composite
def streams(draw: st.DrawFn) -> list[Record]:
    minute, stream = 0.0, []
    for offset in range(draw(st.integers(1, 50))):
        minute += draw(st.sampled_from((0, 0, 0, 0.5, 1, 3, 25, 70, -5)))
        stream.append(Record(offset, draw(st.sampled_from(KEYS[:4] * 5 + KEYS)), draw(messages(minute))))
    return stream


def state_of(engine: Engine) -> tuple[object, ...]:
    rows = {key: bytes(session.rows) for key, session in engine._open.by_key.items()}
    touched = [(session.touched_us, session.latest_us, session.n_events) for session in engine._open.by_key.values()]
    memory = engine.n_buffered_events, engine.n_buffered_bytes
    return engine.counts, engine.position, engine.low_offset, engine.watermark_us, memory, rows, touched


def in_the_general_way(engine: Engine, record: Record) -> Sequence[Outcome]:
    message = engine._read(record)
    if isinstance(message, RecordError):
        engine.position = record.offset + 1
        return engine._refused(record, message)
    return engine._take_one(record, message)


@given(stream=streams(), bounds=st.sampled_from(BOUNDS), sizes=st.lists(st.integers(1, 20), min_size=1))
@settings(max_examples=400, deadline=None)
def test_batches_of_any_size_come_to_the_same_as_the_general_way(
    stream: list[Record], bounds: dict[str, Any], sizes: list[int]
) -> None:
    forecasters = [RecordingForecaster() for _ in range(3)]
    batches, singles, general = (
        make_engine(forecaster, typical_events={"custom": 8.0}, **{**SETTINGS, **bounds}) for forecaster in forecasters
    )
    first = 0
    for size in sizes * len(stream):
        part = stream[first : first + size]
        if not part:
            break
        first += size
        outcomes = [describe(outcome) for outcome in batches.process_all(part)]
        assert outcomes == [describe(outcome) for record in part for outcome in singles.process(record)]
        assert outcomes == [describe(outcome) for record in part for outcome in in_the_general_way(general, record)]
        assert state_of(batches) == state_of(singles) == state_of(general)
    seen = [[(one.session_id, one.times_us.tolist()) for one in forecaster.seen] for forecaster in forecasters]
    assert seen[0] == seen[1] == seen[2]


@given(stream=streams(), published=st.integers(0, 50), cut=st.integers(0, 50))
@settings(max_examples=200, deadline=None)
def test_batch_that_reaches_beyond_the_published_offset_speaks_from_there_on(
    stream: list[Record], published: int, cut: int
) -> None:
    batches, singles = (make_engine(published_offset=published, **SETTINGS) for _ in range(2))
    outcomes = [*batches.process_all(stream[:cut]), *batches.process_all(stream[cut:])]
    expected = [outcome for record in stream for outcome in singles.process(record)]
    assert [describe(outcome) for outcome in outcomes] == [describe(outcome) for outcome in expected]
    assert all(outcome.record.offset >= published for outcome in outcomes)
    assert state_of(batches) == state_of(singles)


def test_ordinary_stream_hardly_ever_takes_the_general_way() -> None:
    """Else the other tests would compare it with itself, and the speed be gone."""
    engine = make_engine(**{**SETTINGS, "keep_events": True})
    taken: list[int] = []
    general = engine._take_one

    def noted(one: Record, message: Message) -> Sequence[Outcome]:
        taken.append(one.offset)
        return general(one, message)

    engine._take_one = noted  # type: ignore[method-assign, assignment]
    values = [
        msgspec.json.encode(
            {"session_id": "NY_AM_2025-07-29", "timestamp": f"2025-07-29T10:{i // 60:02d}:{i % 60:02d}.{stamp}",
             "event_type": "range", "price": 100.0 + i, "intensity": 0.5, "htf_regime": 1}
        )
        for i, stamp in zip(range(300), np.resize(["250-04:00", "000001-04:00"], 300), strict=True)
    ]  # fmt: skip
    engine.process_all([Record(offset, KEYS[0], value) for offset, value in enumerate(values)])
    assert engine.counts.applied == 300
    # The first event, which opens the session, and the first of each minute; those that follow it are as usual.
    assert len(taken) <= 1 + 5
