from __future__ import annotations

import math

import numpy as np

from stream_fp.completion import SessionFacts, Yardstick
from stream_fp.sessions import BYTES_PER_EVENT, Session


def session_of(n: int = 0, *, declared_start_us: int | None = None) -> Session:
    session = Session("S", first_offset=3, opened_at_watermark_us=None)
    session.facts = SessionFacts(session_type="", day=None, timezone="UTC", declared_start_us=declared_start_us)
    session.yardstick = Yardstick(method="count", n_expected=10.0)
    for i in range(n):
        session.append(1000 + i, None if i == 1 else 100.0 + i, None if i == 2 else i / 10, i)
    return session


def test_appended_events_are_the_columns() -> None:
    columns = session_of(4).columns()
    assert columns.times_us.tolist() == [1000, 1001, 1002, 1003]
    assert [None if math.isnan(price) else price for price in columns.prices] == [100.0, None, 102.0, 103.0]
    assert [None if math.isnan(value) else value for value in columns.intensities] == [0.0, 0.1, None, 0.3]
    assert columns.codes.tolist() == [0, 1, 2, 3]


def test_rows_take_the_bytes_that_are_reckoned() -> None:
    assert len(session_of(7).rows) == 7 * BYTES_PER_EVENT


def test_start_of_the_columns_is_the_known_start_or_the_first_event() -> None:
    assert session_of(2).columns().start_us == 1000
    assert session_of(2, declared_start_us=900).columns().start_us == 900


def test_append_after_a_dropped_view_is_possible() -> None:
    session = session_of(2)
    assert len(session.columns().times_us) == 2
    session.append(5000, 1.0, 1.0, 0)
    assert len(session.columns().times_us) == 3


def test_released_session_holds_no_events_and_says_how_many_it_held() -> None:
    session = session_of(5)
    assert session.release() == 5
    assert session.release() == 0
    assert (session.n_held, len(session.rows)) == (0, 0)


def test_columns_kept_by_a_forecaster_survive_the_release() -> None:
    session = session_of(3)
    columns = session.columns()
    session.release()
    np.testing.assert_array_equal(columns.times_us, [1000, 1001, 1002])


def test_completion_follows_the_yardstick() -> None:
    session = session_of(3)
    session.n_events = 3
    assert session.completion_pct == 30.0


def test_session_is_untimed_until_a_time_was_read() -> None:
    session = session_of(1)
    assert session.all_untimed
    session.latest_us = 1000
    assert not session.all_untimed
