"""Building without a C compiler: a warning, and the Python that it is."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.package import copied_sources


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """What a build needs of the project, with nothing compiled."""
    return copied_sources(tmp_path)


def built(tree: Path, **environment: str) -> str:
    """Build in place and return what was written to standard error."""
    command = [sys.executable, "setup.py", "--quiet", "build_ext", "--inplace"]
    ended = subprocess.run(
        command, cwd=tree, env={**os.environ, **environment}, capture_output=True, text=True, check=False, timeout=170
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stderr


def is_compiled(tree: Path) -> str:
    program = "from stream_fp import engine, stamps; print(stamps.IS_COMPILED, engine.__file__)"
    return subprocess.run(
        [sys.executable, "-c", program], cwd=tree, capture_output=True, text=True, check=True, timeout=60
    ).stdout


def test_without_a_compiler_everything_stays_python_and_says_so(tree: Path) -> None:
    said = built(tree, CC="/nonexistent/cc")
    assert "stays Python" in said
    assert is_compiled(tree) == f"False {tree / 'stream_fp' / 'engine.py'}\n"


def test_pure_build_compiles_nothing(tree: Path) -> None:
    built(tree, STREAM_FP_PURE="1")
    assert list(tree.rglob("*.so")) == []
    assert is_compiled(tree).startswith("False ")
