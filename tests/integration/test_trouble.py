"""Trouble that comes while the service runs, and passes: not ready, it says why, loses nothing and goes on by itself.

Disks are real ones, full or read-only, which takes the right to mount them; so are the broker's refusals.
"""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._config import AlterConfigOpType, ConfigEntry, ConfigResource
from confluent_kafka.admin._resource import ResourceType

from stream_fp.sinks.sidecar import session_dir_name
from tests.conftest import TopicFactory
from tests.support.builders import SESSION_ID
from tests.support.kafka_jars import BrokerUnavailableError, fetch_jars, find_java
from tests.support.lacking import lacking
from tests.support.service import running_service
from tests.support.solo import OTHER, Setup, delete_topic, events, new_setup, not_ready
from tests.support.topics import consumed, read_all

#: Soon enough for a test, and a broker's own refusals take less.
PATIENCE = ("--transaction-timeout-s", "4", "--request-timeout-s", "4")
ROOM_KB = 64


@pytest.fixture
async def setup(broker: str, topic_factory: TopicFactory, tmp_path: Path) -> Setup:
    return await new_setup(broker, topic_factory, tmp_path)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small disk of its own."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if sys.platform != "linux" or not mounted("-t", "tmpfs", "-o", f"size={ROOM_KB}k", "tmpfs", str(folder)):
        lacking("a small disk takes Linux and the right to mount it", required_by="STREAM_FP_REQUIRE_MOUNT")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def mounted(*arguments: str) -> bool:
    return subprocess.run(["mount", *arguments], capture_output=True, check=False).returncode == 0


async def told(setup: Setup, n: int) -> list[bytes]:
    """Wait until there are so many predictions, and a moment longer for what should not come; return all."""
    async with asyncio.timeout(60):
        while len(await read_all(setup.broker, setup.output_topic)) < n:
            await asyncio.sleep(0.2)
    await asyncio.sleep(0.5)
    return [record.value for record in await read_all(setup.broker, setup.output_topic)]


# ------------------------------------------------------------------------------------------------------------- sidecars


def fill(disk: Path) -> None:
    with pytest.raises(OSError, match="No space left"):
        (disk / "filler").write_bytes(bytes(2 * ROOM_KB * 1024))


def make_room(disk: Path) -> None:
    (disk / "filler").unlink()


def make_read_only(disk: Path) -> None:
    assert mounted("-o", "remount,ro", str(disk))


def make_writable(disk: Path) -> None:
    assert mounted("-o", "remount,rw", str(disk))


@pytest.mark.parametrize(
    ("harm", "mend", "words"),
    [(fill, make_room, "No space left on device"), (make_read_only, make_writable, "Read-only file system")],
    ids=["full", "read-only"],
)
async def test_disk_for_sidecars_holds_the_partition_until_it_can_be_written_again(
    setup: Setup, disk: Path, harm: Callable[[Path], None], mend: Callable[[Path], None], words: str
) -> None:
    async with running_service(setup.log, *setup.arguments, "--sidecar-dir", str(disk / "sidecars")) as service:
        await service.wait_ready()
        await setup.publish(*events(0, 20))
        await consumed(service, 20)
        harm(disk)
        await setup.publish(*events(20, 60))
        await not_ready(service, f"cannot write sidecar or minidash: [Errno {28 if harm is fill else 30}] {words}")
        assert await service.total("stream_fp_sidecar_failures_total") >= 1
        assert await read_all(setup.broker, setup.output_topic) == []
        assert (await service.get("/healthz"))[0] == 200  # a restart would not help; after a while it is tried
        mend(disk)
        await service.wait_ready()
        (prediction,) = await told(setup, 1)
        assert await service.terminate() == 0
    folder = disk / "sidecars" / session_dir_name(SESSION_ID)
    assert [path.read_bytes() for path in folder.iterdir()] == [prediction]


async def test_folder_of_sidecars_that_vanishes_is_made_anew(setup: Setup, tmp_path: Path) -> None:
    folder = tmp_path / "sidecars"
    async with running_service(setup.log, *setup.arguments, "--sidecar-dir", str(folder)) as service:
        await service.wait_ready()
        await setup.publish(*events(0, 60))
        await told(setup, 1)
        shutil.rmtree(folder)
        await setup.publish(*events(150, 175, OTHER))
        (_, prediction) = await told(setup, 2)
        assert await service.terminate() == 0
    (sidecar,) = (path for path in folder.rglob("*") if path.is_file())
    assert sidecar.read_bytes() == prediction


# -------------------------------------------------------------------------------------------------------------- library


