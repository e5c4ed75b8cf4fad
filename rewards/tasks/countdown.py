r"""Grade Countdown: combine the given numbers with + - * / to reach the target exactly.

The answer to a prompt is ``{"numbers": [3, 7, 9], "target": 33}``, and optionally ``"must_use_all"`` (default True),
``"exact_division"`` (default False: fractions are allowed, and exact) and ``"extraction": "natural"``. Two parts:

- ``correctness``: 1 if the answer is an expression, uses each number once and equals the target exactly; else 0.
- ``closeness``: how close an expression with the right numbers comes: 1 at the target, 0.5 if 10% off; 0 if there is no
  such expression.

The answer is the content of the last ``<answer>…</answer>``. With weights of 0.9 for ``correctness`` and 0.1 for the
general part ``answer_tags`` the reward is 1.0, 0.1 or 0.0, as in TinyZero: an answer that is not an expression still
earns 0.1. TinyZero differs in these points:

- It reads only the last line. Here the answer may be anywhere, and the reasoning before it need not be closed.
- It gives 0.1 for empty tags. Here empty tags, or tags with an empty box, are not an answer.
- It refuses an ``=``, although its prompt asks for an equation: of 316 real tagged answers 6 are equations, two of them
  right. Here a true equation (``91 - 76 + 66 = 81``, ``81 = 91 - 76 + 66``) counts like its expression, and a false
  equation is wrong.
- It calls eval, so it accepts signs, decimals and powers, and floats within 1e-5 of the target. Here arithmetic.py
  defines what an expression is, and fractions are exact.

In the natural format the prompt asks for no tags, so the answer must be found in the text. It is the last expression
with the right numbers. It is not simply the last expression, which is often a check (``9 + 3 = 12, 12 * 7 = 84``). If
the text still states an answer (tags, ``\boxed``, ``the answer is …``) that is an expression, or a number other than
the target, only that counts. The target may be on either side: ``33 = …``.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from rewards.parsing.arithmetic import Expression, parse
from rewards.parsing.equations import Equation, equations, result
from rewards.parsing.extraction import extract_answer, is_natural, stated_answer, unboxed, unwrapped
from rewards.parsing.tokens import ExpressionError

PARTS = ("correctness", "closeness")

_EQUALS = re.compile("==?")


@dataclass(frozen=True, slots=True)
class Rules:
    """One problem: the given numbers, the target, and what is allowed."""

    numbers: Sequence[int]
    target: int
    must_use_all: bool = True
    """If False, an expression may leave out numbers."""
    exact_division: bool = False
    """If True, every quotient must be a whole number, also in intermediate results."""

    @classmethod
    def of(cls, answer: Mapping[str, Any]) -> Rules:
        """Read a problem. Raises KeyError if ``answer`` lacks the numbers or the target."""
        options = {name: answer[name] for name in ("must_use_all", "exact_division") if name in answer}
        return cls(tuple(int(number) for number in answer["numbers"]), int(answer["target"]), **options)


@dataclass(frozen=True, slots=True)
class CountdownVerdict:
    """The verdict on one answer."""

    is_correct: bool
    reason: str
    """For people: ``correct``, or the first mistake, such as ``uses 7 twice``."""
    value: Fraction | None = None
    """None if the expression has no value."""
    has_right_numbers: bool = False


def score(text: str, answer: Mapping[str, Any]) -> dict[str, float]:
    """Return the parts of a completion's reward. Raises KeyError if ``answer`` lacks the numbers or the target."""
    verdict = grade(text, answer)
    return {
        "correctness": float(verdict.is_correct),
        "closeness": closeness(verdict.value, int(answer["target"])) if verdict.has_right_numbers else 0.0,
    }


def explain(text: str, answer: Mapping[str, Any]) -> str:
    """Return the first mistake in a completion, for people."""
    return grade(text, answer).reason


def grade(text: str, answer: Mapping[str, Any]) -> CountdownVerdict:
    """Return whether the text's answer solves the problem, and why not. Raises the same KeyError as ``score``."""
    rules = Rules.of(answer)
    if is_natural(answer):
        return _grade_prose(text, rules)
    expression = extract_answer(text)
    if expression is None:
        return CountdownVerdict(False, "no answer in tags")
    return _grade_expression(expression, rules)


