"""Charts of a backtest beyond those of an evaluation: how right and how sure it was over time, and by hour."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from offline.backtest.results import GroupScores
from offline.report import Interval
from offline.report_charts import CHART_WIDTH, finished, group_chart, label_sparsely, percent_axis
from offline.report_svg import BLUE, GROUND, INK, ORANGE, SKY, VERMILION, as_label, drawing, new_figure, tidy

__all__ = ["accuracy_over_time", "coverage_over_time", "hour_chart"]


def accuracy_over_time(groups: Mapping[str, GroupScores], name: str) -> Markup:
    """Draw the accuracy of each period with its interval, beside the mean confidence and the guess.

    Where the confidence lies outside the interval, the model was not as often right as it said.
    """
    with drawing():
        figure = new_figure(CHART_WIDTH, 330)
        axes, counts = figure.subplots(2, 1, sharex=True, height_ratios=[3.4, 1])
        found = list(groups.values())
        places = range(len(found))
        baseline = [group.scores.baseline_type_regime_accuracy for group in found]
        axes.plot(places, baseline, color=ORANGE, marker="s", markersize=4, linewidth=1.2, label="Type × regime")
        _draw_points(axes, found, lambda group: group.scores.accuracy, lambda group: group.accuracy_interval, "Right")
        said = [group.mean_confidence for group in found]
        axes.plot(places, said, color=VERMILION, linestyle=(0, (4, 2)), linewidth=1.6, label="Confidence")
        axes.set_ylabel("accuracy")
        percent_axis(axes)
        axes.tick_params(labelbottom=False)
        _draw_counts(counts, groups)
        return finished(figure, axes, name, "Accuracy and confidence over time", bool(found))


def coverage_over_time(groups: Mapping[str, GroupScores], name: str) -> Markup:
    """Draw how often the range ended within the 80 % band in each period, with its interval."""
    with drawing():
        figure = new_figure(CHART_WIDTH, 330)
        axes, counts = figure.subplots(2, 1, sharex=True, height_ratios=[3.4, 1])
        found = list(groups.values())
        axes.axhline(0.8, color=INK, linewidth=1, linestyle=(0, (4, 3)), label="meant: 80 %")
        _draw_points(
            axes,
            found,
            lambda group: group.scores.coverage_80 or 0.0,
            lambda group: group.coverage_80_interval,
            "Within P10 to P90",
        )
        axes.set_ylabel("coverage")
        percent_axis(axes)
        axes.tick_params(labelbottom=False)
        _draw_counts(counts, groups)
        return finished(figure, axes, name, "Coverage of the 80 % band over time", bool(found))


def hour_chart(groups: Mapping[str, GroupScores], name: str) -> Markup:
    """Draw accuracy by the hour of the prediction, beside the baseline."""
    judged = [(f"{hour}:00", group.scores) for hour, group in sorted(groups.items())]
    return group_chart(judged, name, "Accuracy by hour of the prediction beside the baseline")


def _draw_points(
    axes: Axes,
    groups: list[GroupScores],
    value_of: Callable[[GroupScores], float],
    interval_of: Callable[[GroupScores], Interval],
    title: str,
) -> None:
    for place, group in enumerate(groups):
        interval = interval_of(group)
        axes.plot([place, place], [interval.low, interval.high], color=BLUE, linewidth=4, alpha=0.3)
    values = [value_of(group) for group in groups]
    axes.plot(
        range(len(values)), values, color=BLUE, marker="o", markersize=6, linewidth=1.8, label=title,
        markeredgecolor=GROUND, zorder=3,
    )  # fmt: skip


def _draw_counts(axes: Axes, groups: Mapping[str, GroupScores]) -> None:
    axes.bar(range(len(groups)), [group.scores.n for group in groups.values()], 0.6, color=SKY)
    axes.set_ylabel("sessions")
    axes.yaxis.set_major_locator(MaxNLocator(2, integer=True))
    label_sparsely(axes, [as_label(period, 10) for period in groups])
    tidy(axes)
