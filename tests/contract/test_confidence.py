"""What a prediction promises, kept on sessions that training did not see: its confidence, and its range.

Everything is as it is served: a library is trained and loaded, messages of later sessions go through the engine, and
what is published is compared with what became of the sessions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import msgspec
import numpy as np
import numpy.typing as npt
import pytest

from offline.artifacts import write_library
from offline.dataset import Tables, load_dataset
from offline.scores import expected_calibration_error
from offline.simulate import interleave, simulate_sessions
from offline.train import TrainingOptions, train
from stream_fp.classifier import Classifier, nearest
from stream_fp.library import load_library
from stream_fp.outcomes import Published
from stream_fp.predictor import Predictor
from tests.support.builders import make_engine, records, run

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from offline.simulate import SimulatedSession
    from stream_fp.messages import Prediction

CHECKPOINTS: Final = (25.0, 30.0, 40.0, 50.0)
#: Seven sessions a day: 129 days to learn from, one that belongs to neither side, 57 to judge.
N_LEARNED, N_BETWEEN, N_JUDGED = 903, 7, 399
SEED: Final = 1
#: A right model strays further than this once in some four hundred comparisons.
N_ERRORS: Final = 3.0
COVERAGE: Final = 0.8

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Kept:
    """Predictions of one checkpoint, and what came of their sessions."""

    predictions: list[Prediction]
    labels: npt.NDArray[np.int64]
    range_pct: Array

    @property
    def is_right(self) -> npt.NDArray[np.bool_]:
        named = np.array([prediction.archetype_id for prediction in self.predictions], dtype=np.int64)
        return np.equal(named, self.labels)

    @property
    def confidences(self) -> Array:
        return np.array([prediction.confidence for prediction in self.predictions])

    @property
    def probabilities(self) -> Array:
        return np.array(
            [list(prediction.classification_metadata.probabilities.values()) for prediction in self.predictions]
        )


def write_messages(path: Path, sessions: Sequence[SimulatedSession]) -> Path:
    path.write_bytes(b"\n".join(msgspec.json.encode(message) for message in interleave(sessions)))
    return path


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> dict[float, Kept]:
    folder = tmp_path_factory.mktemp("confidence")
    sessions = list(simulate_sessions(N_LEARNED + N_BETWEEN + N_JUDGED, seed=SEED))
    past = load_dataset(write_messages(folder / "past.jsonl", sessions[:N_LEARNED]), checkpoints_pct=CHECKPOINTS)
    options = TrainingOptions(model_version="1", n_archetypes=4, profile="pace_range")
    write_library(train(past, options), folder / "v1")
    library = load_library(folder / "v1")

    later = sessions[N_LEARNED + N_BETWEEN :]
    tables = Tables(schedules=past.schedules, typical_events=past.typical_events)
    future = load_dataset(write_messages(folder / "future.jsonl", later), checkpoints_pct=CHECKPOINTS, tables=tables)
    scaled = (future.full - library.center) / library.scale
    truth = {
        session_id: (nearest(vector, library.centroids), range_pct)
        for session_id, vector, range_pct in zip(future.session_ids, scaled, future.range_pct.tolist(), strict=True)
    }
    engine = make_engine(
        Predictor(Classifier(library)),
        schedules=library.schedules,
        typical_events=library.typical_events,
        checkpoints_pct=CHECKPOINTS,
    )
    published = [
        outcome.prediction for outcome in run(engine, records(interleave(later))) if isinstance(outcome, Published)
    ]
    found = {}
    for checkpoint_pct in CHECKPOINTS:
        predictions = [p for p in published if p.classification_metadata.checkpoint_pct == checkpoint_pct]
        came = [truth[prediction.session_id] for prediction in predictions]
        found[checkpoint_pct] = Kept(
            predictions, np.array([label for label, _ in came]), np.array([range_pct for _, range_pct in came])
        )
    return found


@pytest.fixture(params=CHECKPOINTS, ids=lambda pct: f"{pct:g}%")
def at_checkpoint(request: pytest.FixtureRequest, kept: dict[float, Kept]) -> Kept:
    return kept[request.param]


def test_there_is_enough_to_judge(at_checkpoint: Kept) -> None:
    assert len(at_checkpoint.predictions) > 350
    assert {p.classification_metadata.assignment for p in at_checkpoint.predictions} == {"prefix_model"}
    assert np.bincount(at_checkpoint.labels, minlength=4).min() > 20
    # A coin of four sides would be right one time in four, and never sure of itself.
    assert at_checkpoint.is_right.mean() > 0.5
    assert np.ptp(at_checkpoint.confidences) > 0.4


def test_confidence_is_how_often_the_archetype_is_right(at_checkpoint: Kept) -> None:
    confidences = at_checkpoint.confidences
    error = np.sqrt((confidences * (1 - confidences)).sum()) / len(confidences)
    assert abs(confidences.mean() - at_checkpoint.is_right.mean()) < N_ERRORS * error


@pytest.mark.parametrize("half", ["low", "high"])
def test_confidence_is_right_among_the_sure_and_among_the_unsure(at_checkpoint: Kept, half: str) -> None:
    confidences = at_checkpoint.confidences
    is_high = confidences > np.median(confidences)
    members = is_high if half == "high" else ~is_high
    chosen = confidences[members]
    error = np.sqrt((chosen * (1 - chosen)).sum()) / len(chosen)
    assert abs(chosen.mean() - at_checkpoint.is_right[members].mean()) < N_ERRORS * error


@pytest.mark.parametrize("power", [0.5, 2.0], ids=["temperature 2", "temperature 1/2"])
def test_same_probabilities_at_another_temperature_are_calibrated_worse(at_checkpoint: Kept, power: float) -> None:
    bent = at_checkpoint.probabilities**power
    bent /= bent.sum(axis=1, keepdims=True)
    as_served = expected_calibration_error(at_checkpoint.confidences, at_checkpoint.is_right)
    assert as_served < expected_calibration_error(bent.max(axis=1), at_checkpoint.is_right)


def test_final_range_lies_between_p10_and_p90_four_times_in_five(at_checkpoint: Kept) -> None:
    bands = [prediction.predicted_stats.natural_units.range_pct for prediction in at_checkpoint.predictions]
    low, high = np.array([[band.p10, band.p90] for band in bands]).T
    # What is published is rounded to four decimals.
    is_within = (low - 5e-5 <= at_checkpoint.range_pct) & (at_checkpoint.range_pct <= high + 5e-5)
    error = np.sqrt(COVERAGE * (1 - COVERAGE) / len(bands))
    assert abs(is_within.mean() - COVERAGE) < N_ERRORS * error
