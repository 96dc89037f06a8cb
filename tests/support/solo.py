"""One service on one partition, a session or two on its topic: what tests of trouble and recovery begin with."""

from __future__ import annotations

import asyncio
import json
import uuid
from dataclasses import dataclass
from pathlib import Path

import msgspec
from aiokafka.admin import AIOKafkaAdminClient

from tests.conftest import TopicFactory
from tests.support.builders import SESSION_ID, event, write_tiny_library
from tests.support.service import ServiceProcess
from tests.support.topics import Keyed, publish_all, read_all

__all__ = ["OTHER", "Setup", "delete_topic", "events", "identity", "keyed", "new_setup", "not_ready", "unhealthy"]

OTHER = "LUNCH_2025-07-29"


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """Topics of one test, of one partition, and what points a service at them."""

    broker: str
    topic: str
    output_topic: str
    model: Path
    log: Path

    @property
    def arguments(self) -> tuple[str, ...]:
        return (
            "--session-fingerprinting", "--bootstrap-servers", self.broker, "--input-topic", self.topic,
            "--output-topic", self.output_topic, "--dead-letter-topic", f"{self.output_topic}-dlq",
            "--group-id", f"group-{self.topic}", "--model-path", str(self.model), "--sidecar-dir", "",
            "--session-timeout-s", "6",
        )  # fmt: skip

    async def publish(self, *messages: dict[str, object]) -> None:
        await publish_all(self.broker, self.topic, [keyed(message) for message in messages])

    async def predictions(self) -> list[tuple[str, float, str]]:
        """Return session, checkpoint and model version of all predictions, in their order."""
        return [identity(record.value) for record in await read_all(self.broker, self.output_topic)]


def keyed(message: dict[str, object]) -> Keyed:
    return str(message["session_id"]).encode(), msgspec.json.encode(message)


def identity(value: bytes) -> tuple[str, float, str]:
    prediction = json.loads(value)
    how = prediction["classification_metadata"]
    return prediction["session_id"], how["checkpoint_pct"], how["model_version"]


def events(first: int, last: int, session_id: str = SESSION_ID) -> list[dict[str, object]]:
    return [event(session_id, minute=minute) for minute in range(first, last)]


async def new_setup(broker: str, topic_factory: TopicFactory, folder: Path) -> Setup:
    """Make an input topic and a model; the service makes the other topics."""
    return Setup(
        broker=broker,
        topic=await topic_factory(1, prefix="session-events"),
        output_topic=f"fingerprints-{uuid.uuid4().hex[:8]}",
        model=write_tiny_library(folder / "v0.0.1"),
        log=folder / "log",
    )


async def delete_topic(broker: str, topic: str) -> None:
    """Delete a topic."""
    admin = AIOKafkaAdminClient(bootstrap_servers=broker)
    await admin.start()
    await admin.delete_topics([topic])
    await admin.close()


async def unhealthy(service: ServiceProcess) -> str:
    """Wait until /healthz says that something is wrong, and return where."""
    async with asyncio.timeout(30):
        while (answer := await service.get("/healthz"))[0] != 503:
            assert service.process.returncode is None, service.output()
            await asyncio.sleep(0.1)
    return answer[1].partition(":")[0]


async def not_ready(service: ServiceProcess, because: str) -> None:
    """Wait until /readyz says why it is not ready."""
    async with asyncio.timeout(45):
        while True:
            status, body = await service.get("/readyz")
            if status == 503 and because in body:
                return
            assert service.process.returncode is None, service.output()
            await asyncio.sleep(0.05)
