"""Offline work on a real Ray cluster: a head and two nodes of one worker, processes of their own on this machine.

What is asked is what `test_dask_cluster.py` asks: the same bytes as on this machine, files opened by workers alone, and
one clear line for what is wrong.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from offline.backends import Backend, ClusterLostError, open_backend, part_runner
from offline.cli import main
from offline.dataset import Dataset, load_dataset
from stream_fp.errors import ConfigError
from tests.support.builders import write_tiny_library
from tests.support.clusters import (
    N_FILES,
    N_SESSIONS,
    assert_same,
    files_in,
    no_file_opened,
    replay,
    watch_openings,
    write_many_files,
)
from tests.support.jobs import Word, count_letters, die_of, die_once, fail_of, read_where, repeat, times
from tests.support.local_ray import LocalRay

# Not imported here: what it reads of the environment is set by the module under test.
if find_spec("ray") is None:
    pytest.skip("no Ray: pip install 'stream-fp[ray]'", allow_module_level=True)

from offline import ray_cluster
from offline.cluster_jobs import package_versions

pytestmark = pytest.mark.timeout(180)


@pytest.fixture(scope="module", autouse=True)
def _audit() -> None:
    watch_openings()


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalRay]:
    """A head and two nodes for all tests that leave them alive."""
    with LocalRay() as started:
        started.add_nodes(2)
        yield started


@pytest.fixture(scope="module")
def sessions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_many_files(tmp_path_factory.mktemp("sessions"))


@pytest.fixture(scope="module")
def local(sessions: Path) -> Dataset:
    return load_dataset(sessions, n_jobs=1)


def on(cluster: LocalRay) -> tuple[str, ...]:
    return "--backend", "ray", "--scheduler", cluster.address


def run(*arguments: str | Path) -> int:
    with pytest.raises(SystemExit) as caught:
        main([str(argument) for argument in arguments])
    assert isinstance(caught.value.code, int)
    return caught.value.code


def test_jobs_and_their_errors_come_back_as_they_are(cluster: LocalRay, sessions: Path, local: Dataset) -> None:
    with open_backend("ray", cluster.address) as ray:
        with no_file_opened(sessions):
            assert_same(load_dataset(sessions, backend=ray), local)
        for n_jobs in (-1, 1, 2):
            found = list(ray.run(read_where, [(sessions / "broken.json",)] * 5, n_jobs=n_jobs))
            assert [text for text, _ in found] == ["{"] * 5
            assert os.getpid() not in {process for _, process in found}
        with pytest.raises(ZeroDivisionError, match=r"^7$") as caught:
            list(ray.run(fail_of, [(7,)]))
        assert type(caught.value) is ZeroDivisionError
        _caller_wants_no_more(ray)
        large = "x" * 1000
        assert list(ray.run(repeat, [(large, 1), (large, 2)], shared=[large])) == [large, large * 2]


def _caller_wants_no_more(ray: Backend) -> None:
    results = ray.run(times, ((number, 3) for number in range(200)))
    assert next(results) == 0
    del results
    assert list(ray.run(times, [(2, 3)])) == [6]


def test_results_come_before_the_last_job_is_done(cluster: LocalRay) -> None:
    asked: list[int] = []

    def jobs() -> Iterator[tuple[int, int]]:
        for number in range(50):
            asked.append(number)
            yield number, 2

    with open_backend("ray", cluster.address) as ray:
        results = ray.run(times, jobs())
        assert next(results) == 0
        assert len(asked) < 50
        assert list(results) == [2 * number for number in range(1, 50)]


def test_train_and_ab_write_the_same_bytes(
    cluster: LocalRay, sessions: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "0")
    # Relative paths: a library's is part of what is written, and must be the one given.
    monkeypatch.chdir(tmp_path)
    commands = (
        ("train", "--input", sessions, "--until", "2025-04-30", "--archetypes", "4", "--checkpoints", "30",
         "--profile", "pace", "--output", "models/v1"),
        ("ab", "--input", sessions, "--splits", "2", "--archetypes", "3", "--profile", "pace", "--checkpoints", "30",
         "--output", "ab"),
    )  # fmt: skip
    for command in commands:
        output = Path(command[-1])
        assert run(*command) == 0
        expected = files_in(output)
        with no_file_opened(sessions):
            assert run(*command, "--force", *on(cluster)) == 0
        assert files_in(output) == expected


def test_replay_gives_the_same_bytes_and_workers_alone_read(
    cluster: LocalRay, sessions: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ("--input", sessions, "--model-path", write_tiny_library(tmp_path / "v0.0.1"))
    here, there = tmp_path / "here", tmp_path / "there"
    # One file cannot be read, which the status says.
    assert replay(*arguments, "--report", here, "--workers", "1", monkeypatch=monkeypatch) == 1
    with no_file_opened(sessions):
        assert replay(*arguments, "--report", there, *on(cluster), monkeypatch=monkeypatch) == 1
    assert files_in(here) == files_in(there)
    assert files_in(here)["predictions.jsonl"].count(b"\n") > N_FILES * N_SESSIONS / 2


def test_parts_run_on_workers_from_any_thread(cluster: LocalRay, sessions: Path) -> None:
    found: list[tuple[str, int, int]] = []

    def work() -> None:
        with part_runner("ray", cluster.address, -1) as runner:
            found.extend(runner(count_letters, [Word(sessions / "00.jsonl", letter) for letter in "abcdef"]))

    thread = threading.Thread(target=work)
    with no_file_opened(sessions):
        thread.start()
        thread.join()
    text = (sessions / "00.jsonl").read_text()
    assert {letter: n for letter, n, _ in found} == {letter: text.count(letter) for letter in "abcdef"}


def test_path_that_a_worker_does_not_see_is_named_with_the_worker(
    cluster: LocalRay, sessions: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    # As if this machine had one more file than the workers' has.
    only_here = sessions / "only-here.jsonl"
    exists = Path.exists
    monkeypatch.setattr(Path, "exists", lambda path: path.name == only_here.name or exists(path))
    monkeypatch.setattr("offline.dataset.find_files", lambda _source: [only_here])
    assert run("train", "--input", sessions, "--output", tmp_path / "v1", *on(cluster)) == 1
    said = capsys.readouterr().err.splitlines()
    assert said[-1].startswith(f"stream-fp-offline: {only_here}: is there for the client, but not for the worker ")
    assert "same files under the same paths" in said[-1]


@pytest.mark.parametrize("who_looks", ["client", "worker"])
def test_other_versions_on_the_workers_are_named(
    cluster: LocalRay, who_looks: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = package_versions() | {"python": "3.99.1", "stream-fp": "9.9.9"}
    monkeypatch.setattr(ray_cluster, "package_versions", lambda: ours)
    if who_looks == "worker":  # as one that joined later
        monkeypatch.setattr(ray_cluster.RayCluster, "_check_workers", lambda _cluster: None)
    with pytest.raises(ConfigError) as caught, open_backend("ray", cluster.address) as opened:
        list(opened.run(times, [(2, 3)]))
    assert caught.value.setting == "scheduler"
    said = str(caught.value)
    assert "instead of 3.99.1, stream-fp " in said
    assert "instead of 9.9.9" in said
    assert "\n" not in said


def test_workers_that_die_cost_time_only_and_a_job_that_kills_them_is_one_error(
    cluster: LocalRay, tmp_path: Path
) -> None:
    mark = tmp_path / "died"
    with open_backend("ray", cluster.address) as ray:
        assert list(ray.run(die_once, [(mark, number) for number in range(4)])) == [0, 1, 2, 3]
        assert mark.exists()
        with pytest.raises(ClusterLostError, match=f"the cluster at {cluster.address} gave up: workers died of one"):
            list(ray.run(die_of, [(1,)]))


# Threads of the client do not expect that.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("lost", ["workers", "head"])
def test_cluster_that_is_gone_is_one_error(lost: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_cluster, "WITHOUT_WORKERS_S", 1.0)
    monkeypatch.setenv("RAY_CLIENT_RECONNECT_GRACE_PERIOD", "3")
    with LocalRay() as started:
        with pytest.raises(ConfigError, match="has no workers; `ray start --address"):
            open_backend("ray", started.address).__enter__()
        started.add_nodes(1)
        with open_backend("ray", started.address) as opened:
            results = opened.run(times, ((number, 3) for number in range(1_000_000)))
            assert next(results) == 0
            if lost == "head":
                started.kill_head()
            else:
                started.kill_node()
            with pytest.raises(ClusterLostError, match=f"the cluster at {started.address} was lost") as caught:
                list(results)
            assert "\n" not in str(caught.value)
