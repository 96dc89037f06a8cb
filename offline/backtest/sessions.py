"""The sessions of a backtest as the page holds them: compact JSON that its script reads, one list a session.

Ids and types come from producers, whom nobody checks. In the page they are data: no character of them can end the
element that holds them, and the script puts them into text nodes alone.

Invariant: the same table gives the same bytes.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec
import numpy as np
import polars as pl
from markupsafe import Markup

from offline.backtest.scoring import Replayed
from offline.report_svg import archetype_color, archetype_ink
from offline.report_words import phase_name
from stream_fp.phases import PHASES

__all__ = ["MAX_SESSIONS", "session_data"]

#: Sessions that a page holds, the latest ones: five years of four a day, in some five megabytes. A phone bears that.
MAX_SESSIONS: Final = 5000
#: What tells one session from another.
_KEY: Final = ("source", "first_offset", "session_id")
#: A screen shows no more.
_DECIMALS: Final = 4
_SECOND_US: Final = 1_000_000
#: What could end a script element or begin a comment in it, or a line in old engines: written as JSON may write them.
_ESCAPES: Final = {
    ord("<"): "\\u003c",
    ord(">"): "\\u003e",
    ord("&"): "\\u0026",
    0x2028: "\\u2028",
    0x2029: "\\u2029",
}


def session_data(replayed: Replayed, *, is_in_sample: bool) -> Markup:
    """Return the latest sessions as JSON for a ``script`` element.

    Parameters
    ----------
    replayed : Replayed
    is_in_sample : bool
        Whether sessions that the library may have seen were judged too.
    """
    library = replayed.library
    judged = replayed.is_known() & (replayed.is_unseen() | is_in_sample)
    table = replayed.table.with_columns(judged=pl.Series(judged, dtype=pl.Boolean)).sort(
        "date", "start_us", "session_id", "source", "first_offset", "checkpoint_pct", "offset", maintain_order=True
    )
    number = table.select(pl.struct(_KEY).rle_id()).to_series().to_numpy().astype(np.int64)
    table = table.filter(pl.Series(number > number.max(initial=0) - MAX_SESSIONS, dtype=pl.Boolean))
    sessions: dict[tuple[str, int, str], list[Any]] = {}
    n_of_id: dict[str, int] = {}
    for row in table.iter_rows(named=True):
        key = row["source"], row["first_offset"], row["session_id"]
        if key not in sessions:
            n_of_id[row["session_id"]] = n_of_id.get(row["session_id"], 0) + 1
            sessions[key] = _session(row, n_of_id[row["session_id"]])
        sessions[key][-1].append(_prediction(row))
    data = {
        "isInSample": is_in_sample,
        "archetypes": [
            [library.archetypes[i].name, archetype_color(i), archetype_ink(i)] for i in range(len(library.archetypes))
        ],
        "phases": [phase_name(phase) for phase in PHASES],
        "sessions": list(sessions.values()),
    }
    text = msgspec.json.encode(data).decode()
    # Every bracket in it has been replaced, so that it is text to whatever parses the page.
    return Markup(text.translate(_ESCAPES))  # noqa: S704


def _session(row: dict[str, Any], nth: int) -> list[Any]:
    """Return what a session's page shows whatever the checkpoint; the script reads it in this order."""
    return [
        row["session_id"],
        nth,
        row["session_type"] or "unknown",
        row["date"],
        row["start_us"] // _SECOND_US,
        None if row["end_us"] is None else row["end_us"] // _SECOND_US,
        row["outcome"],
        row["is_cut_at_start"],
        row["true_archetype_id"],
        _rounded(row["final_range_pct"]),
        row["n_events"],
        _rounded_list(row["final_phase_rates"], 1),
        _rounded_list(row["path_pct"], _DECIMALS),
        [],
    ]


def _prediction(row: dict[str, Any]) -> list[Any]:
    """Return what was said at one checkpoint; the script reads it in this order."""
    return [
        f"{row['checkpoint_pct']:g}",
        _rounded(row["pct_seen"]),
        row["predicted_us"] // _SECOND_US,
        row["local_hour"],
        row["archetype_id"],
        _rounded(row["confidence"]),
        _rounded_list(row["probabilities"], _DECIMALS),
        _rounded(row["range_so_far_pct"]),
        _rounded(row["range_p10_pct"]),
        _rounded(row["range_p50_pct"]),
        _rounded(row["range_p90_pct"]),
        row["n_seen"],
        row["judged"],
    ]


def _rounded(value: float | None) -> float | None:
    return None if value is None or not np.isfinite(value) else round(value, _DECIMALS)


def _rounded_list(values: list[float | None] | None, decimals: int) -> list[float | None] | None:
    if values is None:
        return None
    return [None if value is None or not np.isfinite(value) else round(value, decimals) for value in values]
