"""Judge the predictions of a replay: a table of outcomes and the library that made them in, a `Backtest` out.

Probabilities and quantiles of the range are those that were published; the forecast of the rest, and all guesses beside
it, follow from the features of the part seen by the code that the service runs. So the figures are those of
`offline.evaluate` for the same sessions, up to the digits that are published.

Invariant: sessions up to a day after the training period are judged only where there are no others, and `is_in_sample`
says so.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import Final

import numpy as np
import numpy.typing as npt
import polars as pl
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from offline.backtest.outcomes import matrix
from offline.backtest.results import Backtest, Books, CheckpointGroups, GroupScores
from offline.baselines import check_tables
from offline.dataset import Prefixes
from offline.guesses import Came, Moments, Named, judged_beside_guesses
from offline.judging import Judged, group_scores, judge
from offline.report import CheckpointReport, Interval, TrainingPeriod
from offline.scores import wilson_interval
from offline.splits import EMBARGO_DAYS, ordinals
from stream_fp.artifacts import Metadata, PrefixModelArrays
from stream_fp.classifier import Classifier
from stream_fp.errors import ModelLoadError
from stream_fp.features import N_FEATURES
from stream_fp.library import Library, load_library, load_metadata
from stream_fp.prefix_model import OUTCOMES, PrefixModel
from stream_fp.replay.results import VariantResult

__all__ = ["SEED", "Replayed", "is_after", "is_known", "judged_at", "load_replayed", "n_sessions", "score"]

Array = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

#: Fewer sessions than these make intervals so wide that a note says so.
_FEW_SESSIONS: Final = 100
#: Intervals come from resampling weeks.
_FEW_WEEKS: Final = 6
#: Of the bootstrap, for every figure of a backtest: the same rows give the same bytes.
SEED: Final = 0
#: Ranges are published with four decimals.
_HALF_A_DIGIT: Final = 0.51e-4
_RANGES: Final = ("range_p10_pct", "range_p50_pct", "range_p90_pct")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Replayed:
    """What one set of settings came to, and the library that it used.

    Attributes
    ----------
    result : VariantResult
    table : DataFrame
        One row a prediction (`offline.backtest.outcomes.SCHEMA`).
    library : Library
    metadata : Metadata
        Of the same library.
    """

    result: VariantResult
    table: pl.DataFrame
    library: Library
    metadata: Metadata

    def is_known(self) -> Bools:
        """Whether it is known what came, of each row."""
        return is_known(self.table)

    def is_unseen(self) -> Bools:
        """Whether the session lies after the training period and the embargo, of each row."""
        return is_after(self.table, self.metadata.training.last_date)


def load_replayed(result: VariantResult, table: pl.DataFrame) -> Replayed:
    """Load the library of a replay.

    Raises
    ------
    ModelError
        When it cannot be loaded, or its tables of guesses do not fit it.
    """
    library, metadata = load_library(result.model_path), load_metadata(result.model_path)
    if library.fingerprint != result.library:
        raise ModelLoadError(f"{result.model_path}: the library was changed since the predictions were made")
    check_tables(metadata)
    return Replayed(result=result, table=table, library=library, metadata=metadata)


def score(replayed: Replayed) -> Backtest:
    """Judge the predictions of a replay, those of sessions that the library has not seen where there are any."""
    table, result, training = replayed.table, replayed.result, replayed.metadata.training
    known, unseen = replayed.is_known(), replayed.is_unseen()
    is_in_sample = bool(known.any()) and not bool((known & unseen).any())
    shown = table.filter(pl.Series(known if is_in_sample else known & unseen))
    checkpoints, groups, mean_pct_seen = {}, {}, {}
    # With several threads, sums are added up in an order that changes from run to run.
    with threadpool_limits(limits=1):
        for checkpoint_pct in sorted(set(shown["checkpoint_pct"])):
            rows = shown.filter(pl.col("checkpoint_pct") == checkpoint_pct)
            judged, key = judged_at(rows, replayed, checkpoint_pct), f"{checkpoint_pct:g}"
            checkpoints[key] = judge(judged, SEED)
            groups[key] = _groups(judged, rows)
            mean_pct_seen[key] = float(rows["pct_seen"].to_numpy().mean())
    dates = shown["date"]
    return Backtest(
        name=result.name,
        model_version=replayed.library.version,
        library_path=replayed.library.path.as_posix(),
        archetypes=[replayed.library.archetypes[i].name for i in range(replayed.metadata.n_archetypes)],
        training=TrainingPeriod(
            first_date=training.first_date, last_date=training.last_date, n_sessions=training.n_sessions
        ),
        is_in_sample=is_in_sample,
        first_date=str(dates.min() or ""),
        last_date=str(dates.max() or ""),
        n_sessions=n_sessions(shown),
        n_sessions_predicted=n_sessions(table),
        n_predictions=len(table),
        n_by_outcome=dict(sorted(Counter(table["outcome"]).items())),
        n_left_out=_left_out(table, known, unseen, is_in_sample=is_in_sample),
        n_judged_cut_at_start=int(shown["is_cut_at_start"].sum()),
        books=_books(result),
        checkpoints=checkpoints,
        groups=groups,
        mean_pct_seen=mean_pct_seen,
        notes=_notes(replayed, shown, known, unseen, checkpoints, is_in_sample=is_in_sample),
        settings=result.settings,
    )


def judged_at(rows: pl.DataFrame, replayed: Replayed, checkpoint_pct: float) -> Judged:
    """Put predictions of one checkpoint beside the guesses.

    Parameters
    ----------
    rows : DataFrame
        At least one, all with a known outcome.
    replayed : Replayed
    checkpoint_pct : float
        The nearest one that the library was trained at is used, as the service does.
    """
    library = replayed.library
    model = library.prefix_model(checkpoint_pct)
    arrays = _arrays_of(model, replayed.metadata.prefix_models)
    vectors = matrix(rows["features"], N_FEATURES)
    vectors = np.where(np.isfinite(vectors), vectors, model.center)
    cut = Prefixes(rows=np.arange(len(rows)), vectors=vectors, rests=matrix(rows["rest"], len(OUTCOMES)))
    session_types = rows["session_type"].to_list()
    by_full = np.zeros((len(rows), len(library.archetypes)))
    rests = np.empty((len(rows), len(OUTCOMES)))
    baseline = Classifier(library, assignment="full_centroid")
    for row, (vector, session_type) in enumerate(zip(vectors, session_types, strict=True)):
        for archetype_id, share in baseline.classify(vector, checkpoint_pct, session_type).probabilities.items():
            by_full[row, archetype_id] = share
        inputs = model.inputs(vector, session_type)
        rests[row] = model.forecast_rest(vector, inputs, model.probabilities(inputs)).outcomes
    return judged_beside_guesses(
        Moments(
            days=_days(rows),
            months=[day[:7] for day in rows["date"]],
            session_types=session_types,
            regimes=cut.dominant_regimes,
            range_so_far_pct=cut.range_so_far_pct,
        ),
        Named(
            probabilities=matrix(rows["probabilities"], len(library.archetypes)),
            by_full_centroid=by_full,
            rests=rests,
            ranges_pct=_unrounded(np.column_stack([rows[name].to_numpy() for name in _RANGES]), cut.range_so_far_pct),
        ),
        Came(
            labels=rows["true_archetype_id"].to_numpy().astype(np.int64),
            rests=cut.rests,
            range_pct=rows["final_range_pct"].to_numpy(),
        ),
        arrays,
    )


def _unrounded(ranges_pct: Array, so_far_pct: Array) -> Array:
    """Return quantiles that were the range so far as just that; others as they were published.

    Where a range has stopped growing it ends where it was, and a rounded quantile would lie just beside it.
    """
    floor = np.broadcast_to(so_far_pct[:, None], ranges_pct.shape)
    return np.where(np.abs(ranges_pct - floor) <= _HALF_A_DIGIT, floor, ranges_pct)


def _arrays_of(model: PrefixModel, found: Sequence[PrefixModelArrays]) -> PrefixModelArrays:
    return next(arrays for arrays in found if arrays.checkpoint_pct == model.checkpoint_pct)


def _days(table: pl.DataFrame) -> npt.NDArray[np.int64]:
    return ordinals(table["date"].to_list())


def is_known(table: pl.DataFrame) -> Bools:
    """Whether it is known what came, of each row."""
    known = (table["outcome"] == "known") & table["true_archetype_id"].is_not_null()
    return np.asarray((known & table["final_range_pct"].is_not_null()).to_numpy())


def is_after(table: pl.DataFrame, last_date: str) -> Bools:
    """Whether a session lies after a training period that ended on `last_date` and the embargo, of each row."""
    return np.asarray(_days(table) > ordinals([last_date])[0] + EMBARGO_DAYS)


def n_sessions(table: pl.DataFrame) -> int:
    """Return how many sessions the predictions are of; the same id sent again from its start is another session."""
    return table.select("source", "first_offset", "session_id").n_unique() if len(table) else 0


def _groups(judged: Judged, rows: pl.DataFrame) -> CheckpointGroups:
    weeks = [date.fromisoformat(day).isocalendar() for day in rows["date"]]
    return CheckpointGroups(
        by_month=_scored(judged, judged.months),
        by_week=_scored(judged, [f"{week.year}-W{week.week:02d}" for week in weeks]),
        by_session_type=_scored(judged, judged.session_types),
        by_hour=_scored(judged, [f"{hour:02d}" for hour in rows["local_hour"]]),
    )


def _scored(judged: Judged, names: list[str]) -> dict[str, GroupScores]:
    keys, confidences = np.array(names), judged.probabilities.max(axis=1)
    return {
        name: GroupScores(
            scores=group,
            accuracy_interval=_wilson(group.accuracy, group.n),
            mean_confidence=float(confidences[keys == name].mean()),
            coverage_80_interval=_wilson(group.coverage_80 or 0.0, group.n),
        )
        for name, group in group_scores(judged, names).items()
    }


def _wilson(share: float, n: int) -> Interval:
    low, high = wilson_interval(share, n)
    return Interval(low=low, high=high)


def _books(result: VariantResult) -> Books:
    counts, edges = result.summary.counts, result.summary.edges
    return Books(
        n_records=counts.consumed,
        n_dead_letters=sum(counts.dead_lettered.values()),
        n_ignored=sum(counts.ignored.values()),
        n_sessions=counts.sessions_opened + edges.n_before,
        n_cut_at_start=edges.n_at_start,
        n_cut_at_end=edges.n_at_end,
        n_unpredicted=dict(sorted(counts.unpredicted.items())),
    )


def _left_out(table: pl.DataFrame, known: Bools, unseen: Bools, *, is_in_sample: bool) -> dict[str, int]:
    outcomes = Counter(table["outcome"])
    found = {
        "of sessions that were not over where the records end": outcomes["open"],
        "of sessions too large to be held whole": outcomes["unheld"],
    }
    if not is_in_sample:
        found["of sessions before the end of the training period, or within a day of it"] = int((known & ~unseen).sum())
    return {reason: n for reason, n in found.items() if n}


def _drift_notes(shown: pl.DataFrame, checkpoints: dict[str, CheckpointReport]) -> list[str]:
    """Say where one archetype came so often that naming it always would have been as good as the model."""
    notes = []
    for key, checkpoint in checkpoints.items():
        came = shown.filter(pl.col("checkpoint_pct") == float(key))["true_archetype_id"].to_list()
        commonest, n = Counter(came).most_common(1)[0]
        if n / len(came) >= checkpoint.accuracy:
            notes.append(
                f"At {key} %, {n / len(came):.0%} of these sessions became archetype {commonest}: to name it always "
                f"would have been right as often as the model ({checkpoint.accuracy:.0%}), had anybody known it. "
                "The guesses beside it are of the training period, and these sessions are not like those"
            )
    return notes


def _notes(
    replayed: Replayed,
    shown: pl.DataFrame,
    known: Bools,
    unseen: Bools,
    checkpoints: dict[str, CheckpointReport],
    *,
    is_in_sample: bool,
) -> list[str]:
    training, table = replayed.metadata.training, replayed.table
    period = f"{training.first_date} to {training.last_date}"
    notes = _drift_notes(shown, checkpoints)
    n_weeks = len({date.fromisoformat(day).isocalendar()[:2] for day in shown["date"]})
    if 0 < n_weeks < _FEW_WEEKS:
        notes.append(f"All of it is of {n_weeks} week{'s' * (n_weeks != 1)}: intervals from so few mean little")
    if is_in_sample:
        days = [day for day, judged in zip(table["date"], known, strict=True) if judged]
        n_within = sum(training.first_date <= day <= training.last_date for day in days)
        notes.append(
            f"IN SAMPLE: no session lies after the training period ({period}) and a day; {n_within:,} of {len(days):,} "
            "predictions are of sessions within it. The figures flatter the library: this is no backtest"
        )
    elif n_before := int((known & ~unseen).sum()):
        notes.append(
            f"{n_before:,} predictions of sessions up to the end of the training period ({period}) or within a day of "
            "it are not in the figures; the list of sessions has them"
        )
    if n_cut := int(shown["is_cut_at_start"].sum()):
        notes.append(f"{n_cut:,} judged predictions are of sessions that began before the records, or may have")
    if n_open := int((table["outcome"] == "open").sum()):
        notes.append(f"{n_open:,} predictions are of sessions not over where the records end: what came is not known")
    few = [
        f"{checkpoint_pct:g} %"
        for (checkpoint_pct,), rows in shown.group_by(["checkpoint_pct"], maintain_order=True)
        if len(rows) < _FEW_SESSIONS
    ]
    if few:
        notes.append(f"Few sessions were judged at {', '.join(sorted(few))}: look at the intervals before the figures")
    if len(table):
        notes.append("Sessions without any prediction (too few events, no checkpoint crossed) are in no figure")
    return notes
