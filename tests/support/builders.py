"""Small things that tests of the core are made of: messages, records, a forecaster that remembers, a tiny library.

Nothing here is trained and nothing is random without a seed: the tiny library is written by hand, so that a test
can spoil one number of it and expect one error.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

import msgspec
import numpy as np

from stream_fp.completion import DEFAULT_SCHEDULES, Schedule
from stream_fp.engine import Engine, EngineSettings, Forecaster
from stream_fp.features import FEATURE_NAMES, N_FEATURES, SCHEMA_VERSION
from stream_fp.library import Library, load_library
from stream_fp.messages import (
    ClassificationMetadata,
    NaturalUnits,
    PredictedStats,
    Prediction,
    Quantiles,
    RestOfSession,
    encode_prediction,
)
from stream_fp.outcomes import DeadLetter, Published
from stream_fp.phases import PHASES
from stream_fp.predictor import Forecast
from stream_fp.prefix_model import OUTCOMES, QUANTILES
from stream_fp.times import format_us

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    import numpy.typing as npt

    from stream_fp.outcomes import Outcome
    from stream_fp.sessions import Session

#: A session of a scheduled type: 09:30 to 11:59 in New York, 13:30 to 15:59 UTC, so 30 % is at minute 44.7.
SESSION_ID: Final = "NY_AM_2025-07-29"
SESSION_START: Final = datetime(2025, 7, 29, 13, 30, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Record:
    """One record as a source hands it to the engine."""

    offset: int
    key: bytes | None
    value: bytes | None


def at(minute: float) -> str:
    """Return the ISO time stamp (UTC, with offset) of a minute after the start of `SESSION_ID`."""
    return (SESSION_START + timedelta(minutes=minute)).isoformat()


def us_at(minute: float) -> int:
    """Return the same moment in microseconds since 1970."""
    return (SESSION_START + timedelta(minutes=minute) - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


def event(
    session_id: str | None = SESSION_ID,
    minute: float = 0.0,
    *,
    event_type: str = "expansion",
    price: float | None = 100.0,
    **fields: Any,  # noqa: ANN401 - whatever a producer may put there
) -> dict[str, Any]:
    """Build an event message; `fields` override and add."""
    message: dict[str, Any] = {"timestamp": at(minute), "event_type": event_type, "price": price, **fields}
    return message if session_id is None else {"session_id": session_id, **message}


def start(session_id: str = SESSION_ID, **metadata: Any) -> dict[str, Any]:  # noqa: ANN401 - as above
    """Build a ``session_start`` message."""
    return {"kind": "session_start", "session_id": session_id, "session_metadata": metadata}


def end(session_id: str = SESSION_ID, minute: float | None = None) -> dict[str, Any]:
    """Build a ``session_end`` message, with a time stamp where a minute is given."""
    message: dict[str, Any] = {"kind": "session_end", "session_id": session_id}
    return message if minute is None else {**message, "timestamp": at(minute)}


def record(offset: int, message: Mapping[str, Any] | bytes, *, key: bytes | None = None) -> Record:
    """Build a record of a message; its key is the message's session id unless one is given."""
    if isinstance(message, bytes):
        return Record(offset, key, message)
    session_id = message.get("session_id")
    if key is None and session_id is not None:
        key = session_id.encode()
    return Record(offset, key, msgspec.json.encode(message))


def records(messages: Iterable[Mapping[str, Any]], *, first_offset: int = 0) -> list[Record]:
    """Build the records of messages, at ascending offsets."""
    return [record(offset, message) for offset, message in enumerate(messages, first_offset)]


# ------------------------------------------------------------------------------------------------------ the engine


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """What a forecaster was shown of a session, copied."""

    session_id: str
    checkpoint_pct: float
    times_us: npt.NDArray[np.int64]
    prices: npt.NDArray[np.float64]
    intensities: npt.NDArray[np.float64]
    codes: npt.NDArray[np.uint8]


