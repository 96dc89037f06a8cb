"""What goes wrong in a chaos run: each fault is one coroutine that does it and returns when it is over.

A fault that leaves somebody down brings them back by itself, unless the supervisor of the fleet does. It returns
whether it found somebody to hit.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from confluent_kafka import KafkaException, Producer

from tests.chaos.fleet import MAX_CONSUMERS, Fleet
from tests.support.local_kafka import LocalKafka

__all__ = ["FAULTS", "Scene", "fault_sequence"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """Whom a fault can hit."""

    fleet: Fleet
    kafka: LocalKafka
    rng: random.Random
    session_timeout_s: float
    transactional_ids: tuple[str, ...]

    def somebody(self) -> int | None:
        """Choose one of the consumers that run; None where all have just been killed."""
        running = self.fleet.running
        return self.rng.choice(running) if running else None


Fault = Callable[[Scene], Awaitable[bool]]


async def kill(scene: Scene) -> bool:
    """SIGKILL a consumer."""
    if (slot := scene.somebody()) is None:
        return False
    await scene.fleet.kill(slot)
    return True


async def kill_all(scene: Scene) -> bool:
    """SIGKILL all consumers at once."""
    running = scene.fleet.running
    await asyncio.gather(*(scene.fleet.kill(slot) for slot in running))
    return bool(running)


async def kill_twice(scene: Scene) -> bool:
    """SIGKILL a consumer, and its successor while it rebuilds."""
    if (slot := scene.somebody()) is None:
        return False
    await scene.fleet.kill(slot)
    await asyncio.sleep(scene.rng.uniform(1.0, 3.0))
    await scene.fleet.kill(slot)
    return True


async def terminate(scene: Scene) -> bool:
    """SIGTERM a consumer, as a rolling update does."""
    if (slot := scene.somebody()) is None:
        return False
    await scene.fleet.terminate(slot)
    return True


async def scale_out(scene: Scene) -> bool:
    """Start one more consumer; with all running, go back to one."""
    fleet = scene.fleet
    free = sorted(set(range(MAX_CONSUMERS)) - fleet.wanted)
    await fleet.scale_to(fleet.wanted | {free[0]} if free else {min(fleet.wanted)})
    return True


async def scale_in(scene: Scene) -> bool:
    """End one consumer in good order; with only one running, start a second."""
    fleet = scene.fleet
    if len(fleet.wanted) > 1:
        await fleet.scale_to(fleet.wanted - {scene.rng.choice(sorted(fleet.wanted))})
    else:
        await fleet.scale_to({0, 1})
    return True


async def pause(scene: Scene) -> bool:
    """SIGSTOP a consumer for less than its session time-out."""
    if (slot := scene.somebody()) is None:
        return False
    scene.fleet.pause(slot)
    await asyncio.sleep(scene.rng.uniform(0.2, 0.8) * scene.session_timeout_s)
    scene.fleet.resume(slot)
    return True


async def zombie(scene: Scene) -> bool:
    """SIGSTOP a consumer past its session time-out, and let it come back to partitions that others own."""
    fleet = scene.fleet
    if len(fleet.wanted) == 1:
        await fleet.scale_to({0, 1})
    if (slot := scene.somebody()) is None:
        return False
    fleet.pause(slot)
    await asyncio.sleep(scene.session_timeout_s + scene.rng.uniform(1.0, 3.0))
    fleet.resume(slot)
    return True


async def fence(scene: Scene) -> bool:
    """Take a partition's transactional id away, so that its owner's transactions fail for good."""
    producer = Producer(
        {
            "bootstrap.servers": scene.kafka.bootstrap_servers,
            "transactional.id": scene.rng.choice(scene.transactional_ids),
            "log_level": 0,
        }
    )
    try:
        await asyncio.to_thread(producer.init_transactions, 10.0)
    except KafkaException as error:
        # The owner may take it back at the same moment.
        if not error.args[0].retriable() and not error.args[0].fatal():
            raise
        return False
    return True


async def broker_killed(scene: Scene) -> bool:
    """SIGKILL a broker and start it again a moment later."""
    node_id = scene.rng.choice(scene.kafka.node_ids)
    await asyncio.to_thread(scene.kafka.kill, node_id)
    await asyncio.sleep(scene.rng.uniform(0.0, 3.0))
    await asyncio.to_thread(scene.kafka.restart, node_id)
    return True


async def broker_restarted(scene: Scene) -> bool:
    """Restart a broker in good order."""
    await asyncio.to_thread(scene.kafka.restart, scene.rng.choice(scene.kafka.node_ids))
    return True


async def broker_and_consumer_killed(scene: Scene) -> bool:
    """SIGKILL a broker and, while it is down, a consumer."""
    return all(await asyncio.gather(broker_killed(scene), kill(scene)))


FAULTS: Final[tuple[Fault, ...]] = (
    kill, kill_all, kill_twice, terminate, scale_out, scale_in, pause, zombie, fence,
    broker_killed, broker_restarted, broker_and_consumer_killed,
)  # fmt: skip


def fault_sequence(n_faults: int, rng: random.Random, among: tuple[Fault, ...] = FAULTS) -> list[Fault]:
    """Return faults in random order, of every kind as many as of every other, but for one."""
    sequence: list[Fault] = []
    while len(sequence) < n_faults:
        sequence += rng.sample(among, len(among))
    return sequence[:n_faults]
