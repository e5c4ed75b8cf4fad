"""Environments for tests of turns: what they say has words of the policy of countdown-tiny."""

from __future__ import annotations

import time

from rollout.types.environments import Observation
from rollout.types.prompts import Prompt


class Lines:
    """Lets the policy search Countdown's solution: each line that it gives up is followed by the start of another."""

    stop = (" no\n",)
    parts = ("lines",)

    def __init__(self, longest: int = 3, seconds: float = 0.0) -> None:
        """End a completion after so many lines, and think so long about each, seconds."""
        self._longest = longest
        self._seconds = seconds
        self._lines = 0

    def start(self, prompt: Prompt, seed: int) -> Observation:
        return Observation("")

    def step(self, text: str) -> Observation:
        time.sleep(self._seconds)
        self._lines += 1
        is_over = self._lines == self._longest or not text.endswith(self.stop)
        return Observation("9-3=6: ", is_over, {"lines": float(self._lines)})

    def close(self) -> None:
        """Hold nothing."""
