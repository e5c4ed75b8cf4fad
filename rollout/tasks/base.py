"""What the module of a task holds, how it is found by its name, and the two sources of problems that tasks share."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol, cast

from pydantic import BaseModel

from rollout.types.names import nearest, short_name

PACKAGE = "rollout.tasks"
ANY_FIELD = "*"
"""Among a task's fields: a template may show any other field too."""
MAX_DRAWS = 10_000
"""Draws without a usable problem after which the settings are declared impossible."""


@dataclass(frozen=True, slots=True)
class Problem:
    """A question before it is put into words."""

    fields: Mapping[str, str]
    """Text for each named field of the prompt template."""
    answer: Mapping[str, Any]
    """What the grader needs, as JSON would hold it. By convention ``answer["answer"]`` is the reference answer."""
    key: str
    """Two problems of a task with the same key are the same. No training problem has the key of a held-out one."""
    difficulty: str = ""
    """A label that evaluations group by, such as ``level 4``."""


class ProblemSource(Protocol):
    """The problems of a task. Those to train on and the held-out ones are disjoint."""

    @property
    def held_out(self) -> Sequence[Problem]:
        """The problems kept aside for evaluation."""
        ...

    @property
    def num_problems(self) -> int | None:
        """The number of different problems to train on; None where they are endless."""
        ...

    def train(self, index: int) -> Problem:
        """Return the problem at a position of the endless, shuffled training order, always the same one."""
        ...


class WorkedExample(BaseModel, frozen=True, extra="forbid", use_attribute_docstrings=True):
    """A question with its answer, shown before the real question in the one-shot format."""

    fields: dict[str, str]
    """The example's fields of the template."""
    completion: str
    """The answer, from behind the assistant's prefix on. Where that prefix opens `<think>`, this closes it:
    `3 and 4 make 7.</think>\\n<answer>3 + 4</answer>`."""


class Task(Protocol):
    """The module of a task, such as rollout/tasks/countdown.py. Importing it loads nothing heavy.

    What a module may hold besides, and what it means where it is missing:

    - `GRADER: str`, the grader of its answers: a module of rewards/tasks by its name, or one of your own by its dotted
      path. Missing: the grader of the task's own name. A property `grader` of the settings comes before both.
    - `TRACES: str`, the dotted path of a module with `traces(prompts, config, seed)`, which yields pairs of a problem
      and a completion for a warm start to imitate. Missing: a warm start needs `warm_start.data`.
    - `check_traces(settings)` raises ValueError for problems that the traces are not made for. Missing: all will do.
    - `check_max_integer(settings, max_integer)` raises ValueError for problems with larger numbers than those that the
      tokenizer of `model.build` knows. Missing: all will do.
    - `read_question(question, answer, settings)` is the problem of a question that a user typed, and of the answer
      that may have come with it. It raises ValueError for text that is no question. Missing: the text fills the
      fields of the template, and the answer is the reference.
    - `source_showing(settings, num_held_out, seed, shown)` comes before `source`, for a task of ANY_FIELD: rows that
      differ in one of the fields `shown`, which the templates show, are different problems.
    - `EXAMPLE_QUESTION: str`, what to type. Missing: the end of a run does not suggest `rayzero solve`.
    """

    SETTINGS: type[BaseModel]
    """The settings of the recipe's section `[prompts.<task>]`; each has a default."""
    TEMPLATE: str
    """The question, which asks for `<think>` and `<answer>` tags, with the fields of a problem in braces."""
    NATURAL_TEMPLATE: str
    """The question without asking for tags."""
    EXAMPLE: WorkedExample

    def fields(self, settings: Any, /) -> tuple[tuple[str, ...], ...]:
        """Return the fields that a template may show, in groups: it must show at least one of each group."""
        ...

    def source(self, settings: Any, num_held_out: int, seed: int, /) -> ProblemSource:
        """Return the problems. Raises ValueError when there are too few of them, or a row is malformed."""
        ...


REQUIRED = ("SETTINGS", "TEMPLATE", "NATURAL_TEMPLATE", "EXAMPLE", "fields", "source")


