"""log.txt of a run, and what is logged before there is one."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from logging.handlers import MemoryHandler
from pathlib import Path

MAX_KEPT = 10_000
"""Messages of before a run directory is open that are kept for its log."""


class LogFile(logging.FileHandler):
    """Appends to a file. Reports only once that the disk refuses: files that a run needs raise their own errors."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        self._has_told = False

    def handleError(self, record: logging.LogRecord) -> None:
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            super().handleError(record)
        elif not self._has_told:
            self._has_told = True
            with suppress(OSError):  # which may be a file of the same disk
                print(f"{self.baseFilename} cannot be written: {error.strerror}", file=sys.stderr, flush=True)


@contextmanager
def kept_log() -> Iterator[list[logging.LogRecord]]:
    """Keep what is logged before there is a run directory. Warnings are also shown."""
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
