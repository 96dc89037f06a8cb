"""Faults at random moments on real brokers: the short run, and the proof that the harness would see a failure.

The long run is `make chaos FAULTS=200 SEED=1`.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos import faults
from tests.chaos.run import Plan, run_chaos
from tests.chaos.verdict import Report
from tests.conftest import Cluster

#: About 83 events each.
N_SESSIONS = 1_400


@pytest.fixture(autouse=True)
def quiet_client() -> Iterator[None]:
    """Keep aiokafka from logging every connection that a killed broker refuses."""
    logger = logging.getLogger("aiokafka")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    yield
    logger.setLevel(level)


def told(report: Report) -> str:
    """Return all that a failed run has to say."""
    return "\n".join([report.verdict, *report.lines(), *(f"{name}: {value}" for name, value in report.figures.items())])


@pytest.mark.timeout(300)
@pytest.mark.parametrize(("n_brokers", "n_faults", "seed"), [(1, 8, 1), (3, 6, 2)])
async def test_faults_at_random_moments_lose_nothing_and_repeat_nothing(
    cluster: Cluster, tmp_path: Path, n_brokers: int, n_faults: int, seed: int
) -> None:
    plan = Plan(seed=seed, n_faults=n_faults, n_sessions=N_SESSIONS)
    report = await run_chaos(cluster(n_brokers), plan, tmp_path, print)
    assert not report.divergences, told(report)
    # A run in which nothing happened proves nothing.
    assert report.figures["predictions"] > 2_000, told(report)  # type: ignore[operator]
    assert report.figures["dead letters"] > 200, told(report)  # type: ignore[operator]


async def kill_at_work(scene: faults.Scene) -> bool:
    """SIGKILL a consumer when the group has had time to recover from the kill before, and is at work again."""
    await asyncio.sleep(scene.session_timeout_s + scene.rng.uniform(3.0, 4.0))
    return await faults.kill(scene)


@pytest.mark.timeout(300)
async def test_harness_reports_what_is_repeated_without_transactions(cluster: Cluster, tmp_path: Path) -> None:
    plan = Plan(
        seed=3,
        n_faults=4,
        n_sessions=N_SESSIONS,
        faults=(kill_at_work,),
        delivery="at-least-once",
        # So that something is always being published when a fault comes.
        bad_share=0.2,
    )
    report = await run_chaos(cluster(1), plan, tmp_path, print)
    assert {"predictions repeated", "dead letters repeated"} & report.divergences.keys(), told(report)
    # At least once: repeated, but never lost.
    assert not {"predictions lost", "dead letters lost"} & report.divergences.keys(), told(report)


@pytest.mark.timeout(300)
async def test_harness_reports_what_is_lost_when_offsets_are_committed_too_early(
    cluster: Cluster, tmp_path: Path
) -> None:
    plan = Plan(
        seed=4,
        n_faults=4,
        n_sessions=N_SESSIONS,
        faults=(kill_at_work,),
        program=(sys.executable, "-m", "tests.chaos.early_commit"),
        bad_share=0.2,
    )
    report = await run_chaos(cluster(1), plan, tmp_path, print)
    assert {"predictions lost", "dead letters lost"} & report.divergences.keys(), told(report)
