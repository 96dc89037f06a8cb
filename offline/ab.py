"""The A/B grid: every way to assign and to be confident, learned on the past and judged on the future.

A dataset in, one `Part` for each split and scaler out; `offline.ab_results` makes scores and comparisons of them.
Cells of the grid are scaler x assignment x distance metric x confidence method, at each checkpoint. Those that mean the
same are computed once and listed once: `prefix_model` has probabilities of its own, so metric and confidence method are
ignored; `full_centroid` has no covariance, so mahalanobis would be euclidean. That leaves 16 cells a scaler.

Splits are those of `offline.splits.forward_splits`: scaler, k-means, centroids, temperatures and the prefix model are
learned by `offline.train` on the past alone, and the past ends an embargo before the future begins. Archetypes of
future sessions are those of the past's k-means. The library is written and loaded as the service loads it, and judged
by the service's `Classifier`. What comes from all sessions is only where a prefix is cut: usual windows and numbers of
events by session type, as `offline.dataset` learns them.

Each scaler has archetypes of its own, so cells of different scalers answer slightly different questions; the guess
from type and regime beside them, judged on the same archetypes, says how hard each question is.
"""

from __future__ import annotations

import hashlib
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final, get_args

import msgspec
import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from offline.ab_parts import Cell, CheckpointPart, Choice, Part, PartFolder, Scores, sessions_digest
from offline.artifacts import write_library
from offline.backends import LOCAL, Backend
from offline.baselines import Baselines
from offline.dataset import Dataset, Progress
from offline.scalers import ScalerKind
from offline.scores import brier_scores, log_losses
from offline.selection import choose
from offline.splits import forward_splits
from offline.train import TrainedLibrary, TrainingOptions, library_versions, train
from stream_fp.artifacts import PrefixModelArrays
from stream_fp.classifier import AssignmentMethod, Classifier, ConfidenceMethod, DistanceMetric
from stream_fp.errors import ConfigError
from stream_fp.library import Library, load_library

__all__ = ["SCALERS", "AbOptions", "Split", "fingerprint", "grid", "judge_split", "make_splits", "run_grid"]

Array = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

SCALERS: Final[tuple[ScalerKind, ...]] = get_args(ScalerKind)
_ASSIGNMENTS: Final[tuple[AssignmentMethod, ...]] = ("prefix_model", "prefix_centroid", "full_centroid")
#: On either side of a split: with fewer, temperatures are not fitted and intervals say nothing.
_MIN_SESSIONS: Final = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class AbOptions:
    """What a run of the grid is told.

    Attributes
    ----------
    n_splits : int
    n_archetypes : int or None
        None has it chosen from the past of each split (`offline.selection`), the same for both scalers.
    profile : str or None
        Likewise.
    seed : int
        Of k-means and of the bootstrap.
    n_jobs : int
        Processes; the result is the same for any number.
    backend : Backend
        Where they run.
    """

    n_splits: int = 4
    n_archetypes: int | None = None
    profile: str | None = None
    seed: int = 0
    n_jobs: int = -1
    backend: Backend = LOCAL


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Split:
    """Rows of the dataset to learn from, and later ones to judge; `number` counts from 1."""

    number: int
    past: Ints
    future: Ints


def grid(scaler: ScalerKind) -> list[Cell]:
    """Return the cells of one scaler, each meaning once.

    Examples
    --------
    >>> [cell.name for cell in grid("robust")][:2]
    ['prefix_model robust', 'prefix_centroid euclidean inverse_distance robust']
    >>> len(grid("robust"))
    16
    """
    cells = []
    for assignment in _ASSIGNMENTS:
        if assignment == "prefix_model":
            cells.append(Cell(scaler=scaler, assignment=assignment, metric=None, confidence=None))
            continue
        cells += [
            Cell(scaler=scaler, assignment=assignment, metric=metric, confidence=confidence)
            for metric in get_args(DistanceMetric)
            if assignment != "full_centroid" or metric != "mahalanobis"
            for confidence in get_args(ConfidenceMethod)
        ]
    return cells


