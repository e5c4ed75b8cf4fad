"""Task name -> its module, its problems and its traces.

A task is found by its file name, as its reward function is: `rollout/tasks/<task>.py` is a `Task`, and
`rollout/supervised/<task>.py`, if a warm start can do without data, has a function `traces`. So a new task touches
no list of tasks but the settings in rollout/prompts/config.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module, util
from typing import TYPE_CHECKING, Any, Protocol, cast

from pydantic import BaseModel

from rollout.tasks.base import Problem, ProblemSource, WorkedExample

if TYPE_CHECKING:
    from rollout.config import TracesConfig
    from rollout.prompts.config import PromptsConfig, TaskConfig

PACKAGE = "rollout.tasks"


class Task(Protocol):
    """What the module of a task has. Nothing heavy is imported with it."""

    Config: type[BaseModel]
    TEMPLATE: str
    """Asks for `<think>` and `<answer>` tags."""
    NATURAL_TEMPLATE: str
    """Asks for no tags."""
    EXAMPLE: WorkedExample

    def fields(self, config: Any) -> tuple[tuple[str, ...], ...]:
        """The fields that a template may show, of each group at least one."""
        ...

    def source(self, config: Any, num_held_out: int, seed: int) -> ProblemSource:
        """The problems that `config` describes. Raises ValueError when there are too few or a row is malformed."""
        ...


def task_module(task: str) -> Task:
    """The module `rollout/tasks/<task>.py`."""
    return cast(Task, import_module(f"{PACKAGE}.{task}"))


def problem_source(questions: TaskConfig, num_held_out: int, seed: int) -> ProblemSource:
    """The problems of one kind of questions."""
    return task_module(questions.task).source(questions.settings, num_held_out, seed)


def traces(prompts: PromptsConfig, config: TracesConfig, seed: int) -> Iterator[tuple[Problem, str]]:
    """Endless problems that are not held out, each with a completion to imitate.

    Raises ValueError when the task has none.
    """
    name = f"rollout.supervised.{prompts.task}"
    if util.find_spec(name) is None:
        raise ValueError(
            f"prompts.task = {prompts.task!r} has no synthetic traces for a warm start: set warm_start.data to a JSONL file "
            "of prompt and completion, or warm_start.num_steps = 0"
        )
    endless: Iterator[tuple[Problem, str]] = import_module(name).traces(prompts, config, seed)
    return endless
