"""Traces of a real run, as a collector gets them: from the producer of a record to the consumer of its prediction."""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import msgspec
from aiokafka import AIOKafkaProducer
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from offline.simulate import interleave, simulate_sessions
from tests.conftest import TopicFactory
from tests.support.builders import write_tiny_library
from tests.support.collector import collector
from tests.support.schemas import check_headers, check_value
from tests.support.service import running_service
from tests.support.topics import consumed, publish_all, read_all


def traceparent(number: int) -> str:
    return f"00-{number + 1:032x}-{number + 1:016x}-01"


async def test_one_trace_leads_from_a_record_to_its_prediction_and_log_lines_have_fields(
    broker: str, topic_factory: TopicFactory, tmp_path: Path
) -> None:
    topic, output = await topic_factory(1), await topic_factory(1, prefix="fingerprints")
    dead = await topic_factory(1, prefix="dlq")
    messages = list(interleave(simulate_sessions(6, seed=3)))
    async with AIOKafkaProducer(bootstrap_servers=broker) as producer:
        for number, message in enumerate(messages):
            # Every third comes without context, and one with a context that is none.
            context = "nonsense" if number == 1 else traceparent(number)
            headers: list[tuple[str, bytes]] = [] if number % 3 == 0 else [("traceparent", context.encode())]
            key = str(message["session_id"]).encode()
            await producer.send(topic, msgspec.json.encode(message), key=key, headers=headers)
        await producer.send(topic, b"no json", key=b"a", headers=[("traceparent", traceparent(10_000).encode())])
    arguments = [
        "--session-fingerprinting", "--bootstrap-servers", broker, "--input-topic", topic, "--output-topic", output,
        "--dead-letter-topic", dead, "--group-id", f"group-{topic}", "--model-path",
        str(write_tiny_library(tmp_path / "v0.0.1")), "--sidecar-dir", "", "--tracing", "otlp", "--log-format", "json",
    ]  # fmt: skip
    came: list[ExportTraceServiceRequest] = []

    def take(path: str, body: bytes) -> None:
        assert path == "/v1/traces"
        came.append(ExportTraceServiceRequest.FromString(body))

    with collector(take) as address:
        environment = {"OTEL_EXPORTER_OTLP_ENDPOINT": address, "OTEL_RESOURCE_ATTRIBUTES": "deployment=test"}
        async with running_service(tmp_path / "log", *arguments, environment=environment) as service:
            await service.wait_ready()
            await consumed(service, len(messages) + 1)
            assert await service.terminate() == 0, service.output()
        lines = [json.loads(line) for line in service.output().splitlines()]
    predictions = await read_all(broker, output)
    (letter,) = await read_all(broker, dead)
    assert len(predictions) >= 5

    for prediction in predictions:
        check_value("prediction", prediction.value)
        check_headers("prediction", headers_of(prediction))
    check_headers("deadLetter", headers_of(letter))

    resources = [resource for request in came for resource in request.resource_spans]
    attributes = attributes_of(resources[0].resource)
    assert (attributes["service.name"], attributes["deployment"]) == ("stream-fp", "test")
    spans = [span for resource in resources for scope in resource.scope_spans for span in scope.spans]
    by_trace: dict[bytes, dict[str, Span]] = defaultdict(dict)
    for span in spans:
        by_trace[span.trace_id][span.name] = span
    seen_without_context = 0
    for prediction in predictions:
        said_by = headers_of(prediction)
        version, trace_id, parent_id, flags = said_by["traceparent"].decode().split("-")
        offset = int(said_by["stream_fp.source"].decode().rpartition("@")[2])
        assert version == "00"
        assert int(flags, 16) & 1  # it is sampled; whether the id is random is another bit
        trace = by_trace[bytes.fromhex(trace_id)]
        process, send = trace[f"process {topic}"], trace[f"send {output}"]
        assert set(trace) == {process.name, send.name, "extract features", "classify"}
        if offset % 3 == 0 or offset == 1:
            seen_without_context += 1
            assert process.parent_span_id == b""
        else:
            assert trace_id == traceparent(offset).split("-")[1]
            assert process.parent_span_id.hex() == traceparent(offset).split("-")[2]
        assert send.span_id.hex() == parent_id
        assert {trace[name].parent_span_id for name in trace if name != process.name} == {process.span_id}
        assert (process.kind, send.kind) == (Span.SPAN_KIND_CONSUMER, Span.SPAN_KIND_PRODUCER)
        assert all(
            process.start_time_unix_nano <= s.start_time_unix_nano <= s.end_time_unix_nano <= process.end_time_unix_nano
            for s in trace.values()
        )
        facts = attributes_of(process)
        assert facts["messaging.kafka.offset"] == offset
        assert facts["stream_fp.session_id"] == json.loads(prediction.value)["session_id"]
        assert facts["messaging.system"] == "kafka"
    assert seen_without_context < len(predictions)
    failed = by_trace[bytes.fromhex(traceparent(10_000).split("-")[1])]
    assert set(failed) == {f"process {topic}", f"send {dead}"}
    assert failed[f"process {topic}"].status.code == Status.STATUS_CODE_ERROR
    assert headers_of(letter)["traceparent"].decode() == traceparent(10_000)

    said = [line for line in lines if line["message"].startswith("session ")]
    assert {line["session_id"] for line in said} <= {json.loads(one.value)["session_id"] for one in predictions}
    assert {(line["topic"], line["partition"], line["model_version"]) for line in said} == {(topic, 0, "0.0.1")}
    (refused,) = [line for line in lines if line["message"].startswith("dead letter")]
    assert (refused["offset"], refused["session_id"], refused["level"]) == (len(messages), "a", "WARNING")