@dataclass(slots=True)
class RecordingForecaster:
    """Remembers what it is asked, and answers with a prediction that differs wherever anything it saw differs."""

    seen: list[Seen] = field(default_factory=list)
    closures: list[tuple[str, str]] = field(default_factory=list)
    full: dict[str, Seen] = field(default_factory=dict)

    def forecast(self, session: Session, checkpoint_pct: float) -> Forecast | None:
        """Answer with a digest of all columns in the notes."""
        copied = _copied(session, checkpoint_pct)
        self.seen.append(copied)
        columns = (copied.times_us, copied.prices, copied.intensities, copied.codes)
        digest = hashlib.sha256(b"".join(column.tobytes() for column in columns)).hexdigest()
        facts = f"{session.first_offset} {session.n_events} {session.n_untimed} {session.facts}"
        prediction = make_prediction(
            session_id=session.id,
            checkpoint_pct=checkpoint_pct,
            pct_seen=session.completion_pct,
            timestamp=format_us(session.event_time_us),
            completion_method=session.yardstick.method,
            notes=[digest, facts],
        )
        return Forecast(prediction=prediction, extraction_ns=0, classification_ns=0)

    def closed(self, session: Session, reason: str) -> None:
        """Note the end of a session, and keep the events that it still holds."""
        self.closures.append((session.id, reason))
        if session.n_held:
            self.full[session.id] = _copied(session, 100.0)


def _copied(session: Session, checkpoint_pct: float) -> Seen:
    columns = session.columns()
    return Seen(
        session_id=session.id,
        checkpoint_pct=checkpoint_pct,
        times_us=columns.times_us.copy(),
        prices=columns.prices.copy(),
        intensities=columns.intensities.copy(),
        codes=columns.codes.copy(),
    )


def make_prediction(
    *,
    session_id: str = SESSION_ID,
    checkpoint_pct: float = 30.0,
    pct_seen: float = 30.0,
    timestamp: str = "2025-07-29T14:15:00.000000",
    completion_method: str = "schedule",
    notes: Sequence[str] = (),
    model_version: str = "0.0.1",
) -> Prediction:
    """Build a prediction without a model."""
    return Prediction(
        session_id=session_id,
        date=timestamp[:10],
        pct_seen=pct_seen,
        archetype_id=1,
        confidence=0.5,
        predicted_stats=PredictedStats(
            volatility_class="medium",
            range_p50=0.25,
            dominant_htf_regime=1,
            top_phases=[("expansion_phase", 0.5), ("liquidity_sweep", 0.1)],
            session_type_probabilities={"ny_am": 1.0},
            natural_units=NaturalUnits(
                range_pct=Quantiles(p10=0.2, p50=0.5, p90=1.0),
                range_so_far_pct=0.15,
                phase_rates_per_100_events={"expansion_phase": 30.0},
                rest=RestOfSession(
                    range_pct=0.4,
                    volatility_pct=0.02,
                    n_events=40.0,
                    efficiency=None,
                    phase_shares={"expansion_phase": 0.3, "liquidity_sweep": None},
                ),
            ),
        ),
        artifact_path="models/tiny",
        notes=list(notes),
        classification_metadata=ClassificationMetadata(
            distance_to_centroid=1.5,
            distance_metric="euclidean",
            confidence_method="softmax",
            model_version=model_version,
            timestamp=timestamp,
            completion_method=completion_method,
            checkpoint_pct=checkpoint_pct,
            assignment="prefix_model",
            archetype_name="calm drift",
            probabilities={"0": 0.2, "1": 0.5, "2": 0.3},
        ),
    )


def make_engine(
    forecaster: Forecaster | None = None,
    *,
    schedules: dict[str, Schedule] | None = None,
    typical_events: dict[str, float] | None = None,
    published_offset: int = 0,
    watermark_us: int | None = None,
    already_told: Callable[[Session, float], bool] | None = None,
    **settings: Any,  # noqa: ANN401 - fields of `EngineSettings`
) -> Engine:
    """Build an engine with the default schedules; further arguments are fields of its settings."""
    return Engine(
        RecordingForecaster() if forecaster is None else forecaster,
        EngineSettings(**settings),
        schedules=DEFAULT_SCHEDULES if schedules is None else schedules,
        typical_events={} if typical_events is None else typical_events,
        published_offset=published_offset,
        watermark_us=watermark_us,
        already_told=already_told,
    )


def run(engine: Engine, stream: Iterable[Record]) -> list[Outcome]:
    """Process records and return all outcomes."""
    return [outcome for one in stream for outcome in engine.process(one)]