@cache
def task_names() -> tuple[str, ...]:
    """Return the names of this package's tasks, sorted. They are read off the files, since importing all is slow."""
    files = Path(__file__).parent.glob("*.py")
    return tuple(
        sorted(file.stem for file in files if re.search(r"^SETTINGS = ", file.read_text("utf-8"), re.MULTILINE))
    )


@cache
def load_task(task: str) -> Task:
    """Import the module of a task: one of this package by its name, or one of your own by its dotted path.

    Raises ValueError when there is none, or when it lacks something that a task needs.
    """
    if "." not in task:
        if task not in task_names():
            raise ValueError(
                f"there is no task {task!r} (one of your own is named by its module, such as my_package.my_task); "
                f"{nearest(task, task_names())}"
            )
        return cast(Task, import_module(f"{PACKAGE}.{task}"))
    if short_name(task) in task_names():
        raise ValueError(f"{task!r} has the last name of one of rayzero's own tasks: rename the module")
    try:
        module = import_module(task)
    except ImportError as error:
        raise ValueError(
            f"{task!r} cannot be imported ({error}): install its package, or put the folder that holds it on PYTHONPATH"
        ) from error
    if missing := [name for name in REQUIRED if not hasattr(module, name)]:
        raise ValueError(f"{task!r} has no {', '.join(missing)}: docs/tasks.md says what the module of a task holds")
    return cast(Task, module)


class DrawnProblems:
    """Problems drawn at random. A problem with the key of a held-out one is drawn again.

    Args:
        draw: returns a problem, which depends on nothing but the state of the random generator.
        num_held_out: how many problems to hold out.
        seed: decides the held-out problems and the training order.
        widen: how a recipe gets more different problems, for the error when there are too few.
        draw_held_out: returns a held-out problem, where those are drawn in another way.
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
        """Draw a problem that is not held out. Raises ValueError when there seems to be none."""
        return self._fresh(self._draw, rng)

    def _fresh(self, draw: Callable[[random.Random], Problem], rng: random.Random) -> Problem:
        for _ in range(MAX_DRAWS):
            problem = draw(rng)
            if problem.key not in self._held_out_keys:
                return problem
        raise ValueError(
            f"besides {len(self._held_out_keys)} held-out problems (prompts.num_held_out, or a mixture entry's share "
            f"of it) there is no other: lower it, or {self._widen}"
        )


class ListedProblems:
    """Problems out of a list, shuffled anew for each epoch. Those with the key of a held-out one are left out.

    Args:
        problems: the problems to train on; several with the same key count once.
        num_held_out: how many problems to hold out.
        seed: decides the held-out problems and the training order.
        name: where the problems come from, for errors.
        held_out: the problems to hold some out of; None: `problems`.
    """

    def __init__(
        self,
        problems: Sequence[Problem],
        num_held_out: int,
        seed: int,
        name: str,
        held_out: Sequence[Problem] | None = None,
    ) -> None:
        """Raise ValueError when there are too few problems."""
        candidates = problems if held_out is None else held_out
        chosen: dict[str, Problem] = {}
        for position in random.Random(f"held_out/{seed}").sample(range(len(candidates)), len(candidates)):
            if len(chosen) == num_held_out:
                break
            chosen.setdefault(candidates[position].key, candidates[position])
        self.held_out = list(chosen.values())
        self._train = list({problem.key: problem for problem in problems if problem.key not in chosen}.values())
        if len(chosen) < num_held_out or not self._train:
            different = len({problem.key for problem in candidates})
            count = f"{len(candidates)} rows" + f", {different} different problems" * (different < len(candidates))
            raise ValueError(
                f"{name} has {count}, too few for prompts.num_held_out = {num_held_out} and at least one to train on: "
                "lower it, or give more"
            )
        self.num_problems = len(self._train)
        self._shuffled = lru_cache(maxsize=1)(
            lambda epoch: random.Random(f"train/{seed}/{epoch}").sample(self._train, len(self._train))
        )

    def train(self, index: int) -> Problem:
        epoch, position = divmod(index, len(self._train))
        return self._shuffled(epoch)[position]
