"""What the demo deletes before it starts, and what it never deletes."""

from __future__ import annotations

from pathlib import Path

import pytest

from offline.demo import demo
from offline.demo_folder import DemoFolder
from stream_fp.errors import ConfigError
from stream_fp.library import METADATA_FILE, PICKLE_FILES, STATS_FILE
from stream_fp.sinks.sidecar import write_session_sidecar


def write_all(folder: DemoFolder) -> None:
    """Write what a demo and the replay that it suggests write."""
    folder.prepare()
    folder.model.mkdir(parents=True)
    for name in (METADATA_FILE, STATS_FILE, *PICKLE_FILES):
        (folder.model / name).write_text("{}")
    for path in (folder.history, folder.live, folder.predictions):
        path.write_text("{}\n")
    for session_id in ("NY_AM_2025-07-29", "../odd"):
        write_session_sidecar(folder.sidecars, session_id, b"{}")


def contents(path: Path) -> set[str]:
    return {found.relative_to(path).as_posix() for found in path.rglob("*")}


def test_folder_of_an_earlier_demo_is_emptied(tmp_path: Path) -> None:
    folder = DemoFolder(tmp_path / "deep" / "demo")
    folder.prepare()
    fresh = contents(folder.path)
    write_all(folder)
    assert len(contents(folder.path)) > 10
    folder.prepare()
    assert contents(folder.path) == fresh


@pytest.mark.parametrize(
    "foreign",
    [
        "thesis.txt",
        ".git/HEAD",
        "models/v1.0.1/metadata.json",
        "models/v1.0.0/notes.txt",
        "models/notes.txt",
        "sidecars/notes.txt",
        "sidecars/NY_AM_2025-07-29/session_summary.json",
        "sidecars/NY_AM_2025-07-29/session_fingerprint.json.d/x",
        "live/live.jsonl",
    ],
)
def test_foreign_file_is_named_and_nothing_is_deleted(tmp_path: Path, foreign: str) -> None:
    folder = DemoFolder(tmp_path)
    write_all(folder)
    (tmp_path / foreign).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / foreign).write_text("years of work")
    before = contents(tmp_path)
    with pytest.raises(ConfigError, match="nothing was deleted") as caught:
        folder.prepare()
    assert foreign.split("/", maxsplit=1)[0] in str(caught.value)
    assert "\n" not in str(caught.value)
    assert contents(tmp_path) == before


@pytest.mark.parametrize("name", ["history.jsonl", "sidecars/A/session_fingerprint.json", "thesis.txt"])
def test_folder_without_the_mark_of_a_demo_is_refused_whatever_the_names_in_it(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("recorded elsewhere")
    before = contents(tmp_path)
    with pytest.raises(ConfigError, match="what no demo wrote"):
        DemoFolder(tmp_path).prepare()
    assert contents(tmp_path) == before


def test_link_out_of_the_folder_is_not_followed(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    write_session_sidecar(elsewhere, "A", b"{}")
    folder = DemoFolder(tmp_path / "demo")
    folder.prepare()
    folder.sidecars.symlink_to(elsewhere, target_is_directory=True)
    with pytest.raises(ConfigError, match="sidecars"):
        folder.prepare()
    assert (elsewhere / "A" / "session_fingerprint.json").is_file()


@pytest.mark.parametrize("place", ["file/demo", "x" * 300])
def test_place_that_cannot_be_written_is_a_config_error(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot be written"):
        DemoFolder(tmp_path / place).prepare()


def test_demo_refuses_the_current_folder_of_a_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "pyproject.toml").write_text("")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"pyproject\.toml"):
        demo.main(args=["--dir", "."], standalone_mode=False)
    assert contents(tmp_path) == {"pyproject.toml"}


def test_help_shows_the_default_folder(capsys: pytest.CaptureFixture[str]) -> None:
    demo.main(args=["-h"], standalone_mode=False)
    assert "default: build/demo" in " ".join(capsys.readouterr().out.split())
