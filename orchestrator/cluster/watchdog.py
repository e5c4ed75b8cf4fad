"""Log what is still pending when there was no progress for a while."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

logger = logging.getLogger(__name__)

QUIET_S = 60.0
"""Seconds without progress before it logs a line, and from one line to the next."""


class Watchdog:
    """Logs what is still pending. The waiting code calls `look` often, and has its own deadlines."""

    def __init__(self, waiting_for: Callable[[], str], quiet_s: float = QUIET_S) -> None:
        """`waiting_for` completes the sentence `waiting for …`."""
        self._waiting_for = waiting_for
        self._quiet_s = quiet_s
        self._moved = self._spoke = time.monotonic()

    @property
    def quiet_for_s(self) -> float:
        """Seconds since the last progress."""
        return time.monotonic() - self._moved

    def moved(self) -> None:
        """Note progress."""
        self._moved = self._spoke = time.monotonic()

    def look(self) -> None:
        """Log a line if there was no progress for long enough."""
        if time.monotonic() - self._spoke >= self._quiet_s:
            self._spoke = time.monotonic()
            logger.warning("nothing has moved for %.0f s: waiting for %s", self.quiet_for_s, self._waiting_for())
