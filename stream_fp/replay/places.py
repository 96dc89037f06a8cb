"""Where a replay reads and writes on disk: what may not be the same, work in progress, and putting results in place."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from stream_fp.errors import ConfigError, DocumentError, ServiceError
from stream_fp.files import find_files

__all__ = ["output_paths", "put_predictions", "session_files", "work_folder"]


def output_paths(output: Path | None, report: Path | None, names: Sequence[str]) -> list[Path | None]:
    """Return the file of each variant's predictions; None is for standard output.

    That which was named, or beside it with the variant's name; else it lies with the report.

    Raises
    ------
    ConfigError
        When it lies in the folder of the report, whose files have names of their own.

    Examples
    --------
    >>> [str(path) for path in output_paths(Path("p.jsonl"), None, ["a", "b"])]
    ['p-a.jsonl', 'p-b.jsonl']
    """
    if output is None:
        return [None if report is None else report / name / "predictions.jsonl" for name in names]
    if report is not None and report.resolve() in output.resolve().parents:
        raise ConfigError("output", f"{output} lies in the folder of the report, which has its own; leave it out")
    return [output if not name else output.with_name(f"{output.stem}-{name}{output.suffix}") for name in names]


def session_files(source: Path, outputs: Sequence[Path | None], *folders: Path | None) -> list[tuple[Path, int]]:
    """Return the session files of `source` with their sizes, but for what a replay wrote into `folders`.

    Raises
    ------
    DocumentError
        When there is none, or the name of one is no text.
    ConfigError
        When an output is one of them.
    """
    found = find_files(source)
    ours = {folder.resolve() for folder in folders if folder is not None}
    if not source.is_file():
        # An older output lies there; where the source is one file, it is what was asked for.
        ours |= {output.resolve() for output in outputs if output is not None}
    files = [path for path in found if ours.isdisjoint(((place := path.resolve()), *place.parents))]
    if not files:
        raise DocumentError(str(source), "expected session files, found none but our own output")
    for output in outputs:
        if output is not None and any(path.resolve() == output.resolve() for path in files):
            raise ConfigError("output", f"{output} holds the sessions; give another file")
    for path in files:
        try:
            str(path).encode()
        except UnicodeEncodeError as error:
            raise DocumentError(ascii(str(path)), "expected a file name in UTF-8") from error
    return [(path, path.stat().st_size) for path in files]


@contextlib.contextmanager
def work_folder(beside: Path | None) -> Iterator[Path]:
    """Yield a folder for work in progress.

    It lies beside what it is for, and stays for somebody to go on with (the caller removes it when the work is done);
    without a place it is temporary.
    """
    if beside is None:
        with tempfile.TemporaryDirectory(prefix="stream-fp-replay-") as name:
            yield Path(name)
        return
    place = beside.resolve()
    yield place.with_name(f"{place.name}.parts")


def put_predictions(predictions: Path, output: Path | None, setting: str) -> Path:
    """Put predictions where they are wanted, whole or not at all; return where they are.

    Parameters
    ----------
    predictions : Path
    output : Path or None
        None is standard output.
    setting : str
        That names the output, for the error.

    Raises
    ------
    ConfigError, ServiceError
        When they cannot be written there.
    """
    if output is None:
        try:
            with predictions.open("rb") as lines:
                shutil.copyfileobj(lines, sys.stdout.buffer)
            sys.stdout.buffer.flush()
        except BrokenPipeError:
            raise  # whoever read has read enough
        except OSError as error:
            raise ServiceError(f"standard output: {error.strerror}") from error
        return predictions
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.replace(predictions, output)  # noqa: PTH105 - as atomic as its neighbours
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            # On another file system: copied beside its place, then put there.
            beside = output.with_name(f".{output.name}.part")
            shutil.copyfile(predictions, beside)
            os.replace(beside, output)  # noqa: PTH105 - as above
    except OSError as error:
        raise ConfigError(setting, f"{output}: {error.strerror}") from error
    return output
