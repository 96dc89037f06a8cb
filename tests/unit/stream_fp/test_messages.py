from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_fp import messages
from stream_fp.errors import RecordDecodeError
from stream_fp.messages import MAX_JSON_DEPTH, Message, decode_message, encode_prediction
from tests.support.builders import end, event, make_prediction, start


def decoded(message: dict[str, Any]) -> Message:
    return decode_message(json.dumps(message).encode())


def test_message_without_kind_is_an_event() -> None:
    message = decoded(event("S", 5, event_type="fvg", price=23162.25, intensity=0.8, htf_regime=2))
    assert message == Message(
        kind="event", session_id="S", timestamp="2025-07-29T13:35:00+00:00", event_type="fvg", price=23162.25,
        intensity=0.8, htf_regime=2,
    )  # fmt: skip


def test_start_carries_its_metadata() -> None:
    message = decoded(start("S", session_type="NY_AM", date="2025-07-29", expected_events=73))
    assert message.kind == "session_start"
    assert message.session_metadata is not None
    assert message.session_metadata.session_type == "NY_AM"
    assert message.session_metadata.expected_events == 73
    assert message.session_metadata.end_time is None


def test_end_needs_nothing_but_its_kind() -> None:
    assert decoded(end("S")).kind == "session_end"
    assert decoded(end("S", 10)).timestamp == "2025-07-29T13:40:00+00:00"


def test_absent_price_is_told_from_a_null_price() -> None:
    assert decoded({"timestamp": 1}).price is msgspec.UNSET
    assert decoded({"timestamp": 1, "price": None}).price is None


def test_unknown_fields_are_ignored() -> None:
    plain = event("S", 1)
    assert decoded({**plain, "range_position": 0.5, "nested": {"deep": [1, {"x": None}]}}) == decoded(plain)
    assert decoded(start("S", weather="fine")) == decoded(start("S"))


@pytest.mark.parametrize("timestamp", ["2025-07-29", 1753799700, 1753799700.5])
def test_timestamp_is_text_or_number(timestamp: str | float) -> None:
    assert decoded(event(timestamp=timestamp)).timestamp == timestamp


@pytest.mark.parametrize(
    ("message", "path"),
    [
        ({"price": "12"}, "$.price"),
        ({"price": True}, "$.price"),
        ({"htf_regime": 3}, "$.htf_regime"),
        ({"htf_regime": -1}, "$.htf_regime"),
        ({"htf_regime": 1.5}, "$.htf_regime"),
        ({"intensity": "strong"}, "$.intensity"),
        ({"timestamp": []}, "$.timestamp"),
        ({"timestamp": True}, "$.timestamp"),
        ({"event_type": 5}, "$.event_type"),
        ({"kind": None}, "$.kind"),
        ({"session_id": 5}, "$.session_id"),
        ({"session_metadata": []}, "$.session_metadata"),
        ({"session_metadata": {"expected_events": 0}}, "$.session_metadata.expected_events"),
        ({"session_metadata": {"expected_events": 10_000_001}}, "$.session_metadata.expected_events"),
        ({"session_metadata": {"date": 20250729}}, "$.session_metadata.date"),
    ],
)
def test_field_of_another_type_is_refused_with_its_path(message: dict[str, Any], path: str) -> None:
    with pytest.raises(RecordDecodeError, match="xpected") as caught:
        decoded(message)
    assert f"`{path}`" in str(caught.value)
    assert caught.value.stage == "decode"


@pytest.mark.parametrize(
    "value",
    [b"", b"{", b"[]", b"null", b"5", b'"text"', b"{} {}", b"\xff\xfe", b'{"kind": "\xff"}', b'{"price": NaN}',
     b'{"price": 1e999}', b'{"timestamp": ' + b"9" * 5000 + b"}", b"[" * 100_000, b'{"x": ' * 100_000],
)  # fmt: skip
def test_bytes_that_are_no_message_are_refused(value: bytes) -> None:
    with pytest.raises(RecordDecodeError):
        decode_message(value)


@given(value=st.binary(max_size=60))
def test_any_bytes_are_decoded_or_refused(value: bytes) -> None:
    try:
        message: object = decode_message(value)
    except RecordDecodeError:
        return
    assert isinstance(message, Message)


def test_encoded_prediction_has_the_keys_of_the_sidecar() -> None:
    content = json.loads(encode_prediction(make_prediction(notes=["one"])))
    assert list(content) == [
        "session_id", "date", "pct_seen", "archetype_id", "confidence", "predicted_stats", "artifact_path", "notes",
        "classification_metadata",
    ]  # fmt: skip
    assert {
        "volatility_class", "range_p50", "dominant_htf_regime", "top_phases", "session_type_probabilities",
    } <= set(content["predicted_stats"])  # fmt: skip
    assert {
        "distance_to_centroid", "distance_metric", "confidence_method", "model_version", "timestamp",
    } <= set(content["classification_metadata"])  # fmt: skip
    assert content["predicted_stats"]["top_phases"] == [["expansion_phase", 0.5], ["liquidity_sweep", 0.1]]


def test_same_prediction_gives_the_same_bytes() -> None:
    assert encode_prediction(make_prediction()) == encode_prediction(make_prediction())


# ------------------------------------------------------------------------------------------------------------- nesting

#: Within a list in an object.
DEEPEST = MAX_JSON_DEPTH - 2


def nested(n: int, inside: str = "") -> bytes:
    return b'{"timestamp": 1, "more": [%s]}' % ("[" * n + inside + "]" * n).encode()


def deeper(n_frames: int, value: bytes) -> Message:
    """Decode from so many frames further down."""
    return decode_message(value) if n_frames == 0 else deeper(n_frames - 1, value)


@pytest.mark.parametrize("n_frames", [0, 300])
def test_nesting_is_bounded_wherever_it_is_decoded(n_frames: int) -> None:
    assert deeper(n_frames, nested(DEEPEST)).timestamp == 1
    for inside in ("", '"]]]]"', '"\\"]"'):
        with pytest.raises(RecordDecodeError, match=f"nested at most {MAX_JSON_DEPTH} deep, got {MAX_JSON_DEPTH + 1}"):
            deeper(n_frames, nested(DEEPEST + 1, inside))


def test_brackets_beside_each_other_or_in_texts_are_no_nesting() -> None:
    assert decode_message(b'{"timestamp": 1, "more": [%s[]]}' % (b"[{}]," * 1000)).timestamp == 1
    for text in ("[" * 1000, '\\"' + "[" * 1000, "\\\\\\" + '"' + "{" * 1000, "\\\\"):
        assert decode_message(b'{"timestamp": 1, "more": "%s"}' % text.encode()).timestamp == 1


@given(st.recursive(st.text() | st.none(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)))
def test_depth_is_that_of_the_value(value: object) -> None:
    def depth(one: object) -> int:
        if not isinstance(one, dict | list):
            return 0
        return 1 + max((depth(inner) for inner in (one.values() if isinstance(one, dict) else one)), default=0)

    for text in (json.dumps(value), json.dumps(value, ensure_ascii=False)):
        assert messages._depth(text.encode("utf-8", "surrogatepass")) == depth(value)


@pytest.mark.parametrize("n_open", [MAX_JSON_DEPTH, 1_000_000])
def test_brackets_that_never_close_are_no_message(n_open: int) -> None:
    with pytest.raises(RecordDecodeError):
        decode_message(b"[" * n_open)
