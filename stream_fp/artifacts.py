"""The structure of the two JSON files of a library, so that training writes exactly what the service reads.

Pure data. ``metadata.json`` holds every array and the SHA-256 of the other files; ``cluster_stats.json`` what sessions
of each archetype become. Whether the numbers make sense is checked by `stream_fp.library`, which reads them.
"""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from stream_fp.completion import CompletionPolicy
from stream_fp.messages import Quantiles

__all__ = [
    "ArchetypeStats",
    "BaselineArrays",
    "ClusterStats",
    "InputArrays",
    "MembershipArrays",
    "Metadata",
    "PrefixModelArrays",
    "RestArrays",
    "ScalerArrays",
    "SelectionTrial",
    "StabilityArrays",
    "TrainingSummary",
    "TypicalUnits",
]


class ScalerArrays(Struct, frozen=True, kw_only=True):
    """A scaler as arrays: scaled = (vector - center) / scale, each of shape (30,)."""

    kind: str
    center: list[float]
    scale: list[float]


class InputArrays(Struct, frozen=True, kw_only=True):
    """How a prefix becomes the inputs of the linear models: 1, the clipped standardised features, the session type.

    ``n_inputs`` is 1 + 30 + the number of session types.
    """

    center: list[float]
    scale: list[float]
    clip: float
    """In standard deviations, beyond which a feature counts as that much: a linear model must not follow outliers."""
    session_types: list[str]
    """One input each, 1 for the session's type and 0 for the others; all 0 for a type that is not in the list."""


class MembershipArrays(Struct, frozen=True, kw_only=True):
    """Probability of each archetype: a linear forecast of the full fingerprint, then a quadratic softmax of it."""

    features: list[int]
    """Features of the full fingerprint that are forecast: those that tell archetypes apart. Ascending; m of them."""
    fingerprint: list[list[float]]
    """Inputs to forecast features in standard deviations of full sessions, shape (n_inputs, m)."""
    logits: list[list[float]]
    """From 1, the forecast, its products ``c[i] * c[j]`` for i <= j, and the session type, to a logit of each
    archetype; shape (1 + m + m (m + 1) / 2 + n_session_types, n_archetypes of `archetype_ids`)."""


class RestArrays(Struct, frozen=True, kw_only=True):
    """Forecast of the part after the checkpoint, from the inputs and the archetype probabilities."""

    outcomes: list[str]
    """Those that training could learn, of `stream_fp.prefix_model.OUTCOMES`."""
    coefficients: list[list[float]]
    """Shape (n_inputs + n_archetypes, n_outcomes)."""
    quantile_coefficients: list[list[float]]
    """From inputs, probabilities, and ratio and log ratio of the range so far to the expected range of the rest, to
    P10, P50 and P90 of how far the range still grows, in expected ranges of the rest: shape
    (n_inputs + n_archetypes + 2, 3). Empty where the range of the rest is not among the outcomes."""
    quantile_shifts: list[float]
    """Added to the three quantiles: conformal correction of P10 and P90, 0 for P50."""


class BaselineArrays(Struct, frozen=True, kw_only=True):
    """What a prediction has to beat, learned from the same sessions; the service does not read it."""

    session_types: list[str]
    archetype_counts: list[list[list[int]]]
    """Sessions by type, dominant regime seen so far (0, 1, 2) and archetype of `archetype_ids`."""
    rest_mean: list[float | None]
    """Mean of each of `stream_fp.prefix_model.OUTCOMES`; null where no session tells."""
    rest_by_type: list[list[float | None]]
    rest_by_type_regime: list[list[list[float | None]]]
    rest_by_archetype: list[list[float | None]]
    """Mean deviation from the mean of the session type, by archetype of `archetype_ids`."""
    range_ratio_quantiles: list[list[float]]
    """P10, P50, P90 of final range over range so far, by type, and in the last row of all sessions."""
    range_quantiles: list[list[float]]
    """P10, P50, P90 of the final range in per cent, likewise."""


