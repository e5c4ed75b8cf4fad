"""Find references that no answer could match, before anything is sampled.

A grader of this package grades a completion whose answer, in tags, is a verbatim copy of the reference: it must read
the reference, and grade the copy as right. If this check does not fit, because the reference is not text or grading is
slow, the grader's module has its own function. The module of a user's grader may have it too:

    def check_reference(answer: Mapping[str, Any]) -> str | None:
        '''Return why no completion could be graded right, such as `tests is empty`; None if nothing is wrong.'''

It should take under 50 µs, because it is called for every row of a data set. It may also raise an exception that says
what is wrong.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import Any

from rewards.config import RewardsConfig
from rewards.function import RewardFunction, call
from rewards.judge.question import fields_of
from rewards.registry import functions_of, load_grader

CheckReference = Callable[[Mapping[str, Any]], str | None]
"""(the data that verifies answers to a problem) -> why no answer could be right; None if nothing is wrong."""

MAX_SHOWN = 200
"""Most characters of a reference that a message shows."""
STEPS = "steps"
"""The entry that only the general part `process` reads. Problems that differ only in it share one check."""


def reference_check(
    grader: str, config: RewardsConfig, environment_parts: Collection[str] = ()
) -> CheckReference | None:
    """Return the function that checks the references of a grader; None for a user's grader without such a function.

    ``environment_parts`` are as in ``functions_of``. Raises UnknownTaskError if the grader cannot be imported.
    """
    function = next((each for each in functions_of(grader, config, environment_parts) if each.grades_task), None)
    if function is None or not function.path.startswith(("rewards.", f"{grader}:")):
        return None
    module = load_grader(grader)
    own: CheckReference | None = getattr(module, "check_reference", None)
    if own is None and "." in grader:
        return None
    names_right = "correctness" in module.PARTS
    if own:
        return partial(fault_found, own)
    faults: dict[str, str | None] = {}

    def check(answer: Mapping[str, Any]) -> str | None:
        reference = json.dumps({name: value for name, value in answer.items() if name != STEPS}, default=str)
        if reference not in faults:
            faults[reference] = fault_of_copy(function, module.score, answer, names_right)
        return faults[reference]

    return check


def shown_fields(config: RewardsConfig) -> list[tuple[str, str]]:
    """Return the entries of an answer that judges' rubrics show, each with the key of the rubric."""
    return [
        (f"rewards.judges.{name}.rubric", field)
        for name, judge in config.judges.items()
        for field in fields_of(judge.rubric)
    ]


def fault_found(check: CheckReference, answer: Mapping[str, Any]) -> str | None:
    """Return the problem that a grader's own check reports, or its exception."""
    try:
        return check(answer)
    except Exception as error:  # noqa: BLE001  the content of a file is untrusted, and so is a user's check
        return f"{type(error).__name__}: {error}"


def fault_of_copy(
    function: RewardFunction, score: Callable[..., Any], answer: Mapping[str, Any], names_right: bool
) -> str | None:
    """Return why even a copy of the reference is graded wrong. `names_right`: the grader has the part `correctness`."""
    given = answer.get("answer", "")
    references = given if isinstance(given, list | tuple) else [given]
    is_stated = names_right and "answer" in answer  # else the grader reads its entries for any text
    if is_stated and not (references and all(str(each).strip() and each is not None for each in references)):
        return "the reference is empty"
    for reference in references:
        outcome = call(function, score, f"<think></think>\n<answer>{reference}</answer>", answer)
        if outcome.status != "ok":
            return outcome.reason
        if is_stated and outcome.grades["correctness"] != 1.0:
            return f"the reference {str(reference)[:MAX_SHOWN]!r} cannot be matched: even a copy of it is graded wrong"
    return None
