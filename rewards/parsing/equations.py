r"""Find arithmetic in running text: ``So \(3 \times 9 + 7 = 34\) works.`` contains one equation with two sides.

In running text, signs often have other meanings, so the characters around a piece of arithmetic are checked. The
``5 + 3`` of ``1.5 + 3``, ``x^5 + 3``, ``5 + 3y``, ``5 + 3.25`` and ``2 x 5 + 3`` is dropped. A bullet (``- 5 + 3``),
the number of an item (``2) 5 + 3``), bold type (``**5 + 3**``), LaTeX's ``$ \( \[`` and a sentence in brackets
(``(as 5 + 3 = 8)``) are understood.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from rewards.parsing.arithmetic import OPERATOR_COMMANDS, OPERATOR_SIGNS, Expression, parse
from rewards.parsing.tokens import MAX_CHARACTERS, MAX_DIGITS, ExpressionError

MAX_TAIL_CHARACTERS = 20_000
"""Only the last characters of a text are searched, about 5,000 tokens: an answer is at the end."""

Equation = tuple[Expression, ...]
"""The sides of ``=`` that are expressions, usually one or two; at least one of them has an operation."""

_DECORATION = re.compile(r"\\[()\[\],;:! ]|\\q?quad|[$`]|^[ \t]*(?:[-+*•·∙–]|[0-9]{1,3}[.)])[ \t]+", re.MULTILINE)
_ARITHMETIC = re.compile(rf"(?:[{OPERATOR_SIGNS}0-9 \t()=]|{OPERATOR_COMMANDS})+")
_GLUED_BEFORE = re.compile(
    r"(?:[\d_.^%}\\√²³]|(?<![A-Za-z])[A-Za-z]|log|ln|sin|cos|tan|mod|[0-9],|(?:[\^_}]|frac|sqrt|binom)\{)$"
    r"|(?<![A-Za-z])[xX][ \t]*$"
)
_GLUED_AFTER = re.compile(
    r"[\d_^%{√²³]|[A-Za-z](?![A-Za-z])|[.,][0-9]|[ \t]*(?:[xX](?![A-Za-z])|\\(?:%|d?frac|sqrt|binom))"
)
"""A word of two or more letters may touch a number, because models forget spaces: ``using14 + 32``."""
_LOOK_BACK = 16
_MINUS = ("-", "−", "–", "\\-")
_RESULT = re.compile(rf"\s*(?P<minus>\\?-|−|–)?\s*(?P<whole>[0-9]{{1,{MAX_DIGITS}}})(?:\.0{{1,{MAX_DIGITS}}})?\s*")


def equations(text: str) -> Iterator[Equation]:
    """Yield the equations, and expressions without ``=``, in the text's last MAX_TAIL_CHARACTERS, from last to first.

    An equation never continues on the next line. Takes linear time, and never raises.
    """
    # The underscore before a cut tail keeps the rest of a cut number from being read as a number.
    tail = text if len(text) <= MAX_TAIL_CHARACTERS else "_" + text[-MAX_TAIL_CHARACTERS:]
    prose = _DECORATION.sub(" ", tail)
    for match in reversed(list(_ARITHMETIC.finditer(prose))):
        equation = _equation(prose, match)
        if any(len(side.postfix) > 1 for side in equation):
            yield equation


def result(side: str) -> int | None:
    """Return the value of a side that is only a whole number, such as ``10``, ``-10.0`` or ``(-10)``; else None."""
    side = side.strip()
    match = _RESULT.fullmatch(side[1:-1] if side.startswith("(") and side.endswith(")") else side)
    return None if match is None else int(match["whole"]) * (-1 if match["minus"] else 1)


def _equation(prose: str, match: re.Match[str]) -> Equation:
    run, sides = match[0], match[0].split("=")
    before = prose[max(0, match.start() - _LOOK_BACK) : match.start()] + run[: len(run) - len(run.lstrip())]
    if _GLUED_BEFORE.search(before):
        sides[0] = ""
    if _GLUED_AFTER.match(prose, match.start() + len(run.rstrip())):
        sides[-1] = ""
    return tuple(expression for side in sides if (expression := _expression(side)) is not None)


def _expression(side: str) -> Expression | None:
    side = side.strip()
    if len(side) > MAX_CHARACTERS:
        return None
    if side.startswith(_MINUS) and (number := result(side)) is not None:
        return Expression((number,))
    try:
        return parse(_undecorated(side))
    except ExpressionError:
        return None


def _undecorated(side: str) -> str:
    """Return a side without bold type, and without the single bracket of a remark such as ``(9 + 7 = 16)``."""
    side = side.lstrip(") ").rstrip("( ").removeprefix("**").removesuffix("**").strip()
    surplus = side.count("(") - side.count(")")
    while surplus > 0 and side.startswith("("):
        side, surplus = side[1:].lstrip(), surplus - 1
    while surplus < 0 and side.endswith(")"):
        side, surplus = side[:-1].rstrip(), surplus + 1
    return side
