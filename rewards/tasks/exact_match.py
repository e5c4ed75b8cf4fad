"""Grade questions whose answer is a word, a few words or a list of them, such as bAbI's.

The answer to a prompt is ``{"answer": "kitchen"}``, or with aliases, any of which is right, ``{"answer": ["s,e",
"south, east"]}``; and optionally ``"ordered": true``, when the order of a list matters, as for bAbI's paths.

The answer of a text is, in this order: what its last pair of answer tags holds; or else whichever stands last of
``Answer: kitchen``, ``The answer is the kitchen`` and a box. In the natural format, and without one of those, it is the
end of the text: ``So Mary is in the kitchen.`` answers ``kitchen``, unless that sentence denies (``not``, ``never``).

Two answers are the same when their words are: case, punctuation, spaces and the articles a, an, the do not count (as in
SQuAD's exact match), nor do accents' encodings or the commas of thousands. A reference with commas is a list
(``apple,football``); the parts of a given list may be separated by commas, semicolons, line breaks, or ``and``, and may
come in any order.

- ``correctness``: 1 if the answer is the reference or one of its aliases, otherwise 0.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from typing import Any

from rewards.parsing.extraction import is_natural, stated_answer

PARTS = ("correctness",)

MAX_CHARACTERS = 1_000
"""Longest answer that is looked at; a longer one is wrong."""

_ARTICLES = frozenset({"a", "an", "the"})
_COMBINING = "".join(re.escape(c) for c in map(chr, range(0x300, 0x10000)) if unicodedata.category(c) in ("Mn", "Mc"))
"""Characters that stand with a letter, such as the vowels of Hindi and Thai; they are no letters to ``\\w``."""
_LETTERS = rf"(?:[^\W_][{_COMBINING}]*)+"
_WORD = re.compile(rf"{_LETTERS}(?:['.]{_LETTERS})*|[-+](?=[0-9])")
_COMMAND = re.compile(r"\\[a-zA-Z]{1,20}(?=\{)")
_COMMA = re.compile(r",(?!(?<=[0-9],)[0-9]{3}(?![0-9]))")
"""But not that of ``1,200``."""
_SEPARATOR = re.compile(rf"{_COMMA.pattern}|[;\n]|\band\b", re.IGNORECASE)
_THOUSANDS = re.compile(r"(?<=[0-9]),(?=[0-9]{3}(?![0-9]))")
_SENTENCE_END = re.compile(r"[.!?](?=\s)")
_DENIAL = re.compile(r"\b(?:not|no longer|never|neither|nor)\b|n['’]t\b", re.IGNORECASE)

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
    """Return whether two answers are the same. Raises ValueError when the reference has no words."""
    expected = parts(reference, _COMMA)
    if not expected:
        raise ValueError(f"answer = {reference!r}: the reference is empty")
    if len(given) > MAX_CHARACTERS:
        return False
    # ``The kitchen. Mary went there.``: only the first sentence answers.
    for stated in (given, _SENTENCE_END.split(given, maxsplit=1)[0]):
        for separator in (_COMMA, _SEPARATOR) if len(expected) > 1 else (None,):
            found = parts(stated, separator)
            if found == expected or (not ordered and sorted(found) == sorted(expected)):
                return True
    return False


def ends_in(text: str, reference: str, ordered: bool) -> bool:
    """Return whether the last sentence of a text ends in the reference, and neither denies it nor leaves a choice."""
    end = text.rstrip()[-MAX_CHARACTERS:]
    sentence = _SENTENCE_END.split(end.rpartition("\n")[2])[-1]
    if _DENIAL.search(sentence):
        return False
    expected, words = parts(reference, _COMMA), list(_words(sentence))
    if not expected:
        return False
    joined = [word for part in expected for word in part]
    if len(expected) > 1:
        joined, words = ([word for word in some if word != "and"] for some in (joined, words))
    before, found = words[: -len(joined)], words[-len(joined) :]
    is_choice = before[-1:] == ["or"]
    return not is_choice and (
        found == joined or (not ordered and len(expected) > 1 and sorted(found) == sorted(joined))
    )


def parts(answer: str, separator: re.Pattern[str] | None) -> Parts:
    """Return the words of the answer, or of each of its parts; parts without words are left out."""
    pieces = separator.split(answer) if separator else [answer]
    return tuple(words for words in map(_words, pieces) if words)


def _words(text: str) -> tuple[str, ...]:
    """Return the words in lower case without articles, unless there is nothing else."""
    plain = unicodedata.normalize("NFKC", _COMMAND.sub(" ", text)).casefold().replace("’", "'")
    plain = _THOUSANDS.sub("", plain)
    words = tuple(_WORD.findall(plain)) or tuple(plain.split())  # signs alone are their own words
    return tuple(word for word in words if word not in _ARTICLES) or words
