"""The sidecar, key for key: what consumers rely on stays as it is, whatever is added beside it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

import pytest
from jsonschema import Draft202012Validator

from stream_fp import create_online_classifier
from tests.support.builders import event, write_tiny_library

_SHARE: Final = {"type": "number", "minimum": 0, "maximum": 1}
_SHARES: Final = {"type": "object", "additionalProperties": _SHARE}
_POSITIVE_OR_NULL: Final = {"type": ["number", "null"], "minimum": 0}
_QUANTILES: Final = {
    "type": "object",
    "required": ["p10", "p50", "p90"],
    "additionalProperties": {"type": "number"},
}
#: Written by hand from the contract, not derived from the code that it checks.
SCHEMA: Final[dict[str, Any]] = {
    "type": "object",
    "required": [
        "session_id", "date", "pct_seen", "archetype_id", "confidence", "predicted_stats", "artifact_path", "notes",
        "classification_metadata",
    ],
    "additionalProperties": False,
    "properties": {
        "session_id": {"type": "string"},
        "date": {"type": "string", "pattern": r"^\d{4}-\d{2}-\d{2}$"},
        "pct_seen": {"type": "number", "minimum": 0, "maximum": 100},
        "archetype_id": {"type": "integer", "minimum": 0},
        "confidence": _SHARE,
        "predicted_stats": {
            "type": "object",
            "required": [
                "volatility_class", "range_p50", "dominant_htf_regime", "top_phases", "session_type_probabilities",
                "natural_units",
            ],
            "additionalProperties": False,
            "properties": {
                "volatility_class": {"enum": ["low", "medium", "high"]},
                "range_p50": {"type": "number"},
                "dominant_htf_regime": {"enum": [0, 1, 2]},
                "top_phases": {
                    "type": "array",
                    "items": {
                        "type": "array",
                        "prefixItems": [{"type": "string"}, {"type": "number"}],
                        "minItems": 2,
                        "maxItems": 2,
                    },
                },
                "session_type_probabilities": _SHARES,
                "natural_units": {
                    "type": "object",
                    "required": ["range_pct", "range_so_far_pct", "phase_rates_per_100_events", "rest"],
                    "additionalProperties": False,
                    "properties": {
                        "range_pct": _QUANTILES,
                        "range_so_far_pct": {"type": "number", "minimum": 0},
                        "phase_rates_per_100_events": {"type": "object", "additionalProperties": {"type": "number"}},
                        "rest": {
                            "type": "object",
                            "required": ["range_pct", "volatility_pct", "n_events", "efficiency", "phase_shares"],
                            "additionalProperties": False,
                            "properties": {
                                "range_pct": _POSITIVE_OR_NULL,
                                "volatility_pct": _POSITIVE_OR_NULL,
                                "n_events": _POSITIVE_OR_NULL,
                                "efficiency": {"type": ["number", "null"], "minimum": 0, "maximum": 1},
                                "phase_shares": {
                                    "type": "object",
                                    "required": [
                                        "fvg_interaction", "expansion_phase", "consolidation_phase",
                                        "retracement_event", "reversal_signal", "liquidity_sweep",
                                    ],
                                    "additionalProperties": {"type": ["number", "null"], "minimum": 0, "maximum": 1},
                                },
                            },
                        },
                    },
                },
            },
        },
        "artifact_path": {"type": "string"},
        "notes": {"type": "array", "items": {"type": "string"}, "minItems": 1},
        "classification_metadata": {
            "type": "object",
            "required": [
                "distance_to_centroid", "distance_metric", "confidence_method", "model_version", "timestamp",
                "completion_method", "checkpoint_pct", "assignment", "archetype_name", "probabilities",
            ],
            "additionalProperties": False,
            "properties": {
                "distance_to_centroid": {"type": "number", "minimum": 0},
                "distance_metric": {"enum": ["euclidean", "cosine", "mahalanobis"]},
                "confidence_method": {"enum": ["inverse_distance", "softmax", "calibrated"]},
                "model_version": {"type": "string"},
                "timestamp": {"type": "string", "pattern": r"^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}\.\d{6}$"},
                "completion_method": {"enum": ["declared", "schedule", "count", "unknown"]},
                "checkpoint_pct": {"type": "number"},
                "assignment": {"enum": ["prefix_model", "prefix_centroid", "full_centroid"]},
                "archetype_name": {"type": "string", "minLength": 1},
                "probabilities": _SHARES,
            },
        },
    },
}  # fmt: skip


@pytest.mark.parametrize("metric", ["euclidean", "cosine", "mahalanobis"])
@pytest.mark.parametrize("method", ["inverse_distance", "softmax", "calibrated"])
def test_sidecar_of_every_method_fits_the_contract(tmp_path: Path, metric: Any, method: Any) -> None:  # noqa: ANN401
    classifier = create_online_classifier(
        enabled=True,
        model_path=write_tiny_library(tmp_path / "v0.0.1"),
        distance_metric=metric,
        confidence_method=method,
    )
    document = {"session_metadata": {}, "events": [event(minute=minute) for minute in range(0, 120, 6)]}
    prediction = classifier.classify_partial_session(document, session_id="NY_AM_2025-07-29")
    assert prediction is not None
    path = classifier.write_sidecar(prediction, tmp_path / "run")
    assert path == tmp_path / "run" / "session_fingerprint.json"
    sidecar = json.loads(path.read_bytes())
    Draft202012Validator(SCHEMA).validate(sidecar)
    probabilities = sidecar["classification_metadata"]["probabilities"]
    assert sum(probabilities.values()) == pytest.approx(1, abs=1e-5)
    assert sidecar["confidence"] == probabilities[str(sidecar["archetype_id"])]
    band = sidecar["predicted_stats"]["natural_units"]["range_pct"]
    so_far = sidecar["predicted_stats"]["natural_units"]["range_so_far_pct"]
    assert so_far <= band["p10"] <= band["p50"] <= band["p90"]
    assert sidecar["notes"][0] == f"Early classification at {sidecar['pct_seen']}% completion"
