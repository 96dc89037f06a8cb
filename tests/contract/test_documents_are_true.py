"""What README and the settings example tell a newcomer to do, done."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import msgspec
import pytest

from stream_fp.config import load_settings
from stream_fp.messages import Prediction, decode_message
from stream_fp.phases import ALIASES, PHASES
from tests.support.builders import write_tiny_library

ROOT: Final = Path(__file__).parents[2]
README: Final = (ROOT / "README.md").read_text("utf-8")


def blocks(language: str, text: str = README) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def test_library_call_of_the_readme_writes_sidecar_and_minidash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_tiny_library(tmp_path / "models" / "session_fingerprints" / "v1.0.2")
    monkeypatch.chdir(tmp_path)
    (code,) = [block for block in blocks("python") if "create_online_classifier" in block]
    exec(compile(code, "README.md", "exec"), {})  # noqa: S102 - the README's own example
    assert (tmp_path / "run" / "session_fingerprint.json").is_file()
    assert "NY_AM_2025-07-29" in (tmp_path / "run" / "minidash.html").read_text("utf-8")


def test_messages_of_readme_and_documentation_are_messages() -> None:
    (told,) = blocks("json")
    messages, prediction = blocks("json", (ROOT / "docs" / "messages.md").read_text("utf-8"))
    for text in (told, messages):
        kinds = [decode_message(one.encode()).kind for one in re.findall(r"^\{.*?\}$", text, re.DOTALL | re.MULTILINE)]
        assert kinds == ["session_start", "event", "session_end"]
    assert msgspec.json.decode(prediction, type=Prediction).session_id == "NY_AM_2025-03-14"


def test_settings_example_is_accepted() -> None:
    settings = load_settings({}, {}, ROOT / "deploy" / "stream-fp.toml")
    assert settings.enabled


def test_every_phase_has_aliases_and_no_alias_means_two_phases() -> None:
    names = [alias for phase in PHASES for alias in (phase, *ALIASES[phase])]
    assert len(names) == len(set(names))
    assert set(ALIASES) == set(PHASES)


def test_every_file_that_a_document_names_exists() -> None:
    top = ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "SECURITY.md")
    for document in (*(ROOT / name for name in top), *(ROOT / "docs").rglob("*.md")):
        text = document.read_text("utf-8")
        named = set(
            re.findall(r"`((?:tests|stream_fp|offline|deploy|benchmarks|models|docs)/[\w./-]+\.(?:py|toml|md))`", text)
        )
        assert named or document.name != "ARCHITECTURE.md"
        assert [name for name in sorted(named) if not (ROOT / name).exists()] == []
