"""What users get: wheel and sdist, built from a copy of the sources, and a clean environment with the wheel in it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

__all__ = ["ROOT", "built", "clean_environment", "copied_sources", "python_for_everybody"]

ROOT: Final = Path(__file__).resolve().parents[2]
_FILES: Final = ("setup.py", "pyproject.toml", "README.md", "LICENSE")


def copied_sources(folder: Path) -> Path:
    """Copy what a build needs, with nothing compiled; return `folder`."""
    left_out = shutil.ignore_patterns("*.so", "*.pyd", "__pycache__")
    for name in ("stream_fp", "offline"):
        shutil.copytree(ROOT / name, folder / name, ignore=left_out)
    for name in _FILES:
        shutil.copy(ROOT / name, folder)
    return folder


def built(sources: Path) -> tuple[Path, Path]:
    """Build sdist and pure wheel; return their paths."""
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(sources / "dist"), str(sources)]
    environment = {**os.environ, "STREAM_FP_PURE": "1"}
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    (sdist,) = (sources / "dist").glob("*.tar.gz")
    (wheel,) = (sources / "dist").glob("*.whl")
    return sdist, wheel


def python_for_everybody() -> str | None:
    """Return a Python that other users may run too: ours, or the system's where ours lies in somebody's home."""
    for candidate in (os.path.realpath(sys.executable), "/usr/bin/python3"):
        path = Path(candidate)
        if not path.exists() or not all(parent.stat().st_mode & 0o005 == 0o005 for parent in path.parents):
            continue
        suits = "import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))"
        if subprocess.run([candidate, "-c", suits], capture_output=True, check=False).returncode == 0:
            return candidate
    return None


def clean_environment(folder: Path, wheel: Path) -> Path:
    """Make a virtual environment with the wheel, and what it needs, and nothing else; return its programs' folder."""
    subprocess.run([python_for_everybody() or sys.executable, "-m", "venv", folder], check=True)
    install = [str(folder / "bin/python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", str(wheel)]
    ended = subprocess.run(install, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    return folder / "bin"
