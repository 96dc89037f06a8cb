"""Datasets without files: sessions whose features are given, simulated ones, and prefix models made by hand."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from datetime import date, timedelta
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from offline.dataset import Dataset, Prefixes
from offline.simulate import interleave, simulate_sessions
from offline.train import TrainingOptions
from stream_fp.artifacts import InputArrays, MembershipArrays, RestArrays
from stream_fp.completion import DEFAULT_SCHEDULES
from stream_fp.features import N_FEATURES, RANGE
from stream_fp.prefix_model import OUTCOMES, Membership, PrefixModel, RestModel
from stream_fp.rest import N_PATH_POINTS

__all__ = ["FIXED", "blobs", "dataset_of", "no_prefixes", "online_model", "prefixes_of", "write_lines",
           "write_sessions"]  # fmt: skip

Array = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

#: Nothing is chosen by evidence, which takes the longest and has tests of its own.
FIXED: Final = TrainingOptions(model_version="1", n_archetypes=4, profile="pace_range", n_jobs=1)


def prefixes_of(vectors: Array, *, rows: Ints | None = None, seed: int = 9) -> Prefixes:
    """Return prefixes with given features; what became of the rest is drawn at random."""
    n = len(vectors)
    rng = np.random.default_rng(seed)
    rests = np.column_stack(
        (rng.normal(-1.0, 0.5, (n, 3)), rng.uniform(0.0, 1.0, (n, 1)), rng.dirichlet(np.ones(6), n))
    )
    return Prefixes(rows=np.arange(n) if rows is None else rows, vectors=vectors, rests=rests)


def no_prefixes() -> Prefixes:
    """Return a checkpoint that no session reached."""
    return Prefixes(
        rows=np.empty(0, dtype=np.int64), vectors=np.empty((0, N_FEATURES)), rests=np.empty((0, len(OUTCOMES)))
    )


def dataset_of(
    full: Array,
    prefixes: dict[float, Prefixes] | None = None,
    *,
    session_types: Sequence[str] | None = None,
    sessions_per_day: int = 1,
    paths: Array | None = None,
) -> Dataset:
    """Return sessions with given features, `sessions_per_day` of them a day from 2025-01-01 on."""
    n = len(full)
    if prefixes is None:
        prefixes = {30.0: prefixes_of(full * 0.5)}
    if session_types is None:
        session_types = ["ny_am" if i % 3 else "asia" for i in range(n)]
    days = [(date(2025, 1, 1) + timedelta(days=i // sessions_per_day)).isoformat() for i in range(n)]
    return Dataset(
        session_ids=tuple(
            f"{kind.upper()}_{day}-{i:04d}" for i, (kind, day) in enumerate(zip(session_types, days, strict=True))
        ),
        session_types=tuple(session_types),
        dates=tuple(days),
        starts_us=np.arange(n, dtype=np.int64),
        n_events=np.full(n, 40, dtype=np.int64),
        full=full,
        paths=np.zeros((n, N_PATH_POINTS)) if paths is None else paths,
        prefixes=prefixes,
        completion="auto",
        min_events=5,
        schedules=DEFAULT_SCHEDULES,
        typical_events={"ny_am": 40.0},
        n_unfinished=0,
        skipped={},
        remarks=(),
    )


def blobs(n: int, n_blobs: int, seed: int = 0) -> tuple[Array, Ints]:
    """Return positive features around `n_blobs` centres, in turn, with the range falling from one to the next."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % n_blobs
    centers = rng.uniform(5.0, 10.0, (n_blobs, N_FEATURES))
    centers[:, RANGE] = np.arange(n_blobs, 0, -1)
    return centers[labels] + rng.normal(0.0, 0.1, (n, N_FEATURES)), labels


def write_lines(path: Path, messages: Iterable[dict[str, Any]]) -> Path:
    """Write messages as JSON Lines."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(message) + "\n" for message in messages))
    return path


def write_sessions(path: Path, n_sessions: int, *, seed: int) -> Path:
    """Write simulated sessions, as a topic would hold them."""
    return write_lines(path, interleave(simulate_sessions(n_sessions, seed=seed)))


def online_model(
    *,
    inputs: InputArrays | None = None,
    membership: MembershipArrays | None = None,
    rest: RestArrays | None = None,
    n_archetypes: int = 1,
) -> PrefixModel:
    """Return the arrays as the service holds them; what is not given is not asked for."""
    if inputs is None:
        inputs = InputArrays(center=[0.0] * N_FEATURES, scale=[1.0] * N_FEATURES, clip=1e9, session_types=[])
    if membership is None:
        membership = MembershipArrays(features=[], fingerprint=[], logits=[])
    if rest is None:
        rest = RestArrays(outcomes=[], coefficients=[], quantile_coefficients=[], quantile_shifts=[0.0] * 3)
    return PrefixModel(
        checkpoint_pct=30.0,
        archetype_ids=np.arange(n_archetypes),
        center=np.zeros(N_FEATURES),
        scale=np.ones(N_FEATURES),
        centroids=np.zeros((n_archetypes, N_FEATURES)),
        precision=None,
        temperatures={},
        input_center=np.array(inputs.center),
        input_scale=np.array(inputs.scale),
        input_clip=inputs.clip,
        session_types={session_type: place for place, session_type in enumerate(inputs.session_types)},
        membership=Membership(
            features=np.array(membership.features, dtype=np.int64),
            fingerprint=np.array(membership.fingerprint),
            logits=np.array(membership.logits),
        ),
        rest=RestModel(
            columns=np.array([OUTCOMES.index(outcome) for outcome in rest.outcomes], dtype=np.int64),
            coefficients=np.array(rest.coefficients),
            quantile_coefficients=np.array(rest.quantile_coefficients) if rest.quantile_coefficients else None,
            quantile_shifts=np.array(rest.quantile_shifts),
        ),
    )
