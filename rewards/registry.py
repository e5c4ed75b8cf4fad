"""Find the functions that grade: the task's own, this package's general parts, and the user's.

A grader is a module with a function ``score`` and ``PARTS``, the names of the parts that it returns. Graders in
rewards/tasks are found by their file names, a user's graders by their dotted paths, such as ``my_package.my_grader``.
So a new task needs only one file here, and nothing is imported before it is needed.
"""

from __future__ import annotations

import functools
import importlib
import re
from collections.abc import Collection, Iterable
from pathlib import Path
from types import ModuleType
from typing import Any

from rewards import tasks as tasks_package
from rewards.config import RESERVED, RewardConfigError, RewardsConfig
from rewards.function import JUDGE, RewardFunction, call, check_parameters, import_function
from rewards.score import parts_of
from rollout.types.names import nearest, short_name

GENERAL = {
    "format": "rewards.parts.format:strict",
    "answer_tags": "rewards.parts.format:answer_tags",
    "tag_pairs": "rewards.parts.format:tag_pairs",
    "length": "rewards.parts.length:length",
    "repetition": "rewards.parts.repetition:repetition",
    "process": "rewards.parts.process:process",
}
"""Parts that any task may have: ``(text, answer, **parameters) -> float``."""
TRIAL_TEXT, TRIAL_ANSWER = "<think>" + "one 1 " * 1000 + "</think>\n<answer>1</answer>", {"answer": "1", "steps": ["1"]}
"""A long, repetitive text with which parameters are tested before the start."""

COSTLY = ("code",)
"""Graders that run programs: they are not called a second time to find answers outside tags."""


class UnknownTaskError(RewardConfigError):
    """There is no grader for a task with that name."""


class UnknownPartError(RewardConfigError):
    """The settings name a part or a function that does not exist, or two have the same name."""


@functools.cache
def tasks() -> tuple[str, ...]:
    """Return the sorted names of the graders in rewards/tasks, from the file names: importing all is slow."""
    files = (file for folder in tasks_package.__path__ for file in Path(folder).glob("*.py"))
    return tuple(
        sorted(file.stem for file in files if re.search(r"^def score\(", file.read_text("utf-8"), re.MULTILINE))
    )


def load_grader(grader: str) -> ModuleType:
    """Import the module of a grader: from rewards/tasks by its name, or a user's by its dotted path.

    Raises UnknownTaskError if it cannot be imported, or lacks ``PARTS`` or ``score``.
    """
    if "." not in grader:
        return importlib.import_module(f"rewards.tasks.{grader}")
    if short_name(grader) in tasks():
        raise UnknownTaskError(f"the grader {grader!r} has the last name of one of rayzero's: rename its module")
    try:
        module = importlib.import_module(grader)
    except ImportError as error:
        raise UnknownTaskError(
            f"the grader {grader!r} cannot be imported ({error}): install its package, or put the folder that contains "
            "it on PYTHONPATH, on every machine"
        ) from error
    if missing := [name for name in ("PARTS", "score") if not hasattr(module, name)]:
        raise UnknownTaskError(
            f"the grader {grader!r} has no {' and no '.join(missing)}: it needs PARTS, the names of its parts, and a "
            "function score(text, answer) that returns them"
        )
    return module


def check(
    grader: str, config: RewardsConfig, others: Iterable[str] = (), environment_parts: Collection[str] = ()
) -> None:
    """Check that the settings can grade a task, before anything starts, without importing `rewards.functions`.

    The workers check what needs those imports, such as the functions' parameters. ``others`` are the other graders of
    the run, which may have parameters too; ``environment_parts`` are the parts from the task's environment. Raises
    RewardConfigError.
    """
    functions = functions_of(grader, config, environment_parts)
    _check_parameter_names(config, {*tasks(), *map(short_name, (grader, *others))})
    for function in functions:
        if function.path.startswith(("rewards.", f"{grader}:")):
            try:
                check_parameters(function, import_function(function.path))
            except TypeError as error:
                raise UnknownPartError(str(error)) from None
            if function.name in GENERAL:
                _check_values(function)


def _check_values(function: RewardFunction) -> None:
    """Grade a text with a general part. Raise RewardConfigError if its parameters do not work."""
    outcome = call(function, import_function(function.path), TRIAL_TEXT, TRIAL_ANSWER)
    (part,) = parts_of(function, outcome)
    if part.status != "ok":
        reason = outcome.reason or f"its value would be {outcome.grades[function.name]:g}"
        raise RewardConfigError(f"rewards.parameters.{function.name} = {dict(function.parameters)}: {reason}")


