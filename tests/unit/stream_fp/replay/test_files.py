from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest

from stream_fp.config import Settings
from stream_fp.documents import adapt_document
from stream_fp.engine import Engine
from stream_fp.errors import DocumentError
from stream_fp.loading import load_classifier
from stream_fp.messages import Prediction, encode_prediction
from stream_fp.outcomes import Published
from stream_fp.predictor import Predictor
from stream_fp.replay.files import replay_files
from stream_fp.replay.results import ReplaySummary
from tests.support.builders import SESSION_ID, end, event, records, run, start, write_tiny_library


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(model_path=str(write_tiny_library(tmp_path / "library")))


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    folder.mkdir()
    return folder


def document(session_id: str = SESSION_ID, *, n_events: int = 74, step: float = 0.25) -> dict[str, Any]:
    """Build a session of an event every two minutes; it crosses 30 % with the 24th and 40 % with the 31st."""
    events = [
        {
            "timestamp": f"{9 + (30 + 2 * i) // 60:02}:{(30 + 2 * i) % 60:02}:00",
            "event_type": ("expansion", "consolidation", "reversal")[i % 3],
            "price": 100.0 + step * (i % 7),
            "intensity": (i % 5) / 5,
            "htf_regime": i % 3,
        }
        for i in range(n_events)
    ]
    metadata = {"session_type": "NY_AM", "date": session_id[6:16], "timezone": "America/New_York"}
    return {"session_id": session_id, "events": events, "session_metadata": metadata}


def write_document(path: Path, content: Mapping[str, Any]) -> Path:
    path.write_text(json.dumps(content))
    return path


def write_lines(path: Path, messages: Iterable[Mapping[str, Any] | bytes]) -> Path:
    lines = (message if isinstance(message, bytes) else msgspec.json.encode(message) for message in messages)
    path.write_bytes(b"".join(line + b"\n" for line in lines))
    return path


def replayed(source: Path, settings: Settings) -> tuple[list[bytes], ReplaySummary]:
    lines: list[bytes] = []
    summary = replay_files(source, load_classifier(settings), settings, lines.append)
    return lines, summary


def session_ids(lines: Iterable[bytes]) -> list[str]:
    return [msgspec.json.decode(line, type=Prediction).session_id for line in lines]


def from_engine(messages: list[dict[str, Any]], settings: Settings) -> list[bytes]:
    """Return what the engine itself makes of messages."""
    classifier = load_classifier(settings)
    engine = Engine(
        Predictor(classifier),
        settings.engine_settings(),
        schedules=classifier.library.schedules,
        typical_events=classifier.library.typical_events,
    )
    outcomes = run(engine, records(messages))
    return [encode_prediction(outcome.prediction) for outcome in outcomes if isinstance(outcome, Published)]


@pytest.mark.parametrize("checkpoints", [(30.0,), (30.0, 40.0), (50.0,)])
def test_document_gives_what_the_engine_makes_of_its_messages(
    source: Path, settings: Settings, checkpoints: tuple[float, ...]
) -> None:
    settings = msgspec.structs.replace(settings, checkpoints=checkpoints)
    path = write_document(source / "session.json", document())
    lines, _ = replayed(path, settings)
    expected = from_engine(adapt_document(document()).messages, settings)
    assert lines == [line + b"\n" for line in expected]
    assert len(lines) == len(checkpoints)


def test_lines_of_messages_give_what_the_same_document_gives(source: Path, settings: Settings) -> None:
    as_document, _ = replayed(write_document(source / "session.json", document()), settings)
    messages = adapt_document(document()).messages
    as_lines, _ = replayed(write_lines(source / "session.jsonl", messages), settings)
    assert as_lines == as_document


def test_settings_decide_over_the_replay(source: Path, settings: Settings) -> None:
    path = write_document(source / "session.json", document())
    plain, _ = replayed(path, settings)
    cosine, _ = replayed(path, msgspec.structs.replace(settings, distance_metric="cosine"))
    none, summary = replayed(path, msgspec.structs.replace(settings, min_events=60))
    assert plain != cosine
    assert none == []
    assert summary.counts.unpredicted == {"too_few_events": 1}


