"""Log lines with fields: readable on a console, one JSON object a line where a machine collects them.

Lines carry what they are about as fields (`topic`, `partition`, `offset`, `session_id`, `model_version`). How many
there are is never up to the input: lines that a record may cause are rationed, and say how many were left out.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, MutableMapping
from typing import Any, Literal

from aiokafka import TopicPartition
from pythonjsonlogger.msgspec import MsgspecFormatter

__all__ = ["Log", "Ration", "at", "configure_logging"]

LogFormat = Literal["console", "json"]


class Log(logging.LoggerAdapter[logging.Logger]):
    """A logger whose lines all carry some fields; a line's own come on top."""

    def __init__(self, logger: logging.Logger, **fields: object) -> None:
        super().__init__(logger, fields)

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:  # noqa: ANN401 - as logging has it
        """Add the fields to those of the line."""
        kwargs["extra"] = {**(self.extra or {}), **(kwargs.get("extra") or {})}
        return msg, kwargs


def at(partition: TopicPartition, **fields: object) -> dict[str, object]:
    """Return the fields of a line about a partition, for logging's `extra`."""
    return {"topic": partition.topic, "partition": partition.partition, **fields}


class Ration:
    """Lets some lines through at once, then one each interval, and counts what it holds back.

    Parameters
    ----------
    burst : int
        Lines that may come at once.
    interval_s : float
        Until one more may come.
    clock : callable
        Returns seconds.

    Examples
    --------
    >>> now_s = 0.0
    >>> ration = Ration(2, 10.0, clock=lambda: now_s)
    >>> [ration.take() for _ in range(5)]
    [0, 0, None, None, None]
    >>> now_s = 10.0
    >>> ration.take()
    3
    """

    def __init__(self, burst: int, interval_s: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._burst = burst
        self._interval_s = interval_s
        self._clock = clock
        self._left = float(burst)
        self._as_of_s = clock()
        self._n_held_back = 0

    def hold_back(self, n: int) -> None:
        """Count `n` more lines as held back."""
        self._n_held_back += n

    def take(self) -> int | None:
        """Return how many were held back since the last one, if this one may come; else None."""
        now_s = self._clock()
        self._left = min(self._burst, self._left + (now_s - self._as_of_s) / self._interval_s)
        self._as_of_s = now_s
        if self._left < 1:
            self._n_held_back += 1
            return None
        self._left -= 1
        n_held_back, self._n_held_back = self._n_held_back, 0
        return n_held_back


def configure_logging(level: str, form: LogFormat) -> None:
    """Send the lines of this process to standard error.

    Parameters
    ----------
    level : str
        Least level, by name.
    form : {"console", "json"}
    """
    handler = logging.StreamHandler()
    handler.setFormatter(_json() if form == "json" else _Console())
    logging.basicConfig(level=level, handlers=[handler])
    if level != "DEBUG":
        # aiokafka reports every broker hiccup, those that it mends by itself and those that we report.
        logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    # OpenTelemetry writes out what it cannot read: variables that may hold a token, and headers of records.
    for name in ("opentelemetry.util.re", "opentelemetry.trace.span"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    # At DEBUG it writes every request as it is, that with the password too.
    logging.getLogger("aiokafka.conn").setLevel(logging.INFO if level == "DEBUG" else logging.CRITICAL)


def _json() -> logging.Formatter:
    return MsgspecFormatter(
        ["levelname", "name", "message"], rename_fields={"levelname": "level", "name": "logger"}, timestamp="time"
    )


class _Console(logging.Formatter):
    """Time, level, where and what; nothing that came with a record can end the line or move the cursor."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - as logging has it
        facts = vars(record)
        where, held_back = "", ""
        if "partition" in facts:
            offset = f"@{facts['offset']}" if "offset" in facts else ""
            where = f"{facts['topic']}[{facts['partition']}]{offset}: "
        if facts.get("held_back"):
            held_back = f" ({facts['held_back']} more like it were not logged)"
        record.message = _printable(f"{where}{record.message}{held_back}")
        return super().formatMessage(record)

    def formatException(self, ei: Any) -> str:  # noqa: ANN401, N802 - as logging has it
        """Indent a traceback, so that no line of it can be taken for one of ours."""
        return "\n".join(f"  {_printable(line)}" for line in super().formatException(ei).split("\n"))


def _printable(text: str) -> str:
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
