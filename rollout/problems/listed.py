"""Problems from a list, such as the rows of a file: some are held out, the others are shuffled."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from functools import cached_property, lru_cache
from hashlib import blake2b
from typing import Literal, NamedTuple

from rollout.problems.problem import Problem

SplitRule = Literal["by_key", "by_position"]
"""How held-out problems are chosen. `by_key`: those of the smallest hashes of their keys, so that a row that is added
or removed moves at most one other, and the order of the rows decides nothing. `by_position`: at random among the rows,
as runs began before version 2 of a checkpoint's prompts; they keep to it."""


class RowFault(NamedTuple):
    """A row that gives no problem."""

    where: str
    """Its place, such as `rows.jsonl, line 3`."""
    reason: str
    """The rest of a sentence that begins with the place."""
    content: str
    """The row as text, independent of its place; for an unreadable row the reason."""

    @property
    def said(self) -> str:
        """The whole sentence."""
        return f"{self.where}{self.reason}"


class ListedProblems:
    """Problems from a list, shuffled again for each epoch. Problems with the key of a held-out one are left out.

    Args:
        problems: the problems to train on; several with the same key count once.
        num_held_out: how many problems to hold out.
        seed: decides the held-out problems and the training order.
        name: where the problems come from, for errors.
        held_out: the problems to hold some out of; None: `problems`.
        label: returns a held-out problem with what only evaluations need, such as a difficulty that takes time to tell.
        faults: the rows that made no problem.
        ungradable: the rows that are fine, and that no grader can grade.
    """

    def __init__(
        self,
        problems: Sequence[Problem],
        num_held_out: int,
        seed: int,
        name: str,
        held_out: Sequence[Problem] | None = None,
        label: Callable[[Problem], Problem] | None = None,
        faults: Sequence[RowFault] = (),
        ungradable: Sequence[RowFault] = (),
    ) -> None:
        """Raise ValueError when there are too few problems."""
        self.name = name
        self.as_read = problems
        self.held_out_as_read = held_out
        """None where the held-out problems are among `as_read`."""
        self.faults = faults
        self.ungradable = ungradable
        self._num_held_out = num_held_out
        self._seed = seed
        self._label = label
        self.split("by_key")

    def split(self, rule: SplitRule) -> None:
        """Choose the held-out problems. Raises ValueError when there are too few of them, or none is left."""
        candidates = self.as_read if self.held_out_as_read is None else self.held_out_as_read
        choose, distinct = (by_key, distinct_by_key) if rule == "by_key" else (by_position, distinct_by_position)
        chosen = choose(candidates, self._num_held_out, self._seed)
        train = [problem for problem in distinct(self.as_read, self._seed) if problem.key not in chosen]
        if len(chosen) < self._num_held_out or not train:
            different = len({problem.key for problem in candidates})
            count = f"{len(candidates)} rows" + f", {different} different problems" * (different < len(candidates))
            raise ValueError(
                f"{self.name} has {count}, too few for prompts.num_held_out = {self._num_held_out} and at least one to "
                "train on: lower it, or give more"
                + (f". {len(self.faults)} more cannot be used: {self.faults[0].said}" if self.faults else "")
            )
        self._chosen, self._train = list(chosen.values()), train
        self._shuffled = lru_cache(maxsize=1)(
            lambda epoch: random.Random(f"train/{self._seed}/{epoch}").sample(train, len(train))
        )
        self.__dict__.pop("held_out", None)

    @cached_property
    def held_out(self) -> list[Problem]:
        return [self._label(problem) for problem in self._chosen] if self._label else self._chosen

    @property
    def different(self) -> Sequence[Problem]:
        """The different problems to train on, in no particular order."""
        return self._train

    @property
    def num_problems(self) -> int:
        return len(self._train)

    def train(self, index: int) -> Problem:
        epoch, position = divmod(index, len(self._train))
        return self._shuffled(epoch)[position]


def by_key(problems: Sequence[Problem], count: int, seed: int) -> dict[str, Problem]:
    """Return the `count` problems whose keys have the smallest hashes, by key."""
    return {problem.key: problem for problem in distinct_by_key(problems, seed)[:count]}


def distinct_by_key(problems: Sequence[Problem], seed: int) -> list[Problem]:
    """Return one problem for each key, in the order of the keys' hashes, which does not depend on the order of rows."""
    found: dict[str, Problem] = {}
    for problem in problems:
        other = found.setdefault(problem.key, problem)
        if other is not problem and content(problem) < content(other):
            found[problem.key] = problem
    return sorted(found.values(), key=lambda problem: (digest(f"held_out/{seed}/{problem.key}"), problem.key))


def by_position(problems: Sequence[Problem], count: int, seed: int) -> dict[str, Problem]:
    """Return `count` problems at random positions, by key."""
    chosen: dict[str, Problem] = {}
    for position in random.Random(f"held_out/{seed}").sample(range(len(problems)), len(problems)):
        if len(chosen) == count:
            break
        chosen.setdefault(problems[position].key, problems[position])
    return chosen


def distinct_by_position(problems: Sequence[Problem], seed: int) -> list[Problem]:
    """Return the last problem of each key, in the order of the rows in which the keys first stand."""
    return list({problem.key: problem for problem in problems}.values())


def content(problem: Problem) -> str:
    """Return everything in a problem as text."""
    return json.dumps([dict(problem.fields), dict(problem.answer)], sort_keys=True, default=str)


def digest(text: str) -> bytes:
    """Return a hash of a text, 8 bytes. Half a character, which some files contain, is hashed too."""
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
