"""Each module says what it offers: `__all__` is sorted and complete, and everything in it is documented."""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import stream_fp

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType

MODULES = sorted(
    name
    for _, name, _ in pkgutil.walk_packages(stream_fp.__path__, "stream_fp.")
    if not name.endswith("__main__")  # starts the program
)
#: A package whose docstring says it all offers nothing itself.
EMPTY_PACKAGES = {name for name in MODULES if name in {"stream_fp.kafka", "stream_fp.sinks"}}


@pytest.fixture(params=sorted({*MODULES, "stream_fp"} - EMPTY_PACKAGES))
def module(request: pytest.FixtureRequest) -> ModuleType:
    return importlib.import_module(request.param)


def public_definitions(module: ModuleType) -> set[str]:
    """Names of the functions and classes that a module defines; a click command is no function any more."""
    file = Path(str(module.__file__))  # of a compiled module the library, which has the source beside it
    tree = ast.parse(file.with_name(f"{file.name.partition('.')[0]}.py").read_text())
    names = {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)}
    return {
        name
        for name in names
        if not name.startswith("_")
        and (inspect.isroutine(getattr(module, name)) or inspect.isclass(getattr(module, name)))
    }


def documented_things(module: ModuleType) -> Iterator[tuple[str, object]]:
    for name in module.__all__:
        thing = getattr(module, name)
        if inspect.isroutine(thing):
            yield name, thing
        elif inspect.isclass(thing):
            yield name, thing
            for attribute, member in vars(thing).items():
                public = not attribute.startswith("_")
                if public and (inspect.isroutine(member) or isinstance(member, property | classmethod | staticmethod)):
                    yield f"{name}.{attribute}", member


def test_module_opens_with_a_docstring(module: ModuleType) -> None:
    assert (module.__doc__ or "").strip()


def test_public_names_are_sorted_and_exist(module: ModuleType) -> None:
    names = module.__all__
    assert list(names) == sorted(set(names), key=_isort_order)
    assert [name for name in names if not hasattr(module, name)] == []


def _isort_order(name: str) -> tuple[int, str]:
    """Constants first, then classes, then the rest, as ruff sorts `__all__`."""
    bare = name.strip("_")
    kind = 0 if bare.isupper() and len(bare) > 1 else 1 if bare[:1].isupper() else 2
    return kind, name


def test_no_public_definition_is_left_out(module: ModuleType) -> None:
    assert public_definitions(module) - set(module.__all__) == set()


def test_everything_public_has_a_docstring(module: ModuleType) -> None:
    assert [
        name for name, thing in documented_things(module) if not (getattr(thing, "__doc__", None) or "").strip()
    ] == []
