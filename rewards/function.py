"""A function that grades a text, and what came of calling it. Standard library only: grading processes import this."""

from __future__ import annotations

import importlib
import inspect
import sys
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from rewards.parsing.extraction import extract_answer, is_natural
from rollout.types.names import nearest

MAX_REASON_CHARACTERS = 500

RIGHT_UNTAGGED = "right_untagged"
"""Part of some completions without an answer in tags: 1 when the right answer stands elsewhere in their text. It is
never paid."""
UNTAGGED_ONE_IN = 8
"""One in so many completions without tags is read once more for that: such a reading costs up to a hundred times as
much as finding no tags. Which ones depends on their text alone, so that a resumed run has the same metrics."""
UNTAGGED_CHARACTERS = 4000
"""So many characters of its end are read."""

Grades = Mapping[str, float]
"""Named parts of a reward, from one function."""


class Outcome(NamedTuple):
    """The result of one function for one text."""

    status: Literal["ok", "timeout", "error"]
    grades: Grades
    """Empty unless the status is ``ok``. NaN and infinity pass; score.py makes errors of them."""
    reason: str = ""
    """For people, when the status is not ``ok``: ``ValueError: …``, ``not graded within 10 s``."""
    seconds: float = 0.0
    """How long it took. 0 when that is not known."""
    markers: tuple[str, ...] | None = None
    """Behaviours that the text shows (rewards/parts/markers.py): told with the last function's outcome, unless that
    function did not end."""


@dataclass(frozen=True)
class RewardFunction:
    """Where a function is and how it is called."""

    name: str
    """The part it returns; the task, for a task's ``score``."""
    path: str
    """``module:function``."""
    parts: tuple[str, ...]
    """What it returns on success, as far as is known before it is called; a user's grader of a task may return more."""
    grades_task: bool = False
    """Whether it is a task's ``score``, which returns a mapping of parts; others return one number."""
    finds_untagged: bool = False
    """Whether it reads answers without tags too, so that RIGHT_UNTAGGED can be told."""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    deadline_s: float = 10.0

    def load(self) -> Callable[..., Any]:
        """Import it and return it. A task's module may ``prepare``, with the same parameters, before any deadline runs.

        Raises ImportError when the module is missing, TypeError when it holds no such function or the function does not
        take the parameters, and what ``prepare`` raises when the task cannot be graded here.
        """
        function = import_function(self.path)
        check_parameters(self, function)
        prepare = getattr(sys.modules[self.path.partition(":")[0]], "prepare", None)
        if self.grades_task and prepare is not None:
            prepare(**self.parameters)
        return function


def import_function(path: str) -> Callable[..., Any]:
    """Return what stands at ``module:function``. Raises ImportError or TypeError."""
    module, _, name = path.partition(":")
    function = getattr(importlib.import_module(module), name, None)
    if not callable(function):
        raise TypeError(f"{path}: module {module!r} has no function {name!r}")
    found: Callable[..., Any] = function
    return found


def check_parameters(declared: RewardFunction, function: Callable[..., Any]) -> None:
    """Raise TypeError, with the nearest right name, unless ``function`` takes the declared parameters by keyword."""
    try:
        accepted = list(inspect.signature(function).parameters.values())[2:]
    except ValueError:  # some functions in C do not say what they take
        return
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in accepted):
        return
    by_keyword = {parameter.name: parameter for parameter in accepted if parameter.kind is not parameter.VAR_POSITIONAL}
    for name in declared.parameters:
        if name not in by_keyword:
            raise TypeError(
                f"rewards.parameters.{declared.name}.{name}: {declared.path} has no such parameter; "
                f"{nearest(name, by_keyword)}"
            )
    for name, parameter in by_keyword.items():
        if parameter.default is parameter.empty and name not in declared.parameters:
            raise TypeError(
                f"{declared.path} needs its parameter {name}: set rewards.parameters.{declared.name}.{name}"
            )


def call(declared: RewardFunction, function: Callable[..., Any], text: str, answer: Mapping[str, Any]) -> Outcome:
    """Call ``function`` on ``text``. Never raises an Exception; it may end the process or never return."""
    try:
        value = function(text, answer, **declared.parameters)
        grades = value.items() if declared.grades_task else [(declared.name, value)]
        found = {str(name): float(grade) for name, grade in grades}
    except Exception as error:  # noqa: BLE001  the boundary with untrusted text: the one place that catches anything
        return Outcome("error", {}, f"{type(error).__name__}: {error}"[:MAX_REASON_CHARACTERS])
    if declared.finds_untagged and not is_natural(answer) and is_untagged(text):
        is_right = found["correctness"] == 1.0 or is_right_untagged(declared, function, text, answer)
        found[RIGHT_UNTAGGED] = float(is_right)
    return Outcome("ok", found)


def is_untagged(text: str) -> bool:
    """Return whether the text has no answer in tags, and is one of those that are read once more for that."""
    return not extract_answer(text) and zlib.crc32(text.encode("utf-8", "replace")) % UNTAGGED_ONE_IN == 0


def is_right_untagged(
    declared: RewardFunction, function: Callable[..., Any], text: str, answer: Mapping[str, Any]
) -> bool:
    """Return whether the text would be right if it had not been asked for tags. Never raises an Exception."""
    try:
        grades = function(text[-UNTAGGED_CHARACTERS:], {**answer, "extraction": "natural"}, **declared.parameters)
        return bool(grades["correctness"] == 1.0)
    except Exception:  # noqa: BLE001  untrusted text; the grade itself is known, and this only tells more
        return False
