from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from offline.places import check_new_file, write_whole
from stream_fp.errors import ConfigError


def test_file_is_written_with_its_folder_and_may_be_read_by_whom_a_new_one_may(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b.jsonl"
    write_whole("output", path, [b"one\n", b"two\n"])
    (tmp_path / "new").write_bytes(b"")
    assert path.read_bytes() == b"one\ntwo\n"
    assert path.stat().st_mode == (tmp_path / "new").stat().st_mode


def test_failure_half_way_leaves_the_old_file_and_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "b.jsonl"
    path.write_bytes(b"old")

    def chunks() -> Iterator[bytes]:
        yield b"new"
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_whole("output", path, chunks())
    assert [(entry.name, entry.read_bytes()) for entry in tmp_path.iterdir()] == [("b.jsonl", b"old")]


def test_place_that_cannot_be_written_names_the_setting(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ConfigError, match="setting `output`"):
        write_whole("output", tmp_path / "file" / "x", [b""])


@pytest.mark.parametrize("force", [False, True])
def test_folder_and_pipe_are_no_files(tmp_path: Path, *, force: bool) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe"):
        with pytest.raises(ConfigError, match="is no file"):
            check_new_file("output", path, force=force)


def test_existing_file_is_refused_unless_forced(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"")
    with pytest.raises(ConfigError, match="--force"):
        check_new_file("output", path, force=False)
    check_new_file("output", path, force=True)
    assert path.read_bytes() == b""
