from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from prometheus_client import generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

from stream_fp.classifier import Classifier
from stream_fp.engine import Engine
from stream_fp.library import load_library
from stream_fp.metrics import CONFIDENCE_BUCKETS, LATENCY_BUCKETS_S, Metrics, PartitionView
from stream_fp.outcomes import Counts, Published
from tests.support.builders import (
    end,
    event,
    make_engine,
    record,
    records,
    run,
    start,
    tiny_library,
    tiny_metadata,
    tiny_stats,
    write_library,
)

TOPIC = "session-events"
BOOKS = ("consumed", "applied", "dead_lettered", "ignored", "rebuilt")


def view(partition: int, counts: Counts | None = None, /, **numbers: int) -> PartitionView:
    gauges = (
        "n_rebuilt", "n_open_sessions", "n_buffered_events", "n_buffered_bytes", "committed_lag", "position_lag",
        "stalled_s",
    )  # fmt: skip
    return PartitionView(
        topic=TOPIC,
        partition=partition,
        counts=counts if counts is not None else Counts(),
        **{name: numbers.get(name, 0) for name in gauges},
    )


def families(metrics: Metrics) -> dict[str, Metric]:
    """Return the metric families of a scrape, by name."""
    return {
        family.name: family for family in text_string_to_metric_families(generate_latest(metrics.registry).decode())
    }


def value(metrics: Metrics, sample: str, **labels: str) -> float:
    """Return the sum of the samples of that name that have these labels."""
    return sum(
        found.value
        for family in families(metrics).values()
        for found in family.samples
        if found.name == sample and labels.items() <= found.labels.items()
    )


def used_engine() -> Engine:
    """Return an engine that has met a record of every fate."""
    engine = make_engine(max_events_per_session=40)
    stream = [
        *records([start(), *(event(minute=i) for i in range(46)), end("LONDON_2025-07-29"), end()]),
        *records([start("NY_AM_2025-07-30"), event("NY_AM_2025-07-30", minute=25 * 60)], first_offset=50),
        record(60, b"{broken", key=b"x"),
        record(61, event(None, 3)),
        record(62, b"[]", key=b"x"),
    ]
    run(engine, stream)
    return engine


def view_of(engine: Engine, partition: int) -> PartitionView:
    return view(
        partition,
        engine.counts,
        n_open_sessions=engine.n_open_sessions,
        n_buffered_events=engine.n_buffered_events,
        n_buffered_bytes=engine.n_buffered_bytes,
    )


def knowing(folder: Path, *, typical_confidence: float | None = None, **settings: Any) -> Classifier:  # noqa: ANN401
    """Return a classifier whose library knows what confidence to expect."""
    metadata = tiny_metadata()
    metadata["prefix_models"][0]["typical_confidence"] = typical_confidence
    return Classifier(load_library(write_library(folder / "v0.0.1", metadata, tiny_stats())), **settings)


@pytest.fixture
def full(tmp_path: Path) -> Metrics:
    """Return instruments of which each has a series."""
    engine = used_engine()
    metrics = Metrics(lambda: [view_of(engine, 0), view_of(engine, 7)])
    metrics.follow(knowing(tmp_path, typical_confidence=0.62))
    metrics.predictions.labels(archetype="1", model_version="1").inc()
    metrics.predictions_by_type.labels(session_type="ny_am").inc()
    metrics.confidence.labels(checkpoint="30", model_version="1").observe(0.5)
    return metrics


# ---------------------------------------------------------------------------------------------------------- the books


def test_books_of_each_partition_reconcile_in_the_exposition(full: Metrics) -> None:
    for partition in ("0", "7"):
        consumed, applied, dead, ignored, _ = (
            value(full, f"stream_fp_records_{book}_total", topic=TOPIC, partition=partition) for book in BOOKS
        )
        assert consumed == 54
        assert consumed == applied + dead + ignored
        assert dead > 0
        assert ignored > 0


def test_books_tell_every_reason_apart(full: Metrics) -> None:
    counts = used_engine().counts
    where = {"topic": TOPIC, "partition": "7"}
    assert len(counts.dead_lettered) == 2
    assert len(counts.ignored) >= 2
    for name, n in counts.dead_lettered.items():
        assert value(full, "stream_fp_records_dead_lettered_total", **where, **{"class": name}) == n
    for name, n in counts.ignored.items():
        assert value(full, "stream_fp_records_ignored_total", **where, reason=name) == n
    for name, n in counts.sessions_closed.items():
        assert value(full, "stream_fp_sessions_closed_total", **where, reason=name) == n
    for name, n in counts.unpredicted.items():
        assert value(full, "stream_fp_checkpoints_unpredicted_total", **where, reason=name) == n
    assert value(full, "stream_fp_sessions_opened_total", **where) == counts.sessions_opened


