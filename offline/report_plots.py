"""The two pictures that stand for themselves, as SVG documents, and the drawings that they share with the page.

Drawings take axes and part of a report. What is not there is not drawn, and said so where a reader would wait for it.
"""

from __future__ import annotations

import math
from typing import Final

from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from offline.report import ArchetypePicture, CheckpointReport, Reliability, Report
from offline.report_svg import (
    BLUE,
    GREY,
    GRID,
    GROUND,
    INK,
    MARGIN_PX,
    MUTED,
    PANEL,
    SKY,
    archetype_color,
    archetype_ink,
    as_label,
    drawing,
    new_figure,
    standalone_svg,
    tidy,
)
from offline.report_words import MISSING, checkpoint_label, number, percent, phase_name, usual_confidence
from offline.scores import wilson_interval
from stream_fp.phases import PHASES

__all__ = [
    "draw_paths",
    "draw_phases",
    "draw_range",
    "draw_reliability",
    "move_limit",
    "plot_archetypes",
    "plot_reliability",
    "range_limit",
    "say_nothing_to_draw",
]

#: A phase may be several times as frequent in an archetype as overall; bars end here, their labels say how much it is.
_MAX_CHANGE: Final = 1.0
#: With the margins on both sides, 800 pixels.
_WIDTH: Final = 800 - 2 * MARGIN_PX
#: A third would leave the drawings narrower than their labels.
_MAX_COLUMNS: Final = 2


def plot_reliability(report: Report, checkpoint: str) -> str:
    """Draw how often the model is right by how sure it is, as an SVG document of 800 pixels' width.

    Parameters
    ----------
    report : Report
    checkpoint : str
        A key of ``report.checkpoints``.
    """
    judged = report.checkpoints[checkpoint]
    with drawing():
        figure = new_figure(_WIDTH, 600, pad_px=6)
        title = f"Is it right as often as it says? At {_checkpoint_text(checkpoint)} of a session"
        figure.suptitle(title, x=0.005, ha="left", fontsize=13.5, fontweight="bold")
        draw_reliability(figure, judged, scale=1.3)
        return standalone_svg(figure, title="Accuracy by confidence")


def plot_archetypes(report: Report) -> str:
    """Draw the archetypes side by side, as an SVG document of 800 pixels' width."""
    pictures = report.archetypes
    n_columns = max(1, min(len(pictures), _MAX_COLUMNS))
    n_rows = max(1, math.ceil(len(pictures) / n_columns))
    with drawing():
        figure = new_figure(_WIDTH, 60 + 350 * n_rows, pad_px=9)
        figure.suptitle("What a session becomes", x=0.005, ha="left", fontsize=14, fontweight="bold")
        cards = figure.subfigures(n_rows, n_columns, squeeze=False, wspace=0.025, hspace=0.025)
        if not pictures:
            say_nothing_to_draw(cards[0, 0].subplots(), "There are no archetypes.")
        for picture, card in zip(pictures, cards.flat, strict=False):
            _draw_card(card, picture, report)
        figure.supxlabel(
            "Price against the first price over the session: median, 10 to 90 % band and example sessions",
            fontsize=9,
            color=MUTED,
        )
        return standalone_svg(figure, title="Archetypes of sessions")


def draw_reliability(figure: Figure | SubFigure, checkpoint: CheckpointReport, scale: float = 1.0) -> None:
    """Draw accuracy by confidence over the number of sessions by confidence, into an empty figure."""
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=[3.4, 1])
    _draw_accuracy(above, checkpoint.reliability, scale)
    _draw_counts(below, checkpoint.reliability, scale)
    if not checkpoint.n:
        above.text(
            0.975, 0.05, "No sessions were judged.", transform=above.transAxes, ha="right", color=MUTED,
            fontsize=8.5 * scale,
        )  # fmt: skip
        return
    found = usual_confidence(checkpoint.reliability)
    lines = [f"{checkpoint.n:,} sessions", f"calibration error {percent(checkpoint.ece, 1)}"]
    if found:
        lines.append(f"says {percent(found[0])}, right in {percent(found[1])}")
    # Below the diagonal: above it, at low confidence, stand the longest intervals.
    for i, line in enumerate(reversed(lines)):
        above.text(
            0.975, 0.05 + 0.075 * i, line, transform=above.transAxes, ha="right", color=MUTED, fontsize=8.5 * scale
        )