def functions_of(
    grader: str, config: RewardsConfig, environment_parts: Collection[str] = ()
) -> tuple[RewardFunction, ...]:
    """Return the functions for each completion: the grader's ``score``, general parts in use, the user's functions.

    ``environment_parts`` need no function: an environment gives them.

    Raises UnknownTaskError if there is no such grader, and UnknownPartError if a name is unknown or ambiguous. The
    message has the nearest right name.
    """
    task = short_name(grader)
    own = {path.partition(":")[2]: path for path in config.functions} | dict.fromkeys(config.judges, JUDGE)
    general = {name: GENERAL[name] for name in _wanted(config) if name in GENERAL}
    single = general | own
    _check_names(task, config, own)
    task_parts = _task_parts(grader, config, {*single, *environment_parts})
    sources = {**dict.fromkeys(environment_parts, "the environment"), **dict.fromkeys(task_parts, f"task {task!r}")}
    for name, source in sources.items():
        if name in RESERVED:
            raise UnknownPartError(f"{name} is a part of {source}, and reward/{name} is a metric: rename the part")
        if name in single or name in config.ensembles:
            raise UnknownPartError(f"{name} is a part of {source}: {_rename(name, config)}")
    if both := sorted({*environment_parts} & {*task_parts}):
        raise UnknownPartError(f"{both[0]} is a part of task {task!r} and of the environment: rename that of one")
    _check_wanted(grader, config, {*single, *sources})
    is_ours = "." not in grader and task not in config.tasks
    module = grader if "." in grader else f"rewards.tasks.{grader}"
    graded = {task: config.tasks.get(task, f"{module}:score")} if _exists(grader, config) else {}
    return tuple(
        RewardFunction(
            name,
            path,
            task_parts if name == task else (name,),
            grades_task=name == task,
            finds_untagged=name == task and is_ours and task not in COSTLY and "correctness" in task_parts,
            parameters=_judge_parameters(name, config) or config.parameters.get(name, {}),
            deadline_s=config.deadline_of(name),
        )
        for name, path in (graded | single).items()
    )


def _judge_parameters(name: str, config: RewardsConfig) -> dict[str, Any]:
    """Return the arguments of a judge; empty for other functions."""
    if name not in config.judges:
        return {}
    own = {"name": name, "num_workers": config.num_workers, "deadline_s": config.deadline_of(name)}
    return config.judges[name].model_dump() | own


def _wanted(config: RewardsConfig) -> dict[str, str]:
    """Return the parts that the settings use, each with the first key that uses it."""
    keys = {name: f"rewards.weights.{name}" for name in config.weights if name not in config.ensembles}
    for ensemble, settings in config.ensembles.items():
        keys = {name: f"rewards.ensembles.{ensemble}.weights.{name}" for name in settings.weights} | keys
    return keys


def _exists(grader: str, config: RewardsConfig) -> bool:
    return "." in grader or grader in config.tasks or grader in tasks()


def _task_parts(grader: str, config: RewardsConfig, single: Iterable[str]) -> tuple[str, ...]:
    """Return the parts of the task's ``score``. A user's function is assumed to return all parts without a source."""
    if short_name(grader) in config.tasks:
        return tuple(name for name in _wanted(config) if name not in single)
    return tuple(load_grader(grader).PARTS) if _exists(grader, config) else ()


def _check_names(task: str, config: RewardsConfig, own: dict[str, str]) -> None:
    for name in [*own, *config.ensembles]:
        if name in GENERAL or name in {task, *tasks(), *config.tasks}:
            what = "a general part" if name in GENERAL else "a task"
            raise UnknownPartError(f"{name} is {what} of rayzero: {_rename(name, config)}")


def _check_parameter_names(config: RewardsConfig, graders: set[str]) -> None:
    callable_names = {*graders, *GENERAL, *config.tasks, *(path.partition(":")[2] for path in config.functions)}
    callable_names |= {*config.judges}
    for key, named in (("parameters", config.parameters), ("deadlines_s", config.deadlines_s)):
        for name in named:
            if name not in callable_names:
                raise UnknownPartError(
                    f"rewards.{key}.{name}: no function has that name (a task's parts are computed together: name the "
                    f"task); {nearest(name, callable_names)}"
                )


def _check_wanted(grader: str, config: RewardsConfig, provided: set[str]) -> None:
    task = short_name(grader)
    for name, key in _wanted(config).items():
        if name in provided:
            continue
        if not _exists(grader, config):
            raise UnknownTaskError(
                f"nothing grades task {task!r}: write rewards/tasks/{task}.py with PARTS and a function score, or set "
                f"rewards.tasks.{task}; {nearest(task, {*tasks(), *config.tasks})}"
            )
        raise UnknownPartError(
            f"{key}: task {task!r} has no such part (your own parts come from rewards.functions); "
            f"{nearest(name, {*provided, *GENERAL, *config.ensembles})}"
        )


def _rename(name: str, config: RewardsConfig) -> str:
    for key in ("ensembles", "judges"):
        if name in getattr(config, key):
            return f"rename rewards.{key}.{name}"
    return f"give your function {name} another name"
