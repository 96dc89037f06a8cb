"""One to four consumer processes of one group, looked after as a supervisor would: who dies is started anew."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tests.support.service import Samples, ServiceProcess, start_service

__all__ = ["MAX_CONSUMERS", "Fleet", "running_fleet"]

MAX_CONSUMERS: Final = 4
#: What a supervisor waits before it starts anew who died by itself.
_RESTART_S: Final = 0.5
_SCRAPE_S: Final = 0.5
_END_S: Final = 30.0
#: Ended as asked; one that is asked while Python still imports ends by the signal itself.
_NO_NEWS: Final = (0, -signal.SIGKILL, -signal.SIGTERM)


@dataclass(slots=True)
class _Books:
    """The last that was seen of one worker's books."""

    consumed: float = 0
    accounted: float = 0


@dataclass
class Fleet:
    """The processes by slot; a slot that is wanted always gets a new process when the old one has ended."""

    arguments: tuple[str, ...]
    logs: Path
    program: tuple[str, ...] | None = None
    processes: dict[int, ServiceProcess] = field(default_factory=dict)
    wanted: set[int] = field(default_factory=set)
    no_broker: int = 0
    """Processes that ended, as they should, because no broker answered when they started."""
    exits: list[str] = field(default_factory=list)
    """Other processes that ended by themselves: slot, status and last line."""
    irreconcilable: list[str] = field(default_factory=list)
    """Scrapes in which consumed was not the sum of what became of the records."""
    n_scrapes: int = 0
    n_started: int = 0
    _told: dict[int, int] = field(default_factory=dict)
    _books: dict[tuple[int, str], list[_Books]] = field(default_factory=dict)
    _stopped: set[int] = field(default_factory=set)

    @property
    def running(self) -> list[int]:
        """Slots whose process runs and is not paused."""
        return [slot for slot in sorted(self.wanted) if self._is_alive(slot) and slot not in self._stopped]

    @property
    def consumed_total(self) -> float:
        """Records that all processes ever said to have consumed and published."""
        return sum(books.consumed for history in self._books.values() for books in history)

    async def scale_to(self, slots: set[int]) -> None:
        """Want these slots; others are ended in good order."""
        leaving = self.wanted - slots
        self.wanted = set(slots)
        await asyncio.gather(*(self.terminate(slot) for slot in leaving))

    async def kill(self, slot: int) -> None:
        """End a process with no warning."""
        if (process := self.processes.get(slot)) is not None:
            await process.kill()

    async def terminate(self, slot: int) -> None:
        """Ask a process to end; one that does not, or not with status 0, is noted."""
        process = self.processes.get(slot)
        if process is None or process.process.returncode is not None:
            return
        self.resume(slot)
        try:
            status = await process.terminate(_END_S)
        except TimeoutError:
            self.exits.append(f"{slot}: did not end after SIGTERM")
            await process.kill()
        else:
            self._note_end(slot, status, process)

    def pause(self, slot: int) -> None:
        """Stop a process as a debugger or a hypervisor does; it does not notice."""
        if self._is_alive(slot):
            self._stopped.add(slot)
            self.processes[slot].process.send_signal(signal.SIGSTOP)

    def resume(self, slot: int) -> None:
        """Let a paused process go on."""
        if slot in self._stopped:
            self._stopped.discard(slot)
            if self._is_alive(slot):
                self.processes[slot].process.send_signal(signal.SIGCONT)

    async def supervise(self) -> None:
        """Start whoever is wanted and does not run, for ever."""
        born = asyncio.get_running_loop().time
        ended_s: dict[int, float] = {}
        while True:
            for slot in sorted(self.wanted):
                process = self.processes.get(slot)
                if self._is_alive(slot):
                    continue
                if process is not None and slot not in ended_s:
                    ended_s[slot] = born()
                    self._note_end(slot, process.process.returncode, process)
                if born() - ended_s.get(slot, 0.0) >= _RESTART_S:
                    ended_s.pop(slot, None)
                    await self._start(slot)
                    if slot not in self.wanted:  # no longer, while it was being started
                        await self.kill(slot)
            await asyncio.sleep(0.05)

    async def scrape(self) -> None:
        """Look at everybody's books, for ever."""
        while True:
            await asyncio.gather(*(self._scrape(slot) for slot in self.running))
            await asyncio.sleep(_SCRAPE_S)

    async def aclose(self) -> None:
        """Kill who is left."""
        self.wanted = set()
        for process in self.processes.values():
            await process.kill()

    def _note_end(self, slot: int, status: int | None, process: ServiceProcess) -> None:
        if status == 1 and _last_line(process).startswith("stream-fp: cannot reach Kafka"):
            self.no_broker += 1
        elif status not in _NO_NEWS:
            self.exits.append(f"{slot}: status {status}: {_last_line(process)}")

    def _is_alive(self, slot: int) -> bool:
        process = self.processes.get(slot)
        return process is not None and process.process.returncode is None

    async def _start(self, slot: int) -> None:
        self.n_started += 1
        self._stopped.discard(slot)
        self._told[slot] = self.n_started
        log = self.logs / f"consumer-{slot}-{self.n_started:03d}.log"
        self.processes[slot] = await start_service(log, *self.arguments, program=self.program)

    async def _scrape(self, slot: int) -> None:
        incarnation = self._told[slot]
        with contextlib.suppress(OSError, ValueError, TimeoutError):
            async with asyncio.timeout(2):
                samples = await self.processes[slot].metrics()
            if samples:
                self.n_scrapes += 1
                self._reconcile(incarnation, samples)

    def _reconcile(self, incarnation: int, samples: Samples) -> None:
        consumed, accounted = Counter[str](), Counter[str]()
        for (name, labels), value in samples.items():
            partition = dict(labels).get("partition", "")
            if name == "stream_fp_records_consumed_total":
                consumed[partition] += value  # type: ignore[assignment]
            elif name in _ACCOUNTED:
                accounted[partition] += value  # type: ignore[assignment]
        for partition, n_consumed in consumed.items():
            if n_consumed != accounted[partition]:
                self.irreconcilable.append(f"[{partition}]: {n_consumed:.0f} is not {accounted[partition]:.0f}")
            history = self._books.setdefault((incarnation, partition), [_Books()])
            if n_consumed < history[-1].consumed:
                history.append(_Books())  # the partition was taken away and came back: new books
            history[-1] = _Books(n_consumed, accounted[partition])


_ACCOUNTED: Final = frozenset(
    {
        "stream_fp_records_applied_total",
        "stream_fp_records_dead_lettered_total",
        "stream_fp_records_ignored_total",
    }
)


@contextlib.asynccontextmanager
async def running_fleet(fleet: Fleet) -> AsyncIterator[Fleet]:
    """Look after a fleet while the context lasts; nobody is left behind."""
    fleet.logs.mkdir(parents=True, exist_ok=True)
    tasks = [asyncio.create_task(fleet.supervise()), asyncio.create_task(fleet.scrape())]
    try:
        yield fleet
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await fleet.aclose()


def _last_line(process: ServiceProcess) -> str:
    lines = process.output().strip().splitlines()
    return lines[-1][:300] if lines else "no output"