def make_splits(dataset: Dataset, n_splits: int) -> list[Split]:
    """Split the sessions by time.

    Raises
    ------
    ConfigError
        When a split would have too few sessions to learn from or to judge.
    """
    found = [
        Split(number=number, past=past, future=future)
        for number, (past, future) in enumerate(forward_splits(dataset.days(), n_splits), 1)
    ]
    for split in found:
        if min(len(split.past), len(split.future)) < _MIN_SESSIONS:
            raise ConfigError(
                "splits",
                f"expected at least {_MIN_SESSIONS} sessions to learn from and {_MIN_SESSIONS} to judge, got "
                f"{len(split.past)} and {len(split.future)} in split {split.number} of {n_splits}; "
                "give more sessions or fewer splits",
            )
    return found


def fingerprint(dataset: Dataset, options: AbOptions) -> str:
    """Return what tells this run from others: the SHA-256 of sessions, options and package versions."""
    told = msgspec.json.encode(
        [
            sessions_digest(dataset),
            (options.n_splits, options.n_archetypes, options.profile, options.seed),
            [cell.name for scaler in SCALERS for cell in grid(scaler)],
            library_versions(),
        ]
    )
    return hashlib.sha256(told).hexdigest()


def run_grid(dataset: Dataset, options: AbOptions, folder: PartFolder, progress: Progress | None = None) -> list[Part]:
    """Compute the parts that the folder does not hold yet; return all, by split and scaler.

    Parameters
    ----------
    dataset : Dataset
        Cut at the checkpoints to judge.
    options : AbOptions
    folder : PartFolder
    progress : callable, optional
        Told after each training.

    Raises
    ------
    ConfigError
        When there are too few sessions, or the folder holds another run.
    """
    tell = progress or _tell_nobody
    found = make_splits(dataset, options.n_splits)
    run = fingerprint(dataset, options)
    folder.begin(run)
    tasks = [(split, scaler) for split in found for scaler in SCALERS]
    parts = {(s.number, scaler): folder.read(_name(s.number, scaler), Part) for s, scaler in tasks}
    missing = [(split, scaler) for split, scaler in tasks if parts[split.number, scaler] is None]
    chosen = {}
    for split in found:
        if any(other is split for other, _ in missing):
            chosen[split.number] = _choice(dataset, split, options, run, folder, tell)
    n_done = len(tasks) - len(missing)
    tell("Training and judging", n_done, len(tasks))
    # In whatever order they end: each is kept on disk at once.
    jobs = ((dataset, split, scaler, chosen[split.number], options.seed) for split, scaler in missing)
    for part in options.backend.run(judge_split, jobs, n_jobs=options.n_jobs, in_order=False, shared=(dataset,)):
        folder.write(_name(part.split, part.scaler), part)
        parts[part.split, part.scaler] = part
        n_done += 1
        tell("Training and judging", n_done, len(tasks))
    return [part for part in parts.values() if part is not None]


def judge_split(dataset: Dataset, split: Split, scaler: ScalerKind, choice: Choice, seed: int) -> Part:
    """Learn from the past of a split, and judge every cell of a scaler on its future: one task, for any process."""
    # With several threads, sums are added up in an order that changes from run to run.
    with threadpool_limits(limits=1):
        trained = train(
            dataset.select(split.past),
            TrainingOptions(
                model_version=_name(split.number, scaler),
                n_archetypes=choice.n_archetypes,
                profile=choice.profile,
                scaler=scaler,
                seed=seed,
                n_jobs=1,
            ),
        )
        labels = trained.kmeans.predict(trained.scaler.transform(dataset.full[split.future])).astype(np.int64)
        label_by_row = dict(zip(split.future.tolist(), labels.tolist(), strict=True))
        library = _as_served(trained)
        cells = grid(scaler)
        arrays = {model.checkpoint_pct: model for model in trained.metadata.prefix_models}
        return Part(
            fingerprint=choice.fingerprint,
            split=split.number,
            scaler=scaler,
            profile=choice.profile,
            n_archetypes=choice.n_archetypes,
            cells=cells,
            checkpoints=[
                _checkpoint(dataset, checkpoint_pct, arrays.get(checkpoint_pct), label_by_row, library, cells)
                for checkpoint_pct in dataset.prefixes
            ],
        )