def describe(outcome: Outcome) -> tuple[int, bytes | None, bytes]:
    """Return all of an outcome that would reach Kafka, in comparable form: offset, key, content."""
    match outcome:
        case Published():
            return outcome.record.offset, outcome.key, encode_prediction(outcome.prediction)
        case DeadLetter():
            content = f"{outcome.stage} {outcome.error_class} {outcome.message}".encode()
            return outcome.record.offset, outcome.record.key, content


# ----------------------------------------------------------------------------------------------------- the library

N_ARCHETYPES: Final = 3
#: Types that the prefix models of the tiny library know; that of `SESSION_ID` is among them.
SESSION_TYPES: Final = ("lunch", "ny_am")
#: Features that tell its archetypes apart.
TELLING: Final = (2, 9, 13)
_N_INPUTS: Final = 1 + N_FEATURES + len(SESSION_TYPES)
_N_KNOWN: Final = _N_INPUTS + N_ARCHETYPES
#: What the rest is usually like: logarithms of 0.6 % of range, 0.03 % between events and 40 events, then shares.
_USUAL_REST: Final = (-0.5, -3.5, 3.7, 0.2, 0.1, 0.2, 0.05, 0.1, 0.05, 0.05)
#: How far the range usually still grows, in ranges of the rest: P10, P50, P90.
_USUAL_GROWTH: Final = (0.1, 0.5, 1.1)


def tiny_metadata() -> dict[str, Any]:
    """Return ``metadata.json`` of a library of three archetypes, as a dictionary to spoil; hashes come on writing."""
    rng = np.random.default_rng(7)
    full = rng.normal(size=(N_ARCHETYPES, N_FEATURES))
    precise = np.diag(np.linspace(0.5, 2.0, N_FEATURES)).tolist()
    return {
        "model_version": "0.0.1",
        "created_at": "2025-01-01T00:00:00",
        "feature_schema_version": SCHEMA_VERSION,
        "feature_names": list(FEATURE_NAMES),
        "n_archetypes": N_ARCHETYPES,
        "seed": 7,
        "scaler": _scaler(rng),
        "feature_weights": [1.0 if place in TELLING else 0.5 for place in range(N_FEATURES)],
        "centroids": full.tolist(),
        "range_terciles_pct": [0.4, 0.8],
        "assignment": "prefix_model",
        "selection": [
            {
                "profile": "pace",
                "n_archetypes": N_ARCHETYPES,
                "stability_ari": 0.8,
                "silhouette": 0.3,
                "smallest": 0.2,
                "largest": 0.5,
                "rest_r2_true": 0.3,
                "rest_r2_predicted": 0.2,
                "range_r2": 0.4,
                "net_move_r2": 0.1,
                "phases_r2": 0.2,
                "log_loss_ratio": 0.7,
                "is_eligible": True,
                "is_chosen": True,
            }
        ],
        "stability": {
            "features": list(TELLING),
            "centroids": (full[:, TELLING] + rng.normal(scale=0.1, size=(2, N_ARCHETYPES, len(TELLING)))).tolist(),
        },
        "prefix_models": [_prefix_model(rng, full, 50.0, None), _prefix_model(rng, full, 30.0, precise)],
        "completion": "auto",
        "min_events": 5,
        "schedules": {"ny_am": {"start": "09:30:00", "end": "11:59:00", "timezone": "America/New_York"}},
        "typical_events": {"ny_am": 60.0},
        "training": {
            "n_sessions": 12,
            "n_skipped": {},
            "n_events": 600,
            "first_date": "2025-01-01",
            "last_date": "2025-01-31",
            "sessions_by_type": {"ny_am": 12},
            "feature_ranges": dict.fromkeys(FEATURE_NAMES, (0.0, 1.0)),
        },
        "libraries": {"numpy": "2"},
        "sha256": {},
    }


