"""The Grafana dashboard, as code: writes ``dashboards/stream-fp.json``, which is committed and provisioned.

    python deploy/grafana/dashboard.py

Rows go from what an operator looks at first to what explains it. Each panel has a unit, says how to be read, and asks
for series that the service exports or that ``prometheus/rules`` records.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

__all__ = ["dashboard"]

OUTPUT: Final = Path(__file__).parent / "dashboards" / "stream-fp.json"

Json = dict[str, Any]
#: The service's own series, and those of its partitions.
OWN: Final = 'job="$job", instance=~"$instance"'
PART: Final = f'{OWN}, topic=~"$topic"'
RATE: Final = "$__rate_interval"
WIDTH: Final = 24
_SOURCE: Final = {"type": "prometheus", "uid": "${source}"}
_GREEN, _AMBER, _RED = "green", "orange", "red"


def dashboard() -> Json:
    """Return the dashboard in Grafana's JSON model."""
    layout = _Layout()
    _at_a_glance(layout)
    _latency(layout)
    _records(layout)
    _predictions(layout)
    _trouble(layout)
    _process(layout)
    return {
        "uid": "stream-fp",
        "title": "stream_fp",
        "description": "Live fingerprints of trading sessions: is it healthy, is it on time, and what does it say?",
        "tags": ["stream-fp", "kafka"],
        "schemaVersion": 39,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "10s",
        "time": {"from": "now-1h", "to": "now"},
        "timezone": "browser",
        "templating": {"list": _variables()},
        "annotations": {
            "list": [
                {
                    "name": "Starts of the service",
                    "datasource": _SOURCE,
                    "enable": True,
                    "iconColor": "blue",
                    "expr": f"changes(process_start_time_seconds{{{OWN}}}[1m]) > 0",
                    "titleFormat": "started",
                }
            ]
        },
        "panels": layout.panels,
    }


class _Layout:
    """Places panels from left to right, and rows below each other."""

    def __init__(self) -> None:
        self.panels: list[Json] = []
        self._x = self._y = self._height = 0

    def row(self, title: str) -> None:
        self._break()
        self._put({"type": "row", "title": title, "collapsed": False, "panels": []}, WIDTH, 1)
        self._break()

    def add(
        self, kind: str, title: str, text: str, unit: str, queries: dict[str, str], *, width: int = 8, height: int = 8,
        options: Json | None = None, defaults: Json | None = None, heat: bool = False,
    ) -> None:  # fmt: skip
        """Add a panel; `queries` are expressions by legend."""
        targets = [
            {
                "refId": chr(ord("A") + place),
                "datasource": _SOURCE,
                "expr": expression,
                "legendFormat": legend,
                "range": kind not in {"stat", "bargauge"},
                "instant": kind in {"stat", "bargauge"},
                **({"format": "heatmap"} if heat else {}),
            }
            for place, (legend, expression) in enumerate(queries.items())
        ]
        panel = {
            "type": kind,
            "title": title,
            "description": text,
            "datasource": _SOURCE,
            "targets": targets,
            "fieldConfig": {"defaults": {"unit": unit, **(defaults or {})}, "overrides": []},
            "options": options if options is not None else _LEGEND,
        }
        self._put(panel, width, height)

    def _put(self, panel: Json, width: int, height: int) -> None:
        if self._x + width > WIDTH:
            self._break()
        place = {"x": self._x, "y": self._y, "w": width, "h": height}
        self.panels.append({"id": len(self.panels) + 1, "gridPos": place, **panel})
        self._x += width
        self._height = max(self._height, height)

    def _break(self) -> None:
        self._x, self._y, self._height = 0, self._y + self._height, 0


_LEGEND: Final[Json] = {
    "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True},
    "tooltip": {"mode": "multi", "sort": "desc"},
}
_STAT: Final[Json] = {
    "colorMode": "background", "graphMode": "none", "reduceOptions": {"calcs": ["lastNotNull"]}, "textMode": "auto",
}  # fmt: skip
_BARS: Final[Json] = {"displayMode": "basic", "orientation": "horizontal", "reduceOptions": {"calcs": ["lastNotNull"]}}
_STACKED: Final[Json] = {"custom": {"stacking": {"mode": "normal"}, "fillOpacity": 40}, "min": 0}
_FROM_ZERO: Final[Json] = {"custom": {"fillOpacity": 10}, "min": 0}


