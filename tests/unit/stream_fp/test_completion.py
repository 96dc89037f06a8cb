from __future__ import annotations

from datetime import date
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_fp.completion import (
    DEFAULT_SCHEDULES,
    CompletionPolicy,
    Schedule,
    SessionFacts,
    Yardstick,
    choose_yardstick,
    resolve_facts,
)
from stream_fp.errors import RecordInvalidError
from stream_fp.messages import SessionMetadata
from stream_fp.times import HOUR_US, MINUTE_US
from tests.support.builders import us_at

DAY = date(2025, 7, 29)


def facts_of(session_id: str, **metadata: Any) -> SessionFacts:  # noqa: ANN401
    return resolve_facts(
        session_id,
        SessionMetadata(**metadata) if metadata else None,
        schedules=DEFAULT_SCHEDULES,
        typical_events={"ny_am": 60.0},
        default_timezone="UTC",
    )


@pytest.mark.parametrize(
    "session_id",
    [
        "NY_AM_2025-07-29",
        "ny_am_2025_07_29",
        "NY_AM_Lvl-1_2025_07_29",
        "NY_AM_2025-07-29-000001",
        "NY_AM_2025-07-29_es",
    ],
)
def test_type_and_date_come_from_the_id(session_id: str) -> None:
    facts = facts_of(session_id)
    assert (facts.session_type, facts.day) == ("ny_am", DAY)
    assert facts.schedule_us == (us_at(0), us_at(149))
    assert facts.typical_events == 60.0


@pytest.mark.parametrize("session_id", ["free", "", "2025-07-29", "_2025-07-29", "NY_AM_2025-07-291", "NY_AM_20250729"])
def test_id_of_another_shape_gives_no_type_and_no_date(session_id: str) -> None:
    facts = facts_of(session_id)
    assert (facts.session_type, facts.day, facts.start_us, facts.end_us) == ("", None, None, None)


@pytest.mark.parametrize("text", ["2025-13-45", "0001-01-01", "9999-12-31"])
def test_impossible_date_in_the_id_counts_as_no_date(text: str) -> None:
    facts = facts_of(f"ASIA_{text}")
    assert (facts.session_type, facts.day, facts.schedule_us) == ("asia", None, None)


def test_metadata_goes_before_the_id() -> None:
    facts = facts_of("LUNCH_2025-07-30", session_type=" NY_AM ", date="2025-07-29")
    assert (facts.session_type, facts.day, facts.schedule_us) == ("ny_am", DAY, (us_at(0), us_at(149)))


def test_declared_window_is_read_in_the_declared_zone() -> None:
    facts = facts_of("X_2025-07-29", start_time="10:00", end_time="11:30", timezone="ET")
    assert (facts.start_us, facts.end_us) == (us_at(30), us_at(120))
    assert facts.timezone == "ET"


def test_declared_window_without_a_zone_is_read_in_the_default_zone() -> None:
    facts = facts_of("X_2025-07-29", start_time="13:30:00", end_time="15:00:00")
    assert (facts.start_us, facts.end_us) == (us_at(0), us_at(90))


@pytest.mark.parametrize(("end_time", "hours"), [("03:00", 6), ("21:00", 24), ("20:59", 23 + 59 / 60), ("22:00", 1)])
def test_end_at_or_before_the_start_is_on_the_next_day(end_time: str, hours: float) -> None:
    facts = facts_of("X_2025-07-29", start_time="21:00", end_time=end_time)
    assert facts.start_us is not None
    assert facts.end_us == facts.start_us + round(hours * HOUR_US)


def test_session_over_the_end_of_daylight_saving_is_an_hour_longer() -> None:
    start_us, end_us = Schedule(start="22:00", end="04:00").window_us(date(2025, 11, 1))
    assert end_us - start_us == 7 * HOUR_US


def test_session_ends_when_the_last_known_end_is_over() -> None:
    assert facts_of("NY_AM_2025-07-29", start_time="13:30", end_time="14:00").end_us == us_at(149)
    assert facts_of("NY_AM_2025-07-29", start_time="13:30", end_time="17:00").end_us == us_at(210)


@pytest.mark.parametrize(
    ("metadata", "words"),
    [
        ({"date": "soon"}, "expected a date"),
        ({"date": "9999-12-31"}, "expected a date"),
        ({"timezone": "Nowhere"}, "expected an IANA time zone"),
        ({"start_time": "noon"}, "expected a time of day"),
        ({"start_time": "10:00", "end_time": "26:00"}, "expected a time of day"),
    ],
)
def test_metadata_that_cannot_be_read_is_refused_with_its_place(metadata: dict[str, str], words: str) -> None:
    with pytest.raises(RecordInvalidError, match=words) as caught:
        facts_of("X_2025-07-29", **metadata)
    assert "$.session_metadata" in str(caught.value)


@given(session_id=st.text(max_size=40))
def test_any_id_gives_facts(session_id: str) -> None:
    assert isinstance(facts_of(session_id), SessionFacts)


