"""The runner of the benchmarks: what it gathers and how it judges, and that every script can be asked for help."""

import importlib
import json
import sys
from pathlib import Path

import pytest

from benchmarks import __main__ as runner

FOLDER = Path(runner.__file__).parent
WRITTEN = [name for name in runner.SCRIPTS if (FOLDER / f"{name}.py").exists()]


def report(**figures: float) -> runner.Report:
    return {"machine": {"cpus": 2}, "engine": "compiled", "versions": {"stream-fp": "0"}, "figures": figures}


def test_gathered_reports_hold_all_figures_and_say_where_they_are_from() -> None:
    found = runner.gathered({"engine": report(a=1.0), "peers": report(b=2.0)}, quick=True)
    assert found == {
        "machine": {"cpus": 2},
        "engine": "compiled",
        "versions": {"stream-fp": "0"},
        "quick": True,
        "figures": {"a": 1.0, "b": 2.0},
        "reports": {"engine": "build/benchmarks/engine.json", "peers": "build/benchmarks/peers.json"},
    }


def test_gathered_figures_of_one_name_are_both_kept() -> None:
    found = runner.gathered({"engine": report(a=1.0), "peers": report(a=2.0)}, quick=False)
    assert found["figures"] == {"a": 1.0, "peers.a": 2.0}


def test_verdicts_tell_met_missed_and_not_measured() -> None:
    figures = {"engine_over_decode": 4.0, "service_over_getmany": 0.49, "rss_100k_mb": 1234.5}
    rows = {row[0]: row[1:] for row in runner.verdicts(figures)}
    assert rows["engine_over_decode"] == ("4", "<= 4", "met")
    assert rows["service_over_getmany"] == ("0.49", ">= 0.5", "MISSED")
    assert rows["rss_100k_mb"] == ("1,234", "<= 350", "MISSED")
    assert rows["ready_s"] == ("-", "<= 0.6", "not measured")
    assert len(rows) == len(runner.TARGETS)


def test_a_script_that_fails_keeps_no_other_from_running(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ran = []

    def run(name: str, *, quick: bool) -> tuple[int, runner.Report | None]:
        ran.append((name, quick))
        return (3, None) if name == "engine" else (0, report(rss_100k_mb=300.0))

    monkeypatch.setattr(runner, "_run", run)
    monkeypatch.setattr(runner, "OUTPUT", tmp_path / "bench.json")
    assert runner.main(["engine", "open_sessions"]) == 1
    assert ran == [("engine", False), ("open_sessions", False)]
    told = capsys.readouterr().out
    assert "engine: FAILED (exit status 3)" in told
    assert told.endswith("Failed: engine\n")
    assert json.loads((tmp_path / "bench.json").read_text())["reports"] == {
        "open_sessions": "build/benchmarks/open_sessions.json"
    }


def test_an_unknown_name_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        runner.main(["engines"])
    assert "got engines" in capsys.readouterr().err


def test_the_quick_run_is_a_part_of_the_whole_one() -> None:
    assert set(runner.QUICK) < set(runner.SCRIPTS)


def test_every_script_that_writes_a_report_is_run() -> None:
    reporting = {path.stem for path in FOLDER.glob("*.py") if "write_report(" in path.read_text()} - {"harness"}
    assert reporting <= set(runner.SCRIPTS)


@pytest.mark.parametrize("name", WRITTEN)
def test_help_of_each_script(name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", [f"{name}.py", "--help"])
    with pytest.raises(SystemExit) as exit_of:
        importlib.import_module(f"benchmarks.{name}").main()
    assert exit_of.value.code == 0
    assert "--quick" in capsys.readouterr().out
