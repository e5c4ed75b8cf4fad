"""log.txt of a run."""

from __future__ import annotations

import logging
import sys
from contextlib import suppress
from pathlib import Path


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
