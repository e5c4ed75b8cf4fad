r"""Grade word problems whose answer is a number, such as GSM8K.

The answer to a prompt is ``{"answer": "72", "steps": ["24", "72"]}``: the reference, as a number or as a text that
states a number, and the results of the steps of the reference solution, for the general part ``process``.

The answer of a text is the content of its last pair of answer tags. Without tags it is the last of these: ``#### 72``
or ``A: 72`` at the beginning of a line, ``The answer is 72``, ``Answer: 72``, ``\boxed{72}``. In the natural format it
is the last number of the text, in any context.

An answer must name exactly one number. ``24 + 48 = 72`` names the number after the last equals sign; ``72 clips`` and
``$72.00`` are 72; ``72 or 73``, ``72; 73``, ``48 + 24``, ``> 72`` and ``not 72`` name no number. Inside tags, a box or
an announcement decides, and in ``72? No, 73`` the last number counts. Numbers are compared exactly: 0.33 is not 1/3.
rewards/parsing/numerals.py lists the spellings of numbers.

- ``correctness``: 1 if the number is the reference, otherwise 0.
- ``closeness``: ``1 / (1 + 10 e)``, where e is the relative error ``|x - reference| / |reference|`` (for a reference of
  0, ``|x|``): 1 at equality, 0.5 at 10%, 0.09 at 100%; 0 without an answer. It is for shaping: use a small weight.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from fractions import Fraction
from functools import lru_cache
from typing import Any

from rewards.parsing.extraction import (
    ANNOUNCED,
    after_retraction,
    from_box,
    is_natural,
    last_announced,
    stated_answer,
    tagged,
)
from rewards.parsing.numerals import begins_with_number, last_number, numbers
from rewards.tasks.countdown import closeness

PARTS = ("correctness", "closeness")

_LINE_START = r"^[ \t]{0,8}[*_]{0,3}"
_ANNOUNCED = re.compile(
    # Four hashes also begin headings, ``#### Step 2`` and ``#### 2. Compute``, whose number is not an answer.
    rf"(?:{_LINE_START}\#\#\#\#[ \t]{{0,3}}(?=[$\\({{*+−-]{{0,4}}[.0-9])(?![0-9]{{1,2}}[.):][ \t]*[A-Za-z*])"
    rf"|{_LINE_START}(?:\#\#\#\#[ \t]{{0,3}})?A[*_]{{0,3}}:[*_]{{0,3}}|{ANNOUNCED.pattern})"
    # A line without a number does not announce one: ``The answer is clear now.``
    r"(?=\s{0,8}[^\n]{0,200}[0-9])",
    re.IGNORECASE | re.MULTILINE,
)
_EQUALS = re.compile(r"=|≈|\\approx\b")
_REMARK = re.compile(r"[.;!?](?=\s)|\n|,?\s(?=(?:because|since)\b)|\s(?=\([^()]{0,200}\)\W{0,3}$)", re.IGNORECASE)
_CLAUSE = re.compile(r"[.;!?](?=\s)|\n")
_HEDGE = re.compile(
    r"[\W_]{0,6}(?:or|and|also|maybe|perhaps|possibly|alternatively|either|otherwise|could|might)\b", re.I
)
_CHOICE = re.compile(r"\b(?:or|and)\b|;|,\s|\n", re.IGNORECASE)
_OTHER_DENIED = re.compile(
    r"\b(?:not|rather than|instead of) \$?(?:\\boxed\{)?[-−$]?[0-9][0-9.,]{0,40}"
    r"[^,;.!?\n]{0,40}?(?=\bbut\b|[,;.!?\n]|$)",
    re.IGNORECASE,
)
_NEGATION = re.compile(r"\b(?:not|cannot|never|neither|nor|wrong|incorrect)\b|n['’]t\b", re.IGNORECASE)
_BOUND = re.compile(
    r"(?:(?<![-=<>])[<>]=?|[≤≥]|\\(?:[lg]eq?|[lg]t)\b|\b(?:more|less|fewer|greater|higher|lower) than)"
    r"[\s$]{0,3}[-−.]?[0-9](?![^<>]{0,40}>)|[0-9] or (?:more|less|fewer|greater|higher|lower)\b",
    re.IGNORECASE,
)
"""A number that is only a bound on the answer."""
MAX_ANOTHER_WORDS = 3
"""A clause after an answer with up to this many words is another answer, ``; 73 paper clips``; a longer clause is a
remark."""


def score(text: str, answer: Mapping[str, Any]) -> dict[str, float]:
    """Return the parts of a reward. Raises KeyError without a reference, ValueError if it is not one number."""
    expected = reference(str(answer["answer"]))
    given = last_number(text) if is_natural(answer) else stated_number(text)
    if given is None:
        return {"correctness": 0.0, "closeness": 0.0}
    return {"correctness": float(given == expected), "closeness": closeness(given, expected)}


def check_reference(answer: Mapping[str, Any]) -> None:
    """Raise ValueError if the reference is not exactly one number."""
    text = str(answer["answer"])
    if not (text.isascii() and text.isdigit()):  # most references are plain digits, which needs no parsing
        reference(text)


def stated_number(text: str) -> Fraction | None:
    """Return the number that the text states as its answer; None if it states no readable number."""
    inside = tagged(text)
    stated = stated_answer(text, _ANNOUNCED) if inside is None else _decisive(inside.strip())
    return None if stated is None else one_number(stated)


def one_number(stated: str) -> Fraction | None:
    """Return the number that a stated answer names; None unless it names exactly one."""
    stated = _OTHER_DENIED.sub(" ", after_retraction(stated))
    begins = begins_with_number(stated)
    if begins:  # a remark may follow: ``72. She sold 48 in April.``
        first, *rest = _REMARK.split(stated, maxsplit=1)
        stated = stated if rest and _names_another(first, rest[0]) else first
    if _NEGATION.search(stated) or _BOUND.search(stated):
        return None
    sides = [side for side in map(numbers, _EQUALS.split(stated)) if side]
    if not sides or len(set(sides[-1])) > 1:
        return None
    number = sides[-1][0]
    if not begins or sides[0][0] == number:
        return number
    # ``72 clips = 6 dozen`` names two numbers; ``48 + 24 = 72`` begins with a calculation.
    return number if len(numbers(_CHOICE.split(_EQUALS.split(stated, maxsplit=1)[0])[0])) > 1 else None


def _decisive(inside: str) -> str:
    """Return the content of tags from its box on, or else from its announced answer on, or else all of it."""
    boxed = from_box(inside)
    announced = last_announced(inside, _ANNOUNCED) if boxed == inside else None
    return boxed if announced is None else announced.text + inside[announced.end :]


def _names_another(first: str, rest: str) -> bool:
    """Return whether the text after an answer is another answer, not a remark on it or the same number again."""
    clause = _CLAUSE.split(rest.strip(" .;!?\n"), maxsplit=1)[0]
    named = numbers(clause)
    if len(named) != 1 or named == numbers(first)[:1]:
        return False
    max_words = 1 if clause.startswith("(") else MAX_ANOTHER_WORDS
    return bool(_HEDGE.match(clause)) or (begins_with_number(clause) and len(clause.split()) <= max_words)


@lru_cache(maxsize=1024)
def reference(text: str) -> Fraction:
    """Return the number of a reference: the reference itself, or the number after ``####`` or ``A:`` in a solution.

    Raises ValueError if that is not exactly one number.
    """
    number = one_number(re.split(r"####|(?m:^[ \t]*A:)", text)[-1].strip())
    if number is None:
        raise ValueError(f"answer = {text[-200:]!r}: the reference must be one number, such as 72, 1,234.50 or 1/2")
    return number
