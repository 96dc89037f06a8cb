"""What a chaos run came to: what readers of the topics see against what a replay of the same topic says.

Pure: records in, report out; so that the judge can be tried on made-up cases.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import msgspec

__all__ = ["Identity", "Report", "compare", "compare_sidecars", "identity_of", "read_sidecars"]

#: Session, checkpoint, model version: what there must be one prediction of.
Identity = tuple[str, float, str]
#: Input partition and offset of a dead letter.
Place = tuple[int, int]

_N_SHOWN: Final = 5


@dataclass(slots=True, kw_only=True)
class Report:
    """Divergences by kind, each with examples, and figures beside them. No divergence: exactly once."""

    figures: dict[str, object] = field(default_factory=dict)
    divergences: dict[str, list[str]] = field(default_factory=dict)

    @property
    def verdict(self) -> str:
        """One line: whether it held, or what did not."""
        if not self.divergences:
            return "VERDICT: exactly once - nothing lost, nothing twice, the same bytes as a replay"
        counts = ", ".join(f"{len(found)} {kind}" for kind, found in self.divergences.items())
        return f"VERDICT: DIVERGED - {counts}"

    def note(self, kind: str, found: Iterable[object]) -> None:
        """Take note of divergences of a kind, where there are any."""
        if listed := [str(one) for one in found]:
            self.divergences.setdefault(kind, []).extend(listed)

    def lines(self) -> list[str]:
        """Return the divergences for people to read, the first few of each kind."""
        return [
            f"{kind} ({len(found)}): {'; '.join(found[:_N_SHOWN])}{' ...' if len(found) > _N_SHOWN else ''}"
            for kind, found in self.divergences.items()
        ]


def compare(
    report: Report,
    *,
    expected: Sequence[bytes],
    published: Sequence[tuple[bytes | None, bytes]],
    expected_dead: Mapping[Place, tuple[bytes | None, bytes | None]],
    dead: Sequence[tuple[Place, bytes | None, bytes | None]],
) -> None:
    """Compare predictions and dead letters with those of a replay, and note every difference.

    Parameters
    ----------
    report : Report
    expected : sequence of bytes
        Values of the predictions of the replay.
    published : sequence of (bytes, bytes)
        Keys and values that a `read_committed` reader sees.
    expected_dead : mapping
        Key and value of each record that a replay refuses, by its place.
    dead : sequence
        Place, key and value of each dead letter.
    """
    if not expected or not expected_dead:
        report.note("runs with nothing to compare", [f"{len(expected)} predictions, {len(expected_dead)} dead letters"])
    wanted, seen = Counter(expected), Counter(value for _, value in published)
    by_identity = Counter(identity_of(value) for _, value in published)
    report.note(
        "predictions under another key", (key for key, value in published if key != identity_of(value)[0].encode())
    )
    report.note("predictions lost", (identity_of(value) for value in wanted.keys() - seen.keys()))
    report.note("predictions that no replay gives", (identity_of(value) for value in seen.keys() - wanted.keys()))
    report.note("predictions repeated", (who for who, n in by_identity.items() for _ in range(n - 1)))
    places = Counter(place for place, _, _ in dead)
    report.note("dead letters lost", expected_dead.keys() - places.keys())
    report.note("dead letters without cause", places.keys() - expected_dead.keys())
    report.note("dead letters repeated", (place for place, n in places.items() for _ in range(n - 1)))
    report.note(
        "dead letters changed",
        (place for place, key, value in dead if place in expected_dead and expected_dead[place] != (key, value)),
    )


def compare_sidecars(report: Report, sidecars: Mapping[str, bytes | None], published: Sequence[bytes]) -> None:
    """See that each session's sidecar is whole and is its last prediction.

    Parameters
    ----------
    report : Report
    sidecars : mapping of str to bytes
        Content by session, None where there is no file.
    published : sequence of bytes
        Values of predictions.
    """
    last: dict[str, tuple[float, bytes]] = {}
    for value in published:
        session_id, checkpoint_pct, _ = identity_of(value)
        if checkpoint_pct >= last.get(session_id, (0.0, b""))[0]:
            last[session_id] = checkpoint_pct, value
    report.note("sidecars without a prediction", sidecars.keys() - last.keys())
    for session_id, (_, value) in last.items():
        content = sidecars.get(session_id)
        if content is None:
            report.note("sidecars missing", [session_id])
        elif content != value:
            report.note("sidecars that are not the last prediction", [session_id])


def identity_of(value: bytes) -> Identity:
    """Return session, checkpoint and model version of a prediction."""
    prediction: dict[str, Any] = msgspec.json.decode(value)
    how = prediction["classification_metadata"]
    return prediction["session_id"], how["checkpoint_pct"], how["model_version"]


def read_sidecars(folder: Path, name: str) -> dict[str, bytes]:
    """Return the content of all sidecars by the name of their folder, which for plain ids is the session id."""
    return {path.parent.name: path.read_bytes() for path in folder.glob(f"*/{name}")}
