"""What the settings name is loaded here: the classifier, for service and replay alike, and what is optional."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from stream_fp.classifier import Classifier
from stream_fp.config import Settings
from stream_fp.errors import ConfigError
from stream_fp.library import load_library

if TYPE_CHECKING:
    from stream_fp.kafka.tracing import Tracing

__all__ = ["load_classifier", "load_tracing"]


def load_classifier(settings: Settings) -> Classifier:
    """Load the library that the settings name and return its classifier.

    Raises
    ------
    ConfigError
        When no library is named.
    ModelNotFoundError, ModelLoadError, FeatureDimensionError
        When it cannot be used.
    """
    if not settings.model_path:
        raise ConfigError("model_path", "expected the folder of a trained library, got none")
    return Classifier(
        load_library(Path(settings.model_path)),
        distance_metric=settings.distance_metric,
        confidence_method=settings.confidence_method,
        assignment=settings.assignment,
    )


def load_tracing(settings: Settings) -> Tracing | None:
    """Return what makes traces, or None where tracing is off; then nothing of it is imported.

    Raises
    ------
    ConfigError
        When it is on and OpenTelemetry is not installed.
    """
    if settings.tracing == "off":
        return None
    try:
        from stream_fp.kafka.tracing import open_tracing  # noqa: PLC0415 - an extra
    except ModuleNotFoundError as error:
        raise ConfigError(
            "tracing", f"needs `{error.name}`, which is not installed: pip install 'stream-fp[otel]'"
        ) from error
    try:
        return open_tracing(settings)
    except ValueError as error:
        raise ConfigError("tracing", f"OpenTelemetry does not take one of its variables (OTEL_...): {error}") from error
