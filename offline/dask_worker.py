"""What a worker of a Dask cluster does with a job: it looks whether it may, then calls the function.

The far side of `offline.dask_cluster`, which sends `on_worker` with every job. Workers may join at any time, so what is
asked of them is asked by each job, not only when the client connects.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from distributed import get_worker

from offline.cluster_jobs import Terms, do_job
from stream_fp.errors import ConfigError

__all__ = ["on_worker", "too_many_threads"]


def on_worker(terms: Terms, paths: Sequence[Path], function: Callable[..., Any], *arguments: object) -> Any:  # noqa: ANN401
    """Do a job, on a worker that keeps to the terms."""
    worker = get_worker()
    # Those that came later were not seen by the client.
    if worker.state.nthreads != 1:
        raise ConfigError("scheduler", too_many_threads(worker.address, worker.state.nthreads))
    return do_job(worker.address, terms, paths, function, *arguments)


def too_many_threads(address: str, n_threads: int) -> str:
    """Say what is wrong with a worker that does several jobs at a time."""
    # The number of threads of the numeric libraries, which the last digits depend on, is one of the whole process.
    return f"the worker {address} has {n_threads} threads; start workers with --nthreads 1, as many as there are cores"
