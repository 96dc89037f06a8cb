"""Compiled or interpreted: the same source, the same bytes."""

from __future__ import annotations

import gc
import importlib.util
import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import stream_fp
from offline.simulate import interleave, simulate_sessions
from stream_fp.features import FEATURE_NAMES, fingerprint
from stream_fp.sessions import CODE_BITS, Session, pack_row
from stream_fp.stamps import IS_COMPILED, digits_us
from stream_fp.times import absolute_us
from tests.support.builders import write_tiny_library

if TYPE_CHECKING:
    from types import ModuleType

PACKAGE: Final = Path(stream_fp.__file__).parent
REQUIRE_COMPILED: Final = "STREAM_FP_REQUIRE_COMPILED"

#: Engine and predictor over records given as JSON lines of key and value; says which files it ran from.
SCRIPT: Final = """
import json, sys
from pathlib import Path
from stream_fp import engine, features, usual
from stream_fp.classifier import Classifier
from stream_fp.engine import Engine, EngineSettings
from stream_fp.files import FileRecord
from stream_fp.library import load_library
from stream_fp.messages import encode_prediction
from stream_fp.outcomes import Published
from stream_fp.predictor import Predictor

library = load_library(Path(sys.argv[1]))
lines = [json.loads(line) for line in open(sys.argv[2])]
records = [FileRecord(i, key.encode(), value.encode()) for i, (key, value) in enumerate(lines)]
made = Engine(
    Predictor(Classifier(library, distance_metric=sys.argv[3], assignment=sys.argv[4])),
    EngineSettings(checkpoints_pct=(25.0, 30.0, 50.0), min_events=2),
    schedules=library.schedules, typical_events=library.typical_events,
)
outcomes = [outcome for i in range(0, len(records), 97) for outcome in made.process_all(records[i : i + 97])]
told = [
    encode_prediction(one.prediction).decode() if isinstance(one, Published) else one.message for one in outcomes
]
files = [Path(module.__file__).suffix for module in (engine, features, usual)]
print(json.dumps({"files": files, "told": told, "watermark_us": made.watermark_us, "counts": repr(made.counts)}))
"""


@pytest.fixture(scope="module", autouse=True)
def _compiled() -> None:
    if not IS_COMPILED:
        lacking = "nothing is compiled here: there was no C compiler when the package was installed"
        if os.environ.get(REQUIRE_COMPILED) == "1":
            pytest.fail(lacking, pytrace=False)
        pytest.skip(lacking)


@pytest.fixture(scope="module")
def interpreted_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the package's sources and nothing compiled."""
    folder = tmp_path_factory.mktemp("interpreted")
    shutil.copytree(PACKAGE, folder / "stream_fp", ignore=shutil.ignore_patterns("*.so", "*.pyd", "__pycache__"))
    return folder


