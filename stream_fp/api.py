"""The library call: classify one partial session given as a document.

Drives the same engine as the service, with one session in it.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

import msgspec

from stream_fp.classifier import AssignmentMethod, Classifier, ConfidenceMethod, DistanceMetric
from stream_fp.completion import CompletionPolicy
from stream_fp.documents import AdaptedDocument, adapt_document
from stream_fp.engine import Engine, EngineSettings
from stream_fp.errors import ConfigError
from stream_fp.files import FileRecord
from stream_fp.library import load_library
from stream_fp.messages import Prediction, encode_prediction
from stream_fp.outcomes import DeadLetter, Published
from stream_fp.predictor import Predictor
from stream_fp.sinks import minidash
from stream_fp.sinks.sidecar import SIDECAR_NAME, write_atomically

__all__ = ["OnlineClassifier", "OnlineClassifierConfig", "create_online_classifier"]

_logger = logging.getLogger("stream_fp")


class OnlineClassifierConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What an `OnlineClassifier` was created with."""

    enabled: bool = False
    model_path: Path | None = None
    completion_threshold: float = 30.0
    distance_metric: DistanceMetric = "euclidean"
    confidence_method: ConfidenceMethod = "softmax"
    assignment: AssignmentMethod = "auto"
    completion: CompletionPolicy = "auto"
    min_events: int = 5
    write_minidash_row: bool = False


class OnlineClassifier:
    """Classifies partial sessions; disabled, it loads nothing and answers None.

    Parameters
    ----------
    config : OnlineClassifierConfig

    Raises
    ------
    ModelNotFoundError, ModelLoadError, FeatureDimensionError
        When enabled and the artifacts are missing, damaged or built for other features.
    """

    def __init__(self, config: OnlineClassifierConfig) -> None:
        self.config = config
        self._classifier: Classifier | None = None
        if not config.enabled:
            return
        if config.model_path is None:
            raise ConfigError("model_path", "expected the folder of a trained library, got none")
        self._classifier = Classifier(
            load_library(Path(config.model_path)),
            distance_metric=config.distance_metric,
            confidence_method=config.confidence_method,
            assignment=config.assignment,
        )

    def classify_partial_session(
        self,
        session_data: Mapping[str, Any],
        session_id: str | None = None,
        target_completion_pct: float | None = None,
    ) -> Prediction | None:
        """Say what a session is becoming, from its events up to a completion.

        Parameters
        ----------
        session_data : mapping
            A session document (see `stream_fp.documents`), finished or not. Events after the one that reaches the
            target do not matter; where none reaches it, all events are used and a note says so.
        session_id : str, optional
            Else it is made from the metadata.
        target_completion_pct : float, optional
            In (0, 100]; by default the `completion_threshold` of the configuration.

        Returns
        -------
        Prediction or None
            None when disabled, or when there are fewer than `min_events` events up to the target.

        Raises
        ------
        DocumentError
            When `session_data` is not of the documented shape.
        ConfigError
            When the target is out of range.
        """
        if self._classifier is None:
            return None
        target_pct = _checked_pct(
            "target_completion_pct",
            self.config.completion_threshold if target_completion_pct is None else target_completion_pct,
        )
        document = adapt_document(session_data, session_id=session_id, finished=False)
        library = self._classifier.library
        engine = Engine(
            Predictor(self._classifier),
            EngineSettings(
                checkpoints_pct=(target_pct,), completion=self.config.completion, min_events=self.config.min_events
            ),
            schedules=library.schedules,
            typical_events=library.typical_events,
        )
        prediction, n_used = _first_prediction(engine, document)
        n_imputed = sum(document.n_imputed_by_message[:n_used])
        if prediction is not None and n_imputed:
            note = f"{n_imputed} non-finite values imputed"
            prediction = msgspec.structs.replace(prediction, notes=[*prediction.notes, note])
        if prediction is not None and len(prediction.notes) > 1:
            _logger.warning("session %s: %s", prediction.session_id, "; ".join(prediction.notes[1:]))
        return prediction

    def write_sidecar(self, prediction: Prediction, run_dir: Path | str) -> Path:
        """Write ``<run_dir>/session_fingerprint.json`` atomically and return its path."""
        path = Path(run_dir) / SIDECAR_NAME
        write_atomically(path, encode_prediction(prediction))
        return path

    def write_minidash_row(self, prediction: Prediction, minidash_path: Path | str) -> None:
        """Put a row for the prediction on the HTML page at `minidash_path`, which is made where it is missing."""
        minidash.write_row(prediction, Path(minidash_path))


def create_online_classifier(
    *,
    enabled: bool = False,
    model_path: Path | str | None = None,
    completion_threshold: float = 30.0,
    distance_metric: DistanceMetric = "euclidean",
    confidence_method: ConfidenceMethod = "softmax",
    assignment: AssignmentMethod = "auto",
    completion: CompletionPolicy = "auto",
    min_events: int = 5,
    write_minidash_row: bool = False,
) -> OnlineClassifier:
    """Create a classifier for partial sessions; see `OnlineClassifier` and `Classifier` for the choices.

    Raises
    ------
    ConfigError
        When a choice is not one of those listed, or the threshold is out of range.
    ModelNotFoundError, ModelLoadError, FeatureDimensionError
        When enabled and the artifacts are missing, damaged or built for other features.
    """
    for name, value, choices in (
        ("distance_metric", distance_metric, get_args(DistanceMetric)),
        ("confidence_method", confidence_method, get_args(ConfidenceMethod)),
        ("assignment", assignment, get_args(AssignmentMethod)),
        ("completion", completion, get_args(CompletionPolicy)),
    ):
        if value not in choices:
            raise ConfigError(name, f"expected one of {', '.join(choices)}, got {value!r}")
    given: Any = min_events
    if not isinstance(given, int) or given < 1:
        raise ConfigError("min_events", f"expected a whole number of at least 1, got {min_events!r}")
    return OnlineClassifier(
        OnlineClassifierConfig(
            enabled=enabled,
            model_path=None if model_path is None else Path(model_path),
            completion_threshold=_checked_pct("completion_threshold", completion_threshold),
            distance_metric=distance_metric,
            confidence_method=confidence_method,
            assignment=assignment,
            completion=completion,
            min_events=min_events,
            write_minidash_row=write_minidash_row,
        )
    )


def _checked_pct(setting: str, value: Any) -> float:  # noqa: ANN401 - whatever the caller gave
    if not isinstance(value, int | float) or not 0 < value <= 100:
        raise ConfigError(setting, f"expected a percentage above 0 and up to 100, got {value!r}")
    return float(value)


def _first_prediction(engine: Engine, document: AdaptedDocument) -> tuple[Prediction | None, int]:
    """Return the first prediction and how many messages it took."""
    key = document.session_id.encode()
    for offset, message in enumerate(document.messages):
        for outcome in engine.process(FileRecord(offset, key, msgspec.json.encode(message))):
            match outcome:
                case Published():
                    return outcome.prediction, offset + 1
                case DeadLetter():
                    _logger.warning("session %s: event left out: %s", document.session_id, outcome.message)
    forecast = engine.finish_partial(key)
    return None if forecast is None else forecast.prediction, len(document.messages)
