"""The published schemas of messages, which real ones are held against."""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

from jsonschema import Draft202012Validator

__all__ = ["ASYNCAPI", "check_headers", "check_value"]

REFERENCE: Final = Path(__file__).resolve().parents[2] / "docs" / "reference"
ASYNCAPI: Final[dict[str, Any]] = json.loads((REFERENCE / "asyncapi.json").read_text("utf-8"))


@lru_cache
def _validator(message: str, part: str) -> Draft202012Validator:
    schema = ASYNCAPI["components"]["messages"][message][part]
    return Draft202012Validator({**schema, "components": ASYNCAPI["components"]})


def check_value(message: str, value: bytes) -> None:
    """Raise where a value is not what the AsyncAPI document says of a message; its own schema file says the same."""
    document = json.loads(value)
    _validator(message, "payload").validate(document)
    name = {"event": "message", "prediction": "prediction"}[message]
    Draft202012Validator(json.loads((REFERENCE / f"{name}.schema.json").read_text("utf-8"))).validate(document)


def check_headers(message: str, headers: dict[str, bytes]) -> None:
    """Raise where headers are not what the AsyncAPI document says of a message."""
    _validator(message, "headers").validate({name: value.decode() for name, value in headers.items()})
