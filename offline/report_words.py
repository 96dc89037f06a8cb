"""The report in words: how numbers are spelled, what things are called, and the verdict in plain sentences.

Pure. A number that is not there is a dash; what an interval does not settle is not claimed.
"""

from __future__ import annotations

import math
from typing import Final, Protocol

from offline.report import CheckpointReport, Interval, Reliability, TrainingPeriod

__all__ = [
    "BASELINES",
    "MISSING",
    "Judgement",
    "checkpoint_label",
    "interval_text",
    "main_checkpoint",
    "number",
    "ordered_checkpoints",
    "percent",
    "phase_name",
    "usual_confidence",
    "verdict",
]

MISSING: Final = "–"
#: What the model is compared with, by the beginning of its fields' names.
BASELINES: Final = {
    "baseline_type_regime": "Type × regime",
    "baseline_type": "Session type",
    "full_centroid": "Full centroids",
    "uniform": "Uniform guess",
}
#: The checkpoint the service has unless it is told otherwise, in per cent: where it was judged, it heads the report.
_USUAL_CHECKPOINT: Final = 30.0
#: The confidence that the verdict takes as its example, and how many sessions a bin needs to stand for it.
_EXAMPLE_CONFIDENCE: Final = 0.8
_MIN_BIN: Final = 20
#: With fewer sessions an accuracy is good to no better than 14 points.
_FEW_SESSIONS: Final = 50
#: Beyond these a band that should hold 80 % misleads whoever acts on it.
_LEAST_COVERAGE: Final = 0.7
_MOST_COVERAGE: Final = 0.9


class Judgement(Protocol):
    """Predictions that were judged: an evaluation's `Report`, or a backtest."""

    @property
    def checkpoints(self) -> dict[str, CheckpointReport]:
        """By checkpoint in per cent of the session."""

    @property
    def first_date(self) -> str:
        """Date of the earliest session judged."""

    @property
    def last_date(self) -> str:
        """Date of the latest session judged."""

    @property
    def n_sessions(self) -> int:
        """Sessions judged."""

    @property
    def training(self) -> TrainingPeriod:
        """What the library was learned from."""


def percent(share: float | None, decimals: int = 0) -> str:
    r"""Spell a share; no line breaks before its sign.

    Examples
    --------
    >>> percent(0.7612), percent(0.7612, 1), percent(None)
    ('76\xa0%', '76.1\xa0%', '–')
    """
    return MISSING if share is None else f"{_rounded(share * 100, decimals)}\u00a0%"


def number(value: float | None, decimals: int = 3) -> str:
    """Spell a number.

    Examples
    --------
    >>> number(0.81249), number(-0.0001), number(-1.5, 1), number(None)
    ('0.812', '0.000', '−1.5', '–')
    """
    return MISSING if value is None else _rounded(value, decimals)


def interval_text(interval: Interval, *, as_percent: bool = False, decimals: int = 3) -> str:
    """Spell an interval, without the unit.

    Examples
    --------
    >>> interval_text(Interval(low=0.725, high=0.801), as_percent=True, decimals=1)
    '72.5 to 80.1'
    """
    factor = 100 if as_percent else 1
    return f"{_rounded(interval.low * factor, decimals)} to {_rounded(interval.high * factor, decimals)}"


def phase_name(phase: str) -> str:
    """Name a phase in one or two words.

    Examples
    --------
    >>> phase_name("expansion_phase"), phase_name("fvg_interaction"), phase_name("liquidity_sweep")
    ('expansion', 'FVG interaction', 'liquidity sweep')
    """
    words = [word for word in phase.split("_") if word not in {"phase", "event", "signal"}]
    return " ".join("FVG" if word == "fvg" else word for word in words)


def checkpoint_label(checkpoint: str) -> str:
    """Name a checkpoint by its key in the report."""
    return f"{checkpoint}\u00a0%"


def ordered_checkpoints(report: Judgement) -> list[tuple[str, CheckpointReport]]:
    """Return the checkpoints, the earliest first."""
    return sorted(report.checkpoints.items(), key=lambda item: (_as_number(item[0]), item[0]))


def main_checkpoint(report: Judgement) -> str | None:
    """Return the checkpoint that heads the report: the one nearest to the usual one at which sessions were judged."""
    judged = [key for key, checkpoint in ordered_checkpoints(report) if checkpoint.n]
    return min(judged, key=lambda key: abs(_as_number(key) - _USUAL_CHECKPOINT), default=None)


def usual_confidence(reliability: Reliability) -> tuple[float, float] | None:
    """Return mean confidence and accuracy of the bin nearest to 80 % that holds enough sessions; None without one."""
    bins = [
        (confidence, accuracy)
        for confidence, accuracy, n in zip(
            reliability.mean_confidence, reliability.accuracy, reliability.n, strict=True
        )
        if confidence is not None and accuracy is not None and n >= _MIN_BIN
    ]
    return min(bins, key=lambda found: abs(found[0] - _EXAMPLE_CONFIDENCE), default=None)


