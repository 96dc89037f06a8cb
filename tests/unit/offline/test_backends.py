"""Jobs on this machine, the settings that name a back end, and the extension that replay finds by its name."""

from __future__ import annotations

import os
import socket
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from offline.backends import BACKENDS, LOCAL, open_backend, part_runner
from offline.cli import main
from stream_fp.errors import ConfigError
from stream_fp.extensions import load_extension
from tests.support.jobs import Word, count_letters, fail_of, times

COMMANDS = {
    "train": ("--input", "{here}", "--output", "{here}/v1"),
    "evaluate": ("--input", "{here}", "--model-path", "{here}", "--output", "{here}/report"),
    "ab": ("--input", "{here}", "--output", "{here}/ab"),
    "events": ("--bars", "{here}/NQ.csv", "--output", "{here}/events.jsonl"),
}


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text"
    path.write_text("abracadabra")
    return path


@pytest.fixture
def silent() -> Iterator[str]:
    """Address of something that takes connections and never says a word."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        yield f"127.0.0.1:{listening.getsockname()[1]}"


@pytest.mark.parametrize("n_jobs", [1, 2])
@pytest.mark.parametrize("in_order", [True, False])
def test_every_job_is_done_once(n_jobs: int, in_order: bool) -> None:
    found = list(LOCAL.run(times, ((number, 3) for number in range(20)), n_jobs=n_jobs, in_order=in_order))
    assert (found if in_order else sorted(found)) == [3 * number for number in range(20)]


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_error_of_a_job_arrives_as_it_is(n_jobs: int) -> None:
    with pytest.raises(ZeroDivisionError, match="7"):
        list(LOCAL.run(fail_of, [(7,)], n_jobs=n_jobs))


def test_caller_that_wants_no_more_ends_the_jobs_without_a_warning() -> None:
    results = LOCAL.run(times, ((number, 3) for number in range(200)), n_jobs=2)
    assert next(results) == 0
    del results


def test_local_is_the_default_and_no_connection() -> None:
    with open_backend("local") as opened:
        assert opened is LOCAL
    assert not LOCAL.is_cluster


@pytest.mark.parametrize(
    ("kind", "scheduler", "setting", "why"),
    [
        ("spark", None, "backend", "expected local, dask or ray, got 'spark'"),
        ("ray", None, "scheduler", "expected the address of a Ray client server"),
        ("local", "tcp://127.0.0.1:8786", "scheduler", "is for --backend dask or ray"),
        ("dask", None, "scheduler", "expected the address of a Dask scheduler"),
        ("dask", "", "scheduler", "expected the address of a Dask scheduler"),
    ],
)
def test_wrong_setting_is_named(kind: str, scheduler: str | None, setting: str, why: str) -> None:
    with pytest.raises(ConfigError, match=why) as caught, open_backend(kind, scheduler):
        pass
    assert caught.value.setting == setting


def test_missing_package_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("offline.dask_cluster", "offline.dask_worker"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(ConfigError, match=r"`backend`: dask needs `distributed`.*stream-fp\[offline,dask\]"):
        open_backend("dask", "tcp://127.0.0.1:1").__enter__()


def test_missing_package_of_ray_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "offline.ray_cluster", raising=False)
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigError, match=r"`backend`: ray needs `ray`.*stream-fp\[offline,ray\]"):
        open_backend("ray", "ray://127.0.0.1:1").__enter__()


@pytest.mark.parametrize("address", ["127.0.0.1:6379", "ray://", "ray://x", "ray://x:y", "ray://127.0.0.1:99999"])
def test_what_is_no_address_of_ray_or_does_not_answer_is_one_line(address: str) -> None:
    pytest.importorskip("offline.ray_cluster", reason="no Ray: pip install 'stream-fp[ray]'",
                        exc_type=ModuleNotFoundError)  # fmt: skip
    with pytest.raises(
        ConfigError, match=r"`scheduler`: (expected an address such as ray://|no Ray client serv)"
    ) as caught:
        open_backend("ray", address).__enter__()
    assert address in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("address", ["localhost", "foo://x:1", "localhost:abc", "a b", "tls://127.0.0.1:1"])
def test_what_is_no_address_is_shown(address: str) -> None:
    pytest.importorskip("distributed", reason="no Dask: pip install 'stream-fp[dask]'")
    with pytest.raises(ConfigError, match="`scheduler`: expected an address such as") as caught:
        open_backend("dask", address).__enter__()
    assert address in str(caught.value)
    assert "\n" not in str(caught.value)


def test_scheduler_that_is_not_there_or_says_nothing_is_given_up(silent: str, monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = pytest.importorskip("offline.dask_cluster", reason="no Dask: pip install 'stream-fp[dask]'",
                                  exc_type=ModuleNotFoundError)  # fmt: skip
    monkeypatch.setattr(cluster, "ANSWER_S", 0.5)
    for address in ("127.0.0.1:1", silent):
        with pytest.raises(ConfigError, match=f"`scheduler`: no Dask scheduler answers at {address}"):
            open_backend("dask", address).__enter__()


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--backend", "spark"], "setting `backend`: expected local, dask or ray, got 'spark'"),
        (["--backend", "dask"], "setting `scheduler`: expected the address of a Dask scheduler"),
        (["--scheduler", "tcp://127.0.0.1:1"], "setting `scheduler`: is for --backend dask or ray"),
    ],
)
def test_wrong_setting_is_one_line_and_status_two(  # noqa: PLR0917 - two parameters and what pytest gives
    tmp_path: Path,
    command: str,
    options: list[str],
    said: str,
    capsys: pytest.CaptureFixture[str],
    request: pytest.FixtureRequest,
) -> None:
    (tmp_path / "NQ.csv").write_text("")
    (tmp_path / "sessions.jsonl").write_text("")
    arguments = [word.format(here=tmp_path) for word in COMMANDS[command]]
    if command == "evaluate":
        arguments[3] = str(request.getfixturevalue("learned").library.path)
    with pytest.raises(SystemExit) as caught:
        main([command, *arguments, *options])
    assert caught.value.code == 2
    last = capsys.readouterr().err.splitlines()
    assert last == [line for line in last if said in line]
    assert len(last) == 1


def test_names_of_back_ends_are_those_that_open() -> None:
    assert BACKENDS == ("local", "dask", "ray")


def test_runner_is_found_by_its_name() -> None:
    assert load_extension("runner", setting="backend") is part_runner


@pytest.mark.parametrize("n_workers", [1, 2])
def test_parts_run_on_this_machine_from_any_thread(text: Path, n_workers: int) -> None:
    found: list[tuple[str, int, int]] = []

    def work() -> None:
        with part_runner("local", None, n_workers) as run:
            found.extend(run(count_letters, [Word(text, letter) for letter in "abcdr"]))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    counts = Counter("abracadabra")
    assert {letter: n for letter, n, _ in found} == {letter: counts[letter] for letter in "abcdr"}
    assert (os.getpid() in {process for _, _, process in found}) == (n_workers == 1)
