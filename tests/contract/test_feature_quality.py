"""No feature is constant, none is a copy of another, all are finite: on full sessions and on sessions cut at 30 %."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import numpy as np
import pytest

from offline.simulate import simulate_sessions
from stream_fp.documents import adapt_document
from stream_fp.features import FEATURE_NAMES, extract
from tests.support.builders import make_engine, record

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path
    from typing import Any

    import numpy.typing as npt

    from stream_fp.predictor import Forecast
    from stream_fp.sessions import Session

MAX_CORRELATION = 0.98
#: The real documents know no quiet regime, so that the shares of the other two add up to one there.
REGIME_SHARES = frozenset(name for name in FEATURE_NAMES if name.startswith("htf_regime_"))
CUTS = ("full", "prefix")


class Collector:
    """Keeps the features of each session at its checkpoint and at its end."""

    def __init__(self) -> None:
        self.prefix: list[npt.NDArray[np.float64]] = []
        self.full: list[npt.NDArray[np.float64]] = []

    def forecast(self, session: Session, checkpoint_pct: float) -> Forecast | None:  # noqa: ARG002
        self.prefix.append(extract(session.columns()))
        return None

    def closed(self, session: Session, reason: str) -> None:  # noqa: ARG002
        if session.n_held >= 5:
            self.full.append(extract(session.columns()))

    def table(self, cut: str) -> npt.NDArray[np.float64]:
        return np.array(self.full if cut == "full" else self.prefix)


def collected(sessions: Iterable[Iterable[dict[str, Any]]]) -> Collector:
    collector = Collector()
    for messages in sessions:
        engine = make_engine(collector, keep_events=True)
        for offset, message in enumerate(messages):
            engine.process(record(offset, message))
        engine.close()
    return collector


@pytest.fixture(scope="module")
def simulated() -> Collector:
    return collected(session.messages for session in simulate_sessions(500, seed=3))


@pytest.fixture(scope="module")
def real(real_sessions_dir: Path) -> Collector:
    documents = [msgspec.json.decode(path.read_bytes()) for path in sorted(real_sessions_dir.glob("*.json"))]
    return collected(adapt_document(document).messages for document in documents)


def constant_features(table: npt.NDArray[np.float64]) -> set[str]:
    spread = table.std(axis=0)
    return {
        name for name, s, size in zip(FEATURE_NAMES, spread, np.abs(table).max(axis=0), strict=True) if s <= 1e-9 * size
    }


def copies(table: npt.NDArray[np.float64]) -> list[tuple[str, str, float]]:
    varying = [i for i, name in enumerate(FEATURE_NAMES) if name not in constant_features(table)]
    correlation = np.atleast_2d(np.corrcoef(table[:, varying], rowvar=False))
    return [
        (FEATURE_NAMES[varying[i]], FEATURE_NAMES[varying[j]], round(float(correlation[i, j]), 4))
        for i in range(len(varying))
        for j in range(i)
        if abs(correlation[i, j]) >= MAX_CORRELATION
    ]


@pytest.mark.parametrize("cut", CUTS)
def test_features_of_simulated_sessions_are_finite_and_tell_different_things(simulated: Collector, cut: str) -> None:
    table = simulated.table(cut)
    assert len(table) > 400
    assert np.isfinite(table).all()
    assert constant_features(table) == set()
    assert copies(table) == []


@pytest.mark.parametrize("cut", CUTS)
def test_features_of_real_sessions_are_finite_and_tell_different_things(real: Collector, cut: str) -> None:
    table = real.table(cut)
    assert len(table) >= 25
    assert np.isfinite(table).all()
    assert constant_features(table) <= REGIME_SHARES
    assert [pair for pair in copies(table) if not REGIME_SHARES.issuperset(pair[:2])] == []
