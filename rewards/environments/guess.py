"""A number game that takes several turns: `<guess>50</guess>` is answered by `<hint>higher</hint>`."""

from __future__ import annotations

import random
from math import inf
from typing import ClassVar

from rewards.environments.calls import called
from rollout.types.environments import Observation
from rollout.types.prompts import Prompt


class Guess:
    """Chooses a number, the same for all completions of a prompt, so that their rewards can be compared.

    With the task `game` the problem has the number; with other tasks it is computed from the prompt's id.
    """

    stop = ("</guess>",)
    parts = ("guessed", "guesses")
    ranges: ClassVar = {"highest": (1, inf), "most": (0, inf)}

    def __init__(self, highest: int = 100, most: int = 0) -> None:
        """Choose a number from 1 to `highest`. The game is over after `most` guesses; 0: no limit."""
        self._highest = highest
        self._most = most
        self._number = 0
        self._guesses = 0

    def start(self, prompt: Prompt, seed: int) -> Observation:
        """Return the range of the number."""
        if prompt.grader == "guess":
            self._number, self._highest = prompt.answer["number"], prompt.answer["highest"]
        else:
            self._number = random.Random(prompt.id).randint(1, self._highest)
        return Observation(f"<hint>1 to {self._highest}</hint>")

    def step(self, text: str) -> Observation:
        """Compare the number that a turn ends with. A turn without one ends the game."""
        guess = (called(text, "guess") or "").strip()
        if not (guess.isascii() and guess.isdecimal() and len(guess) <= len(str(self._highest))):
            return Observation("", is_over=True, parts=self._parts(False))
        self._guesses += 1
        if int(guess) == self._number:
            return Observation("<hint>right</hint>", is_over=True, parts=self._parts(True))
        hint = "higher" if int(guess) < self._number else "lower"
        return Observation(f"<hint>{hint}</hint>", is_over=self._guesses == self._most, parts=self._parts(False))

    def close(self) -> None:
        """Do nothing."""

    def _parts(self, guessed: bool) -> dict[str, float]:
        return {"guessed": float(guessed), "guesses": float(self._guesses)}