class PrefixModelArrays(Struct, frozen=True, kw_only=True):
    """What training learned from sessions cut at one checkpoint."""

    checkpoint_pct: float
    n_sessions: int
    archetype_ids: list[int]
    """Archetypes that had a session at this checkpoint, ascending; rows of `centroids`."""
    scaler: ScalerArrays
    centroids: list[list[float]]
    """Mean scaled prefix of each archetype, shape (n_archetypes, 30)."""
    precision: list[list[float]] | None
    """Inverse of the shrunk covariance within archetypes, shape (30, 30); null where it could not be estimated."""
    covariance_shrinkage: float | None
    temperatures: dict[str, float]
    """Per distance metric: probabilities are softmax(-distance / temperature)."""
    inputs: InputArrays
    membership: MembershipArrays
    rest: RestArrays
    baselines: BaselineArrays
    typical_confidence: float | None = None
    """Mean probability of the archetype chosen, for sessions held out of the fit; older libraries do not say."""


class TrainingSummary(Struct, frozen=True, kw_only=True):
    """Where the library came from."""

    n_sessions: int
    n_skipped: dict[str, int]
    n_events: int
    first_date: str
    last_date: str
    sessions_by_type: dict[str, int]
    feature_ranges: dict[str, tuple[float, float]]


class SelectionTrial(Struct, frozen=True, kw_only=True):
    """One candidate for the archetypes, judged on the later part of the training sessions."""

    profile: str
    n_archetypes: int
    stability_ari: float
    """Mean adjusted Rand index between its labels and those of refits on bootstrap samples."""
    silhouette: float
    smallest: float
    """Share of the smallest archetype."""
    largest: float
    rest_r2_true: float
    """Mean R2 of the outcomes of the rest for one who knows the session type and the true archetype."""
    rest_r2_predicted: float
    """The same with the predicted probabilities in place of the true archetype."""
    range_r2: float | None
    """R2 of the log final range beyond the session type, knowing the archetype; null where nothing varies."""
    net_move_r2: float | None
    """The same of the size of the net move."""
    phases_r2: float | None
    """The same of the six phase rates, mean."""
    log_loss_ratio: float
    """Log loss of the prediction over that of guessing from session type and regime seen so far."""
    is_eligible: bool
    """Whether it is stable, balanced and told early; others are chosen only where none is."""
    is_chosen: bool


class StabilityArrays(Struct, frozen=True, kw_only=True):
    """Refits of the archetypes on bootstrap samples: how much they depend on the sessions that chance provided."""

    features: list[int]
    """Those with a weight; all others play no part."""
    centroids: list[list[list[float]]]
    """Of each refit, in scaled space, shape (n_refits, n_archetypes, n_features with a weight)."""


class Metadata(Struct, frozen=True, kw_only=True):
    """Content of ``metadata.json``."""

    model_version: str
    created_at: str
    feature_schema_version: int
    feature_names: list[str]
    n_archetypes: int
    seed: int
    scaler: ScalerArrays
    feature_weights: list[float]
    """Weight of each feature in the distances between full sessions; `scaler.scale` is the spread over the weight."""
    centroids: list[list[float]]
    """Full-session centroids in scaled space, shape (n_archetypes, 30)."""
    range_terciles_pct: tuple[float, float]
    """Final range, in per cent, above which a session counts as of medium and of high volatility."""
    assignment: Literal["prefix_model", "prefix_centroid", "full_centroid"]
    """The assignment that did best out of sample; what ``assignment = auto`` stands for."""
    selection: list[SelectionTrial]
    stability: StabilityArrays
    prefix_models: list[PrefixModelArrays]
    completion: CompletionPolicy
    min_events: int
    schedules: dict[str, dict[str, str]]
    typical_events: dict[str, float]
    training: TrainingSummary
    libraries: dict[str, str]
    sha256: dict[str, str]


class TypicalUnits(Struct, frozen=True, kw_only=True):
    """What the full sessions of an archetype were like, in units that people use."""

    range_pct: Quantiles
    """Range (high minus low) in per cent of the first price."""
    phase_rates_per_100_events: dict[str, float]
    """Medians."""
    efficiency: float
    """Median of net move over path: 1 is a straight line."""
    events_per_hour: float
    """Median."""


class ArchetypeStats(Struct, frozen=True, kw_only=True):
    """What the full sessions of one archetype were like; `range_p50` and `top_phases` in scaled units."""

    archetype_id: int
    name: str
    """In plain words, from the statistics below."""
    n_sessions: int
    volatility_class: str
    range_p50: float
    dominant_htf_regime: int
    top_phases: list[tuple[str, float]]
    session_type_probabilities: dict[str, float]
    natural_units: TypicalUnits


class ClusterStats(Struct, frozen=True, kw_only=True):
    """Content of ``cluster_stats.json``."""

    model_version: str
    archetypes: list[ArchetypeStats]
