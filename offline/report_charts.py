"""The charts of the page, each small enough to be read on a phone: part of a report in, an ``svg`` element out.

The colours mean the same everywhere: the model is blue, each baseline has its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from offline.report import ArchetypePicture, CheckpointReport, Group, Interval, Report, RestR2
from offline.report_plots import (
    draw_paths,
    draw_phases,
    draw_range,
    draw_reliability,
    move_limit,
    range_limit,
    say_nothing_to_draw,
)
from offline.report_svg import (
    BLUE,
    GREEN,
    GREY,
    GROUND,
    INK,
    MUTED,
    ORANGE,
    PURPLE,
    SKY,
    VERMILION,
    as_label,
    drawing,
    inline_svg,
    new_figure,
    tidy,
)
from offline.report_words import (
    BASELINES,
    MISSING,
    Judgement,
    checkpoint_label,
    number,
    ordered_checkpoints,
    percent,
    phase_name,
)

__all__ = [
    "CHART_WIDTH",
    "archetype_chart",
    "confusion_chart",
    "coverage_chart",
    "finished",
    "group_chart",
    "label_sparsely",
    "month_chart",
    "percent_axis",
    "pinball_chart",
    "pinball_ratio_chart",
    "reliability_chart",
    "rest_chart",
    "score_chart",
    "session_type_chart",
]

#: Of every chart in pixels: fits a phone.
CHART_WIDTH: Final = 400
_COLORS: Final = {
    "baseline_type_regime": ORANGE,
    "baseline_type": PURPLE,
    "full_centroid": GREEN,
    "uniform": GREY,
    "baseline_ratio": VERMILION,
    "true_archetype": SKY,
}
_MARKERS: Final = {"baseline_type_regime": "s", "baseline_type": "^", "full_centroid": "D", "uniform": "v"}
_HEAT: Final = LinearSegmentedColormap.from_list("heat", ["#f3f7fb", "#56a0d3", "#00456d"])
#: R2 below this is drawn no further left: how much worse than the mean something is does not matter.
_LOWEST_R2: Final = -0.3
_OUTCOMES: Final = {"mean": "mean", "range": "range", "volatility": "volatility", "n_events": "events to come",
    "efficiency": "efficiency"}  # fmt: skip


def reliability_chart(checkpoint: CheckpointReport, name: str) -> Markup:
    """Draw accuracy by confidence, with the number of sessions in each bin."""
    with drawing():
        figure = new_figure(CHART_WIDTH, 390)
        draw_reliability(figure, checkpoint)
        return inline_svg(figure, name=name, description="Accuracy by confidence, with the number of sessions")


def score_chart(report: Judgement, score: str, label: str, name: str, *, as_percent: bool = False) -> Markup:
    """Draw a score of the model, with its interval, and of the baselines, by checkpoint.

    Parameters
    ----------
    report : Report, or another judgement
    score : str
        Name of the field: ``accuracy``, ``log_loss`` or ``brier``.
    label : str
        What to call it.
    name : str
        Unique within the page.
    as_percent : bool
    """
    judged = [(key, checkpoint) for key, checkpoint in ordered_checkpoints(report) if checkpoint.n]
    with drawing():
        figure = new_figure(CHART_WIDTH, 330)
        axes = figure.subplots()
        places = range(len(judged))
        for baseline, title in BASELINES.items():
            values = [getattr(checkpoint, f"{baseline}_{score}") for _, checkpoint in judged]
            axes.plot(
                places,
                values,
                color=_COLORS[baseline],
                marker=_MARKERS[baseline],
                markersize=5,
                linewidth=1.3,
                label=title,
            )
        values = [getattr(checkpoint, score) for _, checkpoint in judged]
        intervals = [getattr(checkpoint, f"{score}_interval") for _, checkpoint in judged]
        _draw_with_intervals(axes, values, intervals, "Model")
        _label_checkpoints(axes, [key for key, _ in judged])
        axes.set_ylabel(label)
        if as_percent:
            percent_axis(axes)
        return finished(figure, axes, name, f"{label} by checkpoint, beside the baselines", bool(judged))


def confusion_chart(names: Mapping[int, str], checkpoint: CheckpointReport, name: str) -> Markup:
    """Draw which archetype was predicted for which true one, in shares of the true one's sessions.

    Parameters
    ----------
    names : mapping of int to str
        Of the archetypes, by id.
    checkpoint : CheckpointReport
    name : str
        Unique within the page.
    """
    rows = checkpoint.confusion
    n_columns = max((len(row) for row in rows), default=0)
    with drawing():
        figure = new_figure(CHART_WIDTH + 60, 110 + 44 * max(2, len(rows)))
        axes = figure.subplots()
        if not n_columns:
            say_nothing_to_draw(axes)
            return inline_svg(figure, name=name, description="No sessions")
        for row, counts in enumerate(rows):
            _draw_confusion_row(axes, row, counts)
        labels = [as_label(f"{i} · {names[i]}" if i in names else str(i), 26) for i in range(len(rows))]
        axes.set_yticks(range(len(rows)), labels, color=INK)
        axes.set_xticks(range(n_columns), [str(i) for i in range(n_columns)], color=INK)
        axes.set(xlim=(-0.5, n_columns + 0.45), ylim=(len(rows) - 0.5, -0.5), ylabel="true archetype")
        axes.set_xlabel("predicted archetype, % of each row")
        axes.text(n_columns - 0.4, -0.62, "sessions", va="bottom", color=MUTED, fontsize=7.5)
        tidy(axes, grid="")
        axes.spines["bottom"].set_visible(False)
        return inline_svg(figure, name=name, description="True archetype by predicted archetype")


def pinball_chart(checkpoint: CheckpointReport, name: str) -> Markup:
    """Draw the pinball loss of the forecast range's quantiles beside those of the two baselines."""
    who = {
        "": ("Forecast", BLUE),
        "baseline_ratio_": ("Usual growth", VERMILION),
        "baseline_type_": ("Session type", PURPLE),
    }
    with drawing():
        figure = new_figure(CHART_WIDTH, 290)
        axes = figure.subplots()
        for i, (prefix, (title, color)) in enumerate(who.items()):
            values = [getattr(checkpoint, f"{prefix}pinball_{quantile}") for quantile in ("p10", "p50", "p90")]
            places = [place + (i - 1) * 0.27 for place in range(3)]
            bars = axes.bar(places, values, 0.25, color=color, label=title)
            axes.bar_label(bars, [number(value) for value in values], fontsize=7, color=MUTED, padding=2)
        axes.set_xticks(range(3), ["P10", "P50", "P90"])
        axes.set_ylabel("pinball loss, % of price")
        axes.margins(y=0.12)
        return finished(figure, axes, name, "Pinball loss of the range forecast and two baselines", checkpoint.n > 0)


