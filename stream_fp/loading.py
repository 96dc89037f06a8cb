"""The classifier that the settings name: where settings and artifacts meet, for service and replay alike."""

from __future__ import annotations

from pathlib import Path

from stream_fp.classifier import Classifier
from stream_fp.config import Settings
from stream_fp.errors import ConfigError
from stream_fp.library import load_library

__all__ = ["load_classifier"]


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
