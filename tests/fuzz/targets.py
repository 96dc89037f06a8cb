"""What is fuzzed: each target takes bytes, makes an input of them, and raises where something undocumented happens.

Pure but for one folder that each target may write to. A target passes where its input is taken or refused with the
documented error; every other exception is a finding, and so is a broken invariant.
"""

from __future__ import annotations

import contextlib
import copy
import hashlib
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import msgspec

from stream_fp.api import OnlineClassifier, OnlineClassifierConfig
from stream_fp.classifier import Classifier
from stream_fp.config import ENV_PREFIX, Secret, load_settings
from stream_fp.documents import adapt_document
from stream_fp.engine import Engine
from stream_fp.engine_settings import EngineSettings
from stream_fp.errors import ConfigError, DocumentError, ModelError
from stream_fp.library import load_library
from stream_fp.messages import Prediction, encode_prediction
from stream_fp.outcomes import DeadLetter, Outcome, Published
from stream_fp.predictor import Predictor
from stream_fp.sessions import BYTES_PER_EVENT, BYTES_PER_SESSION
from stream_fp.stamps import IS_COMPILED
from tests.support.builders import Record, tiny_metadata, tiny_stats, write_library, write_tiny_library

__all__ = ["IS_COMPILED", "TARGETS", "Target"]

Target = Callable[[bytes], None]

#: Between records, and between key and value of one: no JSON holds these.
_RECORD_END: Final = b"\x1e"
_KEY_END: Final = b"\x1f"
#: Small, so that short inputs reach each bound.
_BOUNDS: Final[tuple[dict[str, Any], ...]] = (
    {},
    {"max_events_per_session": 3},
    {"max_open_sessions": 2},
    {"max_buffered_bytes": 2 * BYTES_PER_SESSION + 4 * BYTES_PER_EVENT},
    {"max_record_bytes": 200},
    {"timezone": "America/New_York", "checkpoints_pct": (25.0, 50.0)},
)
#: What a record does may depend on those before it; but a finding has to be found again from its input alone.
_RECORDS_AN_ENGINE: Final = 8
_decode_prediction: Final = msgspec.json.Decoder(Prediction).decode


def engine_target(folder: Path) -> Target:
    """Records: taken one by one and all at once, with each bound; and the state rebuilt from half-way on."""
    classifier = Classifier(load_library(write_tiny_library(folder / "v0.0.1")))
    library = classifier.library

    def new_engine(bounds: dict[str, Any], published: int = 0, watermark_us: int | None = None) -> Engine:
        return Engine(
            Predictor(classifier),
            EngineSettings(**{"min_events": 2, **bounds}),
            schedules=library.schedules,
            typical_events=library.typical_events,
            published_offset=published,
            watermark_us=watermark_us,
        )

    def target(data: bytes) -> None:
        bounds = _BOUNDS[data[0] % len(_BOUNDS)] if data else {}
        stream = list(_records(data[1:]))
        at_once, one_by_one = new_engine(bounds), new_engine(bounds)
        outcomes = list(at_once.process_all(stream))
        told: list[Outcome] = []
        middle, low = len(stream) // 2, (0, None)
        for record in stream:
            told += one_by_one.process(record)
            if record.offset == middle - 1 and one_by_one.low_offset is not None:
                low = one_by_one.low_offset  # type: ignore[assignment]
        _same([_content(one) for one in told], [_content(one) for one in outcomes], "one by one and at once")
        _same(one_by_one.counts, at_once.counts, "counts")
        counts = at_once.counts
        n_known = counts.applied + sum(counts.dead_lettered.values()) + sum(counts.ignored.values())
        _same(counts.consumed, n_known, "consumed and what became of it")
        _same(counts.consumed, len(stream), "consumed and given")
        if not bounds:  # at a bound on memory, who starts later may admit more
            again = new_engine(bounds, middle, low[1])
            rest = [one for one in again.process_all(stream[low[0] :]) if one.record.offset >= middle]
            _same(
                [_content(one) for one in rest],
                [_content(one) for one in outcomes if one.record.offset >= middle],
                "rebuilt and never stopped",
            )

    return target