def coverage_chart(report: Judgement, name: str) -> Markup:
    """Draw how often the range ended up within the 80 % band, by checkpoint."""
    judged = [(key, checkpoint) for key, checkpoint in ordered_checkpoints(report) if checkpoint.n]
    with drawing():
        figure = new_figure(CHART_WIDTH, 290)
        axes = figure.subplots()
        axes.axhline(0.8, color=INK, linewidth=1, linestyle=(0, (4, 3)), label="meant: 80 %")
        ratio = [checkpoint.baseline_ratio_coverage_80 for _, checkpoint in judged]
        axes.plot(
            range(len(judged)), ratio, color=VERMILION, marker="s", markersize=5, linewidth=1.3, label="Usual growth"
        )
        values = [checkpoint.coverage_80 for _, checkpoint in judged]
        _draw_with_intervals(axes, values, [checkpoint.coverage_80_interval for _, checkpoint in judged], "Forecast")
        _label_checkpoints(axes, [key for key, _ in judged])
        low, high = axes.get_ylim()
        axes.set(ylabel="ranges within the 80 % band", ylim=(min(low, 0.7), max(high, 0.9)))
        percent_axis(axes)
        return finished(figure, axes, name, "Coverage of the 80 % band by checkpoint", bool(judged))


def pinball_ratio_chart(report: Judgement, name: str) -> Markup:
    """Draw the forecast's pinball loss over that of the usual growth, by checkpoint."""
    judged = [(key, checkpoint) for key, checkpoint in ordered_checkpoints(report) if checkpoint.n]
    with drawing():
        figure = new_figure(CHART_WIDTH, 290)
        axes = figure.subplots()
        axes.axhline(1, color=VERMILION, linewidth=1.3, label="Usual growth")
        values = [checkpoint.pinball_ratio for _, checkpoint in judged]
        _draw_with_intervals(axes, values, [checkpoint.pinball_ratio_interval for _, checkpoint in judged], "Forecast")
        _label_checkpoints(axes, [key for key, _ in judged])
        axes.set_ylabel("pinball loss, ratio")
        return finished(figure, axes, name, "Pinball loss over that of the usual growth by checkpoint", bool(judged))


