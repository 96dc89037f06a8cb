"""Rows of a backtest, made by the real engine and predictor from recorded files, or written by hand."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec
import numpy as np

from offline.dataset import Tables
from stream_fp.classifier import Classifier, nearest
from stream_fp.engine import Engine, EngineSettings
from stream_fp.features import N_FEATURES, RANGE, extract, range_of_log
from stream_fp.files import read_records
from stream_fp.library import load_library
from stream_fp.outcomes import Published
from stream_fp.phases import N_PHASES
from stream_fp.predictor import Forecast, Predictor
from stream_fp.prefix_model import OUTCOMES
from stream_fp.replay.results import ReplaySummary, VariantResult
from stream_fp.replay.rows import BacktestRow, encode_row
from stream_fp.rest import N_PATH_POINTS, price_path, rest_outcomes
from stream_fp.times import zone_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from stream_fp.artifacts import Metadata
    from stream_fp.library import Library
    from stream_fp.sessions import Session

__all__ = ["a_row", "result_of", "rows_of", "write_result"]

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_N_HELD: Final = "n held"


class _Follower:
    """Predicts as the service does, and keeps what came of each session by the rules of training."""

    def __init__(self, classifier: Classifier, source: str) -> None:
        self._classifier = classifier
        self._predictor = Predictor(classifier)
        self._source = source
        self._said: dict[str, list[dict[str, Any]]] = {}
        self.rows: list[BacktestRow] = []
        self.summary = ReplaySummary(n_sources=1)

    def forecast(self, session: Session, checkpoint_pct: float) -> Forecast:
        """Predict, and note all but what came."""
        found = self._predictor.forecast(session, checkpoint_pct)
        prediction = found.prediction
        units = prediction.predicted_stats.natural_units
        columns = session.columns()
        moment = _EPOCH + timedelta(microseconds=session.event_time_us)
        shares = prediction.classification_metadata.probabilities
        self._said.setdefault(session.id, []).append(
            {
                "session_type": session.facts.session_type,
                "date": prediction.date,
                "checkpoint_pct": checkpoint_pct,
                "pct_seen": prediction.pct_seen,
                "predicted_us": session.event_time_us,
                "local_hour": moment.astimezone(zone_of(session.facts.timezone)).hour,
                "archetype_id": prediction.archetype_id,
                "confidence": prediction.confidence,
                "probabilities": [shares.get(str(i), 0.0) for i in range(len(self._classifier.library.archetypes))],
                "range_so_far_pct": units.range_so_far_pct,
                "range_p10_pct": units.range_pct.p10,
                "range_p50_pct": units.range_pct.p50,
                "range_p90_pct": units.range_pct.p90,
                "n_seen": len(columns.times_us),
                "features": extract(columns).tolist(),
            }
        )
        return found

    def closed(self, session: Session, reason: str) -> None:
        """Add what came, to all that was said of the session."""
        said = self._said.pop(session.id, [])
        if not said:
            return
        columns, facts, library = session.columns(), session.facts, self._classifier.library
        is_open = reason == "input_ended"
        self.summary.edges.n_at_end += is_open
        self.summary.edges.n_at_end_predicted += is_open
        full = extract(columns)
        end_us = int(columns.times_us.max()) if facts.end_us is None else facts.end_us
        path = price_path(columns, facts.end_us).tolist()
        known = {
            "true_archetype_id": nearest((full - library.center) / library.scale, library.centroids),
            "final_range_pct": range_of_log(float(full[RANGE])),
            "n_events": session.n_events,
            "final_phase_rates": full[:N_PHASES].tolist(),
        }
        for one in said:
            rest = {"rest": rest_outcomes(columns, one["n_seen"]).tolist()}
            self.rows.append(
                BacktestRow(
                    source=self._source,
                    offset=session.first_offset + one["n_seen"] - 1,
                    first_offset=session.first_offset,
                    is_cut_at_start=False,
                    outcome="open" if is_open else "known",
                    session_id=session.id,
                    start_us=columns.start_us,
                    end_us=end_us,
                    path_pct=path,
                    **one,
                    **({} if is_open else known | rest),
                )
            )


def rows_of(
    source: Path,
    library: Library,
    metadata: Metadata,
    *,
    tables: Tables | None = None,
    **settings: Any,  # noqa: ANN401
) -> tuple[list[BacktestRow], ReplaySummary]:
    """Replay a file of messages and return a row for each prediction; `settings` are those of the classifier."""
    tables = tables or Tables(schedules=library.schedules, typical_events=library.typical_events)
    follower = _Follower(Classifier(library, **settings), source.name)
    engine = Engine(
        follower,
        EngineSettings(
            checkpoints_pct=tuple(model.checkpoint_pct for model in library.prefix_models),
            completion=metadata.completion,
            min_events=metadata.min_events,
            keep_events=True,
        ),
        schedules=tables.schedules,
        typical_events=tables.typical_events,
    )
    n_published = 0
    for record in read_records(source):
        n_published += sum(isinstance(outcome, Published) for outcome in engine.process(record))
    engine.close()
    assert n_published == len(follower.rows)
    follower.summary.counts = engine.counts
    return sorted(follower.rows, key=lambda row: (row.first_offset, row.checkpoint_pct)), follower.summary


def a_row(i: int = 0, *, n_archetypes: int = 4, **fields: Any) -> BacktestRow:  # noqa: ANN401 - any field of a row
    """Return a plausible row of a session of its own, the `i`-th, one a day from 2025-01-01 on; `fields` override."""
    rng = np.random.default_rng(i)
    day = datetime(2025, 1, 1, 14, 30, tzinfo=UTC) + timedelta(days=i)
    start_us = (day - _EPOCH) // timedelta(microseconds=1)
    shares = rng.dirichlet(np.full(n_archetypes, 0.6))
    so_far = float(rng.uniform(0.1, 0.6))
    p10, p50, p90 = so_far * 1.1, so_far * 1.5, so_far * 2.4
    values: dict[str, Any] = {
        "source": "session-events[0]",
        "offset": 100 * i + 30,
        "first_offset": 100 * i,
        "is_cut_at_start": False,
        "outcome": "known",
        "session_id": f"NY_AM_{day.date()}",
        "session_type": "ny_am",
        "date": str(day.date()),
        "checkpoint_pct": 30.0,
        "pct_seen": float(round(rng.uniform(30, 33), 1)),
        "predicted_us": start_us + 45 * 60_000_000,
        "local_hour": 10,
        "start_us": start_us,
        "archetype_id": int(shares.argmax()),
        "confidence": float(shares.max()),
        "probabilities": shares.tolist(),
        "range_so_far_pct": so_far,
        "range_p10_pct": p10,
        "range_p50_pct": p50,
        "range_p90_pct": p90,
        "n_seen": 30,
        "features": rng.uniform(0.0, 3.0, N_FEATURES).tolist(),
        "true_archetype_id": int(rng.choice(n_archetypes, p=shares)),
        "final_range_pct": float(rng.uniform(p10, p90 * 1.1)),
        "n_events": 100,
        "final_phase_rates": rng.uniform(0, 30, N_PHASES).tolist(),
        "rest": rng.normal(-1.0, 0.5, len(OUTCOMES)).tolist(),
        "end_us": start_us + 149 * 60_000_000,
        "path_pct": np.cumsum(np.concatenate(([0.0], rng.normal(0, 0.06, N_PATH_POINTS - 1)))).tolist(),
    }
    if fields.get("outcome", "known") != "known":
        values |= dict.fromkeys(("true_archetype_id", "final_range_pct", "n_events", "final_phase_rates", "rest"))
    return msgspec.convert(values | fields, BacktestRow)


def write_result(
    folder: Path,
    rows: Iterable[BacktestRow],
    model_path: Path,
    *,
    name: str = "",
    summary: ReplaySummary | None = None,
    settings: dict[str, str] | None = None,
) -> VariantResult:
    """Write rows as a replay does, and return what it hands over."""
    folder.mkdir(parents=True, exist_ok=True)
    rows_path = folder / f"{name or 'rows'}.jsonl"
    rows_path.write_bytes(b"".join(encode_row(row) + b"\n" for row in rows))
    return VariantResult(
        name=name,
        model_path=model_path,
        library=load_library(model_path).fingerprint,
        settings={"assignment": "auto"} if settings is None else settings,
        predictions_path=folder / f"{name}.predictions.jsonl",
        rows_path=rows_path,
        summary=ReplaySummary() if summary is None else summary,
    )


def result_of(
    folder: Path,
    rows: Sequence[BacktestRow],
    library: Library,
    summary: ReplaySummary | None = None,
    **more: Any,  # noqa: ANN401
) -> VariantResult:
    """Return `write_result` for a library that was loaded."""
    return write_result(folder, rows, library.path, summary=summary, **more)
