"""What the kernel says about a process: /proc, in seconds and GiB."""

from __future__ import annotations

from pathlib import Path


def seconds_waited_for_cpu(pid: int) -> float:
    """How long a process was ready to run and did not, since it started. 0 when it is gone or the kernel does not say."""
    try:
        return int(Path(f"/proc/{pid}/schedstat").read_text().split()[1]) / 1e9
    except (OSError, IndexError, ValueError):
        return 0.0


def peak_memory_gib(pid: int) -> float:
    """Largest resident memory of a process so far, GiB. 0 when it is gone."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0.0
    kib = next((line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:")), "0")
    return int(kib) / 2**20
