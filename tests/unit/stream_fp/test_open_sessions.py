from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from stream_fp.open_sessions import OpenSessions
from stream_fp.sessions import BYTES_PER_EVENT, BYTES_PER_SESSION, Session

GRACE, IDLE = 10, 60


def opened(table: OpenSessions, offset: int, *, end_us: int | None = None, touched_us: int = 100) -> Session:
    session = Session(f"S{offset}", first_offset=offset, opened_at_watermark_us=touched_us)
    session.id_end_us = end_us
    session.touched_us = touched_us
    table.add(session.id.encode(), session)
    return session


def new_table() -> OpenSessions:
    return OpenSessions(grace_us=GRACE, idle_timeout_us=IDLE)


def test_session_with_a_known_end_closes_when_end_and_grace_have_passed() -> None:
    table = new_table()
    session = opened(table, 0, end_us=200)
    assert table.next_deadline_us == 210
    assert table.expire(209) == []
    assert table.expire(210) == [session]
    assert len(table) == 0
    assert table.next_deadline_us == float("inf")


def test_session_without_an_end_closes_when_it_was_silent_for_the_idle_timeout() -> None:
    table = new_table()
    session = opened(table, 0, touched_us=100)
    assert table.expire(159) == []
    assert table.expire(160) == [session]


def test_late_session_is_heard_out_before_it_is_closed() -> None:
    table = new_table()
    session = opened(table, 0, end_us=200)
    session.touched_us = 300
    assert table.expire(305) == []
    assert table.next_deadline_us == 310
    assert table.expire(310) == [session]


def test_session_that_talks_stays_open() -> None:
    table = new_table()
    session = opened(table, 0)
    for now in range(120, 1000, 40):
        assert table.expire(now) == []
        session.touched_us = now
    assert table.expire(10_000) == [session]


def test_session_heard_of_before_any_time_was_known_is_not_closed_by_the_first_time() -> None:
    table = new_table()
    session = opened(table, 0, touched_us=0)
    assert table.expire(1_000_000) == []
    assert table.expire(1_000_000 + IDLE) == [session]


def test_known_end_counts_for_a_session_heard_of_before_any_time_was_known() -> None:
    table = new_table()
    session = opened(table, 0, end_us=200, touched_us=0)
    assert table.expire(209) == []
    assert table.expire(210) == [session]


def test_several_sessions_close_in_order_of_their_deadlines() -> None:
    table = new_table()
    late, early = opened(table, 0, end_us=500), opened(table, 1, end_us=300)
    assert table.expire(1000) == [early, late]


def test_oldest_is_the_one_with_the_lowest_first_offset() -> None:
    table = new_table()
    first, second = opened(table, 4), opened(table, 9)
    assert table.oldest is first
    table.remove(b"S4")
    assert table.oldest is second


def test_session_opened_anew_does_not_inherit_the_old_deadline() -> None:
    table = new_table()
    opened(table, 0, end_us=200)
    table.remove(b"S0")
    again = Session("S0", first_offset=7, opened_at_watermark_us=100)
    again.id_end_us = 900
    again.touched_us = 100
    table.add(b"S0", again)
    assert table.expire(800) == []
    assert table.expire(910) == [again]


def test_deadlines_of_ended_sessions_are_swept_out() -> None:
    table = new_table()
    keeper = opened(table, 0, end_us=10**9)
    for offset in range(1, 20_000):
        opened(table, offset, end_us=10**9)
        table.remove(f"S{offset}".encode())
    assert len(table._deadlines) <= 2 * 1 + 1024 + 1
    assert table.expire(10**9 + GRACE) == [keeper]


def test_memory_is_reckoned_from_events_and_sessions() -> None:
    table = new_table()
    session = opened(table, 0)
    for i in range(3):
        session.append(i, 1.0, None, 0)
        table.n_events += 1
    assert (table.n_events, table.n_bytes) == (3, 3 * BYTES_PER_EVENT + BYTES_PER_SESSION)
    table.release(session)
    assert (table.n_events, table.n_bytes) == (0, BYTES_PER_SESSION)


@given(
    script=st.lists(
        st.tuples(st.integers(0, 30), st.sampled_from(("open", "open", "touch", "remove")), st.integers(0, 9)),
        max_size=80,
    ),
    ends=st.lists(st.none() | st.integers(0, 500), min_size=80, max_size=80),
)
def test_closed_sessions_are_exactly_those_whose_time_is_over(
    script: list[tuple[int, str, int]], ends: list[int | None]
) -> None:
    table, model, now = new_table(), dict[str, Session](), 1
    for offset, (step, what, which) in enumerate(script):
        now += step
        names = list(model)
        if what == "open":
            session = opened(table, offset, end_us=ends[offset], touched_us=now)
            model[session.id] = session
        elif names:
            name = names[which % len(names)]
            if what == "touch":
                model[name].touched_us = now
            else:
                assert table.remove(name.encode()) is model.pop(name)
        over = {
            name
            for name, session in model.items()
            if now >= (
                session.touched_us + IDLE
                if session.id_end_us is None
                else max(session.id_end_us, session.touched_us) + GRACE
            )
        }  # fmt: skip
        assert {session.id for session in table.expire(now)} == over
        for name in over:
            del model[name]
        assert list(table.by_key) == [name.encode() for name in model]
        assert table.next_deadline_us > now
