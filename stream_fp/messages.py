"""The wire formats: what is read from the input topic and what is written to the output topic.

First station of the flow: bytes in, typed messages out (and, at the other end, predictions in, bytes out). Decoding
refuses wrong types with msgspec's own sentence, which says what was expected, what came and where.
"""

from __future__ import annotations

import sys
from typing import Annotated, Final, Protocol

import msgspec
import numpy as np
from msgspec import UNSET, Meta, Struct, UnsetType

from stream_fp.errors import RecordDecodeError

__all__ = [
    "MAX_JSON_DEPTH",
    "ClassificationMetadata",
    "Message",
    "NaturalUnits",
    "PredictedStats",
    "Prediction",
    "Quantiles",
    "Record",
    "RestOfSession",
    "SessionMetadata",
    "decode_error",
    "decode_message",
    "decode_unchecked",
    "encode_prediction",
    "may_be_too_deep",
]

#: Objects and lists within each other. A message has two; the rest is for what richer producers send. The decoder
#: can do more, but how much depends on how deep in Python's stack it is called: then one record could be sound in a
#: replay and dead live.
MAX_JSON_DEPTH: Final = 256

#: A regime is 0 (quiet), 1 (normal) or 2 (wild) as seen from the higher time frame.
Regime = Annotated[int, Meta(ge=0, le=2)]


class Record(Protocol):
    """What the engine needs of a consumed record; aiokafka's ``ConsumerRecord`` is one."""

    @property
    def offset(self) -> int:
        """Position of the record in its partition."""

    @property
    def key(self) -> bytes | None:
        """Session id in UTF-8."""

    @property
    def value(self) -> bytes | None:
        """JSON of a `Message`."""


#: Producers control these texts and open sessions keep them: no real one is longer.
ShortText = Annotated[str, Meta(max_length=64)]


class SessionMetadata(Struct, gc=False):
    """What a ``session_start`` says of its session; everything may be left out."""

    session_type: ShortText | None = None
    date: ShortText | None = None
    start_time: ShortText | None = None
    end_time: ShortText | None = None
    timezone: ShortText | None = None
    expected_events: Annotated[int, Meta(ge=1, le=10_000_000)] | None = None


class Message(Struct, gc=False):
    """One message of the input topic, of any of the three kinds.

    One structure with optional fields rather than a tagged union, because an absent ``kind`` means ``event``.
    ``price`` has to be there in an event, but may be null: an event without a quote. ``event_id`` is the producer's
    means to have an event that comes twice counted once.
    """

    kind: str = "event"
    session_id: str | None = None
    timestamp: str | int | float | None = None
    event_type: str | None = None
    price: float | UnsetType | None = UNSET
    intensity: float | None = None
    htf_regime: Regime | None = None
    event_id: ShortText | Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)] | None = None
    session_metadata: SessionMetadata | None = None


class Quantiles(Struct, frozen=True, gc=False):
    """Three quantiles of a quantity, in that quantity's unit."""

    p10: float
    p50: float
    p90: float


class RestOfSession(Struct, frozen=True, gc=False):
    """What is expected of the part after the checkpoint; null where training could not learn it."""

    range_pct: float | None
    """Median range (high minus low) of the prices to come, in per cent."""
    volatility_pct: float | None
    """Median standard deviation of the log returns between events, in per cent."""
    n_events: float | None
    """Median number of events."""
    efficiency: float | None
    """Mean of net move over path: 1 is a straight line."""
    phase_shares: dict[str, float | None]
    """Mean share of each phase among the events."""


class NaturalUnits(Struct, frozen=True):
    """The forecast of this session in units that people use."""

    range_pct: Quantiles
    """Range of the whole session (high minus low) in per cent of its first price; never below `range_so_far_pct`."""
    range_so_far_pct: float
    phase_rates_per_100_events: dict[str, float]
    """Events of each phase in 100 events of the whole session: those seen and those expected."""
    rest: RestOfSession


class PredictedStats(Struct, frozen=True):
    """What the session becomes: forecast from what was seen of it, and what its archetype usually is."""

    volatility_class: str
    range_p50: float
    dominant_htf_regime: int
    top_phases: list[tuple[str, float]]
    session_type_probabilities: dict[str, float]
    natural_units: NaturalUnits