def rest_chart(checkpoint: CheckpointReport, name: str) -> Markup:
    """Draw how much of each outcome of the rest of a session was foreseen, and how much could be."""
    who: tuple[tuple[str, RestR2, str], ...] = (
        ("Forecast", checkpoint.rest_r2, BLUE),
        ("Type × regime", checkpoint.baseline_type_regime_rest_r2, ORANGE),
        ("Session type", checkpoint.baseline_type_rest_r2, PURPLE),
        ("True archetype", checkpoint.true_archetype_rest_r2, SKY),
    )
    outcomes = [*_OUTCOMES, *(field for field in RestR2.__struct_fields__ if field not in _OUTCOMES)]
    with drawing():
        figure = new_figure(CHART_WIDTH + 80, 720)
        axes = figure.subplots()
        axes.axvline(0, color=GREY, linewidth=0.9)
        for i, (title, r2, color) in enumerate(who):
            values = [getattr(r2, outcome) for outcome in outcomes]
            places = [place + (i - 1.5) * 0.2 for place in range(len(outcomes))]
            axes.barh(places, [max(_LOWEST_R2, value or 0.0) for value in values], 0.18, color=color, label=title)
            for place, value in zip(places, values, strict=True):
                _write_r2(axes, place, value)
        axes.set_yticks(range(len(outcomes)), [_OUTCOMES.get(outcome) or phase_name(outcome) for outcome in outcomes])
        axes.get_yticklabels()[0].set_fontweight("bold")
        axes.axhline(0.5, color=GREY, linewidth=0.7)
        low, high = axes.get_xlim()
        axes.set(ylim=(len(outcomes) - 0.45, -0.55), xlim=(min(low, -0.08) * 1.15, max(high * 1.12, 0.1)))
        axes.set_xlabel("R² of the rest of the session: 0 knows no more than the mean, 1 all")
        return finished(figure, axes, name, "R2 of each outcome of the rest of the session", checkpoint.n > 0, grid="x")


def month_chart(groups: Mapping[str, Group], name: str) -> Markup:
    """Draw accuracy by month beside the baseline, with the number of sessions."""
    judged = [(month, group) for month, group in sorted(groups.items()) if group.n]
    with drawing():
        figure = new_figure(CHART_WIDTH, 300)
        axes, counts = figure.subplots(2, 1, sharex=True, height_ratios=[3.2, 1])
        places = range(len(judged))
        baseline = [group.baseline_type_regime_accuracy for _, group in judged]
        axes.plot(places, baseline, color=ORANGE, marker="s", markersize=4, linewidth=1.3, label="Type × regime")
        model = [group.accuracy for _, group in judged]
        axes.plot(places, model, color=BLUE, marker="o", markersize=6, linewidth=1.8, label="Model")
        axes.set_ylabel("accuracy")
        percent_axis(axes)
        axes.tick_params(labelbottom=False)
        counts.bar(places, [group.n for _, group in judged], 0.6, color=SKY)
        counts.set_ylabel("sessions")
        counts.yaxis.set_major_locator(MaxNLocator(2, integer=True))
        label_sparsely(counts, [as_label(month, 10) for month, _ in judged])
        tidy(counts)
        return finished(figure, axes, name, "Accuracy by month beside the baseline", bool(judged))


def session_type_chart(groups: Mapping[str, Group], name: str) -> Markup:
    """Draw accuracy by session type beside the baseline, the type with most sessions first."""
    judged = sorted(
        ((kind, group) for kind, group in groups.items() if group.n), key=lambda item: (-item[1].n, item[0])
    )
    return group_chart(judged, name, "Accuracy by session type beside the baseline")


def group_chart(judged: Sequence[tuple[str, Group]], name: str, description: str) -> Markup:
    """Draw the accuracy of groups beside the baseline, in the order given.

    Parameters
    ----------
    judged : sequence of (str, Group)
        Title and figures of each, at least one session in each.
    name, description : str
        As of `offline.report_svg.inline_svg`.
    """
    with drawing():
        figure = new_figure(CHART_WIDTH, max(180, 80 + 34 * len(judged)))
        axes = figure.subplots()
        for offset, title, color, values in (
            (-0.19, "Model", BLUE, [group.accuracy for _, group in judged]),
            (0.19, "Type × regime", ORANGE, [group.baseline_type_regime_accuracy for _, group in judged]),
        ):
            bars = axes.barh([i + offset for i in range(len(judged))], values, 0.36, color=color, label=title)
            axes.bar_label(bars, [percent(value) for value in values], fontsize=7, color=MUTED, padding=3)
        labels = [f"{as_label(kind, 18)} ({group.n})" for kind, group in judged]
        axes.set_yticks(range(len(judged)), labels)
        axes.set(
            xlim=(0, 1.1), ylim=(max(1, len(judged)) - 0.4, -0.6), xlabel="accuracy (number of sessions in brackets)"
        )
        axes.set_xticks([0, 0.25, 0.5, 0.75, 1])
        axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=" %"))
        return finished(figure, axes, name, description, bool(judged), grid="x")


