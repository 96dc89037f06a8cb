"""The headline figures of judged checkpoints as a table of text, for whatever shows it: a page or a terminal.

Pure: `CheckpointReport` in, labels and cells out, each figure beside its interval and beside what is known without the
model. A checkpoint at which no session was judged has dashes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from offline.report import CheckpointReport, Interval
from offline.report_words import BASELINES, MISSING, interval_text, number, percent

__all__ = ["Cell", "Row", "Section", "headline_sections"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """A figure, and its interval where it has one."""

    text: str
    interval: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A figure at each checkpoint."""

    label: str
    cells: list[Cell]
    is_model: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """Rows about one thing."""

    title: str
    hint: str
    rows: list[Row]


def headline_sections(judged: Sequence[CheckpointReport]) -> list[Section]:
    """Return the figures of checkpoints, one column each."""

    def row(label: str, cell: Callable[[CheckpointReport], Cell], *, is_model: bool = False) -> Row:
        cells = [cell(checkpoint) if checkpoint.n else Cell(text=MISSING) for checkpoint in judged]
        return Row(label=label, cells=cells, is_model=is_model)

    def scores(score: str, spell: Callable[[float], str], *, as_percent: bool = False) -> list[Row]:
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
        Section(
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
        Section(
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
        Section(title="Archetype: Brier score", hint="less is better", rows=scores("brier", number)),
        Section(
            title="Calibration",
            hint="less is better",
            rows=[
                row("Expected calibration error", lambda c: Cell(text=percent(c.ece, 1)), is_model=True),
                row("By chance alone, were it calibrated", lambda c: Cell(text=percent(c.ece_by_chance, 1))),
            ],
        ),
        Section(
            title="Forecast of the range",
            hint="coverage: 80 % is meant; pinball: less is better",
            rows=[
                row(
                    "Coverage of the 80 % band",
                    lambda c: _with_interval(percent(c.coverage_80, 1), c.coverage_80_interval, as_percent=True),
                    is_model=True,
                ),
                row("Coverage, usual growth", lambda c: Cell(text=percent(c.baseline_ratio_coverage_80, 1))),
                row(
                    "Pinball loss, ratio to usual growth",
                    lambda c: _with_interval(number(c.pinball_ratio), c.pinball_ratio_interval),
                    is_model=True,
                ),
                row("Width of the band, % of price", lambda c: Cell(text=number(c.mean_width_pct, 2))),
            ],
        ),
        Section(
            title="Rest of the session: mean R²",
            hint="more is better, 1 is all",
            rows=[
                row(
                    "Forecast",
                    lambda c: _with_interval(number(c.rest_r2.mean), c.rest_r2_mean_interval),
                    is_model=True,
                ),
                row("Type × regime", lambda c: Cell(text=number(c.baseline_type_regime_rest_r2_mean))),
                row("Session type", lambda c: Cell(text=number(c.baseline_type_rest_r2.mean))),
                row("True archetype", lambda c: Cell(text=number(c.true_archetype_rest_r2_mean))),
            ],
        ),
        Section(title="Sessions", hint="", rows=[row("Judged", lambda c: Cell(text=f"{c.n:,}"))]),
    ]


def _baseline_row(
    row: Callable[[str, Callable[[CheckpointReport], Cell]], Row],
    title: str,
    field: str,
    spell: Callable[[float], str],
) -> Row:
    return row(title, lambda c: Cell(text=spell(getattr(c, field))))


def _percent_1(share: float) -> str:
    return percent(share, 1)


def _with_interval(text: str, interval: Interval, *, as_percent: bool = False) -> Cell:
    spelled = interval_text(interval, as_percent=as_percent, decimals=1 if as_percent else 3)
    return Cell(text=text, interval="" if text == MISSING else spelled)
