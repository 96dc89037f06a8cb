"""The feeder of a soak: a week of simulated sessions, again and again under later dates, at a given pace.

    python -m tests.soak.feed SERVERS TOPIC N_PARTITIONS RATE SECONDS N_INSTRUMENTS BAD_SHARE SEED

A rate of 0 is as fast as it can. It prints a line a second: how many records were acknowledged so far.
"""

from __future__ import annotations

import datetime as dt
import random
import re
import sys
import time
import zlib
from collections.abc import Iterator
from typing import Final

import msgspec
from confluent_kafka import Producer

from offline.simulate import interleave, simulate_instrument

_FIRST: Final = dt.date(2025, 1, 6)
_SESSIONS_A_WEEK: Final = 35
_DATE: Final = re.compile(rb"20\d\d-\d\d-\d\d")
#: Bad records are such.
_BAD: Final = (
    b'{"timestamp": "2025-01-0',
    b'{"kind": "session_pause"}',
    b'{"timestamp": 1, "event_type": "x", "price": -5}',
)
_AT_ONCE: Final = 500
#: The market's zone, and the same without daylight saving: under later dates, too, the events lie in their sessions.
_ZONES: Final = (b"America/New_York", b"Etc/GMT+5")

#: A text cut at its dates, and the days since the first one of each.
Template = tuple[list[bytes], list[int]]


def main() -> None:
    """Publish until the time is over."""
    servers, topic, n_partitions, rate, seconds, n_instruments, bad_share, seed = sys.argv[1:]
    week = _week(int(n_instruments), int(seed))
    rng = random.Random(int(seed))
    producer = Producer(
        {"bootstrap.servers": servers, "linger.ms": 5, "acks": "all", "enable.idempotence": True, "log_level": 3,
         "queue.buffering.max.messages": 200_000}
    )  # fmt: skip
    n_sent = n_acknowledged = 0
    began_s = told_s = time.monotonic()

    def acknowledged(error: object, _: object) -> None:
        nonlocal n_acknowledged
        n_acknowledged += error is None

    for key, value in _stream(week, rng, float(bad_share)):
        partition = zlib.crc32(key) % int(n_partitions)
        while time.monotonic() - began_s < float(seconds):
            try:
                producer.produce(topic, value, key, partition=partition, on_delivery=acknowledged)
            except BufferError:
                producer.poll(0.05)
            else:
                break
        n_sent += 1
        if n_sent % _AT_ONCE:
            continue
        producer.poll(0)
        now_s = time.monotonic()
        if now_s - told_s >= 1:
            told_s = now_s
            _say(n_acknowledged)
        if now_s - began_s >= float(seconds):
            break
        if float(rate) and (ahead_s := n_sent / float(rate) - (now_s - began_s)) > 0:
            time.sleep(ahead_s)
    producer.flush(30)
    _say(n_acknowledged)


def _say(n_acknowledged: int) -> None:
    sys.stdout.write(f"{n_acknowledged}\n")
    sys.stdout.flush()


def _week(n_instruments: int, seed: int) -> list[tuple[Template, Template]]:
    sessions = [
        session
        for number in range(n_instruments)
        for session in simulate_instrument(
            f"{number:04d}", _SESSIONS_A_WEEK, seed=1000 * seed + number, first_date=_FIRST
        )
    ]
    return [
        (_template(message["session_id"].encode()), _template(msgspec.json.encode(message).replace(*_ZONES)))
        for message in interleave(sessions)
    ]


def _template(text: bytes) -> Template:
    days = [(dt.date.fromisoformat(found.decode()) - _FIRST).days for found in _DATE.findall(text)]
    return _DATE.split(text), days


def _stream(
    week: list[tuple[Template, Template]], rng: random.Random, bad_share: float
) -> Iterator[tuple[bytes, bytes]]:
    number = 0
    while True:
        monday = _FIRST + dt.timedelta(weeks=number)
        dates = [(monday + dt.timedelta(days=day)).isoformat().encode() for day in range(-1, 9)]
        for key, value in week:
            filled = _filled(key, dates)
            yield filled, _filled(value, dates)
            if rng.random() < bad_share:
                yield filled, rng.choice(_BAD)
        number += 1


def _filled(template: Template, dates: list[bytes]) -> bytes:
    texts, days = template
    if not days:
        return texts[0]
    parts = [texts[0]]
    for day, text in zip(days, texts[1:], strict=True):
        parts += (dates[day + 1], text)
    return b"".join(parts)


if __name__ == "__main__":
    main()
