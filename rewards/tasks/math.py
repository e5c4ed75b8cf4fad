r"""Grade mathematics whose answer is an expression: a number, a formula, a set, an interval, a matrix, a word.

The answer to a prompt is ``{"answer": "\\frac{1}{2}"}``: the reference in LaTeX or plain text, boxed or not.

The answer of a text is the content of its last pair of answer tags. Without tags it is the last of these:
``\boxed{…}``, ``Answer: …``, ``The answer is …``; words alone do not override a box. In the natural format, if that
answer is missing or cannot be read, it is the last expression near the end of the text.

A verbatim copy of the reference is always right. Otherwise both sides are rewritten into plain LaTeX
(rewards/parsing/latex.py), units are dropped (units.py), and math-verify's parser (Hugging Face) parses both completely
to compare them (equality.py). An answer that cannot be parsed completely, or that is sure to take long (costs.py), is
right only if it has the same spelling as the reference.

- ``correctness``: 1 if the answer equals the reference, otherwise 0.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import cache, lru_cache
from types import ModuleType
from typing import Any

from rewards.parsing.costs import MAX_CHARACTERS, is_costly
from rewards.parsing.extraction import ANNOUNCED, is_natural, last_box, stated_answer, tagged
from rewards.parsing.latex import in_latex, spelling
from rewards.parsing.units import without_currency, without_percent, without_unit, words

PARTS = ("correctness",)

_NUMBER = re.compile(r"[0-9]")
_ANNOUNCED = re.compile(rf"{ANNOUNCED.pattern}(?=\s{{0,8}}[^\n]{{0,200}}[0-9$\\^=])", re.IGNORECASE)
"""An announcement of an answer that is not only words: only this kind overrides a box."""
_IN_DOLLARS = r"\$(?:[^$\\]|\\.){1,300}\$"
_LEADING_MATH = re.compile(
    rf"{_IN_DOLLARS}(?:\s{{0,3}}(?:, ?and|, ?or|,|and|or)\s{{0,3}}{_IN_DOLLARS}){{0,5}}", re.DOTALL
)
_IN_MATH_MODE = re.compile(r"\$\$(.+?)\$\$|\$((?:[^$\\]|\\.)+)\$|\\\((.+?)\\\)|\\\[(.+?)\\\]", re.DOTALL)
_WRAPPED = re.compile(r"\$\$([^$]+)\$\$|\$((?:[^$\\]|\\.)+)\$|\\\((.+)\\\)|\\\[(.+)\\\]", re.DOTALL)
_PLAIN_BOX = re.compile(r"\\boxed ([^\s$]{1,100})")
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+|\n+")
_EXCLAIMED = re.compile(r"(?<![0-9)}\]])!+(?=\s|\Z)")
_TRAILING = re.compile(r"\.(?:\s.*)?\Z|(?<!\\)[,;:]\Z", re.DOTALL)  # no exclamation mark: 5! is 120
_RUN = re.compile(
    r"(?:[^\s]*[0-9\\][^\s]*|(?<![A-Za-z'’])[A-Za-z(\[-])(?:\s{1,2}(?:[-+*/=×·÷−^(]|\\[a-z]+|[^\s]*[0-9\\)\]][^\s]*|[a-z])(?=\s|\Z))*"
)
_PROSE = re.compile(r"(?<![A-Za-z\\{])[A-Za-z]{3,}[ ,]")
"""A word with text after it: the parser would read it as a product of letters."""
_DECIMAL_COMMA = re.compile(r"-?[0-9]+,[0-9]+")
_BASE = re.compile(r"[0-9A-F]_\{?\s*([0-9]{1,2})")
_JOINED_BY = re.compile(r"(?<![A-Za-z])(and|or)(?![A-Za-z])")
_BRACKET_OF_LIST = re.compile(r"\s*(\\\{|\()(?=[^(){}\[\]]*,[^(){}\[\]]*(\\\}|\))\s*\Z)")
_BOTH_CASES = re.compile(r"([a-z])(?=.*(?!\1)(?i:\1))|([A-Z])(?=.*(?!\2)(?i:\2))")


def score(text: str, answer: Mapping[str, Any]) -> dict[str, float]:
    """Return the part of a completion's reward. Raises KeyError without a reference, ValueError if it is empty."""
    written = str(answer["answer"])
    expected = reference(written)
    if is_copy(text, written):
        return {"correctness": 1.0}
    given = stated_expression(text)
    is_right = given is not None and is_equal(given, expected)
    if not is_right and is_natural(answer) and (given is None or not _is_readable(given)):
        is_right = ends_in(text if given is None else given, expected)
    return {"correctness": float(is_right)}


def is_copy(text: str, written: str) -> bool:
    """Return whether the text's answer, in tags or a box, is a verbatim copy of the reference."""
    inside = tagged(text)
    if inside is None:
        box = last_box(text)
        inside = None if box is None else box.text
    return inside is not None and inside.strip() == written.strip()


