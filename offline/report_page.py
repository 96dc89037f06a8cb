"""The evaluation report as one HTML file that needs nothing else: no script, no font, no image, no network.

Last station of an evaluation. `offline.report_words` says it, `offline.report_charts` draws it, the template
``templates/report.html.j2`` lays it out, and this module decides what goes where. jinja2 escapes whatever is text; only
what our own charts wrote passes as it is, and is typed so (`Markup`).

Invariant: the same report gives the same bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from offline.report import ArchetypePicture, CheckpointReport, Interval, Report
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
from offline.report_svg import archetype_ink, as_label
from offline.report_words import (
    BASELINES,
    MISSING,
    checkpoint_label,
    interval_text,
    main_checkpoint,
    number,
    ordered_checkpoints,
    percent,
    verdict,
)

__all__ = ["render_page"]

_TEMPLATE: Final = "report.html.j2"
_N_TYPES: Final = 3
_MAX_TEXT: Final = 4000


@dataclass(frozen=True, slots=True, kw_only=True)
class _Cell:
    text: str
    interval: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Row:
    label: str
    cells: list[_Cell]
    is_model: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class _Section:
    title: str
    hint: str
    rows: list[_Row]


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
    # Made anew each time: a page is rendered once in a process, and nothing is kept between two.
    environment = Environment(
        loader=PackageLoader("offline"),
        autoescape=True,
        finalize=_printable,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    checkpoints = ordered_checkpoints(report)
    main = main_checkpoint(report)
    details = [_details(report, key, checkpoint, i) for i, (key, checkpoint) in enumerate(checkpoints)]
    shown = [detail for detail, (key, _) in zip(details, checkpoints, strict=True) if key == main] or details[:1]
    page = environment.get_template(_TEMPLATE).render(
        report=report,
        verdict=verdict(report),
        labels=[checkpoint_label(key) for key, _ in checkpoints],
        sections=_headlines(checkpoints),
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
    return page if page.endswith("\n") else page + "\n"


def _printable(value: object) -> object:
    """Take control characters out of text, and the end of what no reader would read to."""
    return as_label(value, _MAX_TEXT) if isinstance(value, str) and not isinstance(value, Markup) else value


def _details(report: Report, key: str, checkpoint: CheckpointReport, index: int) -> _Details:
    return _Details(
        label=checkpoint_label(key),
        n=checkpoint.n,
        confusion=confusion_chart(report, checkpoint, f"confusion-{index}"),
        pinball=pinball_chart(checkpoint, f"pinball-{index}"),
        rest=rest_chart(checkpoint, f"rest-{index}"),
        by_month=month_chart(checkpoint.by_month, f"month-{index}"),
        by_session_type=session_type_chart(checkpoint.by_session_type, f"type-{index}"),
    )


def _headlines(checkpoints: list[tuple[str, CheckpointReport]]) -> list[_Section]:
    judged = [checkpoint for _, checkpoint in checkpoints]

    def row(label: str, cell: Callable[[CheckpointReport], _Cell], *, is_model: bool = False) -> _Row:
        cells = [cell(checkpoint) if checkpoint.n else _Cell(text=MISSING) for checkpoint in judged]
        return _Row(label=label, cells=cells, is_model=is_model)

    def scores(score: str, spell: Callable[[float], str], *, as_percent: bool = False) -> list[_Row]:
        return [
            row(
                "Model",
                lambda c: _with_interval(
                    spell(getattr(c, score)), getattr(c, f"{score}_interval"), as_percent=as_percent
                ),
                is_model=True,
            ),
            *(_baseline_row(row, title, f"{baseline}_{score}", spell) for baseline, title in BASELINES.items()),
        ]

    return [
        _Section(
            title="Archetype: accuracy",
            hint="more is better",
            rows=[
                *scores("accuracy", _percent_1, as_percent=True),
                row(
                    "Gain over type × regime, points",
                    lambda c: _with_interval(
                        number((c.accuracy - c.baseline_type_regime_accuracy) * 100, 1),
                        c.accuracy_gain_interval,
                        as_percent=True,
                    ),
                ),
            ],
        ),
        _Section(
            title="Archetype: log loss, nats",
            hint="less is better",
            rows=[
                *scores("log_loss", number),
                row(
                    "Ratio to type × regime",
                    lambda c: _with_interval(number(c.log_loss_ratio), c.log_loss_ratio_interval),
                ),
            ],
        ),
        _Section(title="Archetype: Brier score", hint="less is better", rows=scores("brier", number)),
        _Section(
            title="Calibration",
            hint="less is better",
            rows=[
                row("Expected calibration error", lambda c: _Cell(text=percent(c.ece, 1)), is_model=True),
                row("By chance alone, were it calibrated", lambda c: _Cell(text=percent(c.ece_by_chance, 1))),
            ],
        ),
        _Section(
            title="Forecast of the range",
            hint="coverage: 80 % is meant; pinball: less is better",
            rows=[
                row(
                    "Coverage of the 80 % band",
                    lambda c: _with_interval(percent(c.coverage_80, 1), c.coverage_80_interval, as_percent=True),
                    is_model=True,
                ),
                row("Coverage, usual growth", lambda c: _Cell(text=percent(c.baseline_ratio_coverage_80, 1))),
                row(
                    "Pinball loss, ratio to usual growth",
                    lambda c: _with_interval(number(c.pinball_ratio), c.pinball_ratio_interval),
                    is_model=True,
                ),
                row("Width of the band, % of price", lambda c: _Cell(text=number(c.mean_width_pct, 2))),
            ],
        ),
        _Section(
            title="Rest of the session: mean R²",
            hint="more is better, 1 is all",
            rows=[
                row(
                    "Forecast",
                    lambda c: _with_interval(number(c.rest_r2.mean), c.rest_r2_mean_interval),
                    is_model=True,
                ),
                row("Type × regime", lambda c: _Cell(text=number(c.baseline_type_regime_rest_r2_mean))),
                row("Session type", lambda c: _Cell(text=number(c.baseline_type_rest_r2.mean))),
                row("True archetype", lambda c: _Cell(text=number(c.true_archetype_rest_r2_mean))),
            ],
        ),
        _Section(title="Sessions", hint="", rows=[row("Judged", lambda c: _Cell(text=f"{c.n:,}"))]),
    ]


def _baseline_row(
    row: Callable[[str, Callable[[CheckpointReport], _Cell]], _Row],
    title: str,
    field: str,
    spell: Callable[[float], str],
) -> _Row:
    return row(title, lambda c: _Cell(text=spell(getattr(c, field))))


def _spelled(values: Iterable[float | None], spell: Callable[[float], str]) -> list[_Cell]:
    return [_Cell(text=MISSING if value is None else spell(value)) for value in values]


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


def _percent_1(share: float) -> str:
    return percent(share, 1)


def _with_interval(text: str, interval: Interval, *, as_percent: bool = False) -> _Cell:
    spelled = interval_text(interval, as_percent=as_percent, decimals=1 if as_percent else 3)
    return _Cell(text=text, interval="" if text == MISSING else spelled)
