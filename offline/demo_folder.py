"""The folder that ``stream-fp demo`` works in: what an earlier demo wrote goes, what anyone else wrote stays.

Invariant: nothing is deleted unless the folder carries the demo's mark and every file in it is one that the demo, or a
command that it prints, writes; so neither a mistyped folder nor a file laid beside the demo's can be lost.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from offline.report import REPORT_FILES
from stream_fp.errors import ConfigError
from stream_fp.library import METADATA_FILE, PICKLE_FILES, STATS_FILE
from stream_fp.sinks.sidecar import SIDECAR_NAME

__all__ = ["MODEL_VERSION", "DemoFolder"]

MODEL_VERSION: Final = "1.0.0"
#: Laid down before anything else is written.
_MARK: Final = ".stream-fp-demo"
_MARK_TEXT: Final = "Made by `stream-fp demo`, which deletes what it wrote here when it runs again.\n"
_MODEL: Final = ("models", f"v{MODEL_VERSION}")
#: By its parts from the folder down; a star stands for any name.
_OWN_FILES: Final = (
    (_MARK,),
    ("history.jsonl",),
    ("live.jsonl",),
    ("predictions.jsonl",),
    *((*_MODEL, name) for name in (METADATA_FILE, STATS_FILE, *PICKLE_FILES)),
    ("sidecars", "*", SIDECAR_NAME),
    *(("report", name) for name in REPORT_FILES),
)


@dataclass(frozen=True, slots=True)
class DemoFolder:
    """The places in it.

    Attributes
    ----------
    path : Path
        Need not exist.
    """

    path: Path

    @property
    def history(self) -> Path:
        """Messages of the sessions to train from."""
        return self.path / "history.jsonl"

    @property
    def live(self) -> Path:
        """Messages of the sessions to stream."""
        return self.path / "live.jsonl"

    @property
    def model(self) -> Path:
        """Folder of the library."""
        return self.path.joinpath(*_MODEL)

    @property
    def sidecars(self) -> Path:
        """Folder of the sidecars."""
        return self.path / "sidecars"

    @property
    def predictions(self) -> Path:
        """Output of the replay that the demo suggests."""
        return self.path / "predictions.jsonl"

    @property
    def report(self) -> Path:
        """Folder of the report that the demo suggests."""
        return self.path / "report"

    def prepare(self) -> None:
        """Make the folder, or empty it of what an earlier demo wrote.

        Raises
        ------
        ConfigError
            When it holds anything else, which is left as it is, or cannot be written.
        """
        with self.writing():
            self.path.mkdir(parents=True, exist_ok=True)
            entries = sorted(self.path.iterdir())
            if entries and self.path / _MARK not in entries:
                raise self._refusal(entries[0])
            found = sorted(self.path.rglob("*"), reverse=True)  # what is in a folder comes before the folder
            for path in found:
                if not self._is_own(path):
                    raise self._refusal(path)
            for path in found:
                if path.is_dir():
                    path.rmdir()
                else:
                    path.unlink()
            (self.path / _MARK).write_text(_MARK_TEXT, "utf-8")

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """Turn what the file system refuses into a `ConfigError`."""
        try:
            yield
        except OSError as error:
            where = error.filename or self.path
            raise ConfigError("dir", f"{where} cannot be written: {error.strerror or error}") from error

    def _is_own(self, path: Path) -> bool:
        if path.is_symlink():
            return False
        parts = path.relative_to(self.path).parts
        if path.is_dir():
            return any(_matches(parts, own[: len(parts)]) for own in _OWN_FILES if len(parts) < len(own))
        return any(_matches(parts, own) for own in _OWN_FILES)

    def _refusal(self, path: Path) -> ConfigError:
        return ConfigError(
            "dir",
            f"{self.path} holds what no demo wrote ({path.relative_to(self.path)}); nothing was deleted, "
            "give an empty folder or one that does not exist",
        )


def _matches(parts: tuple[str, ...], own: tuple[str, ...]) -> bool:
    return len(parts) == len(own) and all(name in {"*", part} for part, name in zip(parts, own, strict=True))
