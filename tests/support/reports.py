"""A plausible evaluation report, drawn at random from a seed."""

from __future__ import annotations

from typing import Final

import msgspec
import numpy as np

from offline.report import (
    MAX_EXAMPLES,
    N_BAND_STEPS,
    ArchetypePicture,
    Band,
    CheckpointReport,
    Group,
    Interval,
    PricePath,
    Reliability,
    Report,
    RestR2,
    TrainingPeriod,
)
from stream_fp.messages import Quantiles
from stream_fp.phases import PHASES

__all__ = ["empty_checkpoint", "random_report"]

SESSION_TYPES: Final = ("ny_am", "ny_pm", "london", "asia", "premarket", "lunch", "midnight")
NAMES: Final = (
    "quiet drift with gaps", "wide one-way expansion", "sweep, then reversal", "choppy consolidation",
    "slow retracement", "late breakout", "balanced two-way trade", "stop hunts",
)  # fmt: skip
OUTCOMES: Final = ("range", "volatility", "n_events", "efficiency", *PHASES)
N_BINS: Final = 10


def random_report(
    seed: int = 1, *, n_archetypes: int = 4, checkpoints: tuple[int, ...] = (25, 30, 35, 40), n: int = 612
) -> Report:
    """Return a report of a model that is a good deal better than its baselines."""
    rng = np.random.default_rng(seed)
    shares = rng.dirichlet(np.full(n_archetypes, 6.0))
    overall = {phase: float(rate) for phase, rate in zip(PHASES, rng.uniform(5, 28, len(PHASES)), strict=True)}
    return Report(
        model_version="1.2.0",
        created_at="2025-07-29T18:04:11Z",
        library_path="models/session_fingerprints/v1.2.0",
        first_date="2025-01-02",
        last_date="2025-07-25",
        n_sessions=n,
        n_left_out={"fewer than 5 events": 11, "ended before the checkpoint": 3},
        n_archetypes=n_archetypes,
        archetype_sizes={str(i): float(share) for i, share in enumerate(shares)},
        stability_ari=0.87,
        silhouette=0.14,
        training=TrainingPeriod(first_date="2022-01-03", last_date="2024-12-31", n_sessions=5210),
        checkpoints={str(pct): _checkpoint(rng, pct, n, shares) for pct in checkpoints},
        archetypes=[_picture(rng, i, float(shares[i]), n, overall) for i in range(n_archetypes)],
        overall_phase_rates=overall,
        notes=[
            "Archetypes are named after what tells them from the average session; the names mean nothing else.",
            "Sessions of 2025 were not looked at before the library was final.",
        ],
        settings={"completion": "auto", "distance_metric": "mahalanobis", "confidence_method": "calibrated"},
    )


def empty_checkpoint(n_archetypes: int = 4) -> CheckpointReport:
    """Return a checkpoint that no session reached."""
    nothing = {"low": 0.0, "high": 0.0, **dict.fromkeys((*OUTCOMES, "mean"))}
    values: dict[str, object] = {
        name: nothing if name.endswith(("_interval", "rest_r2")) else 0.0 for name in CheckpointReport.__struct_fields__
    }
    values |= {
        "n": 0,
        "reliability": {
            "mean_confidence": [None] * N_BINS,
            "accuracy": [None] * N_BINS,
            "n": [0] * N_BINS,
            "edges": [i / N_BINS for i in range(N_BINS + 1)],
        },
        "confusion": [[0] * n_archetypes for _ in range(n_archetypes)],
        "by_month": {},
        "by_session_type": {},
        "best_guess": "session type",
    }
    return msgspec.convert(values, CheckpointReport)


def _around(value: float, half_width: float) -> Interval:
    return Interval(low=value - half_width, high=value + half_width)


def _r2(values: dict[str, float | None]) -> RestR2:
    return RestR2(**values)


def _random_r2(rng: np.random.Generator, mean: float) -> RestR2:
    values = {name: float(value) for name, value in zip(OUTCOMES, rng.normal(mean, 0.09, len(OUTCOMES)), strict=True)}
    return _r2({**values, "mean": float(np.mean(list(values.values())))})


