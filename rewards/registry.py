"""Names -> the functions that mark: a task's own, this package's general parts, the user's.

A task is a module of this package with a function ``score`` and ``PARTS``, the names of what it returns; it is found by
its file name. So a new task touches one file here, and nothing is imported before it is needed.
"""

from __future__ import annotations

import functools
import importlib
import re
from collections.abc import Iterable
from pathlib import Path

from rewards import tasks as tasks_package
from rewards.config import RewardConfigError, RewardsConfig
from rewards.function import RewardFunction, check_parameters, import_function
from rollout.types.names import nearest

GENERAL = {
    "format": "rewards.parts.format:strict",
    "answer_tags": "rewards.parts.format:answer_tags",
    "tag_pairs": "rewards.parts.format:tag_pairs",
    "length": "rewards.parts.length:length",
    "repetition": "rewards.parts.repetition:repetition",
    "process": "rewards.parts.process:process",
}
"""Parts that any task may have: ``(text, answer, **parameters) -> float``."""


class UnknownTaskError(RewardConfigError):
    """Nothing marks a task of that name."""


class UnknownPartError(RewardConfigError):
    """The settings name a part or a function that there is not, or give two the same name."""


@functools.cache
def tasks() -> tuple[str, ...]:
    """The names of this package's own tasks, sorted. Read off the files, for importing all would take long."""
    files = (file for folder in tasks_package.__path__ for file in Path(folder).glob("*.py"))
    return tuple(
        sorted(file.stem for file in files if re.search(r"^def score\(", file.read_text("utf-8"), re.MULTILINE))
    )


def check(task: str, config: RewardsConfig) -> None:
    """Raises RewardConfigError when the settings cannot mark ``task``: before anything starts, without user code.

    What only the user's own functions could tell, such as their parameters, their workers check.
    """
    for function in functions_of(task, config):
        if function.path.startswith("rewards."):
            try:
                check_parameters(function, import_function(function.path))
            except TypeError as error:
                raise UnknownPartError(str(error)) from None


def functions_of(task: str, config: RewardsConfig) -> tuple[RewardFunction, ...]:
    """What is called for each completion of ``task``: its ``score``, the general parts in use, the user's functions.

    Raises UnknownTaskError when nothing marks the task, and UnknownPartError when a name is unknown or ambiguous, each with
    the nearest right name.
    """
    own = {path.partition(":")[2]: path for path in config.functions}
    general = {name: GENERAL[name] for name in _wanted(config) if name in GENERAL}
    single = general | own
    _check_names(config, own)
    task_parts = _task_parts(task, config, single)
    for name in task_parts:
        if name in single or name in config.ensembles:
            raise UnknownPartError(f"{name} is a part of task {task!r}: {_rename(name, config)}")
    _check_wanted(task, config, {*single, *task_parts})
    marking = {task: config.tasks.get(task, f"rewards.tasks.{task}:score")} if _is_task(task, config) else {}
    return tuple(
        RewardFunction(
            name,
            path,
            task_parts if name == task else (name,),
            marks_task=name == task,
            parameters=config.parameters.get(name, {}),
            deadline_s=config.deadlines_s.get(name, config.deadline_s),
        )
        for name, path in (marking | single).items()
    )


def _wanted(config: RewardsConfig) -> dict[str, str]:
    """The parts that the settings ask for -> the first key that does."""
    keys = {name: f"rewards.weights.{name}" for name in config.weights if name not in config.ensembles}
    for ensemble, settings in config.ensembles.items():
        keys = {name: f"rewards.ensembles.{ensemble}.weights.{name}" for name in settings.weights} | keys
    return keys


def _is_task(task: str, config: RewardsConfig) -> bool:
    return task in config.tasks or task in tasks()


def _task_parts(task: str, config: RewardsConfig, single: Iterable[str]) -> tuple[str, ...]:
    """The parts of the task's ``score``. What a user's own returns is taken to be what nothing else gives."""
    if task in config.tasks:
        return tuple(name for name in _wanted(config) if name not in single)
    return tuple(importlib.import_module(f"rewards.tasks.{task}").PARTS) if task in tasks() else ()


def _check_names(config: RewardsConfig, own: dict[str, str]) -> None:
    known_tasks = {*tasks(), *config.tasks}
    for name in [*own, *config.ensembles]:
        if name in GENERAL or name in known_tasks:
            what = "a general part" if name in GENERAL else "a task"
            raise UnknownPartError(f"{name} is {what} of rayzero: {_rename(name, config)}")
    callable_names = {*own, *GENERAL, *known_tasks}
    for key, named in (("parameters", config.parameters), ("deadlines_s", config.deadlines_s)):
        for name in named:
            if name not in callable_names:
                raise UnknownPartError(
                    f"rewards.{key}.{name}: no function has that name (a task's parts are computed together: name the "
                    f"task); {nearest(name, callable_names)}"
                )


def _check_wanted(task: str, config: RewardsConfig, provided: set[str]) -> None:
    for name, key in _wanted(config).items():
        if name in provided:
            continue
        if not _is_task(task, config):
            raise UnknownTaskError(
                f"nothing marks task {task!r}: write rewards/tasks/{task}.py with PARTS and a function score, or set "
                f"rewards.tasks.{task}; {nearest(task, {*tasks(), *config.tasks})}"
            )
        raise UnknownPartError(
            f"{key}: task {task!r} has no such part (a part of your own comes from rewards.functions); "
            f"{nearest(name, {*provided, *GENERAL, *config.ensembles})}"
        )


def _rename(name: str, config: RewardsConfig) -> str:
    return f"rename rewards.ensembles.{name}" if name in config.ensembles else f"give your function {name} another name"
