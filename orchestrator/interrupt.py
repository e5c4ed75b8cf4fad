"""Handle Ctrl-C and SIGTERM: finish the step, save a checkpoint, exit. A warm start saves nothing.

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
        self._has_begun = self._saves = False

    def __enter__(self) -> Self:
        self._previous = {number: signal.signal(number, self._on_signal) for number in SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def begin(self, *, saves: bool = True) -> None:
        """Let the first signal from now on finish the step. `saves`: whether a checkpoint is saved after it."""
        self._has_begun, self._saves = True, saves

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self.requested or not self._has_begun:
            raise KeyboardInterrupt
        self.requested = True
        message = f"{signal.Signals(number).name}: " + (
            "finishing this step, then saving a checkpoint. Another signal exits at once, without saving."
            if self._saves
            else "finishing this step of the warm start, of which nothing is saved: the same command begins it again. "
            "Another signal exits at once."
        )
        self._console.print(message, style="yellow")
        logger.warning("%s", message)  # views of the run read the log
