"""Where the jobs of the offline commands run: on this machine, or on a cluster of Dask or Ray.

Between the commands, which are told ``--backend`` and ``--scheduler``, and whoever has many jobs: `offline.dataset`,
`offline.selection`, `offline.ab`, `offline.event_files`, and replay in parts, which finds `part_runner` by its name.
All of them hand a function and its arguments to `Backend.run`, which is joblib's `Parallel` in either case;
`offline.dask_cluster` and `offline.ray_cluster` have what concerns a cluster, and are imported only where one is asked
for.

Invariant: what comes out is the same, bit for bit, wherever the jobs run and however many at a time.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal, TypeVar, get_args

from stream_fp.errors import ConfigError, StreamFpError

if TYPE_CHECKING:
    from offline.dask_cluster import DaskCluster
    from offline.ray_cluster import RayCluster

__all__ = ["BACKENDS", "LOCAL", "Backend", "BackendKind", "ClusterLostError", "open_backend", "part_runner",
           "yielded"]  # fmt: skip

BackendKind = Literal["local", "dask", "ray"]
BACKENDS: Final[tuple[BackendKind, ...]] = get_args(BackendKind)

#: What is asked for where a cluster is and its address is not.
_ADDRESSES: Final = {
    "dask": "the address of a Dask scheduler, such as tcp://10.0.0.5:8786, got none; `dask scheduler` starts one and "
    "says its address",
    "ray": "the address of a Ray client server, such as ray://10.0.0.5:10001, got none; `ray start --head` starts one",
}

Job = TypeVar("Job")
Result = TypeVar("Result")


class ClusterLostError(StreamFpError, RuntimeError):
    """Raised when a cluster gives up what it was given: scheduler or workers are gone, or a job kills its workers.

    Parameters
    ----------
    scheduler : str
        Its address.
    why : str
    """

    def __init__(self, scheduler: str, why: str) -> None:
        super().__init__(f"the cluster at {scheduler} {why}")
        self.scheduler = scheduler


@dataclass(frozen=True, slots=True, kw_only=True)
class Backend:
    """Runs jobs. `LOCAL` is the one of this machine; `open_backend` connects to others.

    Attributes
    ----------
    kind : {"local", "dask", "ray"}
    scheduler : str or None
        Address of the cluster's scheduler, as it was given.
    """

    kind: BackendKind = "local"
    scheduler: str | None = None
    _cluster: DaskCluster | RayCluster | None = field(default=None, repr=False)

    @property
    def is_cluster(self) -> bool:
        """Whether jobs leave this process however few they are, so that it opens none of the files that they read."""
        return self._cluster is not None

    def run(
        self,
        function: Callable[..., Result],
        jobs: Iterable[tuple[Any, ...]],
        *,
        n_jobs: int = -1,
        in_order: bool = True,
        shared: Sequence[object] = (),
    ) -> Iterator[Result]:
        """Call a function once for each job, and yield what it returns.

        Parameters
        ----------
        function : callable
            Of a module, so that other processes find it by its name.
        jobs : iterable of tuple
            The arguments of each call.
        n_jobs : int
            Jobs at a time; -1 is one a core of this machine, or all workers of a cluster.
        in_order : bool
            In the order of the jobs, else as they end.
        shared : sequence of object
            Large arguments, the same of many jobs: they are sent to each worker of a cluster once, instead of with each
            job.

        Raises
        ------
        DocumentError
            When a file that a job names is not there on a worker.
        ClusterLostError
            When the cluster gives up.
        """
        if self._cluster is not None:
            yield from self._cluster.run(function, jobs, n_jobs=n_jobs, in_order=in_order, shared=shared)
            return
        from joblib import Parallel, delayed  # noqa: PLC0415 - the command line looks at this module for its choices

        parallel = Parallel(n_jobs=n_jobs, return_as="generator" if in_order else "generator_unordered")
        call = delayed(function)
        yield from yielded(parallel(call(*arguments) for arguments in jobs))


#: Processes of this machine.
LOCAL: Final = Backend()


def yielded(results: Generator[Result]) -> Iterator[Result]:
    """Yield from the generator of a `Parallel`; where the caller wants no more, end it without joblib's warning."""
    try:
        for result in results:  # noqa: UP028 - `yield from` would hand the end on before the warning is off
            yield result
    finally:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", r".*tasks (have been|which were)", UserWarning)
            results.close()


@contextlib.contextmanager
def open_backend(kind: str, scheduler: str | None = None) -> Iterator[Backend]:
    """Connect to what runs jobs, for the time of the block.

    Parameters
    ----------
    kind : {"local", "dask", "ray"}
    scheduler : str, optional
        Address of a Dask scheduler, such as ``tcp://10.0.0.5:8786``, or of a Ray client server, such as
        ``ray://10.0.0.5:10001``; needed by ``dask`` and ``ray``, and by nothing else.

    Raises
    ------
    ConfigError
        When `kind` is none of `BACKENDS` or its package is not installed, the address is missing, is of no use or
        does not answer, or the workers differ from this process in a version that matters.
    """
    if kind not in BACKENDS:
        raise ConfigError("backend", f"expected {', '.join(BACKENDS[:-1])} or {BACKENDS[-1]}, got {kind!r}")
    if kind == "local":
        if scheduler is not None:
            raise ConfigError("scheduler", f"is for --backend dask or ray, got {scheduler!r} with the backend local")
        yield LOCAL
        return
    if not scheduler:
        raise ConfigError("scheduler", f"expected {_ADDRESSES[kind]}")
    cluster: DaskCluster | RayCluster
    try:
        if kind == "dask":
            from offline.dask_cluster import DaskCluster  # noqa: PLC0415 - needs the extra `dask`

            connect: Callable[[str], DaskCluster | RayCluster] = DaskCluster
        else:
            from offline.ray_cluster import RayCluster  # noqa: PLC0415 - needs the extra `ray`

            connect = RayCluster
    except ModuleNotFoundError as error:
        raise ConfigError(
            "backend", f"{kind} needs `{error.name}`, which is not installed: pip install 'stream-fp[offline,{kind}]'"
        ) from error
    with connect(scheduler) as cluster:
        yield Backend(kind=kind, scheduler=scheduler, _cluster=cluster)


@contextlib.contextmanager
def part_runner(
    backend: str, scheduler: str | None, n_workers: int
) -> Iterator[Callable[[Callable[[Job], Result], Sequence[Job]], Iterator[Result]]]:
    """Open what runs the parts of a replay: a function that calls another for each job and yields results as they come.

    What ``stream_fp.extensions`` names `runner`. May be used from any thread; use it from one at a time.

    Parameters
    ----------
    backend : {"local", "dask", "ray"}
    scheduler : str or None
        See `open_backend`.
    n_workers : int
        Jobs at a time; -1 is one a core of this machine, or all workers of a cluster.

    Raises
    ------
    ConfigError
        As `open_backend`.
    """
    with open_backend(backend, scheduler) as opened:

        def run(function: Callable[[Job], Result], jobs: Sequence[Job]) -> Iterator[Result]:
            return opened.run(function, ((job,) for job in jobs), n_jobs=n_workers or -1, in_order=False)

        yield run