@pytest.mark.parametrize(
    ("field", "sample"),
    [
        ("n_rebuilt", "stream_fp_records_rebuilt_total"),
        ("n_open_sessions", "stream_fp_open_sessions"),
        ("n_buffered_events", "stream_fp_buffered_events"),
        ("n_buffered_bytes", "stream_fp_buffered_bytes"),
        ("committed_lag", "stream_fp_committed_lag_records"),
        ("position_lag", "stream_fp_position_lag_records"),
        ("stalled_s", "stream_fp_stalled_seconds"),
    ],
)
def test_number_of_a_view_is_shown_under_its_name(field: str, sample: str) -> None:
    metrics = Metrics(lambda: [view(3, None, **{field: 11}), view(4)])
    assert value(metrics, sample, topic=TOPIC, partition="3") == 11
    assert value(metrics, sample, topic=TOPIC, partition="4") == 0
    shown = {found.name for family in families(metrics).values() for found in family.samples if found.value == 11}
    assert shown == {sample}


def test_health_is_asked_when_it_is_scraped() -> None:
    answers = [False, True]
    metrics = Metrics(list, is_alive=answers.pop)
    assert [value(metrics, "stream_fp_healthy") for _ in range(2)] == [1, 0]


def test_books_are_read_when_they_are_scraped() -> None:
    counts = Counts()
    metrics = Metrics(lambda: [view(0, counts)])
    assert value(metrics, "stream_fp_records_consumed_total") == 0
    counts.consumed += 5
    assert value(metrics, "stream_fp_records_consumed_total") == 5


def test_series_of_a_partition_end_when_it_is_no_longer_owned() -> None:
    engine = used_engine()
    owned = [view_of(engine, 0), view_of(engine, 7)]
    metrics = Metrics(lambda: owned)

    def partitions() -> set[str]:
        samples = (sample for family in families(metrics).values() for sample in family.samples)
        return {sample.labels["partition"] for sample in samples if "partition" in sample.labels}

    assert partitions() == {"0", "7"}
    del owned[0]
    assert partitions() == {"7"}
    owned.clear()
    assert partitions() == set()


# ---------------------------------------------------------------------------------------------------- the instruments


def test_names_are_ours_or_those_of_the_process(full: Metrics) -> None:
    assert [name for name in families(full) if not re.match(r"stream_fp_|process_|python_", name)] == []


def test_names_are_well_formed_in_base_units_and_counters_end_in_total(full: Metrics) -> None:
    ours = {name: family for name, family in families(full).items() if name.startswith("stream_fp_")}
    assert len(ours) >= 25
    for name, family in ours.items():
        assert re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)*", name)
        assert family.documentation.endswith(".") or name.endswith("_created")
        assert not re.search(
            r"_(ms|us|ns|millis|milliseconds|micros|minutes|hours|kb|mb|kilobytes|percent|pct)(_|$)", name
        )
        samples = {sample.name for sample in family.samples}
        if family.type == "counter":
            assert samples == {f"{name}_total"}
        elif family.type == "histogram":
            assert name.endswith(("_seconds", "_ratio"))
            assert samples == {f"{name}_{part}" for part in ("bucket", "sum", "count")}
        elif family.type == "gauge":
            assert samples in ({name}, {f"{name}_info"})
            assert not name.endswith("_total")
        else:
            pytest.fail(f"{name} is a {family.type}")


def test_labels_are_few_and_none_is_a_session(full: Metrics) -> None:
    samples = [s for name, f in families(full).items() if name.startswith("stream_fp_") for s in f.samples]
    assert {label for sample in samples for label in sample.labels} == {
        "topic", "partition", "class", "reason", "archetype", "le", "version", "fingerprint", "checkpoint",
        "session_type", "outcome", "python", "engine", "model_version",
    }  # fmt: skip
    texts = {text for sample in samples for text in sample.labels.values()}
    assert not [text for text in texts if "2025-07" in text]


@pytest.mark.parametrize(
    "instrument",
    ["end_to_end", "extraction", "classification", "decode", "publish", "sidecar_write", "artifact_load", "rebuild"],
)
def test_latency_is_counted_in_seconds(instrument: str) -> None:
    metrics = Metrics(list)
    before = families(metrics)
    getattr(metrics, instrument).observe(0.0002)
    changed = {
        name: {sample.name.removeprefix(name): sample.value for sample in family.samples if sample.labels == {}}
        for name, family in families(metrics).items()
        if name.startswith("stream_fp_") and family.samples != before[name].samples
    }
    ((name, samples),) = changed.items()
    assert name.endswith("_seconds")
    assert samples == {"_sum": pytest.approx(0.0002), "_count": 1.0}
    assert value(metrics, f"{name}_bucket", le="0.0001") == 0.0
    assert value(metrics, f"{name}_bucket", le="0.00025") == 1.0


def test_buckets_are_fine_below_five_milliseconds_and_reach_the_minute() -> None:
    assert list(LATENCY_BUCKETS_S) == sorted(set(LATENCY_BUCKETS_S))
    assert len([bucket for bucket in LATENCY_BUCKETS_S if bucket < 5e-3]) >= 5
    assert LATENCY_BUCKETS_S[-1] >= 60


