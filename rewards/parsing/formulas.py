"""Decide which formulas from a model may be passed to sympy, whose parser evaluates Python.

A formula passes only if rewards/parsing/arithmetic.py can parse it: numbers, the given variables, functions of one
argument, and powers. Powers are bounded, because ``9**9**9`` is a short text and a huge number. Python reads the text
in the same way.
"""

from __future__ import annotations

import re
from collections.abc import Set

from rewards.parsing.arithmetic import parse
from rewards.parsing.tokens import MAX_CHARACTERS, ExpressionError, Grammar

MAX_NUMBER = 10**9

FUNCTIONS = frozenset({"sin", "cos", "tan", "asin", "acos", "atan", "sinh", "cosh", "tanh", "exp", "log", "ln", "sqrt"})
CONSTANTS = frozenset({"pi", "E"})

# Python refuses whole numbers with leading zeros.
_WHOLE = r"(?P<whole>0+(?![0-9])|[1-9][0-9]*)"
_DECIMAL = r"(?P<decimal>(?:[0-9]+\.[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?|[0-9]+[eE][-+]?[0-9]+)"
_WITH_VARIABLES = re.compile(rf"{_DECIMAL}|{_WHOLE}|(?P<name>[A-Za-z][A-Za-z0-9]*)|\*\*|[-+*/()]")
_WITHOUT_VARIABLES = re.compile(rf"{_WHOLE}|[-+*/()]")


def check_formula(text: str, variables: Set[str]) -> None:
    """Raise ExpressionError unless ``text`` is a formula over ``variables`` that is safe to evaluate.

    Without variables it must be arithmetic over whole numbers with ``+ - * /``: no powers, no functions, and no
    decimals, because Countdown would read 9.5 as the numbers 9 and 5.
    """
    # Underscores group digits and begin private names; line breaks and `#` occur only in programs.
    if not text.isascii() or any(character in text for character in "_\n\r#"):
        raise ExpressionError("it contains a character that is not allowed in formulas")
    expression = parse(text, _grammar(variables))
    largest = max((token for token in expression.postfix if not isinstance(token, str)), default=0)
    if largest > MAX_NUMBER:
        raise ExpressionError(f"a number above {MAX_NUMBER}")


def _grammar(variables: Set[str]) -> Grammar:
    if not variables:
        return Grammar(_WITHOUT_VARIABLES, has_signs=True, max_tokens=MAX_CHARACTERS)
    return Grammar(
        _WITH_VARIABLES,
        names=variables | CONSTANTS,
        functions=FUNCTIONS,
        has_signs=True,
        max_tokens=MAX_CHARACTERS,  # a product of polynomials is long
    )
