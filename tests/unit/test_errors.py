from __future__ import annotations

import pickle
import re
from pathlib import Path

import pytest

from stream_fp import errors
from stream_fp.errors import (
    ConfigError,
    DocumentError,
    FeatureDimensionError,
    ModelLoadError,
    ModelNotFoundError,
    OffsetLostError,
    RecordDecodeError,
    RecordInvalidError,
    StalledError,
    StreamFpError,
    TopicMissingError,
)

CLASSES = {
    name: thing for name, thing in vars(errors).items() if isinstance(thing, type) and issubclass(thing, Exception)
}
#: Indentation, name and named built-in of each line of the tree in the module's docstring.
_LINE = re.compile(r"^    ([│├└─ ]*)(\w+)(?: +\((\w+)\))?", re.MULTILINE)
BUILTINS: dict[str, type[Exception]] = {
    "ValueError": ValueError, "FileNotFoundError": FileNotFoundError, "RuntimeError": RuntimeError,
}  # fmt: skip
EXAMPLES = (
    ConfigError("grace_s", "expected a number above 0, got -1", source="flag"),
    ModelNotFoundError(Path("models/none")),
    ModelLoadError("metadata.json: No such file"),
    FeatureDimensionError(30, 17),
    RecordDecodeError("expected JSON"),
    RecordInvalidError("expected a key"),
    DocumentError("file.json", "expected a list"),
    TopicMissingError("session-events", "input_topic"),
    OffsetLostError("session-events", 3, "the committed offset 17 is gone"),
    StalledError({"session-events[3]": "no progress for 300 s"}, 300.0),
)


def drawn_tree() -> dict[str, tuple[str | None, str | None]]:
    """Return parent and built-in of every class drawn in the docstring."""
    tree: dict[str, tuple[str | None, str | None]] = {}
    path: list[tuple[int, str]] = []
    for indent, name, builtin in _LINE.findall((errors.__doc__ or "").partition("::")[2]):
        if name not in CLASSES:
            continue
        while path and path[-1][0] >= len(indent):
            path.pop()
        tree[name] = (path[-1][1] if path else None, builtin or None)
        path.append((len(indent), name))
    return tree


def test_drawn_tree_is_the_tree_of_classes() -> None:
    tree = drawn_tree()
    assert set(tree) == set(CLASSES) == set(errors.__all__)
    for name, (parent, builtin) in tree.items():
        bases = CLASSES[name].__bases__
        assert bases[0] is (Exception if parent is None else CLASSES[parent]), name
        if builtin is not None:
            assert BUILTINS[builtin] in bases, name


@pytest.mark.parametrize("name", errors.__all__)
def test_every_error_is_of_the_one_tree_and_says_when_it_is_raised(name: str) -> None:
    assert issubclass(CLASSES[name], StreamFpError)
    assert re.match(r"Raised when |Base of ", CLASSES[name].__doc__ or "")


@pytest.mark.parametrize("error", EXAMPLES, ids=lambda error: type(error).__name__)
def test_error_says_the_facts_it_was_given(error: StreamFpError) -> None:
    text = str(error)
    facts = [value for value in vars(error).values() if isinstance(value, str | int | Path)]
    assert text
    assert all(str(fact) in text for fact in facts)


def test_every_error_that_can_be_made_is_among_the_examples() -> None:
    leaves = {name for name, thing in CLASSES.items() if not thing.__subclasses__()}
    assert {type(error).__name__ for error in EXAMPLES} == leaves


def test_stage_of_a_record_error_is_where_it_happened() -> None:
    assert (RecordDecodeError("x").stage, RecordInvalidError("x").stage) == ("decode", "apply")


@pytest.mark.parametrize("error", EXAMPLES, ids=lambda error: type(error).__name__)
def test_error_of_a_worker_process_arrives_as_it_was_raised(error: StreamFpError) -> None:
    # As joblib brings an error from a worker; an error with an `__init__` of its own often fails to come back.
    arrived = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own bytes
    assert type(arrived) is type(error)
    assert (str(arrived), vars(arrived)) == (str(error), vars(error))