def everything() -> SessionFacts:
    return facts_of("NY_AM_2025-07-29", start_time="13:30", end_time="15:10", expected_events=40)


@pytest.mark.parametrize(
    ("policy", "method"),
    [("auto", "declared"), ("declared", "declared"), ("schedule", "schedule"), ("count", "count")],
)
def test_policy_chooses_its_own_measure(policy: CompletionPolicy, method: str) -> None:
    assert choose_yardstick(everything(), policy).method == method


def test_auto_takes_declared_then_schedule_then_count() -> None:
    assert choose_yardstick(everything(), "auto") == Yardstick(method="declared", n_expected=40)
    window = facts_of("NY_AM_2025-07-29", start_time="13:30", end_time="15:10")
    assert choose_yardstick(window, "auto") == Yardstick(
        method="declared", start_us=us_at(0), length_us=100 * MINUTE_US
    )
    by_id = facts_of("NY_AM_2025-07-29")
    assert choose_yardstick(by_id, "auto") == Yardstick(method="schedule", start_us=us_at(0), length_us=149 * MINUTE_US)
    undated = facts_of("whatever", session_type="ny_am")
    assert choose_yardstick(undated, "auto") == Yardstick(method="count", n_expected=60)
    assert choose_yardstick(facts_of("whatever"), "auto").method == "unknown"


@pytest.mark.parametrize("policy", get_args(CompletionPolicy))
def test_no_policy_finds_anything_where_nothing_is_known(policy: CompletionPolicy) -> None:
    yardstick = choose_yardstick(facts_of("whatever"), policy)
    assert yardstick.method == "unknown"
    assert yardstick.completion_pct(n_events=10**6, latest_us=us_at(0)) == 0
    assert yardstick.crossing(30.0) == (float("inf"), float("inf"))


@pytest.mark.parametrize(
    ("policy", "method"), [("auto", "declared"), ("declared", "declared"), ("schedule", "unknown"), ("count", "count")]
)
def test_session_without_readable_times_is_measured_by_counts(policy: CompletionPolicy, method: str) -> None:
    yardstick = choose_yardstick(everything(), policy, timed=False)
    assert yardstick.method == method
    assert yardstick.length_us == 0


@pytest.mark.parametrize(
    ("minute", "pct"), [(-10, 0.0), (0, 0.0), (44.7, 30.0), (74.5, 50.0), (149, 100.0), (500, 100.0)]
)
def test_completion_by_time_goes_from_0_to_100(minute: float, pct: float) -> None:
    yardstick = choose_yardstick(facts_of("NY_AM_2025-07-29"), "schedule")
    assert yardstick.completion_pct(n_events=3, latest_us=us_at(minute)) == pytest.approx(pct, abs=1e-9)


yardsticks = st.one_of(
    st.builds(lambda n: Yardstick(method="declared", n_expected=float(n)), st.integers(1, 10_000_000)),
    st.builds(lambda n: Yardstick(method="count", n_expected=n), st.floats(0.5, 1e5)),
    st.builds(
        lambda start_us, length_us: Yardstick(method="schedule", start_us=start_us, length_us=length_us),
        st.integers(31_536_000_000_000, 7_258_118_400_000_000),
        st.integers(1, 48 * HOUR_US),
    ),
)


@given(yardstick=yardsticks, checkpoint_pct=st.floats(1, 100), nudge=st.integers(-2, 2))
def test_crossing_agrees_with_completion(yardstick: Yardstick, checkpoint_pct: float, nudge: int) -> None:
    trigger_n, trigger_us = yardstick.crossing(checkpoint_pct)
    counted = trigger_us == float("inf")
    n_events = max(0, round(trigger_n) + nudge) if counted else 0
    latest_us = 0 if counted else round(trigger_us) + nudge
    crossed = n_events >= trigger_n or latest_us >= trigger_us
    pct = yardstick.completion_pct(n_events=n_events, latest_us=latest_us)
    # One microsecond, or the rounding of a float, is the most that the two may differ by.
    slack = 1e-9 * checkpoint_pct + (0 if counted else 100.0 / yardstick.length_us)
    assert pct >= checkpoint_pct - slack if crossed else pct <= checkpoint_pct + slack


@given(yardstick=yardsticks, n=st.integers(0, 10**7), step=st.integers(0, 10**6), at_us=st.integers(0, 10**16))
def test_completion_never_goes_back(yardstick: Yardstick, n: int, step: int, at_us: int) -> None:
    before = yardstick.completion_pct(n_events=n, latest_us=at_us)
    after = yardstick.completion_pct(n_events=n + step, latest_us=at_us + step)
    assert 0 <= before <= after <= 100


@pytest.mark.parametrize("name", sorted(DEFAULT_SCHEDULES))
def test_default_schedules_are_windows_of_the_new_york_day(name: str) -> None:
    start_us, end_us = DEFAULT_SCHEDULES[name].window_us(DAY)
    assert 29 * MINUTE_US <= end_us - start_us < 5 * HOUR_US