def _prefix_model(
    rng: np.random.Generator, full: npt.NDArray[np.float64], checkpoint_pct: float, precision: list[list[float]] | None
) -> dict[str, Any]:
    """Return one prefix model whose forecasts depend on every input, but on none so much that they leave all bounds."""
    m = len(TELLING)
    rest = rng.normal(scale=0.01, size=(_N_KNOWN, len(OUTCOMES)))
    rest[0] = _USUAL_REST
    growth = rng.normal(scale=0.01, size=(_N_KNOWN + 2, len(QUANTILES)))
    growth[0] = _USUAL_GROWTH
    return {
        "checkpoint_pct": checkpoint_pct,
        "n_sessions": 12,
        "archetype_ids": list(range(N_ARCHETYPES)),
        "scaler": _scaler(rng),
        "centroids": (full + rng.normal(scale=0.3, size=full.shape)).tolist(),
        "precision": precision,
        "covariance_shrinkage": None if precision is None else 0.5,
        "temperatures": {"euclidean": 0.5, "cosine": 0.1, "mahalanobis": 0.7},
        "inputs": {
            "center": rng.normal(size=N_FEATURES).tolist(),
            "scale": rng.uniform(0.5, 2.0, size=N_FEATURES).tolist(),
            "clip": 4.0,
            "session_types": list(SESSION_TYPES),
        },
        "membership": {
            "features": list(TELLING),
            "fingerprint": rng.normal(scale=0.1, size=(_N_INPUTS, m)).tolist(),
            "logits": rng.normal(
                scale=0.3, size=(1 + m + m * (m + 1) // 2 + len(SESSION_TYPES), N_ARCHETYPES)
            ).tolist(),
        },
        "rest": {
            "outcomes": list(OUTCOMES),
            "coefficients": rest.tolist(),
            "quantile_coefficients": growth.tolist(),
            "quantile_shifts": [-0.02, 0.0, 0.03],
        },
        "baselines": _baselines(),
    }


def _baselines() -> dict[str, Any]:
    usual = list(_USUAL_REST)
    return {
        "session_types": ["ny_am"],
        "archetype_counts": [[[1, 1, 0], [2, 2, 2], [0, 1, 3]]],
        "rest_mean": usual,
        "rest_by_type": [usual],
        "rest_by_type_regime": [[[None] * len(OUTCOMES), usual, usual]],
        "rest_by_archetype": [[-0.1] * len(OUTCOMES), [0.0] * len(OUTCOMES), [0.1] * len(OUTCOMES)],
        "range_ratio_quantiles": [[1.1, 1.5, 2.5]] * 2,
        "range_quantiles": [[0.2, 0.6, 1.4]] * 2,
    }


def _scaler(rng: np.random.Generator) -> dict[str, Any]:
    return {
        "kind": "robust",
        "center": rng.normal(size=N_FEATURES).tolist(),
        "scale": rng.uniform(0.5, 2.0, size=N_FEATURES).tolist(),
    }


def tiny_stats() -> dict[str, Any]:
    """Return ``cluster_stats.json`` of the same library."""
    return {
        "model_version": "0.0.1",
        "archetypes": [
            {
                "archetype_id": i,
                "name": ("calm drift", "steady trend", "wild swings")[i],
                "n_sessions": 4,
                "volatility_class": ("low", "medium", "high")[i],
                "range_p50": i / 10,
                "dominant_htf_regime": i,
                "top_phases": [["expansion_phase", 0.5], ["reversal_signal", 0.25]],
                "session_type_probabilities": {"ny_am": 1.0},
                "natural_units": {
                    "range_pct": {"p10": 0.1, "p50": 0.5, "p90": 1.5},
                    "phase_rates_per_100_events": dict.fromkeys(PHASES, 12.0),
                    "efficiency": 0.2,
                    "events_per_hour": 24.0,
                },
            }
            for i in range(N_ARCHETYPES)
        ],
    }


def write_library(directory: Path, metadata: dict[str, Any], stats: dict[str, Any]) -> Path:
    """Write the four artifact files with right hashes and return `directory`.

    The two pickles hold bytes that are no pickle: whoever unpickles them fails.
    """
    directory.mkdir(parents=True, exist_ok=True)
    stats_bytes = json.dumps(stats).encode()
    contents = {"cluster_stats.json": stats_bytes, "kmeans_model.pkl": b"no pickle", "scaler.pkl": b"nor this"}
    hashes = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
    contents["metadata.json"] = json.dumps({**metadata, "sha256": {**hashes, **metadata["sha256"]}}).encode()
    for name, content in contents.items():
        (directory / name).write_bytes(content)
    return directory


def write_tiny_library(directory: Path) -> Path:
    """Write a valid library of three archetypes and return `directory`."""
    return write_library(directory, tiny_metadata(), tiny_stats())


def tiny_library(directory: Path) -> Library:
    """Write and load the tiny library."""
    return load_library(write_tiny_library(directory))