def _checkpoint(  # noqa: PLR0917 - one checkpoint of the judging
    dataset: Dataset,
    checkpoint_pct: float,
    arrays: PrefixModelArrays | None,
    label_by_row: dict[int, int],
    library: Library,
    cells: list[Cell],
) -> CheckpointPart:
    cut = dataset.prefixes[checkpoint_pct]
    # Without a model of its own the service would use that of another checkpoint, which is another question.
    is_judged = np.isin(cut.rows, list(label_by_row)) & (arrays is not None)
    rows, vectors = cut.rows[is_judged].tolist(), cut.vectors[is_judged]
    session_types = [dataset.session_types[row] for row in rows]
    labels = np.array([label_by_row[row] for row in rows], dtype=np.int64)
    n_archetypes = len(library.archetypes)
    scores = []
    for cell in cells:
        classifier = Classifier(
            library,
            distance_metric=cell.metric or "euclidean",
            confidence_method=cell.confidence or "softmax",
            assignment=cell.assignment,
        )
        probabilities = np.zeros((len(rows), n_archetypes))
        named = np.zeros(len(rows), dtype=np.int64)
        confidences = np.zeros(len(rows))
        for place, (vector, session_type) in enumerate(zip(vectors, session_types, strict=True)):
            found = classifier.classify(vector, checkpoint_pct, session_type)
            named[place], confidences[place] = found.archetype_id, found.confidence
            probabilities[place, list(found.probabilities)] = list(found.probabilities.values())
        scores.append(_scores(probabilities, named, confidences, labels))
    guess = np.full((len(rows), n_archetypes), 0.0)
    if arrays is not None:
        baselines = Baselines(arrays.baselines, session_types, cut.dominant_regimes[is_judged])
        guess[:, arrays.archetype_ids] = baselines.archetypes_by_type_regime()
    return CheckpointPart(
        checkpoint_pct=checkpoint_pct,
        rows=rows,
        labels=labels.tolist(),
        scores=scores,
        guess=_scores(guess, guess.argmax(axis=1), guess.max(axis=1), labels),
        without_covariance=arrays is not None and arrays.precision is None,
    )


def _scores(probabilities: Array, named: Ints, confidences: Array, labels: Ints) -> Scores:
    return Scores(
        is_right=(named == labels).tolist(),
        log_loss=log_losses(probabilities, labels).tolist(),
        brier=brier_scores(probabilities, labels).tolist(),
        confidence=confidences.tolist(),
    )


def _as_served(trained: TrainedLibrary) -> Library:
    with tempfile.TemporaryDirectory(prefix="stream-fp-ab-") as scratch:
        write_library(trained, Path(scratch) / "library")
        return load_library(Path(scratch) / "library")


def _choice(  # noqa: PLR0917 - one step of a run
    dataset: Dataset, split: Split, options: AbOptions, run: str, folder: PartFolder, tell: Progress
) -> Choice:
    """Return the archetypes to learn in a split, from its past alone."""
    if options.profile is not None and options.n_archetypes is not None:
        return Choice(fingerprint=run, profile=options.profile, n_archetypes=options.n_archetypes)
    name = f"split-{split.number}-choice"
    known = folder.read(name, Choice)
    if known is not None:
        return known
    profile, n_archetypes, _ = choose(
        dataset.select(split.past),
        n_archetypes=options.n_archetypes,
        profile=options.profile,
        scaler="standard",
        seed=options.seed,
        n_jobs=options.n_jobs,
        backend=options.backend,
        progress=lambda stage, n_done, n_all: tell(f"Split {split.number}: {stage.lower()}", n_done, n_all),
    )
    choice = Choice(fingerprint=run, profile=profile, n_archetypes=n_archetypes)
    folder.write(name, choice)
    return choice


def _name(split: int, scaler: ScalerKind) -> str:
    return f"split-{split}-{scaler}"


def _tell_nobody(_stage: str, _n_done: int, _n_all: int) -> None:
    pass
