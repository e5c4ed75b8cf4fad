"""A run's log.txt, and the messages that are logged before the file exists."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from logging.handlers import MemoryHandler
from pathlib import Path

MAX_KEPT = 10_000
"""Most messages that are kept until a run directory is open."""


class LogFile(logging.FileHandler):
    """Appends to a file. Reports only once that the disk refuses: files that a run needs raise their own errors."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        self._has_reported = False

    def handleError(self, record: logging.LogRecord) -> None:
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            super().handleError(record)
        elif not self._has_reported:
            self._has_reported = True
            with suppress(OSError):  # stderr may be a file on the same disk
                print(f"{self.baseFilename} cannot be written: {error.strerror}", file=sys.stderr, flush=True)


@contextmanager
def kept_log() -> Iterator[list[logging.LogRecord]]:
    """Collect the messages that are logged before a run directory exists. Warnings are also shown."""
    root = logging.getLogger()
    kept, shown = MemoryHandler(capacity=MAX_KEPT, flushLevel=logging.CRITICAL + 1), logging.StreamHandler()
    shown.setLevel(logging.WARNING)
    root.setLevel(logging.INFO)
    for handler in (kept, shown):
        root.addHandler(handler)
    try:
        yield kept.buffer
    finally:
        for handler in (kept, shown):
            root.removeHandler(handler)