def stated_expression(text: str) -> str | None:
    """Return the expression that the text states as its answer; None if it states no answer."""
    stated = stated_answer(text, _ANNOUNCED)
    if stated is None:
        stated = stated_answer(text)
    if stated is None:
        return None
    if len(stated) > MAX_CHARACTERS:
        stated = stated[: 2 * MAX_CHARACTERS]  # still too long to be parsed, but cheap to search
    box = last_box(stated)
    if box is not None:
        return box.text
    leading = _LEADING_MATH.match(stated)
    if leading and not stated[leading.end() :].strip(" .,;:!*"):
        return unwrapped(leading[0])
    if leading and re.match(r"[.,;]?\s+(?:[a-z]{2,}|[A-Z])", stated[leading.end() :]):
        return unwrapped(leading[0])  # a remark follows: ``$5$ because $x = 3$``
    return unwrapped(_TRAILING.sub("", stated.strip()))


@lru_cache(maxsize=1024)
def reference(text: str) -> str:
    """Return the expression in the last box of a reference, or else all of it. Raises ValueError if it is empty."""
    box = last_box(text)
    plain_box = None if box is not None else _PLAIN_BOX.search(text)
    expression = box.text if box is not None else plain_box[1] if plain_box is not None else text
    if not expression.strip():
        raise ValueError(f"answer = {text[-200:]!r}: the reference is empty")
    return unwrapped(expression)


def unwrapped(expression: str) -> str:
    """Return the expression without the dollars or brackets that put it into mathematical mode."""
    expression = expression.strip().removeprefix("**").removesuffix("**").strip()
    match = _WRAPPED.fullmatch(expression.removesuffix("."))
    return next(group for group in match.groups() if group is not None).strip() if match else expression


def is_equal(given: str, expected: str) -> bool:
    """Return whether the expression equals the reference."""
    if len(given) > 2 * MAX_CHARACTERS or not given.strip():
        return False
    latex, wanted = in_latex(without_currency(given)), in_latex(without_currency(expected))
    if latex and spelling(latex) == spelling(wanted):
        return True
    if words(latex) is not None and words(wanted) is not None:
        return words(latex) == words(wanted)
    if is_costly(latex) or is_costly(wanted) or contradicts(latex, wanted):
        return False
    fold_case = not (_BOTH_CASES.search(latex) or _BOTH_CASES.search(wanted))
    are_percent = without_percent(latex)[1] and without_percent(wanted)[1]
    left, right = (list(readings(side, fold_case, not are_percent)) for side in (wanted, latex))
    return any(_is_same(one, other) for one in left for other in right)


def contradicts(latex: str, wanted: str) -> bool:
    """Return whether two answers differ in something that their parsed expressions do not show.

    These are the base of a number, ``and`` against ``or`` between relations, and a set against a pair.
    """
    bases = [set(_BASE.findall(side)) for side in (latex, wanted)]
    joined = [set(_JOINED_BY.findall(side)) if re.search(r"[<>]|\\[lg]e ", side) else set() for side in (latex, wanted)]
    brackets = [{match[1] for match in _BRACKET_OF_LIST.finditer(side)} for side in (latex, wanted)]
    return any(a and b and a != b for a, b in (bases, joined, brackets))


def readings(latex: str, fold_case: bool, is_share: bool) -> Iterator[Any]:
    r"""Yield the possible meanings of a rewritten answer: unchanged, without its unit, ``10\%`` also as a tenth."""
    bare, has_percent = without_percent(latex)
    whole = _equality().parsed(bare, fold_case)
    if whole is not None:
        yield whole
        if has_percent and is_share:
            yield whole / 100
    unit_free = without_unit(bare)
    if unit_free != bare and (measured := _equality().parsed(unit_free, fold_case)) is not None:
        yield measured
    if _DECIMAL_COMMA.fullmatch(bare):
        yield _equality().parsed(bare.replace(",", "."), fold_case)


def _is_same(expected: Any, given: Any) -> bool:
    try:
        return bool(_equality().is_same(expected, given))
    except Exception:  # noqa: BLE001  SymPy raises many errors on nonsense: an answer that cannot be compared is wrong
        return False


def _is_readable(expression: str) -> bool:
    latex = in_latex(without_currency(expression))
    if _PROSE.search(latex):
        return False
    return is_costly(latex) or any(True for _ in readings(latex, True, False))


def ends_in(text: str, expected: str) -> bool:
    """Return whether the last expression near the end of the text equals the reference."""
    last = last_expression(text)
    # In ``$\\sum_{k=1}^4 k = 10$`` the result counts too.
    return bool(last) and (is_equal(last, expected) or ("=" in last and is_equal(last.rpartition("=")[2], expected)))


def last_expression(text: str) -> str:
    """Return the last text in mathematical mode, unless numbers follow it; or else the last numbers of a sentence."""
    end = text.rstrip()[-MAX_CHARACTERS:]
    in_math_mode = list(_IN_MATH_MODE.finditer(end))
    if in_math_mode and not _NUMBER.search(end, in_math_mode[-1].end()):
        return unwrapped(in_math_mode[-1][0])
    sentences = [sentence for sentence in _SENTENCE_END.split(end) if _NUMBER.search(sentence) or "\\" in sentence]
    if not sentences:
        return ""
    runs = [run[0] for run in _RUN.finditer(_EXCLAIMED.sub("", sentences[-1])) if _NUMBER.search(run[0])]
    return runs[-1].strip(" ,;:!") if runs else ""


@cache
def _equality() -> ModuleType:
    from rewards.parsing import equality  # SymPy takes a second to import

    return equality
