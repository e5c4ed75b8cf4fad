"""Handle Ctrl-C and SIGTERM: finish the step, save a checkpoint, exit.

The second signal, or a signal before training, exits at once.
"""

from __future__ import annotations

import logging
import signal
from types import FrameType
from typing import Self

from rich.console import Console

logger = logging.getLogger(__name__)

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupt:
    """Handles signals in its context. After `begin` the first only sets `requested`; others raise KeyboardInterrupt."""

    def __init__(self, console: Console) -> None:
        self.requested = False
        self._console = console
        self._has_begun = False

    def __enter__(self) -> Self:
        self._previous = {number: signal.signal(number, self._on_signal) for number in SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def begin(self) -> None:
        """Declare that from now on there is something to save."""
        self._has_begun = True

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self.requested or not self._has_begun:
            raise KeyboardInterrupt
        self.requested = True
        message = (
            f"{signal.Signals(number).name}: finishing this step, then saving a checkpoint. "
            "Another signal exits at once, without saving."
        )
        self._console.print(message, style="yellow")
        logger.warning("%s", message)  # views of the run read the log
