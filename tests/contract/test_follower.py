"""A replay says what the engine says, however records are cut, stopped and taken up; outcomes are those of training."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from offline.dataset import Tables, load_dataset
from offline.simulate import interleave, simulate_sessions
from stream_fp.classifier import Classifier, nearest
from stream_fp.engine_settings import EngineSettings
from stream_fp.library import load_library
from stream_fp.messages import Prediction, encode_prediction
from stream_fp.outcomes import Published
from stream_fp.predictor import Predictor
from stream_fp.replay.follower import Follower, FollowerState
from stream_fp.replay.lanes import Place, Variant
from stream_fp.replay.rows import BacktestRow, decode_row
from stream_fp.times import MINUTE_US
from tests.contract.test_rebuild import SETTINGS, steps, stream_of
from tests.support.builders import Record, event, make_engine, records, start, write_tiny_library
from tests.support.datasets import write_lines

KINDS = ("event", "event", "event", "start", "untimed", "far", "local", "end", "timed_end", "garbage")


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Classifier:
    return Classifier(load_library(write_tiny_library(tmp_path_factory.mktemp("library"))))


@pytest.fixture(scope="module")
def variants(classifier: Classifier) -> list[Variant]:
    shapes = [SETTINGS, {**SETTINGS, "checkpoints_pct": (40.0,)}, {**SETTINGS, "grace_us": 1}]
    return [Variant(classifier=classifier, settings=EngineSettings(**shape)) for shape in shapes]


class Taken:
    """What a follower gave, gathered over any number of attempts."""

    def __init__(self, n_variants: int) -> None:
        self.predictions: list[list[bytes]] = [[] for _ in range(n_variants)]
        self.rows: list[list[bytes]] = [[] for _ in range(n_variants)]

    def take(self, follower: Follower) -> None:
        for i, lane in enumerate(follower.lanes):
            self.predictions[i] += lane.predictions
            self.rows[i] += lane.rows
            lane.predictions.clear()
            lane.rows.clear()


def followed(variants: Sequence[Variant], stream: Sequence[Record], place: Place, cuts: Sequence[int] = ()) -> object:
    """Follow a stream in batches that end at `cuts`; return everything that came of it."""
    follower, taken = Follower(variants, place, with_outcomes=True), Taken(len(variants))
    for first, last in zip((0, *cuts), (*cuts, len(stream)), strict=True):
        follower.feed(stream[first:last])
        taken.take(follower)
    return closed(follower, taken)


def closed(follower: Follower, taken: Taken) -> object:
    follower.close()
    taken.take(follower)
    return (
        taken.predictions,
        [sorted(rows) for rows in taken.rows],
        [(lane.counts, lane.edges, lane.dead_letters) for lane in follower.lanes],
    )


@settings(max_examples=60, deadline=None)
@given(plan=steps(kinds=KINDS), seed=st.integers(0, 2**32 - 1), data=st.data())
def test_stopped_anywhere_and_taken_up_it_comes_to_the_same(
    variants: list[Variant], plan: list[tuple[int, int, str, int]], seed: int, data: st.DataObject
) -> None:
    stream = stream_of(plan)
    first = data.draw(st.integers(0, len(stream) - 1))
    place = Place(name="t[0]", first=first, lacks_older=data.draw(st.booleans()))
    rng = random.Random(seed)
    cuts = sorted(rng.sample(range(len(stream) + 1), k=min(4, len(stream) - 1)))
    expected = followed(variants, stream, place)
    assert followed(variants, stream, place, cuts) == expected

    follower, taken = Follower(variants, place, with_outcomes=True), Taken(len(variants))
    at = 0
    for cut in cuts:
        follower.feed(stream[at:cut])
        taken.take(follower)
        at = cut
        if (state := follower.state()) is not None:
            kept = msgspec.json.decode(msgspec.json.encode(state), type=FollowerState)
            follower = Follower(variants, place, with_outcomes=True, state=kept)
            at = kept.read_from
    follower.feed(stream[at:])
    taken.take(follower)
    assert closed(follower, taken) == expected


@settings(max_examples=60, deadline=None)
@given(plan=steps(kinds=KINDS), data=st.data())
def test_a_range_says_what_the_engine_says_there(
    variants: list[Variant], classifier: Classifier, plan: list[tuple[int, int, str, int]], data: st.DataObject
) -> None:
    """What is said in the range, by one who has followed the stream from its beginning, is what a replay says."""
    stream = stream_of(plan)
    first = data.draw(st.integers(0, len(stream)))
    follower = Follower(variants, Place(name="t[0]", first=first), with_outcomes=data.draw(st.booleans()))
    follower.feed(stream)
    library = classifier.library
    for lane in follower.lanes:
        engine = make_engine(
            Predictor(classifier), typical_events=library.typical_events, schedules=library.schedules,
            **msgspec.to_builtins(lane.variant.settings),
        )  # fmt: skip
        said = [
            encode_prediction(outcome.prediction) + b"\n"
            for record in stream
            for outcome in engine.process(record)
            if isinstance(outcome, Published) and record.offset >= first
        ]
        assert lane.predictions == said
        assert lane.counts.reconciles
        assert lane.counts.consumed == len(stream) - first


@settings(max_examples=40, deadline=None)
@given(plan=steps(kinds=KINDS), data=st.data())
def test_later_records_change_no_prediction_and_no_outcome_that_is_known(
    variants: list[Variant], plan: list[tuple[int, int, str, int]], data: st.DataObject
) -> None:
    stream = stream_of(plan)
    cut = data.draw(st.integers(0, len(stream)))
    follower, longer = (Follower(variants, Place(name="t[0]"), with_outcomes=True) for _ in range(2))
    follower.feed(stream[:cut])
    longer.feed(stream)
    for lane, later in zip(follower.lanes, longer.lanes, strict=True):
        assert later.predictions[: len(lane.predictions)] == lane.predictions
        assert later.rows[: len(lane.rows)] == lane.rows


def test_every_prediction_has_one_row(variants: list[Variant]) -> None:
    stream = records(interleave(simulate_sessions(40, seed=5)))
    follower = Follower(variants[:1], Place(name="t[0]"), with_outcomes=True)
    follower.feed(stream)
    follower.close()
    lane = follower.lanes[0]
    said = [(p.session_id, p.classification_metadata.checkpoint_pct) for p in _decoded(lane.predictions)]
    assert sorted(said) == sorted((row.session_id, row.checkpoint_pct) for row in map(decode_row, lane.rows))
    assert len(said) > 40


def test_what_came_is_what_training_sees(classifier: Classifier, tmp_path: Path) -> None:
    messages = list(interleave(simulate_sessions(60, seed=8)))
    library = classifier.library
    variant = Variant(classifier=classifier, settings=EngineSettings(checkpoints_pct=(30.0, 50.0)))
    follower = Follower([variant], Place(name="t[0]"), with_outcomes=True)
    follower.feed(records(messages))
    follower.close()
    tables = Tables(schedules=library.schedules, typical_events=library.typical_events)
    source = write_lines(tmp_path / "sessions.jsonl", messages)
    dataset = load_dataset(source, checkpoints_pct=(30.0, 50.0), tables=tables)
    row_of = {name: row for row, name in enumerate(dataset.session_ids)}
    known = [row for row in map(decode_row, follower.lanes[0].rows) if row.outcome == "known"]
    assert len(known) > 60
    for row in known:
        place = row_of[row.session_id]
        cut = dataset.prefixes[row.checkpoint_pct]
        (at,) = np.flatnonzero(cut.rows == place)
        full = dataset.full[place]
        assert row.true_archetype_id == nearest((full - library.center) / library.scale, library.centroids)
        assert row.final_range_pct == dataset.range_pct[place]
        assert row.n_events == dataset.n_events[place]
        assert_same(row.features, cut.vectors[at])
        assert_same(row.rest, cut.rests[at])
        assert_same(row.path_pct, dataset.paths[place])
        assert_same(row.final_phase_rates, full[:6])


def test_a_session_that_is_not_over_at_the_end_has_no_outcome(variants: list[Variant]) -> None:
    messages = list(interleave(simulate_sessions(3, seed=5)))
    whole, cut = (list(part) for part in (messages, messages[:-12]))
    for stream, n_open in ((whole, 0), (cut, 1)):
        follower = Follower(variants[:1], Place(name="t[0]"), with_outcomes=True)
        follower.feed(records(stream))
        follower.close()
        rows = [decode_row(row) for row in follower.lanes[0].rows]
        assert follower.lanes[0].edges.n_at_end == n_open
        assert {row.session_id for row in rows if row.outcome == "open"} <= {messages[-1]["session_id"]}


@pytest.mark.parametrize(("after_min", "outcome"), [(29.0, "open"), (31.0, "known")])
def test_the_outcome_is_known_when_no_later_event_would_count(
    classifier: Classifier, after_min: float, outcome: str
) -> None:
    """A morning of 149 minutes stays open for half an hour more; lunch moves the time on."""
    session_id = "NY_AM_2025-07-29"
    messages = [
        *(event(session_id, minute=minute) for minute in range(60)),
        event("LUNCH_2025-07-29", minute=149.0 + after_min),
    ]
    variant = Variant(classifier=classifier, settings=EngineSettings(min_events=2, grace_us=30 * MINUTE_US))
    follower = Follower([variant], Place(name="t[0]"), with_outcomes=True)
    follower.feed(records(messages))
    follower.close()
    outcomes = {row.session_id: row.outcome for row in map(decode_row, follower.lanes[0].rows)}
    assert outcomes[session_id] == outcome


@pytest.mark.parametrize(
    ("messages", "is_cut"),
    [
        ([event(minute=minute) for minute in range(30, 60)], True),
        ([start(start_time="09:30:00", timezone="America/New_York"), *(event(minute=m) for m in range(60))], False),
        ([event("LUNCH_2025-07-29", minute=-5), *(event(minute=minute) for minute in range(60))], False),
    ],
)
def test_sessions_that_may_lack_their_beginning_are_counted_and_marked(
    classifier: Classifier, messages: list[dict[str, object]], is_cut: bool
) -> None:
    variant = Variant(classifier=classifier, settings=EngineSettings(min_events=2))
    for with_outcomes in (True, False):
        follower = Follower([variant], Place(name="t[0]", lacks_older=True), with_outcomes=with_outcomes)
        follower.feed(records(messages))
        follower.close()
        lane = follower.lanes[0]
        assert (lane.edges.n_at_start, lane.edges.n_at_start_predicted) == (int(is_cut), int(is_cut))
        assert [decode_row(row).is_cut_at_start for row in lane.rows] == [is_cut] * with_outcomes


def test_a_session_too_large_to_be_held_whole_says_so(classifier: Classifier) -> None:
    messages = list(interleave(simulate_sessions(1, seed=5)))
    variant = Variant(classifier=classifier, settings=EngineSettings(max_events_per_session=8, min_events=2))
    follower = Follower([variant], Place(name="t[0]"), with_outcomes=True)
    follower.feed(records(messages))
    follower.close()
    rows: list[BacktestRow] = [decode_row(row) for row in follower.lanes[0].rows]
    assert [row.outcome for row in rows] == ["unheld"]


def assert_same(found: Sequence[float | None] | None, expected: np.ndarray) -> None:
    assert found is not None
    np.testing.assert_array_equal(np.array([np.nan if value is None else value for value in found]), expected)


def _decoded(lines: Sequence[bytes]) -> list[Prediction]:
    return [msgspec.json.decode(line, type=Prediction) for line in lines]