def test_same_files_give_the_same_bytes_again(source: Path, settings: Settings) -> None:
    for day in range(10, 20):
        session_id = f"NY_AM_2025-07-{day}"
        write_document(source / f"{session_id}.json", document(session_id, step=day / 10))
    first, second = replayed(source, settings), replayed(source, settings)
    assert first[0] == second[0]
    assert first[1] == second[1]
    assert session_ids(first[0]) == [f"NY_AM_2025-07-{day}" for day in range(10, 20)]


def test_each_file_stands_alone_and_comes_in_order_of_name(source: Path, settings: Settings) -> None:
    # Were they one partition, the later session would have closed the earlier one before its events come.
    write_document(source / "a.json", document("NY_AM_2025-07-29"))
    write_document(source / "b.json", document("NY_AM_2025-07-01"))
    lines, summary = replayed(source, settings)
    assert session_ids(lines) == ["NY_AM_2025-07-29", "NY_AM_2025-07-01"]
    assert summary.counts.ignored.keys() <= {"after_last_checkpoint"}
    assert summary.n_sources == 2


def test_same_session_in_two_files_is_two_sessions(source: Path, settings: Settings) -> None:
    for name in ("a.json", "b.json"):
        write_document(source / name, document())
    lines, _ = replayed(source, settings)
    assert session_ids(lines) == [SESSION_ID, SESSION_ID]
    assert lines[0] == lines[1]


def test_sessions_interleaved_in_one_file_are_told_apart(source: Path, settings: Settings) -> None:
    other = "NY_AM_2025-07-29_es"
    ours, theirs = (adapt_document(document(session_id)).messages for session_id in (SESSION_ID, other))
    mixed = [message for pair in zip(ours, theirs, strict=True) for message in pair]
    lines, _ = replayed(write_lines(source / "mixed.jsonl", mixed), settings)
    alone, _ = replayed(write_lines(source / "alone.jsonl", ours), settings)
    assert session_ids(lines) == [SESSION_ID, other]
    assert lines[0] == alone[0]


def test_books_account_for_every_record_of_all_files(source: Path, settings: Settings) -> None:
    write_document(source / "a.json", document())
    write_lines(
        source / "b.jsonl", [start(), event(minute=1), b"{broken", end("LONDON_2025-07-29"), event(None), end()]
    )
    _, summary = replayed(source, settings)
    counts = summary.counts
    assert counts.consumed == 76 + 6
    assert counts.reconciles
    assert counts.dead_lettered == {"RecordDecodeError": 1, "RecordInvalidError": 1}
    assert counts.ignored["end_of_unknown_session"] == 1
    assert counts.predictions == 1
    assert counts.sessions_opened == 2
    assert counts.sessions_closed == {"ended": 2}


def test_session_without_an_end_is_closed_with_the_input(source: Path, settings: Settings) -> None:
    _, summary = replayed(write_lines(source / "a.jsonl", [start(), event(minute=1)]), settings)
    assert summary.counts.sessions_closed == {"input_ended": 1}


def test_dead_letters_are_listed_with_their_place_up_to_twenty(source: Path, settings: Settings) -> None:
    path = write_lines(source / "a.jsonl", [start(), *[b"{broken"] * 25])
    _, summary = replayed(path, settings)
    assert len(summary.dead_letters) == 20
    assert summary.dead_letters[0].startswith(f"{path}:2: ")
    assert summary.counts.dead_lettered == {"RecordDecodeError": 25}


def test_files_that_cannot_be_read_are_listed_and_the_others_replayed(source: Path, settings: Settings) -> None:
    broken = [source / "a.json", source / "c.json"]
    broken[0].write_bytes(b'{"events": [')
    write_document(source / "b.json", document())
    broken[1].write_bytes(b'{"events": [], "\xff": 1}')
    lines, summary = replayed(source, settings)
    assert session_ids(lines) == [SESSION_ID]
    assert summary.n_sources == 3
    assert [text.partition(": ")[0] for text in summary.unreadable] == [str(path) for path in broken]
    assert summary.counts.consumed == 76


def test_no_readable_file_at_all_is_refused(source: Path, settings: Settings) -> None:
    for name in ("a.json", "b.json"):
        (source / name).write_bytes(b"")
    with pytest.raises(DocumentError, match=r"none of 2 files can be read; .*a\.json"):
        replayed(source, settings)


def test_source_without_files_is_refused(source: Path, settings: Settings) -> None:
    with pytest.raises(DocumentError, match="found none"):
        replayed(source, settings)