def check(
    expression: str, numbers: Sequence[int], target: int, must_use_all: bool = True, exact_division: bool = False
) -> CountdownVerdict:
    """Return whether ``expression`` solves the problem, and why not. Never raises, whatever the text."""
    return _grade_expression(expression, Rules(numbers, target, must_use_all, exact_division))


def closeness(value: Fraction | None, target: Fraction | int) -> float:
    """Return ``1 / (1 + 10 e)`` with the relative error ``e = |value - target| / |target|``; 0.0 without a value.

    For a target of 0 the error is ``|value|``. The result is 1 at the target, 0.5 if 10% off, 0.09 if 100% off.
    """
    if value is None:
        return 0.0
    error = abs(value - target) / (abs(Fraction(target)) or 1)
    return float(1 / (1 + 10 * error))


def _grade_expression(text: str, rules: Rules) -> CountdownVerdict:
    left, *others = _EQUALS.split(unwrapped(text), maxsplit=2)
    if others:
        left, *others = (unboxed(unwrapped(side)) for side in (left, *others))
    claims = [result(side) for side in others]
    if claims == [None] and (claimed := result(left)) is not None:  # ``42 = (9 - 3) * 7``
        left, claims = others[0], [claimed]
    try:
        expression = parse(left)
        if len(claims) > 1 or None in claims:
            raise ExpressionError("one side of '=' must be a number, or '=' left out")
    except ExpressionError as error:
        return CountdownVerdict(False, f"not an expression: {error}")
    return _judge(expression, [Expression((claim,)) for claim in claims if claim is not None], rules)


def _grade_prose(text: str, rules: Rules) -> CountdownVerdict:
    stated = stated_answer(text) or ""
    number = stated.strip(" .*_$")
    if result(number) not in (None, rules.target):
        return _grade_expression(number, rules)
    # A stated answer is followed by its explanation, so its first equation counts; elsewhere the last one counts.
    equation = _best(reversed(list(equations(stated))), rules) or _best(equations(text), rules)
    if equation is None:
        return CountdownVerdict(False, "no expression in the text")
    operations = [side for side in equation if len(side.postfix) > 1]
    answer = next((side for side in operations if _fits(side, rules)), operations[0])
    return _judge(answer, [side for side in equation if side is not answer], rules)


def _best(candidates: Iterable[Equation], rules: Rules) -> Equation | None:
    """Return the first equation with a side over the right numbers, or else the first equation."""
    first = None
    for equation in candidates:
        if any(_fits(side, rules) for side in equation):
            return equation
        first = first or equation
    return first


def _fits(expression: Expression, rules: Rules) -> bool:
    return len(expression.postfix) > 1 and _wrong_numbers(expression.numbers, rules) is None


def _judge(answer: Expression, claims: Sequence[Expression], rules: Rules) -> CountdownVerdict:
    """Return the verdict on ``answer``; ``claims`` are the values that the text gives for it."""
    wrong = _wrong_numbers(answer.numbers, rules)
    try:
        value = answer.value(rules.exact_division)
    except ExpressionError as error:
        return CountdownVerdict(False, str(error), None, wrong is None)
    reason = wrong or _wrong_value(value, claims, rules.target)
    return CountdownVerdict(reason is None, reason or "correct", value, wrong is None)


def _wrong_numbers(used: Sequence[int], rules: Rules) -> str | None:
    uses, supply = Counter(used), Counter(rules.numbers)
    for number, count in uses.items():
        if number not in supply:
            return f"uses {number}, which is not given"
        if count > supply[number]:
            return f"uses {number} {_times(count)}" + (f", given {_times(supply[number])}" * (supply[number] > 1))
    missing = supply - uses
    if rules.must_use_all and missing:
        return f"does not use {', '.join(str(number) for number in missing.elements())}"
    return None


def _wrong_value(value: Fraction, claims: Sequence[Expression], target: int) -> str | None:
    if value != target:
        return f"gives {value}, not {target}"
    for claim in claims:
        try:
            claimed = claim.value()
        except ExpressionError as error:
            return f"gives {value}, but says something that has no value: {error}"
        if claimed != value:
            return f"gives {value}, but says {claimed}"
    return None


def _times(count: int) -> str:
    return {1: "once", 2: "twice"}.get(count, f"{count} times")
