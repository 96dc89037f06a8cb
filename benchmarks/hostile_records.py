"""Measure what single records of a megabyte cost that are made to cost much: time and memory of the engine for each.

The bounds: 50 ms and 50 MB for a record of 1 MB, whatever is in it. Time is that of the fastest of several rounds, for
what is asked is what the record takes, not what else the machine does; memory is the highest that Python's allocators
were asked for meanwhile, beyond what was there before.

    python -m benchmarks.hostile_records [--rounds 5] [--seed 1] [--quick]
"""

from __future__ import annotations

import time
import tracemalloc
from typing import Final

from benchmarks.harness import new_parser, print_table, trained_library, write_report
from stream_fp.classifier import Classifier
from stream_fp.engine import Engine
from stream_fp.engine_settings import EngineSettings
from stream_fp.files import FileRecord
from stream_fp.library import load_library
from stream_fp.outcomes import DeadLetter
from stream_fp.predictor import Predictor

SIZE: Final = 2**20
KEY: Final = b"NY_AM_2025-07-29"
BOUND_MS, BOUND_MB = 50.0, 50.0


def shapes() -> dict[str, tuple[bytes, bytes]]:
    """Return key and value of each record, by what is bad about it."""

    def event(**fields: bytes) -> bytes:
        whole = {
            "timestamp": b'"2025-07-29T13:35:00Z"', "event_type": b'"expansion"', "price": b"23162.25", **fields
        }  # fmt: skip
        return b"{" + b",".join(b'"%s":%s' % (name.encode(), value) for name, value in whole.items()) + b"}"

    room = SIZE - 200
    return {
        "open brackets": (KEY, b"[" * SIZE),
        "open braces with names": (KEY, b'{"a":' * (SIZE // 5)),
        "empty lists beside each other": (KEY, event(more=b"[" + b"[]," * (room // 3) + b"[]]")),
        "nested as deep as allowed, again and again": (
            KEY, event(more=b"[" + (b"[" * 250 + b"]" * 250 + b",") * (room // 501) + b"0]"),
        ),
        "quotes": (KEY, b'"' * SIZE),
        "backslashes": (KEY, b'"' + b"\\" * (SIZE - 1)),
        "escaped quotes and brackets in a text": (KEY, event(more=b'"' + b'\\"[' * (room // 3) + b'"')),
        "escapes of surrogates": (KEY, event(event_type=b'"' + b"\\ud83d\\ude00" * (room // 12) + b'"')),
        "half a surrogate, many times": (KEY, event(event_type=b'"' + b"\\ud83d" * (room // 6) + b'"')),
        "a kind of event of a megabyte": (KEY, event(event_type=b'"' + b"x_" * (room // 2) + b'"')),
        "a time stamp of a megabyte": (KEY, event(timestamp=b'"' + b"2025-07-29T13:35:00" * (room // 19) + b'"')),
        "a time stamp of digits": (KEY, event(timestamp=b"1" * room)),
        "a time stamp of digits, as text": (KEY, event(timestamp=b'"' + b"1" * room + b'"')),
        "a price of digits": (KEY, event(price=b"1" * room)),
        "a price with a long fraction": (KEY, event(price=b"1." + b"1" * room)),
        "a price with a huge exponent": (KEY, event(price=b"1e" + b"9" * room)),
        "many unknown fields": (KEY, event(**{f"f{n}": b"0" for n in range(room // 14)})),
        "the same field many times": (KEY, b"{" + b'"price":1,' * (SIZE // 11) + b'"price":1}'),
        "a session id of a megabyte": (KEY, event(session_id=b'"' + b"x" * room + b'"')),
        "a key of a megabyte": (b"x" * SIZE, event()),
        "a key that is no UTF-8": (b"\xff" * SIZE, event()),
        "white space": (KEY, event() + b" " * room),
        "zeros": (KEY, b"\0" * SIZE),
        "no UTF-8": (KEY, event(event_type=b'"' + b"\xff" * room + b'"')),
        "over the limit of size": (KEY, event(more=b'"' + b"x" * SIZE + b'"')),
    }  # fmt: skip


def main() -> int:
    """Run the benchmark; returns the exit status."""
    arguments = new_parser(__doc__).parse_args()
    n_rounds = 3 if arguments.quick else arguments.rounds
    library = load_library(trained_library(arguments.seed))
    classifier = Classifier(library)

    def new_engine() -> Engine:
        return Engine(
            Predictor(classifier), EngineSettings(), schedules=library.schedules,
            typical_events=library.typical_events,
        )  # fmt: skip

    rows, worst_ms, worst_mb = [], 0.0, 0.0
    for name, (key, value) in shapes().items():
        record = FileRecord(0, key, value)
        took_ms = min(_time_ms(new_engine(), record) for _ in range(n_rounds))
        peak_mb, became = _peak_mb(new_engine(), record)
        worst_ms, worst_mb = max(worst_ms, took_ms), max(worst_mb, peak_mb)
        rows.append((name, f"{took_ms:.1f}", f"{peak_mb:.1f}", became))
    write_report(
        "hostile_records", arguments, {"worst_ms": worst_ms, "worst_mb": worst_mb}, bytes=SIZE, samples=rows
    )  # fmt: skip
    print_table("Records of 1 MiB", ("", "ms", "MB", "became"), rows)
    print(f"Worst: {worst_ms:.1f} ms (bound: {BOUND_MS:g}) and {worst_mb:.1f} MB (bound: {BOUND_MB:g})")
    return 0


def _time_ms(engine: Engine, record: FileRecord) -> float:
    started_s = time.perf_counter()
    engine.process(record)
    return 1e3 * (time.perf_counter() - started_s)


def _peak_mb(engine: Engine, record: FileRecord) -> tuple[float, str]:
    tracemalloc.start()
    try:
        outcomes = engine.process(record)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    dead = [outcome for outcome in outcomes if isinstance(outcome, DeadLetter)]
    return peak / 1e6, f"dead letter: {dead[0].message[:40]}" if dead else "an event"


if __name__ == "__main__":
    raise SystemExit(main())
