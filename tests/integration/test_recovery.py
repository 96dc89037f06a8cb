"""Coming back: with other settings, another model, lost offsets, or not at all; and replaying what lies on a topic."""

from __future__ import annotations

import asyncio
import sys
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import pytest
from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete

from offline.simulate import interleave, simulate_sessions
from stream_fp.config import Settings
from stream_fp.errors import StalledError
from stream_fp.health import Health
from stream_fp.kafka import clients
from stream_fp.kafka.told import OWED_HEADER
from stream_fp.service import Service
from stream_fp.watch import ProgressWatch
from tests.conftest import TopicFactory
from tests.support.builders import SESSION_ID, tiny_metadata, tiny_stats, write_library
from tests.support.service import running_service, start_service
from tests.support.solo import OTHER, Setup, delete_topic, events, identity, new_setup, unhealthy
from tests.support.topics import consumed, consumed_up_to_end, publish_all, read_all


@pytest.fixture
async def setup(broker: str, topic_factory: TopicFactory, tmp_path: Path) -> Setup:
    return await new_setup(broker, topic_factory, tmp_path)


def library_of_version(folder: Path, version: str) -> Path:
    return write_library(
        folder, {**tiny_metadata(), "model_version": version}, {**tiny_stats(), "model_version": version}
    )


async def run_to_the_end(setup: Setup, *arguments: str) -> None:
    async with running_service(setup.log, *setup.arguments, *arguments) as service:
        await service.wait_ready()
        await consumed_up_to_end(service)
        assert await service.terminate() == 0, service.output()


# ---------------------------------------------------------------------------------------------- other settings or model


async def test_session_whose_new_checkpoint_lies_behind_is_told_at_once_and_never_again(setup: Setup) -> None:
    # 45 % seen of the one (30 % is at minute 44.7, 40 % at 59.6, 50 % at 74.5), nothing of the other yet.
    await setup.publish(*events(0, 68))
    await run_to_the_end(setup, "--checkpoints", "50")
    assert await setup.predictions() == []
    # No record comes meanwhile: what is owed does not wait for one.
    await run_to_the_end(setup, "--checkpoints", "30,40")
    owed = [(SESSION_ID, 30.0, "0.0.1"), (SESSION_ID, 40.0, "0.0.1")]
    assert await setup.predictions() == owed
    records = await read_all(setup.broker, setup.output_topic)
    assert all(dict(record.headers)[OWED_HEADER] == b"1" for record in records)
    # What it says is what a replay with the new settings says.
    assert [record.value for record in records] == await replay_of(setup, "--checkpoints", "30,40")
    for checkpoints in ("30,40", "25,35", "30"):
        await run_to_the_end(setup, "--checkpoints", checkpoints)
    assert await setup.predictions() == owed
    # A checkpoint still ahead is reached in the usual way.
    await setup.publish(*events(68, 80))
    await run_to_the_end(setup, "--checkpoints", "30,50")
    assert await setup.predictions() == [*owed, (SESSION_ID, 50.0, "0.0.1")]


async def test_other_model_does_not_repeat_what_sessions_were_told_and_tells_the_others(
    setup: Setup, tmp_path: Path
) -> None:
    await setup.publish(*events(0, 50), *events(150, 160, OTHER))
    await run_to_the_end(setup)
    assert await setup.predictions() == [(SESSION_ID, 30.0, "0.0.1")]
    other = replace(setup, model=library_of_version(tmp_path / "v0.0.2", "0.0.2"))
    await run_to_the_end(other)
    assert await setup.predictions() == [(SESSION_ID, 30.0, "0.0.1")]
    await setup.publish(*events(50, 60), *events(160, 175, OTHER))
    await run_to_the_end(other)
    assert await setup.predictions() == [(SESSION_ID, 30.0, "0.0.1"), (OTHER, 30.0, "0.0.2")]


