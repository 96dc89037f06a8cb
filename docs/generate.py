"""Write the reference pages anew from what they describe: settings, metrics, and wire formats.

The pages are committed, so that they can be read without building anything; a test holds them against the code.

    make reference
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, Literal, get_args, get_origin

import msgspec
from prometheus_client.metrics import MetricWrapperBase

from stream_fp import __version__
from stream_fp.config import ENV_PREFIX, Secret, Settings
from stream_fp.messages import Message, Prediction
from stream_fp.metrics import Metrics, PartitionView
from stream_fp.outcomes import Counts

__all__ = ["pages"]

FOLDER: Final = Path(__file__).parent
#: First setting of each group, in their order.
GROUPS: Final = {
    "enabled": "On or off",
    "bootstrap_servers": "Kafka",
    "model_path": "Model and method",
    "max_open_sessions": "Bounds on memory",
    "sidecar_dir": "What is written beside the topic, and what is shown",
}
TYPES: Final = {str: "text", int: "whole number", float: "number", bool: "true or false", Secret: "text"}


def pages() -> dict[Path, str]:
    """Return the text of every generated file."""
    asyncapi = _asyncapi()
    return {
        FOLDER / "reference" / "configuration.md": _configuration(),
        FOLDER / "reference" / "metrics.md": _metrics(),
        FOLDER / "reference" / "asyncapi.json": _json(asyncapi),
        FOLDER / "reference" / "message.schema.json": _json(_schema(Message)),
        FOLDER / "reference" / "prediction.schema.json": _json(_schema(Prediction)),
    }


def _json(document: dict[str, Any]) -> str:
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


# ------------------------------------------------------------------------------------------------------------ settings


def _configuration() -> str:
    lines = [
        "# Configuration",
        "",
        "Every setting is a flag of `stream-fp run`, an environment variable and a key of the TOML file (`--config`, or",
        f"`{ENV_PREFIX}CONFIG`). Flags win over the environment, the environment over the file. A wrong one stops the start",
        "with one line that names it, and status 2; `stream-fp check` tells beforehand. Secrets have no flag and are never",
        "shown: give a file, or the environment.",
        "",
        "`deploy/stream-fp.toml` is a file to begin with.",
    ]
    for field in msgspec.structs.fields(Settings):
        if field.name in GROUPS:
            lines += ["", f"## {GROUPS[field.name]}", "", "| setting | | default | |", "|---|---|---|---|"]
        kind, bounds, description = _described(field.type)
        flag = f"`--{field.name.replace('_', '-')}`"
        if field.name == "enabled":
            flag = "`--session-fingerprinting`"
        elif kind is Secret:
            flag = "no flag"
        values = _values(kind, bounds)
        lines.append(
            f"| `{field.name}`<br>`{ENV_PREFIX}{field.name.upper()}`<br>{flag} | {description} | {_shown(field.default)} | {values} |"
        )
    return "\n".join(lines) + "\n"


def _described(kind: Any) -> tuple[Any, dict[str, Any], str]:  # noqa: ANN401 - a type expression
    bounds: dict[str, Any] = {}
    description = ""
    while hasattr(kind, "__metadata__"):
        for meta in kind.__metadata__:
            description = meta.description or description
            found = {name: getattr(meta, name) for name in ("ge", "gt", "le", "min_length")}
            bounds |= {name: value for name, value in found.items() if value is not None}
        kind = get_args(kind)[0]
    return kind, bounds, description


def _values(kind: Any, bounds: dict[str, Any]) -> str:  # noqa: ANN401 - as above
    if get_origin(kind) is Literal:
        return ", ".join(f"`{choice}`" for choice in get_args(kind))
    if get_origin(kind) is tuple:
        return "numbers, by comma"
    text = TYPES[kind]
    if "ge" in bounds or "gt" in bounds:
        text += f" from {bounds['ge']:,}" if "ge" in bounds else f" above {bounds['gt']:,}"
    if "le" in bounds:
        text += f" to {bounds['le']:,}"
    return text + (", not empty" if bounds.get("min_length") else "")


def _shown(value: object) -> str:
    match value:
        case Secret() | "":
            return "none"
        case bool():
            return f"`{str(value).lower()}`"
        case tuple():
            return f"`{', '.join(f'{one:g}' for one in value)}`"
        case float():
            return f"`{value:g}`"
        case int():
            return f"`{value:,}`" if value > 99_999 else f"`{value}`"
        case _:
            return f"`{value}`"


# ------------------------------------------------------------------------------------------------------------- metrics


def _metrics() -> str:
    counts = Counts(dead_lettered={"": 0}, ignored={"": 0}, unpredicted={"": 0}, sessions_closed={"": 0})
    view = PartitionView(
        topic="", partition=0, counts=counts, n_rebuilt=0, n_open_sessions=0, n_buffered_events=0, n_buffered_bytes=0,
        committed_lag=0, position_lag=0,
    )  # fmt: skip
    metrics = Metrics(lambda: [view])
    labels = {
        instrument._name: instrument._labelnames  # noqa: SLF001 - not to be had otherwise before there are samples
        for instrument in vars(metrics).values()
        if isinstance(instrument, MetricWrapperBase)
    }
    lines = [
        "# Metrics",
        "",
        "What `/metrics` serves, in the format of Prometheus; times in seconds. A histogram `x` has the series `x_bucket`,",
        "`x_count` and `x_sum`. Series by partition end when the partition goes to another member. No session, key or price is",
        "ever a label: what the input controls is counted, not named. Beside these there are the usual ones of process,",
        "platform and garbage collector.",
        "",
        "| metric | type | labels | |",
        "|---|---|---|---|",
    ]
    for family in sorted(metrics.registry.collect(), key=lambda family: family.name):
        if not family.name.startswith("stream_fp_"):
            continue
        found = labels.get(family.name) or (tuple(family.samples[0].labels) if family.samples else ())
        if family.type in {"info", "histogram"} and family.name not in labels:
            found = ()
        if family.type == "info":
            found = {"stream_fp_build": ("version", "python", "engine"), "stream_fp_model": ("version", "fingerprint")}[
                family.name
            ]
        suffix = {"counter": "_total", "info": "_info"}.get(family.type, "")
        shown = ", ".join(f"`{label}`" for label in found if label != "le")
        lines.append(f"| `{family.name}{suffix}` | {family.type} | {shown} | {family.documentation} |")
    return "\n".join(lines) + "\n"


# -------------------------------------------------------------------------------------------------------- wire formats


def _schema(kind: type) -> dict[str, Any]:
    schema = msgspec.json.schema(kind)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"stream-fp-{kind.__name__.lower()}-{__version__}",
        **schema,
    }


def _asyncapi() -> dict[str, Any]:
    (message, prediction), components = msgspec.json.schema_components(
        [Message, Prediction], ref_template="#/components/schemas/{name}"
    )
    text = {"type": "string"}
    key = {"type": "string", "description": "Session id, UTF-8."}
    context = {
        "traceparent": {"type": "string", "description": "W3C Trace Context, where there is tracing."},
        "tracestate": text,
    }
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "stream_fp",
            "version": __version__,
            "description": "Reads the events of trading sessions, and publishes early what each session is becoming.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "defaultContentType": "application/json",
        "channels": {
            "events": {
                "address": "session-events",
                "description": "Setting `input_topic`; only read.",
                "messages": {"event": {"$ref": "#/components/messages/event"}},
            },
            "predictions": {
                "address": "session-fingerprints",
                "description": "Setting `output_topic`. One record a session and checkpoint, in a transaction: read committed.",
                "messages": {"prediction": {"$ref": "#/components/messages/prediction"}},
            },
            "deadLetters": {
                "address": "session-events-dlq",
                "description": "Setting `dead_letter_topic`: records that cannot be used, as they came, and why.",
                "messages": {"deadLetter": {"$ref": "#/components/messages/deadLetter"}},
            },
        },
        "operations": {
            "follow": {"action": "receive", "channel": {"$ref": "#/channels/events"}},
            "predict": {"action": "send", "channel": {"$ref": "#/channels/predictions"}},
            "refuse": {"action": "send", "channel": {"$ref": "#/channels/deadLetters"}},
        },
        "components": {
            "messages": {
                "event": {
                    "name": "event",
                    "title": "An event of a session, its start or its end",
                    "payload": message,
                    "headers": {"type": "object", "properties": context},
                    "bindings": {"kafka": {"key": key, "bindingVersion": "0.5.0"}},
                },
                "prediction": {
                    "name": "prediction",
                    "title": "What a session is becoming",
                    "payload": prediction,
                    "headers": {
                        "type": "object",
                        "required": [
                            "stream_fp.source", "stream_fp.group", "stream_fp.model_version", "stream_fp.processed_at",
                        ],
                        "properties": {
                            "stream_fp.source": {
                                "type": "string",
                                "description": "The record that triggered it: <topic>-<partition>@<offset>.",
                                "pattern": "^.+-[0-9]+@[0-9]+$",
                            },
                            "stream_fp.group": text,
                            "stream_fp.model_version": text,
                            "stream_fp.processed_at": {"type": "string", "format": "date-time"},
                            "stream_fp.owed": {
                                "const": "1", "description": "It comes late, after a change of model or settings.",
                            },
                            **context,
                        },
                    },
                    "bindings": {"kafka": {"key": key, "bindingVersion": "0.5.0"}},
                },
                "deadLetter": {
                    "name": "deadLetter",
                    "title": "A record that cannot be used",
                    "contentType": "application/octet-stream",
                    "payload": {"description": "The bytes that came; none where they were too large.", "type": ["string", "null"]},
                    "headers": {
                        "type": "object",
                        "description": "Those of the record, and why it cannot be used.",
                        "required": [
                            f"stream_fp.errors.{name}"
                            for name in ("topic", "partition", "offset", "stage", "class", "message")
                        ],
                        "properties": {
                            "stream_fp.errors.topic": text,
                            "stream_fp.errors.partition": {"type": "string", "pattern": "^[0-9]+$"},
                            "stream_fp.errors.offset": {"type": "string", "pattern": "^[0-9]+$"},
                            "stream_fp.errors.stage": {"enum": ["decode", "apply"]},
                            "stream_fp.errors.class": {"enum": ["RecordDecodeError", "RecordInvalidError"]},
                            "stream_fp.errors.message": {"type": "string", "maxLength": 1000},
                            **{
                                f"stream_fp.errors.{what}_omitted_bytes": {"type": "string", "pattern": "^[0-9]+$"}
                                for what in ("value", "key", "headers")
                            },
                        },
                    },
                },
            },
            "schemas": components,
        },
    }  # fmt: skip


def _changed() -> Iterator[Path]:
    for path, text in pages().items():
        if not path.exists() or path.read_text("utf-8") != text:
            path.parent.mkdir(exist_ok=True)
            path.write_text(text, "utf-8")
            yield path


if __name__ == "__main__":
    for changed in _changed():
        print(changed.relative_to(FOLDER))  # noqa: T201