def _limits(*steps: tuple[str, float | None]) -> Json:
    return {
        "thresholds": {"mode": "absolute", "steps": [{"color": color, "value": value} for color, value in steps]},
        "color": {"mode": "thresholds"},
    }


def _variables() -> list[Json]:
    def query(name: str, label: str, text: str, *, several: bool) -> Json:
        return {
            "name": name, "label": label, "type": "query", "datasource": _SOURCE, "query": text, "definition": text,
            "refresh": 2, "sort": 1, "multi": several, "includeAll": several, "allValue": ".*" if several else None,
            **({"current": {"text": ["All"], "value": ["$__all"]}} if several else {}),
        }  # fmt: skip

    return [
        {"name": "source", "label": "Prometheus", "type": "datasource", "query": "prometheus", "refresh": 1},
        query("job", "Job", "label_values(stream_fp_build_info, job)", several=False),
        query("instance", "Instance", 'label_values(stream_fp_build_info{job="$job"}, instance)', several=True),
        query("topic", "Topic", 'label_values(stream_fp_records_consumed_total{job="$job"}, topic)', several=True),
    ]


def _at_a_glance(layout: _Layout) -> None:
    layout.row("At a glance")
    small: Json = {"width": 4, "height": 4, "options": _STAT}
    layout.add(
        "stat", "Instances up and healthy",
        "Instances that were scraped, and those whose /healthz answers ok. Fewer than you run: StreamFpDown and "
        "StreamFpUnhealthy in the runbook.",
        "none",
        {"up": 'sum(up{job="$job", instance=~"$instance"})', "healthy": f"sum(stream_fp_healthy{{{OWN}}})"},
        defaults=_limits((_RED, None), (_GREEN, 1)), **small,
    )  # fmt: skip
    layout.add(
        "stat", "Partitions owned", "Over all instances. Should be the partitions of the input topics.",
        "none", {"partitions": f"sum(stream_fp_assigned_partitions{{{OWN}}})"},
        defaults=_limits((_RED, None), (_GREEN, 1)), **small,
    )  # fmt: skip
    layout.add(
        "stat", "Records waiting", "From its position to the end. Growing: StreamFpLagGrowing in the runbook.",
        "short", {"records": f"sum(stream_fp_position_lag_records{{{PART}}})"},
        defaults=_limits((_GREEN, None), (_AMBER, 1000), (_RED, 10_000)), **small,
    )  # fmt: skip
    layout.add(
        "stat", "Error budget left, this range",
        "The objective is that 99 % of predictions are acknowledged within 50 ms of their record; 100 % is all of the "
        "budget of the time shown, below 0 % more was used than there is.",
        "percentunit",
        {
            "left": "1 - (1 - "
            f'sum(increase(stream_fp_prediction_latency_seconds_bucket{{{OWN}, le="0.05"}}[$__range]))'
            f" / sum(increase(stream_fp_prediction_latency_seconds_count{{{OWN}}}[$__range]))) / 0.01"
        },
        defaults=_limits((_RED, None), (_AMBER, 0), (_GREEN, 0.5)), **small,
    )  # fmt: skip
    layout.add(
        "stat", "Predictions, this range", "Published and acknowledged in the time shown.",
        "short", {"predictions": f"sum(increase(stream_fp_predictions_total{{{OWN}}}[$__range]))"},
        defaults=_limits(("blue", None)), **small,
    )  # fmt: skip
    layout.add(
        "stat", "Model", "Version of the library in use. Several at once: a roll-out under way.",
        "none", {"{{version}}": f"count by (version) (stream_fp_model_info{{{OWN}}})"},
        defaults=_limits(("blue", None)), width=4, height=4, options={**_STAT, "textMode": "name"},
    )  # fmt: skip


