"""What the examples share: the job itself, so that what differs between them is the framework.

The state of a session is its rows, one after another in a piece of bytes: any framework can keep that, and to add an
event is to append 25 bytes. `DONE` takes their place once the session has had its prediction, for its later events are
of no use. Where a session stands follows from its id and its rows alone, so nothing else has to be recovered.

Simpler than the service on purpose: sessions never close, metadata of a session and event ids are not looked at, and
records that cannot be used are left out with a line in the log.
"""

from __future__ import annotations

import argparse
import logging
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec
import numpy as np

from stream_fp.checks import checked_event
from stream_fp.classifier import Classifier
from stream_fp.completion import choose_yardstick, resolve_facts
from stream_fp.errors import RecordError
from stream_fp.features import extract
from stream_fp.library import load_library
from stream_fp.messages import Message, decode_message
from stream_fp.phases import phase_of
from stream_fp.sessions import NO_REGIME, Columns
from stream_fp.times import absolute_us, parse_timestamp_us, zone_of

__all__ = ["DONE", "Job", "event_of", "parse_arguments"]

CHECKPOINT_PCT: Final = 30.0
#: A session with fewer events at the checkpoint gets no prediction, as in the service.
MIN_EVENTS: Final = 5
TIMEZONE: Final = "America/New_York"
#: State of a session that needs nothing more.
DONE: Final = b"done"

_NAN: Final = float("nan")
#: A row: time in microseconds since 1970, price, intensity, phase and regime.
_ROW: Final = struct.Struct("<qddB")
_TIME: Final = struct.Struct("<q")
_COLUMNS: Final = np.dtype([("time_us", "<i8"), ("price", "<f8"), ("intensity", "<f8"), ("code", "u1")])

_log: Final = logging.getLogger(__name__)


class SmallPrediction(msgspec.Struct, frozen=True):
    """What an example publishes; `offset` is that of the record that brought it about."""

    session_id: str
    archetype_id: int
    confidence: float
    offset: int


@dataclass(frozen=True, slots=True)
class _Aim:
    """When a session is at the checkpoint, and what its features need beside the rows."""

    trigger_n: float
    trigger_us: float
    start_us: int | None
    session_type: str


def event_of(value: bytes | None) -> Message | None:
    """Decode a record; None where it is no event, or none that can be used."""
    try:
        message = decode_message(value)
        if message.kind != "event":
            return None
        checked_event(message)
    except RecordError as error:
        _log.warning("Record left out: %s", error)
        return None
    return message


class Job:
    """From an event to a row, from rows to the checkpoint, from the checkpoint to a prediction.

    Parameters
    ----------
    model_path : Path
        Folder of the trained library.
    """

    def __init__(self, model_path: Path) -> None:
        self._library = load_library(model_path)
        self._classifier = Classifier(self._library)
        self._zone = zone_of(TIMEZONE)
        self._aims: dict[str, _Aim] = {}

    def row(self, message: Message) -> bytes:
        """Return the row of an event; no bytes where its time cannot be read."""
        event_type, price, stamp = checked_event(message)
        time_us = absolute_us(stamp)
        if time_us is None and (time_us := parse_timestamp_us(stamp, self._zone)) is None:
            return b""
        regime = NO_REGIME if message.htf_regime is None else message.htf_regime
        return _ROW.pack(
            time_us,
            _NAN if price is None else price,
            _NAN if message.intensity is None else message.intensity,
            phase_of(event_type) << 2 | regime,
        )

    def crosses(self, session_id: str, rows: bytes | bytearray) -> bool:
        """Return whether the latest of the rows takes the session to the checkpoint."""
        if not rows:
            return False
        aim = self._aims.get(session_id)
        if aim is None:
            aim = self._aims[session_id] = self._aim(session_id)
        (time_us,) = _TIME.unpack_from(rows, len(rows) - _ROW.size)
        return bool(len(rows) >= _ROW.size * aim.trigger_n or time_us >= aim.trigger_us)

    def prediction(self, session_id: str, rows: bytes | bytearray, offset: int) -> bytes | None:
        """Return the JSON to publish of a session that is at the checkpoint; None where its events are too few."""
        aim = self._aims.pop(session_id, None) or self._aim(session_id)
        if len(rows) < MIN_EVENTS * _ROW.size:
            return None
        table = np.frombuffer(rows, dtype=_COLUMNS)
        times_us = np.ascontiguousarray(table["time_us"])
        columns = Columns(
            times_us=times_us,
            prices=np.ascontiguousarray(table["price"]),
            intensities=np.ascontiguousarray(table["intensity"]),
            codes=np.ascontiguousarray(table["code"]),
            start_us=int(times_us[0]) if aim.start_us is None else aim.start_us,
        )
        found = self._classifier.classify(extract(columns), CHECKPOINT_PCT, aim.session_type)
        return msgspec.json.encode(SmallPrediction(session_id, found.archetype_id, found.confidence, offset))

    def _aim(self, session_id: str) -> _Aim:
        facts = resolve_facts(
            session_id,
            None,
            schedules=self._library.schedules,
            typical_events=self._library.typical_events,
            default_timezone=TIMEZONE,
        )
        trigger_n, trigger_us = choose_yardstick(facts, "auto").crossing(CHECKPOINT_PCT)
        return _Aim(trigger_n, trigger_us, facts.start_us, facts.session_type)


def parse_arguments(doc: str | None) -> argparse.Namespace:
    """Return the arguments that every example takes."""
    parser = argparse.ArgumentParser(description=(doc or "").splitlines()[0])
    parser.add_argument("--bootstrap-servers", default="localhost:9092")
    parser.add_argument("--input-topic", default="session-events")
    parser.add_argument("--output-topic", default="session-fingerprints")
    parser.add_argument("--model-path", type=Path, required=True, help="folder of the trained library")
    parser.add_argument("--group-id", default="stream-fp-example")
    parser.add_argument("--state-dir", type=Path, default=Path("state"), help="where a framework keeps files")
    parser.add_argument(
        "--commit-interval-s", type=float, default=1.0, help="between two commits or snapshots; the service's default"
    )
    return parser.parse_args()
