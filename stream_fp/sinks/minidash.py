"""The minidash: one HTML page with a row a prediction, for those who want to glance rather than query.

A row is keyed by session, checkpoint and model version, so writing it again replaces it; the newest `MAX_ROWS` are
kept, so that the page stays small. The page is rewritten atomically.
"""

from __future__ import annotations

import re
from html import escape
from pathlib import Path
from typing import Final

from stream_fp.messages import Prediction
from stream_fp.sinks.sidecar import write_atomically

__all__ = ["MAX_ROWS", "write_row"]

MAX_ROWS: Final = 500

_HEADINGS: Final = (
    "Session", "Seen", "Archetype", "Confidence", "Volatility", "Range P10-P50-P90", "Top phases", "At (UTC)", "Model",
)  # fmt: skip
_ROW: Final = re.compile(r'<tr data-key="[^"]*">.*?</tr>\n?', re.DOTALL)
_PAGE: Final = """<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><title>Session fingerprints</title>
<style>
body {{ font: 14px system-ui, sans-serif; margin: 2em; color: #222 }}
table {{ border-collapse: collapse }} th, td {{ padding: .3em .8em; text-align: left; border-bottom: 1px solid #ddd }}
</style></head>
<body><h1>Session fingerprints</h1>
<table><thead><tr>{headings}</tr></thead>
<tbody>
{rows}</tbody></table></body></html>
"""


def write_row(prediction: Prediction, path: Path) -> None:
    """Put the row of `prediction` on top of the page at `path`, which is made where it is missing.

    Raises
    ------
    OSError
        When the page cannot be read or written.
    """
    key = _key(prediction)
    old = _ROW.findall(path.read_text("utf-8", "replace")) if path.exists() else []
    kept = [row if row.endswith("\n") else row + "\n" for row in old if f'data-key="{key}"' not in row]
    rows = [_row(prediction, key), *kept][:MAX_ROWS]
    page = _PAGE.format(headings="".join(f"<th>{heading}</th>" for heading in _HEADINGS), rows="".join(rows))
    write_atomically(path, page.encode())


def _key(prediction: Prediction) -> str:
    how = prediction.classification_metadata
    return escape(f"{prediction.session_id} {how.checkpoint_pct:g} {how.model_version}")


def _row(prediction: Prediction, key: str) -> str:
    stats, how = prediction.predicted_stats, prediction.classification_metadata
    band = stats.natural_units.range_pct
    cells = (
        prediction.session_id,
        f"{prediction.pct_seen:g} %",
        f"{prediction.archetype_id}: {how.archetype_name}",
        f"{prediction.confidence:.0%}",
        stats.volatility_class,
        f"{band.p10:.2f} - {band.p50:.2f} - {band.p90:.2f} %",
        ", ".join(name for name, _ in stats.top_phases),
        how.timestamp[:19],
        how.model_version,
    )
    return f'<tr data-key="{key}">' + "".join(f"<td>{escape(cell)}</td>" for cell in cells) + "</tr>\n"
