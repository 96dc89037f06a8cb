from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from stream_fp.documents import adapt_document
from stream_fp.errors import DocumentError
from stream_fp.files import FileRecord, find_files, is_document_file, read_document, read_records
from tests.support.builders import SESSION_ID, end, event, start

MESSAGES = [start(), event(minute=1), event(minute=2, price=None), end()]
LINES = [json.dumps(message).encode() for message in MESSAGES]
#: No bytes of a session document, though some begin like one.
BROKEN = {
    "empty": b"",
    "blank": b"\n \n",
    "cut off": b'{"events": [{"timestamp": "2025-07-',
    "prose": b"once upon a time",
    "not UTF-8": b'{"events": [], "session_metadata": {"session_id": "\xff"}}',
    "byte order mark": b'\xef\xbb\xbf{"events": []}',
    "half a surrogate": b'{"events": [], "session_metadata": {"session_id": "\\ud800"}}',
    "nested without end": b"[" * 100_000,
    "zeros": bytes(64),
}


def document(**fields: Any) -> dict[str, Any]:  # noqa: ANN401 - whatever a document may hold
    events = [{"timestamp": f"14:0{i}:00", "event_type": "expansion", "price": 100.0 + i} for i in range(3)]
    metadata = {"session_type": "NY_AM", "date": "2025-07-29", "timezone": "UTC"}
    return {"events": events, "session_metadata": metadata, **fields}


def written(path: Path, content: bytes | dict[str, Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content, indent=1).encode())
    return path


# ------------------------------------------------------------------------------------------------------ finding files


@pytest.mark.parametrize("name", ["events.jsonl", "session.json", "events.txt", "no_suffix"])
def test_file_is_found_whatever_its_name(tmp_path: Path, name: str) -> None:
    path = written(tmp_path / name, b"")
    assert find_files(path) == [path]


def test_folder_gives_its_session_files_in_order_of_name_and_no_others(tmp_path: Path) -> None:
    names = ["b.json", "a.jsonl", "c.ndjson", "deep/er/d.json", ".hidden/e.jsonl"]
    wanted = [written(tmp_path / name, b"") for name in names]
    for name in ("readme.md", "a.jsonl.gz", "json", "table.csv"):
        written(tmp_path / name, b"")
    (tmp_path / "folder.json").mkdir()
    assert find_files(tmp_path) == sorted(wanted)


def test_folder_without_session_files_is_refused_with_what_was_looked_for(tmp_path: Path) -> None:
    written(tmp_path / "readme.md", b"")
    with pytest.raises(
        DocumentError, match=r"expected files ending in \.jsonl, \.ndjson, \.json, found none"
    ) as caught:
        find_files(tmp_path)
    assert caught.value.where == str(tmp_path)


def test_source_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DocumentError, match="found nothing"):
        find_files(tmp_path / "absent")


# --------------------------------------------------------------------------------------------------------- documents


def test_document_gives_its_messages_as_records_keyed_by_session(tmp_path: Path) -> None:
    path = written(tmp_path / "session.json", document())
    records = list(read_records(path))
    assert [json.loads(record.value or b"") for record in records] == adapt_document(document()).messages
    assert [record.offset for record in records] == [0, 1, 2, 3, 4]
    assert {record.key for record in records} == {SESSION_ID.encode()}


def test_document_without_events_is_a_session_that_starts_and_ends(tmp_path: Path) -> None:
    path = written(tmp_path / "session.json", document(events=[]))
    kinds = [json.loads(record.value or b"").get("kind") for record in read_records(path)]
    assert kinds == ["session_start", "session_end"]


@pytest.mark.parametrize(
    "fields",
    [{"events": {}}, {"events": "none"}, {"session_metadata": []}, {"session_metadata": {}}, {"events": [1]}],
    ids=str,
)
def test_document_of_another_shape_is_refused_with_the_file(tmp_path: Path, fields: dict[str, Any]) -> None:
    path = written(tmp_path / "session.json", document(**fields))
    with pytest.raises(DocumentError) as caught:
        list(read_records(path))
    assert caught.value.where == str(path)


@pytest.mark.parametrize("content", BROKEN.values(), ids=BROKEN.keys())
def test_broken_document_is_refused_with_the_file(tmp_path: Path, content: bytes) -> None:
    path = written(tmp_path / "session.json", content)
    assert is_document_file(path)
    for read in (lambda: list(read_records(path)), lambda: [read_document(path)]):
        with pytest.raises(DocumentError, match="expected a session document") as caught:
            read()
        assert caught.value.where == str(path)


