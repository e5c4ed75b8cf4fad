"""Ask the kernel about processes, for the tests of the pool."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import psutil


def state(pid: int) -> str:
    """Return ``R``, ``S``, ``Z`` and so on; empty when there is no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return ""


def children(pid: int) -> list[int]:
    """Return processes that ``pid`` started and has not waited for, zombies too."""
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except (FileNotFoundError, ProcessLookupError):
        return []


def parent(pid: int) -> int:
    """Return its parent; 0 when there is no such process."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except (FileNotFoundError, ProcessLookupError):
        return 0


def command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def descendants(pid: int) -> list[int]:
    """Return all that it started, directly or not, by any of its threads."""
    try:
        return [process.pid for process in psutil.Process(pid).children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def wait_until(condition: Callable[[], bool], limit_s: float = 60.0) -> bool:
    end = time.monotonic() + limit_s
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


def is_gone(pid: int) -> bool:
    """Return whether it no longer runs; one that waits for its parent to notice does not."""
    return state(pid) in ("", "Z")


def fork_servers() -> dict[int, int]:
    """Return the process id of each -> that of the worker that started it.

    Their children look like them, but have them as parents; and so does the process that starts one and then ends,
    whose parent is the worker.
    """
    pids = [int(folder.name) for folder in Path("/proc").glob("[0-9]*")]
    lines = {pid: command(pid).split("\0") for pid in pids}
    servers = {pid: int(line[-2]) for pid, line in lines.items() if "fork_server.main()" in "".join(line[2:4])}
    return {pid: worker for pid, worker in servers.items() if parent(pid) not in {*servers, worker}}


def all_end(pids: list[int]) -> bool:
    return wait_until(lambda: all(is_gone(pid) for pid in pids))


def finished_pid() -> int:
    """Return the process id of a process that has ended."""
    process = subprocess.Popen(["true"])
    process.wait()
    return process.pid
