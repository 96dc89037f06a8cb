from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_fp.engine import EngineSettings
from stream_fp.kafka.progress import Progress, _decode, fingerprint_of
from stream_fp.library import Library, load_library
from tests.support.builders import tiny_library, tiny_metadata, tiny_stats, write_library, write_tiny_library

METHODS = ("euclidean", "softmax", "prefix_centroid")
#: What a broker keeps of a commit's metadata (`offset.metadata.max.bytes`).
BROKER_LIMIT_BYTES = 4_096
#: One other value for every field; a new field without one fails below.
OTHER: dict[str, Any] = {
    "checkpoints_pct": (30.0, 40.0), "completion": "count", "min_events": 6, "grace_us": 1, "idle_timeout_us": 2,
    "timezone": "Asia/Tokyo", "max_open_sessions": 3, "max_events_per_session": 4, "max_buffered_bytes": 5,
    "max_record_bytes": 6, "keep_events": True,
}  # fmt: skip
FINGERPRINT = """
import sys
from pathlib import Path
from stream_fp.engine import EngineSettings
from stream_fp.kafka.progress import fingerprint_of
from stream_fp.library import load_library
print(fingerprint_of(EngineSettings(), load_library(Path(sys.argv[1])), *sys.argv[2:]))
"""

progresses = st.builds(
    Progress,
    published=st.integers(0, 2**63 - 1),
    watermark_us=st.none() | st.integers(-(2**63), 2**63 - 1),
    fingerprint=st.text("0123456789abcdef", min_size=16, max_size=16),
)


@pytest.fixture
def library(tmp_path: Path) -> Library:
    return tiny_library(tmp_path / "library")


# ------------------------------------------------------------------------------------------------------------ the note


@given(progress=progresses)
def test_note_that_was_encoded_is_read_back(progress: Progress) -> None:
    assert _decode(progress.encode()) == progress


@given(progress=progresses)
def test_note_stays_far_below_what_a_broker_keeps(progress: Progress) -> None:
    assert len(progress.encode().encode()) < BROKER_LIMIT_BYTES / 20


def test_note_has_the_documented_form() -> None:
    progress = Progress(published=17, watermark_us=None, fingerprint="0123456789abcdef")
    assert progress.encode() == '{"published":17,"watermark_us":null,"fingerprint":"0123456789abcdef"}'


@pytest.mark.parametrize(
    "metadata",
    [
        None, "", " ", "null", "17", "{}", "[]", '"text"', "NO_METADATA", "aiokafka 0.14", "{broken", "\x00", "ä",
        '{"published":17}', '{"published":"17","watermark_us":null,"fingerprint":"x"}',
        '{"published":17,"watermark_us":null}', '{"published":null,"watermark_us":null,"fingerprint":"x"}',
    ],
)  # fmt: skip
def test_metadata_of_somebody_else_is_no_note(metadata: str | None) -> None:
    assert _decode(metadata) is None


@given(metadata=st.text())
def test_any_text_is_a_note_or_none(metadata: str) -> None:
    found = _decode(metadata)
    assert found is None or isinstance(found, Progress)


def test_note_of_a_later_version_with_more_fields_is_read() -> None:
    note = '{"published":17,"watermark_us":5,"fingerprint":"x","since":"v9"}'
    assert _decode(note) == Progress(published=17, watermark_us=5, fingerprint="x")


# ------------------------------------------------------------------------------------------------------ the fingerprint


def test_fingerprint_is_sixteen_hex_digits_and_the_same_each_time(library: Library) -> None:
    found = {fingerprint_of(EngineSettings(), library, *METHODS) for _ in range(3)}
    assert len(found) == 1
    assert int(found.pop(), 16) >= 0
    assert len(fingerprint_of(EngineSettings(), library)) == 16


def test_fingerprint_is_the_same_in_another_process(library: Library) -> None:
    process = subprocess.run(
        [sys.executable, "-c", FINGERPRINT, str(library.path), *METHODS],
        capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    assert process.stdout.strip() == fingerprint_of(EngineSettings(), library, *METHODS)


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(EngineSettings)])
def test_fingerprint_changes_with_each_engine_setting(library: Library, name: str) -> None:
    settings = dataclasses.replace(EngineSettings(), **{name: OTHER[name]})
    assert settings != EngineSettings()
    assert fingerprint_of(settings, library, *METHODS) != fingerprint_of(EngineSettings(), library, *METHODS)


@pytest.mark.parametrize(
    "methods",
    [
        ("cosine", "softmax", "prefix_centroid"), ("euclidean", "calibrated", "prefix_centroid"),
        ("euclidean", "softmax", "full_centroid"), ("euclidean", "softmax"), (),
        ("euclideansoftmax", "prefix_centroid"),
    ],
)  # fmt: skip
def test_fingerprint_changes_with_each_method(library: Library, methods: tuple[str, ...]) -> None:
    assert fingerprint_of(EngineSettings(), library, *methods) != fingerprint_of(EngineSettings(), library, *METHODS)


def test_fingerprint_changes_with_any_number_of_the_library(library: Library, tmp_path: Path) -> None:
    metadata, stats = tiny_metadata(), tiny_stats()
    metadata["centroids"][1][2] += 1e-9
    stats["archetypes"][1]["range_p50"] += 1e-9
    others = [
        write_library(tmp_path / "metadata", metadata, tiny_stats()),
        # The statistics are part of what is published; their hash stands in the metadata.
        write_library(tmp_path / "stats", tiny_metadata(), stats),
    ]
    ours = fingerprint_of(EngineSettings(), library, *METHODS)
    theirs = {fingerprint_of(EngineSettings(), load_library(path), *METHODS) for path in others}
    assert len(theirs | {ours}) == 3


def test_fingerprint_does_not_depend_on_where_the_library_lies(library: Library, tmp_path: Path) -> None:
    moved = load_library(write_tiny_library(tmp_path / "elsewhere"))
    assert fingerprint_of(EngineSettings(), moved, *METHODS) == fingerprint_of(EngineSettings(), library, *METHODS)
