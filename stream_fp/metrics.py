"""Prometheus instruments: latencies as histograms, and the books of each partition read when they are scraped.

Nothing here is global: a `Metrics` owns its registry. Per-partition counters and gauges are read from the workers at
scrape time, so the hot path pays nothing and the series of a revoked partition end with it.
"""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.gc_collector import GCCollector
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

from stream_fp.classifier import Classifier
from stream_fp.errors import RecordDecodeError, RecordInvalidError
from stream_fp.outcomes import Counts, Published
from stream_fp.stamps import IS_COMPILED

__all__ = ["Metrics", "PartitionView"]

#: From 50 us, where a classification lies, to the minute that a stuck broker takes.
LATENCY_BUCKETS_S: Final = (
    50e-6, 100e-6, 250e-6, 500e-6, 1e-3, 2.5e-3, 5e-3, 10e-3, 25e-3, 50e-3, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0,
)  # fmt: skip
CONFIDENCE_BUCKETS: Final = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
#: Read here, because reading it blocks: not to be done on an event loop.
_VERSION: Final = importlib.metadata.version("stream-fp")
#: There from the start, so that the first dead letter is seen as a step.
DEAD_LETTER_CLASSES: Final = (RecordDecodeError.__name__, RecordInvalidError.__name__)
#: Session types come with the input: those that the model does not know share one series.
OTHER_TYPE: Final = "other"


@dataclass(frozen=True, slots=True, kw_only=True)
class PartitionView:
    """What a scrape sees of one partition."""

    topic: str
    partition: int
    counts: Counts
    n_rebuilt: int
    n_open_sessions: int
    n_buffered_events: int
    n_buffered_bytes: int
    committed_lag: int | None
    """None until the end of the partition is known."""
    position_lag: int | None
    rebuild_left: int = 0
    """Records to read again before it speaks."""
    stalled_s: float = 0.0
    """For how long records have waited while none was taken."""


