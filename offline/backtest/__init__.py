"""Backtests: what a replay predicted, judged against what came, shown in the terminal and written to a folder.

`stream-fp replay` calls `check_folder` before its work and `present` after it. ::

    rows (JSON Lines) ─▶ outcomes ─▶ scoring ─▶ results ─▶ tables, page (sessions, charts)
                                       └──────▶ comparison, of several sets of settings on the same records

Invariant: the same rows and libraries give the same bytes; nothing that is written holds the time.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from rich.console import Console

from offline.backtest.comparison import compare
from offline.backtest.comparison_results import encode_comparison
from offline.backtest.comparison_table import print_comparison
from offline.backtest.outcomes import parquet_bytes, read_outcomes
from offline.backtest.page import render_backtest_page
from offline.backtest.results import BACKTEST_FILES, Backtest, encode_backtest
from offline.backtest.scoring import Replayed, load_replayed, score
from offline.backtest.tables import print_backtest
from offline.console import result_console
from offline.places import check_new_file, write_whole
from stream_fp.errors import ConfigError
from stream_fp.replay.results import VariantResult

__all__ = ["COMPARISON_FILE", "check_folder", "present"]

#: What several sets of settings come to beside each other.
COMPARISON_FILE: Final = "comparison.json"
_SETTING: Final = "report"
_CHUNK_BYTES: Final = 2**20


def check_folder(folder: Path, names: Sequence[str], *, force: bool) -> None:
    """Refuse a folder whose files exist, unless `force` is set, or cannot be written.

    Parameters
    ----------
    folder : Path
    names : sequence of str
        Of the sets of settings; one alone needs no name.
    force : bool

    Raises
    ------
    ConfigError
        When a file may not or cannot be written there (it names the setting `report`), or two sets of settings have the
        same name.
    """
    _check_names(names)
    for place in _places(folder, names):
        for name in BACKTEST_FILES:
            check_new_file(_SETTING, place / name, force=force)
    if len(names) > 1:
        check_new_file(_SETTING, folder / COMPARISON_FILE, force=force)


def present(results: Sequence[VariantResult], folder: Path | None, *, force: bool, to_stderr: bool) -> None:
    """Judge what a replay predicted, say what it comes to, and write it where there is a folder.

    Parameters
    ----------
    results : sequence of VariantResult
        One for each set of settings; those without rows are left out.
    folder : Path, optional
        Gets ``outcomes.jsonl``, ``outcomes.parquet``, ``backtest.json`` and ``report.html``; of several sets of
        settings each in a folder of its name, with ``comparison.json`` beside these.
    force : bool
        Replace files that are there.
    to_stderr : bool
        Print to stderr, because stdout has the predictions.

    Raises
    ------
    ConfigError
        When a file may not or cannot be written.
    ModelError
        When a library cannot be loaded.
    DocumentError
        When the rows cannot be read.
    """
    _check_names([result.name for result in results])
    if folder is not None:
        check_folder(folder, [result.name for result in results], force=force)
    console = result_console(to_stderr=to_stderr)
    found = []
    for result in results:
        if result.rows_path is None:
            continue
        replayed = load_replayed(result, read_outcomes(result.rows_path))
        found.append(replayed)
        backtest = score(replayed)
        if len(results) == 1:
            print_backtest(console, backtest)
        if folder is not None:
            place = folder if len(results) == 1 else folder / result.name
            _write(console, place, result.rows_path, replayed, backtest)
    if len(found) > 1:
        comparison = compare(found)
        print_comparison(console, comparison)
        if folder is not None:
            write_whole(_SETTING, folder / COMPARISON_FILE, [encode_comparison(comparison)])


def _check_names(names: Sequence[str]) -> None:
    for name in names:
        if names.count(name) > 1:
            raise ConfigError("compare", f"expected settings files of different names, got {name!r} twice")


def _places(folder: Path, names: Sequence[str]) -> list[Path]:
    return [folder] if len(names) == 1 else [folder / name for name in names]


def _write(console: Console, folder: Path, rows_path: Path, replayed: Replayed, found: Backtest) -> None:
    page = render_backtest_page(found, replayed)
    with rows_path.open("rb") as file:
        write_whole(_SETTING, folder / "outcomes.jsonl", iter(lambda: file.read(_CHUNK_BYTES), b""))
    write_whole(_SETTING, folder / "outcomes.parquet", [parquet_bytes(replayed.table)])
    write_whole(_SETTING, folder / "backtest.json", [encode_backtest(found)])
    write_whole(_SETTING, folder / "report.html", [page.encode()])
    console.print(f"\nBacktest written to {folder / 'report.html'}", markup=False, highlight=False, soft_wrap=True)
