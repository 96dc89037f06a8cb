"""Traces of odd records, of failures, and of what sampling leaves out; none of them stops publishing."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import Any, Final

import msgspec
import pytest
from aiokafka import TopicPartition
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, Sampler
from opentelemetry.trace import StatusCode

from stream_fp.config import Settings
from stream_fp.kafka.tracing import Tracing
from stream_fp.outcomes import DeadLetter, Published
from tests.support.builders import make_prediction

PARTITION: Final = TopicPartition("events", 3)
PARENT: Final = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def tracing(sampler: Sampler = ALWAYS_ON) -> tuple[Tracing, InMemorySpanExporter]:
    exporter = InMemorySpanExporter()
    provider = TracerProvider(sampler=sampler, shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    return Tracing(provider, Settings()), exporter


def record(key: bytes | None = b"s", headers: tuple[tuple[str, bytes | None], ...] = ()) -> Any:  # noqa: ANN401 - a client's
    return SimpleNamespace(offset=7, key=key, value=b"{}", timestamp=0, headers=headers)


def published(record: Any) -> Published:  # noqa: ANN401 - as above
    return Published(record=record, key=b"s", prediction=make_prediction(), extraction_ns=1000, classification_ns=500)


def named(spans: tuple[ReadableSpan, ...], name: str) -> ReadableSpan:
    (span,) = [span for span in spans if span.name == name]
    return span


def test_context_goes_on_and_times_nest() -> None:
    traces, exporter = tracing()
    with traces.publishing([published(record(headers=(("traceparent", PARENT.encode()),)))], PARTITION) as spans:
        ((name, value),) = spans.headers[0]
    assert (name, value.decode().split("-")[1]) == ("traceparent", PARENT.split("-")[1])
    process = named(exporter.get_finished_spans(), "process events")
    assert process.parent is not None
    assert f"{process.parent.span_id:016x}" == PARENT.split("-")[2]
    extract = named(exporter.get_finished_spans(), "extract features")
    assert extract.end_time is not None
    assert extract.start_time is not None
    assert extract.end_time - extract.start_time == 1000


@pytest.mark.parametrize(
    "odd",
    [
        record(key=None),
        record(key=b"\xff\xfe" * 500_000),
        record(headers=(("traceparent", None),)),
        record(headers=(("traceparent", b"\xff\x00"), ("tracestate", b"=,=," * 1000))),
        record(headers=(("traceparent", b"00-" + b"0" * 32 + b"-" + b"0" * 16 + b"-01"),)),
        record(headers=(("traceparent", PARENT.encode()), ("traceparent", b"again"), ("", b""))),
    ],
)
def test_odd_records_are_traced_all_the_same_with_attributes_that_are_short(odd: Any) -> None:  # noqa: ANN401 - as above
    traces, exporter = tracing()
    dead = DeadLetter(record=odd, stage="decode", error_class="RecordDecodeError", message="x" * 10_000)
    with traces.publishing([published(odd), dead], PARTITION) as spans:
        assert len(spans.headers) == 2
    finished = exporter.get_finished_spans()
    assert len(finished) == 6
    for span in finished:
        assert all(len(str(value)) <= 200 for value in (span.attributes or {}).values())
        assert len(span.status.description or "") <= 200
    assert sum(span.status.status_code is StatusCode.ERROR for span in finished) == 1


def test_long_context_is_left_out_and_never_logged(caplog: pytest.LogCaptureFixture) -> None:
    traces, exporter = tracing()
    state = b"a=b" + b" " * 40_000 + b"x"
    with (
        caplog.at_level(logging.DEBUG),
        traces.publishing(
            [published(record(headers=(("traceparent", PARENT.encode()), ("tracestate", state))))], PARTITION
        ),
    ):
        pass
    process = named(exporter.get_finished_spans(), "process events")
    assert process.parent is not None
    assert caplog.records == []


def test_what_sampling_leaves_out_has_a_context_that_says_so_and_no_spans() -> None:
    traces, exporter = tracing(ALWAYS_OFF)
    with traces.publishing([published(record())], PARTITION) as spans:
        ((_, value),) = spans.headers[0]
    assert int(value.decode().split("-")[3], 16) & 1 == 0
    assert exporter.get_finished_spans() == ()


def test_failure_of_publishing_is_that_of_its_spans_and_is_passed_on() -> None:
    traces, exporter = tracing()
    with pytest.raises(TimeoutError), traces.publishing([published(record())], PARTITION):
        raise TimeoutError("late")
    for name in ("process events", "send session-fingerprints"):
        span = named(exporter.get_finished_spans(), name)
        assert span.status.status_code is StatusCode.ERROR
        assert (span.attributes or {})["error.type"] == "TimeoutError"


def test_what_cannot_be_traced_is_published_without_and_the_log_says_so(caplog: pytest.LogCaptureFixture) -> None:
    traces, _ = tracing()
    broken = msgspec.structs.replace(published(record()), extraction_ns="soon")
    with caplog.at_level(logging.ERROR):
        for _ in range(100):
            with traces.publishing([broken, published(record())], PARTITION) as spans:
                assert [len(headers) for headers in spans.headers] == [0, 1]
    assert len(caplog.records) == 5
