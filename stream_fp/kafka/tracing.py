"""Traces, from the record that brought a session to its checkpoint to its prediction on the output topic.

Needs the extra `otel`, and is imported only where tracing is on. Context comes and goes in the headers of Kafka records
as W3C Trace Context has it, so the producer's trace goes on in whoever reads the predictions. Where the traces are sent
to, as whom, and how many of them, say OpenTelemetry's own variables (``OTEL_*``).

Of each prediction there are four spans (names and attributes as OpenTelemetry's conventions for messaging have them):
``process <input topic>`` from the record's turn to the broker's acknowledgement, within it ``extract features`` and
``classify``, and ``send <output topic>``. A dead letter has ``process`` with the error, and ``send``.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, Self

from aiokafka import TopicPartition
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from stream_fp.config import Settings
from stream_fp.logs import Ration, at
from stream_fp.outcomes import Outcome, Published

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["PublishedSpans", "Tracing", "open_tracing"]

_logger = logging.getLogger(__name__)

Headers = list[tuple[str, bytes]]

#: What the last spans get for reaching their collector when the service ends.
_CLOSE_S: Final = 2.0
_MAX_SHOWN: Final = 200
#: Of a header of context: what the standard asks everybody to pass on. Reading a longer one may take very long.
_MAX_CONTEXT_BYTES: Final = 512


def open_tracing(settings: Settings) -> Tracing:
    """Return what makes the traces and sends them; reads files, so not to be called on an event loop."""
    resource = Resource.create()
    if str(resource.attributes.get("service.name", "")).startswith("unknown_service"):  # no variable names it
        resource = resource.merge(Resource({"service.name": "stream-fp"}))
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return Tracing(provider, settings)


class Tracing:
    """Makes the spans of one service.

    Parameters
    ----------
    provider : TracerProvider
    settings : Settings
        Name topics and group.
    """

    def __init__(self, provider: TracerProvider, settings: Settings) -> None:
        self._provider = provider
        self._settings = settings
        self._tracer = provider.get_tracer("stream_fp")
        self._propagator = TraceContextTextMapPropagator()
        self._ration = Ration(5, 60.0)

    def close(self) -> None:
        """Send what is left; blocks, but not for long: a collector that does not answer holds up no stop."""
        closing = threading.Thread(target=self._provider.shutdown, name="closing traces", daemon=True)
        closing.start()
        closing.join(_CLOSE_S)

    def publishing(self, outcomes: Sequence[Outcome], partition: TopicPartition) -> PublishedSpans:
        """Begin the spans of outcomes that are about to be published; to be used as a context manager.

        Never raises: what cannot be traced is published without a trace, and the log says so.
        """
        return PublishedSpans([self._begun(outcome, partition) for outcome in outcomes])

    def _begun(self, outcome: Outcome, partition: TopicPartition) -> tuple[list[Span], Headers]:
        try:
            return self._begin(outcome, partition)
        except Exception:  # the SDK is not ours, and a prediction is worth more than its trace
            if (held_back := self._ration.take()) is not None:
                where = at(partition, offset=outcome.record.offset, held_back=held_back)
                _logger.exception("not traced", extra=where)
            return [], []

    def _begin(self, outcome: Outcome, partition: TopicPartition) -> tuple[list[Span], Headers]:
        now_ns = time.time_ns()
        record: Any = outcome.record
        worked_ns = outcome.extraction_ns + outcome.classification_ns if isinstance(outcome, Published) else 0
        # Broken context counts as none: then a trace begins here.
        fields = self._propagator.fields
        carrier = {
            name: value.decode("latin-1")
            for name, value in record.headers
            if name in fields and value is not None and len(value) <= _MAX_CONTEXT_BYTES
        }
        attributes: dict[str, Any] = {
            "messaging.system": "kafka",
            "messaging.destination.name": partition.topic,
            "messaging.destination.partition.id": str(partition.partition),
            "messaging.consumer.group.name": self._settings.group_id,
            "messaging.kafka.offset": record.offset,
            "messaging.operation.name": "process",
            "messaging.operation.type": "process",
            **({} if record.key is None else {"messaging.kafka.message.key": _shown(record.key)}),
        }
        if isinstance(outcome, Published):
            said = outcome.prediction
            attributes |= {
                "stream_fp.session_id": said.session_id[:_MAX_SHOWN],
                "stream_fp.model_version": said.classification_metadata.model_version,
                "stream_fp.archetype_id": said.archetype_id,
                "stream_fp.confidence": said.confidence,
                "stream_fp.pct_seen": said.pct_seen,
            }
        process = self._tracer.start_span(
            f"process {partition.topic}", self._propagator.extract(carrier), SpanKind.CONSUMER, attributes,
            start_time=now_ns - worked_ns,
        )  # fmt: skip
        if not process.is_recording():  # left out by sampling; that goes on in who reads the prediction
            return [process], self._context_of(process)
        inside = set_span_in_context(process)
        if isinstance(outcome, Published):
            topic, at_ns = self._settings.output_topic, now_ns - worked_ns
            steps = (("extract features", outcome.extraction_ns), ("classify", outcome.classification_ns))
            for name, took_ns in steps:
                step = self._tracer.start_span(name, inside, start_time=at_ns)
                at_ns += took_ns
                step.end(at_ns)
        else:
            topic = self._settings.dead_letter_topic
            process.set_attribute("error.type", outcome.error_class)
            process.set_status(Status(StatusCode.ERROR, outcome.message[:_MAX_SHOWN]))
        send = self._tracer.start_span(
            f"send {topic}", inside, SpanKind.PRODUCER,
            {
                "messaging.system": "kafka",
                "messaging.destination.name": topic,
                "messaging.operation.name": "send",
                "messaging.operation.type": "send",
            },
            start_time=now_ns,
        )  # fmt: skip
        return [send, process], self._context_of(send)

    def _context_of(self, span: Span) -> Headers:
        context: dict[str, str] = {}
        self._propagator.inject(context, set_span_in_context(span))
        return [(name, text.encode()) for name, text in context.items()]


class PublishedSpans:
    """Spans of outcomes under way; ends them, with the error where there is one."""

    def __init__(self, begun: list[tuple[list[Span], Headers]]) -> None:
        self._begun = begun

    @property
    def headers(self) -> list[Headers]:
        """Context for the headers of each outcome's record, in order."""
        return [headers for _, headers in self._begun]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for spans, _ in self._begun:
            for span in spans:
                with contextlib.suppress(Exception):  # what is published is published, whatever becomes of its trace
                    if error is not None:
                        span.set_attribute("error.type", type(error).__qualname__)
                        span.set_status(Status(StatusCode.ERROR, str(error)[:_MAX_SHOWN]))
                    span.end()


def _shown(key: bytes) -> str:
    return key[:_MAX_SHOWN].decode("utf-8", "replace")