def record_target(folder: Path) -> Target:
    """One record, of a session that is open or not, through an engine that lives on: quick, so that many are tried."""
    classifier = Classifier(load_library(write_tiny_library(folder / "v0.0.1")))
    library = classifier.library
    opening = b'{"timestamp": "2025-07-29T13:35:00Z", "event_type": "expansion", "price": 23162.25}'
    key = b"NY_AM_2025-07-29"

    def new_engine() -> Engine:
        engine = Engine(
            Predictor(classifier), EngineSettings(min_events=2), schedules=library.schedules,
            typical_events=library.typical_events,
        )  # fmt: skip
        engine.process(Record(0, key, opening))
        return engine

    engine = new_engine()

    def target(data: bytes) -> None:
        nonlocal engine
        found_key, has_value, value = data.partition(_KEY_END)
        offset = engine.position or 0
        before = engine.counts.consumed
        outcomes = engine.process(Record(offset, found_key or key, value if has_value else data))
        for outcome in outcomes:
            _content(outcome)
        counts = engine.counts
        n_known = counts.applied + sum(counts.dead_lettered.values()) + sum(counts.ignored.values())
        _same((counts.consumed, engine.position), (before + 1, offset + 1), "records taken")
        _same(counts.consumed, n_known, "consumed and what became of it")
        if offset >= _RECORDS_AN_ENGINE:
            engine = new_engine()

    return target


def document_target(folder: Path) -> Target:
    """Session documents, as JSON, through the library call."""
    classifier = OnlineClassifier(
        OnlineClassifierConfig(enabled=True, model_path=write_tiny_library(folder / "v0.0.1"), min_events=2)
    )

    def target(data: bytes) -> None:
        try:
            document = msgspec.json.decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return
        with contextlib.suppress(DocumentError):
            adapt_document(document)
            prediction = classifier.classify_partial_session(document, session_id="FUZZ_2025-07-29")
            if prediction is not None:
                _check_prediction(encode_prediction(prediction))

    return target


def settings_target(folder: Path) -> Target:
    """Settings files; and environments, of lines NAME=value."""
    file = folder / "settings.toml"

    def target(data: bytes) -> None:
        file.write_bytes(data)
        with contextlib.suppress(ConfigError):
            load_settings({}, {}, file)
        lines = data.decode("utf-8", "replace").split("\n")
        environment = {
            f"{ENV_PREFIX}{name.strip().upper()}": value for name, _, value in (x.partition("=") for x in lines)
        }
        with contextlib.suppress(ConfigError):
            settings = load_settings({}, environment)
            shown = [repr(msgspec.structs.replace(settings, sasl_password=Secret(text))) for text in ("one", "other")]
            assert shown == [repr(settings)] * 2, "the password is shown"

    return target


def artifacts_target(folder: Path) -> Target:
    """Libraries: a sound one in which bytes choose what to replace, with hashes that are right."""
    path = write_library(folder / "v0.0.1", tiny_metadata(), tiny_stats())

    def target(data: bytes) -> None:
        metadata, stats = tiny_metadata_of(path)
        chooser = _Chooser(data)
        for _ in range(1 + chooser.below(3)):
            _spoil(stats if chooser.below(4) == 0 else metadata, chooser)
        content = msgspec.json.encode(stats)
        (path / "cluster_stats.json").write_bytes(content)
        if isinstance(hashes := metadata.get("sha256"), dict):
            hashes["cluster_stats.json"] = hashlib.sha256(content).hexdigest()
        (path / "metadata.json").write_bytes(msgspec.json.encode(metadata))
        with contextlib.suppress(ModelError):
            load_library(path)
        (path / "metadata.json").write_bytes(data)
        with contextlib.suppress(ModelError):
            load_library(path)

    return target


