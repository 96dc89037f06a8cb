"""What makes a release: workflows that call what there is, notes, and the verdict of the audit."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from stream_fp import __version__

ROOT: Final = Path(__file__).parents[2]
WORKFLOWS: Final = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
RELEASE: Final = ROOT / "deploy" / "release"


@pytest.mark.parametrize(
    ("schema", "path"),
    [*(("github-workflows", path) for path in WORKFLOWS), ("dependabot", ROOT / ".github" / "dependabot.yml")],
    ids=lambda value: value.name if isinstance(value, Path) else None,
)
def test_workflows_keep_to_their_schema(schema: str, path: Path) -> None:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", f"vendor.{schema}", str(path)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout


def test_workflows_call_targets_that_there_are() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    called = {
        word
        for path in WORKFLOWS
        for job in yaml.safe_load(path.read_text())["jobs"].values()
        for step in job.get("steps", [])
        if step.get("run", "").startswith("make ")
        for word in step["run"].split()[1:]
    }
    assert called == {"docs", "audit", "dist", "sbom"}
    assert called <= targets
    ci = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())
    assert ".ci/run" in [step.get("run") for step in ci["jobs"]["check"]["steps"]]
    assert os.access(ROOT / ".ci" / "run", os.X_OK)


#: Steps by which something leaves the workflow.
PUBLISHING: Final = ("pypa/gh-action-pypi-publish", "docker/build-push-action", "softprops/action-gh-release")


def test_nothing_is_published_before_all_is_checked_and_built() -> None:
    jobs = yaml.safe_load((ROOT / ".github" / "workflows" / "release.yml").read_text())["jobs"]
    publishing = {
        name: step["uses"].split("@")[0]
        for name, job in jobs.items()
        for step in job.get("steps", [])
        if step.get("uses", "").startswith(PUBLISHING)
    }
    assert sorted(publishing.values()) == sorted(PUBLISHING)
    assert {name for name, job in jobs.items() if "write" in job.get("permissions", {}).values()} == publishing.keys()
    called = {name: job["uses"] for name, job in jobs.items() if "uses" in job}
    assert called == {"check": "./.github/workflows/ci.yml"}
    assert "workflow_call" in triggers(ROOT / called["check"])
    for name in publishing:
        assert {"check", "build"} <= set(jobs[name]["needs"]), name
        assert "if" not in jobs[name], "a condition such as always() would not wait for success"
    order = ["pypi", "image", "release"]
    assert publishing.keys() == set(order)
    for before, after in pairwise(order):
        assert before in jobs[after]["needs"]


def triggers(path: Path) -> dict[str, Any]:
    """Return what starts a workflow; YAML reads the key `on` as true."""
    found: dict[str, Any] = yaml.safe_load(path.read_text())[True]
    return found


def test_workflow_tries_every_version_that_the_package_says_it_runs_on() -> None:
    ci = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())
    said = re.findall(r"Python :: (3\.\d+)", (ROOT / "pyproject.toml").read_text())
    assert ci["jobs"]["check"]["strategy"]["matrix"]["python"] == said


def test_version_is_one_everywhere() -> None:
    declared = re.search(r'^version = "(.*)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert declared is not None
    assert declared[1] == __version__


def notes(version: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, RELEASE / "notes.py", version], capture_output=True, text=True, check=False)


def test_notes_are_the_changelog_of_the_version() -> None:
    said = notes(__version__).stdout
    assert said.startswith("### ")
    assert said.strip() in (ROOT / "CHANGELOG.md").read_text()
    assert "## [" not in said


def audited(tmp_path: Path, answer: str, *, strict: bool) -> subprocess.CompletedProcess[str]:
    """Judge an answer of pip-audit, which a program of its name gives here: no database is to be had everywhere."""
    program = tmp_path / "pip-audit"
    program.write_text(f"#!/bin/sh\ncat <<'END'\n{answer}\nEND\n")
    program.chmod(0o755)
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "AUDIT_STRICT": "1" if strict else "0"}
    command = [sys.executable, str(RELEASE / "audit.py"), str(tmp_path)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


FINE: Final = {"name": "numpy", "version": "2.0", "vulns": []}
OURS: Final = {"name": "stream-fp", "skip_reason": "not found"}
UNKNOWN: Final = {"name": "click", "skip_reason": "not found"}
WEAK: Final = {"name": "old", "version": "1.0", "vulns": [{"id": "CVE-2020-1", "fix_versions": ["1.1"]}]}


@pytest.mark.parametrize(
    ("packages", "status", "status_strict", "words"),
    [
        ([FINE, OURS], 0, 0, "2 packages, 0 with known weaknesses"),
        ([], 0, 1, "NOT LOOKED UP: there is nothing in"),
        ([FINE, UNKNOWN], 0, 1, "NOT LOOKED UP: 1 of 2 packages"),
        ([FINE, WEAK], 1, 1, "old 1.0: CVE-2020-1, mended in 1.1"),
    ],
)
def test_audit_says_what_is_weak_and_what_was_not_looked_up(
    tmp_path: Path, packages: list[dict[str, Any]], status: int, status_strict: int, words: str
) -> None:
    answer = json.dumps({"dependencies": packages, "fixes": []})
    lenient = audited(tmp_path, answer, strict=False)
    assert lenient.returncode == status
    assert words in lenient.stdout + lenient.stderr
    assert audited(tmp_path, answer, strict=True).returncode == status_strict


def test_audit_without_an_answer_says_so(tmp_path: Path) -> None:
    ended = audited(tmp_path, "", strict=False)
    assert (ended.returncode, ended.stderr) == (0, "NOT LOOKED UP: pip-audit: no answer\n")
    assert audited(tmp_path, "", strict=True).returncode == 1
