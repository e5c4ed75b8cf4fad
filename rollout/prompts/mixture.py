"""Several tasks as one source of problems. No held-out problem of one is a training problem of another."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import NamedTuple

from rollout.prompts.config import PromptsConfig
from rollout.tasks.base import MAX_DRAWS, Problem


class Draw(NamedTuple):
    """A problem, and the name of the entry of `prompts.mixture` that it comes from."""

    name: str
    problem: Problem


class Mixture:
    """The sources of all tasks, each with a position of its own."""

    def __init__(self, config: PromptsConfig, held_out_weights: Mapping[str, float]) -> None:
        """Divide `num_held_out` among the tasks by `held_out_weights`.

        Raises ValueError when a source has too few problems.
        """
        self._seed = config.seed
        self._tasks = {name: entry.task for name, entry in config.tasks.items()}
        counts = shares(config.num_held_out, {name: held_out_weights.get(name, 0.0) for name in config.tasks})
        self._sources = {name: entry.source(counts[name], config.seed) for name, entry in config.tasks.items()}
        self.held_out = [Draw(name, problem) for name, source in self._sources.items() for problem in source.held_out]
        # Entries of one task may overlap: a problem held out of one must not be trained on as another's.
        self._held_out_keys = {(self._tasks[name], problem.key) for name, problem in self.held_out}
        self._indices = dict.fromkeys(self._sources, 0)

    def draw(self, position: int, weights: Mapping[str, float], is_dropped: Callable[[str, str], bool]) -> Draw:
        """Return the problem for a position of the run, of an entry chosen by `weights`.

        `is_dropped(name, key)` says of a listed problem whether it is left out. Raises NothingLeftError when all the
        problems of the entry are held out or left out.
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

    def is_listed(self, name: str) -> bool:
        """Return whether the entry's source lists its problems, so that they come again and can be dropped."""
        return self._sources[name].num_problems is not None

    def state(self) -> dict[str, int]:
        """Return the position of each source, by the entry's name."""
        return dict(self._indices)

    def restore(self, state: Mapping[str, int]) -> None:
        self._indices.update(state)


class NothingLeftError(ValueError):
    """Every problem of an entry is held out or was dropped."""

    def __init__(self, name: str) -> None:
        super().__init__(
            f"no problem of {name!r} is left to train on: those that are not held out for another entry of the mixture "
            "were dropped as solved. Lower prompts.num_held_out, raise prompts.curriculum.drop_solved_after, or add "
            "problems"
        )
        self.name = name


def shares(total: int, weights: Mapping[str, float]) -> dict[str, int]:
    """Divide `total` in proportion to the weights, by largest remainder."""
    scale = total / sum(weights.values())
    counts = {name: int(weight * scale) for name, weight in weights.items()}
    by_remainder = sorted(weights, key=lambda name: counts[name] - weights[name] * scale)
    for name in by_remainder[: total - sum(counts.values())]:
        counts[name] += 1
    return counts
