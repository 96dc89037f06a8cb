"""Inputs that fuzzers begin with, those that were findings among them, are taken or refused as documented."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fuzz.targets import TARGETS

CORPUS = Path(__file__).parents[1] / "fuzz" / "corpus"


def inputs() -> Iterator[tuple[str, Path]]:
    for name in TARGETS:
        files = sorted(path for path in (CORPUS / name).iterdir() if path.is_file())
        assert files, name
        for path in files:
            yield name, path


@pytest.mark.parametrize("name", list(TARGETS))
def test_what_fuzzers_have_found_worth_keeping_is_no_finding(name: str, tmp_path: Path) -> None:
    target = TARGETS[name](tmp_path)
    with zipfile.ZipFile(CORPUS / f"{name}.zip") as archive:
        assert archive.namelist()
        for found in archive.namelist():
            target(archive.read(found))


@pytest.mark.parametrize(("name", "path"), list(inputs()), ids=lambda value: getattr(value, "name", value))
def test_input_of_the_corpus_is_no_finding(name: str, path: Path, tmp_path: Path) -> None:
    TARGETS[name](tmp_path)(path.read_bytes())
