from __future__ import annotations

import gzip
import itertools
import json
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from stream_fp import files
from stream_fp.documents import adapt_document
from stream_fp.errors import ConfigError, DocumentError
from stream_fp.files import MAX_LINE_BYTES, FileRecord, find_files, is_document_file, read_document, read_records
from stream_fp.outcomes import DeadLetter
from tests.support.builders import SESSION_ID, end, event, make_engine, start

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
    names = ["b.json", "a.jsonl", "c.ndjson", "deep/er/d.json", "a.jsonl.gz", "f.ndjson.zst", "B.json.zst", "g.parquet"]
    wanted = [written(tmp_path / name, b"") for name in names]
    for name in ("readme.md", "json", "table.csv", "logs.gz", "bars.csv.gz", "g.parquet.gz", "a.jsonl.gz.part"):
        written(tmp_path / name, b"")
    (tmp_path / "folder.json").mkdir()
    assert find_files(tmp_path) == sorted(wanted)


def test_hidden_files_and_the_notes_of_other_programs_are_no_session_files(tmp_path: Path) -> None:
    for name in (".a.jsonl", "_SUCCESS", "_metadata.parquet", ".git/b.json", "deep/_delta_log/0000.json"):
        written(tmp_path / name, b"")
    session = written(tmp_path / "deep/NY_AM.json", b"")
    assert find_files(tmp_path) == [session]
    # Where such a folder lies says nothing of what is in it.
    assert find_files(tmp_path / "deep/_delta_log") == [tmp_path / "deep/_delta_log/0000.json"]


def test_folder_without_session_files_is_refused_with_what_was_looked_for(tmp_path: Path) -> None:
    written(tmp_path / "readme.md", b"")
    with pytest.raises(
        DocumentError, match=r"expected files ending in \.jsonl, .*\.json\.zst, .*, found none"
    ) as caught:
        find_files(tmp_path)
    assert caught.value.where == str(tmp_path)


def test_source_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DocumentError, match="found nothing"):
        find_files(tmp_path / "absent")


def test_source_that_cannot_be_looked_for_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DocumentError, match="File name too long"):
        find_files(tmp_path / ("x" * 300))


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


@given(
    st.binary(max_size=40).map(lambda content: content.replace(b"a", b"\n")), st.lists(st.integers(1, 7), min_size=1)
)
def test_lines_are_the_same_whatever_pieces_they_are_read_in(content: bytes, lengths: list[int]) -> None:
    places = list(itertools.accumulate(itertools.islice(itertools.cycle(lengths), len(content)), initial=0))
    pieces = [content[i:j] for i, j in itertools.pairwise(places) if content[i:j]]
    lines = content.split(b"\n")
    assert list(files._lines(pieces_of(pieces))) == (lines if lines[-1] else lines[:-1])


def pieces_of(pieces: list[bytes]) -> Callable[[], bytes]:
    left = iter(pieces)
    return lambda: next(left, b"")


# ---------------------------------------------------------------------------------------------------------- archives


def zstd(content: bytes) -> bytes:
    return zstandard.ZstdCompressor().compress(content)


PACK: dict[str, Callable[[bytes], bytes]] = {".gz": gzip.compress, ".zst": zstd}
suffixes = pytest.mark.parametrize("suffix", PACK)


@suffixes
@pytest.mark.parametrize("name", ["events.jsonl", "events.ndjson", "events.json"])
def test_compressed_lines_are_the_records_of_the_lines(tmp_path: Path, suffix: str, name: str) -> None:
    content = b"\n\n".join(LINES)
    plain, packed = written(tmp_path / name, content), written(tmp_path / f"{name}{suffix}", PACK[suffix](content))
    assert not is_document_file(packed)
    assert list(read_records(packed, first_offset=3)) == list(read_records(plain, first_offset=3))