def _checkpoint(rng: np.random.Generator, pct: int, n: int, shares: np.ndarray) -> CheckpointReport:
    accuracy = 0.70 + 0.008 * (pct - 25) + float(rng.normal(0, 0.005))
    log_loss = 0.80 - 0.012 * (pct - 25)
    rest, regime, truth = _random_r2(rng, 0.22), _random_r2(rng, 0.12), _random_r2(rng, 0.34)
    months = [f"2025-{month:02d}" for month in range(1, 8)]
    confusion = [
        rng.multinomial(round(n * share), _confusion_row(rng, row, len(shares), accuracy)).tolist()
        for row, share in enumerate(shares)
    ]
    return CheckpointReport(
        n=n,
        accuracy=accuracy,
        log_loss=log_loss,
        brier=0.38,
        ece=0.021,
        ece_by_chance=0.018,
        accuracy_interval=_around(accuracy, 0.035),
        log_loss_interval=_around(log_loss, 0.07),
        brier_interval=_around(0.38, 0.03),
        baseline_type_accuracy=0.47,
        baseline_type_log_loss=1.19,
        baseline_type_brier=0.63,
        baseline_type_regime_accuracy=0.58,
        baseline_type_regime_log_loss=1.02,
        baseline_type_regime_brier=0.55,
        full_centroid_accuracy=0.51 + 0.006 * (pct - 25),
        full_centroid_log_loss=1.24,
        full_centroid_brier=0.66,
        uniform_accuracy=1 / len(shares),
        uniform_log_loss=float(np.log(len(shares))),
        uniform_brier=1 - 1 / len(shares),
        accuracy_gain_interval=_around(accuracy - 0.58, 0.04),
        best_guess="session type and regime",
        best_guess_accuracy=0.58,
        best_guess_gain_interval=_around(accuracy - 0.58, 0.04),
        log_loss_ratio=log_loss / 1.02,
        log_loss_ratio_interval=_around(log_loss / 1.02, 0.06),
        reliability=_reliability(rng, n),
        confusion=confusion,
        rest_r2=rest,
        baseline_type_rest_r2=_random_r2(rng, 0.07),
        baseline_type_regime_rest_r2=regime,
        true_archetype_rest_r2=truth,
        rest_r2_mean_interval=_around(rest.mean or 0.0, 0.03),
        baseline_type_regime_rest_r2_mean=regime.mean or 0.0,
        true_archetype_rest_r2_mean=truth.mean or 0.0,
        pinball_p10=0.041,
        pinball_p50=0.112,
        pinball_p90=0.079,
        baseline_ratio_pinball_p10=0.048,
        baseline_ratio_pinball_p50=0.131,
        baseline_ratio_pinball_p90=0.097,
        baseline_type_pinball_p10=0.062,
        baseline_type_pinball_p50=0.171,
        baseline_type_pinball_p90=0.129,
        pinball_ratio=0.84,
        pinball_ratio_interval=_around(0.84, 0.05),
        coverage_80=0.787,
        coverage_80_interval=_around(0.787, 0.032),
        mean_width_pct=0.92,
        baseline_ratio_coverage_80=0.742,
        baseline_type_coverage_80=0.81,
        by_month={month: _group(rng, n // len(months), accuracy) for month in months},
        by_session_type={kind: _group(rng, n // len(SESSION_TYPES), accuracy) for kind in SESSION_TYPES},
    )


def _confusion_row(rng: np.random.Generator, row: int, n_archetypes: int, accuracy: float) -> np.ndarray:
    shares = rng.dirichlet(np.ones(n_archetypes)) * (1 - accuracy)
    shares[row] += accuracy
    return np.asarray(shares / shares.sum())


def _group(rng: np.random.Generator, n: int, accuracy: float) -> Group:
    return Group(
        n=n,
        accuracy=float(np.clip(rng.normal(accuracy, 0.05), 0, 1)),
        log_loss=0.78,
        baseline_type_regime_accuracy=float(np.clip(rng.normal(0.58, 0.05), 0, 1)),
        baseline_type_regime_log_loss=1.02,
        coverage_80=float(np.clip(rng.normal(0.79, 0.03), 0, 1)),
        pinball_ratio=0.85,
        rest_r2_mean=0.3,
        baseline_type_regime_rest_r2_mean=0.25,
    )


def _reliability(rng: np.random.Generator, n: int) -> Reliability:
    edges = np.linspace(0, 1, N_BINS + 1)
    confidences = np.clip(rng.beta(6, 2.4, n), 0.26, 0.999)
    right = rng.random(n) < confidences
    bins = np.minimum((confidences * N_BINS).astype(int), N_BINS - 1)
    members = [bins == i for i in range(N_BINS)]
    return Reliability(
        mean_confidence=[float(confidences[member].mean()) if member.any() else None for member in members],
        accuracy=[float(right[member].mean()) if member.any() else None for member in members],
        n=[int(member.sum()) for member in members],
        edges=edges.tolist(),
    )


def _picture(
    rng: np.random.Generator, archetype_id: int, share: float, n: int, overall: dict[str, float]
) -> ArchetypePicture:
    spread = float(rng.uniform(0.25, 1.1))
    drift = float(rng.normal(0, 0.6)) * spread
    time = np.linspace(0, 1, 60)
    walks = [
        drift * time + np.concatenate(([0.0], np.cumsum(rng.normal(0, spread / 8, 59)))) for _ in range(MAX_EXAMPLES)
    ]
    steps = np.linspace(0, 1, N_BAND_STEPS)
    width = 1.28 * spread * np.sqrt(steps)
    types = rng.dirichlet(np.ones(len(SESSION_TYPES)))
    ordered = sorted(zip(SESSION_TYPES, types.tolist(), strict=True), key=lambda item: -item[1])
    return ArchetypePicture(
        archetype_id=archetype_id,
        name=NAMES[archetype_id % len(NAMES)],
        n_sessions=round(n * share),
        share=share,
        examples=[
            PricePath(session_id=f"NY_AM_2025-02-{i + 3:02d}", time=time.tolist(), move_pct=walk.tolist())
            for i, walk in enumerate(walks)
        ],
        mean_band=Band(
            p10=(drift * steps - width).tolist(), p50=(drift * steps).tolist(), p90=(drift * steps + width).tolist()
        ),
        phase_rates={phase: rate * float(rng.uniform(0.4, 1.8)) for phase, rate in overall.items()},
        range_pct=Quantiles(p10=spread * 0.6, p50=spread, p90=spread * 1.9),
        session_types=dict(ordered),
        efficiency=float(rng.uniform(0.1, 0.5)),
        volatility_class="low" if spread < 0.5 else "medium" if spread < 0.8 else "high",
    )
