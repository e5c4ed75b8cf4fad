r"""Grade mathematics whose answer is an expression: a number, a formula, a set, an interval, a matrix, a word.

The answer to a prompt is ``{"answer": "\\frac{1}{2}"}``: the reference in LaTeX or plain, boxed or not.

The answer of a text is, in this order: what its last pair of answer tags holds; or else whichever stands last of
``\boxed{…}``, ``Answer: …`` and ``The answer is …``. In the natural format, and without one of those, it is the last
expression near the end of the text, as math-verify finds it.

math-verify (Hugging Face) parses both sides with SymPy and decides whether they are equal; before it is asked, two
spellings that differ by spaces only are equal. Its own time limits use signals, which fail off the main thread, and are
switched off: the pool that calls ``score`` kills what hangs. What is sure to take long is refused beforehand, and then
is right only where it is spelled as the reference: see ``is_costly``.

- ``correctness``: 1 if the answer equals the reference, otherwise 0.
"""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Mapping
from functools import cache, lru_cache
from types import ModuleType
from typing import Any

from rewards.parsing.extraction import is_natural, last_box, stated_answer

PARTS = ("correctness",)

MAX_CHARACTERS = 300
"""Longest answer that is parsed. The longest reference of MATH-500 has under 150."""
MAX_NESTING = 16
MAX_DIGITS = 50
MAX_POWER = 10_000
"""Largest product of all numbers in exponents: ``2^{2010}`` is parsed, ``9^{9^9}`` and ``(x^{999})^{999}`` are not."""
MAX_SYMBOLIC_POWER = 12
"""Largest product of exponents where brackets with a variable are raised: comparing may expand ``(a+b+c+d)^{99}``."""
MAX_FACTORIAL = 1_000

_NUMBER = re.compile(r"[0-9]+")
_COSTLY = re.compile(
    rf"[0-9]{{{MAX_DIGITS + 1}}}|\\(?:sum|prod|[io]?i?int|lim|limsup|liminf|bigcup|bigcap)(?![A-Za-z])"
    r"|!\s*!|[^0-9\s\\]\s*!"
)
_FACTORIAL = re.compile(r"([0-9]+)\s*!|\\[dt]?binom\s*\{?([0-9]+)")
_EXPONENT = re.compile(r"(?:\^|\*\*)\s*(?:(?P<opening>[{(])|(?P<number>-?[0-9]+))?")
_RAISED_NUMBER = re.compile(r"[0-9)}]\s*(?:\^|\*\*|!)|binom")
_RAISED_AGAIN = re.compile(r"[})]?\s*(?:\^|\*\*|!)")
_COMMAND = re.compile(r"\\[A-Za-z]+")
_RAISED_BRACKETS = re.compile(r"[)}\]]\s*(?:\^|\*\*)")
_VARIABLE = re.compile(r"[A-Za-z]")
_SPACING = re.compile(r"\\[,;:! ]|\\(?:left|right|displaystyle)(?![A-Za-z])|[\s~]+")
_IN_DOLLARS = r"\$(?:[^$\\]|\\.){1,300}\$"
_LEADING_MATH = re.compile(
    rf"{_IN_DOLLARS}(?:\s{{0,3}}(?:, ?and|, ?or|,|and|or)\s{{0,3}}{_IN_DOLLARS}){{0,5}}", re.DOTALL
)
_WRAPPED = re.compile(r"\$\$(.+)\$\$|\$((?:[^$\\]|\\.)+)\$|\\\((.+)\\\)|\\\[(.+)\\\]", re.DOTALL)
_PLAIN_BOX = re.compile(r"\\boxed ([^\s$]{1,100})")
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+|\n+")
_EXCLAIMED = re.compile(r"(?<![0-9)}\]])!+(?=\s|\Z)")
_TRAILING = re.compile(r"\.(?:\s.*)?\Z|(?<!\\)[,;:]\Z", re.DOTALL)  # no exclamation mark: 5! is 120


def score(text: str, answer: Mapping[str, Any]) -> dict[str, float]:
    """Return the part of a completion's reward. Raises KeyError without a reference, ValueError when it is empty."""
    expected = reference(str(answer["answer"]))
    given = stated_expression(text)
    if given is None and is_natural(answer):
        return {"correctness": float(ends_in(text, expected))}
    return {"correctness": float(given is not None and is_equal(given, expected))}


def stated_expression(text: str) -> str | None:
    """Return the expression that the text states as its answer; None when it states none."""
    stated = stated_answer(text)
    if stated is None:
        return None
    if len(stated) > MAX_CHARACTERS:
        stated = stated[: 2 * MAX_CHARACTERS]  # still too long, and cheap
    box = last_box(stated)
    if box is not None:
        return box.text
    leading = _LEADING_MATH.match(stated)
    return unwrapped(leading[0] if leading else _TRAILING.sub("", stated.strip()))