def _latency(layout: _Layout) -> None:
    layout.row("On time")
    bucket = "stream_fp_prediction_latency_seconds_bucket"
    layout.add(
        "timeseries", "From record to acknowledged prediction",
        "Quantiles of the time from the record that triggered a prediction to the broker's acknowledgement. The line "
        "at 50 ms is the objective for 99 of 100. Gaps are times without predictions.",
        "s",
        {
            f"p{text}": f"histogram_quantile({quantile}, sum by (le) (rate({bucket}{{{OWN}}}[{RATE}])))"
            for text, quantile in (("50", 0.5), ("90", 0.9), ("99", 0.99))
        },
        width=12, defaults={**_FROM_ZERO, "custom": {"thresholdsStyle": {"mode": "line"}},
                            "thresholds": {"mode": "absolute", "steps": [{"color": "transparent", "value": None},
                                                                         {"color": _RED, "value": 0.05}]}},
    )  # fmt: skip
    layout.add(
        "heatmap", "The same, all of them",
        "Predictions by how long they took: the darker, the more. Two bands at once are two causes.",
        "s", {"{{le}}": f"sum by (le) (increase({bucket}{{{OWN}}}[{RATE}]))"}, width=12, heat=True,
        options={"calculate": False, "cellGap": 1, "color": {"mode": "scheme", "scheme": "Blues"},
                 "yAxis": {"unit": "s"}, "legend": {"show": True}, "tooltip": {"mode": "single", "yHistogram": True}},
    )  # fmt: skip
    layout.add(
        "timeseries", "Where the time goes, p99",
        "Features and classification are this process's own; publishing is the whole transaction, of which the commit "
        "is the broker's answer. Sidecars are written before.",
        "s",
        {
            name: f"histogram_quantile(0.99, sum by (le) (rate(stream_fp_{series}_seconds_bucket{{{OWN}}}[{RATE}])))"
            for name, series in (
                ("decode one record", "decode"), ("features", "extraction"), ("classification", "classification"),
                ("write sidecar", "sidecar_write"), ("publish", "publish"), ("commit", "transaction_commit"),
            )
        },
        width=24, defaults={"custom": {"scaleDistribution": {"type": "log", "log": 10}}},
    )  # fmt: skip


def _records(layout: _Layout) -> None:
    layout.row("Records and state")
    layout.add(
        "timeseries", "Records taken", "Records a second, by topic, and those read again after a start or rebalance.",
        "ops",
        {
            "{{topic}}": f"sum by (topic) (rate(stream_fp_records_consumed_total{{{PART}}}[{RATE}]))",
            "read again": f"sum(rate(stream_fp_records_rebuilt_total{{{PART}}}[{RATE}]))",
        },
        defaults=_FROM_ZERO,
    )  # fmt: skip
    layout.add(
        "timeseries", "Records waiting, by partition",
        "From where the service stands to the end: this is how late it is, and what to scale on.",
        "short", {"{{topic}}[{{partition}}]": f"sum by (topic, partition) (stream_fp_position_lag_records{{{PART}}})"},
        defaults=_FROM_ZERO,
    )  # fmt: skip
    layout.add(
        "timeseries", "Standing still, by partition",
        "For how long records have waited while none was taken. Over a minute: StreamFpStalled in the runbook.",
        "s", {"{{topic}}[{{partition}}]": f"max by (topic, partition) (stream_fp_stalled_seconds{{{PART}}})"},
        defaults=_FROM_ZERO,
    )  # fmt: skip
    layout.add(
        "timeseries", "Records from the committed offset, by partition",
        "The committed offset is the first record of the oldest open session, so this is what a restart reads again, "
        "not how late the service is. It is what Kafka's own tools call lag.",
        "short", {"{{topic}}[{{partition}}]": f"sum by (topic, partition) (stream_fp_committed_lag_records{{{PART}}})"},
        defaults=_FROM_ZERO,
    )  # fmt: skip
    layout.add(
        "timeseries", "Open sessions", "Sessions that have begun and not ended, told or not.",
        "short", {"{{topic}}": f"sum by (topic) (stream_fp_open_sessions{{{PART}}})"}, defaults=_FROM_ZERO,
    )  # fmt: skip
    layout.add(
        "timeseries", "Events held", "Memory of open sessions, bounded by `max_buffered_bytes` a partition.",
        "bytes", {"{{topic}}": f"sum by (topic) (stream_fp_buffered_bytes{{{PART}}})"}, defaults=_FROM_ZERO,
    )  # fmt: skip
    layout.add(
        "timeseries", "Left to rebuild, by partition",
        "Records that a partition reads again before it speaks. Should fall to 0 within seconds of a start.",
        "short",
        {"{{topic}}[{{partition}}]": f"sum by (topic, partition) (stream_fp_rebuild_remaining_records{{{PART}}})"},
        defaults=_FROM_ZERO,
    )  # fmt: skip