async def test_library_that_is_changed_changes_nothing_until_the_next_start_refuses_it(setup: Setup) -> None:
    async with running_service(setup.log, *setup.arguments) as service:
        await service.wait_ready()
        await setup.publish(*events(0, 20))
        await consumed(service, 20)
        metadata, stats = setup.model / "metadata.json", setup.model / "cluster_stats.json"
        metadata.write_text(metadata.read_text().replace('"0.0.1"', '"6.6.6"'))
        stats.write_text("{}")
        await setup.publish(*events(20, 60))
        await told(setup, 1)
        assert await service.terminate() == 0
    assert await setup.predictions() == [(SESSION_ID, 30.0, "0.0.1")]
    async with running_service(setup.log, *setup.arguments) as service:
        assert await asyncio.wait_for(service.process.wait(), 30) == 2
    assert "cluster_stats.json: expected SHA-256" in service.output().splitlines()[-1]
    shutil.rmtree(setup.model)
    async with running_service(setup.log, *setup.arguments) as service:
        assert await asyncio.wait_for(service.process.wait(), 30) == 2
    assert await setup.predictions() == [(SESSION_ID, 30.0, "0.0.1")]


# --------------------------------------------------------------------------------------------------------- output topic


@pytest.fixture
def admin(broker: str) -> AdminClient:
    return AdminClient({"bootstrap.servers": broker, "log_level": 3})


def set_for_topic(admin: AdminClient, topic: str, name: str, value: str) -> None:
    entry = ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[entry])
    for done in admin.incremental_alter_configs([resource]).values():
        done.result(20)


async def test_output_topic_that_takes_no_record_of_the_size_holds_the_partition_until_it_does(
    setup: Setup, topic_factory: TopicFactory, admin: AdminClient
) -> None:
    await topic_factory(1, name=setup.output_topic, settings={"max.message.bytes": "300"})
    async with running_service(setup.log, *setup.arguments, *PATIENCE) as service:
        await service.wait_ready()
        await setup.publish(*events(0, 60))
        await not_ready(service, "starting over after MessageSizeTooLargeError")
        assert await read_all(setup.broker, setup.output_topic) == []
        assert await service.total("stream_fp_publish_failures_total") >= 1
        set_for_topic(admin, setup.output_topic, "max.message.bytes", "1048588")
        await service.wait_ready()
        assert len(await told(setup, 1)) == 1
        assert await service.terminate() == 0
    assert "Traceback" not in service.output()


async def test_output_topic_that_is_deleted_holds_the_partition_until_it_is_made_anew(
    setup: Setup, topic_factory: TopicFactory
) -> None:
    async with running_service(setup.log, *setup.arguments, *PATIENCE) as service:
        await service.wait_ready()
        await setup.publish(*events(0, 20))
        await consumed(service, 20)
        await delete_topic(setup.broker, setup.output_topic)
        await setup.publish(*events(20, 60))
        await not_ready(service, "starting over after")
        await topic_factory(1, name=setup.output_topic)
        await service.wait_ready()
        assert len(await told(setup, 1)) == 1
        assert await service.terminate() == 0
    assert "Traceback" not in service.output()


async def test_broker_that_throttles_slows_it_down_and_loses_nothing(setup: Setup) -> None:
    ids = [f"NY_AM_2025-07-{day:02d}" for day in range(1, 29)]
    # The group is also what its clients call themselves.
    with Throttled(setup.broker, f"group-{setup.topic}", bytes_per_s=1_500):
        async with running_service(setup.log, *setup.arguments) as service:
            await service.wait_ready()
            # What a client sends beyond its quota is taken, and what it sends then has to wait.
            await setup.publish(*(message for name in ids[:14] for message in dated(name)))
            await told(setup, 14)
            took_s = await service.total("stream_fp_publish_seconds_sum")
            await setup.publish(*(message for name in ids[14:] for message in dated(name)))
            predictions = await told(setup, len(ids))
            assert await service.total("stream_fp_publish_seconds_sum") - took_s > 1
            assert (await service.get("/healthz"))[0] == 200
            assert await service.terminate() == 0
    assert len(predictions) == len(set(predictions)) == len(ids)
    assert "Traceback" not in service.output()


def dated(session_id: str) -> list[dict[str, object]]:
    day = session_id[-10:]
    return [
        {**message, "timestamp": str(message["timestamp"]).replace("2025-07-29", day)}
        for message in events(0, 50, session_id)
    ]


class Throttled:
    """Limits what clients of a name may send, as long as it lasts; a context manager."""

    def __init__(self, broker: str, client_id: str, *, bytes_per_s: int) -> None:
        whose = ["--entity-type", "clients", "--entity-name", client_id]
        self._command = ["--bootstrap-server", broker, "--alter", *whose]
        self._limit = str(bytes_per_s)

    def __enter__(self) -> None:
        self._call("--add-config", f"producer_byte_rate={self._limit}")

    def __exit__(self, *_: object) -> None:
        self._call("--delete-config", "producer_byte_rate")

    def _call(self, *options: str) -> None:
        try:
            java, jars = find_java(), fetch_jars()
        except BrokerUnavailableError as error:
            lacking(f"Kafka's own command that sets quotas: {error}", required_by="STREAM_FP_REQUIRE_BROKER")
        command = [java, "-cp", f"{jars}/*", "kafka.admin.ConfigCommand", *self._command, *options]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