def headers_of(record: Any) -> dict[str, bytes]:  # noqa: ANN401 - as the client has it
    return dict(record.headers)


def attributes_of(holder: Any) -> dict[str, Any]:  # noqa: ANN401 - resource or span
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in holder.attributes}


async def test_collector_that_does_not_answer_holds_up_neither_predictions_nor_the_stop(
    broker: str, topic_factory: TopicFactory, tmp_path: Path
) -> None:
    topic, output = await topic_factory(1), await topic_factory(1, prefix="fingerprints")
    await publish_all(
        broker, topic,
        [(str(m["session_id"]).encode(), msgspec.json.encode(m)) for m in interleave(simulate_sessions(6, seed=3))],
    )  # fmt: skip
    model = await asyncio.to_thread(write_tiny_library, tmp_path / "v0.0.1")
    arguments = [
        "--session-fingerprinting", "--bootstrap-servers", broker, "--input-topic", topic, "--output-topic", output,
        "--dead-letter-topic", f"{topic}-dlq", "--group-id", f"group-{topic}", "--model-path", str(model),
        "--sidecar-dir", "", "--tracing", "otlp",
    ]  # fmt: skip
    with socket.create_server(("127.0.0.1", 0)) as silent:
        environment = {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{silent.getsockname()[1]}"}
        async with running_service(tmp_path / "log", *arguments, environment=environment) as service:
            await service.wait_ready()
            async with asyncio.timeout(30):
                while len(await read_all(broker, output)) < 5:
                    await asyncio.sleep(0.1)
            # Well below the grace period, after which the process would be ended from within, with another status.
            async with asyncio.timeout(15):
                assert await service.terminate() == 0, service.output()


def test_nothing_of_it_is_imported_where_tracing_is_off(tmp_path: Path) -> None:
    model = write_tiny_library(tmp_path / "v0.0.1")
    program = (
        "import sys\nfrom stream_fp.cli import cli\n"
        f"cli.main(['check', '--sidecar-dir', '', '--model-path', {str(model)!r}], standalone_mode=False)\n"
        "import stream_fp.service, stream_fp.partition\n"
        "print([name for name in sys.modules if name.startswith('opentelemetry')])"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ended.stdout.splitlines()[-1] == "[]"


def test_extra_that_is_missing_is_named(tmp_path: Path) -> None:
    model = write_tiny_library(tmp_path / "v0.0.1")
    program = (
        "import sys\nsys.modules['opentelemetry.sdk.trace'] = None\nfrom stream_fp.cli import main\n"
        f"sys.argv[1:] = ['check', '--sidecar-dir', '', '--model-path', {str(model)!r}, '--tracing', 'otlp']\nmain()"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert ended.returncode == 2
    assert ended.stderr == (
        "stream-fp: setting `tracing`: needs `opentelemetry.sdk.trace`, which is not installed: "
        "pip install 'stream-fp[otel]'\n"
    )
