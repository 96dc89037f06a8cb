"""The evaluation report: the structures of ``report.json``, written and read here alone.

Whoever judges a library fills a `Report`; `offline.report_page` draws it. Every number is finite: what could not be
computed is ``None`` where the field allows it, and where a checkpoint or a group judged no session (``n == 0``) its
other numbers mean nothing and are not shown.

Invariant: ``decode_report(encode_report(report)) == report``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Final

import msgspec
from msgspec import Struct

from stream_fp.errors import DocumentError
from stream_fp.messages import Quantiles

__all__ = [
    "MAX_EXAMPLES",
    "MAX_POINTS",
    "N_BAND_STEPS",
    "REPORT_FILES",
    "ArchetypePicture",
    "Band",
    "CheckpointReport",
    "Group",
    "Interval",
    "PricePath",
    "Reliability",
    "Report",
    "RestR2",
    "TrainingPeriod",
    "decode_report",
    "encode_finite",
    "encode_report",
]

#: What an evaluation writes.
REPORT_FILES: Final = ("report.json", "report.html", "archetypes.svg", "reliability.svg")
#: Example sessions of an archetype, and points of each, that a report holds: more only makes its page heavy.
MAX_EXAMPLES: Final = 8
MAX_POINTS: Final = 60
#: Time steps of the band of an archetype, the first at the start of the session and the last at its end.
N_BAND_STEPS: Final = 20


class Interval(Struct, frozen=True, kw_only=True):
    """A 95 % bootstrap interval, in the unit of what it belongs to."""

    low: float
    """2.5 % quantile."""
    high: float
    """97.5 % quantile."""


class Reliability(Struct, frozen=True, kw_only=True):
    """How often the named archetype was right, by the confidence it was named with; bins of equal width."""

    mean_confidence: list[float | None]
    """Mean confidence in each bin, 0 to 1; null in an empty one."""
    accuracy: list[float | None]
    """Share named right in each bin, 0 to 1; null in an empty one."""
    n: list[int]
    """Sessions in each bin."""
    edges: list[float]
    """Bounds of the bins, 0 to 1, ascending: one more than there are bins."""


class Group(Struct, frozen=True, kw_only=True):
    """The sessions of one month or one session type."""

    n: int
    """Sessions judged."""
    accuracy: float
    """Share of sessions named right, 0 to 1."""
    log_loss: float
    """Log loss of the model, nats."""
    baseline_type_regime_accuracy: float
    """Share that guessing from session type and regime names right, 0 to 1."""
    baseline_type_regime_log_loss: float
    """Log loss of guessing from session type and regime, nats."""
    coverage_80: float | None
    """Share of ranges between the forecast's P10 and P90, 0 to 1; null without a forecast."""
    pinball_ratio: float | None
    """Pinball loss of the range over that of the range so far times what is usual; null without a forecast."""
    rest_r2_mean: float | None
    """Mean R2 of the rest against the mean of all training sessions; null where the group does not tell."""
    baseline_type_regime_rest_r2_mean: float | None
    """The same of session type and regime."""


class RestR2(Struct, frozen=True, kw_only=True):
    """Share of the variance of each outcome of the rest of a session that was foreseen; below 0 is worse than the mean.

    Null where an outcome had no variance, or too few sessions.
    """

    range: float | None
    """R2 of the range of the rest, in per cent of price."""
    volatility: float | None
    """R2 of the volatility of the rest."""
    n_events: float | None
    """R2 of the number of events to come."""
    efficiency: float | None
    """R2 of the net move of the rest over the way it took."""
    fvg_interaction: float | None
    """R2 of the rate of `fvg_interaction` in the rest."""
    expansion_phase: float | None
    """R2 of the rate of `expansion_phase` in the rest."""
    consolidation_phase: float | None
    """R2 of the rate of `consolidation_phase` in the rest."""
    retracement_event: float | None
    """R2 of the rate of `retracement_event` in the rest."""
    reversal_signal: float | None
    """R2 of the rate of `reversal_signal` in the rest."""
    liquidity_sweep: float | None
    """R2 of the rate of `liquidity_sweep` in the rest."""
    mean: float | None
    """Mean of the R2 that could be computed."""