@pytest.mark.parametrize(
    ("instrument", "sample"),
    [
        ("commits", "stream_fp_commits_total"),
        ("publish_failures", "stream_fp_publish_failures_total"),
        ("sidecar_failures", "stream_fp_sidecar_failures_total"),
        ("rebalances", "stream_fp_rebalances_total"),
    ],
)
def test_counter_starts_at_zero_so_that_its_first_step_is_seen(instrument: str, sample: str) -> None:
    metrics = Metrics(list)
    assert sample in generate_latest(metrics.registry).decode()
    assert value(metrics, sample) == 0
    getattr(metrics, instrument).inc()
    assert value(metrics, sample) == 1


def test_predictions_are_counted_by_archetype_and_the_model_is_named(full: Metrics) -> None:
    full.predictions.labels(archetype="2", model_version="1").inc(3)
    assert value(full, "stream_fp_predictions_total", archetype="1") == 1
    assert value(full, "stream_fp_predictions_total", archetype="2") == 3
    assert value(full, "stream_fp_model_info", version="0.0.1") == 1


def test_library_shows_what_is_to_be_expected_of_it(tmp_path: Path) -> None:
    classifier = knowing(tmp_path, typical_confidence=0.62, assignment="prefix_model")
    library = classifier.library
    metrics = Metrics(list)
    metrics.follow(classifier)
    assert value(metrics, "stream_fp_model_info", version=library.version, fingerprint=library.fingerprint) == 1
    shares = {str(id_): stats.n_sessions for id_, stats in library.archetypes.items()}
    for archetype, n in shares.items():
        found = value(metrics, "stream_fp_trained_archetype_ratio", archetype=archetype)
        assert found == pytest.approx(n / sum(shares.values()))
        assert value(metrics, "stream_fp_predictions_total", archetype=archetype) == 0
    (checkpoint,) = {f"{model.checkpoint_pct:g}" for model in library.prefix_models if model.typical_confidence}
    assert value(metrics, "stream_fp_trained_confidence_ratio", checkpoint=checkpoint) == 0.62


@pytest.mark.parametrize(("assignment", "confidence"), [("full_centroid", 0.62), ("prefix_model", None)])
def test_confidence_to_expect_is_said_only_where_it_is_known(
    tmp_path: Path, assignment: str, confidence: float | None
) -> None:
    metrics = Metrics(list)
    metrics.follow(knowing(tmp_path, typical_confidence=confidence, assignment=assignment))
    assert families(metrics)["stream_fp_trained_confidence_ratio"].samples == []


def test_series_are_there_before_the_first_of_them_so_that_it_is_seen_as_a_step(tmp_path: Path) -> None:
    metrics = Metrics(lambda: [view(0)])
    metrics.follow(Classifier(tiny_library(tmp_path / "v0.0.1")), [30.0, 40.0])
    assert value(metrics, "stream_fp_confidence_ratio_count", checkpoint="40") == 0
    assert value(metrics, "stream_fp_session_type_predictions_total", session_type="other") == 0
    for name in ("RecordDecodeError", "RecordInvalidError"):
        assert value(metrics, "stream_fp_records_dead_lettered_total", **{"class": name}) == 0


def test_published_predictions_are_counted_by_type_and_confidence_and_strange_types_are_one(tmp_path: Path) -> None:
    metrics = Metrics(list)
    classifier = Classifier(tiny_library(tmp_path / "v0.0.1"))
    metrics.follow(classifier)
    assert "ny_am" in classifier.library.schedules
    engine = make_engine()
    stream = records([start(), *(event(minute=i) for i in range(120))])
    (outcome,) = [one for sent in stream for one in engine.process(sent) if isinstance(one, Published)]
    assert outcome.session_type == "ny_am"
    metrics.published(outcome)
    for n in range(1000):
        metrics.published(msgspec.structs.replace(outcome, session_type=f"strange-{n}"))
    by_type = families(metrics)["stream_fp_session_type_predictions"].samples
    counted = {sample.labels["session_type"]: sample.value for sample in by_type if sample.value}
    assert counted == {"ny_am": 1, "other": 1000}
    assert value(metrics, "stream_fp_predictions_total", archetype=str(outcome.prediction.archetype_id)) == 1001
    confidence = outcome.prediction.confidence
    above = [bucket for bucket in CONFIDENCE_BUCKETS if bucket >= confidence]
    assert value(metrics, "stream_fp_confidence_ratio_bucket", checkpoint="30", le=str(above[0])) == 1001
    assert value(metrics, "stream_fp_confidence_ratio_sum", checkpoint="30") == pytest.approx(1001 * confidence)


def test_two_services_in_one_process_do_not_share_instruments() -> None:
    one, other = Metrics(list), Metrics(lambda: [view(0)])
    one.commits.inc()
    assert value(other, "stream_fp_commits_total") == 0
    assert families(one).keys() == families(other).keys()


@pytest.mark.parametrize("owned", [list, lambda: [view(0)]], ids=["none", "one"])
def test_exposition_without_events_parses(owned: Callable[[], Iterable[PartitionView]]) -> None:
    metrics = Metrics(owned)
    metrics.assigned.set(1)
    found = families(metrics)
    assert found.keys() >= {"process_resident_memory_bytes", "python_info", "stream_fp_assigned_partitions"}
