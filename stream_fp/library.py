"""The archetypes learned offline, as the online service reads them: JSON only, verified, never unpickled.

``metadata.json`` holds every array and the SHA-256 of the other three files; ``cluster_stats.json`` what sessions of
each archetype become (`stream_fp.artifacts` has their structure). The two pickles are for notebooks: their hashes are
checked, their content is never opened.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any, Final, Literal, TypeVar

import msgspec
import numpy as np
import numpy.typing as npt
from msgspec import Struct

from stream_fp.artifacts import (
    ArchetypeStats,
    ClusterStats,
    MembershipArrays,
    Metadata,
    PrefixModelArrays,
    RestArrays,
    ScalerArrays,
)
from stream_fp.completion import DEFAULT_SCHEDULES, Schedule
from stream_fp.errors import FeatureDimensionError, ModelLoadError, ModelNotFoundError
from stream_fp.features import FEATURE_NAMES, N_FEATURES, SCHEMA_VERSION
from stream_fp.prefix_model import OUTCOMES, QUANTILES, Membership, PrefixModel, RestModel

__all__ = ["Library", "load_library", "load_metadata"]

Array = npt.NDArray[np.float64]

METADATA_FILE: Final = "metadata.json"
STATS_FILE: Final = "cluster_stats.json"
PICKLE_FILES: Final = ("kmeans_model.pkl", "scaler.pkl")
#: Ours are around 100 kB; a JSON file far beyond that is damaged or hostile, and would only cost memory.
MAX_JSON_BYTES: Final = 16 * 2**20
#: Parameters beyond this, or scales below its inverse, come from no data and would leave the range of floats.
_MAX_MAGNITUDE: Final = 1e30
_ANY_DAY: Final = date(2000, 1, 3)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Library:
    """A verified library.

    Attributes
    ----------
    path : Path
        As it was given; goes into predictions unchanged.
    version : str
        Of the model.
    fingerprint : str
        First 16 hex digits of the SHA-256 of ``metadata.json``: says whether two processes use the same model.
    center, scale : ndarray of shape (30,)
        Of the full-session scaler.
    spread : ndarray of shape (30,)
        Standard deviation (or interquartile range) of each feature among full sessions: `scale` without the weights.
    range_terciles_pct : tuple of float
        Final range, in per cent, above which a session counts as of medium and of high volatility.
    assignment : str
        The assignment that did best out of sample.
    centroids : ndarray of shape (n_archetypes, 30)
        Full-session centroids in scaled space.
    prefix_models : tuple of PrefixModel
        In ascending order of checkpoint.
    archetypes : dict of int to ArchetypeStats
    schedules : dict of str to Schedule
    typical_events : dict of str to float
    usual : list of 30 tuples of float
        Center and spread of each feature, as plain numbers.
    """

    path: Path
    version: str
    fingerprint: str
    center: Array
    scale: Array
    spread: Array
    range_terciles_pct: tuple[float, float]
    assignment: Literal["prefix_model", "prefix_centroid", "full_centroid"]
    centroids: Array
    prefix_models: tuple[PrefixModel, ...]
    archetypes: dict[int, ArchetypeStats]
    schedules: dict[str, Schedule]
    typical_events: dict[str, float]
    usual: list[tuple[float, float]] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        pairs = list(zip(self.center.tolist(), self.spread.tolist(), strict=True))
        object.__setattr__(self, "usual", pairs)

    def prefix_model(self, checkpoint_pct: float) -> PrefixModel:
        """Return the model of the checkpoint nearest to `checkpoint_pct` (the lower one where two are)."""
        return min(self.prefix_models, key=lambda model: abs(model.checkpoint_pct - checkpoint_pct))


def load_library(path: Path) -> Library:
    """Load and verify the artifacts in directory `path`.

    Raises
    ------
    ModelNotFoundError
        When the directory does not exist.
    ModelLoadError
        When a file is missing, malformed or has another hash than ``metadata.json`` says.
    FeatureDimensionError
        When the artifacts hold vectors of another length than 30.
    """
    _check_folder(path)
    metadata_bytes = _read(path / METADATA_FILE)
    metadata = _metadata(metadata_bytes)
    stats_bytes = _read(path / STATS_FILE)
    _check_hashes(path, metadata.sha256, stats_bytes)
    stats = _decode(stats_bytes, ClusterStats, STATS_FILE)
    archetypes = _archetypes(stats, metadata.n_archetypes)
    if not metadata.prefix_models:
        raise ModelLoadError(f"{METADATA_FILE}: expected at least one prefix model, got none")
    checkpoints = [model.checkpoint_pct for model in metadata.prefix_models]
    if len(set(checkpoints)) < len(checkpoints) or not all(0 < checkpoint <= 100 for checkpoint in checkpoints):
        raise ModelLoadError(f"{METADATA_FILE}: expected different checkpoints in (0, 100], got {checkpoints}")
    if not all(0 < typical < _MAX_MAGNITUDE for typical in metadata.typical_events.values()):
        raise ModelLoadError(f"{METADATA_FILE}: expected typical numbers of events above 0")
    if stats.model_version != metadata.model_version:
        raise ModelLoadError(
            f"{STATS_FILE}: expected version {metadata.model_version}, got version {stats.model_version}"
        )
    low, high = metadata.range_terciles_pct
    if not 0 <= low <= high < _MAX_MAGNITUDE:
        raise ModelLoadError(f"{METADATA_FILE}: expected ascending range terciles, got {low:g} and {high:g}")
    center, scale = _scaler(metadata.scaler, "scaler")
    return Library(
        path=path,
        version=metadata.model_version,
        fingerprint=hashlib.sha256(metadata_bytes).hexdigest()[:16],
        center=center,
        scale=scale,
        spread=scale * _positive(metadata.feature_weights, (N_FEATURES,), "feature_weights"),
        range_terciles_pct=metadata.range_terciles_pct,
        assignment=metadata.assignment,
        centroids=_array(metadata.centroids, (metadata.n_archetypes, N_FEATURES), "centroids"),
        prefix_models=tuple(
            sorted((_prefix_model(arrays, archetypes) for arrays in metadata.prefix_models), key=_checkpoint)
        ),
        archetypes=archetypes,
        schedules={**DEFAULT_SCHEDULES, **_schedules(metadata.schedules)},
        typical_events=metadata.typical_events,
    )


def load_metadata(path: Path) -> Metadata:
    """Read ``metadata.json`` of the library in directory `path`: all that `load_library` makes use of, and more.

    Raises
    ------
    ModelNotFoundError, ModelLoadError, FeatureDimensionError
        As `load_library`, which checks the rest.
    """
    _check_folder(path)
    return _metadata(_read(path / METADATA_FILE))


def _check_folder(path: Path) -> None:
    try:
        is_there = path.is_dir()
    except OSError as error:
        raise ModelLoadError(f"{path}: {error.strerror or error}") from error
    if not is_there:
        raise ModelNotFoundError(path)


def _metadata(content: bytes) -> Metadata:
    _check_outline(content)
    return _decode(content, Metadata, METADATA_FILE)


def _archetypes(stats: ClusterStats, n_archetypes: int) -> dict[int, ArchetypeStats]:
    archetypes = {archetype.archetype_id: archetype for archetype in stats.archetypes}
    n_found = len(stats.archetypes)
    if n_found != n_archetypes or sorted(archetypes) != list(range(n_found)):
        raise ModelLoadError(f"{STATS_FILE}: expected archetypes 0 to {n_archetypes - 1}, got {sorted(archetypes)}")
    for archetype_id, archetype in archetypes.items():
        usual = archetype.natural_units.range_pct
        if not 0 <= usual.p10 <= usual.p50 <= usual.p90 < _MAX_MAGNITUDE:
            raise ModelLoadError(
                f"{STATS_FILE}: archetype {archetype_id}: expected ascending quantiles of the range, got {usual}"
            )
    return archetypes


def _checkpoint(model: PrefixModel) -> float:
    return model.checkpoint_pct


def _read(path: Path) -> bytes:
    try:
        size = path.stat().st_size
        if size > MAX_JSON_BYTES:
            raise ModelLoadError(f"{path.name}: expected at most {MAX_JSON_BYTES} bytes, got {size}")
        return path.read_bytes()
    except OSError as error:
        raise ModelLoadError(f"{path.name}: {error.strerror or error}") from error


_T = TypeVar("_T", Metadata, ClusterStats)


def _decode(content: bytes, shape: type[_T], name: str) -> _T:
    try:
        return msgspec.json.decode(content, type=shape)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ModelLoadError(f"{name}: {error}") from error


class _Outline(Struct):
    feature_schema_version: int = SCHEMA_VERSION
    feature_names: list[Any] | None = None
    centroids: list[list[Any]] = []


def _check_outline(content: bytes) -> None:
    """Refuse artifacts of other features before anything else, so that the cause is named and not a symptom."""
    try:
        found = msgspec.json.decode(content, type=_Outline)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return  # the full decoding that follows says what is wrong, and where
    named = [] if found.feature_names is None else [found.feature_names]
    for n in map(len, [*named, *found.centroids]):
        if n != N_FEATURES:
            raise FeatureDimensionError(N_FEATURES, n)
    is_named_alike = found.feature_names is None or tuple(found.feature_names) == FEATURE_NAMES
    if found.feature_schema_version != SCHEMA_VERSION or not is_named_alike:
        raise ModelLoadError(
            f"{METADATA_FILE}: expected the features of schema {SCHEMA_VERSION}, "
            f"got schema {found.feature_schema_version} with other names or order: train the library again"
        )


def _check_hashes(path: Path, expected: dict[str, str], stats_bytes: bytes) -> None:
    for name in (STATS_FILE, *PICKLE_FILES):
        if name not in expected:
            raise ModelLoadError(f"{METADATA_FILE}: expected a SHA-256 of {name}, got none")
        try:
            got = hashlib.sha256(stats_bytes if name == STATS_FILE else (path / name).read_bytes()).hexdigest()
        except OSError as error:
            raise ModelLoadError(f"{name}: {error.strerror or error}") from error
        if got != expected[name]:
            raise ModelLoadError(f"{name}: expected SHA-256 {expected[name]}, got {got}")


def _array(rows: list[Any], shape: tuple[int, ...], name: str) -> Array:
    try:
        array = np.array(rows, dtype=np.float64)
    except ValueError as error:
        raise ModelLoadError(f"{METADATA_FILE}: {name}: {error}") from error
    if array.ndim and len(shape) == array.ndim and shape[-1] == N_FEATURES != array.shape[-1]:
        raise FeatureDimensionError(N_FEATURES, array.shape[-1])
    if array.shape != shape:
        raise ModelLoadError(f"{METADATA_FILE}: {name}: expected shape {shape}, got {array.shape}")
    if not (np.abs(array) <= _MAX_MAGNITUDE).all():
        raise ModelLoadError(f"{METADATA_FILE}: {name}: expected finite numbers of at most {_MAX_MAGNITUDE:g} only")
    return array


def _scaler(arrays: ScalerArrays, name: str) -> tuple[Array, Array]:
    center = _array(arrays.center, (N_FEATURES,), f"{name}.center")
    return center, _positive(arrays.scale, (N_FEATURES,), f"{name}.scale")


def _positive(rows: list[Any], shape: tuple[int, ...], name: str) -> Array:
    array = _array(rows, shape, name)
    if (array < 1 / _MAX_MAGNITUDE).any():
        raise ModelLoadError(f"{METADATA_FILE}: {name}: expected numbers above 0")
    return array


def _prefix_model(arrays: PrefixModelArrays, archetypes: dict[int, ArchetypeStats]) -> PrefixModel:
    name = f"prefix model of {arrays.checkpoint_pct:g} %"
    ids = arrays.archetype_ids
    if not ids or sorted(set(ids)) != ids or not set(ids) <= set(archetypes):
        raise ModelLoadError(f"{METADATA_FILE}: {name}: expected known archetypes in ascending order, got {ids}")
    if any(not 1 / _MAX_MAGNITUDE <= temperature <= _MAX_MAGNITUDE for temperature in arrays.temperatures.values()):
        raise ModelLoadError(f"{METADATA_FILE}: {name}: expected temperatures above 0, got {arrays.temperatures}")
    center, scale = _scaler(arrays.scaler, name)
    inputs = arrays.inputs
    if arrays.typical_confidence is not None and not 0 <= arrays.typical_confidence <= 1:
        raise ModelLoadError(
            f"{METADATA_FILE}: {name}: expected a typical confidence from 0 to 1, got {arrays.typical_confidence}"
        )
    if len(set(inputs.session_types)) < len(inputs.session_types) or not 0 < inputs.clip < _MAX_MAGNITUDE:
        raise ModelLoadError(f"{METADATA_FILE}: {name}: inputs: expected different session types and a clip above 0")
    return PrefixModel(
        checkpoint_pct=arrays.checkpoint_pct,
        archetype_ids=np.array(ids, dtype=np.int64),
        center=center,
        scale=scale,
        centroids=_array(arrays.centroids, (len(ids), N_FEATURES), name),
        precision=None
        if arrays.precision is None
        else _array(arrays.precision, (N_FEATURES, N_FEATURES), f"{name}: precision"),
        temperatures=arrays.temperatures,
        input_center=_array(inputs.center, (N_FEATURES,), f"{name}: inputs.center"),
        input_scale=_positive(inputs.scale, (N_FEATURES,), f"{name}: inputs.scale"),
        input_clip=inputs.clip,
        session_types={session_type: place for place, session_type in enumerate(inputs.session_types)},
        membership=_membership(arrays.membership, len(inputs.session_types), len(ids), name),
        rest=_rest(arrays.rest, len(inputs.session_types), len(ids), name),
        typical_confidence=arrays.typical_confidence,
    )


def _membership(arrays: MembershipArrays, n_types: int, n_archetypes: int, name: str) -> Membership:
    features, m = arrays.features, len(arrays.features)
    if not features or sorted(set(features)) != features or not 0 <= features[0] <= features[-1] < N_FEATURES:
        raise ModelLoadError(f"{METADATA_FILE}: {name}: expected places of features in ascending order, got {features}")
    return Membership(
        features=np.array(features, dtype=np.int64),
        fingerprint=_array(arrays.fingerprint, (1 + N_FEATURES + n_types, m), f"{name}: membership.fingerprint"),
        logits=_array(arrays.logits, (1 + m + m * (m + 1) // 2 + n_types, n_archetypes), f"{name}: membership.logits"),
    )


def _rest(arrays: RestArrays, n_types: int, n_archetypes: int, name: str) -> RestModel:
    outcomes, n_known = arrays.outcomes, 1 + N_FEATURES + n_types + n_archetypes
    if [outcome for outcome in OUTCOMES if outcome in outcomes] != outcomes:
        raise ModelLoadError(f"{METADATA_FILE}: {name}: expected outcomes of {', '.join(OUTCOMES)}, got {outcomes}")
    quantiles = None
    if arrays.quantile_coefficients:
        if "range" not in outcomes:
            raise ModelLoadError(f"{METADATA_FILE}: {name}: expected the outcome range beside its quantiles")
        quantiles = _array(
            arrays.quantile_coefficients, (n_known + 2, len(QUANTILES)), f"{name}: rest.quantile_coefficients"
        )
    coefficients = arrays.coefficients if outcomes else [[]] * n_known
    return RestModel(
        columns=np.array([OUTCOMES.index(outcome) for outcome in outcomes], dtype=np.int64),
        coefficients=_array(coefficients, (n_known, len(outcomes)), f"{name}: rest.coefficients"),
        quantile_coefficients=quantiles,
        quantile_shifts=_array(arrays.quantile_shifts, (len(QUANTILES),), f"{name}: rest.quantile_shifts"),
    )


def _schedules(given: dict[str, dict[str, str]]) -> dict[str, Schedule]:
    try:
        schedules = {name: msgspec.convert(fields, Schedule) for name, fields in given.items()}
        for schedule in schedules.values():
            schedule.window_us(_ANY_DAY)
    except (msgspec.ValidationError, ValueError) as error:
        raise ModelLoadError(f"{METADATA_FILE}: schedules: {error}") from error
    return schedules
