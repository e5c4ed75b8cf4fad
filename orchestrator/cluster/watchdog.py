"""Says who waits for whom when nothing has moved for a while."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

logger = logging.getLogger(__name__)

QUIET_S = 60.0
"""Seconds without any movement before it speaks; after that it speaks as often again."""


class Watchdog:
    """Looked at by whoever waits. It only speaks: deadlines are the waiter's own."""

    def __init__(self, waiting_for: Callable[[], str], quiet_s: float = QUIET_S) -> None:
        """`waiting_for` completes the sentence `waiting for …`."""
        self._waiting_for = waiting_for
        self._quiet_s = quiet_s
        self._moved = self._spoke = time.monotonic()

    @property
    def quiet_for_s(self) -> float:
        """Seconds since something moved."""
        return time.monotonic() - self._moved

    def moved(self) -> None:
        self._moved = self._spoke = time.monotonic()

    def look(self) -> None:
        """Log a line if it is time for one."""
        if time.monotonic() - self._spoke >= self._quiet_s:
            self._spoke = time.monotonic()
            logger.warning("nothing has moved for %.0f s: waiting for %s", self.quiet_for_s, self._waiting_for())
