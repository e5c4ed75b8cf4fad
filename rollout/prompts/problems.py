"""What a task's module hands to the prompt stream."""

from __future__ import annotations

import random
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True, slots=True)
class Problem:
    """A question before it is worded."""

    fields: Mapping[str, str]
    """Named fields of the prompt template."""
    answer: Mapping[str, Any]
    """What the reward needs."""


class ProblemSource(Protocol):
    """Where a task's problems come from. Train and held-out problems are disjoint."""

    @property
    def held_out(self) -> Sequence[Problem]:
        """The problems kept aside for evaluation."""
        ...

    def train(self, index: int) -> Problem:
        """The problem at a position of the endless, shuffled training order. The same index, the same problem."""
        ...


MAX_DRAWS = 10_000
"""Draws without a problem that will do after which the settings are declared impossible."""


class DrawnProblems:
    """Problems drawn at random; one like a held-out problem is drawn again.

    Args:
        draw: a problem; the same state of the random generator, the same problem.
        key: what makes two problems the same.
        widen: how a recipe gets more different problems, for the error when there are too few.
    """

    def __init__(
        self,
        draw: Callable[[random.Random], Problem],
        key: Callable[[Problem], Hashable],
        num_held_out: int,
        seed: int,
        widen: str,
    ) -> None:
        self._draw = draw
        self._key = key
        self._seed = seed
        self._widen = widen
        self._held_out_keys: set[Hashable] = set()
        self.held_out: list[Problem] = []
        rng = random.Random(f"held_out/{seed}")
        for _ in range(num_held_out):
            self.held_out.append(self.draw(rng))
            self._held_out_keys.add(key(self.held_out[-1]))

    def train(self, index: int) -> Problem:
        return self.draw(random.Random(f"train/{self._seed}/{index}"))

    def draw(self, rng: random.Random) -> Problem:
        """A problem that is not held out. Raises ValueError when there seems to be none."""
        for _ in range(MAX_DRAWS):
            problem = self._draw(rng)
            if self._key(problem) not in self._held_out_keys:
                return problem
        raise ValueError(
            f"prompts.num_held_out = {len(self._held_out_keys)} leaves no problem to train on: lower it, or {self._widen}"
        )
