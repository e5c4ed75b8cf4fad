r"""Find mathematical answers that are sure to be slow to parse or compare, from their rewritten text alone.

Only the spelling of such answers is compared. All other answers have a bounded cost: a number has at most 30,000
digits, and rewards/parsing/equality.py evaluates expressions instead of transforming them.
"""

from __future__ import annotations

import math
import re

MAX_CHARACTERS = 300
"""Longest answer that is parsed. The longest reference of MATH-500 has fewer than 150 characters."""
MAX_NESTING = 16
MAX_ROUND_NESTING = 7
"""The parser's time doubles with every few levels of nested round brackets: 8 levels take most of a second."""
MAX_DIGITS = 50
MAX_POWER = 10_000
"""Largest exponent, or product of nested ones: ``2^{2010}`` is parsed; ``9^{9^9}`` and ``(x^{999})^{999}`` are not."""
MAX_FACTORIAL = 1_000

_NUMBER = re.compile(r"[0-9]+")
_COSTLY = re.compile(
    rf"[0-9]{{{MAX_DIGITS + 1}}}|\\(?:sum|prod|[io]?i?int|lim|limsup|liminf|bigcup|bigcap)(?![A-Za-z])|!\s*!"
)
_FACTORIAL = re.compile(r"([0-9]+)\s*!|\\(?:binom|choose)\s*\{?([0-9]+)")
_BINOMIAL = re.compile(r"\\(?:binom|choose)(?![A-Za-z])")
_EXPONENT = re.compile(r"\^\s*(?:(?P<opening>[{(])|(?P<number>-?[0-9]+))?")
_RAISED_NUMBER = re.compile(r"[0-9)}]\s*(?:\^|!)|binom")
_RAISED_AGAIN = re.compile(r"[})]?\s*(?:\^|!)")


def is_costly(latex: str) -> bool:
    """Return whether parsing or comparing is sure to be slow: too long, too nested, too large powers or factorials."""
    if len(latex) > MAX_CHARACTERS or _COSTLY.search(latex) or nesting(latex) > MAX_NESTING:
        return True
    if nesting(latex, "(", ")") > MAX_ROUND_NESTING:
        return True
    if any(int(a or b) > MAX_FACTORIAL for a, b in _FACTORIAL.findall(latex)):
        return True
    if _BINOMIAL.search(latex) and ("^" in latex or "!" in latex):
        return True
    return largest_power(latex) > MAX_POWER


def nesting(latex: str, opening: str = "{[(", closing: str = "}])") -> int:
    """Return how deep the brackets are nested, whether they match or not."""
    depth = deepest = 0
    for character in latex:
        depth += (character in opening) - (character in closing)
        deepest = max(deepest, depth)
    return deepest


def largest_power(latex: str) -> float:
    """Return the largest exponent. The exponent of a bracket is multiplied by the largest exponent inside it.

    The result is infinite if an exponent is itself a power of a number or a factorial, or if a bracket with powers,
    factorials or large products has a factorial.
    """
    levels, closed, position = [1.0], 1.0, 0
    while position < len(latex):
        character = latex[position]
        if character in "{[(":
            levels.append(1.0)
        elif character in "}])" and len(levels) > 1:
            closed = levels.pop()
            levels[-1] = max(levels[-1], closed)
            if latex[position + 1 :].lstrip(" })]").startswith("!"):
                inside = _inside(latex, position)
                if "^" in inside or "!" in inside or _product(inside) > MAX_FACTORIAL:
                    return math.inf
        elif character == "^":
            match = _EXPONENT.match(latex, position)
            assert match is not None
            exponent, end = _exponent(latex, match)
            if _RAISED_NUMBER.search(exponent) or _RAISED_AGAIN.match(latex, end) or exponent.count("^") > 1:
                return math.inf
            is_bracket = position > 0 and latex[:position].rstrip()[-1:] in tuple("}])")
            levels[-1] = max(levels[-1], _product(exponent) * (closed if is_bracket else 1))
            closed = levels[-1]
            position = max(position + 1, end)
            continue
        position += 1
    return max(levels)


def _product(text: str) -> int:
    return math.prod(max(1, int(number)) for number in _NUMBER.findall(text))


def _inside(latex: str, closing: int) -> str:
    """Return the content of the bracket that ends at a position."""
    depth = 0
    for position in range(closing, -1, -1):
        depth += (latex[position] in "}])") - (latex[position] in "{[(")
        if depth == 0:
            return latex[position + 1 : closing]
    return latex[:closing]


def _exponent(latex: str, match: re.Match[str]) -> tuple[str, int]:
    """Return an exponent and its end position. It is a number, a letter, or the text up to its closing brace."""
    start = match.end()
    if match["number"]:
        return match["number"], start
    if not match["opening"]:
        return latex[start : start + 1], start + 1
    depth = 1
    for position in range(start, len(latex)):
        depth += (latex[position] in "{(") - (latex[position] in "})")
        if depth == 0:
            return latex[start:position], position + 1
    return latex[start:], len(latex)
