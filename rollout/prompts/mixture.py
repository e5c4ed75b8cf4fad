"""Several kinds of questions as one source: whose turn it is, and no held-out problem of one among another's."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import NamedTuple

from rollout.prompts.config import PromptsConfig
from rollout.tasks.base import MAX_DRAWS, Problem
from rollout.tasks.registry import problem_source


class Draw(NamedTuple):
    """A problem, and the name in `prompts.mixture` of what it is an instance of."""

    name: str
    problem: Problem


class Mixture:
    """The sources of every kind of question, each with a position of its own."""

    def __init__(self, config: PromptsConfig, held_out_weights: Mapping[str, float]) -> None:
        """`held_out_weights` say how `num_held_out` is divided. Raises ValueError when a source has too few problems."""
        self._seed = config.seed
        self._tasks = {name: questions.task for name, questions in config.tasks.items()}
        counts = shares(config.num_held_out, {name: held_out_weights.get(name, 0.0) for name in config.tasks})
        self._sources = {
            name: problem_source(questions, counts[name], config.seed) for name, questions in config.tasks.items()
        }
        self.held_out = [Draw(name, problem) for name, source in self._sources.items() for problem in source.held_out]
        # Kinds of one task may overlap: a problem held out of one must not be trained on as another.
        self._held_out_keys = {(self._tasks[name], problem.key) for name, problem in self.held_out}
        self._indices = dict.fromkeys(self._sources, 0)

    def draw(self, position: int, weights: Mapping[str, float], is_dropped: Callable[[str, str], bool]) -> Draw:
        """The problem for a position of the run.

        `is_dropped(kind, key)` is asked of those that a source lists. Raises ValueError when all are held out or dropped.
        """
        names = [name for name in self._sources if weights.get(name, 0.0) > 0]
        name = names[0]
        if len(names) > 1:
            rng = random.Random(f"mixture/{self._seed}/{position}")
            name = rng.choices(names, [weights[name] for name in names])[0]
        source = self._sources[name]
        for _ in range(MAX_DRAWS if source.num_problems is None else 2 * source.num_problems):
            problem = source.train(self._indices[name])
            self._indices[name] += 1
            is_held_out = (self._tasks[name], problem.key) in self._held_out_keys
            if not is_held_out and not (self.is_listed(name) and is_dropped(name, problem.key)):
                return Draw(name, problem)
        raise NothingLeftError(name)

    def is_listed(self, kind: str) -> bool:
        """Whether its source lists its problems, so that they come again and can be dropped."""
        return self._sources[kind].num_problems is not None

    def state(self) -> dict[str, int]:
        """Positions by kind."""
        return dict(self._indices)

    def restore(self, state: Mapping[str, int]) -> None:
        self._indices.update(state)


class NothingLeftError(ValueError):
    """Every problem of a kind is held out or was dropped."""

    def __init__(self, kind: str) -> None:
        super().__init__(
            f"no problem of {kind!r} is left to train on: those that are not held out for another kind were dropped as "
            "solved. Lower prompts.num_held_out, raise prompts.curriculum.drop_solved_after, or add problems"
        )
        self.kind = kind


def shares(total: int, weights: Mapping[str, float]) -> dict[str, int]:
    """`total` divided in proportion to the weights, by largest remainder."""
    scale = total / sum(weights.values())
    counts = {name: int(weight * scale) for name, weight in weights.items()}
    by_remainder = sorted(weights, key=lambda name: counts[name] - weights[name] * scale)
    for name in by_remainder[: total - sum(counts.values())]:
        counts[name] += 1
    return counts
