"""Reading of session files for training: the same prefixes as live, and nothing left out in silence."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
import pytest
import zstandard

from offline.dataset import Dataset, load_dataset
from offline.simulate import interleave, simulate_sessions
from stream_fp.completion import Schedule
from stream_fp.engine import Engine, EngineSettings
from stream_fp.errors import DocumentError
from stream_fp.features import extract
from stream_fp.files import read_records

if TYPE_CHECKING:
    from stream_fp.completion import CompletionPolicy
    from stream_fp.sessions import Session

CHECKPOINTS = (25.0, 30.0, 40.0, 50.0)


def write_lines(path: Path, messages: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(message) + "\n" for message in messages))
    return path


def simulated(path: Path, n_sessions: int, seed: int = 3) -> Path:
    return write_lines(path, list(interleave(simulate_sessions(n_sessions, seed=seed))))


def event(session_id: str, clock: str, price: float = 100.0, day: str = "2025-07-29") -> dict[str, Any]:
    stamp = f"{day}T{clock}"
    return {"session_id": session_id, "timestamp": stamp, "event_type": "expansion", "price": price, "intensity": 0.5}


def events(session_id: str, n_events: int, hour: int = 14, day: str = "2025-07-29") -> list[dict[str, Any]]:
    return [event(session_id, f"{hour}:{30 + i}:00", 100.0 + i % 7, day) for i in range(n_events)]


def document(
    n_events: int = 12, *, day: str = "2025-07-29", session_type: str = "ny_am", end_time: str = "09:45:00"
) -> dict[str, Any]:
    rng = np.random.default_rng(n_events)
    return {
        "events": [
            {"timestamp": f"09:{30 + i}:00", "type": "expansion", "price_level": price, "magnitude": 0.5}
            for i, price in enumerate(rng.normal(100.0, 1.0, n_events).tolist())
        ],
        "session_metadata": {
            "session_type": session_type, "date": day, "start_time": "09:30:00", "end_time": end_time,
            "timezone": "America/New_York",
        },
    }  # fmt: skip


def write_document(path: Path, value: object) -> Path:
    path.write_text(json.dumps(value, indent=1))
    return path


def assert_same(left: Dataset, right: Dataset) -> None:
    assert left.session_ids == right.session_ids
    assert left.session_types == right.session_types
    assert left.dates == right.dates
    assert left.full.tobytes() == right.full.tobytes()
    assert left.n_events.tolist() == right.n_events.tolist()
    assert list(left.prefixes) == list(right.prefixes)
    for checkpoint_pct, cut in left.prefixes.items():
        assert cut.rows.tolist() == right.prefixes[checkpoint_pct].rows.tolist()
        assert cut.vectors.tobytes() == right.prefixes[checkpoint_pct].vectors.tobytes()
    assert (left.skipped, left.remarks, left.schedules) == (right.skipped, right.remarks, right.schedules)


class Live:
    """What the live service sees: prefixes by session and checkpoint."""

    def __init__(self) -> None:
        self.seen: dict[tuple[str, float], bytes] = {}

    def forecast(self, session: Session, checkpoint_pct: float) -> None:
        self.seen[session.id, checkpoint_pct] = extract(session.columns()).tobytes()

    def closed(self, session: Session, reason: str) -> None:
        pass


@pytest.mark.parametrize("completion", ["auto", "schedule", "count"])
def test_prefixes_of_training_are_those_that_the_live_engine_sees(tmp_path: Path, completion: CompletionPolicy) -> None:
    path = simulated(tmp_path / "sessions.jsonl", 42)
    dataset = load_dataset(path, completion=completion)
    live = Live()
    engine = Engine(
        live,
        EngineSettings(checkpoints_pct=CHECKPOINTS, completion=completion),
        schedules=dataset.schedules,
        typical_events=dataset.typical_events,
    )
    for record in read_records(path):
        engine.process(record)
    cut = {
        (dataset.session_ids[row], checkpoint_pct): vector.tobytes()
        for checkpoint_pct, prefixes in dataset.prefixes.items()
        for row, vector in zip(prefixes.rows, prefixes.vectors, strict=True)
    }
    assert len(cut) > 100
    assert cut == live.seen


def test_interleaved_messages_give_sessions_in_order_of_time(tmp_path: Path) -> None:
    sessions = list(simulate_sessions(28, seed=5))
    dataset = load_dataset(write_lines(tmp_path / "s.jsonl", list(interleave(sessions))))
    assert len(dataset) == 28
    assert dataset.session_ids == tuple(session.session_id for session in sessions)
    assert np.isfinite(dataset.full).all()
    assert (np.diff(dataset.starts_us) > 0).all()
    assert tuple(dataset.prefixes) == CHECKPOINTS
    assert not any(reason.startswith(("file", "session", "record")) for reason in dataset.skipped)


def test_several_processes_give_what_one_gives(tmp_path: Path) -> None:
    for number in range(6):
        write_document(tmp_path / f"{number}.json", document(10 + number, day=f"2025-07-{28 - number}"))
    (tmp_path / "7.json").write_text("{broken")
    simulated(tmp_path / "8.jsonl", 10)
    serial, parallel = (load_dataset(tmp_path, n_jobs=n_jobs) for n_jobs in (1, 2))
    assert len(serial) == 16
    assert_same(serial, parallel)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("{broken", "file: broken JSON"),
        ("", "file: broken JSON"),
        ('{"events": [1, 2]}', "file: wrong shape"),
        ('{"events": 7}', "file: wrong shape"),
        (json.dumps({"events": [], "session_metadata": {"timezone": "Atlantis"}}), "file: wrong shape"),
    ],
)
def test_one_broken_file_is_counted_and_the_others_are_read(tmp_path: Path, content: str, reason: str) -> None:
    write_document(tmp_path / "good.json", document())
    (tmp_path / "bad.json").write_text(content)
    dataset = load_dataset(tmp_path)
    assert dataset.session_ids == ("NY_AM_2025-07-29",)
    assert dataset.skipped == {reason: 1}
    assert "bad.json" in dataset.remarks[0]


@pytest.mark.parametrize("suffix", [".jsonl.gz", ".jsonl.zst", ".parquet"])
def test_packed_sessions_are_the_sessions(tmp_path: Path, suffix: str) -> None:
    lines = simulated(tmp_path / "sessions.jsonl", 10)
    packed = tmp_path / f"packed{suffix}"
    if suffix == ".parquet":
        pl.DataFrame({"value": lines.read_text().splitlines()}).write_parquet(packed)
    else:
        pack = gzip.compress if suffix == ".jsonl.gz" else zstandard.ZstdCompressor().compress
        packed.write_bytes(pack(lines.read_bytes()))
    assert_same(load_dataset(packed), load_dataset(lines))


def test_archive_that_is_cut_off_is_counted_and_the_sessions_before_are_kept(tmp_path: Path) -> None:
    lines = simulated(tmp_path / "sessions.jsonl", 60)
    packed = tmp_path / "sessions.jsonl.gz"
    content = gzip.compress(lines.read_bytes())
    packed.write_bytes(content[: len(content) * 3 // 4])
    dataset = load_dataset(packed)
    assert 10 < len(dataset) < len(load_dataset(lines))
    assert dataset.skipped["file: unreadable"] == 1
    assert any("reading ended after line" in remark for remark in dataset.remarks)


def test_empty_file_of_messages_is_counted(tmp_path: Path) -> None:
    write_document(tmp_path / "good.json", document())
    (tmp_path / "nothing.jsonl").write_text("\n\n")
    assert load_dataset(tmp_path).skipped == {"file: empty": 1}


def test_session_id_in_two_files_keeps_the_first(tmp_path: Path) -> None:
    write_document(tmp_path / "a.json", document(12))
    write_document(tmp_path / "b.json", document(20))
    dataset = load_dataset(tmp_path)
    assert dataset.n_events.tolist() == [12]
    assert dataset.skipped == {"session: id seen before": 1}
    assert "NY_AM_2025-07-29" in dataset.remarks[0]
    assert "a.json" in dataset.remarks[0]
    assert "b.json" in dataset.remarks[0]


def test_session_of_four_events_is_left_out_and_counted(tmp_path: Path) -> None:
    write_document(tmp_path / "a.json", document(4, day="2025-07-28"))
    write_document(tmp_path / "b.json", document(5))
    dataset = load_dataset(tmp_path)
    assert dataset.dates == ("2025-07-29",)
    assert dataset.skipped["session: fewer than 5 events"] == 1


def test_session_open_when_the_file_ends_counts_as_whole_and_is_told(tmp_path: Path) -> None:
    ended = [
        *events("NY_AM_2025-07-28", 9, day="2025-07-28"),
        {"kind": "session_end", "session_id": "NY_AM_2025-07-28"},
    ]
    dataset = load_dataset(write_lines(tmp_path / "s.jsonl", [*ended, *events("NY_AM_2025-07-29", 9)]))
    assert len(dataset) == 2
    assert dataset.n_unfinished == 1


def test_unusable_records_are_counted_by_their_error(tmp_path: Path) -> None:
    lines = events("NY_AM_2025-07-29", 9)
    lines[2]["price"] = -1.0
    lines[3]["price"] = "dear"
    path = write_lines(tmp_path / "s.jsonl", [*lines, event("NY_AM_2025-07-29", "23:00:00")])
    dataset = load_dataset(path)
    assert dataset.n_events.tolist() == [7]
    assert dataset.skipped["record: dead letter, RecordDecodeError"] == 1
    assert dataset.skipped["record: dead letter, RecordInvalidError"] == 1
    assert dataset.skipped["record: ignored, after_close"] == 1
    (remark,) = dataset.remarks
    assert remark.startswith(f"{path}:3: ")
    assert remark.endswith("(and 1 more unusable record in this file)")


def test_lookahead_of_documents_is_left_out_and_counted(tmp_path: Path) -> None:
    value = document()
    value["events"].append({"timestamp": "10:20:00", "type": "session_high", "price_level": 111.0})
    dataset = load_dataset(write_document(tmp_path / "a.json", value))
    assert dataset.n_events.tolist() == [12]
    assert list(dataset.skipped.items()) == [("event: lookahead, known only once the session is over", 1)]


def test_nothing_usable_is_an_error_with_the_counts(tmp_path: Path) -> None:
    write_document(tmp_path / "a.json", document(3))
    (tmp_path / "b.json").write_text("{broken")
    with pytest.raises(DocumentError, match=r"none in 2 files.*broken JSON: 1.*fewer than 5 events: 1.*b\.json"):
        load_dataset(tmp_path)


def test_folder_without_files_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DocumentError, match="found none"):
        load_dataset(tmp_path)


def test_windows_are_learned_from_what_was_declared_most_often(tmp_path: Path) -> None:
    for number, (end, zone) in enumerate([("10:30:00", "ET"), ("10:30:00", "America/New_York"), ("10:45:00", "ET")]):
        value = document(day=f"2025-07-{21 + number}")
        value["session_metadata"] |= {"end_time": end, "timezone": zone}
        write_document(tmp_path / f"{number}.json", value)
    schedules = load_dataset(tmp_path).schedules
    assert schedules["ny_am"] == Schedule(start="09:30:00", end="10:30:00", timezone="America/New_York")
    assert schedules["asia"].start == "19:00:00"


def test_undeclared_session_is_cut_with_the_window_learned_from_others(tmp_path: Path) -> None:
    # A type without a default window: what the first reading cannot measure, the second one can.
    write_document(tmp_path / "a.json", document(session_type="tokyo", day="2025-07-28", end_time="10:30:00"))
    start = [event("TOKYO_2025-07-29", f"13:{30 + 2 * i}:00", 100.0 + i) for i in range(14)]
    write_lines(tmp_path / "b.jsonl", start)
    dataset = load_dataset(tmp_path, checkpoints_pct=(30.0,))
    prefixes = dataset.prefixes[30.0]
    assert prefixes.rows.tolist() == [1]
    # 30 % of the hour from 09:30 New York, 13:30 UTC, is 13:48: ten events, 18 minutes.
    assert prefixes.vectors[0, 17] == pytest.approx(18.0)


def test_completion_by_count_goes_by_the_typical_count_of_the_type(tmp_path: Path) -> None:
    for number, n_events in enumerate((10, 20, 30)):
        write_document(tmp_path / f"{number}.json", document(n_events, day=f"2025-07-{21 + number}"))
    dataset = load_dataset(tmp_path, completion="count", checkpoints_pct=(50.0,))
    assert dataset.typical_events == {"ny_am": 20.0}
    # Half of 20 is the tenth event, nine minutes after the first.
    assert dataset.prefixes[50.0].vectors[:, 17].tolist() == [9.0, 9.0, 9.0]


def test_session_without_type_or_date_is_kept(tmp_path: Path) -> None:
    dataset = load_dataset(write_lines(tmp_path / "s.jsonl", events("mystery", 8)))
    assert (dataset.session_types, dataset.dates) == (("",), ("2025-07-29",))


def test_selected_rows_keep_their_prefixes(tmp_path: Path) -> None:
    dataset = load_dataset(simulated(tmp_path / "s.jsonl", 21))
    rows = np.arange(7, 21)
    part = dataset.select(rows)
    assert part.session_ids == dataset.session_ids[7:]
    for checkpoint_pct, cut in dataset.prefixes.items():
        kept = cut.rows >= 7
        assert part.prefixes[checkpoint_pct].rows.tolist() == (cut.rows[kept] - 7).tolist()
        assert part.prefixes[checkpoint_pct].vectors.tobytes() == cut.vectors[kept].tobytes()


def test_progress_is_told_after_each_file(tmp_path: Path) -> None:
    for number in range(3):
        write_document(tmp_path / f"{number}.json", document(day=f"2025-07-{21 + number}"))
    told: list[tuple[str, int, int]] = []
    load_dataset(tmp_path, progress=lambda stage, n_done, n_files: told.append((stage, n_done, n_files)))
    assert [entry[1:] for entry in told[:3]] == [(1, 3), (2, 3), (3, 3)]


def test_real_documents_are_all_read(real_sessions_dir: Path) -> None:
    dataset = load_dataset(real_sessions_dir)
    assert len(dataset) == len(list(real_sessions_dir.glob("*.json")))
    assert np.isfinite(dataset.full).all()
    assert (dataset.n_events >= 5).all()
    assert not any(reason.startswith(("file", "session")) for reason in dataset.skipped)
    assert all(len(dataset.prefixes[checkpoint].rows) == len(dataset) for checkpoint in (25.0, 30.0, 40.0))
    # One recording ends before half of its session's time.
    assert len(dataset.prefixes[50.0].rows) == len(dataset) - 1
