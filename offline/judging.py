"""Judge predictions at one checkpoint against what came, beside what is known without a model.

Pure: arrays of predictions, truth and baselines in, `CheckpointReport` out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from offline.report import CheckpointReport, Group, Interval, Reliability, RestR2
from offline.resampling import WeekBootstrap
from offline.scores import (
    N_BINS,
    bins_of,
    brier_scores,
    expected_calibration_error,
    log_losses,
    pinball_losses,
    r2_scores,
)
from stream_fp.prefix_model import OUTCOMES, QUANTILES

__all__ = ["Judged", "group_scores", "is_covered", "judge", "pinball_by_quantile"]

Array = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

#: Their mean is good to a thousandth.
_N_DRAWS: Final = 200
_ROUNDING: Final = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Judged:
    """Predictions of n sessions at one checkpoint, what came, and what guesses would have said.

    Attributes
    ----------
    days : ndarray of shape (n,)
    months, session_types : list of str
    labels : ndarray of shape (n,), int64
        Archetype of the full session.
    probabilities, by_type, by_type_regime, by_full_centroid : ndarray of shape (n, n_archetypes)
    rests : ndarray of shape (n, 10)
        Outcomes; NaN where unknown.
    rest_forecasts, rest_by_type, rest_by_type_regime, rest_by_true_archetype : ndarray of shape (n, 10)
    rest_mean : ndarray of shape (10,)
        Of the training sessions.
    range_pct : ndarray of shape (n,)
        Final range.
    range_forecasts, range_by_ratio, range_by_type : ndarray of shape (n, 3)
        P10, P50, P90.
    """

    days: Ints
    months: list[str]
    session_types: list[str]
    labels: Ints
    probabilities: Array
    by_type: Array
    by_type_regime: Array
    by_full_centroid: Array
    rests: Array
    rest_forecasts: Array
    rest_by_type: Array
    rest_by_type_regime: Array
    rest_by_true_archetype: Array
    rest_mean: Array
    range_pct: Array
    range_forecasts: Array
    range_by_ratio: Array
    range_by_type: Array


def judge(judged: Judged, seed: int = 0) -> CheckpointReport:
    """Judge at least one session; `seed` is that of the bootstrap."""
    labels, n_archetypes = judged.labels, judged.probabilities.shape[1]
    samples = WeekBootstrap(judged.days, seed)
    uniform = np.full((len(labels), n_archetypes), 1.0 / n_archetypes)
    model, guess = _Scores(judged.probabilities, labels), _Scores(judged.by_type_regime, labels)
    by_type, full, even = (_Scores(p, labels) for p in (judged.by_type, judged.by_full_centroid, uniform))
    best_name, best = max(
        (("session type and regime", guess), ("session type", by_type)), key=lambda named: named[1].is_right.sum()
    )
    confidences = judged.probabilities.max(axis=1)
    pinball, ratio_pinball, type_pinball = (
        pinball_by_quantile(judged.range_pct, forecasts)
        for forecasts in (judged.range_forecasts, judged.range_by_ratio, judged.range_by_type)
    )
    within = is_covered(judged.range_pct, judged.range_forecasts)
    by_type_regime = _rest_r2(judged, judged.rest_by_type_regime)
    true_archetype = _rest_r2(judged, judged.rest_by_true_archetype)
    return CheckpointReport(
        n=len(labels),
        accuracy=float(model.is_right.mean()),
        log_loss=float(model.log_loss.mean()),
        brier=float(model.brier.mean()),
        ece=expected_calibration_error(confidences, model.is_right > 0),
        ece_by_chance=_ece_by_chance(confidences, seed),
        accuracy_interval=_interval(samples.mean(model.is_right)),
        log_loss_interval=_interval(samples.mean(model.log_loss)),
        brier_interval=_interval(samples.mean(model.brier)),
        baseline_type_accuracy=float(by_type.is_right.mean()),
        baseline_type_log_loss=float(by_type.log_loss.mean()),
        baseline_type_brier=float(by_type.brier.mean()),
        baseline_type_regime_accuracy=float(guess.is_right.mean()),
        baseline_type_regime_log_loss=float(guess.log_loss.mean()),
        baseline_type_regime_brier=float(guess.brier.mean()),
        full_centroid_accuracy=float(full.is_right.mean()),
        full_centroid_log_loss=float(full.log_loss.mean()),
        full_centroid_brier=float(full.brier.mean()),
        uniform_accuracy=1.0 / n_archetypes,
        uniform_log_loss=float(even.log_loss.mean()),
        uniform_brier=float(even.brier.mean()),
        accuracy_gain_interval=_interval(samples.mean(model.is_right - guess.is_right)),
        best_guess=best_name,
        best_guess_accuracy=float(best.is_right.mean()),
        best_guess_gain_interval=_interval(samples.mean(model.is_right - best.is_right)),
        log_loss_ratio=_over(float(model.log_loss.sum()), float(guess.log_loss.sum())),
        log_loss_ratio_interval=_interval(samples.ratio(model.log_loss, guess.log_loss)),
        reliability=_reliability(confidences, model.is_right),
        confusion=_confusion(labels, judged.probabilities.argmax(axis=1), n_archetypes),
        rest_r2=_rest_r2(judged, judged.rest_forecasts),
        baseline_type_rest_r2=_rest_r2(judged, judged.rest_by_type),
        baseline_type_regime_rest_r2=by_type_regime,
        true_archetype_rest_r2=true_archetype,
        rest_r2_mean_interval=_interval(_rest_r2_interval(judged, samples)),
        baseline_type_regime_rest_r2_mean=by_type_regime.mean or 0.0,
        true_archetype_rest_r2_mean=true_archetype.mean or 0.0,
        pinball_p10=float(pinball[:, 0].mean()),
        pinball_p50=float(pinball[:, 1].mean()),
        pinball_p90=float(pinball[:, 2].mean()),
        baseline_ratio_pinball_p10=float(ratio_pinball[:, 0].mean()),
        baseline_ratio_pinball_p50=float(ratio_pinball[:, 1].mean()),
        baseline_ratio_pinball_p90=float(ratio_pinball[:, 2].mean()),
        baseline_type_pinball_p10=float(type_pinball[:, 0].mean()),
        baseline_type_pinball_p50=float(type_pinball[:, 1].mean()),
        baseline_type_pinball_p90=float(type_pinball[:, 2].mean()),
        pinball_ratio=_over(float(pinball.sum()), float(ratio_pinball.sum())),
        pinball_ratio_interval=_interval(samples.ratio(pinball.sum(axis=1), ratio_pinball.sum(axis=1))),
        coverage_80=float(within.mean()),
        coverage_80_interval=_interval(samples.mean(within)),
        mean_width_pct=float((judged.range_forecasts[:, 2] - judged.range_forecasts[:, 0]).mean()),
        baseline_ratio_coverage_80=float(is_covered(judged.range_pct, judged.range_by_ratio).mean()),
        baseline_type_coverage_80=float(is_covered(judged.range_pct, judged.range_by_type).mean()),
        by_month=group_scores(judged, judged.months),
        by_session_type=group_scores(judged, judged.session_types),
    )


def group_scores(judged: Judged, names: Sequence[str]) -> dict[str, Group]:
    """Judge the sessions of each group by themselves.

    Parameters
    ----------
    judged : Judged
    names : sequence of str
        Group of each session.

    Returns
    -------
    dict of str to Group
        In the order of the names.
    """
    keys = np.array(names)
    model, guess = _Scores(judged.probabilities, judged.labels), _Scores(judged.by_type_regime, judged.labels)
    within = is_covered(judged.range_pct, judged.range_forecasts)
    pinball = pinball_by_quantile(judged.range_pct, judged.range_forecasts).sum(axis=1)
    ratio_pinball = pinball_by_quantile(judged.range_pct, judged.range_by_ratio).sum(axis=1)
    return {
        str(name): Group(
            n=int(members.sum()),
            accuracy=float(model.is_right[members].mean()),
            log_loss=float(model.log_loss[members].mean()),
            baseline_type_regime_accuracy=float(guess.is_right[members].mean()),
            baseline_type_regime_log_loss=float(guess.log_loss[members].mean()),
            coverage_80=float(within[members].mean()),
            pinball_ratio=_over(float(pinball[members].sum()), float(ratio_pinball[members].sum())),
            rest_r2_mean=_group_r2(judged, members, judged.rest_forecasts),
            baseline_type_regime_rest_r2_mean=_group_r2(judged, members, judged.rest_by_type_regime),
        )
        for name in np.unique(keys)
        for members in (keys == name,)
    }


def pinball_by_quantile(range_pct: Array, forecasts: Array) -> Array:
    """Return the pinball loss of P10, P50 and P90, shape (n, 3), of ranges (n,) and their forecasts (n, 3)."""
    return np.column_stack(
        [pinball_losses(range_pct, forecasts[:, i], quantile) for i, quantile in enumerate(QUANTILES)]
    )


def is_covered(range_pct: Array, forecasts: Array) -> Array:
    """Return 1 where a range lies between P10 and P90 of its forecast and 0 elsewhere, shape (n,)."""
    # Where the range has stopped growing, P10 is the range itself but for the last bit of a logarithm.
    slack = _ROUNDING * range_pct
    return ((range_pct + slack >= forecasts[:, 0]) & (range_pct - slack <= forecasts[:, 2])).astype(np.float64)


class _Scores:
    """Scores of one way to predict, per session."""

    def __init__(self, probabilities: Array, labels: Ints) -> None:
        self.is_right: Array = (probabilities.argmax(axis=1) == labels).astype(np.float64)
        self.log_loss = log_losses(probabilities, labels)
        self.brier = brier_scores(probabilities, labels)


def _ece_by_chance(confidences: Array, seed: int) -> float:
    """Return the mean calibration error of predictions that are right exactly as often as they say."""
    rng = np.random.default_rng(seed)
    confidences = np.sort(confidences)  # in any order of sessions the same
    draws = [rng.random(len(confidences)) < confidences for _ in range(_N_DRAWS)]
    return float(np.mean([expected_calibration_error(confidences, is_right) for is_right in draws]))


def _interval(bounds: tuple[float, float]) -> Interval:
    return Interval(low=bounds[0], high=bounds[1])


def _over(numerator: float, denominator: float) -> float:
    return numerator / denominator if denominator else 1.0


def _reliability(confidences: Array, is_right: Array) -> Reliability:
    bins = bins_of(confidences)
    n = np.bincount(bins, minlength=N_BINS)
    sums = np.bincount(bins, confidences, N_BINS), np.bincount(bins, is_right, N_BINS)
    means = [[float(total / count) if count else None for total, count in zip(s, n, strict=True)] for s in sums]
    return Reliability(
        mean_confidence=means[0], accuracy=means[1], n=n.tolist(), edges=np.linspace(0.0, 1.0, N_BINS + 1).tolist()
    )


def _confusion(labels: Ints, named: Ints, n_archetypes: int) -> list[list[int]]:
    table = np.zeros((n_archetypes, n_archetypes), dtype=np.int64)
    np.add.at(table, (labels, named), 1)
    return table.tolist()


def _rest_r2(judged: Judged, found: Array) -> RestR2:
    scores = r2_scores(judged.rests, found, judged.rest_mean)
    known = scores[~np.isnan(scores)]
    named = {name: None if np.isnan(score) else float(score) for name, score in zip(OUTCOMES, scores, strict=True)}
    return RestR2(**named, mean=float(known.mean()) if len(known) else None)


def _rest_r2_interval(judged: Judged, samples: WeekBootstrap) -> tuple[float, float]:
    errors = samples.sums(np.square(judged.rests - judged.rest_forecasts))
    spread = samples.sums(np.square(judged.rests - judged.rest_mean))
    known = (spread > 0).all(axis=0)
    if not known.any():
        return 0.0, 0.0
    return samples.interval((1.0 - errors[:, known] / spread[:, known]).mean(axis=1))


def _group_r2(judged: Judged, members: npt.NDArray[np.bool_], found: Array) -> float | None:
    scores = r2_scores(judged.rests[members], found[members], judged.rest_mean)
    known = scores[~np.isnan(scores)]
    return float(known.mean()) if len(known) else None
