"""What the kernel says of another process: its CPU time, its waiting, its memory."""

from __future__ import annotations

import math
from pathlib import Path
from typing import NamedTuple

from rewards.sandbox.processor import seconds_used


class CpuTimes(NamedTuple):
    """Seconds that a process has run, and for which it was ready to run and did not."""

    used: float
    waited: float

    @classmethod
    def of(cls, pid: int) -> CpuTimes:
        """Return those of a process since it started; it has run for ever when it is gone."""
        try:
            used = seconds_used(pid)
        except OSError:
            used = math.inf
        return cls(used, seconds_waited_for_cpu(pid))


def seconds_waited_for_cpu(pid: int) -> float:
    """Return for how long a process was ready to run and did not, since it started.

    0 when it is gone or the kernel does not say.
    """
    try:
        return int(Path(f"/proc/{pid}/schedstat").read_text().split()[1]) / 1e9
    except (OSError, IndexError, ValueError):
        return 0.0


def is_ready_to_run(pid: int) -> bool:
    """Return whether a process runs, or would if a CPU were free: it does not sleep. False when it is gone."""
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
