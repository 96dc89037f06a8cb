"""Change the core in thousands of small ways and see whether the tests notice: `make mutation`, or

    python -m tests.mutation [--jobs N] [--only PATTERN]

mutmut makes the changes, in a copy of what git knows of this tree (so that nothing compiled hides them), and runs the
tests of the core against each. What no test notices is listed with its diff, and with the reason where
`tests/mutation/survivors.toml` has one. The exit status is not 0 where fewer than nine in ten are noticed.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import os
import subprocess
import sys
import tomllib
from collections import Counter
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.table import Table

from tests.support.pure_tree import ROOT, copy_tree

BUILD: Final = ROOT / "build" / "mutation"
TREE: Final = BUILD / "tree"
REASONS: Final = Path(__file__).parent / "survivors.toml"
MODULES: Final = ("features", "completion", "sessions", "engine")
#: Quick ones first: mutmut stops at the first that fails.
TESTS: Final = (
    *(f"tests/unit/stream_fp/test_{name}.py" for name in
      ("features", "completion", "sessions", "engine", "open_sessions", "predictor", "documents", "api")),
    *(f"tests/contract/test_{name}.py" for name in
      ("feature_purity", "batches", "lookahead", "rebuild", "core_properties", "fuzz_corpus")),
    "tests/unit/stream_fp/replay/test_player.py", "tests/contract/test_follower.py",
)  # fmt: skip
#: Of mutants that are noticed.
BOUND: Final = 0.9
_KILLED: Final = ("killed", "timeout", "segfault", "caught by type check")


def main() -> None:
    """Run; the exit status tells whether enough was noticed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--only", default="", help="names of mutants as mutmut has them: engine.* for instance")
    parser.add_argument("--keep", action="store_true", help="go on with what the last run has found out")
    given = parser.parse_args()
    if not given.keep or not TREE.exists():
        _prepare()
    only = [f"stream_fp.{given.only}"] if given.only else []
    environment = {**os.environ, "PYTHONPATH": ""}
    ended = subprocess.run(
        [sys.executable, "-m", "mutmut", "run", "--max-children", str(given.jobs), *only],
        cwd=TREE, env=environment, check=False,
    )  # fmt: skip
    if ended.returncode != 0:
        sys.exit(ended.returncode)
    _report(_results(environment), environment)


def _prepare() -> None:
    copy_tree(TREE)
    others = sorted(path.name for path in TREE.iterdir() if path.name not in {"stream_fp", "tests", "pyproject.toml"})
    settings = {
        "source_paths": ["stream_fp"],
        "only_mutate": [f"stream_fp/{name}.py" for name in MODULES],
        "also_copy": others,
        "pytest_add_cli_args": ["-p", "no:cacheprovider", "-p", "no:randomly", "--no-header", "-x", "-q"],
        "pytest_add_cli_args_test_selection": list(TESTS),
        "use_git_change_detection": False,
    }
    lines = [f"{name} = {json.dumps(value)}" for name, value in settings.items()]
    with (TREE / "pyproject.toml").open("a") as file:
        file.write("\n".join(["", "[tool.mutmut]", *lines, ""]))


def _results(environment: dict[str, str]) -> dict[str, str]:
    """Return what became of each mutant, by name."""
    text = subprocess.run(
        [sys.executable, "-m", "mutmut", "results", "--all", "true"],
        cwd=TREE, env=environment, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    pairs = (line.strip().rpartition(": ") for line in text.splitlines() if ": " in line)
    return {name: outcome for name, _, outcome in pairs if outcome != "not checked"}


def _report(results: dict[str, str], environment: dict[str, str]) -> None:
    if not results:
        sys.exit("no mutant was tried")
    console = Console()
    reasons = tomllib.loads(REASONS.read_text())
    table = Table("module", "mutants", "noticed", "share", "not noticed")
    survivors = {name: outcome for name, outcome in results.items() if outcome not in _KILLED}
    for module in MODULES:
        mine = Counter(
            outcome in _KILLED for name, outcome in results.items() if name.startswith(f"stream_fp.{module}.")
        )
        if total := mine.total():
            table.add_row(module, f"{total:,}", f"{mine[True]:,}", f"{mine[True] / total:.1%}", f"{mine[False]:,}")
    listed = []
    for name, outcome in sorted(survivors.items()):
        diff = subprocess.run(
            [sys.executable, "-m", "mutmut", "show", name],
            cwd=TREE, env=environment, capture_output=True, text=True, check=True,
        ).stdout  # fmt: skip
        why = next((reason for pattern, reason in reasons.items() if fnmatch.fnmatch(name, pattern)), "")
        listed.append({"name": name, "outcome": outcome, "reason": why, "diff": diff})
    noticed = 1 - len(survivors) / max(1, len(results))
    BUILD.mkdir(parents=True, exist_ok=True)
    (BUILD / "report.json").write_text(json.dumps({"n": len(results), "share": noticed, "survivors": listed}, indent=1))
    for one in listed:
        console.print(f"[bold]{one['name']}[/] {one['outcome']} {one['reason']}")
        console.print(one["diff"], markup=False, highlight=False)
    console.print(table)
    console.print(f"{len(results):,} mutants, {noticed:.1%} noticed, {len(survivors)} not")
    sys.exit(noticed < BOUND)


if __name__ == "__main__":
    main()