def archetype_chart(report: Report, picture: ArchetypePicture, name: str) -> Markup:
    """Draw the price paths of an archetype, its range, and its phases beside all sessions'."""
    with drawing():
        figure = new_figure(CHART_WIDTH, 440)
        paths, spread, phases = figure.subplots(3, 1, height_ratios=[3.3, 0.35, 2])
        draw_paths(paths, picture, move_limit(report))
        draw_range(spread, picture, range_limit(report))
        draw_phases(phases, picture, report.overall_phase_rates)
        return inline_svg(figure, name=name, description="Price paths, range and phases of an archetype")


def _draw_with_intervals(axes: Axes, values: Sequence[float], intervals: Iterable[Interval], title: str) -> None:
    for place, interval in enumerate(intervals):
        axes.plot([place, place], [interval.low, interval.high], color=BLUE, linewidth=5, alpha=0.3)
    axes.plot(
        range(len(values)), values, color=BLUE, marker="o", markersize=7, linewidth=2, label=title,
        markeredgecolor=GROUND, zorder=3,
    )  # fmt: skip


def _draw_confusion_row(axes: Axes, row: int, counts: Sequence[int]) -> None:
    n = sum(counts)
    for column, count in enumerate(counts):
        share = count / n if n else 0.0
        axes.barh(row, 0.94, 0.9, left=column - 0.47, color=_HEAT(share), linewidth=0)
        # Not the ink of the page, which turns light in dark mode: the cells do not.
        color = "#ffffff" if share > 0.45 else "#000000"
        text = f"{share * 100:.0f}" if n else MISSING
        axes.text(column, row, text, ha="center", va="center_baseline", color=color, fontsize=8.5)
    axes.text(len(counts) - 0.4, row, f"{n:,}", va="center_baseline", color=MUTED, fontsize=8)


def percent_axis(axes: Axes) -> None:
    """Write the vertical axis, which is one of shares, in per cent."""
    # Steps of 2.5 would be rounded to uneven labels.
    axes.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10], min_n_ticks=3))
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=" %"))


def _write_r2(axes: Axes, place: float, value: float | None) -> None:
    if value is None:
        axes.text(0.004, place, MISSING, va="center_baseline", fontsize=6.5, color=MUTED)
    elif value < _LOWEST_R2:
        axes.text(
            _LOWEST_R2, place, f"{number(value, 2)} ", ha="right", va="center_baseline", fontsize=6.5, color=MUTED
        )


def _label_checkpoints(axes: Axes, keys: Sequence[str]) -> None:
    axes.set_xticks(range(len(keys)), [as_label(checkpoint_label(key), 10) for key in keys])
    axes.set_xlabel("of the session seen")
    axes.set_xlim(-0.35, max(1, len(keys)) - 0.65)


def label_sparsely(axes: Axes, labels: Sequence[str]) -> None:
    """Label every so many places, so that at most six labels stand side by side."""
    step = -(-len(labels) // 6) or 1
    axes.set_xticks(range(0, len(labels), step), labels[::step])


def finished(figure: Figure, axes: Axes, name: str, description: str, drawn: bool, *, grid: str = "y") -> Markup:
    """Return a chart with its legend, or where nothing was drawn a line that says so.

    Parameters
    ----------
    figure : Figure
    axes : Axes
        The one that is tidied.
    name, description : str
        As of `offline.report_svg.inline_svg`.
    drawn : bool
    grid : str
        As of `offline.report_svg.tidy`.
    """
    if drawn:
        tidy(axes, grid=grid)
        figure.legend(loc="outside upper left", ncols=3, columnspacing=1.4, handlelength=1.4, handletextpad=0.5)
    else:
        figure.clear()
        figure.set_figheight(1)
        say_nothing_to_draw(figure.subplots())
    return inline_svg(figure, name=name, description=description)
