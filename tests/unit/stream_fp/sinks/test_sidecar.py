from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stream_fp.messages import encode_prediction
from stream_fp.sinks.sidecar import (
    SIDECAR_NAME,
    check_writable,
    session_dir_name,
    write_atomically,
    write_session_sidecar,
)
from tests.support.builders import make_prediction

hostile_ids = st.text(min_size=1, max_size=300) | st.lists(
    st.sampled_from(("..", ".", "/", "\\", "~", "\x00", "etc", "%2e", "C:", "\n", "\u202e")), min_size=1, max_size=12
).map("".join)


def names_in(directory: Path) -> list[str]:
    return sorted(str(path.relative_to(directory)) for path in directory.rglob("*"))


def test_sidecar_is_written_under_the_session_id(tmp_path: Path) -> None:
    path = write_session_sidecar(tmp_path / "new" / "deep", "NY_AM_2025-07-29", b"{}")
    assert path == tmp_path / "new" / "deep" / "NY_AM_2025-07-29" / SIDECAR_NAME
    assert path.read_bytes() == b"{}"
    assert names_in(path.parent) == [SIDECAR_NAME]


def test_written_again_replaces_the_content_and_leaves_nothing_else(tmp_path: Path) -> None:
    for content in (b"one", b"second and longer", b"3"):
        path = write_session_sidecar(tmp_path, "S", content)
        assert path.read_bytes() == content
    assert names_in(tmp_path) == ["S", f"S/{SIDECAR_NAME}"]


def test_sidecar_can_be_read_by_others(tmp_path: Path) -> None:
    path = write_session_sidecar(tmp_path, "S", b"{}")
    assert stat.S_IMODE(path.stat().st_mode) == 0o644


@pytest.mark.parametrize("step", ["fsync", "fchmod"])
def test_failure_while_writing_keeps_the_old_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    path = write_session_sidecar(tmp_path, "S", b"old")

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, step, fail)
    with pytest.raises(OSError, match="No space left"):
        write_session_sidecar(tmp_path, "S", b"new")
    monkeypatch.undo()
    assert path.read_bytes() == b"old"
    assert names_in(path.parent) == [SIDECAR_NAME]


def test_failure_to_rename_keeps_the_old_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_session_sidecar(tmp_path, "S", b"old")

    def fail(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(KeyboardInterrupt):
        write_session_sidecar(tmp_path, "S", b"new")
    monkeypatch.undo()
    assert path.read_bytes() == b"old"
    assert names_in(path.parent) == [SIDECAR_NAME]


def test_directory_in_place_of_the_file_is_an_os_error(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    with pytest.raises(OSError, match="directory"):
        write_atomically(tmp_path / "there", b"x")
    assert names_in(tmp_path) == ["there"]


def test_symlink_in_place_of_the_file_is_replaced_and_not_followed(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_bytes(b"precious")
    link = tmp_path / "link"
    link.symlink_to(target)
    write_atomically(link, b"new")
    assert target.read_bytes() == b"precious"
    assert (link.read_bytes(), link.is_symlink()) == (b"new", False)


@given(session_id=hostile_ids)
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_hostile_session_id_stays_inside_the_directory(tmp_path: Path, session_id: str) -> None:
    inside = tmp_path / "sidecars"
    path = write_session_sidecar(inside, session_id, b"{}")
    assert path.resolve().parent.parent == inside.resolve()
    assert path.name == SIDECAR_NAME
    assert [child.name for child in tmp_path.iterdir()] == ["sidecars"]


@given(session_id=hostile_ids)
def test_folder_name_is_short_plain_ascii(session_id: str) -> None:
    name = session_dir_name(session_id)
    assert 0 < len(name) <= 200
    assert name.isascii()
    assert name.isprintable()
    assert name not in {".", ".."}
    assert not set('/\\:*?"<>|\x00 ') & set(name)


@given(one=hostile_ids, other=hostile_ids)
def test_different_ids_have_different_folders(one: str, other: str) -> None:
    assert (session_dir_name(one) == session_dir_name(other)) == (one == other)


def test_long_ids_that_begin_alike_have_different_folders() -> None:
    assert session_dir_name("x" * 300) != session_dir_name("x" * 301)


def test_id_that_is_no_unicode_text_gets_a_folder() -> None:
    assert session_dir_name("\ud800") == "%ED%A0%80"


def test_folder_to_be_made_is_writable_and_is_not_made(tmp_path: Path) -> None:
    check_writable(tmp_path / "a" / "b")
    assert list(tmp_path.iterdir()) == []


def test_path_below_a_file_is_not_writable(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OSError, match="Not a directory"):
        check_writable(tmp_path / "file" / "b")


def sidecar(checkpoint_pct: float, *, model_version: str = "1", session_id: str = "S") -> bytes:
    prediction = make_prediction(session_id=session_id, checkpoint_pct=checkpoint_pct, model_version=model_version)
    return encode_prediction(prediction)


def test_sidecar_of_a_later_checkpoint_is_not_undone_by_an_earlier_one(tmp_path: Path) -> None:
    later, earlier = sidecar(50), sidecar(30)
    path = write_session_sidecar(tmp_path, "S", later)
    write_session_sidecar(tmp_path, "S", earlier)
    assert path.read_bytes() == later
    assert names_in(path.parent) == [SIDECAR_NAME]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (sidecar(30), sidecar(50)),
        (sidecar(50), sidecar(30, model_version="2")),
        (sidecar(50, session_id="T"), sidecar(30)),
        (b"{half of a sidec", sidecar(30)),
        (b"", sidecar(30)),
    ],
    ids=["later checkpoint", "other model", "other session", "broken", "empty"],
)
def test_sidecar_replaces_what_is_no_later_word_on_the_same(tmp_path: Path, old: bytes, new: bytes) -> None:
    path = write_session_sidecar(tmp_path, "S", old)
    write_session_sidecar(tmp_path, "S", new)
    assert path.read_bytes() == new
