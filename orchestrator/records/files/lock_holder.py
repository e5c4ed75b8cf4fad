"""The process that a run's lock file names, distinguished from later processes with the same number."""

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
    """The process that a lock file names. Taking the lock to check whether it lives could make another start fail."""

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
        match = WRITTEN.fullmatch(text.strip())
        return cls() if match is None else cls(int(match[1]), match[2], int(match[3]) if match[3] else None)

    @property
    def shown(self) -> str:
        return "" if self.process is None else f"process {self.process} on {self.host}"

    @property
    def text(self) -> str:
        """The text of the lock file."""
        return self.shown if self.started is None else f"{self.shown}\nstarted {self.started}"

    @property
    def is_elsewhere(self) -> bool:
        """Whether the process is on another machine, so that its state is unknown here."""
        return self.process is not None and self.host != socket.gethostname()

    @property
    def lives(self) -> bool:
        """Whether this process lives on this machine. A later process with the same number does not count."""
        if self.process is None or self.is_elsewhere:
            return False
        started = start_of(self.process)
        return started is not None and self.started in (None, started)


def start_of(process: int) -> int | None:
    """Return when a process started, in clock ticks after its machine's start; None if it does not exist or has ended.

    /proc also has hidden folders for threads. Their `Tgid` is another number, so they are not processes.
    """
    folder = Path("/proc", str(process))
    try:
        # See proc(5): the name in brackets may contain anything. The state follows, and 19 fields later the start.
        state, *fields = (folder / "stat").read_text("utf-8", "replace").rpartition(")")[2].split()
        group = GROUP.search((folder / "status").read_text("utf-8", "replace"))
    except OSError:
        return None
    if state in "ZX" or group is None or int(group[1]) != process:
        return None
    return int(fields[18])