async def test_change_while_new_records_wait_repeats_nothing_then_or_at_the_next_start(setup: Setup) -> None:
    await setup.publish(*events(0, 68), {"kind": "session_start", "session_id": "X_2025-07-29"})
    await run_to_the_end(setup, "--checkpoints", "50")
    # All of it comes in one fetch with the records that are read again.
    bad = [(SESSION_ID.encode(), b"{")] * 3
    await setup.publish(*events(68, 72), *events(150, 190, OTHER))
    await publish_all(setup.broker, setup.topic, bad)
    for _ in range(3):
        await run_to_the_end(setup, "--checkpoints", "30,40")
    told = await setup.predictions()
    assert sorted(told) == [(who, pct, "0.0.1") for who in (OTHER, SESSION_ID) for pct in (30.0, 40.0)]
    assert len(await read_all(setup.broker, f"{setup.output_topic}-dlq")) == 3


async def test_rollback_after_a_crash_amid_a_change_of_settings_repeats_nothing(setup: Setup) -> None:
    declared: dict[str, object] = {
        "kind": "session_start", "session_id": SESSION_ID, "session_metadata": {"expected_events": 30},
    }  # fmt: skip
    await setup.publish(declared, *events(0, 20))
    await run_to_the_end(setup, "--completion", "schedule")
    assert await setup.predictions() == []
    # What is owed by the new settings is published, and the process dies before it has said so.
    program = (sys.executable, "-m", "tests.support.dying_service")
    service = await start_service(setup.log, *setup.arguments, "--completion", "declared", program=program)
    assert await asyncio.wait_for(service.process.wait(), 60) == 9
    told = [(SESSION_ID, 30.0, "0.0.1")]
    assert await setup.predictions() == told
    # The former settings are put back; by these the session crosses only now.
    await setup.publish(*events(20, 60))
    await run_to_the_end(setup, "--completion", "schedule")
    assert await setup.predictions() == told


async def test_session_told_early_by_the_former_settings_is_not_told_again_even_after_further_restarts(
    setup: Setup,
) -> None:
    declared: dict[str, object] = {
        "kind": "session_start",
        "session_id": SESSION_ID,
        "session_metadata": {"expected_events": 30},
    }
    await setup.publish(declared, *events(0, 12))
    await run_to_the_end(setup)  # 30 % of 30 events
    told = [(SESSION_ID, 30.0, "0.0.1")]
    assert await setup.predictions() == told
    await run_to_the_end(setup, "--completion", "schedule")  # by which 30 % is at minute 44.7
    await setup.publish(*events(12, 20))
    await run_to_the_end(setup, "--completion", "schedule")
    await setup.publish(*events(20, 60))
    await run_to_the_end(setup, "--completion", "schedule")
    assert await setup.predictions() == told
    # Sessions that began after the change have nothing to do with it.
    await setup.publish(*events(150, 200, OTHER))
    await run_to_the_end(setup, "--completion", "schedule")
    assert await setup.predictions() == [*told, (OTHER, 30.0, "0.0.1")]


async def test_session_that_ended_under_the_former_settings_is_owed_nothing(setup: Setup) -> None:
    await setup.publish(*events(0, 50, OTHER), *events(0, 50), {"kind": "session_end", "session_id": SESSION_ID})
    await run_to_the_end(setup, "--min-events", "1000")
    await run_to_the_end(setup)
    assert await setup.predictions() == []


# --------------------------------------------------------------------------------------------------------- lost offsets


async def test_consumer_back_after_its_offset_has_gone_says_so_and_ends(setup: Setup) -> None:
    await setup.publish(*events(0, 20))
    await run_to_the_end(setup)
    await setup.publish(*events(20, 30))
    admin = AIOKafkaAdminClient(bootstrap_servers=setup.broker)
    await admin.start()
    await admin.delete_records({TopicPartition(setup.topic, 0): RecordsToDelete(before_offset=25)})
    await admin.close()
    async with running_service(setup.log, *setup.arguments) as service:
        assert await asyncio.wait_for(service.process.wait(), 30) == 1
        last = service.output().strip().splitlines()[-1]
        assert last.startswith(
            f"stream-fp: {setup.topic}[0]: the committed offset 0 is gone, the oldest record kept is 25"
        )
        assert "offset_lost" in last
        assert "Traceback" not in service.output()
    await run_to_the_end(setup, "--offset-lost", "earliest")


# --------------------------------------------------------------------------------------------------------------- stalls


