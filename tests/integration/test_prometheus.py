"""What an operator sees: a real Prometheus scrapes a real run, and every panel and rule finds what it asks for."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import datetime as dt
import json
import math
import re
import runpy
import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from offline.simulate import interleave, simulate_sessions
from tests.support.builders import tiny_metadata, tiny_stats, write_library
from tests.support.prometheus import RULE_TESTS, RULES, Prometheus, promtool
from tests.support.service import ServiceProcess, running_service
from tests.support.topics import Keyed, publish_all

GRAFANA: Final = Path(__file__).resolve().parents[2] / "deploy" / "grafana"
RUNBOOK: Final = Path(__file__).resolve().parents[2] / "docs" / "runbook.md"
BOARD: Final[dict[str, Any]] = json.loads((GRAFANA / "dashboards" / "stream-fp.json").read_text("utf-8"))
PANELS: Final = [panel for panel in BOARD["panels"] if panel["type"] != "row"]
ALERTS: Final = re.findall(r"- alert: (\w+)", RULES.read_text())


def test_rules_are_sound() -> None:
    checked = promtool("check", "rules", RULES)
    assert checked.returncode == 0, checked.stderr


@pytest.mark.parametrize("path", RULE_TESTS, ids=lambda path: path.stem)
def test_each_alert_fires_when_it_should_and_not_else(path: Path) -> None:
    tested = promtool("test", "rules", path)
    assert tested.returncode == 0, tested.stdout + tested.stderr


def test_each_alert_is_tested_both_ways_and_has_its_section_in_the_runbook() -> None:
    tests = "".join(path.read_text() for path in RULE_TESTS)
    assert len(ALERTS) == len(set(ALERTS)) >= 14
    for alert in ALERTS:
        cases = re.findall(rf"alertname: {alert}\n\s+exp_alerts:(.*)", tests)
        assert {bool(case.strip()) for case in cases} == {True, False}, alert
        assert f"docs/runbook.md#{alert.lower()}" in RULES.read_text()
    assert re.findall(r"^## (StreamFp\w+)$", RUNBOOK.read_text("utf-8"), re.MULTILINE) == ALERTS


def test_dashboard_is_what_its_code_makes() -> None:
    made = runpy.run_path(str(GRAFANA / "dashboard.py"))["dashboard"]()
    assert json.loads(json.dumps(made)) == BOARD, "run: make dashboard"


def test_panels_say_how_to_be_read_and_in_which_unit() -> None:
    assert len({panel["title"] for panel in PANELS}) == len(PANELS) > 25
    assert len({panel["id"] for panel in BOARD["panels"]}) == len(BOARD["panels"])
    for panel in PANELS:
        assert panel["description"].endswith("."), panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"]
        assert panel["targets"]
        assert panel["datasource"]["uid"] == "${source}"
        for alert in re.findall(r"StreamFp\w+", panel["description"]):
            assert alert in ALERTS
    cells = [
        (x, y)
        for panel in BOARD["panels"]
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]
    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) == 23


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """Two services of one group, one of which is started later, and who scrapes them."""

    broker: str
    topic: str
    model: Path
    folder: Path

    @property
    def arguments(self) -> tuple[str, ...]:
        return (
            "--session-fingerprinting", "--bootstrap-servers", self.broker, "--input-topic", self.topic,
            "--output-topic", f"{self.topic}-out", "--dead-letter-topic", f"{self.topic}-dlq", "--group-id",
            self.topic, "--model-path", str(self.model), "--sidecar-dir", str(self.folder / "sidecars"),
        )  # fmt: skip

    async def feed(self, seed: int, *, year: int = 2025, n_sessions: int = 30) -> None:
        """Publish whole sessions, some of them twice or with too few events, and records that cannot be used."""
        messages = interleave(simulate_sessions(n_sessions, seed=seed, first_date=dt.date(year, 1, 6)))
        sound = [(str(m["session_id"]).encode(), msgspec.json.encode(m)) for m in messages]
        thin = [_event(f"LUNCH_2031-01-{1 + seed:02}", minute) for minute in (1, 50)]
        dead: list[Keyed] = [(b"x", b"{"), (None, b"{}")] * 50
        await publish_all(self.broker, self.topic, [*sound, *sound[:40], *thin, *dead])

    async def fence(self, partition: int) -> None:
        """Start the producer that the service uses, as a rightful owner would."""
        producer = AIOKafkaProducer(
            bootstrap_servers=self.broker, transactional_id=f"{self.topic}-{self.topic}-{partition}"
        )
        await producer.start()
        await producer.stop()


def _event(session: str, minute: int) -> tuple[bytes, bytes]:
    stamp = f"{session.rpartition('_')[2]}T12:{minute:02}:00-05:00"
    value = {"session_id": session, "timestamp": stamp, "event_type": "expansion", "price": 100.0}
    return session.encode(), msgspec.json.encode(value)


@pytest.fixture
async def scene(broker: str, tmp_path: Path) -> Scene:
    metadata = tiny_metadata()
    metadata["prefix_models"][0]["typical_confidence"] = 0.62
    topic = f"watched-{uuid.uuid4().hex[:8]}"
    admin = AIOKafkaAdminClient(bootstrap_servers=broker)
    await admin.start()
    try:
        await admin.create_topics([NewTopic(topic, 2, 1)])
    finally:
        await admin.close()
    return Scene(
        broker=broker, topic=topic, model=write_library(tmp_path / "v0.0.1", metadata, tiny_stats()), folder=tmp_path
    )


def filled_in(expression: str) -> str:
    for name, text in (
        ("$__rate_interval", "1m"), ("$__range", "5m"), ("$job", "stream-fp"), ("$instance", ".*"), ("$topic", ".*"),
    ):  # fmt: skip
        expression = expression.replace(name, text)
    assert "$" not in expression
    return expression


def metrics_of(expression: str) -> set[str]:
    """Return the names of the metrics that an expression asks for."""
    return set(re.findall(r"\b(?:stream_fp_\w+|job\w*:[\w:]+|process_\w+|up)\b", expression))


async def has_values(prometheus: Prometheus, expression: str) -> bool:
    return any(not math.isnan(float(series["value"][1])) for series in await prometheus.query(expression))


@pytest.mark.timeout(240)
async def test_every_panel_and_rule_finds_series_alerts_fire_and_series_of_revoked_partitions_end(scene: Scene) -> None:
    async with contextlib.AsyncExitStack() as stack:
        first = await stack.enter_async_context(running_service(scene.folder / "first.log", *scene.arguments))
        await first.wait_ready()
        second = await stack.enter_async_context(running_service(scene.folder / "second.log", *scene.arguments))
        await second.kill()
        prometheus = await stack.enter_async_context(
            Prometheus(scene.folder, [f"127.0.0.1:{first.port}", f"127.0.0.1:{second.port}"])
        )
        await prometheus.wait_for('up{job="stream-fp"} == 1')
        for seed in range(3):
            await scene.feed(seed)
            await prometheus.wait_for(f"sum(stream_fp_predictions_total) > {20 * (seed + 1)}", 60)
        await scene.fence(0)
        await scene.feed(4)
        await prometheus.wait_for('sum(stream_fp_transactions_total{outcome="aborted"}) > 0', 60)
        await prometheus.wait_for("sum(stream_fp_position_lag_records) == 0", 60)

        checked = promtool("check", "metrics", given=(await first.get("/metrics"))[1])
        assert (checked.returncode, checked.stdout + checked.stderr) == (0, "")
        await _every_query_finds_something(prometheus)
        await prometheus.wait_for('ALERTS{alertname="StreamFpDeadLetters", alertstate="firing"}')
        await prometheus.wait_for('ALERTS{alertname="StreamFpDown", alertstate="firing"}')  # the second
        await _series_of_revoked_partitions_end(scene, prometheus, first)


@pytest.mark.timeout(300)
async def test_every_alert_fires_when_what_it_is_for_has_come(scene: Scene) -> None:
    """A real service is hurt in the way that each alert speaks of; only the windows of time are shorter."""
    metadata = tiny_metadata()
    for model in metadata["prefix_models"]:
        model["typical_confidence"] = 0.3
    await asyncio.to_thread(write_library, scene.folder / "other", metadata, tiny_stats())
    scene = dataclasses.replace(scene, model=scene.folder / "other")
    options = ("--stall-timeout-s", "2", "--stall-exit-s", "250", "--session-timeout-s", "6")
    async with contextlib.AsyncExitStack() as stack:
        service = await stack.enter_async_context(
            running_service(scene.folder / "service.log", *scene.arguments, *options)
        )
        await service.wait_ready()
        prometheus = await stack.enter_async_context(
            Prometheus(scene.folder, [f"127.0.0.1:{service.port}"], hurried=True)
        )
        await prometheus.wait_for('up{job="stream-fp"} == 1')

        fired = set()

        async def fires(*alerts: str) -> None:
            for alert in alerts:
                await prometheus.has_fired(f"StreamFp{alert}")
                fired.add(f"StreamFp{alert}")

        # A producer that stamps records with the time of their events, and sends what cannot be used.
        long_ago_ms = int(time.time() * 1000) - 10_000
        async with AIOKafkaProducer(bootstrap_servers=scene.broker) as producer:
            for seed in range(5):
                for message in interleave(simulate_sessions(30, seed=seed, first_date=dt.date(2025 + seed, 1, 6))):
                    key, value = str(message["session_id"]).encode(), msgspec.json.encode(message)
                    await producer.send(scene.topic, value, key=key, timestamp_ms=long_ago_ms)
            for _ in range(500):
                await producer.send(scene.topic, b"{", key=b"x")
        await fires(
            "DeadLetters", "LatencyBudgetFastBurn", "LatencyBudgetSlowBurn", "ConfidenceDrift", "ArchetypeDrift"
        )
        # The feeder has stopped.
        await fires("NoPredictions")
        for number in range(3):
            await scene.fence(0)
            await scene.fence(1)
            await scene.feed(11)
            await prometheus.wait_for(f'sum(stream_fp_transactions_total{{outcome="aborted"}}) > {2 * number + 1}', 60)
            await service.wait_ready()
            await prometheus.wait_for("sum(stream_fp_position_lag_records) == 0", 60)
        await fires("TransactionAborts")
        # Sidecars cannot be written any more, while more and more records come.
        sidecars = scene.folder / "sidecars"
        await asyncio.to_thread(sidecars.rename, scene.folder / "moved")
        await asyncio.to_thread(sidecars.write_text, "")
        await scene.feed(12, year=2040)
        await prometheus.wait_for("sum(stream_fp_position_lag_records) > 0", 60)
        for year in range(2041, 2045):
            await scene.feed(year, year=year, n_sessions=60)
        await fires("Stalled", "SidecarFailures", "LagGrowing")
        assert "cannot write sidecar" in (await service.get("/readyz"))[1]
        await asyncio.to_thread(sidecars.unlink)
        await prometheus.wait_for("sum(stream_fp_position_lag_records) == 0", 90)
        await service.kill()
        await fires("Down")
        for number in range(4):
            again = ("--http-port", str(service.port))
            log = scene.folder / f"again-{number}.log"
            async with running_service(log, *scene.arguments, *options, *again) as restarted:
                await prometheus.wait_for('up{job="stream-fp"} == 1')
                await asyncio.sleep(2.5)  # two scrapes
                await restarted.kill()
        await fires("RestartLoop")
        # The input topic is deleted.
        last = scene.folder / "last.log"
        async with running_service(last, *scene.arguments, *options, "--http-port", str(service.port)):
            await prometheus.wait_for("sum(stream_fp_assigned_partitions) == 2", 60)
            admin = AIOKafkaAdminClient(bootstrap_servers=scene.broker)
            await admin.start()
            try:
                await admin.delete_topics([scene.topic])
            finally:
                await admin.close()
            await fires("NoPartitions", "Unhealthy")
        assert fired == set(ALERTS)


async def _every_query_finds_something(prometheus: Prometheus) -> None:
    queries = [(panel["title"], filled_in(target["expr"])) for panel in PANELS for target in panel["targets"]]
    lacking = [query for query in queries if not await has_values(prometheus, query[1])]
    assert lacking == []
    rules = await prometheus.rules()
    assert len(rules) >= 20
    for rule in rules:
        assert rule["health"] == "ok", rule
        for metric in metrics_of(rule["query"]):
            assert await has_values(prometheus, metric), (rule["name"], metric)
        if rule["type"] == "recording":
            assert await has_values(prometheus, rule["name"]), rule["name"]


async def _series_of_revoked_partitions_end(scene: Scene, prometheus: Prometheus, first: ServiceProcess) -> None:
    own = f'count(stream_fp_records_consumed_total{{instance="127.0.0.1:{first.port}"}})'
    await prometheus.wait_for(f"{own} == 2")
    async with running_service(scene.folder / "third.log", *scene.arguments) as third:
        await third.wait_ready(90)
        await prometheus.wait_for(f"{own} == 1", 60)
        left = await prometheus.query(f'stream_fp_open_sessions{{instance="127.0.0.1:{first.port}"}}')
        assert len({series["metric"]["partition"] for series in left}) == 1
