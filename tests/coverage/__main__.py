"""See how much of the core the quick tests reach: `make coverage`, or

    python -m tests.coverage [--bound 98]

Lines and branches of the modules that know no I/O (the list is that of import-linter in `pyproject.toml`), by the
tests that need no broker, in a copy of this tree in which nothing is compiled. Prints what is not reached; the exit
status is not 0 where it is more than allowed.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Final

from tests.support.pure_tree import ROOT, copy_tree

BUILD: Final = ROOT / "build" / "coverage"
TESTS: Final = ("tests/unit/stream_fp", "tests/contract", "stream_fp")
_CORE: Final = "The core knows no I/O framework"


def main() -> None:
    """Run; the exit status tells whether enough is reached."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bound", type=float, default=98.0, help="per cent of lines and branches")
    given = parser.parse_args()
    tree = BUILD / "tree"
    copy_tree(tree)
    modules = ",".join(f"{name.replace('.', '/')}.py" for name in core_modules())
    # -P and no PYTHONPATH: nothing of the tree that this is a copy of.
    environment = {**os.environ, "COVERAGE_FILE": str(BUILD / "data"), "PYTHONPATH": str(tree)}
    run = [sys.executable, "-P", "-m", "coverage"]
    subprocess.run(
        [*run, "run", "--branch", f"--include={modules}", "-m", "pytest", "-q", "-p", "no:cacheprovider", *TESTS],
        cwd=tree, env=environment, check=True,
    )  # fmt: skip
    reported = subprocess.run(
        [*run, "report", "--show-missing", f"--fail-under={given.bound:g}", "--precision=1"],
        cwd=tree, env=environment, check=False,
    )  # fmt: skip
    subprocess.run([*run, "json", "-q", "-o", str(BUILD / "report.json")], cwd=tree, env=environment, check=True)
    sys.exit(reported.returncode)


def core_modules() -> list[str]:
    """Return the names of the core's modules."""
    contracts = tomllib.loads((Path(ROOT) / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (core,) = (contract["source_modules"] for contract in contracts if contract["name"] == _CORE)
    return list(core)


if __name__ == "__main__":
    main()
