"""What several sets of settings come to beside each other: the structures of ``comparison.json``.

`offline.backtest.comparison` fills a `Comparison`; `offline.backtest.comparison_table` shows it. Every number is
finite, and what could not be computed is null.

Invariant: ``decode_comparison(encode_comparison(found)) == found``.
"""

from __future__ import annotations

from typing import Literal

import msgspec
from msgspec import Struct

from offline.report import Interval, encode_finite
from stream_fp.errors import DocumentError

__all__ = ["Comparison", "Difference", "Measure", "MeasureName", "RankComparison", "Verdict", "decode_comparison",
           "encode_comparison"]  # fmt: skip

MeasureName = Literal[
    "share_predicted", "pct_seen", "pinball", "coverage_80", "rest_r2", "accuracy", "log_loss", "brier"
]
#: `too few weeks` to resample is no verdict on the difference.
Verdict = Literal["better", "worse", "no difference", "too few weeks"]


class Difference(Struct, frozen=True, kw_only=True):
    """One set of settings against the reference, on the same sessions."""

    value: float
    """Measure minus that of the reference; of `coverage_80`: of the distance from 0.8."""
    interval: Interval
    """95 % interval of this difference by itself, weeks resampled."""
    band: Interval
    """The same, widened so that all differences of the comparison hold at once."""
    mcnemar_p: float | None
    """Of `accuracy`: McNemar's exact test; null elsewhere."""
    mcnemar_p_holm: float | None
    """The same, Holm-corrected over all of the comparison."""
    verdict: Verdict
    """More than chance where the band leaves out 0, and of `accuracy` only where the corrected p is below 0.05 too."""


class Measure(Struct, frozen=True, kw_only=True):
    """One measure of all sets of settings."""

    name: MeasureName
    """Of what: see `RankComparison`."""
    values: dict[str, float | None]
    """By name of the set; null where it cannot be computed."""
    differences: dict[str, Difference]
    """By name of the set; without the reference, and those that cannot be compared."""
    not_comparable: dict[str, str]
    """Why not, by name of the set."""


class RankComparison(Struct, frozen=True, kw_only=True):
    """The first checkpoint of each set of settings beside the first of the others, the second beside the second.

    Measures: `share_predicted` of the sessions that any set predicted, 0 to 1; `pct_seen`, per cent of the session
    seen, less is earlier; `pinball`, mean loss of P10, P50 and P90 of the final range, per cent of price;
    `coverage_80`, share of ranges between P10 and P90, 0.8 is meant; `rest_r2`, mean R2 of the rest against the
    training mean of the reference; `accuracy`, `log_loss` and `brier` of the archetype. All but the first are of the
    sessions that every set with a checkpoint of this rank predicted at it.
    """

    rank: int
    """From 1."""
    checkpoints: dict[str, str]
    """Checkpoint in per cent of the session, by name of the set; those that have one of this rank."""
    n_sessions: int
    """Sessions that every set with such a checkpoint predicted at it, and of which it is known what came."""
    n_weeks: int
    """Weeks that they are of."""
    measures: list[Measure]
    """In the order above."""


class Comparison(Struct, frozen=True, kw_only=True):
    """Content of ``comparison.json``."""

    reference: str
    """Name of the first set of settings, which the others are compared with."""
    names: list[str]
    """Of all sets, the reference first."""
    is_in_sample: bool
    """All sessions are compared, those that a library was learned from too, because no later ones were there."""
    first_date: str
    """Date of the earliest session compared, ISO 8601; empty without any."""
    last_date: str
    """Date of the latest session compared, ISO 8601; empty without any."""
    n_sessions: int
    """Sessions that any set predicted, in this period."""
    n_differences: int
    """Differences that the bands hold for at once."""
    ranks: list[RankComparison]
    """By rank of the checkpoint."""
    notes: list[str]
    """What a reader should know before believing the numbers."""


def encode_comparison(found: Comparison) -> bytes:
    """Return a comparison as indented JSON.

    Raises
    ------
    ValueError
        When a number is not finite.
    """
    return encode_finite(found)


def decode_comparison(content: bytes, *, where: str = "comparison.json") -> Comparison:
    """Return the comparison that `encode_comparison` wrote.

    Raises
    ------
    DocumentError
        When it is none.
    """
    try:
        return msgspec.json.decode(content, type=Comparison)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise DocumentError(where, f"expected a comparison of backtests: {error}") from error
