"""What a backtest knows of one prediction: what was said, when, and what came. One JSON line each.

Pure: between `stream_fp.replay.follower`, which fills rows, and whoever judges them. What was said is taken from the
very prediction that is published; what came, from the whole session, by the rules of training.
"""

from __future__ import annotations

from typing import Final, Literal

import msgspec
from msgspec import Struct

__all__ = ["BacktestRow", "Outcome", "decode_row", "encode_row"]

#: Whether it is known what came: `open` sessions had not ended where the records did, `unheld` ones were too large to
#: be held whole.
Outcome = Literal["known", "open", "unheld"]


class BacktestRow(Struct, frozen=True, kw_only=True):
    """One prediction and what came of its session; what is not known is null."""

    source: str
    """Topic and partition, as ``session-events[2]``, or the file."""
    offset: int
    """Of the record that brought the prediction: Kafka's, or line number in the file minus one."""
    first_offset: int
    """Of the session's first record."""
    is_cut_at_start: bool
    """The session began before the range, or may have, where older records are gone."""
    outcome: Outcome
    session_id: str
    session_type: str
    """Empty where nothing names it."""
    date: str
    """Of the session, ISO 8601."""
    checkpoint_pct: float
    pct_seen: float
    predicted_us: int
    """Event time of the record that brought the prediction, microseconds since 1970."""
    local_hour: int
    """Hour of that time in the session's own zone, 0 to 23."""
    start_us: int
    """Start of the session, else its first event."""
    archetype_id: int
    confidence: float
    """Probability that the prediction gave to `archetype_id`."""
    probabilities: list[float]
    """Of all archetypes, by id."""
    range_so_far_pct: float
    range_p10_pct: float
    """P10, P50 and P90 of the final range, in per cent of the first price."""
    range_p50_pct: float
    range_p90_pct: float
    n_seen: int
    """Events that the prediction saw."""
    features: list[float | None]
    """The 30 features of these events, in the order of `stream_fp.features.FEATURE_NAMES`; unscaled."""
    true_archetype_id: int | None = None
    """Archetype of the whole session: the nearest centroid."""
    final_range_pct: float | None = None
    """Range of the whole session, in per cent of its first price."""
    n_events: int | None = None
    """Events of the whole session."""
    final_phase_rates: list[float] | None = None
    """Events of each phase per 100 events of the whole session, in the order of `stream_fp.phases.PHASES`."""
    rest: list[float | None] | None = None
    """What the events after the prediction were like, in the order and units of `stream_fp.prefix_model.OUTCOMES`."""
    end_us: int | None = None
    """Where `path` ends: end of the session where known, else its latest event."""
    path_pct: list[float | None] | None = None
    """Move from the first price in per cent, at 41 equal steps of time from `start_us` to `end_us`."""


_encode: Final = msgspec.json.Encoder().encode
_decode: Final = msgspec.json.Decoder(BacktestRow).decode


def encode_row(row: BacktestRow) -> bytes:
    """Return a row as JSON, without line end; NaN becomes null."""
    return _encode(row)


def decode_row(line: bytes) -> BacktestRow:
    """Return the row that `encode_row` wrote."""
    return _decode(line)
