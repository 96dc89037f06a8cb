"""What holds for any input of the core's public functions, and that none of them is left without such a property.

Those of features, completion over time, time stamps, batches, rebuilding and lookahead have files of their own; what is
here is the rest. The last test looks through all files.
"""

from __future__ import annotations

import ast
import errno
import functools
import math
import re
import tempfile
import tomllib
from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, Final
from zoneinfo import ZoneInfo

import hypothesis.extra.numpy as hnp
import msgspec
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from stream_fp.checks import MAX_INTENSITY, MAX_SESSION_ID_LENGTH, checked_event, event_fault, session_id_of
from stream_fp.classifier import (
    AssignmentMethod,
    Classifier,
    ConfidenceMethod,
    DistanceMetric,
    distances,
    nearest,
    resolve_assignment,
)
from stream_fp.completion import CompletionPolicy, Schedule, SessionFacts, choose_yardstick, resolve_facts
from stream_fp.disk import may_pass
from stream_fp.documents import adapt_document, is_document
from stream_fp.errors import DocumentError, ModelError, RecordDecodeError, RecordError, RecordInvalidError
from stream_fp.features import RANGE, range_of_log
from stream_fp.forecast import final_range_pct, predicted_stats, top_phases, volatility_class
from stream_fp.library import Library, load_library, load_metadata
from stream_fp.messages import (
    MAX_JSON_DEPTH,
    UNDECODABLE,
    Message,
    SessionMetadata,
    decode_error,
    decode_message,
    decode_unchecked,
    may_be_too_deep,
)
from stream_fp.open_sessions import OpenSessions
from stream_fp.prefix_model import OUTCOMES, range_ratio, range_ratios
from stream_fp.rest import N_PATH_POINTS, price_path
from stream_fp.rounding import rounded
from stream_fp.sessions import BYTES_PER_EVENT, Session
from stream_fp.times import day_us, local_us, parse_date, parse_time_of_day, zone_of
from tests.support.builders import Record, make_engine, tiny_library, tiny_metadata, tiny_stats, write_library

OLDEST_US: Final = day_us(date(1971, 1, 1))
NEWEST_US: Final = day_us(date(2200, 1, 1))
ROOT: Final = Path(__file__).resolve().parents[2]
ZONES: Final = st.sampled_from(("UTC", "America/New_York", "Europe/London", "Asia/Tokyo", "Australia/Lord_Howe"))
DAYS: Final = st.dates(date(1971, 1, 2), date(2199, 12, 30))
MOMENTS: Final = st.integers(OLDEST_US, NEWEST_US - 1)
Array = npt.NDArray[np.float64]
VECTORS: Final = hnp.arrays(np.float64, 30, elements=st.floats(-1e12, 1e12))
#: Prices from 1e-9 to 1e12 can have no range beyond 1e23 %, of which the feature is the logarithm.
POSSIBLE: Final = hnp.arrays(np.float64, 30, elements=st.floats(-60, 60))
JSON: Final = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=12), inner, max_size=5),
    max_leaves=15,
)
#: Tested through something that calls it with every input it can get: there is no property to add.
INDIRECT: Final = {
    # The batches of tests/contract/test_batches.py are taken by it, and compared with the general way.
    "take_usual": "process_all",
}


@functools.cache
def library() -> Library:
    """No fixture: hypothesis would write all of it down with every example."""
    with tempfile.TemporaryDirectory() as folder:
        return tiny_library(Path(folder) / "v0.0.1")


# -------------------------------------------------------------------------------------------------- what comes inside


