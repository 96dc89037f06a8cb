"""Fuzz what reads bytes from outside, guided by coverage: `make fuzz`, or

    python -m tests.fuzz [TARGET ...] [--executions N] [--jobs N] [--keep]

Each target is a process of its own that begins with the corpus in `tests/fuzz/corpus` and with what earlier runs have
found worth keeping: in `build/fuzz/corpus`, and in the zip files of the corpus, which `--keep` writes anew. A finding
ends its target, and its input is written to `build/fuzz/findings`; put it into the corpus, whose inputs are part of
`make test`, and mend what it shows.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import time
import zipfile
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.table import Table

ROOT: Final = Path(__file__).resolve().parents[2]
BUILD: Final = ROOT / "build" / "fuzz"
CORPUS: Final = Path(__file__).parent / "corpus"
#: Of all executions, by how much code each target reaches and how fast it is. An input of `engine` is a stream of a
#: dozen records or more, which three engines take; those of `artifacts` and `bars` are files that are written and read.
SHARES: Final = {"engine": 0.1, "records": 0.5, "documents": 0.35, "settings": 0.045, "bars": 0.003, "artifacts": 0.002}
#: Of inputs; records of a megabyte are measured by `benchmarks/hostile_records.py`.
_MAX_BYTES: Final = {
    "engine": 2000, "records": 500, "documents": 2000, "settings": 500, "artifacts": 64, "bars": 400,
}  # fmt: skip
_TIMEOUT_S: Final = 10
_TELL_S: Final = 60.0
_MEMORY_MB: Final = 2048


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What came of one target."""

    target: str
    n_executions: int
    n_features: int
    """Distinct pieces of coverage, as libFuzzer counts them."""
    n_corpus: int
    took_s: float
    finding: str


def main() -> None:
    """Run the fuzzers, print a table, write JSON; exits with 1 where there is a finding."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("targets", nargs="*", choices=[[], *SHARES], metavar="TARGET", help=", ".join(SHARES))
    parser.add_argument("--executions", type=int, default=1_000_000, help="of all targets together")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="targets at a time")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", action="store_true", help="keep what was found worth it in the corpus of the project")
    given = parser.parse_args()
    try:
        import atheris  # noqa: F401, PLC0415 - to say so before anything is begun
    except ModuleNotFoundError:
        sys.exit("fuzzing needs atheris: it comes with the extra `fuzz` (Linux, x86-64)")
    chosen = given.targets or list(SHARES)
    total = sum(SHARES[name] for name in chosen)
    source = _interpreted()
    console = Console()
    with ThreadPoolExecutor(given.jobs) as pool:
        shares = {name: round(given.executions * SHARES[name] / total) for name in chosen}
        running = {pool.submit(_run, name, n, given.seed, source): name for name, n in shares.items()}
        results, waiting = [], set(running)
        while waiting:
            done, waiting = wait(waiting, _TELL_S, FIRST_COMPLETED)
            for one in done:
                results.append(one.result())
                last = results[-1]
                console.print(f"{last.target}: {last.n_executions:,} executions, {last.finding or 'no finding'}")
            if not done:
                _tell_progress(console, {running[one]: shares[running[one]] for one in waiting if one.running()})
    if given.keep:
        for name in chosen:
            _keep(name)
    _report(console, results, given.seed)
    sys.exit(any(result.finding for result in results))


def _tell_progress(console: Console, running: dict[str, int]) -> None:
    for name, n in running.items():
        log = BUILD / f"{name}.log"
        if log.exists() and (counted := re.findall(r"^#(\d+)\s", log.read_text("utf-8", "replace"), re.MULTILINE)):
            console.print(f"{name}: {int(counted[-1]):,} of {n:,} executions")


def _keep(name: str) -> None:
    """Write what is kept into the project's corpus."""
    with zipfile.ZipFile(CORPUS / f"{name}.zip", "w") as archive:
        for path in sorted((BUILD / "corpus" / name).iterdir()):
            archive.writestr(zipfile.ZipInfo(path.name), path.read_bytes(), zipfile.ZIP_DEFLATED)


def _child(name: str, *flags: str) -> list[str]:
    # -P: not from here, where the compiled ones lie.
    return [sys.executable, "-P", "-m", "tests.fuzz.child", name, str(BUILD / "work" / name), *flags]


def _environment(source: Path) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": f"{source}{os.pathsep}{ROOT}"}


def _interpreted() -> Path:
    """Copy the sources without what is compiled of them: only those tell what an input has reached."""
    source = BUILD / "source"
    shutil.rmtree(source, ignore_errors=True)
    for package in ("stream_fp", "offline"):
        shutil.copytree(ROOT / package, source / package, ignore=shutil.ignore_patterns("*.so", "*.c", "__pycache__"))
    return source


def _run(name: str, n_executions: int, seed: int, source: Path) -> Result:
    kept, findings, folder = BUILD / "corpus" / name, BUILD / "findings", BUILD / "work" / name
    for path in (kept, findings, folder):
        path.mkdir(parents=True, exist_ok=True)
    if (found := CORPUS / f"{name}.zip").exists():
        zipfile.ZipFile(found).extractall(kept)
    given = CORPUS / name
    command = _child(
        name, f"-runs={n_executions}", f"-seed={seed}", f"-max_len={_MAX_BYTES[name]}", f"-timeout={_TIMEOUT_S}",
        f"-rss_limit_mb={_MEMORY_MB}", f"-artifact_prefix={findings}/{name}-", "-print_final_stats=1", str(kept),
        str(given),
    )  # fmt: skip
    if (words := CORPUS / f"{name}.dict").exists():
        command.insert(-2, f"-dict={words}")
    started_s = time.monotonic()
    log = BUILD / f"{name}.log"
    with log.open("wb") as output:
        ended = subprocess.run(command, stdout=output, stderr=output, env=_environment(source), cwd=ROOT, check=False)
    text = log.read_text("utf-8", "replace")
    counted = re.findall(r"stat::number_of_executed_units:\s*(\d+)", text) or re.findall(r"#(\d+)\s", text)
    features = re.findall(r"\bft: (\d+)", text)
    finding = ""
    if ended.returncode != 0:
        written = re.findall(r"Test unit written to (\S+)", text)
        finding = f"{_last_error(text)}; input: {written[-1] if written else 'none'}; log: {log}"
    return Result(
        target=name,
        n_executions=int(counted[-1]) if counted else 0,
        n_features=int(features[-1]) if features else 0,
        n_corpus=sum(1 for _ in kept.iterdir()),
        took_s=round(time.monotonic() - started_s, 1),
        finding=finding,
    )


def _last_error(log: str) -> str:
    lines = re.findall(r"^(?:\w+\.)*\w*(?:Error|Exception|ERROR)\b.*$", log, re.MULTILINE)
    return lines[0].strip() if lines else "it ended early"


def _report(console: Console, results: list[Result], seed: int) -> None:
    table = Table("target", "executions", "a second", "coverage", "inputs kept", "finding")
    for one in results:
        table.add_row(
            one.target, f"{one.n_executions:,}", f"{one.n_executions / max(one.took_s, 1e-9):,.0f}",
            f"{one.n_features:,}", f"{one.n_corpus:,}", one.finding or "none",
        )  # fmt: skip
    console.print(table)
    console.print(f"{sum(one.n_executions for one in results):,} executions in all")
    (BUILD / "report.json").write_text(
        json.dumps({"seed": seed, "results": [asdict(one) for one in results]}, indent=1)
    )


if __name__ == "__main__":
    main()
