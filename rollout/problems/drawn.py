"""Problems drawn at random, endlessly."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from functools import cached_property

from rollout.problems.problem import Problem

MAX_DRAWS = 10_000
"""Number of draws without a usable problem after which the settings are refused as impossible."""


class DrawnProblems:
    """Problems drawn at random. A problem with the key of a held-out one is drawn again.

    Args:
        draw: returns a problem, which depends on nothing but the state of the random generator.
        num_held_out: how many problems to hold out.
        seed: decides the held-out problems and the training order.
        widen: how a recipe gets more different problems, for the error when there are too few.
        draw_held_out: returns a held-out problem, where those are drawn in another way.
        label: returns a held-out problem with what only evaluations need, such as a difficulty that takes time to tell.
    """

    num_problems = None

    def __init__(
        self,
        draw: Callable[[random.Random], Problem],
        num_held_out: int,
        seed: int,
        widen: str,
        draw_held_out: Callable[[random.Random], Problem] | None = None,
        label: Callable[[Problem], Problem] | None = None,
    ) -> None:
        self._draw = draw
        self._draw_held_out = draw_held_out or draw
        self._seed = seed
        self._widen = widen
        self._label = label
        self._held_out_keys: set[str] = set()
        self._held_out: list[Problem] = []
        rng = random.Random(f"held_out/{seed}")
        for _ in range(num_held_out):
            self._held_out.append(self._fresh(self._draw_held_out, rng))
            self._held_out_keys.add(self._held_out[-1].key)

    @cached_property
    def held_out(self) -> list[Problem]:
        return [self._label(problem) for problem in self._held_out] if self._label else self._held_out

    def train(self, index: int) -> Problem:
        return self.draw(random.Random(f"train/{self._seed}/{index}"))

    def draw(self, rng: random.Random) -> Problem:
        """Draw a problem that is not held out. Raises ValueError after too many draws without one."""
        return self._fresh(self._draw, rng)

    def instead_of(self, position: int) -> Iterator[Problem]:
        """Yield problems that may be held out in place of the one at that position, the same ones every time."""
        rng = random.Random(f"held_out/{self._seed}/{position}")
        while True:
            problem = self._fresh(self._draw_held_out, rng)
            yield self._label(problem) if self._label else problem

    def _fresh(self, draw: Callable[[random.Random], Problem], rng: random.Random) -> Problem:
        for _ in range(MAX_DRAWS):
            problem = draw(rng)
            if problem.key not in self._held_out_keys:
                return problem
        raise ValueError(
            f"besides {len(self._held_out_keys)} held-out problems (prompts.num_held_out, or a mixture entry's share "
            f"of it) there is no other: lower it, or {self._widen}"
        )
