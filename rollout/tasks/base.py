"""What a task's module hands to the prompt stream."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol

from pydantic import BaseModel


@dataclass(frozen=True, slots=True)
class Problem:
    """A question before it is worded."""

    fields: Mapping[str, str]
    """Named fields of the prompt template."""
    answer: Mapping[str, Any]
    """What the reward needs, as JSON would hold it. By convention ``answer["answer"]`` is the reference answer."""
    key: str
    """What makes two problems of a task the same. No training problem has the key of a held-out one."""
    difficulty: str = ""
    """A label that evaluations group by, such as ``level 4``."""


class ProblemSource(Protocol):
    """Where a task's problems come from. Train and held-out problems are disjoint."""

    @property
    def held_out(self) -> Sequence[Problem]:
        """The problems kept aside for evaluation."""
        ...

    @property
    def num_problems(self) -> int | None:
        """How many different ones there are to train on; None: no end of them."""
        ...

    def train(self, index: int) -> Problem:
        """The problem at a position of the endless, shuffled training order. The same index, the same problem."""
        ...


class WorkedExample(BaseModel, frozen=True, extra="forbid", use_attribute_docstrings=True):
    """A question with its answer, shown before the real question in the one-shot format."""

    fields: dict[str, str]
    """The example's fields of the template."""
    completion: str
    """What follows the assistant's prefix. Where that opens `<think>`, it goes on from there:
    `3 and 4 make 7.</think>\\n<answer>3 + 4</answer>`."""


MAX_DRAWS = 10_000
"""Draws without a problem that will do after which the settings are declared impossible."""


class DrawnProblems:
    """Problems drawn at random; one like a held-out problem is drawn again.

    Args:
        draw: a problem; the same state of the random generator, the same problem.
        widen: how a recipe gets more different problems, for the error when there are too few.
        draw_held_out: a held-out problem, where those are drawn otherwise.
    """

    num_problems = None

    def __init__(
        self,
        draw: Callable[[random.Random], Problem],
        num_held_out: int,
        seed: int,
        widen: str,
        draw_held_out: Callable[[random.Random], Problem] | None = None,
    ) -> None:
        self._draw = draw
        self._seed = seed
        self._widen = widen
        self._held_out_keys: set[str] = set()
        self.held_out: list[Problem] = []
        rng = random.Random(f"held_out/{seed}")
        for _ in range(num_held_out):
            self.held_out.append(self._fresh(draw_held_out or draw, rng))
            self._held_out_keys.add(self.held_out[-1].key)

    def train(self, index: int) -> Problem:
        return self.draw(random.Random(f"train/{self._seed}/{index}"))

    def draw(self, rng: random.Random) -> Problem:
        """A problem that is not held out. Raises ValueError when there seems to be none."""
        return self._fresh(self._draw, rng)

    def _fresh(self, draw: Callable[[random.Random], Problem], rng: random.Random) -> Problem:
        for _ in range(MAX_DRAWS):
            problem = draw(rng)
            if problem.key not in self._held_out_keys:
                return problem
        raise ValueError(
            f"besides {len(self._held_out_keys)} held-out problems (prompts.num_held_out, or a kind's share of it) there is "
            f"no other: lower it, or {self._widen}"
        )


class ListedProblems:
    """Problems out of a list: each once an epoch, shuffled anew, all those like a held-out one left out.

    Args:
        problems: those to train on, and to hold some out of.
        name: where they come from, for errors.
        held_out: a split of their own to hold problems out of; None: `problems`.
    """

    def __init__(
        self,
        problems: Sequence[Problem],
        num_held_out: int,
        seed: int,
        name: str,
        held_out: Sequence[Problem] | None = None,
    ) -> None:
        """Raises ValueError when there are too few."""
        candidates = problems if held_out is None else held_out
        chosen: dict[str, Problem] = {}
        for position in random.Random(f"held_out/{seed}").sample(range(len(candidates)), len(candidates)):
            if len(chosen) == num_held_out:
                break
            chosen.setdefault(candidates[position].key, candidates[position])
        self.held_out = list(chosen.values())
        self._train = list({problem.key: problem for problem in problems if problem.key not in chosen}.values())
        if len(chosen) < num_held_out or not self._train:
            raise ValueError(
                f"{name} has {len(candidates)} rows, too few for prompts.num_held_out = {num_held_out} and at "
                "least one to train on: lower it"
            )
        self.num_problems = len(self._train)
        self._shuffled = lru_cache(maxsize=1)(
            lambda epoch: random.Random(f"train/{seed}/{epoch}").sample(self._train, len(self._train))
        )

    def train(self, index: int) -> Problem:
        epoch, position = divmod(index, len(self._train))
        return self._shuffled(epoch)[position]
