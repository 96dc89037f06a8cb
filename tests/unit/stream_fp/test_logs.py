"""Log lines: fields for machines, one line for readers, and never as many as the input would like."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import TopicPartition
from hypothesis import given
from hypothesis import strategies as st

from stream_fp.engine import Engine
from stream_fp.ledger import PartitionLedger
from stream_fp.logs import Log, Ration, at
from stream_fp.metrics import Metrics
from stream_fp.outcomes import Counts, DeadLetter

PARTITION = TopicPartition("events", 3)
PROGRAM = """
import logging, sys
from aiokafka import TopicPartition
from stream_fp.logs import Log, at, configure_logging

configure_logging("INFO", sys.argv[1])
log = Log(logging.getLogger("stream_fp.x"), **at(TopicPartition("events", 3), model_version="v1.0.0"))
log.info("session %s", "a\\nb\\x1b[2J", extra={"offset": 7, "session_id": "a\\nb", "held_back": 5})
log.debug("not shown")
logging.getLogger("stream_fp").warning("plain")
try:
    1 / 0
except ZeroDivisionError:
    log.exception("broken")
"""


def lines_of(form: str) -> list[str]:
    ended = subprocess.run([sys.executable, "-c", PROGRAM, form], capture_output=True, text=True, check=True)
    assert ended.stdout == ""
    return ended.stderr.splitlines()


def test_json_lines_are_objects_with_the_fields() -> None:
    session, plain, broken = (json.loads(line) for line in lines_of("json"))
    time = session.pop("time")
    assert time.endswith(("Z", "+00:00"))
    assert session == {
        "level": "INFO", "logger": "stream_fp.x", "message": "session a\nb\x1b[2J", "topic": "events", "partition": 3,
        "offset": 7, "session_id": "a\nb", "model_version": "v1.0.0", "held_back": 5,
    }  # fmt: skip
    assert plain.keys() == {"time", "level", "logger", "message"}
    assert "ZeroDivisionError" in broken["exc_info"]


def test_console_lines_say_where_and_stay_one_line_whatever_came_with_the_record() -> None:
    session, plain, *broken = lines_of("console")
    expected = "INFO stream_fp.x: events[3]@7: session a\\nb\\x1b[2J (5 more like it were not logged)"
    assert session.endswith(expected)
    assert plain.endswith("WARNING stream_fp: plain")
    assert broken[0].endswith("ERROR stream_fp.x: events[3]: broken")
    assert broken[-1] == "  ZeroDivisionError: division by zero"
    assert all(line.startswith("  ") for line in broken[1:])


@given(
    burst=st.integers(1, 5),
    steps=st.lists(st.floats(0, 20, allow_nan=False), max_size=100),
)
def test_ration_bounds_the_lines_and_loses_no_count(burst: int, steps: list[float]) -> None:
    now_s = 0.0
    ration = Ration(burst, 10.0, clock=lambda: now_s)
    told, shown = 0, 0
    for step in steps:
        now_s += step
        if (held_back := ration.take()) is not None:
            told += held_back
            shown += 1
    assert shown <= burst + now_s / 10.0 + 1e-6
    assert shown + told + ration._n_held_back == len(steps)
    assert shown >= min(len(steps), burst)


def test_flood_of_dead_letters_is_a_few_lines_for_each_kind_of_error(caplog: pytest.LogCaptureFixture) -> None:
    ledger = PartitionLedger(PARTITION, Metrics(list), model_version="v1.0.0")
    key = "sitzung-ä".encode() * 100
    letters = [
        DeadLetter(
            record=record(offset, key), stage="decode", error_class=("One", "Other")[offset % 2], message="x" * 10_000
        )
        for offset in range(10_000)
    ]
    engine = SimpleNamespace(n_rebuilt=0)
    with caplog.at_level(logging.WARNING, "stream_fp.ledger"):
        ledger.committed(as_engine(engine), Counts(), 10_000, letters)
    assert len(caplog.records) == 20
    first: Any = caplog.records[0]
    assert (first.topic, first.partition, first.offset, first.model_version) == ("events", 3, 0, "v1.0.0")
    assert first.session_id.startswith("sitzung-ä")
    assert all(len(entry.getMessage()) < 300 and len(entry.session_id) <= 200 for entry in shown(caplog))


def as_engine(engine: Any) -> Engine:  # noqa: ANN401 - stands in for one, of which only a counter is used
    return engine  # type: ignore[no-any-return]


def shown(caplog: pytest.LogCaptureFixture) -> list[Any]:
    return list(caplog.records)


def record(offset: int, key: bytes) -> Any:  # noqa: ANN401 - stands in for a client's record
    return SimpleNamespace(offset=offset, key=key, value=b"", timestamp=0, headers=())


def test_a_lines_own_fields_come_on_top(caplog: pytest.LogCaptureFixture) -> None:
    log = Log(logging.getLogger("stream_fp.test"), **at(PARTITION, offset=1))
    with caplog.at_level(logging.INFO, "stream_fp.test"):
        log.info("x", extra={"offset": 2})
    entry: Any = caplog.records[0]
    assert (entry.topic, entry.partition, entry.offset) == ("events", 3, 2)