@suffixes
def test_compressed_document_is_the_document(tmp_path: Path, suffix: str) -> None:
    plain = written(tmp_path / "NY_AM.json", document())
    packed = written(tmp_path / f"NY_AM.json{suffix}", PACK[suffix](plain.read_bytes()))
    assert is_document_file(packed)
    assert read_document(packed) == document()
    assert list(read_records(packed)) == list(read_records(plain))


@suffixes
def test_archive_of_several_parts_is_read_to_the_last(tmp_path: Path, suffix: str) -> None:
    # Parts end in the middle of lines, and one of them is empty.
    content = b"\n".join(LINES) + b"\n"
    parts = [content[:10], content[10:300], b"", content[300:]]
    packed = written(tmp_path / f"events.jsonl{suffix}", b"".join(PACK[suffix](part) for part in parts))
    assert [record.value for record in read_records(packed)] == LINES


def test_frames_to_be_skipped_are_skipped(tmp_path: Path) -> None:
    skipped = b"\x50\x2a\x4d\x18\x04\x00\x00\x00note"
    content = skipped + zstd(LINES[0] + b"\n") + skipped + zstd(LINES[1]) + skipped
    packed = written(tmp_path / "events.jsonl.zst", content)
    assert [record.value for record in read_records(packed)] == LINES[:2]


@suffixes
@pytest.mark.parametrize("content", [b"", b"\n"])
def test_archive_of_nothing_has_no_records(tmp_path: Path, suffix: str, content: bytes) -> None:
    assert list(read_records(written(tmp_path / f"events.jsonl{suffix}", PACK[suffix](content)))) == []


def varied_lines(n: int) -> list[bytes]:
    return [json.dumps(event(minute=i * 0.37, price=100 + (i * 7919 % 1000) / 8)).encode() for i in range(n)]


def read_up_to_error(path: Path) -> tuple[list[FileRecord], DocumentError]:
    found: list[FileRecord] = []
    with pytest.raises(DocumentError) as caught:
        # A list that fails to be extended keeps what it was given before.
        found.extend(read_records(path))
    return found, caught.value