class Metrics:
    """All instruments of one service.

    Parameters
    ----------
    partitions : callable
        Returns a view of every partition owned now.
    is_alive : callable
        Returns whether `/healthz` would answer `ok`.
    """

    def __init__(
        self, partitions: Callable[[], Iterable[PartitionView]], *, is_alive: Callable[[], bool] = lambda: True
    ) -> None:
        self.registry = CollectorRegistry()
        self._partitions = partitions
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=self.registry)
        self.end_to_end = self._histogram(
            "prediction_latency", "From the timestamp of the triggering record to the acknowledged prediction."
        )
        self.extraction = self._histogram("extraction", "Computing the features of one session.")
        self.classification = self._histogram("classification", "Assigning one feature vector to an archetype.")
        self.decode = self._histogram("decode", "Decoding one record (one of each batch is timed).")
        self.publish = self._histogram("publish", "Publishing outcomes and progress, until acknowledged.")
        self.sidecar_write = self._histogram("sidecar_write", "Writing one sidecar file, until it is on disk.")
        self.artifact_load = self._histogram("artifact_load", "Loading and verifying the library.")
        self.rebuild = self._histogram("rebuild", "Rebuilding a partition's state after a start or a rebalance.")
        self.transaction_commit = self._histogram(
            "transaction_commit", "From the request to commit a transaction to the broker's answer."
        )
        self.transactions = Counter(
            "stream_fp_transactions", "Transactions by how they ended: those not committed are aborted, if late.",
            ["outcome"], registry=self.registry,
        )  # fmt: skip
        for outcome in ("committed", "aborted"):
            self.transactions.labels(outcome=outcome)
        self.confidence = Histogram(
            "stream_fp_confidence_ratio", "Confidence of the predictions published, by checkpoint.",
            ["checkpoint", "model_version"], buckets=CONFIDENCE_BUCKETS, registry=self.registry,
        )  # fmt: skip
        self.predictions_by_type = Counter(
            "stream_fp_session_type_predictions",
            "Predictions published, by session type; types that the model does not know are `other`.",
            ["session_type"], registry=self.registry,
        )  # fmt: skip
        self.trained_share = Gauge(
            "stream_fp_trained_archetype_ratio", "Share of the archetype among the sessions that were learned from.",
            ["archetype", "model_version"], registry=self.registry,
        )  # fmt: skip
        self.trained_confidence = Gauge(
            "stream_fp_trained_confidence_ratio",
            "Mean confidence to expect, by checkpoint, from sessions held out in training; missing where not known.",
            ["checkpoint", "model_version"], registry=self.registry,
        )  # fmt: skip
        self.build = Info("stream_fp_build", "Version of the service, and what it runs on.", registry=self.registry)
        self.build.info(
            {
                "version": _VERSION,
                "python": platform.python_version(),
                "engine": "compiled" if IS_COMPILED else "interpreted",
            }
        )
        self._session_types: frozenset[str] = frozenset()
        self.predictions = Counter(
            "stream_fp_predictions", "Predictions published.", ["archetype", "model_version"], registry=self.registry
        )
        self.commits = Counter("stream_fp_commits", "Commits of progress acknowledged.", registry=self.registry)
        self.publish_failures = Counter(
            "stream_fp_publish_failures", "Publishing attempts that failed and were started over.",
            registry=self.registry,
        )  # fmt: skip
        self.sidecar_failures = Counter(
            "stream_fp_sidecar_failures", "Attempts to write a sidecar or minidash that failed and were repeated.",
            registry=self.registry,
        )  # fmt: skip
        self.rebalances = Counter("stream_fp_rebalances", "Assignments received.", registry=self.registry)
        self.assigned = Gauge("stream_fp_assigned_partitions", "Partitions owned now.", registry=self.registry)
        self.tasks = Gauge(
            "stream_fp_event_loop_tasks", "Tasks of the event loop, a second ago at most.", registry=self.registry
        )
        healthy = Gauge("stream_fp_healthy", "1 while /healthz answers ok, else 0.", registry=self.registry)
        healthy.set_function(is_alive)
        self.model = Info("stream_fp_model", "The library in use.", registry=self.registry)
        self.registry.register(self)

    def follow(self, classifier: Classifier, checkpoints: Iterable[float] = ()) -> None:
        """Show the library in use and what to expect of it; checkpoints are those at which predictions are made."""
        library = classifier.library
        version = library.version
        self.model.info({"version": version, "fingerprint": library.fingerprint})
        self._session_types = frozenset(library.typical_events) | frozenset(library.schedules)
        n_sessions = sum(stats.n_sessions for stats in library.archetypes.values())
        # Series are there from the start, so that the first prediction is seen as a step.
        for checkpoint in checkpoints:
            self.confidence.labels(checkpoint=f"{checkpoint:g}", model_version=version)
        for session_type in (*self._session_types, OTHER_TYPE):
            self.predictions_by_type.labels(session_type=session_type)
        for archetype_id, stats in library.archetypes.items():
            self.predictions.labels(archetype=str(archetype_id), model_version=version)
            self.trained_share.labels(archetype=str(archetype_id), model_version=version).set(
                stats.n_sessions / n_sessions
            )
        if classifier.assignment == "prefix_model":
            for model in library.prefix_models:
                if model.typical_confidence is not None:
                    self.trained_confidence.labels(checkpoint=f"{model.checkpoint_pct:g}", model_version=version).set(
                        model.typical_confidence
                    )

    def published(self, outcome: Published) -> None:
        """Count a prediction that the broker has acknowledged."""
        prediction = outcome.prediction
        session_type = outcome.session_type if outcome.session_type in self._session_types else OTHER_TYPE
        metadata = prediction.classification_metadata
        self.predictions.labels(archetype=str(prediction.archetype_id), model_version=metadata.model_version).inc()
        self.predictions_by_type.labels(session_type=session_type).inc()
        checkpoint = f"{metadata.checkpoint_pct:g}"
        self.confidence.labels(checkpoint=checkpoint, model_version=metadata.model_version).observe(
            prediction.confidence
        )
        self.extraction.observe(outcome.extraction_ns / 1e9)
        self.classification.observe(outcome.classification_ns / 1e9)

    def _histogram(self, what: str, text: str) -> Histogram:
        return Histogram(f"stream_fp_{what}_seconds", text, buckets=LATENCY_BUCKETS_S, registry=self.registry)

    def describe(self) -> list[Metric]:
        """Name nothing in advance: the families depend on the partitions owned."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Yield the books of the partitions owned now."""
        labels = ["topic", "partition"]
        consumed = CounterMetricFamily("stream_fp_records_consumed", "Records taken from the partition.", labels=labels)
        applied = CounterMetricFamily("stream_fp_records_applied", "Records applied to a session.", labels=labels)
        dead = CounterMetricFamily(
            "stream_fp_records_dead_lettered", "Records sent to the dead-letter topic.", labels=[*labels, "class"]
        )
        ignored = CounterMetricFamily(
            "stream_fp_records_ignored", "Records that change nothing, by reason.", labels=[*labels, "reason"]
        )
        rebuilt = CounterMetricFamily(
            "stream_fp_records_rebuilt", "Records read again to rebuild state; not among those consumed.", labels=labels
        )
        opened = CounterMetricFamily("stream_fp_sessions_opened", "Sessions opened.", labels=labels)
        closed = CounterMetricFamily("stream_fp_sessions_closed", "Sessions closed.", labels=[*labels, "reason"])
        unpredicted = CounterMetricFamily(
            "stream_fp_checkpoints_unpredicted", "Checkpoints without a prediction.", labels=[*labels, "reason"]
        )
        gauges = {
            "n_open_sessions": GaugeMetricFamily("stream_fp_open_sessions", "Sessions open.", labels=labels),
            "n_buffered_events": GaugeMetricFamily("stream_fp_buffered_events", "Events held.", labels=labels),
            "n_buffered_bytes": GaugeMetricFamily(
                "stream_fp_buffered_bytes", "Memory of open sessions.", labels=labels
            ),
            "committed_lag": GaugeMetricFamily(
                "stream_fp_committed_lag_records", "Records from the committed low offset to the end.", labels=labels
            ),
            "position_lag": GaugeMetricFamily(
                "stream_fp_position_lag_records", "Records from the position to the end.", labels=labels
            ),
            "rebuild_left": GaugeMetricFamily(
                "stream_fp_rebuild_remaining_records", "Records to read before the partition speaks.", labels=labels
            ),
            "stalled_s": GaugeMetricFamily(
                "stream_fp_stalled_seconds", "For how long records have waited while none was taken.", labels=labels
            ),
        }
        for view in self._partitions():
            key = [view.topic, str(view.partition)]
            counts = view.counts
            consumed.add_metric(key, counts.consumed)
            applied.add_metric(key, counts.applied)
            rebuilt.add_metric(key, view.n_rebuilt)
            opened.add_metric(key, counts.sessions_opened)
            for family, by_reason in (
                (dead, dict.fromkeys(DEAD_LETTER_CLASSES, 0) | counts.dead_lettered),
                (ignored, counts.ignored),
                (closed, counts.sessions_closed),
                (unpredicted, counts.unpredicted),
            ):
                for reason, n in by_reason.items():
                    family.add_metric([*key, reason], n)
            for name, gauge in gauges.items():
                if (value := getattr(view, name)) is not None:
                    gauge.add_metric(key, value)
        yield from (consumed, applied, dead, ignored, rebuilt, opened, closed, unpredicted, *gauges.values())
