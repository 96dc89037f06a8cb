"""Measure what a flood of records that cannot be used costs the others.

`stream-fp run`, exactly-once, on a real broker, follows two topics turn by turn: one of sound records, and one where a
record that cannot be used follows each of the same (no JSON; JSON of another shape; an event without a price; no key).
Both are full before it starts, so it goes as fast as it can. What is compared is how many sound records a second it
takes, from the first prediction beyond a tenth of the topic to the last one, as a `read_committed` reader sees them.
Every prediction has to come, and every dead letter, once; else it raises. (Dead letters are counted afterwards: to read
them costs more of the machine than to write them.)

Two figures come of it. Of each two records one is bad, so a sound one would have half of the service's full rate if bad
ones cost as much as sound ones: what is kept of that share. And what is kept of the rate at which sound ones go alone,
which even a service that did nothing with bad ones but read and drop them would not keep all of.

    python -m benchmarks.poison [--rounds 5] [--instruments 200] [--sessions 28] [--seed 1] [--quick]
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.harness import new_parser, print_table, ratio, spread, stream_records, trained_library, write_report
from benchmarks.live import (
    Reader,
    Topics,
    expected_offsets,
    fill,
    member_arguments,
    new_topics,
    running_members,
    source_of,
)
from stream_fp.files import FileRecord
from stream_fp.library import load_library
from tests.support.broker import running_broker

SOUND, POISONED = "sound records alone", "a record that cannot be used after each"
WARM_UP: Final = 0.1
TIMEOUT_S: Final = 300.0
CPU: Final = "process_cpu_seconds_total"
_BAD: Final = (
    (b"LONDON_2025-07-29", b'{"timestamp": "2025-07-29T08:00:00Z", "event_type": '),
    (b"LONDON_2025-07-29", b'{"timestamp": "2025-07-29T08:00:00Z", "event_type": "expansion", "price": "high"}'),
    (b"LONDON_2025-07-29", b'{"timestamp": "2025-07-29T08:00:00Z", "event_type": "expansion"}'),
    (None, b'{"timestamp": "2025-07-29T08:00:00Z", "event_type": "expansion", "price": 23162.25}'),
)


@dataclass(frozen=True, kw_only=True)
class Flow:
    """What a topic holds and what has to come of it."""

    topic: str
    offsets: Sequence[int]
    """Of the records that trigger a prediction."""
    n_dead: int
    share_sound: float


def main() -> int:
    """Run the benchmark; returns the exit status."""
    parser = new_parser(__doc__)
    parser.add_argument("--instruments", type=int, default=200)
    parser.add_argument("--sessions", type=int, default=28, help="of each instrument, one after another; seven a day")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.rounds, arguments.sessions = min(arguments.rounds, 3), 14
    records = stream_records(arguments.instruments, arguments.sessions, arguments.seed)
    model_path = trained_library(arguments.seed)
    offsets = expected_offsets(records, load_library(model_path))
    rates: dict[str, list[float]] = {SOUND: [], POISONED: []}
    processor_us: dict[str, list[float]] = {SOUND: [], POISONED: []}
    with running_broker() as broker, new_topics(broker.bootstrap_servers) as one, new_topics(one.servers) as other:
        fill(one.servers, one.input, [records])
        fill(one.servers, other.input, [list(_poisoned(records))])
        flows = {
            SOUND: Flow(topic=one.input, offsets=offsets, n_dead=0, share_sound=1.0),
            POISONED: Flow(
                topic=other.input, offsets=[2 * offset for offset in offsets], n_dead=len(records), share_sound=0.5
            ),
        }
        for _ in range(arguments.rounds):
            for name, flow in flows.items():
                rate, cpu_us = asyncio.run(_follow(one.servers, flow, model_path))
                rates[name].append(rate)
                processor_us[name].append(cpu_us)
        figures = {
            "share_kept": 2 * ratio(rates[POISONED], rates[SOUND]),
            "poisoned_over_sound": ratio(rates[POISONED], rates[SOUND]),
            "processor_share_kept": 2 * ratio(processor_us[SOUND], processor_us[POISONED]),
            "sound_records_per_s": statistics.median(rates[SOUND]),
            "sound_records_per_s_poisoned": statistics.median(rates[POISONED]),
        }
        write_report("poison", arguments, figures, n_records=len(records), broker=broker.origin, samples=rates,
                     processor_us=processor_us)  # fmt: skip
    print_table(
        f"One process, one partition, {len(records)} sound records",
        ("", "sound records/s", "min - max", "processor time of each, us", "min - max"),
        [
            (
                name,
                f"{statistics.median(rates[name]):,.0f}",
                spread(rates[name], 0),
                f"{statistics.median(processor_us[name]):.1f}",
                spread(processor_us[name], 1),
            )
            for name in (SOUND, POISONED)
        ],
    )
    print(f"Of their share of the full rate, half of it, sound records keep {figures['share_kept']:.2f}")
    print(f"By the processor time of the service alone, that is {figures['processor_share_kept']:.2f}")
    print(f"Of the rate at which they go alone they keep {figures['poisoned_over_sound']:.2f}")
    return 0


def _poisoned(records: Sequence[FileRecord]) -> Iterator[FileRecord]:
    for record in records:
        key, value = _BAD[record.offset % len(_BAD)]
        yield FileRecord(2 * record.offset, record.key, record.value)
        yield FileRecord(2 * record.offset + 1, key, value)


async def _follow(servers: str, flow: Flow, model_path: Path) -> tuple[float, float]:
    """Let a new group follow a topic; returns the sound records a second, and processor time of each in us."""
    last = flow.offsets[-1]
    first = next(offset for offset in flow.offsets if offset >= WARM_UP * last)
    with new_topics(servers) as made:
        mine = Topics(servers=servers, input=flow.topic, output=made.output, dead_letters=made.dead_letters)
        command = [*member_arguments(mine, model_path, sidecars=None), "--group-id", f"group-{made.input}"]
        with Reader(servers, made.output, key=source_of) as reader:
            async with running_members(1, command) as (member,):
                await asyncio.to_thread(reader.wait_for, flow.offsets.index(first) + 1, TIMEOUT_S)
                began_cpu_s, began_at = await member.total(CPU), reader.seen[-1][1]
                await asyncio.to_thread(reader.wait_for, len(flow.offsets), TIMEOUT_S)
                took_cpu_s = await member.total(CPU) - began_cpu_s
                with Reader(servers, made.dead_letters) as dead_letters:
                    await asyncio.to_thread(dead_letters.wait_for, flow.n_dead, TIMEOUT_S)
                    await asyncio.to_thread(time.sleep, 1.0)  # for what should not come
    found = {offset: time_ns for _, offset, time_ns in reader.seen}
    if sorted(found) != list(flow.offsets) or len(reader.seen) != len(found) or len(dead_letters.seen) != flow.n_dead:
        msg = (
            f"expected {len(flow.offsets)} predictions and {flow.n_dead} dead letters, found {len(reader.seen)} and "
            f"{len(dead_letters.seen)}"
        )
        raise RuntimeError(msg)
    rate = 1e9 * flow.share_sound * (last - first) / (found[last] - found[first])
    return rate, 1e6 * took_cpu_s / (flow.share_sound * (last - began_at))


if __name__ == "__main__":
    raise SystemExit(main())