@suffixes
def test_archive_that_is_cut_off_gives_the_records_before_and_says_where_it_ends(tmp_path: Path, suffix: str) -> None:
    lines = varied_lines(20_000)
    content = PACK[suffix](b"\n".join(lines))
    packed = written(tmp_path / f"events.jsonl{suffix}", content[: len(content) // 2])
    found, error = read_up_to_error(packed)
    assert 1_000 < len(found) < len(lines)
    assert [record.value for record in found] == lines[: len(found)]
    assert error.where == str(packed)
    assert f"reading ended after line {len(found)}: Compressed file ended before the end" in str(error)
    assert "\n" not in str(error)


@suffixes
def test_archive_that_lacks_its_last_byte_is_cut_off(tmp_path: Path, suffix: str) -> None:
    packed = written(tmp_path / f"events.jsonl{suffix}", PACK[suffix](b"\n".join(LINES) + b"\n")[:-1])
    with pytest.raises(DocumentError, match="ended before the end"):
        list(read_records(packed))


@suffixes
def test_archive_that_is_damaged_gives_the_records_before_and_says_where(tmp_path: Path, suffix: str) -> None:
    lines = varied_lines(20_000)
    first = PACK[suffix](b"\n".join(lines) + b"\n")
    packed = written(tmp_path / f"events.jsonl{suffix}", first + b"neither a member nor a frame")
    found, error = read_up_to_error(packed)
    assert [record.value for record in found] == lines
    assert f"reading ended after line {len(lines)}: " in str(error)


def test_wrong_checksum_is_found(tmp_path: Path) -> None:
    content = bytearray(gzip.compress(b"\n".join(LINES) + b"\n"))
    content[-6] ^= 1
    found, error = read_up_to_error(written(tmp_path / "events.jsonl.gz", bytes(content)))
    assert [record.value for record in found] == LINES
    assert "after line 4: CRC check failed" in str(error)


@suffixes
@pytest.mark.parametrize("name", ["events.jsonl", "session.json"])
@pytest.mark.parametrize("content", [b"", LINES[0], b"\x1f\x8b", b"\x28\xb5\x2f\xfd"], ids=repr)
def test_file_that_is_no_archive_is_refused_with_the_file(
    tmp_path: Path, suffix: str, name: str, content: bytes
) -> None:
    path = written(tmp_path / f"{name}{suffix}", content)
    with pytest.raises(DocumentError) as caught:
        list(read_records(path))
    assert caught.value.where == str(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["events.jsonl.zst", "session.json.zst"])
def test_missing_zstandard_is_said_with_what_to_install(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = written(tmp_path / name, zstd(LINES[0]))
    monkeypatch.setitem(sys.modules, "zstandard", None)
    with pytest.raises(ConfigError, match=r"pip install 'stream-fp\[zstd\]'"):
        list(read_records(path))


def test_parquet_compressed_once_more_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DocumentError, match="expected Parquet as it is"):
        list(read_records(written(tmp_path / "events.parquet.gz", gzip.compress(b"PAR1"))))


# ------------------------------------------------------------------------------------------------------------ bounds


@pytest.fixture
def bomb(tmp_path: Path) -> Path:
    """Two good lines, and between them one that is far longer than what may be held, in a small archive."""
    packer = zstandard.ZstdCompressor().compressobj()
    pieces = [LINES[1] + b"\n", *([b"x" * 2**20] * 300), b"\n" + LINES[2]]
    path = written(tmp_path / "events.jsonl.zst", b"".join(map(packer.compress, pieces)) + packer.flush())
    assert path.stat().st_size < 2**20
    return path


def test_endless_line_is_never_held_as_a_whole(bomb: Path) -> None:
    tracemalloc.start()
    try:
        found = list(read_records(bomb))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2.5 * MAX_LINE_BYTES
    assert [(record.offset, len(record.value or b"")) for record in found] == [
        (0, len(LINES[1])), (1, MAX_LINE_BYTES + 1), (2, len(LINES[2])),
    ]  # fmt: skip


def test_endless_line_is_refused_by_the_engine_and_the_next_one_is_taken(bomb: Path) -> None:
    engine = make_engine()
    (refused,) = engine.process_all(list(read_records(bomb)))
    assert isinstance(refused, DeadLetter)
    assert refused.record.offset == 1
    assert "expected at most 1048576 bytes (`max_record_bytes`)" in refused.message
    assert engine.counts.applied == 2


@pytest.mark.parametrize("n_over", [0, 1])
def test_bound_is_exact_wherever_the_pieces_end(n_over: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "MAX_LINE_BYTES", 8)
    line = b"x" * (8 + n_over)
    expected = None if n_over else line
    for n in range(1, len(line)):
        pieces = [line[:n], line[n:] + b"\n" + line + b"\nab\n", line[:n], line[n:]]
        assert list(files._lines(pieces_of(pieces))) == [expected, expected, b"ab", expected]


@suffixes
def test_document_that_is_too_large_is_refused(tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "MAX_LINE_BYTES", 100)
    content = json.dumps(document(), indent=1).encode()
    for path in (
        written(tmp_path / "session.json", content),
        written(tmp_path / f"session.json{suffix}", PACK[suffix](content)),
    ):
        for read in (is_document_file, read_document, lambda path: list(read_records(path))):
            with pytest.raises(DocumentError, match="expected a session document of at most 100 bytes"):
                read(path)


def test_long_file_of_lines_is_not_read_as_a_whole_to_tell_it_from_a_document(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "MAX_LINE_BYTES", 1_000)
    path = written(tmp_path / "events.json", b"\n".join(varied_lines(100)))
    assert not is_document_file(path)
    assert len(list(read_records(path))) == 100
