"""The evaluation report as one HTML file that needs nothing else: no script, no font, no image, no network.

Last station of an evaluation. `offline.report_words` says it, `offline.report_charts` draws it, the template
``templates/report.html.j2`` lays it out, and this module decides what goes where.

Invariant: the same report gives the same bytes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from markupsafe import Markup

from offline.report import ArchetypePicture, CheckpointReport, Report
from offline.report_charts import (
    archetype_chart,
    confusion_chart,
    coverage_chart,
    month_chart,
    pinball_chart,
    pinball_ratio_chart,
    reliability_chart,
    rest_chart,
    score_chart,
    session_type_chart,
)
from offline.report_svg import archetype_ink
from offline.report_table import headline_sections
from offline.report_template import render_template
from offline.report_words import (
    MISSING,
    checkpoint_label,
    main_checkpoint,
    number,
    ordered_checkpoints,
    percent,
    verdict,
)

__all__ = ["render_page"]

_TEMPLATE: Final = "report.html.j2"
_N_TYPES: Final = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class _Details:
    """The charts of one checkpoint."""

    label: str
    n: int
    confusion: Markup
    pinball: Markup
    rest: Markup
    by_month: Markup
    by_session_type: Markup


@dataclass(frozen=True, slots=True, kw_only=True)
class _Card:
    picture: ArchetypePicture
    color: str
    facts: list[tuple[str, str]]
    chart: Markup


def render_page(report: Report) -> str:
    """Return the page of a report: one HTML document, light or dark as its reader's system is."""
    checkpoints = ordered_checkpoints(report)
    main = main_checkpoint(report)
    details = [_details(report, key, checkpoint, i) for i, (key, checkpoint) in enumerate(checkpoints)]
    shown = [detail for detail, (key, _) in zip(details, checkpoints, strict=True) if key == main] or details[:1]
    return render_template(
        _TEMPLATE,
        report=report,
        verdict=verdict(report),
        labels=[checkpoint_label(key) for key, _ in checkpoints],
        sections=headline_sections([checkpoint for _, checkpoint in checkpoints]),
        scores=[
            score_chart(report, "accuracy", "accuracy", "accuracy", as_percent=True),
            score_chart(report, "log_loss", "log loss, nats", "log-loss"),
        ],
        reliabilities=[
            (checkpoint_label(key), reliability_chart(checkpoint, f"reliability-{i}"))
            for i, (key, checkpoint) in enumerate(checkpoints)
        ],
        ranges=[coverage_chart(report, "coverage"), pinball_ratio_chart(report, "pinball-ratio")],
        shown=shown[0] if shown else None,
        others=[detail for detail in details if detail not in shown],
        cards=[_card(report, picture, i) for i, picture in enumerate(report.archetypes)],
        sizes=[(name, percent(share, 1)) for name, share in report.archetype_sizes.items()],
        stability=number(report.stability_ari, 2),
        silhouette=number(report.silhouette, 2),
    )


def _details(report: Report, key: str, checkpoint: CheckpointReport, index: int) -> _Details:
    return _Details(
        label=checkpoint_label(key),
        n=checkpoint.n,
        confusion=confusion_chart(
            {one.archetype_id: one.name for one in report.archetypes}, checkpoint, f"confusion-{index}"
        ),
        pinball=pinball_chart(checkpoint, f"pinball-{index}"),
        rest=rest_chart(checkpoint, f"rest-{index}"),
        by_month=month_chart(checkpoint.by_month, f"month-{index}"),
        by_session_type=session_type_chart(checkpoint.by_session_type, f"type-{index}"),
    )


def _card(report: Report, picture: ArchetypePicture, index: int) -> _Card:
    spread = picture.range_pct
    types = sorted(picture.session_types.items(), key=lambda item: (-item[1], item[0]))[:_N_TYPES]
    return _Card(
        picture=picture,
        color=archetype_ink(picture.archetype_id),
        facts=[
            ("Share", f"{percent(picture.share, 1)} ({picture.n_sessions:,} sessions)"),
            ("Range", f"{number(spread.p50, 2)} % ({number(spread.p10, 2)} to {number(spread.p90, 2)})"),
            ("Volatility", picture.volatility_class or MISSING),
            ("Efficiency", number(picture.efficiency, 2)),
            ("Mostly", ", ".join(f"{name} {percent(share)}" for name, share in types) or MISSING),
        ],
        chart=archetype_chart(report, picture, f"archetype-{index}"),
    )