@pytest.mark.parametrize("content", [b"[]", b"1", b'"text"', b"null"])
def test_document_that_is_no_object_is_refused(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(DocumentError, match="expected a session document"):
        read_document(written(tmp_path / "session.json", content))


def test_document_is_read_as_it_stands(tmp_path: Path) -> None:
    content = document(more={"x": [1, None]})
    assert read_document(written(tmp_path / "session.json", content)) == content


# ------------------------------------------------------------------------------------------------------------- lines


@pytest.mark.parametrize("name", ["events.jsonl", "events.ndjson", "events.json", "events.txt"])
@pytest.mark.parametrize("line_end", [b"\n", b"\r\n"])
def test_lines_are_records_as_they_stand_under_any_name(tmp_path: Path, name: str, line_end: bytes) -> None:
    path = written(tmp_path / name, line_end.join(LINES))
    assert not is_document_file(path)
    assert list(read_records(path)) == [
        FileRecord(offset, SESSION_ID.encode(), line) for offset, line in enumerate(LINES)
    ]


def test_single_line_under_the_name_of_a_document_is_a_message(tmp_path: Path) -> None:
    path = written(tmp_path / "event.json", LINES[1] + b"\n")
    assert list(read_records(path)) == [FileRecord(0, SESSION_ID.encode(), LINES[1])]


def test_offsets_are_line_numbers_and_blank_lines_are_no_records(tmp_path: Path) -> None:
    path = written(tmp_path / "events.jsonl", b"\n\n" + LINES[1] + b"\n  \t\n\r\n" + LINES[2] + b"\n\n")
    assert [(record.offset, record.value) for record in read_records(path)] == [(2, LINES[1]), (5, LINES[2])]


def test_empty_file_of_lines_has_no_records(tmp_path: Path) -> None:
    assert list(read_records(written(tmp_path / "events.jsonl", b""))) == []


@pytest.mark.parametrize("content", [content for content in BROKEN.values() if content.strip()])
def test_line_that_is_no_message_is_passed_on_for_the_engine_to_refuse(tmp_path: Path, content: bytes) -> None:
    path = written(tmp_path / "events.jsonl", LINES[1] + b"\n" + content + b"\n" + LINES[2])
    first, broken, last = read_records(path)
    assert (first.value, broken, last.value) == (LINES[1], FileRecord(1, None, content), LINES[2])


def test_broken_line_does_not_make_lines_a_document(tmp_path: Path) -> None:
    path = written(tmp_path / "events.json", LINES[1] + b"\n\xff{broken\n" + LINES[2])
    assert [record.value for record in read_records(path)] == [LINES[1], b"\xff{broken", LINES[2]]


@pytest.mark.parametrize(
    ("line", "key"),
    [
        (b'{"session_id": "A_2025-07-29", "more": {"session_id": "inner"}}', b"A_2025-07-29"),
        ('{"session_id": "Zürich_2025-07-29"}'.encode(), "Zürich_2025-07-29".encode()),
        (b'{"session_id": ""}', None),
        (b'{"session_id": null}', None),
        (b'{"session_id": 7}', None),
        (b'{"timestamp": 1}', None),
        (b"[]", None),
        (b'{"session_id": "A", "deep": ' + b"[" * 100_000, None),
    ],
)
def test_key_of_a_line_is_its_session_id_where_it_has_one(tmp_path: Path, line: bytes, key: bytes | None) -> None:
    (record,) = read_records(written(tmp_path / "events.jsonl", line))
    assert record.key == key


def test_offsets_start_where_they_are_told_to(tmp_path: Path) -> None:
    lines = written(tmp_path / "events.jsonl", b"\n".join(LINES))
    session = written(tmp_path / "session.json", document())
    assert [record.offset for record in read_records(lines, first_offset=7)] == [7, 8, 9, 10]
    assert [record.offset for record in read_records(session, first_offset=7)] == [7, 8, 9, 10, 11]


@pytest.mark.parametrize("name", ["absent.json", "absent.jsonl"])
def test_file_that_is_not_there_is_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    with pytest.raises(DocumentError, match="No such file") as caught:
        list(read_records(path))
    assert caught.value.where == str(path)


def test_long_file_is_read_as_it_is_asked_for(tmp_path: Path) -> None:
    path = written(tmp_path / "events.jsonl", b"\n".join(LINES))
    records = read_records(path)
    assert next(records).offset == 0
    path.unlink()
    assert [record.offset for record in records] == [1, 2, 3]
