"""The online service imports nothing that unpickles, and no library is ever unpickled while it is loaded."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.support.builders import write_tiny_library

if TYPE_CHECKING:
    from pathlib import Path

SERVICE_MODULES = ("stream_fp", "stream_fp.service", "stream_fp.cli", "stream_fp.replay")
#: Run in a process of its own, because this one has imported half the world.
IMPORT = """
import importlib, sys
importlib.import_module({module!r})
forbidden = {{"sklearn", "scipy", "joblib", "pandas", "polars", "matplotlib", "jinja2", "offline", "confluent_kafka"}}
print(*sorted(forbidden & {{name.partition(".")[0] for name in sys.modules}}))
"""
#: Every way to unpickle replaced by a refusal (and seen to refuse), then a library is loaded.
LOAD = """
import io, pickle, sys
from pathlib import Path

def refuse(*args, **kwargs):
    print("unpickled")
    raise AssertionError("unpickled")

class Refusing(pickle.Unpickler):
    __init__ = refuse

import _pickle
pickle.load = pickle.loads = _pickle.load = _pickle.loads = refuse
pickle.Unpickler = _pickle.Unpickler = pickle._Unpickler = Refusing
try:
    pickle.Unpickler(io.BytesIO())
except AssertionError:
    print("refused")
from stream_fp import create_online_classifier
from stream_fp.library import load_library
library = load_library(Path(sys.argv[1]))
classifier = create_online_classifier(enabled=True, model_path=sys.argv[1])
print(library.version, classifier.config.enabled)
"""


def output_of(code: str, *arguments: str) -> list[str]:
    process = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True, timeout=60
    )
    return process.stdout.split()


@pytest.mark.parametrize("module", SERVICE_MODULES)
def test_importing_the_online_package_brings_in_nothing_of_the_offline_one(module: str) -> None:
    assert output_of(IMPORT.format(module=module)) == []


def test_loading_a_library_never_unpickles(tmp_path: Path) -> None:
    printed = output_of(LOAD, str(write_tiny_library(tmp_path / "library")))
    assert printed == ["unpickled", "refused", "0.0.1", "True"]  # the first two show that the trap works
