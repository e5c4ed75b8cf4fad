"""Task name -> the function that marks it.

A task is a module of this package with a function ``score``; it is found by its file name. So a new task touches one
file here, and nothing is imported before it is needed.
"""

from __future__ import annotations

import difflib
import functools
import importlib
import pkgutil
from collections.abc import Callable, Mapping
from typing import Any

import rewards

RewardFunction = Callable[[str, Mapping[str, Any]], Mapping[str, float]]
"""(completion text, what verifies an answer) -> named parts. Must not trust the text."""

NOT_TASKS = frozenset({"arithmetic", "config", "ledger", "markers", "pool", "registry", "score", "worker"})
"""Modules of this package that mark nothing. Forgetting a new one here fails a test."""


class UnknownTaskError(ValueError):
    """No reward function has that name."""


@functools.cache
def tasks() -> tuple[str, ...]:
    """The names of this package's own tasks, sorted."""
    return tuple(sorted({module.name for module in pkgutil.iter_modules(rewards.__path__)} - NOT_TASKS))


def path_of(task: str, functions: Mapping[str, str]) -> str:
    """Where the reward function of ``task`` is: ``module:function``; ``functions`` come before this package's own.

    Raises UnknownTaskError, with the nearest right name, when there is none.
    """
    if task in functions:
        return functions[task]
    if task in tasks():
        return f"rewards.{task}:score"
    known = sorted({*tasks(), *functions})
    nearest = difflib.get_close_matches(task, known, n=1)
    hint = f"did you mean {nearest[0]!r}?" if nearest else f"known: {', '.join(known)}"
    raise UnknownTaskError(
        f"no reward function for task {task!r}; {hint} "
        f"To add it, write rewards/{task}.py with a function score, or set rewards.functions.{task}"
    )


def load(path: str) -> RewardFunction:
    """Imports the function at ``module:function``.

    Raises ImportError when the module is missing, and TypeError when it holds no such function.
    """
    module, _, name = path.partition(":")
    function = getattr(importlib.import_module(module), name, None)
    if not callable(function):
        raise TypeError(f"{path}: module {module!r} has no function {name!r}")
    loaded: RewardFunction = function
    return loaded
