"""Offline work on a real Dask cluster: a scheduler and workers that are processes of their own, on loopback.

What is asked: the same bytes as on this machine, files opened by workers alone, and one clear line for what is wrong.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from offline.backends import Backend, ClusterLostError, open_backend, part_runner
from offline.cli import main
from offline.dataset import Dataset, load_dataset
from offline.simulate import interleave, simulate_sessions
from stream_fp.errors import ConfigError, DocumentError
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
from tests.support.datasets import write_lines
from tests.support.jobs import Word, count_letters, die_of, fail_of, read_where, times
from tests.support.local_dask import LocalDask
from tests.support.market import frame_of, random_market, write_frame

pytest.importorskip("distributed", reason="no Dask: pip install 'stream-fp[dask]'")

from distributed.protocol.pickle import dumps

from offline import dask_cluster
from offline.cluster_jobs import package_versions


@pytest.fixture(scope="module", autouse=True)
def _audit() -> None:
    watch_openings()


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalDask]:
    """One scheduler and two workers for all tests that leave them alive."""
    with LocalDask(tmp_path_factory.mktemp("dask")) as started:
        started.add_workers(2)
        yield started


@pytest.fixture
def dask(cluster: LocalDask) -> Iterator[Backend]:
    with open_backend("dask", cluster.address) as opened:
        yield opened


@pytest.fixture(scope="module")
def sessions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_many_files(tmp_path_factory.mktemp("sessions"))


@pytest.fixture(scope="module")
def local(sessions: Path) -> Dataset:
    return load_dataset(sessions, n_jobs=1)


def run(*arguments: str | Path) -> int:
    with pytest.raises(SystemExit) as caught:
        main([str(argument) for argument in arguments])
    assert isinstance(caught.value.code, int)
    return caught.value.code


def on(cluster: LocalDask) -> tuple[str, ...]:
    return "--backend", "dask", "--scheduler", cluster.address


def test_dataset_is_the_same_and_workers_alone_read(dask: Backend, sessions: Path, local: Dataset) -> None:
    with no_file_opened(sessions):
        found = load_dataset(sessions, backend=dask)
    assert_same(found, local)
    assert found.skipped["file: broken JSON"] == 1


def test_watch_on_opening_would_tell(sessions: Path) -> None:
    with pytest.raises(AssertionError), no_file_opened(sessions):
        load_dataset(sessions / "00.jsonl")


def test_what_goes_to_the_scheduler_is_small(dask: Backend, sessions: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []
    submit = dask_cluster._Workers.submit

    def measured(self: dask_cluster._Workers, func: Any, callback: Callable[[Any], object]) -> object:  # noqa: ANN401
        sizes.append(len(dumps(func.items)) / len(func.items))
        return submit(self, func, callback)

    monkeypatch.setattr(dask_cluster._Workers, "submit", measured)
    load_dataset(sessions, backend=dask)
    assert len(sizes) > 1
    n_bytes = sum(path.stat().st_size for path in sessions.iterdir())
    assert n_bytes > 40 * N_FILES * max(sizes)
    assert max(sizes) < 4096


def test_train_and_evaluate_and_ab_write_the_same_bytes(
    cluster: LocalDask, sessions: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "0")
    # Relative paths: a library's is part of what is written, and must be the one given.
    monkeypatch.chdir(tmp_path)
    commands = (
        ("train", "--input", sessions, "--until", "2025-04-30", "--archetypes", "4", "--checkpoints", "30",
         "--output", "models/v1"),
        ("evaluate", "--input", sessions, "--model-path", "models/v1", "--output", "report"),
        ("ab", "--input", sessions, "--splits", "2", "--archetypes", "3", "--profile", "pace", "--checkpoints", "30",
         "--output", "ab"),
    )  # fmt: skip
    outputs = (Path("models/v1"), Path("report"), Path("ab"))
    expected = []
    for command, output in zip(commands, outputs, strict=True):
        assert run(*command) == 0
        expected.append(files_in(output))
    with no_file_opened(sessions):
        for command, output, before in zip(commands, outputs, expected, strict=True):
            assert run(*command, "--force", *on(cluster)) == 0
            assert files_in(output) == before
    assert {"metadata.json", "cluster_stats.json"} <= set(expected[0])
    assert {"report.json", "report.html"} <= set(expected[1])
    assert "ab.json" in expected[2]


def test_relative_paths_mean_those_of_the_client(
    dask: Backend, sessions: Path, cluster: LocalDask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(sessions.parent)
    with open_backend("dask", cluster.address) as opened:
        ((text, process),) = opened.run(read_where, [(Path(sessions.name) / "broken.json",)])
    assert text == "{"
    assert process in {worker.pid for worker in cluster.workers}
    del dask


@pytest.mark.parametrize("n_files", [1, 3])
def test_events_are_the_same_and_workers_alone_read(
    cluster: LocalDask, tmp_path: Path, n_files: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "bars"
    folder.mkdir()
    words: list[str | Path] = []
    for number in range(n_files):
        name = f"M{number}.parquet" if number != 1 else "M1.csv"
        words += ["--bars", write_frame(frame_of(random_market(number, 2 * 1440)), folder / name)]
    assert run("events", *words, "--output", tmp_path / "local.jsonl") == 0
    # Parquet is read by code that no audit hook sees.
    monkeypatch.setattr("offline.event_files.read_bars", None)
    with no_file_opened(folder):
        assert run("events", *words, "--output", tmp_path / "dask.jsonl", *on(cluster)) == 0
    assert (tmp_path / "dask.jsonl").read_bytes() == (tmp_path / "local.jsonl").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bars", "dask.jsonl", "local.jsonl"]


def test_parts_run_on_workers_from_any_thread(cluster: LocalDask, sessions: Path) -> None:
    found: list[tuple[str, int, int]] = []

    def work() -> None:
        with part_runner("dask", cluster.address, -1) as runner:
            jobs = [Word(sessions / "00.jsonl", letter) for letter in "abcdefghij"]
            found.extend(runner(count_letters, jobs))

    thread = threading.Thread(target=work)
    with no_file_opened(sessions):
        thread.start()
        thread.join()
    text = (sessions / "00.jsonl").read_text()
    assert {letter: n for letter, n, _ in found} == {letter: text.count(letter) for letter in "abcdefghij"}
    assert {process for *_, process in found} <= {worker.pid for worker in cluster.workers}


@pytest.mark.parametrize("n_jobs", [-1, 1, 2])
def test_no_job_runs_in_this_process_however_few_at_a_time(dask: Backend, sessions: Path, n_jobs: int) -> None:
    found = list(dask.run(read_where, [(sessions / "broken.json",)] * 5, n_jobs=n_jobs))
    assert [text for text, _ in found] == ["{"] * 5
    assert os.getpid() not in {process for _, process in found}


def test_error_of_a_job_arrives_as_it_is(dask: Backend) -> None:
    with pytest.raises(ZeroDivisionError, match="7"):
        list(dask.run(fail_of, [(7,)]))


def test_caller_that_wants_no_more_ends_the_jobs_without_a_warning(dask: Backend) -> None:
    results = dask.run(times, ((number, 3) for number in range(200)))
    assert next(results) == 0
    del results
    assert list(dask.run(times, [(2, 3)])) == [6]


def test_path_that_a_worker_does_not_see_is_named_with_the_worker(
    cluster: LocalDask, sessions: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    # As if this machine had one more file than the workers' has.
    only_here = sessions / "only-here.jsonl"
    exists = Path.exists
    monkeypatch.setattr(Path, "exists", lambda path: path.name == only_here.name or exists(path))
    monkeypatch.setattr("offline.dataset.find_files", lambda _source: [only_here])
    assert run("train", "--input", sessions, "--output", tmp_path / "v1", *on(cluster)) == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith(f"stream-fp-offline: {only_here}: is there for the client, but not for the worker tcp://127")
    assert "same files under the same paths" in last


def test_nothing_is_asked_of_paths_that_are_not_there_for_the_client(dask: Backend, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        list(dask.run(read_where, [(tmp_path / "to-be-written",)]))


@pytest.mark.parametrize("who_looks", ["client", "worker"])
def test_other_versions_on_the_workers_are_named(
    cluster: LocalDask, who_looks: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = package_versions() | {"python": "3.99.1", "stream-fp": "9.9.9"}
    monkeypatch.setattr("offline.dask_cluster.package_versions", lambda: ours)
    if who_looks == "worker":  # as one that joined later
        monkeypatch.setattr(dask_cluster.DaskCluster, "_check_workers", lambda _cluster: None)
    with pytest.raises(ConfigError) as caught, open_backend("dask", cluster.address) as opened:
        list(opened.run(times, [(2, 3)]))
    assert caught.value.setting == "scheduler"
    said = str(caught.value)
    assert "instead of 3.99.1, stream-fp " in said
    assert "instead of 9.9.9" in said
    assert "tcp://127.0.0.1:" in said
    assert "\n" not in said


def test_address_of_a_worker_is_no_scheduler(cluster: LocalDask) -> None:
    with open_backend("dask", cluster.address) as opened:
        assert isinstance(opened._cluster, dask_cluster.DaskCluster)
        worker = next(iter(opened._cluster._client.nthreads()))
    with pytest.raises(ConfigError, match=r"expected a Dask scheduler at .*, found a worker"):
        open_backend("dask", worker).__enter__()


def test_worker_of_several_threads_and_scheduler_without_workers_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "sessions.jsonl").write_text("")
    with LocalDask(tmp_path) as started:
        monkeypatch.setattr(dask_cluster, "ANSWER_S", 0.5)
        arguments: tuple[str | Path, ...] = (
            "train",
            "--input",
            tmp_path / "sessions.jsonl",
            "--output",
            tmp_path / "v1",
            *on(started),
        )
        assert run(*arguments) == 2
        assert f"{started.address} has no workers; `dask worker" in capsys.readouterr().err
        started.add_workers(1, "--nthreads", "2")
        monkeypatch.setattr(dask_cluster, "ANSWER_S", 10.0)
        assert run(*arguments) == 2
        said = capsys.readouterr().err
        assert "has 2 threads; start workers with --nthreads 1" in said
        assert said.count("\n") == 1


def test_worker_killed_in_the_middle_changes_nothing(tmp_path: Path, sessions: Path, local: Dataset) -> None:
    with LocalDask(tmp_path) as started:
        started.add_workers(2)
        killed: list[int] = []

        def kill(_stage: str, n_done: int, _n_all: int) -> None:
            if n_done == 2 and not killed:
                started.kill_worker(0)
                killed.append(n_done)

        with open_backend("dask", started.address) as opened:
            found = load_dataset(sessions, backend=opened, progress=kill)
    assert killed
    assert_same(found, local)


@pytest.mark.parametrize("lost", ["workers", "scheduler"])
def test_cluster_that_is_gone_is_one_error(tmp_path: Path, lost: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dask_cluster, "WITHOUT_WORKERS_S", 1.0)
    with LocalDask(tmp_path) as started:
        started.add_workers(2)
        with open_backend("dask", started.address) as opened:
            results = opened.run(times, ((number, 3) for number in range(100_000)))
            assert next(results) == 0
            if lost == "scheduler":
                started.kill_scheduler()
            else:
                started.kill_worker(0)
                started.kill_worker(1)
            with pytest.raises(ClusterLostError, match=f"the cluster at {started.address} was lost"):
                list(results)


def test_job_that_kills_its_workers_is_one_error(tmp_path: Path) -> None:
    with LocalDask(tmp_path, {"SCHEDULER__ALLOWED_FAILURES": "0"}) as started:
        started.add_workers(2)
        with (
            open_backend("dask", started.address) as opened,
            pytest.raises(ClusterLostError, match="gave up: workers died of one job"),
        ):
            list(opened.run(die_of, [(1,)]))


def test_missing_file_of_a_dataset_is_the_same_error_as_ever(dask: Backend, tmp_path: Path) -> None:
    with pytest.raises(DocumentError, match="expected a file or a folder"):
        load_dataset(tmp_path / "nothing", backend=dask)


def test_replay_gives_the_same_bytes_and_workers_alone_read(
    cluster: LocalDask, sessions: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ("--input", sessions, "--model-path", write_tiny_library(tmp_path / "v0.0.1"))
    here, there = tmp_path / "here", tmp_path / "there"
    # One file cannot be read, which the status says.
    assert replay(*arguments, "--report", here, "--workers", "1", monkeypatch=monkeypatch) == 1
    with no_file_opened(sessions):
        assert replay(*arguments, "--report", there, *on(cluster), monkeypatch=monkeypatch) == 1
    assert files_in(here) == files_in(there)
    assert files_in(here)["predictions.jsonl"].count(b"\n") > N_FILES * N_SESSIONS / 2


@pytest.mark.parametrize(
    ("backend", "words"),
    [
        ("dask", "setting `scheduler`: expected the address"),
        ("dask --scheduler tcp://127.0.0.1:1", "setting `scheduler`: "),
        ("spark --scheduler x", "setting `backend`: expected local, dask or ray, got 'spark'"),
    ],
)
def test_replay_without_a_cluster_says_so_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], backend: str, words: str
) -> None:
    source = write_lines(tmp_path / "sessions.jsonl", interleave(simulate_sessions(2, seed=1)))
    model = write_tiny_library(tmp_path / "v0.0.1")
    assert replay("--input", source, "--model-path", model, "--backend", *backend.split(), monkeypatch=monkeypatch) == 2
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1