def _predictions(layout: _Layout) -> None:
    layout.row("What it says")
    total = f"sum(increase(stream_fp_predictions_total{{{OWN}}}[$__range]))"
    layout.add(
        "timeseries", "Predictions, by archetype", "In each interval of the time shown.",
        "short", {"archetype {{archetype}}":
                  f"sum by (archetype) (increase(stream_fp_predictions_total{{{OWN}}}[{RATE}]))"}, defaults=_STACKED,
    )  # fmt: skip
    layout.add(
        "timeseries", "Predictions, by session type",
        "Types that the model has not learned from are `other`; many of them, and it guesses from less than it could.",
        "short", {"{{session_type}}":
                  f"sum by (session_type) (increase(stream_fp_session_type_predictions_total{{{OWN}}}[{RATE}]))"},
        defaults=_STACKED,
    )  # fmt: skip
    layout.add(
        "heatmap", "Confidence", "Predictions by confidence: the darker, the more.",
        "percentunit", {"{{le}}": f"sum by (le) (increase(stream_fp_confidence_ratio_bucket{{{OWN}}}[{RATE}]))"},
        heat=True,
        options={"calculate": False, "cellGap": 1, "color": {"mode": "scheme", "scheme": "Greens"},
                 "yAxis": {"unit": "percentunit"}, "legend": {"show": True}, "tooltip": {"mode": "single"}},
    )  # fmt: skip
    layout.add(
        "timeseries", "Mean confidence, seen and expected",
        "Over the time shown, beside that of sessions held out in training (older libraries do not say it). Far "
        "apart for a day: StreamFpConfidenceDrift in the runbook.",
        "percentunit",
        {
            "seen at {{checkpoint}} %":
                f"sum by (checkpoint) (increase(stream_fp_confidence_ratio_sum{{{OWN}}}[$__range]))"
                f" / sum by (checkpoint) (increase(stream_fp_confidence_ratio_count{{{OWN}}}[$__range]))",
            "expected at {{checkpoint}} %": f"max by (checkpoint) (stream_fp_trained_confidence_ratio{{{OWN}}})",
        },
        defaults={"min": 0, "max": 1},
    )  # fmt: skip
    layout.add(
        "bargauge", "Archetypes, seen", "Share of each in the predictions of the time shown.",
        "percentunit", {"{{archetype}}":
                        f"sum by (archetype) (increase(stream_fp_predictions_total{{{OWN}}}[$__range]))"
                        f" / ignoring(archetype) group_left () {total}"},
        width=4, options=_BARS, defaults={"min": 0, "max": 1},
    )  # fmt: skip
    layout.add(
        "bargauge", "Archetypes, learned", "Share of each among the sessions that were learned from.",
        "percentunit", {"{{archetype}}": f"max by (archetype) (stream_fp_trained_archetype_ratio{{{OWN}}})"},
        width=4, options=_BARS, defaults={"min": 0, "max": 1},
    )  # fmt: skip
    layout.add(
        "timeseries", "Distance of the mix from training",
        "Half the sum of the differences in share, of a day: 0 is the same mix. Above 0.35: StreamFpArchetypeDrift "
        "in the runbook.",
        "percentunit", {"distance": 'job_model_version:stream_fp_archetype_mix:distance1d{job="$job"}'},
        defaults={"min": 0, "max": 1},
    )  # fmt: skip