def _draw_accuracy(axes: Axes, reliability: Reliability, scale: float) -> None:
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=1.1, linestyle=(0, (4, 3)))
    for confidence, accuracy, n in zip(reliability.mean_confidence, reliability.accuracy, reliability.n, strict=True):
        if confidence is None or accuracy is None or not n:
            continue
        low, high = wilson_interval(accuracy, n)
        axes.plot([confidence, confidence], [low, high], color=BLUE, linewidth=1.6 * scale, alpha=0.45)
        # Area by number of sessions: what is drawn small is known badly.
        size = scale * (3 + 9 * math.sqrt(n / max(reliability.n)))
        axes.plot(
            confidence, accuracy, marker="o", markersize=size, color=BLUE, markeredgecolor=GROUND, markeredgewidth=1
        )
    axes.set(xlim=(0, 1), ylim=(0, 1), ylabel="named right")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(PercentFormatter(1, symbol=" %"))
        axis.set_major_locator(MaxNLocator(5))
    _enlarge(axes, scale)
    tidy(axes)
    axes.grid(visible=True, axis="x")


def _draw_counts(axes: Axes, reliability: Reliability, scale: float) -> None:
    edges = reliability.edges
    for left, right, n in zip(edges[:-1], edges[1:], reliability.n, strict=True):
        if n:
            width = right - left
            axes.bar(left + width / 2, n, width * 0.86, color=SKY)
    axes.set(xlabel="confidence", ylabel="sessions", ylim=(0, max([1, *reliability.n]) * 1.1))
    axes.yaxis.set_major_locator(MaxNLocator(2, integer=True))
    _enlarge(axes, scale)
    tidy(axes)
    axes.tick_params(axis="x", pad=7)


def draw_paths(axes: Axes, picture: ArchetypePicture, limit: float) -> None:
    """Draw example sessions as thin lines under the median and the 10 to 90 % band, within plus and minus `limit`."""
    color = archetype_color(picture.archetype_id)
    band = picture.mean_band
    axes.axhline(0, color=GREY, linewidth=0.7)
    if band.p50:
        time = [i / max(1, len(band.p50) - 1) for i in range(len(band.p50))]
        axes.fill_between(time, band.p10, band.p90, color=color, alpha=0.16, linewidth=0)
    for path in picture.examples:
        axes.plot(path.time, path.move_pct, color=color, linewidth=0.8, alpha=0.5)
    if band.p50:
        axes.plot(time, band.p50, color=INK, linewidth=2)
    if not band.p50 and not picture.examples:
        axes.text(0.5, 0.5, "no sessions", transform=axes.transAxes, ha="center", color=MUTED)
    axes.set(xlim=(0, 1), ylim=(-limit, limit))
    axes.set_xticks([0, 0.5, 1], ["start", "half", "end"])
    first, _, last = axes.get_xticklabels()
    first.set_horizontalalignment("left")
    last.set_horizontalalignment("right")
    axes.yaxis.set_major_locator(MaxNLocator(5, symmetric=True))
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:+g} %".replace("-", "−") if abs(value) > 1e-9 else "0 %")
    tidy(axes)


