"""Compare sets of settings that replayed the same records: on the same sessions, and no more said than they bear.

Pure: what each set came to in, `Comparison` out. Sessions are paired by where they begin, checkpoints by their rank, so
that one that predicts at 25 % can be compared with one that does at 30 %. Whole weeks are resampled, the same ones for
every measure, set and rank; the bands hold for all differences at once.

Invariant: two sets that say the same differ nowhere, and sessions that one library learned from are compared only where
there are no others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, get_args

import numpy as np
import numpy.typing as npt
import polars as pl
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from offline.ab_statistics import holm, joint_bands, mcnemar
from offline.backtest.comparison_results import (
    Comparison,
    Difference,
    Measure,
    MeasureName,
    RankComparison,
    Verdict,
)
from offline.backtest.comparison_scores import Paired, Score, paired_scores, share_score
from offline.backtest.scoring import SEED, Replayed, is_after, is_known, judged_at
from offline.report import Interval
from offline.resampling import WeekBootstrap
from offline.splits import ordinals

__all__ = ["compare"]

Array = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]
_Key = tuple[str, int, str]

#: Fewer weeks say too little of how weeks differ for a band made of them to be believed.
_MIN_WEEKS: Final = 8
_LEVEL: Final = 0.05
_MORE_IS_BETTER: Final = frozenset({"share_predicted", "rest_r2", "accuracy"})
_OF_ARCHETYPES: Final = frozenset({"accuracy", "log_loss", "brier"})
_OTHER_ARCHETYPES: Final = "other archetypes"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Sessions:
    """The sessions of all sets in order of time: their places, their days, and samples of their weeks."""

    places: dict[_Key, int]
    days: Ints
    samples: WeekBootstrap


@dataclass(slots=True, kw_only=True, eq=False)
class _Rank:
    """What is needed to fill a `RankComparison`: scores by measure and set, and pairs of right and wrong."""

    number: int
    checkpoints: dict[str, float]
    n_weeks_in_all: int
    n_sessions: int = 0
    n_weeks: int = 0
    scores: dict[MeasureName, dict[str, Score]] = field(default_factory=dict)
    is_right: dict[str, Bools] = field(default_factory=dict)


def compare(found: Sequence[Replayed]) -> Comparison:
    """Compare sets of settings, at least one, with the first of them.

    Parameters
    ----------
    found : sequence of Replayed
        Of the same records.
    """
    reference = found[0]
    names = [one.result.name for one in found]
    tables, is_in_sample = _comparable_rows(found)
    days = _days_of_sessions(tables)
    keys = sorted(days, key=lambda key: (days[key], key))
    ranks: list[_Rank] = []
    # With several threads, sums are added up in an order that changes from run to run.
    with threadpool_limits(limits=1):
        if keys:
            ordinal = ordinals([days[key] for key in keys])
            sessions = _Sessions(
                places={key: place for place, key in enumerate(keys)},
                days=ordinal,
                samples=WeekBootstrap(ordinal, SEED),
            )
            ranks = [_scored(rank, found, tables, sessions) for rank in _ranks(found, sessions.samples.n_weeks)]
        differences = _differences(ranks, names, {one.result.name: _has_same(one, reference) for one in found})
    return Comparison(
        reference=names[0],
        names=names,
        is_in_sample=is_in_sample,
        first_date=days[keys[0]] if keys else "",
        last_date=days[keys[-1]] if keys else "",
        n_sessions=len(keys),
        n_differences=len(differences),
        ranks=[_rank_comparison(rank, found, differences) for rank in ranks],
        notes=_notes(found, ranks, is_in_sample=is_in_sample),
    )


def _comparable_rows(found: Sequence[Replayed]) -> tuple[list[pl.DataFrame], bool]:
    """Return the rows of sessions that no library has seen; all rows, and True, where of none it is known what came."""
    last = max(one.metadata.training.last_date for one in found)
    unseen = [is_after(one.table, last) for one in found]
    known = [one.is_known() for one in found]
    is_in_sample = not any((k & u).any() for k, u in zip(known, unseen, strict=True)) and any(k.any() for k in known)
    if is_in_sample:
        return [one.table for one in found], True
    return [one.table.filter(pl.Series(rows)) for one, rows in zip(found, unseen, strict=True)], False


def _keys(table: pl.DataFrame) -> list[_Key]:
    return list(table.select("source", "first_offset", "session_id").iter_rows())


def _days_of_sessions(tables: Sequence[pl.DataFrame]) -> dict[_Key, str]:
    days: dict[_Key, str] = {}
    for table in tables:
        for key, day in zip(_keys(table), table["date"], strict=True):
            days.setdefault(key, day)
    return days


def _ranks(found: Sequence[Replayed], n_weeks: int) -> list[_Rank]:
    """Return the checkpoints by rank; those of all rows, so that a period without predictions moves none up."""
    checkpoints = [sorted(set(one.table["checkpoint_pct"])) for one in found]
    return [
        _Rank(
            number=rank + 1,
            n_weeks_in_all=n_weeks,
            checkpoints={
                one.result.name: own[rank] for one, own in zip(found, checkpoints, strict=True) if rank < len(own)
            },
        )
        for rank in range(max(map(len, checkpoints), default=0))
    ]


def _has_same(one: Replayed, other: Replayed) -> bool:
    """Whether an archetype means the same to both libraries."""
    mine, others = one.library, other.library
    return all(
        np.array_equal(a, b)
        for a, b in (
            (mine.centroids, others.centroids),
            (mine.center, others.center),
            (mine.scale, others.scale),
        )
    )


def _scored(rank: _Rank, found: Sequence[Replayed], tables: Sequence[pl.DataFrame], sessions: _Sessions) -> _Rank:
    """Fill the scores of a rank."""
    rows: dict[str, pl.DataFrame] = {}
    for one, table in zip(found, tables, strict=True):
        name = one.result.name
        if name in rank.checkpoints:
            at = table.filter(pl.col("checkpoint_pct") == rank.checkpoints[name])
            at = at.unique(["source", "first_offset", "session_id"], keep="first", maintain_order=True)
            place = pl.Series("place", [sessions.places[key] for key in _keys(at)], dtype=pl.Int64)
            rows[name] = at.with_columns(place)
            predicted = np.zeros(len(sessions.places))
            predicted[rows[name]["place"].to_numpy()] = 1.0
            rank.scores.setdefault("share_predicted", {})[name] = share_score(predicted, sessions.samples)
    known = [set(own.filter(pl.Series(is_known(own)))["place"]) for own in rows.values()]
    pairs = np.array(sorted(set.intersection(*known)), dtype=np.int64)
    rank.n_sessions = len(pairs)
    if not len(pairs):
        return rank
    rank.n_weeks = WeekBootstrap(sessions.days[pairs]).n_weeks
    paired = {
        one.result.name: rows[one.result.name].filter(pl.col("place").is_in(pairs.tolist())).sort("place")
        for one in found
        if one.result.name in rows
    }
    judged = {
        one.result.name: judged_at(paired[one.result.name], one, rank.checkpoints[one.result.name])
        for one in found
        if one.result.name in rows
    }
    told = np.logical_and.reduce([~np.isnan(moment.rests) for moment in judged.values()])
    among = Paired(pairs, sessions.samples)
    rest_mean = next(iter(judged.values())).rest_mean
    for name, own in judged.items():
        rank.is_right[name] = own.probabilities.argmax(axis=1) == own.labels
        for measure, score in paired_scores(own, paired[name]["pct_seen"].to_numpy(), told, rest_mean, among):
            rank.scores.setdefault(measure, {})[name] = score
    return rank


def _differences(
    ranks: Sequence[_Rank], names: Sequence[str], same: dict[str, bool]
) -> dict[tuple[int, MeasureName, str], Difference]:
    """Return all differences that can be told, by rank, measure and set."""
    places = [
        (rank, measure, name)
        for rank in ranks
        for measure, scores in rank.scores.items()
        for name in names[1:]
        if name in scores and names[0] in scores and (same[name] or measure not in _OF_ARCHETYPES)
    ]
    if not places:
        return {}
    pairs = [(rank.scores[measure][name], rank.scores[measure][names[0]]) for rank, measure, name in places]
    values = np.array([score.compared - reference.compared for score, reference in pairs])
    samples = np.column_stack([score.samples - reference.samples for score, reference in pairs])
    weeks = [rank.n_weeks_in_all if measure == "share_predicted" else rank.n_weeks for rank, measure, _ in places]
    low, high = joint_bands(samples, values, np.array(weeks, dtype=np.int64))
    p_values = {
        place: _mcnemar(rank.is_right[name], rank.is_right[names[0]])
        for place, (rank, measure, name) in enumerate(places)
        if measure == "accuracy"
    }
    corrected = dict(zip(p_values, holm(list(p_values.values())), strict=True))
    return {
        (rank.number, measure, name): Difference(
            value=float(values[i]),
            interval=_quantiles(samples[:, i]),
            band=Interval(low=float(low[i]), high=float(high[i])),
            mcnemar_p=p_values.get(i),
            mcnemar_p_holm=corrected.get(i),
            verdict=_verdict(rank, measure, (float(low[i]), float(high[i])), corrected.get(i)),
        )
        for i, (rank, measure, name) in enumerate(places)
    }


def _mcnemar(one: Bools, other: Bools) -> float:
    return mcnemar(int((one & ~other).sum()), int((other & ~one).sum()))


def _quantiles(samples: Array) -> Interval:
    low, high = np.quantile(samples, (_LEVEL / 2, 1 - _LEVEL / 2))
    return Interval(low=float(low), high=float(high))


def _verdict(rank: _Rank, measure: MeasureName, band: tuple[float, float], p_holm: float | None) -> Verdict:
    low, high = band
    if low <= 0 <= high or (p_holm is not None and p_holm >= _LEVEL):
        return "no difference"
    # Bands of few weeks are too narrow: what they leave out, true bands may hold.
    if (rank.n_weeks_in_all if measure == "share_predicted" else rank.n_weeks) < _MIN_WEEKS:
        return "too few weeks"
    return "better" if (low > 0) == (measure in _MORE_IS_BETTER) else "worse"


def _rank_comparison(
    rank: _Rank, found: Sequence[Replayed], differences: dict[tuple[int, MeasureName, str], Difference]
) -> RankComparison:
    names = [one.result.name for one in found]
    measures = []
    for measure in get_args(MeasureName):
        scores = rank.scores.get(measure, {})
        told = {
            name: differences[rank.number, measure, name]
            for name in names
            if (rank.number, measure, name) in differences
        }
        measures.append(
            Measure(
                name=measure,
                values={name: scores[name].value if name in scores else None for name in names},
                differences=told,
                not_comparable={name: _why_not(name, names[0], rank, scores) for name in names[1:] if name not in told},
            )
        )
    return RankComparison(
        rank=rank.number,
        checkpoints={name: f"{checkpoint_pct:g}" for name, checkpoint_pct in rank.checkpoints.items()},
        n_sessions=rank.n_sessions,
        n_weeks=rank.n_weeks,
        measures=measures,
    )


def _why_not(name: str, reference: str, rank: _Rank, scores: dict[str, Score]) -> str:
    if name not in rank.checkpoints or reference not in rank.checkpoints:
        return "no checkpoint of this rank"
    return _OTHER_ARCHETYPES if name in scores else "no session in common that tells"


def _notes(found: Sequence[Replayed], ranks: Sequence[_Rank], *, is_in_sample: bool) -> list[str]:
    notes = []
    if is_in_sample:
        notes.append(
            "IN SAMPLE: no session lies after the training period of every library; the figures flatter those that "
            "learned from these sessions"
        )
    if silent := [one.result.name for one in found if not len(one.table)]:
        notes.append(f"{', '.join(silent)}: no prediction at all")
    others = [one.result.name for one in found[1:] if not _has_same(one, found[0])]
    if others:
        notes.append(
            f"{', '.join(others)}: other archetypes than {found[0].result.name}, so accuracy, log loss and Brier score "
            "are about other questions and not comparable"
        )
    if any(len(set(rank.checkpoints.values())) > 1 for rank in ranks):
        notes.append(
            "Checkpoints differ: who predicts later has seen more, and less is left; range, rest and archetype are "
            "judged from there"
        )
    if any(rank.n_sessions and rank.n_weeks < _MIN_WEEKS for rank in ranks):
        notes.append(f"Fewer than {_MIN_WEEKS} weeks: what seems to differ may be those weeks alone")
    return notes