def _trouble(layout: _Layout) -> None:
    layout.row("Trouble")
    layout.add(
        "timeseries", "Dead letters, by class",
        "Records that cannot be used, and go to the dead-letter topic with the reason in their headers: "
        "StreamFpDeadLetters in the runbook.",
        "short", {"{{class}}": f"sum by (class) (increase(stream_fp_records_dead_lettered_total{{{PART}}}[{RATE}]))"},
        defaults=_STACKED,
    )  # fmt: skip
    layout.add(
        "timeseries", "Records ignored, by reason",
        "Records that change nothing: late, repeated, or of a session that is over. Not an error by itself.",
        "short", {"{{reason}}": f"sum by (reason) (increase(stream_fp_records_ignored_total{{{PART}}}[{RATE}]))"},
        defaults=_STACKED,
    )  # fmt: skip
    layout.add(
        "timeseries", "Checkpoints without a prediction, by reason",
        "Sessions that reached their checkpoint and were not told, most often with too few events.",
        "short",
        {"{{reason}}": f"sum by (reason) (increase(stream_fp_checkpoints_unpredicted_total{{{PART}}}[{RATE}]))"},
        defaults=_STACKED,
    )  # fmt: skip
    layout.add(
        "timeseries", "Transactions", "By how they ended. Aborted: StreamFpTransactionAborts in the runbook.",
        "ops", {"{{outcome}}": f"sum by (outcome) (rate(stream_fp_transactions_total{{{OWN}}}[{RATE}]))"},
        defaults=_FROM_ZERO,
    )  # fmt: skip
    layout.add(
        "timeseries", "Commit of a transaction", "From the request to the broker's answer.",
        "s",
        {
            f"p{text}": f"histogram_quantile({quantile}, "
            f"sum by (le) (rate(stream_fp_transaction_commit_seconds_bucket{{{OWN}}}[{RATE}])))"
            for text, quantile in (("50", 0.5), ("99", 0.99))
        },
        defaults=_FROM_ZERO,
    )  # fmt: skip
    layout.add(
        "timeseries", "Rebalances and failures",
        "Assignments received, publishing started over, sidecars written again. A rebalance a deploy is usual.",
        "short",
        {
            name: f"sum(increase(stream_fp_{series}_total{{{OWN}}}[{RATE}]))"
            for name, series in (
                ("rebalances", "rebalances"), ("publishing failed", "publish_failures"),
                ("sidecar failed", "sidecar_failures"),
            )
        },
        defaults=_FROM_ZERO,
    )  # fmt: skip


def _process(layout: _Layout) -> None:
    layout.row("Process")
    for title, text, unit, series in (
        ("Processor", "Cores used. One core is the most: the engine is one thread.", "none",
         f"sum by (instance) (rate(process_cpu_seconds_total{{{OWN}}}[{RATE}]))"),
        ("Memory", "Resident memory. Open sessions are the part that grows.", "bytes",
         f"sum by (instance) (process_resident_memory_bytes{{{OWN}}})"),
        ("Open files", "File descriptors: connections to brokers, most of them.", "none",
         f"sum by (instance) (process_open_fds{{{OWN}}})"),
        ("Garbage collections", "Full ones stop the process for some milliseconds; they should be rare.", "ops",
         f"sum by (instance) (rate(python_gc_collections_total{{{OWN}}}[{RATE}]))"),
    ):  # fmt: skip
        layout.add("timeseries", title, text, unit, {"{{instance}}": series}, width=6, height=6, defaults=_FROM_ZERO)


def main() -> None:
    """Write the file."""
    OUTPUT.write_text(json.dumps(dashboard(), indent=2, ensure_ascii=False) + "\n", "utf-8")


if __name__ == "__main__":
    main()
