"""The interface of a task's module, and how it is found by its name. A task's module can import what it needs here."""

from __future__ import annotations

import re
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol, cast

from pydantic import BaseModel

from rollout.problems.drawn import MAX_DRAWS as MAX_DRAWS
from rollout.problems.drawn import DrawnProblems as DrawnProblems
from rollout.problems.listed import ListedProblems as ListedProblems
from rollout.problems.problem import Problem as Problem
from rollout.problems.problem import ProblemSource as ProblemSource
from rollout.types.names import nearest, short_name

PACKAGE = "rollout.tasks"
ANY_FIELD = "*"
"""Marks, among a task's fields, that a template may show any other field too."""


class WorkedExample(BaseModel, frozen=True, extra="forbid", use_attribute_docstrings=True):
    """A question with its answer, shown before the real question in the one-shot format."""

    fields: dict[str, str]
    """The example's fields of the template."""
    completion: str
    """The answer, after the assistant's prefix. Where that prefix opens `<think>`, this closes it: `3 and 4 make
    7.</think>\\n<answer>3 + 4</answer>`."""


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
    - `EXAMPLE_QUESTION: str`, what to ask with `rayzero solve`. Missing: the end of a run suggests a held-out problem.
    """

    SETTINGS: type[BaseModel]
    """The settings of the recipe's section `[prompts.<task>]`; each has a default."""
    TEMPLATE: str
    """The question, which asks for `<think>` and `<answer>` tags, with the fields of a problem in braces."""
    NATURAL_TEMPLATE: str
    """The question that does not ask for tags."""
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
    """Return the sorted names of this package's tasks, from the file names: importing all is slow."""
    files = Path(__file__).parent.glob("*.py")
    return tuple(
        sorted(file.stem for file in files if re.search(r"^SETTINGS = ", file.read_text("utf-8"), re.MULTILINE))
    )


@cache
def load_task(task: str) -> Task:
    """Import the module of a task: one of this package by its name, or your own by its dotted path.

    Raises ValueError when there is none, or when it lacks something that a task needs.
    """
    if "." not in task:
        if task not in task_names():
            raise ValueError(
                f"there is no task {task!r} (name your own task by its module, such as my_package.my_task); "
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
