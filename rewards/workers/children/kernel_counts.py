"""Read another process's CPU time, waiting time and memory from the kernel, and keep deadlines with them."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import NamedTuple

from rewards.sandbox.processor import seconds_used

MAX_STRETCH = 3.0
"""Time spent waiting for a CPU does not count, until a call has taken this many times its deadline."""


class CpuTimes(NamedTuple):
    """Seconds that a process has run, and that it was ready to run but waited for a CPU."""

    used: float
    waited: float

    @classmethod
    def of(cls, pid: int) -> CpuTimes:
        """Return the times of a process since its start; infinite run time if it is gone."""
        try:
            used = seconds_used(pid)
        except OSError:
            used = math.inf
        return cls(used, seconds_waited_for_cpu(pid))


def seconds_waited_for_cpu(pid: int) -> float:
    """Return how long a process has waited for a CPU since its start, in seconds.

    0 when it is gone or the kernel does not say.
    """
    try:
        return int(Path(f"/proc/{pid}/schedstat").read_text().split()[1]) / 1e9
    except (OSError, IndexError, ValueError):
        return 0.0


def is_ready_to_run(pid: int) -> bool:
    """Return whether a process runs or waits for a CPU, so does not sleep. False if it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "R"
    except (OSError, IndexError):
        return False


def peak_memory_gib(pid: int) -> float:
    """Return the largest resident memory of a process so far, GiB. 0 when it is gone."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0.0
    kib = next((line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:")), "0")
    return int(kib) / 2**20


class CallClock:
    """The time of one process's calls, one after another, without the time for which no CPU was free."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._since = 0.0
        self._before = self._latest = CpuTimes(0.0, 0.0)

    def note_waiting(self) -> None:
        """Note how long the process has waited for a CPU, for the next call."""
        self._latest = CpuTimes.of(self._pid)

    def begin(self) -> None:
        """Start the time of a call."""
        # What it waited for since the last note, and before this call, is given to this call too: a deadline is never
        # shortened.
        self._since, self._before = time.monotonic(), self._latest

    def elapsed(self) -> float:
        """Return the seconds since the call started."""
        return time.monotonic() - self._since

    def is_past(self, deadline_s: float) -> bool:
        """Return whether the call has taken longer than that, not counting the time for which no CPU was free."""
        elapsed = self.elapsed()
        if elapsed < deadline_s or elapsed >= MAX_STRETCH * deadline_s:
            return elapsed >= deadline_s
        used, waited = CpuTimes.of(self._pid)
        # The kernel does not count a wait before its end, nor what a hypervisor takes; but then it is ready to run.
        has_no_cpu = used - self._before.used < deadline_s and is_ready_to_run(self._pid)
        return elapsed - (waited - self._before.waited) >= deadline_s and not has_no_cpu
