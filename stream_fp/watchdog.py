"""Ends the process when its event loop has stopped answering, or when a shutdown outlasts its time.

Everything else that watches runs on the loop itself; this is a thread of its own, and what it does cannot wait for
anybody: state is safe at every instant, so the process may end at every instant.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from typing import Final

__all__ = ["Watchdog"]

_logger = logging.getLogger(__name__)

_LOOK_S: Final = 0.5
#: More than a busy machine makes a thread wait.
_OVERSLEPT_S: Final = 5.0
_STATUS: Final = 1


class Watchdog:
    """Watches from when it is started; a daemon, so it keeps no process alive.

    Parameters
    ----------
    silence_s : float
        How long `beat` may stay out.
    """

    def __init__(self, silence_s: float) -> None:
        self._silence_s = silence_s
        self._deadline_s = time.monotonic() + silence_s
        self._why = f"the event loop has not answered for {silence_s:g} s (setting `stall_exit_s`)"
        self._is_ending = False
        self._thread = threading.Thread(target=self._watch, name="stream-fp-watchdog", daemon=True)

    def start(self) -> None:
        """Begin to watch."""
        self._thread.start()

    def beat(self) -> None:
        """Say that the loop is alive."""
        if not self._is_ending:
            self._deadline_s = time.monotonic() + self._silence_s

    def end_within(self, seconds: float) -> None:
        """Say that the process is to end by itself within so many seconds; beats count no more."""
        self._is_ending = True
        self._why = f"the shutdown has taken more than {seconds:g} s"
        self._deadline_s = time.monotonic() + seconds

    def _watch(self) -> None:
        while (now_s := time.monotonic()) < self._deadline_s:
            time.sleep(_LOOK_S)  # a thread of its own, whose only work is to wait
            overslept_s = time.monotonic() - now_s - _LOOK_S
            if overslept_s > _OVERSLEPT_S:
                # The whole process was stopped, this thread with it: that says nothing of the loop.
                self._deadline_s += overslept_s
        _logger.critical("ending the process: %s", self._why)
        logging.shutdown()
        os._exit(_STATUS)