async def test_topic_made_anew_stops_the_start_instead_of_publishing_all_again(
    setup: Setup, topic_factory: TopicFactory
) -> None:
    await setup.publish(*events(0, 50))
    await run_to_the_end(setup)
    await delete_topic(setup.broker, setup.topic)
    await topic_factory(1, name=setup.topic)
    await setup.publish(*events(0, 50))
    async with running_service(setup.log, *setup.arguments) as service:
        assert await asyncio.wait_for(service.process.wait(), 30) == 1
        last = service.output().strip().splitlines()[-1]
        assert "has no committed offset, although it has published the prediction of record 45" in last
    assert len(await setup.predictions()) == 1
    await run_to_the_end(setup, "--offset-lost", "earliest")
    assert len(await setup.predictions()) == 2  # as was asked for


async def test_other_group_may_publish_to_the_same_output_topic(setup: Setup) -> None:
    await setup.publish(*events(0, 50))
    await run_to_the_end(setup)
    await run_to_the_end(setup, "--group-id", f"other-{setup.topic}")
    assert len(await setup.predictions()) == 2


async def test_transaction_time_out_above_the_brokers_limit_is_refused(setup: Setup) -> None:
    async with running_service(setup.log, *setup.arguments, "--transaction-timeout-s", "2000000") as service:
        assert await asyncio.wait_for(service.process.wait(), 30) == 1
        assert "setting `transaction_timeout_s`" in service.output().strip().splitlines()[-1]
        assert "Traceback" not in service.output()


async def test_input_topic_that_has_gone_is_reported_and_ends_the_service(setup: Setup) -> None:
    arguments = ("--stall-timeout-s", "2", "--stall-exit-s", "6")
    async with running_service(setup.log, *setup.arguments, *arguments) as service:
        await service.wait_ready()
        await delete_topic(setup.broker, setup.topic)
        assert await asyncio.wait_for(service.process.wait(), 90) == 1
        assert f"topic `{setup.topic}` (setting `input_topic`) has not existed for" in service.output()


async def test_partition_that_cannot_be_published_is_reported_and_ends_the_service(setup: Setup) -> None:
    arguments = (
        "--stall-timeout-s", "2", "--stall-exit-s", "8", "--transaction-timeout-s", "2", "--request-timeout-s", "2",
    )  # fmt: skip
    async with running_service(setup.log, *setup.arguments, *arguments) as service:
        await service.wait_ready()
        await setup.publish(*events(0, 20))
        await consumed(service, 20)
        assert (await service.get("/healthz"))[0] == 200
        await delete_topic(setup.broker, setup.output_topic)
        await setup.publish(*events(20, 60))
        assert await unhealthy(service) == f"{setup.topic}[0]"
        assert await asyncio.wait_for(service.process.wait(), 60) == 1
        last = service.output().strip().splitlines()[-1]
        assert last.startswith("stream-fp: giving up after 8 s (setting `stall_exit_s`)")
        assert f"{setup.topic}[0]: no progress for" in last
        assert "Traceback" not in service.output()
    # Whoever starts it anew gets on with it.
    await run_to_the_end(setup)
    assert await setup.predictions() == [(SESSION_ID, 30.0, "0.0.1")]


async def test_partition_whose_sidecars_cannot_be_written_ends_the_service_and_is_not_left_without_an_owner(
    setup: Setup, tmp_path: Path
) -> None:
    folder = tmp_path / "sidecars"
    arguments = (*setup.arguments, "--sidecar-dir", str(folder), "--stall-timeout-s", "2", "--stall-exit-s", "8")
    async with running_service(setup.log, *arguments) as service:
        await service.wait_ready()
        folder.write_text("in the way")
        await setup.publish(*events(0, 60))
        assert await unhealthy(service) == f"{setup.topic}[0]"
        assert await service.total("stream_fp_stalled_seconds", partition="0") >= 2
        assert await service.total("stream_fp_healthy") == 0
        assert await service.total("stream_fp_assigned_partitions") == 1
        assert await asyncio.wait_for(service.process.wait(), 30) == 1
        assert "cannot write sidecar" in service.output().strip().splitlines()[-1]
    folder.unlink()
    async with running_service(setup.log, *arguments) as service:
        await service.wait_ready()
        await consumed_up_to_end(service)
        assert await service.total("stream_fp_stalled_seconds") == 0
        assert await service.total("stream_fp_healthy") == 1
    assert await setup.predictions() == [(SESSION_ID, 30.0, "0.0.1")]


