"""What a worker of a Dask cluster does with a job: it looks whether it may, then calls the function.

The far side of `offline.dask_cluster`, which sends `on_worker` with every job. Workers may join at any time, so what is
asked of them is asked by each job, not only when the client connects.

Invariant: a job runs with the packages and the files of the client, in its working folder, or not at all.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.metadata
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from distributed import get_worker

from stream_fp.errors import ConfigError, DocumentError

__all__ = ["PACKAGES", "Terms", "difference", "on_worker", "package_versions", "too_many_threads"]

#: What the results depend on, beside Python: as a library records it (`offline.train.library_versions`), and for bars.
PACKAGES: Final = ("stream-fp", "numpy", "scikit-learn", "scipy", "joblib", "polars")


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What a worker keeps to; goes with every job.

    Attributes
    ----------
    folder : str
        Working folder of the client, in which relative paths mean the same; a library's path, spelled as it was given,
        is part of a prediction.
    versions : dict of str to str
    """

    folder: str
    versions: dict[str, str]


def on_worker(terms: Terms, paths: Sequence[Path], function: Callable[..., Any], *arguments: object) -> Any:  # noqa: ANN401
    """Do a job, on a worker that keeps to the terms."""
    worker = get_worker()
    # Those that came later were not seen by the client.
    if worker.state.nthreads != 1:
        raise ConfigError("scheduler", too_many_threads(worker.address, worker.state.nthreads))
    if why := difference(terms.versions, package_versions()):
        raise ConfigError("scheduler", f"expected workers with the packages of the client: {worker.address} has {why}")
    with contextlib.ExitStack() as stack:
        if Path(terms.folder).is_dir():
            stack.enter_context(contextlib.chdir(terms.folder))
        for path in paths:
            if not path.exists():
                raise DocumentError(
                    str(path),
                    f"is there for the client, but not for the worker {worker.address} (working in {Path.cwd()}); "
                    "workers need the same files under the same paths",
                )
        return function(*arguments)


@functools.cache
def package_versions() -> dict[str, str]:
    """Return the versions of this process, of Python and of those of `PACKAGES` that are installed."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    return found


def difference(ours: Mapping[str, str], theirs: Mapping[str, str | None]) -> str:
    """Say what differs in the versions of a worker; empty where nothing does."""
    return ", ".join(
        f"{name} {theirs.get(name) or 'not installed'} instead of {version}"
        for name, version in ours.items()
        if theirs.get(name) != version
    )


def too_many_threads(address: str, n_threads: int) -> str:
    """Say what is wrong with a worker that does several jobs at a time."""
    # The number of threads of the numeric libraries, which the last digits depend on, is one of the whole process.
    return f"the worker {address} has {n_threads} threads; start workers with --nthreads 1, as many as there are cores"
