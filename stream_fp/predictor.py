"""From a session at a checkpoint to the prediction that is published.

Pure: joins features, classifier and forecast. The clock, where one is given, only measures; nothing it
says reaches the prediction, so that live and replay write the same bytes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

from msgspec import Struct

from stream_fp.classifier import Assignment, Classifier
from stream_fp.features import FEATURE_NAMES, fingerprint
from stream_fp.forecast import predicted_stats
from stream_fp.messages import ClassificationMetadata, PredictedStats, Prediction
from stream_fp.rounding import rounded
from stream_fp.sessions import Session
from stream_fp.times import format_us

__all__ = ["Forecast", "Predictor"]

#: Six decimals of probabilities and distances in the output: far finer than their sampling error, and short to read.
_FINENESS: Final = 1e6


class Forecast(Struct, frozen=True, kw_only=True, eq=False):
    """A prediction and what it took to make it (nanoseconds; 0 without a clock)."""

    prediction: Prediction
    extraction_ns: int
    classification_ns: int


class Predictor:
    """Makes predictions with one classifier.

    Parameters
    ----------
    classifier : Classifier
    clock : callable, optional
        Monotonic nanoseconds, for measuring only.
    """

    def __init__(self, classifier: Classifier, *, clock: Callable[[], int] | None = None) -> None:
        self._classifier = classifier
        self._clock = clock if clock is not None else _no_clock
        self._artifact_path = classifier.library.path.as_posix()

    def forecast(self, session: Session, checkpoint_pct: float) -> Forecast:
        """Predict what `session` is becoming, from the events it holds now.

        Parameters
        ----------
        session : Session
            Holds at least one event.
        checkpoint_pct : float
            The checkpoint that was just crossed.
        """
        notes: list[str] = []
        library = self._classifier.library
        model = library.prefix_model(checkpoint_pct)
        started_ns = self._clock()
        values = fingerprint(session.rows, session.start_us)
        if not all(map(math.isfinite, values)):
            names = ", ".join(
                name for name, value in zip(FEATURE_NAMES, values, strict=True) if not math.isfinite(value)
            )
            centers = model.center.tolist()
            values = [value if math.isfinite(value) else center for value, center in zip(values, centers, strict=True)]
            notes.append(f"Non-finite features imputed with the training center: {names}")
        extracted_ns = self._clock()
        known = model.known(values, session.facts.session_type)
        shares = model.shares(known)
        assignment = self._classifier.assign(values, checkpoint_pct, model, shares)
        rest = model.rest_of(values, known, shares)
        archetype = library.archetypes[assignment.archetype_id]
        stats = predicted_stats(library, archetype, values, session.n_held, rest)
        classified_ns = self._clock()
        return Forecast(
            prediction=self._prediction(session, checkpoint_pct, assignment, stats, notes),
            extraction_ns=extracted_ns - started_ns,
            classification_ns=classified_ns - extracted_ns,
        )

    def closed(self, session: Session, reason: str) -> None:
        """Take note that a session is over; predictions need nothing of it."""

    def _prediction(
        self, session: Session, checkpoint_pct: float, assignment: Assignment, stats: PredictedStats, notes: list[str]
    ) -> Prediction:
        library = self._classifier.library
        completion_pct = session.completion_pct
        pct_seen = round(completion_pct, 1)
        facts = session.facts
        return Prediction(
            session_id=session.id,
            date=facts.day.isoformat() if facts.day is not None else format_us(session.event_time_us)[:10],
            pct_seen=pct_seen,
            archetype_id=assignment.archetype_id,
            confidence=rounded(assignment.confidence, _FINENESS),
            predicted_stats=stats,
            artifact_path=self._artifact_path,
            notes=[
                f"Early classification at {pct_seen}% completion",
                *_session_notes(session, completion_pct, checkpoint_pct),
                *notes,
                *assignment.notes,
            ],
            classification_metadata=ClassificationMetadata(
                distance_to_centroid=rounded(assignment.distance, _FINENESS),
                distance_metric=assignment.metric,
                confidence_method=assignment.confidence_method,
                model_version=library.version,
                timestamp=format_us(session.event_time_us),
                completion_method=session.yardstick.method,
                checkpoint_pct=checkpoint_pct,
                assignment=assignment.method,
                archetype_name=library.archetypes[assignment.archetype_id].name,
                probabilities={str(k): rounded(p, _FINENESS) for k, p in assignment.probabilities.items()},
            ),
        )


def _session_notes(session: Session, completion_pct: float, checkpoint_pct: float) -> list[str]:
    notes = []
    if session.yardstick.method == "unknown":
        notes.append("Completion unknown: neither end, schedule nor expected events; all events given are used")
    elif completion_pct < checkpoint_pct - 1e-9:
        notes.append(f"The events given end before the {checkpoint_pct:g}% checkpoint")
    if session.n_untimed:
        notes.append(f"{session.n_untimed} unreadable timestamps: event order used for these")
    return notes


def _no_clock() -> int:
    return 0
