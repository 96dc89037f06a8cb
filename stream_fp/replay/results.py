"""What a replay came to: its books, and where it wrote what it found. What the extension that judges it is given."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from stream_fp.errors import DocumentError
from stream_fp.outcomes import Counts

__all__ = ["Edges", "ReplaySummary", "VariantResult"]


@dataclass(slots=True, kw_only=True)
class Edges:
    """Sessions that the ends of the records cut."""

    n_before: int = 0
    """Open already where the range starts: they began before it."""
    n_at_start: int = 0
    """These, and those that may have begun before, where older records were not read or are gone."""
    n_at_start_predicted: int = 0
    """Those of them that cross a checkpoint within the range, and so were predicted in it."""
    n_at_end: int = 0
    """Not over where the records end."""
    n_at_end_predicted: int = 0
    """Those of them that were predicted; what came of them is not known."""

    def __add__(self, other: Edges) -> Edges:
        """Add two counts field by field."""
        return Edges(
            n_before=self.n_before + other.n_before,
            n_at_start=self.n_at_start + other.n_at_start,
            n_at_start_predicted=self.n_at_start_predicted + other.n_at_start_predicted,
            n_at_end=self.n_at_end + other.n_at_end,
            n_at_end_predicted=self.n_at_end_predicted + other.n_at_end_predicted,
        )


@dataclass(slots=True, kw_only=True)
class ReplaySummary:
    """What a replay came to, over all its files or partitions."""

    counts: Counts = field(default_factory=Counts)
    n_sources: int = 0
    """Files, or partitions."""
    unreadable: list[str] = field(default_factory=list)
    """One sentence for each file that could not be read."""
    dead_letters: list[str] = field(default_factory=list)
    """The first few, each with its place."""
    edges: Edges = field(default_factory=Edges)

    def check(self, source: str, noun: str) -> None:
        """Refuse a replay of nothing.

        Parameters
        ----------
        source : str
            What was replayed, in words.
        noun : str
            What `n_sources` counts.

        Raises
        ------
        DocumentError
            When nothing could be read, or nothing of it applied.
        """
        if self.unreadable and len(self.unreadable) == self.n_sources and not self.counts.applied:
            raise DocumentError(source, f"none of {self.n_sources} {noun} can be read; {self.unreadable[0]}")
        if not self.counts.applied:
            first = f"; first {self.dead_letters[0]}" if self.dead_letters else ""
            raise DocumentError(source, f"expected records of sessions, found none that can be applied{first}")


@dataclass(slots=True, kw_only=True)
class VariantResult:
    """One set of settings and what the replay found with it."""

    name: str
    """Of its settings file, without folder and suffix; empty where there is one set of settings alone."""
    model_path: Path
    library: str
    """Fingerprint of the library that made the predictions."""
    settings: dict[str, str]
    """What its predictions depend on, by name of the setting; no secrets."""
    predictions_path: Path
    """Predictions as published, one JSON line each, in order of source and offset."""
    rows_path: Path | None
    """A `BacktestRow` for each line of `predictions_path`, in the same order; None where no outcomes were asked for."""
    summary: ReplaySummary