class CheckpointReport(Struct, frozen=True, kw_only=True):
    """How good predictions at one checkpoint were, beside what is known without a model.

    Baselines of the archetype: `baseline_type` guesses from the session type, `baseline_type_regime` from session type
    and regime, `full_centroid` compares the prefix with centroids of full sessions, `uniform` knows nothing.
    Baselines of the range: `baseline_ratio` takes the range so far times its usual growth, `baseline_type` the ranges
    of the session type. An interval beside a ratio or gain is that of the paired difference.
    """

    n: int
    """Sessions judged."""
    accuracy: float
    """Share of sessions named right, 0 to 1."""
    log_loss: float
    """Mean minus log of the probability given to the truth, nats."""
    brier: float
    """Mean squared error of the probabilities, summed over archetypes, 0 to 2."""
    ece: float
    """Expected calibration error: mean gap between confidence and accuracy, 0 to 1."""
    ece_by_chance: float
    """What it would be on so many sessions if every confidence were exactly right: it cannot tell less apart."""
    accuracy_interval: Interval
    """Interval of `accuracy`."""
    log_loss_interval: Interval
    """Interval of `log_loss`."""
    brier_interval: Interval
    """Interval of `brier`."""
    baseline_type_accuracy: float
    """`accuracy` of `baseline_type`."""
    baseline_type_log_loss: float
    """`log_loss` of `baseline_type`."""
    baseline_type_brier: float
    """`brier` of `baseline_type`."""
    baseline_type_regime_accuracy: float
    """`accuracy` of `baseline_type_regime`."""
    baseline_type_regime_log_loss: float
    """`log_loss` of `baseline_type_regime`."""
    baseline_type_regime_brier: float
    """`brier` of `baseline_type_regime`."""
    full_centroid_accuracy: float
    """`accuracy` of `full_centroid`."""
    full_centroid_log_loss: float
    """`log_loss` of `full_centroid`."""
    full_centroid_brier: float
    """`brier` of `full_centroid`."""
    uniform_accuracy: float
    """`accuracy` of `uniform`."""
    uniform_log_loss: float
    """`log_loss` of `uniform`."""
    uniform_brier: float
    """`brier` of `uniform`."""
    accuracy_gain_interval: Interval
    """Interval of `accuracy` minus `baseline_type_regime_accuracy`, from pairs."""
    best_guess: str
    """The baseline of highest accuracy that needs no model, in words: the one to beat."""
    best_guess_accuracy: float
    """Its accuracy."""
    best_guess_gain_interval: Interval
    """Interval of `accuracy` minus that, from pairs."""
    log_loss_ratio: float
    """`log_loss` over `baseline_type_regime_log_loss`; below 1 the model is better."""
    log_loss_ratio_interval: Interval
    """Interval of `log_loss_ratio`."""
    reliability: Reliability
    """Accuracy by confidence."""
    confusion: list[list[int]]
    """Sessions by true archetype (rows) and predicted one (columns), both by id."""
    rest_r2: RestR2
    """Of the forecast."""
    baseline_type_rest_r2: RestR2
    """Of the mean of the session type."""
    baseline_type_regime_rest_r2: RestR2
    """Of the mean of session type and regime."""
    true_archetype_rest_r2: RestR2
    """Of the mean of the true archetype, which only the end tells."""
    rest_r2_mean_interval: Interval
    """Interval of the mean R2 of the forecast."""
    baseline_type_regime_rest_r2_mean: float
    """Mean R2 of session type and regime."""
    true_archetype_rest_r2_mean: float
    """Mean R2 of the true archetype."""
    pinball_p10: float
    """Pinball loss of the forecast range's P10, per cent of price."""
    pinball_p50: float
    """Pinball loss of the forecast range's P50, per cent of price."""
    pinball_p90: float
    """Pinball loss of the forecast range's P90, per cent of price."""
    baseline_ratio_pinball_p10: float
    """Pinball loss of `baseline_ratio`'s P10, per cent of price."""
    baseline_ratio_pinball_p50: float
    """Pinball loss of `baseline_ratio`'s P50, per cent of price."""
    baseline_ratio_pinball_p90: float
    """Pinball loss of `baseline_ratio`'s P90, per cent of price."""
    baseline_type_pinball_p10: float
    """Pinball loss of `baseline_type`'s P10, per cent of price."""
    baseline_type_pinball_p50: float
    """Pinball loss of `baseline_type`'s P50, per cent of price."""
    baseline_type_pinball_p90: float
    """Pinball loss of `baseline_type`'s P90, per cent of price."""
    pinball_ratio: float
    """Pinball loss over that of `baseline_ratio`, the three together; below 1 is better."""
    pinball_ratio_interval: Interval
    """Interval of `pinball_ratio`."""
    coverage_80: float
    """Share of ranges between the forecast's P10 and P90, 0 to 1; 0.8 is meant."""
    coverage_80_interval: Interval
    """Interval of `coverage_80`."""
    mean_width_pct: float
    """Mean of P90 minus P10 of the forecast range, per cent of price."""
    baseline_ratio_coverage_80: float
    """Share of ranges between P10 and P90 of `baseline_ratio`, 0 to 1."""
    baseline_type_coverage_80: float
    """Share of ranges between P10 and P90 of `baseline_type`, 0 to 1."""
    by_month: dict[str, Group]
    """By month of the session, as 2025-01."""
    by_session_type: dict[str, Group]
    """By session type."""


