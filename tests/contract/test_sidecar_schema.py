"""The sidecar, key for key: what consumers rely on stays as it is, whatever is added beside it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

import pytest
from jsonschema import Draft202012Validator

from stream_fp import create_online_classifier
from tests.support.builders import event, tiny_metadata, tiny_stats, write_library

_SHARE: Final = {"type": "number", "minimum": 0, "maximum": 1}
_SHARES: Final = {"type": "object", "additionalProperties": _SHARE}
_POSITIVE_OR_NULL: Final = {"type": ["number", "null"], "minimum": 0}
_NOT_NEGATIVE: Final = {"type": "number", "minimum": 0}
#: null where training could not learn it.
_NOT_NEGATIVE_IF_KNOWN: Final = {"type": ["number", "null"], "minimum": 0}
_SHARE_IF_KNOWN: Final = {"type": ["number", "null"], "minimum": 0, "maximum": 1}
_PHASES: Final = (
    "fvg_interaction", "expansion_phase", "consolidation_phase", "retracement_event", "reversal_signal",
    "liquidity_sweep",
)  # fmt: skip


def _of_each_phase(what: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "required": list(_PHASES),
        "additionalProperties": False,
        "properties": dict.fromkeys(_PHASES, what),
    }


def _exactly(**properties: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "required": list(properties),
        "additionalProperties": False,
        "properties": properties,
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
                    "maxItems": 3,
                    "items": {
                        "type": "array",
                        "prefixItems": [{"enum": list(_PHASES)}, {"type": "number"}],
                        "minItems": 2,
                        "maxItems": 2,
                    },
                },
                "session_type_probabilities": _SHARES,
                "natural_units": _exactly(
                    range_pct=_exactly(p10=_NOT_NEGATIVE, p50=_NOT_NEGATIVE, p90=_NOT_NEGATIVE),
                    range_so_far_pct=_NOT_NEGATIVE,
                    phase_rates_per_100_events=_of_each_phase({"type": "number", "minimum": 0, "maximum": 100}),
                    rest=_exactly(
                        range_pct=_NOT_NEGATIVE_IF_KNOWN,
                        volatility_pct=_NOT_NEGATIVE_IF_KNOWN,
                        n_events=_NOT_NEGATIVE_IF_KNOWN,
                        efficiency=_SHARE_IF_KNOWN,
                        phase_shares=_of_each_phase(_SHARE_IF_KNOWN),
                    ),
                ),
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


def sidecar_of(tmp_path: Path, metadata: dict[str, Any], **choices: Any) -> dict[str, Any]:  # noqa: ANN401
    """Classify the first part of a session, and return the sidecar as a consumer reads it."""
    model_path = write_library(tmp_path / "v0.0.1", metadata, tiny_stats())
    classifier = create_online_classifier(enabled=True, model_path=model_path, **choices)
    document = {
        "session_metadata": {},
        "events": [event(minute=minute, price=100 + minute % 5 / 10) for minute in range(0, 120, 6)],
    }
    prediction = classifier.classify_partial_session(document, session_id="NY_AM_2025-07-29")
    assert prediction is not None
    path = classifier.write_sidecar(prediction, tmp_path / "run")
    assert path == tmp_path / "run" / "session_fingerprint.json"
    sidecar: dict[str, Any] = json.loads(path.read_bytes())
    Draft202012Validator(SCHEMA).validate(sidecar)
    return sidecar


@pytest.mark.parametrize("metric", ["euclidean", "cosine", "mahalanobis"])
@pytest.mark.parametrize("method", ["inverse_distance", "softmax", "calibrated"])
@pytest.mark.parametrize("assignment", ["auto", "prefix_model", "prefix_centroid", "full_centroid"])
def test_sidecar_of_every_method_fits_the_contract(tmp_path: Path, metric: str, method: str, assignment: str) -> None:
    sidecar = sidecar_of(
        tmp_path, tiny_metadata(), distance_metric=metric, confidence_method=method, assignment=assignment
    )
    how = sidecar["classification_metadata"]
    assert how["assignment"] == assignment or assignment == "auto"
    # The prefix model has no distances to share out.
    is_share = how["assignment"] != "prefix_model"
    assert how["confidence_method"] == (method if is_share or method != "inverse_distance" else "calibrated")
    probabilities = how["probabilities"]
    assert sum(probabilities.values()) == pytest.approx(1, abs=1e-5)
    assert sidecar["confidence"] == probabilities[str(sidecar["archetype_id"])]
    assert sidecar["notes"][0] == f"Early classification at {sidecar['pct_seen']}% completion"
    assert how["archetype_name"] == ("calm drift", "steady trend", "wild swings")[sidecar["archetype_id"]]
    units = sidecar["predicted_stats"]["natural_units"]
    band = units["range_pct"]
    assert 0 < units["range_so_far_pct"] <= band["p10"] <= band["p50"] <= band["p90"]
    assert sum(units["phase_rates_per_100_events"].values()) <= 100.001
    assert sum(units["rest"]["phase_shares"].values()) <= 1.001
    assert None not in units["rest"].values()


def test_sidecar_of_a_library_that_learned_nothing_of_the_rest_fits_the_contract(tmp_path: Path) -> None:
    metadata = tiny_metadata()
    for model in metadata["prefix_models"]:
        model["rest"] = {
            "outcomes": [], "coefficients": [], "quantile_coefficients": [], "quantile_shifts": [0, 0, 0]
        }  # fmt: skip
    units = sidecar_of(tmp_path, metadata)["predicted_stats"]["natural_units"]
    assert units["rest"].pop("phase_shares") == dict.fromkeys(_PHASES)
    assert set(units["rest"].values()) == {None}
    assert units["range_pct"]["p50"] == 0.5  # what such sessions were like


@pytest.mark.parametrize(
    "path",
    [
        ("classification_metadata", "archetype_name"),
        ("predicted_stats", "natural_units", "range_so_far_pct"),
        ("predicted_stats", "natural_units", "rest"),
        ("predicted_stats", "natural_units", "rest", "n_events"),
        ("predicted_stats", "natural_units", "rest", "phase_shares", "reversal_signal"),
    ],
)
def test_schema_refuses_a_sidecar_that_lacks_a_field(tmp_path: Path, path: tuple[str, ...]) -> None:
    sidecar = sidecar_of(tmp_path, tiny_metadata())
    part = sidecar
    for step in path[:-1]:
        part = part[step]
    del part[path[-1]]
    assert not Draft202012Validator(SCHEMA).is_valid(sidecar)