def bars_target(folder: Path) -> Target:
    """Files of bars: CSV."""
    from offline.bars import read_bars  # noqa: PLC0415 - polars takes a while

    file = folder / "bars.csv"

    def target(data: bytes) -> None:
        file.write_bytes(data)
        with contextlib.suppress(ConfigError, DocumentError):
            read_bars(file)

    return target


TARGETS: Final[dict[str, Callable[[Path], Target]]] = {
    "engine": engine_target,
    "records": record_target,
    "documents": document_target,
    "settings": settings_target,
    "artifacts": artifacts_target,
    "bars": bars_target,
}


# -------------------------------------------------------------------------------------------------------- the details


def _records(data: bytes) -> Iterator[Record]:
    for offset, one in enumerate(data.split(_RECORD_END)):
        key, has_value, value = one.partition(_KEY_END)
        yield Record(offset, key or None, value if has_value else None)


def _content(outcome: Outcome) -> tuple[object, ...]:
    match outcome:
        case Published():
            value = encode_prediction(outcome.prediction)
            _check_prediction(value)
            return outcome.record.offset, outcome.key, value
        case DeadLetter():
            assert outcome.message
            assert len(outcome.message) < 10_000, "a reason that is as long as a record"
            return outcome.record.offset, outcome.error_class, outcome.message


def _check_prediction(value: bytes) -> None:
    prediction = _decode_prediction(value)
    assert 0 <= prediction.confidence <= 1, prediction.confidence
    assert math.isclose(sum(prediction.classification_metadata.probabilities.values()), 1, abs_tol=1e-4)
    quantiles = prediction.predicted_stats.natural_units.range_pct
    assert 0 <= quantiles.p10 <= quantiles.p50 <= quantiles.p90, quantiles


def _same(one: object, other: object, what: str) -> None:
    if one != other:
        msg = f"{what} differ:\n{one}\n{other}"
        raise AssertionError(msg)


class _Chooser:
    """Choices that bytes make; zeros once there are none left."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def below(self, n: int) -> int:
        """Return a number in [0, n)."""
        if n <= 1:
            return 0
        n_bytes = 1 if n <= 256 else 2
        chosen = int.from_bytes(self._data[self._at : self._at + n_bytes], "big")
        self._at += n_bytes
        return chosen % n


_ODD: Final[tuple[Any, ...]] = (
    None, True, 0, -1, 1, 3, 2**31, 2**63, -(2**63), 10**30, 1e308, -1e308, 1e-320, 1.5, "", "x", "x" * 1000,
    "../../etc/passwd", "\u0000", "NaN", [], [[]], [None], [1.0], [1.0] * 31, {}, {"": {}}, {"x": [1]},
)  # fmt: skip


def _spoil(document: Any, chooser: _Chooser) -> None:  # noqa: ANN401 - JSON
    """Walk into a document and replace, remove, repeat or exchange something."""
    where = document
    while True:
        keys: list[Any] = list(where) if isinstance(where, dict) else list(range(len(where)))
        if not keys:
            return
        key = keys[chooser.below(len(keys))]
        inner = where[key]
        if isinstance(inner, dict | list) and inner and chooser.below(4):
            where = inner
            continue
        match chooser.below(4):
            case 0:
                del where[key]
            case 1 if isinstance(where, list):
                where.append(inner)
            case 2:
                where[key] = where[keys[chooser.below(len(keys))]]
            case _:
                where[key] = copy.deepcopy(_ODD[chooser.below(len(_ODD))])  # the next step may spoil it
        return


def tiny_metadata_of(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return sound metadata, with hashes of the pickles that lie at `path`, and statistics; both may be spoilt."""
    metadata, stats = tiny_metadata(), tiny_stats()
    metadata["sha256"] = {
        name: hashlib.sha256((path / name).read_bytes()).hexdigest() for name in ("kmeans_model.pkl", "scaler.pkl")
    }
    return metadata, stats
