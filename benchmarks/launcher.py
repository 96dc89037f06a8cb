"""Start a command, wait for it, and write what it took as JSON to standard output; its own goes to standard error.

A process of its own because the kernel counts the memory of whoever starts a command to that command's peak, and the
benchmarks are large. It imports next to nothing. SIGTERM, and a command that does not end in time, end the command.

    python -I -S benchmarks/launcher.py TIMEOUT_S COMMAND...
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time


def main() -> int:
    """Run the command; returns the exit status."""
    timeout_s, *command = sys.argv[1:]
    started_s = time.perf_counter()
    pid = os.posix_spawn(command[0], command, os.environ, file_actions=[(os.POSIX_SPAWN_DUP2, 2, 1)])
    for number in (signal.SIGTERM, signal.SIGALRM):
        signal.signal(number, lambda *_: os.kill(pid, signal.SIGKILL))
    signal.alarm(int(timeout_s))
    _, status, usage = os.wait4(pid, 0)
    found = {
        "wall_s": time.perf_counter() - started_s,
        "cpu_s": usage.ru_utime + usage.ru_stime,
        "peak_mb": usage.ru_maxrss * 1024 / 1e6,
        "status": os.waitstatus_to_exitcode(status),
    }
    sys.stdout.write(json.dumps(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
