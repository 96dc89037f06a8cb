"""Evaluate a library on sessions that it has not seen, through the very code that the service runs.

A library and a dataset in, a `Report` out. Every prediction is made by `Classifier` and `PrefixModel`, one session at a
time, with the assignment that the library recommends; baselines are those that training stored beside the model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from sklearn.metrics import silhouette_score
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from offline.baselines import check_tables
from offline.dataset import Dataset
from offline.guesses import Came, Moments, Named, judged_beside_guesses
from offline.judging import Judged, judge
from offline.pictures import overall_phase_rates, picture
from offline.report import CheckpointReport, Report, TrainingPeriod
from offline.selection import stability_ari
from offline.splits import EMBARGO_DAYS, ordinals
from stream_fp.artifacts import Metadata, PrefixModelArrays
from stream_fp.classifier import Classifier, nearest
from stream_fp.features import RANGE, range_of_log
from stream_fp.forecast import final_range_pct
from stream_fp.library import Library
from stream_fp.prefix_model import OUTCOMES, QUANTILES

__all__ = ["EvaluationOptions", "evaluate", "unseen_rows"]

Array = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

#: A silhouette compares each session with another archetype than its own.
_MIN_ARCHETYPES: Final = 2
#: Fewer sessions than these make intervals so wide that the report says so.
_FEW_SESSIONS: Final = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationOptions:
    """What an evaluation is told.

    Attributes
    ----------
    created_at : str
        ISO 8601.
    seed : int
        Of the bootstrap.
    n_left_out : dict of str to int
        Sessions that were not handed over, by reason; goes into the report.
    """

    created_at: str
    seed: int = 0
    n_left_out: dict[str, int]


def unseen_rows(dataset: Dataset, metadata: Metadata) -> Ints:
    """Return the sessions after the training period and the embargo, as rows of the dataset."""
    last = ordinals([metadata.training.last_date])[0]
    return np.flatnonzero(dataset.days() > last + EMBARGO_DAYS)


def evaluate(dataset: Dataset, library: Library, metadata: Metadata, options: EvaluationOptions) -> Report:
    """Judge the predictions of a library.

    Parameters
    ----------
    dataset : Dataset
        At least one session, cut at the checkpoints of the library with its windows and counts.
    library : Library
    metadata : Metadata
        Of the same library.
    options : EvaluationOptions

    Raises
    ------
    ModelLoadError
        When the tables of guesses or the refits in the metadata do not fit the rest of it.
    """
    # With several threads, sums are added up in an order that changes from run to run.
    with threadpool_limits(limits=1):
        scaled = (dataset.full - library.center) / library.scale
        check_tables(metadata)
        labels = np.array([nearest(vector, library.centroids) for vector in scaled], dtype=np.int64)
        classifier = Classifier(library)
        baseline = Classifier(library, assignment="full_centroid")
        checkpoints: dict[str, CheckpointReport] = {}
        for arrays in sorted(metadata.prefix_models, key=lambda model: model.checkpoint_pct):
            judged = _judged(dataset, labels, arrays, library, classifier, baseline)
            if judged is not None:
                checkpoints[f"{arrays.checkpoint_pct:g}"] = judge(judged, options.seed)
        sizes = np.bincount(labels, minlength=metadata.n_archetypes) / len(labels)
        features = metadata.stability.features
        return Report(
            model_version=library.version,
            created_at=options.created_at,
            library_path=library.path.as_posix(),
            first_date=dataset.dates[0],
            last_date=dataset.dates[-1],
            n_sessions=len(dataset),
            n_left_out=options.n_left_out,
            n_archetypes=metadata.n_archetypes,
            archetype_sizes={str(label): float(size) for label, size in enumerate(sizes)},
            stability_ari=stability_ari(labels, scaled[:, features], np.array(metadata.stability.centroids)),
            silhouette=_silhouette(scaled[:, features], labels),
            training=TrainingPeriod(
                first_date=metadata.training.first_date,
                last_date=metadata.training.last_date,
                n_sessions=metadata.training.n_sessions,
            ),
            checkpoints=checkpoints,
            archetypes=[
                picture(library.archetypes[label], dataset, labels, scaled, library.centroids[label])
                for label in range(metadata.n_archetypes)
            ],
            overall_phase_rates=overall_phase_rates(dataset),
            notes=_notes(dataset, metadata, checkpoints),
            settings=_settings(metadata, classifier, options),
        )


def _judged(  # noqa: PLR0917 - one checkpoint of the evaluation
    dataset: Dataset,
    labels: Ints,
    arrays: PrefixModelArrays,
    library: Library,
    classifier: Classifier,
    baseline: Classifier,
) -> Judged | None:
    """Predict every session that reached the checkpoint; None where none did."""
    cut = dataset.prefixes[arrays.checkpoint_pct]
    if not len(cut.rows):
        return None
    session_types = [dataset.session_types[row] for row in cut.rows]
    n_archetypes = len(library.archetypes)
    model = library.prefix_model(arrays.checkpoint_pct)
    probabilities, by_full = (np.zeros((len(cut.rows), n_archetypes)) for _ in range(2))
    rests = np.empty((len(cut.rows), len(OUTCOMES)))
    ranges = np.empty((len(cut.rows), len(QUANTILES)))
    for row, (vector, session_type) in enumerate(zip(cut.vectors, session_types, strict=True)):
        named = classifier.classify(vector, arrays.checkpoint_pct, session_type)
        guess = baseline.classify(vector, arrays.checkpoint_pct, session_type)
        for target, found in ((probabilities, named), (by_full, guess)):
            for archetype_id, share in found.probabilities.items():
                target[row, archetype_id] = share
        inputs = model.inputs(vector, session_type)
        forecast = model.forecast_rest(vector, inputs, model.probabilities(inputs))
        rests[row] = forecast.outcomes
        so_far_pct = range_of_log(float(vector[RANGE]))
        ranges[row] = final_range_pct(library.archetypes[named.archetype_id], so_far_pct, forecast)
    return judged_beside_guesses(
        Moments(
            days=dataset.days()[cut.rows],
            months=[dataset.dates[row][:7] for row in cut.rows],
            session_types=session_types,
            regimes=cut.dominant_regimes,
            range_so_far_pct=cut.range_so_far_pct,
        ),
        Named(probabilities=probabilities, by_full_centroid=by_full, rests=rests, ranges_pct=ranges),
        Came(labels=labels[cut.rows], rests=cut.rests, range_pct=dataset.range_pct[cut.rows]),
        arrays,
    )


def _silhouette(scaled: Array, labels: Ints) -> float:
    if not _MIN_ARCHETYPES <= len(np.unique(labels)) < len(labels):
        return 0.0
    return float(silhouette_score(scaled, labels))


def _notes(dataset: Dataset, metadata: Metadata, checkpoints: dict[str, CheckpointReport]) -> list[str]:
    notes = []
    training = metadata.training
    if any(training.first_date <= date <= training.last_date for date in dataset.dates):
        notes.append("Some of these sessions were trained on: the figures are better than those of new sessions")
    elif dataset.dates[0] < training.first_date:
        notes.append(
            "Some of these sessions are older than those trained on: no live service could have judged them so"
        )
    few = [f"{name} %" for name, found in checkpoints.items() if found.n < _FEW_SESSIONS]
    if few:
        notes.append(f"Few sessions reached {', '.join(few)}: look at the intervals before the figures")
    for name, found in checkpoints.items():
        if found.n < len(dataset):
            notes.append(
                f"{name} %: {len(dataset) - found.n} of {len(dataset)} sessions got no prediction (too few events by "
                "then, or none after it); quiet ones of short types are missing most"
            )
    if missing := [
        f"{m.checkpoint_pct:g} %" for m in metadata.prefix_models if f"{m.checkpoint_pct:g}" not in checkpoints
    ]:
        notes.append(f"No session reached {', '.join(missing)}")
    return notes


def _settings(metadata: Metadata, classifier: Classifier, options: EvaluationOptions) -> dict[str, str]:
    chosen: Sequence[str] = [trial.profile for trial in metadata.selection if trial.is_chosen]
    return {
        "assignment": classifier.assignment,
        "completion": metadata.completion,
        "scaler": metadata.scaler.kind,
        "features that tell archetypes apart": ", ".join(
            metadata.feature_names[place] for place in metadata.stability.features
        ),
        "profile": chosen[0] if chosen else "given",
        "embargo": f"{EMBARGO_DAYS} day",
        "bootstrap": f"weeks resampled 1,000 times, seed {options.seed}",
    }
