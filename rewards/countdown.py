"""Marks Countdown: combine the given numbers by + - * / to hit the target exactly.

The answer to a prompt is ``{"numbers": [3, 7, 9], "target": 33}``, and optionally ``"must_use_all"`` (default True) and
``"think_tag"`` (default ``"think"``, see extraction.py).

Two parts, each 0 or 1:

- ``format``: the completion ends in an answer that is well-formed and parses as an expression.
- ``correctness``: that expression also uses each number once and equals the target exactly.

Correctness implies format, so weights of 0.9 and 0.1 pay 1.0, 0.1 or 0.0, the values that TinyZero pays. Rayzero is
stricter in two places: the reasoning must be closed (7 of 384 real completions hold a right, tagged answer without it),
and an answer that is not an expression earns no format. It is kinder in one: a true equation (``91 - 76 + 66 = 81``)
counts like its left side. TinyZero refuses the ``=``, yet its prompt asks for an equation, and 6 of those completions
end their tagged answer that way, two of them right. A false one is wrong, never malformed.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from rewards.arithmetic import MAX_DIGITS, Expression, ExpressionError, parse
from rewards.extraction import final_answer, unboxed

_RIGHT_SIDE = re.compile(rf"[ \t\r\n]*([0-9]{{1,{MAX_DIGITS}}})[ \t\r\n]*")


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was found out about one expression."""

    is_correct: bool
    is_well_formed: bool
    reason: str
    """For people: ``correct``, or the first thing that is wrong, such as ``uses 7 twice``."""
    value: Fraction | None = None
    """None when the expression has no value."""


def score(text: str, answer: Mapping[str, Any]) -> dict[str, float]:
    """The parts of a completion's reward. Raises KeyError when ``answer`` lacks the numbers or the target."""
    numbers, target = answer["numbers"], answer["target"]
    expression = extract_answer(text, answer.get("think_tag", "think"))
    if expression is None:
        return {"correctness": 0.0, "format": 0.0}
    verdict = check(expression, numbers, target, answer.get("must_use_all", True))
    return {"correctness": float(verdict.is_correct), "format": float(verdict.is_well_formed)}


def extract_answer(text: str, think_tag: str = "think") -> str | None:
    """The expression that a completion answers with; None when its ending is not well-formed."""
    answer = final_answer(text, think_tag)
    return None if answer is None else unboxed(answer)


def check(expression: str, numbers: Sequence[int], target: int, must_use_all: bool = True) -> Verdict:
    """Whether ``expression`` solves the problem, and why not. Never raises on any text."""
    try:
        parsed, claimed = _parse_equation(expression)
    except ExpressionError as error:
        return Verdict(False, False, f"not an expression: {error}")
    try:
        value = parsed.value()
    except ExpressionError as error:
        return Verdict(False, True, str(error))
    wrong = _wrong_numbers(parsed.numbers, numbers, must_use_all) or _wrong_value(value, target, claimed)
    return Verdict(wrong is None, True, wrong or "correct", value)


def _parse_equation(text: str) -> tuple[Expression, int | None]:
    """The expression, and the value claimed after a trailing ``=`` if there is one."""
    left, equals, right = text.partition("=")
    parsed = parse(left)
    if not equals:
        return parsed, None
    claimed = _RIGHT_SIDE.fullmatch(right)
    if claimed is None:
        raise ExpressionError("'=' must be followed by one number, or left out")
    return parsed, int(claimed[1])


def _wrong_numbers(used: Sequence[int], given: Sequence[int], must_use_all: bool) -> str | None:
    uses, supply = Counter(used), Counter(int(number) for number in given)
    for number, count in uses.items():
        if number not in supply:
            return f"uses {number}, which is not given"
        if count > supply[number]:
            return f"uses {number} {_times(count)}" + (f", given {_times(supply[number])}" * (supply[number] > 1))
    missing = supply - uses
    if must_use_all and missing:
        return f"does not use {', '.join(str(number) for number in missing.elements())}"
    return None


def _wrong_value(value: Fraction, target: int, claimed: int | None) -> str | None:
    if value != int(target):
        return f"gives {value}, not {target}"
    if claimed is not None and claimed != value:
        return f"gives {value}, but says {claimed}"
    return None


def _times(count: int) -> str:
    return {1: "once", 2: "twice"}.get(count, f"{count} times")
