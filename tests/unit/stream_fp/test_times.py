from __future__ import annotations

import math
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream_fp import times
from stream_fp.times import (
    HOUR_US,
    MINUTE_US,
    SECOND_US,
    absolute_us,
    format_us,
    local_us,
    parse_date,
    parse_time_of_day,
    parse_timestamp_us,
    zone_of,
)

NEW_YORK = ZoneInfo("America/New_York")
TOKYO = ZoneInfo("Asia/Tokyo")
DAY = date(2025, 7, 29)
MOMENT_US = 1_753_799_700_000_000  # 2025-07-29T14:35:00Z
OLDEST_US = 31_536_000 * SECOND_US  # 1971
NEWEST_US = 7_258_118_400 * SECOND_US  # 2200


@pytest.mark.parametrize(
    "text",
    [
        "2025-07-29T14:35:00Z",
        "2025-07-29T14:35:00+00:00",
        "2025-07-29T10:35:00-04:00",
        "2025-07-29T20:05:00+05:30",
        "2025-07-29 14:35:00Z",
        "2025-07-29T14:35Z",
        "20250729T143500Z",
    ],
)
def test_iso_text_with_offset_ignores_the_zone(text: str) -> None:
    assert parse_timestamp_us(text, TOKYO) == MOMENT_US


@pytest.mark.parametrize(("zone", "hour"), [(UTC, 14), (NEW_YORK, 10), (TOKYO, 23)])
def test_iso_text_without_offset_is_read_in_the_zone(zone: ZoneInfo, hour: int) -> None:
    assert parse_timestamp_us(f"2025-07-29T{hour}:35:00", zone) == MOMENT_US


def test_fraction_of_a_second_is_kept_to_the_microsecond() -> None:
    assert parse_timestamp_us("2025-07-29T14:35:00.000001", UTC) == MOMENT_US + 1
    assert parse_timestamp_us("2025-07-29T14:35:00.25", UTC) == MOMENT_US + 250_000


@pytest.mark.parametrize("scale", [1, 1_000, 1_000_000, 1_000_000_000], ids=["s", "ms", "us", "ns"])
@pytest.mark.parametrize("as_float", [False, True])
def test_epoch_number_has_its_unit_told_by_its_size(scale: int, *, as_float: bool) -> None:
    value: float = 1_753_799_700 * scale
    assert parse_timestamp_us(float(value) if as_float else value, TOKYO) == MOMENT_US


