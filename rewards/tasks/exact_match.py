"""Grade questions whose answer is a word, a few words or a list of words, such as bAbI's.

The answer to a prompt is ``{"answer": "kitchen"}``. A list such as ``{"answer": ["s,e", "south, east"]}`` gives aliases
that are all right. ``"ordered": true`` is optional: the order of a list then matters, as for bAbI's paths.

The answer of a text is the content of its last pair of answer tags. Without tags it is the last of these: ``Answer:
kitchen``, ``The answer is the kitchen``, a box. Without those, in the natural format only, it is the end of the text:
``So Mary is in the kitchen.`` answers ``kitchen``, unless the sentence is negated (``not``, ``never``).

Two answers are the same if their words, operators and signs are the same (rewards/parsing/words.py). Case, punctuation,
spaces and the articles a, an, the do not count, but ``C`` is not ``C++``, ``x - y`` is not ``x + y``, ``1/2`` is not
``1 2`` and ``50%`` is not ``50``. A currency may be missing, but it must not be a different one.

A reference with commas is a list (``apple,football``). The items of a completion's list may be separated by commas,
semicolons, line breaks, or ``and``, in any order. In ``Garden? No, kitchen`` the last answer counts. If another answer
follows the first, as in ``Kitchen. Or the garden.``, there is no answer.

- ``correctness``: 1 if the answer is the reference or one of its aliases, otherwise 0.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

from rewards.parsing.extraction import after_retraction, from_box, is_natural, stated_answer
from rewards.parsing.words import without_bullets, words_of

PARTS = ("correctness",)

MAX_CHARACTERS = 1_000
"""Longest answer that is compared; a longer answer is wrong."""

_BEFORE_OPERAND = frozenset(["<=", ">=", "!=", *"-+*/^<>√~±"])
"""A sign right before an operand belongs to it: ``-5`` does not end in 5."""
_ANOTHER = re.compile(
    r"\W{0,4}(?:(?:or|and|also|maybe|perhaps|possibly|alternatively|either|no)\b|(?:(?:an?|the)\s)?[^\s]{1,40}\s{0,4}\Z)",
    re.I,
)
"""Another answer after the first: a single word, or text that begins with ``or`` and the like."""
_CURRENCY = re.compile(r"[€£¥₹$](?=\s?[0-9.])|(?<=[0-9])\s?[€£¥₹$]")
_COMMA = re.compile(r",(?!(?<=[0-9],)[0-9]{3}(?![0-9]))")
"""A comma that is not a thousands separator, as in ``1,200``."""
_SEPARATOR = re.compile(rf"{_COMMA.pattern}|[;\n]|\band\b|\s&\s", re.IGNORECASE)
_SENTENCE_END = re.compile(r"[.!?](?=\s)")
_DENIAL = re.compile(r"\b(?:not|no longer|never|neither|nor)\b|n['’]t\b", re.IGNORECASE)

_SIGNS_LEFT_OUT = {code: None for code in range(128) if not chr(code).isalnum()}

Parts = tuple[tuple[str, ...], ...]
"""The words of each part of an answer; one part unless it is a list."""


def score(text: str, answer: Mapping[str, Any]) -> dict[str, float]:
    """Return the part of a completion's reward. Raises KeyError without a reference, ValueError for an empty one."""
    references = answer["answer"] if isinstance(answer["answer"], list | tuple) else [answer["answer"]]
    ordered = bool(answer.get("ordered", False))
    given = stated_answer(text)
    if given is not None:
        is_correct = any(is_same(given, str(reference), ordered) for reference in references)
    else:
        is_correct = is_natural(answer) and any(ends_in(text, str(reference), ordered) for reference in references)
    return {"correctness": float(is_correct)}


def is_same(given: str, reference: str, ordered: bool) -> bool:
    """Return whether two answers are the same. Raises ValueError if the reference has no words."""
    expected = _expected(reference)
    if not expected:
        raise ValueError(f"answer = {reference!r}: the reference is empty")
    if len(given) > MAX_CHARACTERS:
        return False
    for stated in _readings(given):
        for separator in _separators(expected):
            items = parts(stated, separator)
            if items == expected or (len(items) > 1 and not ordered and sorted(items) == sorted(expected)):
                return not _has_another_currency(given, reference)
    return False


def _readings(given: str) -> Iterator[str]:
    r"""Yield the readings of a stated answer: all of it, a box in it, or its first sentence if no other answer follows.

    ``The kitchen. Mary went there.`` answers in its first sentence, but ``Kitchen? No, garden`` does not.
    """
    yield given
    stated = after_retraction(from_box(given))
    if stated != given:
        yield stated
    first, *rest = _SENTENCE_END.split(stated, maxsplit=1)
    if rest and not _ANOTHER.match(rest[0]):
        yield first
    if given.endswith("!"):
        yield given.rstrip("!")


def _has_another_currency(given: str, reference: str) -> bool:
    """Return whether both name a currency, but different ones."""
    ours, theirs = ({sign.strip() for sign in _CURRENCY.findall(text)} for text in (given, reference))
    return bool(ours and theirs and ours != theirs)


def ends_in(text: str, reference: str, ordered: bool) -> bool:
    """Return whether the last sentence of a text ends in the reference, without a negation or an ``or`` before it."""
    end = text.rstrip()[-MAX_CHARACTERS:]
    sentence = _SENTENCE_END.split(end.rpartition("\n")[2])[-1]
    expected = _expected(reference)
    if not _may_hold(sentence, expected) or _DENIAL.search(sentence):
        return False
    for separator in _separators(expected):
        last = parts(sentence, separator)[-len(expected) :]
        if expected and len(last) == len(expected) and _end_in(last, expected, ordered):
            return True
    return False


def _may_hold(sentence: str, expected: Parts) -> bool:
    """Return False if the expected words cannot be in the sentence. This cheap check answers most cases.

    ``parts`` drops signs and spaces, and adds letters and digits only for ``&``, LaTeX and characters outside ASCII.
    """
    if not sentence.isascii() or "\\" in sentence or "&" in sentence:
        return True
    held = sentence.translate(_SIGNS_LEFT_OUT).casefold()
    return all(word.translate(_SIGNS_LEFT_OUT) in held for word in expected[-1]) if expected else False


def _end_in(last: Parts, expected: Parts, ordered: bool) -> bool:
    """Return whether the last parts of a sentence are the expected ones; the first may have more words before it."""
    first, *others = last
    for begun in expected[:1] if ordered else expected:
        rest = list(expected)
        rest.remove(begun)
        before, ending = first[: -len(begun)], first[-len(begun) :]
        is_operand = begun[0][0].isdigit() or len(begun[0]) == 1
        is_partial = before[-1:] == ("or",) or (is_operand and not _BEFORE_OPERAND.isdisjoint(before[-1:]))
        if ending == begun and not is_partial and (others == rest or (not ordered and sorted(others) == sorted(rest))):
            return True
    return False


@lru_cache(maxsize=1024)
def _expected(reference: str) -> Parts:
    """Return the parts of a reference. It is cached, because all completions of a group are compared with it."""
    return parts(reference, _COMMA)


def _separators(expected: Parts) -> tuple[re.Pattern[str] | None, ...]:
    return (_COMMA, _SEPARATOR) if len(expected) > 1 else (None,)


def parts(answer: str, separator: re.Pattern[str] | None) -> Parts:
    """Return the words of each part of the answer, without empty parts. Without a separator the answer is one part."""
    plain = without_bullets(answer)
    if separator is None:
        words = words_of(plain)
        return (words,) if words else ()
    return tuple(words for words in map(words_of, separator.split(plain)) if words)
