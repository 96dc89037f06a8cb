"""A backtest as one HTML file: the figures as in an evaluation's report, and a page for each session.

Last station of a backtest. The template ``templates/backtest.html.j2`` lays it out; ``backtest.js.j2`` shows sessions
by the address (``report.html#session=NY_AM_2025-03-14&checkpoint=30``) and draws them with plotly.js, which is in the
file too. A policy in the page names these two scripts by their hashes: nothing else in it runs, and it asks no network.

Invariant: the same rows and library give the same bytes.
"""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from typing import Final

from markupsafe import Markup
from plotly.offline import get_plotlyjs

from offline.backtest.charts import accuracy_over_time, coverage_over_time, hour_chart
from offline.backtest.results import Backtest, CheckpointGroups, GroupScores
from offline.backtest.scoring import Replayed
from offline.backtest.sessions import MAX_SESSIONS, session_data
from offline.report import CheckpointReport
from offline.report_charts import (
    confusion_chart,
    coverage_chart,
    pinball_chart,
    pinball_ratio_chart,
    reliability_chart,
    rest_chart,
    score_chart,
    session_type_chart,
)
from offline.report_table import headline_sections
from offline.report_template import render_template
from offline.report_words import checkpoint_label, main_checkpoint, ordered_checkpoints, percent, verdict

__all__ = ["render_backtest_page"]

_TEMPLATE: Final = "backtest.html.j2"
#: With fewer months than these, weeks say more of the course of things.
_MIN_MONTHS: Final = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class _Details:
    """The charts of one checkpoint."""

    label: str
    period: str
    mean_pct_seen: str
    reliability: Markup
    accuracy: Markup
    coverage: Markup
    by_session_type: Markup
    by_hour: Markup
    confusion: Markup
    pinball: Markup
    rest: Markup


def render_backtest_page(found: Backtest, replayed: Replayed) -> str:
    """Return the page of a backtest: one HTML document, light or dark as its reader's system is."""
    checkpoints = ordered_checkpoints(found)
    main = main_checkpoint(found)
    details = {key: _details(found, key, checkpoint, i) for i, (key, checkpoint) in enumerate(checkpoints)}
    script = Markup(render_template("backtest.js.j2"))  # noqa: S704 - our own, with nothing put into it
    # What plotly.js holds is meant to stand in a page.
    plotly = Markup(get_plotlyjs())  # noqa: S704
    n_shown = min(found.n_sessions_predicted, MAX_SESSIONS)
    return render_template(
        _TEMPLATE,
        found=found,
        verdict=verdict(found)
        if checkpoints
        else ["Of no prediction it is known what came, so nothing can be judged."],
        labels=[checkpoint_label(key) for key, _ in checkpoints],
        sections=headline_sections([checkpoint for _, checkpoint in checkpoints]),
        scores=[
            score_chart(found, "accuracy", "accuracy", "accuracy", as_percent=True),
            score_chart(found, "log_loss", "log loss, nats", "log-loss"),
        ],
        ranges=[coverage_chart(found, "coverage"), pinball_ratio_chart(found, "pinball-ratio")],
        shown=details.get(main or ""),
        others=[detail for key, detail in details.items() if key != main],
        main_checkpoint=main or "",
        n_shown=n_shown,
        sessions=session_data(replayed, is_in_sample=found.is_in_sample),
        plotly=plotly,
        script=script,
        hashes=[_hash(plotly), _hash(script)],
    )


def _details(found: Backtest, key: str, checkpoint: CheckpointReport, index: int) -> _Details:
    groups = found.groups[key]
    period, over_time = _over_time(groups)
    names = dict(enumerate(found.archetypes))
    return _Details(
        label=checkpoint_label(key),
        period=period,
        mean_pct_seen=percent(found.mean_pct_seen[key] / 100, 1),
        reliability=reliability_chart(checkpoint, f"reliability-{index}"),
        accuracy=accuracy_over_time(over_time, f"accuracy-over-time-{index}"),
        coverage=coverage_over_time(over_time, f"coverage-over-time-{index}"),
        by_session_type=session_type_chart(checkpoint.by_session_type, f"type-{index}"),
        by_hour=hour_chart(groups.by_hour, f"hour-{index}"),
        confusion=confusion_chart(names, checkpoint, f"confusion-{index}"),
        pinball=pinball_chart(checkpoint, f"pinball-{index}"),
        rest=rest_chart(checkpoint, f"rest-{index}"),
    )


def _over_time(groups: CheckpointGroups) -> tuple[str, dict[str, GroupScores]]:
    return ("month", groups.by_month) if len(groups.by_month) >= _MIN_MONTHS else ("week", groups.by_week)


def _hash(script: str) -> str:
    """Return how a content policy names a script."""
    return f"sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}"