async def test_consumer_that_left_its_group_because_it_took_nothing_comes_again(
    setup: Setup, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It leaves later than the service ends, so this takes a shorter poll interval than there ever is."""
    monkeypatch.setattr(clients, "_POLL_INTERVAL", 0.01)  # of `stall_exit_s`, 300 s
    folder = tmp_path / "sidecars"
    settings = Settings(
        enabled=True, bootstrap_servers=setup.broker, input_topic=setup.topic, output_topic=setup.output_topic,
        dead_letter_topic=f"{setup.output_topic}-dlq", group_id=f"group-{setup.topic}", model_path=str(setup.model),
        sidecar_dir=str(folder), http_host="127.0.0.1", http_port=0, session_timeout_s=6.0,
    )  # fmt: skip
    async with asyncio.timeout(90), Service(settings) as service:
        stop = asyncio.Event()
        running = asyncio.create_task(service.run(stop))
        while service.health.not_ready:
            await asyncio.sleep(0.05)
        folder.write_text("in the way")
        await setup.publish(*events(0, 60))
        while "no partition assigned" not in service.health.not_ready.values():
            await asyncio.sleep(0.05)
        folder.unlink()
        while service.health.not_ready:
            await asyncio.sleep(0.05)
        while not await setup.predictions():
            await asyncio.sleep(0.1)
        stop.set()
        await running
    assert await setup.predictions() == [(SESSION_ID, 30.0, "0.0.1")]


async def test_member_that_the_group_does_not_know_is_reported_and_ends_the_service(setup: Setup) -> None:
    settings = Settings(
        bootstrap_servers=setup.broker, input_topic=setup.topic, stall_timeout_s=0.4, stall_exit_s=2.0
    )  # fmt: skip
    health = Health()
    admin = AIOKafkaAdminClient(bootstrap_servers=setup.broker)
    await admin.start()
    try:
        watch = ProgressWatch(settings, admin=admin, health=health, workers=dict, is_member=lambda: False)
        with pytest.raises(StalledError, match="the group does not know this member"):
            await asyncio.wait_for(watch.run(), 30)
    finally:
        await admin.close()
    assert "the group does not know this member for" in health.not_alive["service"]


# --------------------------------------------------------------------------------------------------- replay of a topic


async def test_replay_of_a_topic_gives_what_the_service_published_byte_for_byte(
    setup: Setup, topic_factory: TopicFactory
) -> None:
    several = replace(setup, topic=await topic_factory(3, prefix="session-events"))
    messages = list(interleave(simulate_sessions(28, seed=11)))
    await several.publish(*messages)
    await run_to_the_end(several)
    published = [record.value for record in await read_all(several.broker, several.output_topic)]
    assert len(published) > 20
    assert sorted(await replay_of(several)) == sorted(published)
    assert await replay_of(several) == await replay_of(several)


async def test_replay_of_a_topic_keeps_to_the_times_given(setup: Setup) -> None:
    await setup.publish(*events(0, 50))
    await asyncio.sleep(0.05)
    records = await read_all(setup.broker, setup.topic)
    between = str((records[-1].timestamp + 1) / 1000)
    await asyncio.sleep(0.05)
    await setup.publish(*events(150, 200, OTHER))
    by_session = defaultdict(list)
    for name, arguments in {"all": (), "before": ("--to", between), "after": ("--from", between)}.items():
        by_session[name] = [identity(value)[0] for value in await replay_of(setup, *arguments)]
    assert by_session == {"all": [SESSION_ID, OTHER], "before": [SESSION_ID], "after": [OTHER]}


async def test_replay_of_a_topic_that_is_not_there_is_one_readable_line(setup: Setup) -> None:
    status, _, errors = await replay_process(replace(setup, topic="nobody-made-this"))
    assert (status, errors.count("\n")) == (1, 1)
    assert "topic `nobody-made-this` does not exist" in errors


async def replay_of(setup: Setup, *arguments: str) -> list[bytes]:
    status, output, errors = await replay_process(setup, *arguments)
    assert status == 0, errors
    return output.splitlines()


async def replay_process(setup: Setup, *arguments: str) -> tuple[int | None, bytes, str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "stream_fp", "replay", "--bootstrap-servers", setup.broker, "--input-topic", setup.topic,
        "--model-path", str(setup.model), *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    output, errors = await process.communicate()
    return process.returncode, output, errors.decode()