class ClassificationMetadata(Struct, frozen=True):
    """How the prediction came about."""

    distance_to_centroid: float
    distance_metric: str
    confidence_method: str
    model_version: str
    timestamp: str
    completion_method: str
    checkpoint_pct: float
    assignment: str
    archetype_name: str
    probabilities: dict[str, float]


class Prediction(Struct, frozen=True):
    """What is published for one session at one checkpoint; its JSON is the sidecar."""

    session_id: str
    date: str
    pct_seen: float
    archetype_id: int
    confidence: float
    predicted_stats: PredictedStats
    artifact_path: str
    notes: list[str]
    classification_metadata: ClassificationMetadata


_QUOTE: Final = ord('"')
_BACKSLASH: Final = ord("\\")
#: By byte: one more level, one less, or neither.
_NESTING: Final = np.zeros(256, np.int8)
_NESTING[list(b"{[")], _NESTING[list(b"}]")] = 1, -1

#: What bytes may raise that are no message.
UNDECODABLE: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
#: Decodes bytes as msgspec does: raises its errors, knows no limit of length.
decode_unchecked: Final = msgspec.json.Decoder(Message).decode
_encode: Final = msgspec.json.Encoder().encode


def may_be_too_deep(value: bytes) -> bool:
    """Tell whether JSON has enough brackets to be nested deeper than `MAX_JSON_DEPTH`; quick for what is usual.

    Examples
    --------
    >>> may_be_too_deep(b'{"price": 1}')
    False
    """
    return len(value) > MAX_JSON_DEPTH and value.count(b"{") + value.count(b"[") > MAX_JSON_DEPTH


def _depth(value: bytes) -> int:
    r"""Return how deep objects and lists are nested, those within strings not counted.

    Of broken JSON it is at least that of the part before the fault.

    Vectorised: a record of a megabyte that is nothing but brackets must not hold up the others.

    >>> _depth(b'{"a": [1, "[[["]}')
    2
    >>> _depth(rb'["\\", [1]]'), _depth(rb'["\"[[", 1]')
    (2, 1)
    """
    text = np.frombuffer(value, np.uint8)
    quotes = np.flatnonzero(text == _QUOTE)
    if b"\\" in value:
        # A quote is escaped by an odd number of backslashes before it.
        others = np.flatnonzero(text != _BACKSLASH)
        before = np.searchsorted(others, quotes)
        n_backslashes = quotes - 1 - np.where(before > 0, others[before - 1], -1)
        quotes = quotes[n_backslashes % 2 == 0]
    step = _NESTING[text]
    brackets = np.flatnonzero(step)
    is_outside = np.searchsorted(quotes, brackets) % 2 == 0
    return int(np.max(np.cumsum(step[brackets][is_outside], dtype=np.int32), initial=0))


def decode_message(value: bytes | None, max_bytes: int = sys.maxsize) -> Message:
    """Decode the value of one record.

    Parameters
    ----------
    value : bytes or None
    max_bytes : int
        Setting `max_record_bytes`.

    Raises
    ------
    RecordDecodeError
        When there are no bytes, or too many, or they are no JSON, or JSON of another shape; the text says what was
        expected, what came and where.
    """
    if not value:
        raise RecordDecodeError("expected a JSON message, got an empty value")
    if len(value) > max_bytes:
        raise RecordDecodeError(f"expected at most {max_bytes} bytes (`max_record_bytes`), got {len(value)}")
    if may_be_too_deep(value) and (depth := _depth(value)) > MAX_JSON_DEPTH:
        raise RecordDecodeError(f"expected JSON nested at most {MAX_JSON_DEPTH} deep, got {depth}")
    try:
        return decode_unchecked(value)
    except UNDECODABLE as error:
        raise decode_error(error) from error


def decode_error(error: Exception) -> RecordDecodeError:
    """Return what to say of a value for which `decode_unchecked` has raised one of `UNDECODABLE`."""
    if isinstance(error, msgspec.ValidationError):
        return RecordDecodeError(str(error))
    return RecordDecodeError(f"expected a JSON message, got other bytes: {error}")


def encode_prediction(prediction: Prediction) -> bytes:
    """Encode a prediction as the JSON of output topic and sidecar; the same prediction gives the same bytes."""
    return _encode(prediction)
