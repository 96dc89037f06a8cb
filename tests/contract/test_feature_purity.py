"""Features are a pure function of the events so far: prefix equals batch, the same bits twice, nothing changed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from offline.simulate import simulate_sessions
from stream_fp.features import FEATURE_NAMES, extract
from stream_fp.sessions import Columns
from tests.support.builders import make_engine, record

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy.typing as npt

    from stream_fp.predictor import Forecast
    from stream_fp.sessions import Session

FIELDS = ("times_us", "prices", "intensities", "codes")


class EveryEvent:
    """Extracts the features of a session at each of a hundred checkpoints, and keeps them with the columns."""

    def __init__(self) -> None:
        self.seen: list[tuple[Columns, npt.NDArray[np.float64]]] = []
        self.whole: Columns | None = None

    def forecast(self, session: Session, checkpoint_pct: float) -> Forecast | None:  # noqa: ARG002
        columns = session.columns()
        self.seen.append((copy_of(columns), extract(columns)))
        return None

    def closed(self, session: Session, reason: str) -> None:  # noqa: ARG002
        self.whole = copy_of(session.columns())


def copy_of(columns: Columns, n: int | None = None) -> Columns:
    """Return the first `n` events as a batch of its own."""
    return Columns(
        times_us=columns.times_us[:n].copy(),
        prices=columns.prices[:n].copy(),
        intensities=columns.intensities[:n].copy(),
        codes=columns.codes[:n].copy(),
        start_us=columns.start_us,
    )


def followed() -> Iterator[EveryEvent]:
    for session in simulate_sessions(21, seed=11):
        forecaster = EveryEvent()
        engine = make_engine(
            forecaster, checkpoints_pct=tuple(float(pct) for pct in range(1, 101)), min_events=1, keep_events=True
        )
        for offset, message in enumerate(session.messages):
            engine.process(record(offset, message))
        engine.close()
        yield forecaster


@pytest.fixture(scope="module")
def sessions() -> list[EveryEvent]:
    return list(followed())


def test_features_on_a_prefix_equal_those_of_a_batch_of_these_events(sessions: list[EveryEvent]) -> None:
    n_compared = 0
    for session in sessions:
        assert session.whole is not None
        for columns, vector in session.seen:
            batch = copy_of(session.whole, len(columns.times_us))
            assert batch.start_us == columns.start_us
            for name, incremental, at_once in zip(FEATURE_NAMES, vector, extract(batch), strict=True):
                assert incremental == at_once, name
            n_compared += 1
    assert n_compared > 500


def test_later_events_leave_the_features_of_a_prefix_unchanged(sessions: list[EveryEvent]) -> None:
    for session in sessions:
        assert session.whole is not None
        n = len(session.whole.times_us) // 2
        expected = extract(copy_of(session.whole, n))
        changed = copy_of(session.whole)
        changed.prices[n:] = 1e9
        changed.times_us[n:] += 10**9
        changed.codes[n:] = 0
        np.testing.assert_array_equal(extract(copy_of(changed, n)), expected)


def test_extraction_leaves_the_columns_unchanged(sessions: list[EveryEvent]) -> None:
    for session in sessions:
        assert session.whole is not None
        shuffled = copy_of(session.whole)
        order = np.random.default_rng(5).permutation(len(shuffled.times_us))
        for name in FIELDS:
            column = getattr(shuffled, name)
            column[:] = column[order]
        before = copy_of(shuffled)
        for name in FIELDS:
            getattr(shuffled, name).flags.writeable = False
        extract(shuffled)
        for name in FIELDS:
            np.testing.assert_array_equal(getattr(shuffled, name), getattr(before, name))


def test_extraction_twice_gives_the_same_bits(sessions: list[EveryEvent]) -> None:
    for session in sessions:
        for columns, vector in session.seen:
            assert extract(columns).tobytes() == vector.tobytes()
            assert extract(columns).tobytes() == vector.tobytes()
