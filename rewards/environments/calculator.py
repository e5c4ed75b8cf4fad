"""A calculator: `<calc>12.5*(3+4)</calc>` is answered by `<result>87.5</result>`.

Expressions are read by the rewards' own parser, which evaluates only numbers, signs, parentheses, + - * / and powers,
within its limits on length, depth, exponents and values.
"""

from __future__ import annotations

import re
from fractions import Fraction
from typing import ClassVar

from rewards.environments.calls import PARTS, CallCounts, called
from rewards.parsing.arithmetic import CALCULATIONS, parse
from rewards.parsing.tokens import ExpressionError
from rollout.types.environments import Observation
from rollout.types.prompts import Prompt

_THOUSANDS = re.compile(r"(?<=[0-9]),(?=[0-9]{3}(?![0-9]))")


class Calculator:
    """Answers calculations, inline. A turn without one ends the completion."""

    stop = ("</calc>",)
    parts = PARTS
    ranges: ClassVar = {"digits": (1, 15)}

    def __init__(self, digits: int = 10) -> None:
        """`digits`: significant digits of a result that is not whole."""
        self._digits = digits
        self._counts = CallCounts()

    def start(self, prompt: Prompt, seed: int) -> Observation:
        """Return an empty observation."""
        return Observation("")

    def step(self, text: str) -> Observation:
        """Answer the calculation that a turn ends with."""
        self._counts.read(text)
        expression = called(text, "calc")
        if expression is None:
            return Observation("", is_over=True, parts=self._counts.parts)
        result, error = calculate(expression, self._digits)
        self._counts.record(result)
        said = f"<result>{result}</result>" if result is not None else f"<result>error: {error}</result>"
        return Observation(said, parts=self._counts.parts)

    def close(self) -> None:
        """Do nothing."""


def calculate(expression: str, digits: int = 10) -> tuple[str | None, str]:
    """Return the value of an expression as text, or None and the error."""
    try:
        return shown(parse(_THOUSANDS.sub("", expression.strip().rstrip("= ")), CALCULATIONS).value(), digits), ""
    except ExpressionError as error:
        return None, str(error)


def shown(value: Fraction, digits: int) -> str:
    """Return a whole number with all its digits; round another one to `digits` significant digits."""
    if value.denominator == 1:
        return str(value.numerator)
    return f"{value.numerator / value.denominator:.{digits}g}"
