"""What a backtest found: the structures of ``backtest.json``, written and read here alone.

`offline.backtest.scoring` fills a `Backtest`; `offline.backtest.tables` and `offline.backtest.page` show it. As in
`offline.report`, every number is finite, and what could not be computed is null.

Invariant: ``decode_backtest(encode_backtest(found)) == found``.
"""

from __future__ import annotations

from typing import Final

import msgspec
from msgspec import Struct

from offline.report import CheckpointReport, Group, Interval, TrainingPeriod, encode_finite
from stream_fp.errors import DocumentError

__all__ = ["BACKTEST_FILES", "Backtest", "Books", "CheckpointGroups", "GroupScores", "decode_backtest",
           "encode_backtest"]  # fmt: skip

#: What a backtest of one set of settings writes.
BACKTEST_FILES: Final = ("outcomes.jsonl", "outcomes.parquet", "backtest.json", "report.html")


class GroupScores(Struct, frozen=True, kw_only=True):
    """The judged sessions of one month, week, hour or type.

    Intervals are Wilson's, which take sessions as independent: a group often has too few weeks to resample.
    """

    scores: Group
    """Figures of these sessions."""
    accuracy_interval: Interval
    """95 % interval of the accuracy."""
    mean_confidence: float
    """Mean probability given to the archetype that was named, 0 to 1."""
    coverage_80_interval: Interval
    """95 % interval of the share of ranges between P10 and P90."""


class CheckpointGroups(Struct, frozen=True, kw_only=True):
    """The judged sessions of one checkpoint, in groups."""

    by_month: dict[str, GroupScores]
    """By month of the session, as 2025-01."""
    by_week: dict[str, GroupScores]
    """By ISO week of the session, as 2025-W03."""
    by_session_type: dict[str, GroupScores]
    """By session type; `unknown` where nothing names it."""
    by_hour: dict[str, GroupScores]
    """By hour of the prediction in the session's own zone, as 09."""


class Books(Struct, frozen=True, kw_only=True):
    """What became of the records and sessions that were replayed."""

    n_records: int
    """Records consumed."""
    n_dead_letters: int
    """Records that could not be used."""
    n_ignored: int
    """Records that had no place: late, or twice."""
    n_sessions: int
    """Sessions that began within the records, or were open when they did."""
    n_cut_at_start: int
    """Sessions that began before the records, or may have."""
    n_cut_at_end: int
    """Sessions that were not over where the records ended."""
    n_unpredicted: dict[str, int]
    """Checkpoints that brought no prediction, by reason."""


class Backtest(Struct, frozen=True, kw_only=True):
    """Content of ``backtest.json``: how good the predictions of a replay were, and what they stand on."""

    name: str
    """Of the set of settings; empty where there is one alone."""
    model_version: str
    """Version of the library."""
    library_path: str
    """Folder of the library, as it was given."""
    archetypes: list[str]
    """Names of the archetypes, in the order of their ids."""
    training: TrainingPeriod
    """What the library was learned from."""
    is_in_sample: bool
    """All sessions are judged, those that the library was learned from too, because no later ones were there."""
    first_date: str
    """Date of the earliest session judged, ISO 8601; empty without any."""
    last_date: str
    """Date of the latest session judged, ISO 8601; empty without any."""
    n_sessions: int
    """Sessions judged."""
    n_sessions_predicted: int
    """Sessions with a prediction, judged or not."""
    n_predictions: int
    """Predictions published, one for each checkpoint of a session at most."""
    n_by_outcome: dict[str, int]
    """Predictions by whether it is known what came: known; open, not over where the records end; unheld, too large."""
    n_left_out: dict[str, int]
    """Predictions that were not judged, by reason."""
    n_judged_cut_at_start: int
    """Judged predictions of sessions that began before the records: look-back brought their first events."""
    books: Books
    """What became of the records."""
    checkpoints: dict[str, CheckpointReport]
    """By checkpoint in per cent of the session: `30`; those with a judged session alone."""
    groups: dict[str, CheckpointGroups]
    """The same in groups, by the same keys."""
    mean_pct_seen: dict[str, float]
    """Mean share of the session that the judged predictions had seen, per cent, by checkpoint."""
    notes: list[str]
    """What a reader should know before believing the numbers."""
    settings: dict[str, str]
    """What the predictions depend on, by name of the setting."""


def encode_backtest(found: Backtest) -> bytes:
    """Return a backtest as indented JSON.

    Raises
    ------
    ValueError
        When a number is not finite.
    """
    return encode_finite(found)


def decode_backtest(content: bytes, *, where: str = "backtest.json") -> Backtest:
    """Return the backtest that `encode_backtest` wrote.

    Raises
    ------
    DocumentError
        When it is none.
    """
    try:
        return msgspec.json.decode(content, type=Backtest)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise DocumentError(where, f"expected a backtest: {error}") from error
