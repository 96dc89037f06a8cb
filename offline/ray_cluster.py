"""A Ray cluster as joblib's back end: what `offline.backends` uses for ``--backend ray``.

Each job is a task of Ray, reached through its client server: this process is no part of the cluster and needs no node
here. Ray's own back end for joblib is not used: it is a pool of actors, of which one that dies takes its jobs with it,
it cannot give a result before the last is there, and it changes a class of joblib for the whole process.

Invariant: no job runs in this process, and none is lost without an error. A worker that dies costs time only: what it
was given is done again by another, up to `MAX_RETRIES` times.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import logging
import os
import socket
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import grpc  # type: ignore[import-untyped]
from joblib import Parallel, delayed
from joblib._parallel_backends import ParallelBackendBase

from offline.backends import ClusterLostError, yielded
from offline.cluster_jobs import (
    PACKAGES,
    Terms,
    difference,
    do_job,
    existing_paths,
    own_arguments,
    package_versions,
    with_more,
)
from stream_fp.errors import ConfigError

# Read when Ray is imported. Otherwise a call whose connection has gone would start a cluster in this very process.
os.environ["RAY_ENABLE_AUTO_CONNECT"] = "0"

import ray
from ray.exceptions import GetTimeoutError, OutOfMemoryError, RayError, RayTaskError, WorkerCrashedError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

__all__ = ["ANSWER_S", "MAX_RETRIES", "WITHOUT_WORKERS_S", "RayCluster"]

#: A client server that has not answered by then is taken for a wrong address.
ANSWER_S: Final = 10.0
#: A node's first task waits until its worker process has started.
_FIRST_TASK_S: Final = 60.0
#: Nodes that were restarted by their supervisor are back within seconds; after this long without any, nobody comes.
WITHOUT_WORKERS_S: Final = 60.0
#: Of a job whose worker dies.
MAX_RETRIES: Final = 3
_LOOK_S: Final = 1.0
_N_TRIES: Final = 3
_SCHEME: Final = "ray://"
#: What calls of a client raise whose server has gone.
_LOST: Final = (RayError, ConnectionError, RuntimeError, ValueError, grpc.RpcError)


class RayCluster:
    """A connection to the client server of a cluster; use it as a context. A process can have one at a time.

    Parameters
    ----------
    scheduler : str
        Such as ``ray://10.0.0.5:10001``.

    Raises
    ------
    ConfigError
        When nothing answers there, there are no workers, or they are not what is needed.
    """

    def __init__(self, scheduler: str) -> None:
        self._scheduler = scheduler
        self._terms = Terms(folder=str(Path.cwd()), versions=package_versions())
        with contextlib.ExitStack() as stack:
            stack.enter_context(_connected(scheduler))
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
        with contextlib.ExitStack() as stack:
            workers = _Workers(self._scheduler)
            try:
                stack.enter_context(workers.watched())
                kept = {id(value): ray.put(value) for value in shared}
                results = Parallel(
                    n_jobs=n_jobs,
                    backend=workers,
                    return_as="generator" if in_order else "generator_unordered",
                    pre_dispatch=n_jobs if n_jobs > 0 else "2 * n_jobs",
                )(
                    delayed(_do)(
                        self._terms, existing_paths(own_arguments(arguments, shared)), function,
                        *(kept.get(id(argument), argument) for argument in arguments),
                    )
                    for arguments in jobs
                )  # fmt: skip
                yield from yielded(results)
            except (RayError, ConnectionError, grpc.RpcError) as error:
                raise ClusterLostError(self._scheduler, _why(error)) from error

    def _check_workers(self) -> None:
        nodes = [node for node in _nodes() if node["Alive"] and node["Resources"].get("CPU")]
        if not nodes:
            raise ConfigError(
                "scheduler", f"{self._scheduler} has no workers; `ray start --address <head>:6379` on a machine adds it"
            )
        # Of the workers' own packages, before anything of ours is imported there.
        asked = {
            node["NodeManagerAddress"]: ray.remote(_version_reader())
            .options(scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False))
            .remote(PACKAGES)
            for node in nodes
        }
        wrong = {}
        for address, reference in asked.items():
            try:
                theirs = ray.get(reference, timeout=_FIRST_TASK_S)
            except GetTimeoutError as error:
                raise ConfigError(
                    "scheduler", f"the worker {address} has begun nothing within {_FIRST_TASK_S:g} s; is it busy?"
                ) from error
            except RayError as error:
                raise ConfigError("scheduler", f"the worker {address} does not work: {_gist(error)}") from error
            if why := difference(self._terms.versions, theirs):
                wrong[address] = why
        if wrong:
            raise ConfigError("scheduler", with_more(wrong))


class _Workers(ParallelBackendBase):  # type: ignore[misc]  # joblib has no types
    """joblib's back end: a job is a task, and its result is called back."""

    supports_retrieve_callback = True
    supports_return_generator = True

    def __init__(self, scheduler: str) -> None:
        super().__init__()
        self._scheduler = scheduler
        # A worker that dies is made up for; what a job raises is its result.
        self._task = ray.remote(_do).options(num_cpus=1, max_retries=MAX_RETRIES, retry_exceptions=False)
        self._waiting: dict[concurrent.futures.Future[Any], Any] = {}
        self._callbacks = concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="ray-results")

    def configure(self, n_jobs: int = 1, parallel: Parallel | None = None, **_options: object) -> int:
        """Take part in a call of `Parallel`; return how many jobs to hand out at a time."""
        self.parallel = parallel
        return self.effective_n_jobs(n_jobs)

    def effective_n_jobs(self, n_jobs: int) -> int:
        """Return how many jobs to hand out at a time."""
        n_workers = max(1, _n_cpus())
        # Of one at a time, joblib would think that this process may as well do it itself.
        return max(2, min(n_workers, n_jobs) if n_jobs > 0 else n_workers)

    def submit(self, func: Any, callback: Callable[[Any], object]) -> Any:  # noqa: ANN401 - joblib's own
        """Hand a batch of jobs, of which each has one, to the cluster; `callback` is told how it ended."""
        # Ours, which the watch may end too.
        future: concurrent.futures.Future[Any] = concurrent.futures.Future()

        def settle(theirs: concurrent.futures.Future[Any]) -> None:
            with contextlib.suppress(concurrent.futures.InvalidStateError):
                future.set_result(theirs)

        def tell(done: concurrent.futures.Future[Any]) -> None:
            self._waiting.pop(done, None)
            # Elsewhere: joblib hands out the next job from there, and the client's thread, which calls here, would wait
            # for an answer that only itself can bring.
            with contextlib.suppress(RuntimeError):  # nobody waits any more
                self._callbacks.submit(callback, done)

        future.add_done_callback(tell)
        try:
            reference = self._task.remote(*(part for call in func.items for part in call[1]))
            self._waiting[future] = reference
            reference.future().add_done_callback(settle)
        except _LOST as error:
            # Raised here, it would be lost where joblib hands out the next job.
            with contextlib.suppress(concurrent.futures.InvalidStateError):
                future.set_exception(ClusterLostError(self._scheduler, f"was lost: {_gist(error)}"))
        return future

    def retrieve_result_callback(self, out: Any) -> list[Any]:  # noqa: ANN401 - joblib's own
        """Return the results of a batch."""
        try:
            return [out.result().result()]
        except RayTaskError as error:
            # As it was raised, without the words of Ray around it.
            raise error.cause if isinstance(error.cause, Exception) else error from None

    def abort_everything(self, ensure_ready: bool = True) -> None:
        """Take back what has not begun."""
        for reference in list(self._waiting.values()):
            with contextlib.suppress(*_LOST):
                ray.cancel(reference, force=False)
        if ensure_ready and self.parallel is not None:
            self.configure(n_jobs=self.parallel.n_jobs, parallel=self.parallel)

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        """In the time of the block, give up what was given to a cluster that is gone, instead of waiting for ever."""
        stop = threading.Event()
        thread = threading.Thread(target=self._look, args=(stop,), name="ray-watch", daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            self._callbacks.shutdown(wait=False, cancel_futures=True)
            thread.join(ANSWER_S)

    def _look(self, stop: threading.Event) -> None:
        without_s = 0.0
        while not stop.wait(_LOOK_S):
            try:
                without_s = 0.0 if _n_cpus() else without_s + _LOOK_S
            except _LOST as error:
                why = f"was lost: it does not answer any more ({type(error).__name__})"
            else:
                if without_s < WITHOUT_WORKERS_S:
                    continue
                why = "was lost: all of its workers are gone"
            for future in list(self._waiting):
                with contextlib.suppress(concurrent.futures.InvalidStateError):
                    future.set_exception(ClusterLostError(self._scheduler, why))
            return


def _nodes() -> list[dict[str, Any]]:
    if not ray.is_initialized():
        raise ConnectionError("the connection has gone")
    found: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    return found


def _n_cpus() -> int:
    return int(sum(node["Resources"].get("CPU", 0) for node in _nodes() if node["Alive"]))


def _do(terms: Terms, paths: Sequence[Path], function: Callable[..., Any], *arguments: object) -> Any:  # noqa: ANN401
    """Do a job, in a task."""
    return do_job(str(ray.util.get_node_ip_address()), terms, paths, function, *arguments)  # type: ignore[no-untyped-call]


def _version_reader() -> Callable[[Sequence[str]], dict[str, str]]:
    def read(packages: Sequence[str]) -> dict[str, str]:
        # Sent as code, for it runs where this package may be missing.
        import importlib.metadata  # noqa: PLC0415
        import platform  # noqa: PLC0415

        found = {"python": platform.python_version()}
        for package in packages:
            try:
                found[package] = importlib.metadata.version(package)
            except importlib.metadata.PackageNotFoundError:
                continue
        return found

    return read


@contextlib.contextmanager
def _connected(scheduler: str) -> Iterator[None]:
    host, colon, port = scheduler.removeprefix(_SCHEME).rpartition(":")
    if not (scheduler.startswith(_SCHEME) and host and colon and port.isdecimal()):
        raise ConfigError("scheduler", f"expected an address such as ray://10.0.0.5:10001, got {scheduler!r}")
    nobody = ConfigError("scheduler", f"no Ray client server answers at {scheduler}")
    try:
        # The client itself tries a wrong address for half a minute.
        socket.create_connection((host.strip("[]"), int(port)), timeout=ANSWER_S).close()
    except (OSError, OverflowError, UnicodeError) as error:
        raise nobody from error
    for n_left in reversed(range(_N_TRIES)):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                ray.init(address=scheduler, logging_level=logging.CRITICAL, log_to_driver=False)
            break
        except ConnectionAbortedError as error:
            # It starts a process for each client, which now and then does not come up.
            if not n_left:
                raise ConfigError(
                    "scheduler", f"the Ray client server at {scheduler} failed: {_gist(error)}"
                ) from error
        except (ConnectionError, grpc.RpcError) as error:
            raise nobody from error
        except (RayError, RuntimeError, ValueError) as error:
            raise ConfigError("scheduler", f"cannot use the Ray cluster at {scheduler}: {_gist(error)}") from error
    try:
        yield
    finally:
        ray.shutdown()


def _why(error: Exception) -> str:
    match error:
        case WorkerCrashedError() | OutOfMemoryError():
            return (
                f"gave up: workers died of one job ({MAX_RETRIES + 1} of them); Ray's logs say why, often that it "
                "ran out of memory"
            )
        case _:
            return f"was lost: {_gist(error)}"


def _gist(error: Exception) -> str:
    """Return what an error says in one line: the last of them, for Ray puts the traceback of another process first."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
