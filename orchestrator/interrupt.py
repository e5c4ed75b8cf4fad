"""Ctrl-C and SIGTERM: finish the step, save a checkpoint, leave. Twice, or before there is a step: leave at once."""

from __future__ import annotations

import logging
import signal
from types import FrameType
from typing import Self

from rich.console import Console

logger = logging.getLogger(__name__)

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupt:
    """Handles signals while entered. After `begin` the first only sets `requested`; others raise KeyboardInterrupt."""

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
        """Note that there is something to save from now on."""
        self._has_begun = True

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self.requested or not self._has_begun:
            raise KeyboardInterrupt
        self.requested = True
        said = (
            f"{signal.Signals(number).name}: finishing this step, then saving a checkpoint. "
            "Another signal exits at once, without one."
        )
        self._console.print(said, style="yellow")
        logger.warning("%s", said)  # where a view of the run looks