@given(key=st.binary(max_size=300) | st.text(max_size=300).map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_any_key_is_a_session_id_or_refused(key: bytes) -> None:
    try:
        session_id = session_id_of(key)
    except RecordInvalidError:
        return
    assert session_id.encode() == key
    assert len(session_id) <= MAX_SESSION_ID_LENGTH
    assert session_id.isprintable()


@given(fields=st.dictionaries(st.sampled_from((*Message.__struct_fields__, "other")), JSON))
@settings(max_examples=150)
def test_any_message_is_an_event_within_its_bounds_or_refused(fields: dict[str, Any]) -> None:
    try:
        message = decode_message(msgspec.json.encode(fields))
    except RecordError:
        return
    fault = event_fault(message)
    if fault is not None:
        assert str(fault).startswith("expected ")
        with pytest.raises(RecordInvalidError, match=re.escape(str(fault))):
            checked_event(message)
        return
    event_type, price, stamp = checked_event(message)
    assert (event_type, stamp) == (fields["event_type"], fields["timestamp"])
    assert price is None or (price == fields["price"] and 1e-9 <= price <= 1e12)
    assert abs(message.intensity or 0) <= MAX_INTENSITY


@given(content=st.binary(max_size=100))
@example(b'{"price": "high"}')
@example(b'{"kind": "\xff"}')
def test_whatever_cannot_be_decoded_has_the_same_reason_wherever_it_was_tried(content: bytes) -> None:
    try:
        decode_unchecked(content)
    except UNDECODABLE as error:
        reason = decode_error(error)
        with pytest.raises(RecordDecodeError) as caught:
            decode_message(content)
        assert not content or str(caught.value) == str(reason)


@given(value=JSON, depth=st.integers(0, 2 * MAX_JSON_DEPTH))
def test_what_is_too_deep_may_be_too_deep(value: object, depth: int) -> None:
    content = b"[" * depth + msgspec.json.encode(value) + b"]" * depth
    if depth > MAX_JSON_DEPTH:
        assert may_be_too_deep(content)
    if content.count(b"[") + content.count(b"{") <= MAX_JSON_DEPTH:
        assert not may_be_too_deep(content)


@given(value=JSON)
def test_any_json_is_a_document_or_not_and_adapted_or_refused(value: object) -> None:
    assert is_document(value) in (True, False)
    try:
        adapted = adapt_document(value)  # type: ignore[arg-type]
    except DocumentError:
        return
    assert is_document(value)
    assert adapted.n_imputed == sum(adapted.n_imputed_by_message) >= 0
    assert len(adapted.n_imputed_by_message) == len(adapted.messages)


@given(where=st.sampled_from(("metadata.json", "cluster_stats.json")), data=st.data())
@settings(max_examples=30, deadline=None)
def test_damaged_library_is_refused_with_an_error_of_its_own(
    where: str, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = write_library(tmp_path_factory.mktemp("damaged") / "v0.0.1", tiny_metadata(), tiny_stats())
    content = (path / where).read_bytes()
    at = data.draw(st.integers(0, len(content) - 1))
    length = data.draw(st.integers(0, 40))
    changed = content[:at] + data.draw(st.binary(max_size=8)) + content[at + length :]
    (path / where).write_bytes(changed)
    for load in (load_library, load_metadata):
        try:
            load(path)
        except ModelError as error:
            assert str(error)  # noqa: PT017 - it may also be sound
        else:
            # Another statistics file than the hash says is never loaded; metadata may lie about what nobody checks.
            assert where == "metadata.json" or changed == content or load is load_metadata


@given(number=st.none() | st.integers(0, 200))
def test_what_may_pass_is_never_a_path_that_is_wrong(number: int | None) -> None:
    error = OSError(number, "?") if number is not None else OSError("?")
    assert may_pass(error) in (True, False)
    if number in (None, errno.ENOENT, errno.EACCES, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG):
        assert not may_pass(error)


# ---------------------------------------------------------------------------------------------------- time and place


@given(name=st.text(max_size=40) | st.sampled_from(("ET", "../UTC", "/etc/passwd", "America/", "GMT+5", "\0")))
def test_any_name_is_a_zone_or_a_value_error(name: str) -> None:
    try:
        zone = zone_of(name)
    except ValueError:
        return
    assert datetime(2025, 7, 29, tzinfo=zone).utcoffset() is not None


@given(text=st.text(max_size=20) | st.from_regex(r"[0-9]{1,2}:[0-9]{1,2}(:[0-9]{1,2})?", fullmatch=True))
def test_any_text_is_a_time_of_day_or_none(text: str) -> None:
    clock = parse_time_of_day(text)
    assert clock is None or clock.tzinfo is None


@given(clock=st.times())
def test_time_of_day_is_read_as_it_was_written(clock: time) -> None:
    assert parse_time_of_day(clock.isoformat("microseconds")) == clock.replace(fold=0)
    assert parse_time_of_day(clock.isoformat("minutes")) == clock.replace(second=0, microsecond=0, fold=0)


@given(day=DAYS, text=st.text(max_size=12))
def test_date_is_read_as_it_was_written(day: date, text: str) -> None:
    assert parse_date(day.isoformat()) == parse_date(day.isoformat().replace("-", "_")) == day
    assert parse_date(text) is None or parse_date(text) == date.fromisoformat(text.replace("_", "-"))


@given(day=DAYS, clock=st.times(), name=ZONES)
def test_wall_clock_is_the_moment_that_zoneinfo_gives(day: date, clock: time, name: str) -> None:
    zone = ZoneInfo(name)
    moment = datetime.combine(day, clock.replace(fold=0), zone)
    assert local_us(day, clock.replace(fold=0), zone) == (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(
        microseconds=1
    )
    assert day_us(day) == local_us(day, time(0), UTC)


@given(start=st.times(), end=st.times(), day=DAYS, name=ZONES)
def test_window_of_any_schedule_goes_forward_and_is_no_longer_than_a_day(
    start: time, end: time, day: date, name: str
) -> None:
    schedule = Schedule(start=f"{start:%H:%M}", end=f"{end:%H:%M}", timezone=name)
    start_us, end_us = schedule.window_us(day)
    # An hour more or less where daylight saving begins or ends.
    assert -3_600_000_000 <= end_us - start_us <= 25 * 3_600_000_000
    if f"{start:%H:%M}" == f"{end:%H:%M}":
        assert end_us - start_us >= 23 * 3_600_000_000


METADATA: Final = st.builds(
    SessionMetadata,
    session_type=st.none() | st.text(max_size=64) | st.just("NY_AM"),
    date=st.none() | st.text(max_size=12) | DAYS.map(date.isoformat),
    start_time=st.none() | st.text(max_size=8) | st.times().map(lambda clock: f"{clock:%H:%M}"),
    end_time=st.none() | st.text(max_size=8) | st.times().map(lambda clock: f"{clock:%H:%M}"),
    timezone=st.none() | st.text(max_size=20) | ZONES,
    expected_events=st.none() | st.integers(1, 10_000_000),
)
SCHEDULES: Final = {"ny_am": Schedule(start="09:30", end="11:59")}


def facts_or_none(session_id: str, metadata: SessionMetadata | None) -> SessionFacts | None:
    try:
        return resolve_facts(
            session_id, metadata, schedules=SCHEDULES, typical_events={"ny_am": 70.0}, default_timezone="UTC"
        )
    except RecordInvalidError:
        return None


@given(
    session_id=st.text(max_size=40) | DAYS.map(lambda day: f"NY_AM_{day}"),
    metadata=st.none() | METADATA,
    policy=st.sampled_from(("auto", "declared", "schedule", "count")),
    timed=st.booleans(),
    n_events=st.integers(0, 10**6),
    latest_us=MOMENTS,
)
@settings(max_examples=150)
def test_any_metadata_is_refused_or_gives_a_yardstick(
    session_id: str,
    metadata: SessionMetadata | None,
    policy: CompletionPolicy,
    *,
    timed: bool,
    n_events: int,
    latest_us: int,
) -> None:
    facts = facts_or_none(session_id, metadata)
    if facts is None:
        return
    known = [end for end in (facts.declared_end_us, facts.schedule_us and facts.schedule_us[1]) if end is not None]
    assert facts.end_us == (max(known) if known else None)
    if facts.declared_start_us is not None:
        assert facts.start_us == facts.declared_start_us
    yardstick = choose_yardstick(facts, policy, timed=timed)
    assert yardstick.method in ("declared", "schedule", "count", "unknown")
    if policy != "auto":
        assert yardstick.method in (policy, "unknown")
    if not timed:
        assert yardstick.length_us == 0  # by events, if at all
    assert 0 <= yardstick.completion_pct(n_events=n_events, latest_us=latest_us) <= 100


# ------------------------------------------------------------------------------------------------ sessions and engine

EVENTS: Final = st.lists(
    st.tuples(
        MOMENTS,
        st.none() | st.floats(1e-9, 1e12),
        st.none() | st.floats(-1e9, 1e9),
        st.integers(0, 27),
    ),
    max_size=30,
)


def session_with(events: list[tuple[int, float | None, float | None, int]]) -> Session:
    session = Session("S", first_offset=0, opened_at_watermark_us=None)
    for event in events:
        session.append(*event)
    return session


@given(events=EVENTS, ids=st.lists(st.text(max_size=5) | st.integers(-(2**63), 2**63 - 1), max_size=5))
def test_session_gives_back_what_it_was_given_until_it_lets_go(
    events: list[tuple[int, float | None, float | None, int]], ids: list[str | int]
) -> None:
    session = session_with(events)
    assert session.n_held == len(events)
    assert session.all_untimed
    if events:
        columns = session.columns()
        found = zip(columns.times_us, columns.prices, columns.intensities, columns.codes, strict=True)
        for (time_us, price, intensity, code), (a, b, c, d) in zip(events, found, strict=True):
            assert (a, d) == (time_us, code)
            assert math.isnan(b) if price is None else b == price
            assert math.isnan(c) if intensity is None else c == intensity
        assert columns.start_us == session.start_us == events[0][0]
    for one in ids:
        session.remember(one)
    assert set(session.event_ids) == set(ids)
    assert session.release() == len(events)
    assert (session.release(), session.n_held, len(session.event_ids)) == (0, 0, 0)


@given(stamp=st.text(max_size=30) | st.floats() | st.integers(), name=ZONES)
def test_session_reads_any_stamp_or_says_that_it_cannot(stamp: str | float, name: str) -> None:
    session = Session("S", first_offset=0, opened_at_watermark_us=None)
    session.facts = SessionFacts(session_type="", day=date(2025, 7, 29), timezone=name)
    session.tells_time = False
    for moment in session.read_time(stamp, UTC):
        assert moment is None or OLDEST_US <= moment < NEWEST_US


ACTIONS: Final = st.lists(
    st.tuples(
        st.sampled_from(("add", "remove", "event", "id", "release", "expire")), st.integers(0, 4), st.integers(1, 10**6)
    ),
    max_size=40,
)


@given(actions=ACTIONS, grace_us=st.integers(0, 1000), idle_us=st.integers(0, 1000))
@settings(max_examples=60)
def test_open_sessions_keep_their_order_and_their_books(
    actions: list[tuple[str, int, int]], grace_us: int, idle_us: int
) -> None:
    sessions, ends = OpenSessions(grace_us=grace_us, idle_timeout_us=idle_us), dict[bytes, int]()
    watermark_us = 0
    for offset, (what, which, amount) in enumerate(actions):
        key = b"%d" % which
        if what == "add" and key not in sessions.by_key:
            session = Session(key.decode(), first_offset=offset, opened_at_watermark_us=None)
            session.touched_us = max(1, watermark_us)
            ends[key] = session.touched_us + max(1, idle_us)
            sessions.add(key, session)
        elif what == "expire":
            watermark_us = max(watermark_us, amount)
            closed = sessions.expire(watermark_us)
            assert {session.id.encode() for session in closed} == {k for k, end in ends.items() if end <= watermark_us}
            ends = {k: end for k, end in ends.items() if end > watermark_us}
            for session in closed:
                sessions.release(session)
        elif key in sessions.by_key:
            session = sessions.by_key[key]
            if what == "event":
                session.append(amount, 1.0, None, 0)
                sessions.n_events += 1
            elif what == "id" and amount not in session.event_ids:
                sessions.remember(session, amount)
            elif what == "release":
                sessions.release(session)
            elif what == "remove":
                sessions.release(sessions.remove(key))
                del ends[key]
        assert set(sessions.by_key) == set(ends)
        offsets = [session.first_offset for session in sessions.by_key.values()]
        assert offsets == sorted(offsets)
        assert sessions.oldest is (next(iter(sessions.by_key.values())) if offsets else None)
        assert sessions.n_events == sum(session.n_held for session in sessions.by_key.values())
        assert sessions.n_bytes >= BYTES_PER_EVENT * sessions.n_events
        assert (sessions.n_bytes == 0) == (not offsets)
        assert all(end >= sessions.next_deadline_us for end in ends.values())


WEEK: Final = (datetime.fromisoformat("2025-07-28"), datetime.fromisoformat("2025-08-03"))
RECORDS: Final = st.lists(
    st.tuples(
        st.sampled_from((b"NY_AM_2025-07-29", b"LUNCH_2025-07-29", b"free", b"", None)),
        st.binary(max_size=20)
        | st.fixed_dictionaries(
            {
                "timestamp": st.datetimes(*WEEK, timezones=st.just(UTC)).map(datetime.isoformat) | JSON,
                "event_type": st.just("sweep"),
                "price": st.floats(1, 100) | st.none(),
            },
            optional={"kind": st.sampled_from(("event", "session_start", "session_end", "x"))},
        ).map(msgspec.json.encode),
    ),
    max_size=40,
)


@given(plan=RECORDS, published=st.integers(0, 50), ahead=st.integers(0, 100))
@settings(max_examples=60, deadline=None)
def test_books_of_the_engine_reconcile_after_any_records(
    plan: list[tuple[bytes | None, bytes]], published: int, ahead: int
) -> None:
    engine = make_engine(published_offset=published, min_events=1)
    watermark_us, low = -1, 0
    for offset, (key, value) in enumerate(plan):
        engine.process(Record(offset, key, value))
        assert (engine.watermark_us or -1) >= watermark_us
        watermark_us = engine.watermark_us or -1
        assert engine.low_offset is not None
        assert engine.position == offset + 1 >= engine.low_offset[0] >= low
        low = engine.low_offset[0]
        counts = engine.counts
        assert counts.consumed == counts.applied + sum(counts.ignored.values()) + sum(counts.dead_lettered.values())
        assert engine.n_buffered_bytes >= BYTES_PER_EVENT * engine.n_buffered_events
        if key:
            engine.finish_partial(key)  # asks, and changes nothing
            assert engine.counts == counts
    engine.speak()
    assert engine.speak() == ()
    position = engine.position
    engine.pass_over(ahead)
    assert engine.position == (None if position is None else max(position, ahead))
    engine.close()
    assert (engine.n_open_sessions, engine.n_buffered_events, engine.n_buffered_bytes) == (0, 0, 0)


# ----------------------------------------------------------------------------------------------- numbers of the model


@given(value=st.floats(-1e9, 1e9), digits=st.integers(0, 6))
def test_rounded_is_the_nearest_multiple(value: float, digits: int) -> None:
    found = rounded(value, 10.0**digits)
    step = Decimal(1).scaleb(-digits)
    assert abs(Decimal(found) - Decimal(value)) <= step / 2 + Decimal(abs(value)) * Decimal(2) ** -51


@given(vector=VECTORS, metric=st.sampled_from(("euclidean", "cosine")), data=st.data())
def test_distances_are_those_of_numpy_and_the_nearest_is_their_least(
    vector: Array, metric: DistanceMetric, data: st.DataObject
) -> None:
    centroids = data.draw(hnp.arrays(np.float64, (3, 30), elements=st.floats(-1e12, 1e12)))
    found = distances(vector, centroids, metric)
    assert (found >= 0).all()
    if metric == "euclidean":
        np.testing.assert_allclose(found, np.linalg.norm(centroids - vector, axis=1), rtol=1e-9)
        assert found[nearest(vector, centroids)] <= found.min() * (1 + 1e-12)
    else:
        assert (found <= 2 + 1e-12).all()


@given(
    vector=VECTORS,
    method=st.sampled_from(("auto", "prefix_model", "prefix_centroid", "full_centroid")),
    confidence=st.sampled_from(("inverse_distance", "softmax", "calibrated")),
    metric=st.sampled_from(("euclidean", "cosine", "mahalanobis")),
    checkpoint_pct=st.floats(1, 100),
    session_type=st.sampled_from(("ny_am", "", "unheard of")),
)
@settings(max_examples=60, deadline=None)
def test_any_vector_is_assigned_with_probabilities_that_add_up(
    *,
    vector: Array,
    method: AssignmentMethod,
    confidence: ConfidenceMethod,
    metric: DistanceMetric,
    checkpoint_pct: float,
    session_type: str,
) -> None:
    classifier = Classifier(library(), distance_metric=metric, confidence_method=confidence, assignment=method)
    found = classifier.classify(vector, checkpoint_pct, session_type)
    assert math.isclose(sum(found.probabilities.values()), 1.0, abs_tol=1e-9)
    assert 0 < found.confidence <= 1
    assert found.confidence == found.probabilities[found.archetype_id]
    assert found.distance >= 0
    assert found.method == resolve_assignment(library(), method, confidence) != "auto"
    model = library().prefix_model(checkpoint_pct)
    values = vector.tolist()
    shares = model.shares(model.known(values, session_type))
    again = classifier.assign(values, checkpoint_pct, model, shares)
    assert (again.archetype_id, again.probabilities) == (found.archetype_id, found.probabilities)


@given(vector=POSSIBLE, session_type=st.sampled_from(("ny_am", "", "unheard of")), n_seen=st.integers(1, 10**6))
@settings(max_examples=60, deadline=None)
def test_forecast_of_any_vector_is_in_order_and_the_same_from_lists_and_arrays(
    vector: Array, session_type: str, n_seen: int
) -> None:
    for model in library().prefix_models:
        values = vector.tolist()
        known = model.known(values, session_type)
        shares = model.shares(known)
        inputs = model.inputs(vector, session_type)
        np.testing.assert_array_equal(known, inputs)
        probabilities = model.probabilities(inputs)
        np.testing.assert_array_equal(shares, probabilities)
        forecast = model.rest_of(values, known, shares)
        again = model.forecast_rest(vector, inputs, probabilities)
        np.testing.assert_array_equal(forecast.outcomes, again.outcomes)
        assert forecast.final_range_pct == again.final_range_pct
        assert len(forecast.outcomes) == len(OUTCOMES)
        for archetype in library().archetypes.values():
            so_far_pct = range_of_log(values[RANGE])
            low, middle, high = final_range_pct(archetype, so_far_pct, forecast)
            assert so_far_pct - 1e-9 * abs(so_far_pct) <= low <= middle <= high
            told = predicted_stats(library(), archetype, values, n_seen, forecast)
            encoded = msgspec.json.encode(told)
            assert b"NaN" not in encoded
            assert msgspec.json.encode(msgspec.json.decode(encoded, type=type(told))) == encoded


@given(so_far=st.floats(0, 1e6), unit=st.floats(1e-6, 1e6))
def test_range_ratio_of_one_is_that_of_many(so_far: float, unit: float) -> None:
    one = range_ratio(so_far, unit)
    many = range_ratios(np.array([so_far, so_far]), np.array([unit, unit]))
    np.testing.assert_allclose(many[:, 0], one, rtol=1e-12)
    assert all(math.isfinite(number) for number in one)


@given(range_pct=st.floats(0, 1e6), bounds=st.tuples(st.floats(0, 1e3), st.floats(0, 1e3)).map(sorted))
def test_volatility_class_rises_with_the_range(range_pct: float, bounds: list[float]) -> None:
    classes = ("low", "medium", "high")
    found = volatility_class(range_pct, (bounds[0], bounds[1]))
    assert classes.index(found) <= classes.index(volatility_class(2 * range_pct, (bounds[0], bounds[1])))


@given(rates=st.lists(st.floats(0, 100), min_size=6, max_size=6), z=st.lists(st.floats(-9, 9), min_size=6, max_size=6))
def test_top_phases_are_at_most_three_that_occur(rates: list[float], z: list[float]) -> None:
    found = top_phases(rates, z)
    assert len(found) == min(3, sum(rate > 0 for rate in rates)) == len({name for name, _ in found})
    scores = [score for _, score in found]
    assert scores == sorted(scores, reverse=True)


@given(events=EVENTS.filter(bool), end=st.none() | MOMENTS)
def test_price_path_has_its_points_and_ends_at_the_last_price(
    events: list[tuple[int, float | None, float | None, int]], end: int | None
) -> None:
    path = price_path(session_with(events).columns(), end)
    assert path.shape == (N_PATH_POINTS,)
    if all(price is None for _, price, _, _ in events):
        assert np.isnan(path).all()


# ---------------------------------------------------------------------------------------------------------- all of it


def test_every_public_function_of_the_core_has_a_property() -> None:
    called = set().union(
        *(names for file in (ROOT / "tests").rglob("test_*.py") for names in names_in_properties(file))
    )
    lacking = [
        f"{module}.{name}"
        for module in core_modules()
        for name in public_functions(module)
        if INDIRECT.get(name.split(".")[-1], name.split(".")[-1]) not in called
    ]
    assert not lacking


def core_modules() -> Iterator[str]:
    """Modules of the core, as the rules for imports have them, but for those of the replay, which have no input."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (pure,) = (contract for contract in contracts if contract["name"] == "The core knows no I/O framework")
    yield from (module for module in pure["source_modules"] if not module.startswith("stream_fp.replay."))


def public_functions(module: str) -> Iterator[str]:
    """Functions in ``__all__``, and public methods of its classes."""
    tree = ast.parse((ROOT / f"{module.replace('.', '/')}.py").read_text())
    public: set[str] = set()
    for node in tree.body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "__all__":
            public = set(ast.literal_eval(node.value))
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and node.name in public:
            yield node.name
        elif isinstance(node, ast.ClassDef) and node.name in public:
            methods = (one for one in node.body if isinstance(one, ast.FunctionDef))
            yield from (f"{node.name}.{one.name}" for one in methods if not one.name.startswith("_"))


def names_in_properties(file: Path) -> Iterator[set[str]]:
    """Names in each test of a file that hypothesis gives its input, and in the functions of the file that it calls."""
    tree = ast.parse(file.read_text())
    functions = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
    for function in functions.values():
        if not any("given" in ast.dump(decorator) for decorator in function.decorator_list):
            continue
        names = names_in(function)
        yield names.union(*(names_in(functions[name]) for name in names & functions.keys()))


def names_in(node: ast.AST) -> set[str]:
    return {one.attr if isinstance(one, ast.Attribute) else one.id for one in ast.walk(node)
            if isinstance(one, ast.Attribute | ast.Name)}  # fmt: skip