@pytest.fixture(scope="module")
def stream(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Simulated sessions, and among them what is no event, late, without a price or out of order."""
    rng = np.random.default_rng(5)
    lines = []
    for message in interleave(simulate_sessions(80, seed=11)):
        key = message["session_id"]
        chance = rng.random()
        if "event_type" in message and chance < 0.3:
            changes: list[dict[str, Any]] = [
                {"price": None}, {"price": 0}, {"price": -1}, {"intensity": None}, {"htf_regime": None},
                {"event_type": "news"}, {"timestamp": message["timestamp"][:19]}, {"timestamp": "soon"},
                {"event_id": int(rng.integers(3))}, {"session_id": "another"}, {"intensity": 1e300}, {"kind": "other"},
            ]  # fmt: skip
            message.update(changes[int(rng.integers(len(changes)))])
        value = msgspec.json.encode(message).decode()
        lines.append([key, value[:-1] if chance > 0.99 else value])
    for i in range(0, len(lines) - 1, 7):
        lines[i], lines[i + 1] = lines[i + 1], lines[i]
    path = tmp_path_factory.mktemp("stream") / "records.jsonl"
    path.write_text("\n".join(json.dumps(line) for line in lines))
    return path


@pytest.mark.parametrize(
    ("metric", "assignment"),
    [("euclidean", "prefix_model"), ("mahalanobis", "prefix_model"), ("cosine", "prefix_centroid")],
)
def test_interpreted_sources_give_the_same_bytes(
    interpreted_path: Path, stream: Path, tmp_path: Path, metric: str, assignment: str
) -> None:
    library = write_tiny_library(tmp_path / "library")
    found = []
    for folder in (PACKAGE.parent, interpreted_path):
        command = [sys.executable, "-c", SCRIPT, str(library), str(stream), metric, assignment]
        environment = {**os.environ, "PYTHONPATH": str(folder)}
        ended = subprocess.run(command, cwd=folder, env=environment, capture_output=True, check=False, timeout=120)
        assert ended.returncode == 0, ended.stderr.decode()
        found.append(json.loads(ended.stdout))
    compiled, interpreted = found
    assert set(interpreted.pop("files")) == {".py"}
    assert ".py" not in compiled.pop("files")
    assert len(compiled["told"]) > 100
    assert compiled == interpreted


def source_of(name: str) -> ModuleType:
    """Return a module of the package as Python reads it, whatever is compiled."""
    spec = importlib.util.spec_from_file_location(f"interpreted_{name}", PACKAGE / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where a dataclass looks for its own module
    spec.loader.exec_module(module)
    return module


FEATURES: Final = source_of("features")
STAMPS: Final = source_of("stamps")
T0: Final = 1_753_795_800_000_000


def test_sessions_are_out_of_the_garbage_collectors_sight() -> None:
    assert not gc.is_tracked(Session("S", first_offset=0, opened_at_watermark_us=None))


numbers = st.one_of(st.just(math.nan), st.floats(1e-9, 1e12), st.sampled_from((100.0, 101.5, 99.25)))
rows_of_events = st.lists(
    st.tuples(st.integers(-(10**9), 10**11), numbers, st.one_of(st.just(math.nan), st.floats(-1e9, 1e9)),
              st.integers(0, 27)),
    min_size=1, max_size=60,
)  # fmt: skip


@given(events=rows_of_events)
@settings(max_examples=300, deadline=None)
def test_fingerprint_of_any_events_has_the_same_bits(events: list[tuple[int, float, float, int]]) -> None:
    rows = b"".join(pack_row((T0 + us) << CODE_BITS | code, price, value) for us, price, value, code in events)
    found, expected = fingerprint(rows, T0), FEATURES.fingerprint(rows, T0)
    different = [
        name
        for name, a, b in zip(FEATURE_NAMES, found, expected, strict=True)
        if np.float64(a).tobytes() != np.float64(b).tobytes()
    ]
    assert different == []


stamps = st.builds(
    "{:04d}-{:02d}-{:02d}{}{:02d}:{:02d}:{:02d}{}{}".format,
    st.integers(1969, 2201), st.integers(0, 13), st.integers(0, 32), st.sampled_from("TT t_"), st.integers(0, 25),
    st.integers(0, 61), st.integers(0, 61),
    st.sampled_from(("", "", ".5", ".250", ".250999", ".2509991", ".25x", ",250", ".", ".\uff11\uff12\uff13")),
    st.sampled_from(("Z", "Z", "+00:00", "-04:00", "+05:45", "+14:00", "-15:00", "+0500", "", "z", "+05", " +05:00")),
)  # fmt: skip


@given(text=st.one_of(stamps, st.text(max_size=34), st.from_regex(r"[0-9T:.+Z-]{19,33}", fullmatch=True)))
@example("2024-02-29T23:59:59.999-14:00")
@example("2023-02-29T00:00:00Z")
@example("2100-02-29T00:00:00Z")
@settings(max_examples=1500, deadline=None)
def test_stamp_read_by_digits_is_what_the_careful_way_reads(text: str) -> None:
    found = digits_us(text)
    assert found == STAMPS.digits_us(text)
    if found >= 0:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("stream_fp.times.IS_COMPILED", False)
            assert absolute_us(text) == found