@lru_cache(maxsize=1024)
def reference(text: str) -> str:
    """Return the expression of a reference: its last box's, or else all of it. Raises ValueError when it is empty."""
    box = last_box(text)
    plain_box = None if box is not None else _PLAIN_BOX.search(text)
    expression = box.text if box is not None else plain_box[1] if plain_box is not None else text
    if not expression.strip():
        raise ValueError(f"answer = {text[-200:]!r}: the reference is empty")
    return unwrapped(expression)


def unwrapped(expression: str) -> str:
    """Return the expression without the dollars or brackets that put it into mathematical mode."""
    expression = expression.strip().strip("*").strip()
    match = _WRAPPED.fullmatch(expression)
    return next(group for group in match.groups() if group is not None).strip() if match else expression


def is_equal(given: str, expected: str) -> bool:
    """Return whether the expression equals the reference. May take long on what ``is_costly`` does not foresee."""
    if not given.strip():
        return False
    if spelling(given) == spelling(expected):
        return True
    if is_costly(given):
        return False
    return _verify(_parsed_reference(expected), _parse(given))


def ends_in(text: str, expected: str) -> bool:
    """Return whether the last expression near the end of the text equals the reference."""
    last, is_formula = last_expression(text)
    if is_costly(last):
        last = last.rpartition("=")[2].strip()  # of ``$\\sum_{k=1}^4 k = 10$`` the result may be cheap
    if not last or is_costly(last):
        return False
    # Prose is left as it is: math-verify finds the number in it.
    given = f"${last}$" if is_formula or _COMMAND.search(last) else last
    return _verify(_parsed_reference(expected), _math_verify().parse(given, parsing_timeout=None))


def last_expression(text: str) -> tuple[str, bool]:
    """Return what is in mathematical mode last, unless numbers follow it; or else the last sentence with a number.

    The second value tells whether it is from mathematical mode.
    """
    end = text.rstrip()[-MAX_CHARACTERS:]
    in_math_mode = list(_WRAPPED.finditer(end))
    if in_math_mode and not _NUMBER.search(end, in_math_mode[-1].end()):
        return unwrapped(in_math_mode[-1][0]), True
    sentences = [sentence for sentence in _SENTENCE_END.split(end) if _NUMBER.search(sentence) or "\\" in sentence]
    return (_EXCLAIMED.sub("", sentences[-1]) if sentences else ""), False


def spelling(expression: str) -> str:
    """Return the expression without spaces and spacing commands."""
    return _SPACING.sub("", expression)


def is_costly(expression: str) -> bool:
    """Return whether parsing or comparing is sure to be slow: too long or nested, or too large powers or factorials."""
    if len(expression) > MAX_CHARACTERS or _COSTLY.search(expression):
        return True
    if any(int(a or b) > MAX_FACTORIAL for a, b in _FACTORIAL.findall(expression)):
        return True
    is_symbolic = _RAISED_BRACKETS.search(expression) and _VARIABLE.search(_COMMAND.sub("", expression))
    limit = MAX_SYMBOLIC_POWER if is_symbolic else MAX_POWER
    return nesting(expression) > MAX_NESTING or largest_power(expression) > limit


def nesting(expression: str) -> int:
    """Return how deep braces, brackets and parentheses are nested, whether they match or not."""
    depth = deepest = 0
    for character in expression:
        depth += (character in "{[(") - (character in "}])")
        deepest = max(deepest, depth)
    return deepest


def largest_power(expression: str) -> float:
    """Return the product of all numbers in exponents; infinite where an exponent is itself a power or a factorial."""
    numbers: list[int] = []
    for match in _EXPONENT.finditer(expression):
        exponent, end = _exponent(expression, match)
        if _RAISED_NUMBER.search(exponent) or _RAISED_AGAIN.match(expression, end):
            return math.inf
        numbers += [max(1, abs(int(number))) for number in _NUMBER.findall(exponent)]
    return math.prod(numbers)


def _exponent(expression: str, match: re.Match[str]) -> tuple[str, int]:
    """Return an exponent and where it ends: a number, a letter, or what reaches to the end of its braces."""
    start = match.end()
    if match["number"]:
        return match["number"], start
    if expression[start : start + 1].isalpha() and not match["opening"]:
        return expression[start], start + 1
    depth = 1
    for position in range(start, len(expression)):
        depth += (expression[position] in "{(") - (expression[position] in "})")
        if depth == 0:
            return expression[start:position], position
    return expression[start:], len(expression)


def _parse(expression: str) -> list[Any]:
    has_math_mode = "$" in expression.replace("\\$", "")
    wrapped = expression if has_math_mode else f"${' '.join(expression.split())}$"
    parsed: list[Any] = _math_verify().parse(wrapped, parsing_timeout=None)
    return parsed


_parsed_reference = lru_cache(maxsize=256)(_parse)


def _verify(expected: list[Any], given: list[Any]) -> bool:
    return bool(_math_verify().verify(expected, given, timeout_seconds=None))


@cache
def _math_verify() -> ModuleType:
    import math_verify

    # It warns that it has no time limit of its own, which is meant.
    logging.getLogger("math_verify").setLevel(logging.ERROR)
    return math_verify
