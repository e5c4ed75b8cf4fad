"""Several tasks as one source of problems. No held-out problem of one is a training problem of another."""

from __future__ import annotations

import random
from collections.abc import Callable, Container, Iterator, Mapping
from itertools import islice
from typing import NamedTuple

from rollout.problems.drawn import MAX_DRAWS, DrawnProblems
from rollout.problems.listed import ListedProblems, SplitRule
from rollout.problems.problem import Problem, ProblemSource
from rollout.prompts.config import PromptsConfig
from rollout.prompts.held_out import HeldOutQuestions

MAX_REDRAWS = 1_000
"""Number of problems drawn to replace an unusable one, after which the settings are refused as impossible."""


class Draw(NamedTuple):
    """A problem, and the name of the entry of `prompts.mixture` that it comes from."""

    name: str
    problem: Problem


class Mixture:
    """The sources of all tasks, each with its own position."""

    def __init__(self, config: PromptsConfig, rule: SplitRule = "by_key") -> None:
        """Divide `num_held_out` among the tasks by their shares at the end of the run.

        Args:
            rule: how held-out problems are chosen, and known again in other entries. With `by_position`, as earlier
                versions did, only entries of the same task and key are compared.

        Raises ValueError when a source has too few problems.
        """
        self.rule = rule
        self._seed = config.seed
        self._tasks = config.tasks
        counts = shares(config.num_held_out, {name: config.last_weights.get(name, 0.0) for name in config.tasks})
        self.sources: dict[str, ProblemSource] = {}
        for name, entry in config.tasks.items():
            self.sources[name] = source = entry.source(counts[name], config.seed, by_shown=rule == "by_key")
            if isinstance(source, ListedProblems) and rule != "by_key":
                source.split(rule)
        self._held_out = {name: list(source.held_out) for name, source in self.sources.items()}
        self._unusable: dict[str, Container[str]] = {}
        self._indices = dict.fromkeys(self.sources, 0)
        self._note_keys()

    @property
    def held_out(self) -> list[Draw]:
        """The held-out problems that can be used, entry by entry."""
        return [
            Draw(name, problem)
            for name, problems in self._held_out.items()
            for problem in problems
            if problem.key not in self._unusable.get(name, ())
        ]

    def leave_out(self, unusable: Mapping[str, Container[str]]) -> None:
        """Leave out problems with these keys, given by entry. The held-out problems stay the same."""
        self._unusable = dict(unusable)

    def hold_out_others(self, name: str, fault_of: Callable[[Problem], str | None]) -> Iterator[Problem]:
        """Replace each unusable held-out problem by another one, and yield the unusable ones.

        Only where problems are drawn; of a list there are no more. Raises NoneFitsError when MAX_REDRAWS others cannot
        be used either.
        """
        source = self.sources[name]
        if not isinstance(source, DrawnProblems):
            return
        for position, problem in enumerate(self._held_out[name]):
            fault = fault_of(problem)
            if fault is None:
                continue
            yield problem
            keys = {held_out.key for held_out in self._held_out[name]}
            others = islice(source.instead_of(position), MAX_REDRAWS)
            other = next((found for found in others if found.key not in keys and fault_of(found) is None), None)
            if other is None:
                raise NoneFitsError(name, fault)
            self._held_out[name][position] = other
        self._note_keys()

    def draw(self, position: int, weights: Mapping[str, float], is_dropped: Callable[[str, str], bool]) -> Draw:
        """Return the problem for a position of the run, of an entry chosen by `weights`.

        `is_dropped(name, key)` says of a listed problem whether it is left out. Raises NothingLeftError when all the
        problems of the entry are held out or left out.
        """
        names = [name for name in self.sources if weights.get(name, 0.0) > 0]
        name = names[0]
        if len(names) > 1:
            rng = random.Random(f"mixture/{self._seed}/{position}")
            name = rng.choices(names, [weights[name] for name in names])[0]
        source, unusable = self.sources[name], self._unusable.get(name, ())
        for _ in range(MAX_DRAWS if source.num_problems is None else 2 * source.num_problems):
            problem = source.train(self._indices[name])
            self._indices[name] += 1
            if problem.key in unusable or self._is_held_out(name, problem):
                continue
            if not (self.is_listed(name) and is_dropped(name, problem.key)):
                return Draw(name, problem)
        raise NothingLeftError(name)

    def is_listed(self, name: str) -> bool:
        """Return whether the entry's source lists its problems, so that they repeat and can be dropped."""
        return self.sources[name].num_problems is not None

    def state(self) -> dict[str, int]:
        """Return the position of each source, by the entry's name."""
        return dict(self._indices)

    def restore(self, state: Mapping[str, int]) -> None:
        self._indices.update(state)

    def _note_keys(self) -> None:
        self._keys = {(name, problem.key) for name, problems in self._held_out.items() for problem in problems}
        self._task_keys = {(self._tasks[name].task, key) for name, key in self._keys}
        self.questions = HeldOutQuestions(self._tasks, self.sources, self._held_out)

    def _is_held_out(self, name: str, problem: Problem) -> bool:
        if self.rule == "by_position":
            return (self._tasks[name].task, problem.key) in self._task_keys
        return (name, problem.key) in self._keys or self.questions.holds(self._tasks[name], problem)


class NothingLeftError(ValueError):
    """Every problem of an entry is held out or was dropped."""

    def __init__(self, name: str) -> None:
        super().__init__(
            f"no problem of {name!r} is left to train on: those that ask no held-out question were dropped as solved "
            "or cannot be used. Lower prompts.num_held_out, raise prompts.curriculum.drop_solved_after, or add problems"
        )
        self.name = name


class NoneFitsError(ValueError):
    """No drawn problem can be used."""

    def __init__(self, name: str, fault: str) -> None:
        super().__init__(
            f"{MAX_REDRAWS} problems of {name!r} were drawn, and none of them can be used. The last one: {fault}"
        )


def shares(total: int, weights: Mapping[str, float]) -> dict[str, int]:
    """Divide `total` in proportion to the weights, by largest remainder."""
    scale = total / sum(weights.values())
    counts = {name: int(weight * scale) for name, weight in weights.items()}
    by_remainder = sorted(weights, key=lambda name: counts[name] - weights[name] * scale)
    for name in by_remainder[: total - sum(counts.values())]:
        counts[name] += 1
    return counts
