"""The process that trains a run, as its lock file names it, distinguished from later processes with the same number."""

from __future__ import annotations

import os
import re
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Self

WRITTEN = re.compile(r"process (\d{1,10}) on ([^\n]+)(?:\nstarted (\d{1,20}))?")
GROUP = re.compile(r"^Tgid:\s*(\d+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class LockHolder:
    """The process that a lock file names. Taking the lock to see whether the process lives would disturb a start."""

    process: int | None = None
    """None if the file names no process."""
    host: str = ""
    started: int | None = None
    """When it started, in clock ticks after the machine's start. None in files of earlier versions."""

    @classmethod
    def this(cls) -> Self:
        return cls(os.getpid(), socket.gethostname(), start_of(os.getpid()))

    @classmethod
    def read(cls, text: str) -> Self:
        """Return the holder that the text of a lock file names."""
        found = WRITTEN.fullmatch(text.strip())
        return cls() if found is None else cls(int(found[1]), found[2], int(found[3]) if found[3] else None)

    @property
    def shown(self) -> str:
        return "" if self.process is None else f"process {self.process} on {self.host}"

    @property
    def text(self) -> str:
        """The text of the lock file."""
        return self.shown if self.started is None else f"{self.shown}\nstarted {self.started}"

    @property
    def is_elsewhere(self) -> bool:
        """Whether it is a process on another machine, about which nothing is known here."""
        return self.process is not None and self.host != socket.gethostname()

    @property
    def lives(self) -> bool:
        """Whether this process, and not a later one with its number, lives on this machine."""
        if self.process is None or self.is_elsewhere:
            return False
        started = start_of(self.process)
        return started is not None and self.started in (None, started)


def start_of(process: int) -> int | None:
    """Return when a process started, in clock ticks after its machine's start; None for no process, or an ended one.

    /proc has unlisted folders for threads too: their `Tgid` is another number.
    """
    folder = Path("/proc", str(process))
    try:
        # See proc(5): the name in brackets may hold anything; the state follows it, and 19 fields on, the start.
        state, *fields = (folder / "stat").read_text("utf-8", "replace").rpartition(")")[2].split()
        group = GROUP.search((folder / "status").read_text("utf-8", "replace"))
    except OSError:
        return None
    if state in "ZX" or group is None or int(group[1]) != process:
        return None
    return int(fields[18])
