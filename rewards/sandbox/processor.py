"""Watch a program's CPU time from another process, where the program cannot change it."""

from __future__ import annotations

import os
import time

CHECK_S = 0.02
"""Seconds between two checks; a call exceeds its limit by at most about this time."""
STRETCH = 3.0
"""Ratio of the wall-clock limit to the CPU-time limit, for busy machines and programs that sleep."""
_CLOCK_OF_PROCESS = 2
"""The low bits of a process's clock, CPUCLOCK_SCHED in Linux's include/linux/posix-timers.h."""


def seconds_used(process: int) -> float:
    """Return the CPU time of all threads of a process. Raises OSError if the process is gone."""
    return time.clock_gettime(~process << 3 | _CLOCK_OF_PROCESS)


class Calls:
    """The number of calls of a candidate's functions, in a file in memory.

    The judge counts them, the supervisor of the candidate's box reads the number and says which call was too long. The
    candidate has no access to it.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def begin_one(self) -> None:
        """Count a call that begins."""
        os.pwrite(self._descriptor, (self.number + 1).to_bytes(8, "little"), 0)

    @property
    def number(self) -> int:
        """The calls that began so far."""
        return int.from_bytes(os.pread(self._descriptor, 8, 0), "little")

    def mark_late(self) -> None:
        """Record that the latest call took too long."""
        os.pwrite(self._descriptor, b"\1", 8)

    @property
    def is_late(self) -> bool:
        """Whether the latest call took too long."""
        return os.pread(self._descriptor, 1, 8) == b"\1"


class CallWatch:
    """Checks whether a call in another process has used too much processor time."""

    def __init__(self, process: int, calls: Calls, limit_s: float) -> None:
        self._process = process
        self._calls = calls
        self._limit_s = limit_s
        self._number = 0
        self._used_before = 0.0

    def is_late(self) -> bool:
        """Check the time, and notify the judge. Call it every CHECK_S; time before a call's first check is free."""
        number = self._calls.number
        try:
            used = seconds_used(self._process)
        except OSError:
            return False
        if number != self._number:
            self._number, self._used_before = number, used
        is_late = number > 0 and used - self._used_before > self._limit_s
        if is_late:
            self._calls.mark_late()
        return is_late