def verdict(report: Judgement) -> list[str]:
    """Say in plain sentences what the numbers mean."""
    key = main_checkpoint(report)
    if key is None:
        return ["No session was judged, so nothing can be said."]
    checkpoint = report.checkpoints[key]
    return [
        *_warnings(report, checkpoint),
        _archetype_sentence(key, checkpoint),
        *_confidence_sentence(checkpoint),
        _range_sentence(checkpoint),
        _rest_sentence(checkpoint),
        _period_sentence(report),
    ]


def _archetype_sentence(key: str, checkpoint: CheckpointReport) -> str:
    gain = checkpoint.best_guess_gain_interval
    sentence = (
        f"At {checkpoint_label(key)} the model names the right archetype in {percent(checkpoint.accuracy)} of the "
        f"sessions ({interval_text(checkpoint.accuracy_interval, as_percent=True, decimals=0)}); the best guess "
        f"without it, from {checkpoint.best_guess}: {percent(checkpoint.best_guess_accuracy)}."
    )
    points = interval_text(gain, as_percent=True, decimals=0)
    if gain.low > 0:
        return f"{sentence} That is {points} points more."
    if gain.high < 0:
        return f"{sentence} The model is worse than that guess ({points} points)."
    return f"{sentence} The difference may be chance ({points} points)."


def _warnings(report: Judgement, checkpoint: CheckpointReport) -> list[str]:
    """Say first what keeps the figures from being believed."""
    found = []
    if report.first_date <= report.training.last_date:
        found.append("IN SAMPLE: the library was learned from some of these sessions, so all figures flatter it.")
    if checkpoint.n < _FEW_SESSIONS:
        found.append(f"Only {checkpoint.n} sessions were judged: too few to tell skill from chance.")
    if checkpoint.n >= _FEW_SESSIONS and not _LEAST_COVERAGE <= checkpoint.coverage_80 <= _MOST_COVERAGE:
        found.append(f"The range forecast does not hold: 80\u00a0% is meant, {percent(checkpoint.coverage_80)} came.")
    if (checkpoint.rest_r2.mean or 0.0) < checkpoint.baseline_type_regime_rest_r2_mean:
        found.append("The forecast of the rest is no better than what is usual for session type and regime.")
    return found


def _confidence_sentence(checkpoint: CheckpointReport) -> list[str]:
    found = usual_confidence(checkpoint.reliability)
    return [f"When it says {percent(found[0])}, it is right in {percent(found[1])}."] if found else []


def _range_sentence(checkpoint: CheckpointReport) -> str:
    change = (checkpoint.pinball_ratio - 1) * 100
    ratio = checkpoint.pinball_ratio_interval
    if ratio.low <= 1 <= ratio.high:
        loss = "its error does not clearly differ from that of taking the range so far times its usual growth"
    else:
        loss = (
            f"its error is {_rounded(abs(change), 0)}\u00a0% {'smaller' if change < 0 else 'larger'} than that of "
            "taking the range so far times its usual growth"
        )
    return (
        f"The range ends up within the forecast's 80\u00a0% band in {percent(checkpoint.coverage_80)} of the sessions, "
        f"and {loss}."
    )


def _rest_sentence(checkpoint: CheckpointReport) -> str:
    return (
        f"Of how the rest of a session differs from the average, the forecast explains "
        f"{_explained(checkpoint.rest_r2.mean)}, session type and regime "
        f"{_explained(checkpoint.baseline_type_regime_rest_r2_mean)}, and the true archetype, known only at the end, "
        f"{_explained(checkpoint.true_archetype_rest_r2_mean)} (mean R²)."
    )


def _period_sentence(report: Judgement) -> str:
    sentence = f"{report.n_sessions:,} sessions from {report.first_date} to {report.last_date} were judged"
    # ISO 8601 dates sort as text.
    if report.training.last_date < report.first_date:
        return f"{sentence}, all later than those the library was learned from."
    return f"{sentence}; the library was learned from sessions of {_period(report)}."


def _period(report: Judgement) -> str:
    return f"{report.training.first_date} to {report.training.last_date}"


def _explained(r2: float | None) -> str:
    if r2 is None:
        return "an unknown share"
    return percent(r2) if r2 > 0 else "nothing"


def _rounded(value: float, decimals: int) -> str:
    text = f"{round(value, decimals) + 0.0:,.{decimals}f}"  # no negative zero
    return text.replace("-", "−")


def _as_number(key: str) -> float:
    try:
        value = float(key)
    except ValueError:
        return math.inf
    return value if math.isfinite(value) else math.inf
