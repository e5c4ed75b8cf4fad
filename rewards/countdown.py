"""Marks Countdown: combine the given numbers by + - * / to hit the target exactly.

The answer to a prompt is ``{"numbers": [3, 7, 9], "target": 33}``, and optionally ``"must_use_all"`` (default True).
Two parts, each 0 or 1:

- ``format``: the completion holds an answer between tags, ``<answer>(9 + 3) * 7</answer>``, whatever it says.
- ``correctness``: the last such answer is an expression, uses each number once and equals the target exactly.

Correctness implies format, so weights of 0.9 and 0.1 pay 1.0, 0.1 or 0.0, as TinyZero does: an answer that is not an
expression still earns 0.1. What TinyZero does otherwise:

- It reads the last line only. Here an answer counts wherever it stands, the reasoning before it closed or not.
- It pays 0.1 for empty tags. Here they hold no answer, nor does an empty box inside them.
- It refuses an ``=``, yet its prompt asks for an equation: of 316 real tagged answers 6 are one, two of them right. Here
  a true one (``91 - 76 + 66 = 81``) counts like its left side, a false one is wrong.
- It calls eval: signs, decimals and powers pass, and floats within 1e-5 of the target. Here arithmetic.py says what is
  an expression, and fractions are exact.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from rewards.arithmetic import MAX_DIGITS, Expression, ExpressionError, parse

_BOX = "\\boxed{"
_RIGHT_SIDE = re.compile(rf"[ \t\r\n]*([0-9]{{1,{MAX_DIGITS}}})[ \t\r\n]*")


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was found out about one expression."""

    is_correct: bool
    is_well_formed: bool
    """It is an expression, right or wrong. The part ``format`` does not ask for it."""
    reason: str
    """For people: ``correct``, or the first thing that is wrong, such as ``uses 7 twice``."""
    value: Fraction | None = None
    """None when the expression has no value."""


def score(text: str, answer: Mapping[str, Any]) -> dict[str, float]:
    """The parts of a completion's reward. Raises KeyError when ``answer`` lacks the numbers or the target."""
    numbers, target = answer["numbers"], answer["target"]
    expression = extract_answer(text)
    if not expression:
        return {"correctness": 0.0, "format": 0.0}
    verdict = check(expression, numbers, target, answer.get("must_use_all", True))
    return {"correctness": float(verdict.is_correct), "format": 1.0}


def extract_answer(text: str) -> str | None:
    """What the last complete pair of answer tags holds, without the box; None when there is no such pair.

    A later ``<answer>`` that is never closed does not count, as for TinyZero's pattern: what a completion that was cut
    off would have answered is not known. Of nested tags the innermost pair counts.
    """
    before_last_closing, _, _ = text.rpartition("</answer>")
    _, opening, rest = before_last_closing.rpartition("<answer>")
    # `rest` is more than the answer when stray closing tags follow the pair.
    return unboxed(rest.partition("</answer>")[0].strip()) if opening else None


def unboxed(answer: str) -> str:
    """The answer without a LaTeX box around all of it: 312 of 316 real tagged answers have one."""
    if answer.startswith(_BOX) and answer.endswith("}"):
        return answer[len(_BOX) : -1].strip()
    return answer


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