def draw_phases(axes: Axes, picture: ArchetypePicture, overall: dict[str, float]) -> None:
    """Draw how much more or less often each phase occurs than over all sessions."""
    color = archetype_color(picture.archetype_id)
    axes.axvline(0, color=GREY, linewidth=0.8)
    for i, phase in enumerate(PHASES):
        change = _change(picture.phase_rates.get(phase), overall.get(phase))
        shown = 0.0 if change is None else max(-_MAX_CHANGE, min(_MAX_CHANGE, change))
        axes.barh(i, shown, 0.62, color=color, alpha=0.8 if shown > 0 else 0.4)
        text = MISSING if change is None else f"{'+' if change > 0 else ''}{number(change * 100, 0)} %"
        side = 1 if shown >= 0 else -1
        axes.text(
            shown + 0.04 * side, i, text, ha="left" if side > 0 else "right", va="center_baseline", fontsize=7.5,
            color=MUTED,
        )  # fmt: skip
    axes.set_yticks(range(len(PHASES)), [phase_name(phase) for phase in PHASES])
    axes.set(xlim=(-1.45, 1.45), ylim=(len(PHASES) - 0.4, -0.6), xticks=[])
    axes.spines["bottom"].set_visible(False)
    tidy(axes, grid="")


def draw_range(axes: Axes, picture: ArchetypePicture, limit: float) -> None:
    """Draw P10, P50 and P90 of the range, on a scale from 0 to `limit` that all archetypes share."""
    color = archetype_color(picture.archetype_id)
    spread = picture.range_pct
    axes.plot([0, limit], [0, 0], color=GRID, linewidth=5)
    axes.plot([spread.p10, spread.p90], [0, 0], color=color, linewidth=5, alpha=0.45)
    axes.plot(spread.p50, 0, marker="o", markersize=7, color=color, markeredgecolor=GROUND)
    axes.set(xlim=(-0.02 * limit, 1.02 * limit), ylim=(-1, 1), yticks=[0])
    axes.set_yticklabels(["range"])
    axes.xaxis.set_major_locator(MaxNLocator(4))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g} %")
    axes.spines["bottom"].set_visible(False)
    tidy(axes, grid="")


def move_limit(report: Report) -> float:
    """Return the bound of the price axis that all archetypes share, so that a calm one looks calm; per cent."""
    bounds = [abs(move) for picture in report.archetypes for move in (*picture.mean_band.p10, *picture.mean_band.p90)]
    return 1.25 * max(bounds, default=0.0) or 1.0


def range_limit(report: Report) -> float:
    """Return the end of the range axis that all archetypes share; per cent."""
    return max((picture.range_pct.p90 for picture in report.archetypes), default=0.0) or 1.0


def say_nothing_to_draw(axes: Axes, text: str = "no sessions") -> None:
    """Write `text` where a drawing would be."""
    axes.set_axis_off()
    axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", color=MUTED)


def _draw_card(card: SubFigure, picture: ArchetypePicture, report: Report) -> None:
    paths, phases = card.subplots(2, 1, height_ratios=[1.45, 1])
    card.set_facecolor(PANEL)
    draw_paths(paths, picture, move_limit(report))
    draw_phases(phases, picture, report.overall_phase_rates)
    spread = picture.range_pct
    # Names are lists of traits, the widest first: it is the title, and the others go below.
    first, _, others = picture.name.partition(", ")
    name = as_label(f"{picture.archetype_id} · {first}", 34)
    paths.set_title(name, fontsize=11, color=archetype_ink(picture.archetype_id), pad=34)
    facts = f"{percent(picture.share)} of sessions, range {number(spread.p10, 2)} to {number(spread.p90, 2)} %"
    traits = paths.text(0, 1.135, as_label(others, 54), transform=paths.transAxes, fontsize=8, color=INK)
    traits.set_in_layout(False)  # a long line must not make its drawing narrower than the others
    paths.text(0, 1.03, facts, transform=paths.transAxes, fontsize=8.5, color=MUTED)
    phases.set_title("phases against all sessions", fontsize=8.5, fontweight="normal", color=MUTED)


def _enlarge(axes: Axes, scale: float) -> None:
    axes.tick_params(labelsize=8 * scale)
    axes.xaxis.label.set_fontsize(8.5 * scale)
    axes.yaxis.label.set_fontsize(8.5 * scale)


def _change(rate: float | None, overall: float | None) -> float | None:
    return None if rate is None or not overall else rate / overall - 1


def _checkpoint_text(checkpoint: str) -> str:
    return as_label(checkpoint_label(checkpoint), 12)
