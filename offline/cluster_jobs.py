"""What goes with a job to another machine, and what is asked there before it begins.

Used on both sides by the clusters that `offline.backends` knows, whose own parts are in `dask_cluster`, `dask_worker`,
and `ray_cluster`. Files do not travel: jobs name them, workers open them.

Invariant: a job runs with the packages and the files of the client, in its working folder, or not at all.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import importlib.metadata
import platform
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec

from stream_fp.errors import ConfigError, DocumentError

__all__ = ["PACKAGES", "Terms", "difference", "do_job", "existing_paths", "own_arguments", "package_versions",
           "with_more"]  # fmt: skip

#: What the results depend on, beside Python: as a library records it (`offline.train.library_versions`), and for bars.
PACKAGES: Final = ("stream-fp", "numpy", "scikit-learn", "scipy", "joblib", "polars")
_N_SHOWN: Final = 3


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


def do_job(worker: str, terms: Terms, paths: Sequence[Path], function: Callable[..., Any], *arguments: object) -> Any:  # noqa: ANN401 - whatever the function returns
    """Do a job where the terms are kept.

    Parameters
    ----------
    worker : str
        What errors call the one that does it.
    terms : Terms
    paths : sequence of Path
        What has to be there.
    function : callable
    *arguments : object

    Raises
    ------
    ConfigError
        When packages differ from those of the client.
    DocumentError
        When a path is not there.
    """
    if why := difference(terms.versions, package_versions()):
        raise ConfigError("scheduler", f"expected workers with the packages of the client: {worker} has {why}")
    with contextlib.ExitStack() as stack:
        if Path(terms.folder).is_dir():
            stack.enter_context(contextlib.chdir(terms.folder))
        for path in paths:
            if not path.exists():
                raise DocumentError(
                    str(path),
                    f"is there for the client, but not for the worker {worker} (working in {Path.cwd()}); "
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


def with_more(wrong: Mapping[str, str]) -> str:
    """Say what is wrong with each of the first workers, and with how many more."""
    shown = "; ".join(f"{worker} has {why}" for worker, why in list(wrong.items())[:_N_SHOWN])
    more = f"; and {len(wrong) - _N_SHOWN} more workers" if len(wrong) > _N_SHOWN else ""
    return f"expected workers with the packages of this process: {shown}{more}"


def own_arguments(arguments: Sequence[object], shared: Sequence[object]) -> list[object]:
    """Return the arguments of a job that are not among those shared by many."""
    return [argument for argument in arguments if not any(argument is other for other in shared)]


def existing_paths(value: object) -> list[Path]:
    """Return the paths in the arguments of a job that name something here: a worker must have them as well.

    Looks into tuples, lists, mappings, dataclasses and structures. Nothing is opened.
    """
    match value:
        case Path():
            return [value] if value.exists() else []
        case tuple() | list():
            parts: Iterable[object] = value
        case Mapping():
            parts = value.values()
        case msgspec.Struct():
            parts = (getattr(value, name) for name in value.__struct_fields__)
        case _ if dataclasses.is_dataclass(value) and not isinstance(value, type):
            parts = (getattr(value, field.name) for field in dataclasses.fields(value))
        case _:
            return []
    return [path for part in parts for path in existing_paths(part)]