@given(moment_us=st.integers(OLDEST_US, NEWEST_US - 1))
def test_epoch_numbers_of_all_units_agree(moment_us: int) -> None:
    second_us = moment_us // SECOND_US * SECOND_US
    assert parse_timestamp_us(second_us // SECOND_US, UTC) == second_us
    assert parse_timestamp_us(moment_us // 1000, UTC) == moment_us // 1000 * 1000
    assert parse_timestamp_us(moment_us, UTC) == moment_us
    assert parse_timestamp_us(moment_us * 1000 + 999, UTC) == moment_us


def test_epoch_seconds_may_have_a_fraction() -> None:
    assert parse_timestamp_us(1_753_799_700.5, UTC) == MOMENT_US + 500_000


@pytest.mark.parametrize(
    "value",
    [0, -1, 1, 31_535_999, 10**40, -(10**40), 10**400, 0.0, math.inf, -math.inf, math.nan, 1e300, 5e-324, True, False],
)
def test_number_out_of_range_is_unreadable(value: float) -> None:
    assert parse_timestamp_us(value, UTC, DAY) is None


@pytest.mark.parametrize(
    "text",
    [
        "", " ", "soon", "14:35", "14:35:00", "2025-02-29T00:00:00", "2025-13-01T00:00:00", "1970-12-31T23:59:59Z",
        "2200-01-01T00:00:00Z", "0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59", "1753799700", "\ud800",
        "\x00", "2025-07-29T14:35:00+99:00",
    ],
)  # fmt: skip
def test_text_that_is_no_market_time_is_unreadable(text: str) -> None:
    assert parse_timestamp_us(text, UTC) is None


@given(value=st.text() | st.integers() | st.floats() | st.booleans())
def test_any_value_is_read_or_refused_but_never_raises(value: str | float) -> None:
    for zone in (UTC, NEW_YORK):
        moment_us = parse_timestamp_us(value, zone, DAY)
        assert moment_us is None or OLDEST_US <= moment_us < NEWEST_US


@given(
    moment=st.datetimes(timezones=st.sampled_from((UTC, NEW_YORK, TOKYO)), allow_imaginary=False),
    zone=st.sampled_from((UTC, NEW_YORK, TOKYO)),
)
def test_any_iso_text_is_read_as_python_reads_it(moment: datetime, zone: ZoneInfo) -> None:
    parsed_us = parse_timestamp_us(moment.isoformat(), zone)
    expected_us = (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
    assert parsed_us == (expected_us if OLDEST_US <= expected_us < NEWEST_US else None)


@pytest.mark.parametrize("text", ["10:35", "10:35:00", "10:35:00.000000", "10:35:00.0000009"])
def test_time_of_day_needs_the_day_and_is_read_in_the_zone(text: str) -> None:
    assert parse_timestamp_us(text, NEW_YORK, DAY) == MOMENT_US


@pytest.mark.parametrize(
    "day", [date(1900, 1, 1), date(1970, 6, 1), date(2200, 1, 1), date(9999, 12, 31), date(1, 1, 1)]
)
def test_time_of_day_on_a_day_out_of_range_is_unreadable(day: date) -> None:
    assert parse_timestamp_us("10:35:00", NEW_YORK, day) is None


@pytest.mark.parametrize(
    ("text", "clock"),
    [
        ("9:30", time(9, 30)), ("09:30:15", time(9, 30, 15)), ("23:59:59.25", time(23, 59, 59, 250_000)),
        ("00:00", time(0)), ("23:59:59.9999999", time(23, 59, 59, 999_999)),
        ("24:00", None), ("09:60", None), ("9.30", None), ("", None), ("09:30 ", None), ("-1:30", None), ("9:3", None),
    ],
)  # fmt: skip
def test_clock_text_is_read_or_refused(text: str, clock: time | None) -> None:
    assert parse_time_of_day(text) == clock


@pytest.mark.parametrize(
    ("text", "day"),
    [
        ("2025-07-29", DAY), ("2025_07_29", DAY), ("2024-02-29", date(2024, 2, 29)),
        ("2025-02-29", None), ("29.07.2025", None), ("", None), ("2025-7-29", None),
        ("0001-01-01", None), ("1970-12-31", None), ("2200-01-01", None), ("9999-12-31", None),
    ],
)  # fmt: skip
def test_date_text_is_read_or_refused(text: str, day: date | None) -> None:
    assert parse_date(text) == day


@pytest.mark.parametrize(
    ("day", "hours"),
    [(date(2025, 3, 9), 23), (date(2025, 11, 2), 25), (date(2025, 7, 29), 24), (date(2024, 2, 28), 24)],
)
def test_days_of_daylight_saving_have_the_right_length(day: date, hours: int) -> None:
    midnight_us = local_us(day, time(0), NEW_YORK)
    assert local_us(day + timedelta(days=1), time(0), NEW_YORK) - midnight_us == hours * HOUR_US


@pytest.mark.parametrize(("day", "offset_h"), [(date(2025, 3, 8), 5), (date(2025, 3, 9), 4), (date(2025, 11, 3), 5)])
def test_the_new_york_opening_moves_with_daylight_saving(day: date, offset_h: int) -> None:
    opening_us = parse_timestamp_us("09:30:00", NEW_YORK, day)
    assert opening_us == parse_timestamp_us(f"{day}T{9 + offset_h:02d}:30:00Z", UTC)


def test_hour_that_daylight_saving_repeats_means_its_first_pass() -> None:
    assert local_us(date(2025, 11, 2), time(1, 30), NEW_YORK) == parse_timestamp_us("2025-11-02T05:30:00Z", UTC)


def test_time_that_daylight_saving_skips_is_an_hour_later() -> None:
    skipped = parse_timestamp_us("2025-03-09T02:30:00", ZoneInfo("America/New_York"))
    assert skipped == parse_timestamp_us("2025-03-09T03:30:00-04:00", UTC)


def test_leap_day_is_a_day_of_its_own() -> None:
    before, leap, after = (
        parse_timestamp_us(f"{day}T00:00:00", UTC) for day in ("2024-02-28", "2024-02-29", "2024-03-01")
    )
    assert before is not None
    assert (leap, after) == (before + 24 * HOUR_US, before + 48 * HOUR_US)


@given(moment_us=st.integers(OLDEST_US, NEWEST_US - 1))
def test_formatted_time_is_read_back_exactly(moment_us: int) -> None:
    text = format_us(moment_us)
    assert len(text) == 26
    assert parse_timestamp_us(text, UTC) == moment_us


def test_units_are_whole_microseconds() -> None:
    assert (SECOND_US, MINUTE_US, HOUR_US) == (10**6, 60 * 10**6, 3600 * 10**6)


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("ET", "America/New_York"),
        ("EST", "America/New_York"),
        ("CT", "America/Chicago"),
        ("Z", "UTC"),
        ("Asia/Tokyo", "Asia/Tokyo"),
    ],
)
def test_zone_names_and_shorthands_are_known(name: str, key: str) -> None:
    assert zone_of(name).key == key


@pytest.mark.parametrize(
    "name", ["", "Nowhere/City", "../etc/passwd", "/etc/passwd", "America", "\x00", "\ud800", "x" * 9000]
)
def test_unknown_zone_is_a_value_error_that_says_so(name: str) -> None:
    with pytest.raises(ValueError, match="expected an IANA time zone") as caught:
        zone_of(name)
    assert len(str(caught.value)) < 400


# ------------------------------------------------------------------------------------------------- the quick way

DAY_US = 24 * HOUR_US
ZONES = (UTC, NEW_YORK, TOKYO, ZoneInfo("Africa/Monrovia"), ZoneInfo("Australia/Lord_Howe"))
two_digits = st.integers(0, 70).map("{:02d}".format)
dates = st.one_of(
    st.dates(date(1970, 12, 30), date(2200, 1, 2)).map(str),
    st.sampled_from(("2025-03-09", "2025-11-02", "2025-02-29", "1971-01-01", "2199-12-31", "0001-01-01", "9999-12-31")),
    st.sampled_from(("20250729", "2025-W31-2", "2025W312", "2025-07", "+025-07-29", "\uff12025-07-29", "")),
)
clocks = st.one_of(
    st.times().map(time.isoformat),
    st.times().map(lambda clock: clock.isoformat("milliseconds")),
    st.times().map(lambda clock: clock.isoformat("seconds")),
    st.times().map(lambda clock: clock.isoformat("minutes")),
    st.builds("{}:{}:{}".format, two_digits, two_digits, two_digits),
    st.sampled_from(
        ("24:00:00", "24:00:01", "23:59:60", "120000", "12:00:0", "12:00:00,5", "12:00:+1", "12:00:\u0660\u0661", "")
    ),
)
fractions = st.sampled_from(
    (
        "",
        "",
        ".5",
        ".500",
        ".123456",
        ".1234567",
        ".12 ",
        ".+12345",
        ".\u0660\u0661\u0662",
        ".\u0660\u0661\u0662\u0663\u0664\u0665",
        ".",
        ",250",
    )
)
offsets = st.one_of(
    st.sampled_from(
        ("", "Z", "z", "ZZ", "+00:00", "-00:00", "-05:00", "+05:30", "-0500", "+05", "-05:00:30", " -05:00")
    ),
    st.builds("{}{}:{}".format, st.sampled_from("+-"), two_digits, two_digits),
)
moments_us = st.integers(OLDEST_US - 2 * DAY_US, NEWEST_US + 2 * DAY_US)
stamps = st.one_of(
    st.builds("{}{}{}{}{}".format, dates, st.sampled_from("TTTT t_-+"), clocks, fractions, offsets),
    st.datetimes(timezones=st.sampled_from(ZONES)).map(datetime.isoformat),
    st.builds("{:.{}}{}".format, moments_us.map(format_us), st.sampled_from((19, 23, 26)), offsets),
    st.builds("{}{}{}".format, clocks, fractions, offsets),
    st.text(max_size=35),
    st.integers() | st.floats(),
    moments_us,
)


def plainly_parsed_us(text: str) -> int | None:
    """Read an ISO text with an offset in the most obvious way."""
    try:
        moment_us = (datetime.fromisoformat(text) - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
    except (ValueError, OverflowError):
        return None
    return moment_us if OLDEST_US <= moment_us < NEWEST_US else None


@given(value=stamps)
@settings(max_examples=3000, deadline=None)
def test_what_the_quick_way_reads_is_what_the_plain_way_reads_in_any_zone(value: str | float) -> None:
    quick_us = absolute_us(value)
    assert absolute_us(value) == quick_us  # from what it remembers
    if quick_us is not None:
        assert {parse_timestamp_us(value, zone, day) for zone in ZONES for day in (None, DAY)} == {quick_us}
        assert not isinstance(value, str) or plainly_parsed_us(value) == quick_us


@given(
    moment_us=st.integers(OLDEST_US + DAY_US, NEWEST_US - DAY_US - 1),
    n_kept=st.sampled_from((19, 23, 26)),
    separator=st.sampled_from("T "),
    offset=st.sampled_from(("Z", "+00:00", "-00:00", "-05:00", "-04:00", "+05:30", "+05:45", "+14:00", "-12:00")),
)
def test_usual_stamps_with_an_offset_are_read_the_quick_way(
    moment_us: int, n_kept: int, separator: str, offset: str
) -> None:
    text = format_us(moment_us)[:n_kept].replace("T", separator) + offset
    quick_us = absolute_us(text)
    assert quick_us is not None
    assert quick_us == plainly_parsed_us(text)


@pytest.mark.parametrize("zone", ZONES, ids=str)
@pytest.mark.parametrize("text", ["2025-11-02T01:30:00", "2025-03-09T02:30:00.500", "10:35:00", "2025-07-29"])
def test_text_that_leaves_the_zone_or_the_day_open_is_never_read_the_quick_way(text: str, zone: ZoneInfo) -> None:
    assert absolute_us(text) is None
    assert parse_timestamp_us(text, zone, DAY) is not None


def test_minutes_and_zones_remembered_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(times, "IS_COMPILED", False)  # else they are reckoned, and not remembered
    for minute in range(10_000):
        absolute_us(f"2025-01-{1 + minute // 1440:02d}T{minute // 60 % 24:02d}:{minute % 60:02d}:00Z")
    for offset in range(-14, 15):
        for thousandth in range(1000):
            absolute_us(f"2025-01-01T00:00:00.{thousandth:03d}{offset:+03d}:00")
    assert 0 < len(times._MINUTES_US) <= times._N_REMEMBERED
    assert len(times._ENDINGS_US) == times._N_REMEMBERED
    assert zone_of.cache_info().maxsize is not None
