"""A Dask cluster as joblib's back end: what `offline.backends` uses for ``--backend dask``.

Jobs and results go through the scheduler, files do not: jobs name them, workers open them. So workers must have the
same files under the same paths, and packages of the same versions. Each worker looks at both before it begins a job.

Invariant: no job runs in this process, and none is lost without an error. A worker that dies costs time only: what it
was given is done again by another.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import logging
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from distributed import Client, Future, KilledWorker
from distributed.comm import CommClosedError
from distributed.core import rpc
from distributed.versions import VersionMismatchWarning
from joblib import Parallel, delayed
from joblib._dask import DaskDistributedBackend

from offline.backends import ClusterLostError, yielded
from offline.cluster_jobs import (
    PACKAGES,
    Terms,
    difference,
    existing_paths,
    own_arguments,
    package_versions,
    with_more,
)
from offline.dask_worker import on_worker, too_many_threads
from stream_fp.errors import ConfigError

__all__ = ["ANSWER_S", "WITHOUT_WORKERS_S", "DaskCluster"]

#: A scheduler that has not answered by then is taken for a wrong address; so is one to which no worker has come.
ANSWER_S: Final = 10.0
#: Workers that were restarted by their supervisor are back within seconds; after this long without any, nobody comes.
WITHOUT_WORKERS_S: Final = 60.0
_LOOK_S: Final = 1.0
#: Those to which distributed gives a level of their own.
_LOGGERS: Final = ("distributed", "distributed.client")
_LOST: Final = (
    KilledWorker,
    CommClosedError,
    asyncio.CancelledError,  # and distributed's own, which is one
    concurrent.futures.CancelledError,
)


class DaskCluster:
    """A connection to the scheduler at an address; use it as a context.

    Parameters
    ----------
    scheduler : str
        With or without ``tcp://``.

    Raises
    ------
    ConfigError
        When nothing answers there, there are no workers, or they are not what is needed.
    """

    def __init__(self, scheduler: str) -> None:
        self._scheduler = scheduler
        self._terms = Terms(folder=str(Path.cwd()), versions=package_versions())
        with contextlib.ExitStack() as stack:
            stack.enter_context(_quiet())
            self._client = _connected(scheduler)
            stack.callback(self._client.close)
            self._check_workers()
            self._stack = stack.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _place: TracebackType | None
    ) -> None:
        self._stack.close()

    def run(
        self,
        function: Callable[..., Any],
        jobs: Iterable[tuple[Any, ...]],
        *,
        n_jobs: int,
        in_order: bool,
        shared: Sequence[object],
    ) -> Iterator[Any]:
        """Run jobs on the workers; see `offline.backends.Backend.run`."""
        call = delayed(on_worker)
        calls = (
            call(self._terms, existing_paths(own_arguments(arguments, shared)), function, *arguments)
            for arguments in jobs
        )
        try:
            parallel = Parallel(
                n_jobs=n_jobs,
                backend=_Workers(client=self._client, scatter=list(shared), wait_for_workers_timeout=ANSWER_S),
                return_as="generator" if in_order else "generator_unordered",
                pre_dispatch=n_jobs if n_jobs > 0 else "2 * n_jobs",
            )
            results = parallel(calls)
        except TimeoutError as error:
            raise ClusterLostError(self._scheduler, "has no workers any more") from error
        try:
            with _watch(self._client):
                yield from yielded(results)
        except KilledWorker as error:
            raise ClusterLostError(
                self._scheduler,
                f"gave up: workers died of one job ({error.allowed_failures + 1} of them), the last at "
                f"{error.last_worker.address}; its log says why, often that it ran out of memory",
            ) from error
        except _LOST as error:
            raise ClusterLostError(
                self._scheduler, f"was lost: it or all of its workers are gone ({type(error).__name__})"
            ) from error

    def _check_workers(self) -> None:
        try:
            self._client.wait_for_workers(1, timeout=ANSWER_S)
        except TimeoutError as error:
            raise ConfigError(
                "scheduler",
                f"{self._scheduler} has no workers; `dask worker {self._scheduler} --nthreads 1` starts one",
            ) from error
        threads = {address: n for address, n in self._client.nthreads().items() if n != 1}
        if threads:
            raise ConfigError("scheduler", too_many_threads(*next(iter(threads.items()))))
        found = self._client.get_versions(packages=list(PACKAGES))["workers"]
        wrong = {}
        for address, worker in found.items():
            told = worker["packages"]
            theirs = {"python": ".".join(told["python"].split(".")[:3])} | {name: told[name] for name in PACKAGES}
            if why := difference(self._terms.versions, theirs):
                wrong[address] = why
        if wrong:
            raise ConfigError("scheduler", with_more(wrong))


class _Workers(DaskDistributedBackend):  # type: ignore[misc]  # joblib has no types
    """joblib's back end, with what it lacks: jobs never run in this process, and one that was given up is an error."""

    def effective_n_jobs(self, n_jobs: int) -> int:
        """Return how many jobs to hand out at a time."""
        n_workers: int = super().effective_n_jobs(n_jobs)
        # Of one at a time, joblib would think that this process may as well do it itself.
        return max(2, min(n_workers, n_jobs) if n_jobs > 0 else n_workers)

    def submit(self, func: Any, callback: Callable[[Any], object]) -> Any:  # noqa: ANN401 - joblib's own
        """Hand a batch of jobs to the cluster; `callback` is told how it ended, whichever way."""
        future = super().submit(func, callback)

        def tell(done: concurrent.futures.Future[Any]) -> None:
            # Otherwise the caller would wait for ever: errors of the job itself are results, those of the cluster are
            # not, and the back end calls back for results alone.
            if (error := done.exception()) is not None:
                callback(error)

        future.add_done_callback(tell)
        return future

    def retrieve_result_callback(self, out: Any) -> Any:  # noqa: ANN401 - joblib's own
        """Return the results of a batch."""
        if isinstance(out, BaseException):
            raise out
        return super().retrieve_result_callback(out)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the client from logging; what matters of it becomes an error of ours, in one line."""
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _connected(scheduler: str) -> Client:
    try:
        # A thread of its own, for the caller's may have a running loop.
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            pool.submit(asyncio.run, _identify(scheduler)).result()
        with warnings.catch_warnings():
            # Says the versions in a table of many lines; those that matter are compared below.
            warnings.simplefilter("ignore", VersionMismatchWarning)
            return Client(scheduler, timeout=ANSWER_S, set_as_default=False)
    except ConfigError:
        raise
    except (OSError, TimeoutError) as error:
        raise ConfigError("scheduler", f"no Dask scheduler answers at {scheduler} within {ANSWER_S:g} s") from error
    except (ValueError, TypeError, OverflowError) as error:
        why = next(iter(str(error).splitlines()), type(error).__name__)
        raise ConfigError(
            "scheduler", f"expected an address such as tcp://10.0.0.5:8786, got {scheduler!r} ({why})"
        ) from error
    except Exception as error:
        # Bytes of another protocol are read as lengths and structures, and fail as whatever these come to.
        raise ConfigError("scheduler", f"what answers at {scheduler} is no Dask scheduler") from error


async def _identify(scheduler: str) -> None:
    """Ask who is there. The client itself waits for ever for what takes a connection and says nothing."""
    async with asyncio.timeout(ANSWER_S), rpc(scheduler, timeout=ANSWER_S) as remote:
        kind = (await remote.identity())["type"]
    if kind != "Scheduler":
        raise ConfigError("scheduler", f"expected a Dask scheduler at {scheduler}, found a {kind.lower()}")


@contextlib.contextmanager
def _watch(client: Client) -> Iterator[None]:
    """Cancel what was given to a cluster that has had no workers for too long; it would wait for some for ever."""
    stop = threading.Event()
    thread = threading.Thread(target=_look, args=(client, stop), name="dask-watch", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(ANSWER_S)


def _look(client: Client, stop: threading.Event) -> None:
    without_s = 0.0
    # A scheduler that is gone needs no watching: then the client itself cancels all.
    with contextlib.suppress(*_LOST, OSError, ValueError):
        while not stop.wait(_LOOK_S):
            without_s = 0.0 if client.nthreads() else without_s + _LOOK_S
            if without_s >= WITHOUT_WORKERS_S:
                client.cancel([Future(key, client) for key in list(client.futures)])
                return