class PricePath(Struct, frozen=True, kw_only=True):
    """The price path of one example session, thinned to at most `MAX_POINTS` points."""

    session_id: str
    """Which session."""
    time: list[float]
    """Share of the session that has passed, 0 to 1, ascending."""
    move_pct: list[float]
    """Price minus the first price, per cent of the first price; as long as `time`."""


class Band(Struct, frozen=True, kw_only=True):
    """Quantiles of the move over `N_BAND_STEPS` evenly spaced times, per cent of the first price."""

    p10: list[float]
    """10 % quantile at each time, per cent."""
    p50: list[float]
    """50 % quantile at each time, per cent."""
    p90: list[float]
    """90 % quantile at each time, per cent."""


class ArchetypePicture(Struct, frozen=True, kw_only=True):
    """What sessions of one archetype look like."""

    archetype_id: int
    """Its id in the library."""
    name: str
    """A few words that tell it from the others."""
    n_sessions: int
    """Sessions that it is drawn from."""
    share: float
    """Share of all sessions, 0 to 1."""
    examples: list[PricePath]
    """At most `MAX_EXAMPLES` sessions of it."""
    mean_band: Band
    """How the price of all its sessions moves."""
    phase_rates: dict[str, float]
    """Events of each phase per 100 events."""
    range_pct: Quantiles
    """Range of the whole session, per cent of its first price."""
    session_types: dict[str, float]
    """Share of each session type, 0 to 1."""
    efficiency: float
    """Net move over the way it took, 0 to 1; median."""
    volatility_class: str
    """low, medium or high, by the range."""


class TrainingPeriod(Struct, frozen=True, kw_only=True):
    """The sessions that the library was learned from."""

    first_date: str
    """Date of the earliest session, ISO 8601."""
    last_date: str
    """Date of the latest session, ISO 8601."""
    n_sessions: int
    """How many they are."""


class Report(Struct, frozen=True, kw_only=True):
    """Content of ``report.json``: how good a library was on sessions it had not seen."""

    model_version: str
    """Version of the library judged."""
    created_at: str
    """When it was judged, ISO 8601 in UTC."""
    library_path: str
    """Folder of the library, as it was given."""
    first_date: str
    """Date of the earliest session judged, ISO 8601."""
    last_date: str
    """Date of the latest session judged, ISO 8601."""
    n_sessions: int
    """Sessions judged."""
    n_left_out: dict[str, int]
    """Sessions that were not judged, by reason."""
    n_archetypes: int
    """Archetypes of the library; their ids are 0 to one less."""
    archetype_sizes: dict[str, float]
    """Share of each archetype, by id, among the sessions judged, 0 to 1."""
    stability_ari: float
    """Adjusted Rand index between clusterings of resamples, at most 1: are they found again?"""
    silhouette: float
    """Mean silhouette of the sessions, -1 to 1: do the clusters stand apart?"""
    training: TrainingPeriod
    """What the library was learned from."""
    checkpoints: dict[str, CheckpointReport]
    """By checkpoint in per cent of the session: `25`, `30`."""
    archetypes: list[ArchetypePicture]
    """One picture of each archetype."""
    overall_phase_rates: dict[str, float]
    """Events of each phase per 100 events, over all sessions."""
    notes: list[str]
    """What a reader should know before believing the numbers."""
    settings: dict[str, str]
    """What it was made with, by name."""


def encode_report(report: Report) -> bytes:
    """Return a report as indented JSON.

    Raises
    ------
    ValueError
        When a number is not finite.
    """
    return encode_finite(report)


def encode_finite(found: Struct) -> bytes:
    """Return a structure as indented JSON.

    Raises
    ------
    ValueError
        When a number is not finite: JSON has no NaN, and a silent null would be read as "not computed".
    """
    for place, number in _non_finite("$", msgspec.to_builtins(found)):
        raise ValueError(f"a report holds finite numbers or null, got {number} - at `{place}`")
    return msgspec.json.format(msgspec.json.encode(found), indent=2) + b"\n"


def decode_report(content: bytes, *, where: str = "report.json") -> Report:
    """Return the report that `encode_report` wrote.

    Parameters
    ----------
    content : bytes
    where : str
        Name of the file, for the error.

    Raises
    ------
    DocumentError
        When it is no report.
    """
    try:
        return msgspec.json.decode(content, type=Report)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise DocumentError(where, f"expected an evaluation report: {error}") from error


def _non_finite(place: str, value: object) -> Iterator[tuple[str, float]]:
    """Yield where in a tree of builtins a number is NaN or infinite, and which."""
    if isinstance(value, float):
        if not math.isfinite(value):
            yield place, value
    elif isinstance(value, dict):
        for name, part in value.items():
            yield from _non_finite(f"{place}.{name}", part)
    elif isinstance(value, list | tuple):
        for i, part in enumerate(value):
            yield from _non_finite(f"{place}[{i}]", part)
