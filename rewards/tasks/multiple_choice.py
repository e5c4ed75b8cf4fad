r"""Grade questions with options, such as AQuA's, ARC's and LogiQA's.

The answer to a prompt is ``{"answer": "B", "options": ["32400", "6000", …]}``: the letter of the right option, and the
options' texts in the order of their letters.

The answer of a text is, in this order: what its last pair of answer tags holds; or else whichever stands last of
``\boxed{B}``, ``Answer: (B)``, ``Ans B``, ``The correct option is B``, ``B is the correct answer``, and a last line
that is ``B`` or ``Option B`` and nothing else. In the natural format it is the last letter of an option in the text,
unless it is denied (``not C``) or one of several (``A or C``), and without any the text of an option in such a place.

An answer names an option by its letter, first (``B``, ``(b)``, ``**B**. 6000``) or in brackets later (``6000 (B)``), or
by its whole text where no other option reads the same. ``B or C`` names none, nor does a letter with the text of
another option. ``A`` before a word in lower case is the article: ``A train needs 5 hours`` names no option.

- ``correctness``: 1 if the option is the right one, otherwise 0.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from rewards.parsing.extraction import ANNOUNCED, is_natural, stated_answer

PARTS = ("correctness",)
LETTERS = "ABCDEFGHIJ"

_LETTER = r"(?-i:[A-J])(?![A-Za-z0-9'’])"
_NAMED = r"(?:correct |right |best )?(?:option|choice)"
_STATED = re.compile(
    rf"{ANNOUNCED.pattern}"
    rf"|\b(?:answer|ans|{_NAMED})\b[ \t]{{0,3}}(?:is\b|[-–=:])[ \t*_:]{{0,8}}"
    rf"|(?:^\W{{0,6}}|[.;] |\b(?:correct|right|best|final) )"
    rf"(?:answer|ans)(?: choice| option)?[ \t*_.]{{1,4}}(?=[(\[]?{_LETTER})"
    rf"|\b(?:answer|ans)[ \t*_.]{{1,4}}(?=[(\[]?{_LETTER}[)\]*_.]{{0,3}}[ \t]{{0,8}}$)"
    rf"|(?<!nor )(?<!or )(?<!and )(?<![A-Za-z0-9'’])(?=[(\[]?{_LETTER}[)\]*_]{{0,3}} is (?:the )?"
    r"(?:correct\b|right\b|(?:best |final )?answer\b|best (?:option|choice)\b))"
    rf"|^\W{{0,6}}(?:(?:the )?{_NAMED}\W{{1,4}})?(?={_LETTER}\W{{0,6}}\Z)",
    re.IGNORECASE | re.MULTILINE,
)
_ARTICLE = r"A(?=[ \t]+(?!(?:is|as|and|or|because|since|for|with)\b)[a-z])"
_LEADING = re.compile(
    rf"(?:(?:option|choice|letter|answer|is|the|correct)\b[ \t:]{{0,3}}){{0,4}}"
    rf"[(\[{{*_$\\\"]{{0,5}}(?:(?:text|math)(?:bf|rm|it)?\{{)?"
    rf"(?!(?-i:{_ARTICLE}))(?P<letter>{_LETTER}|[a-j](?=[)\].:]+(?:\s|$)|\W{{0,6}}\Z))[)\]}}*_$\\.:,;–-]{{0,6}}",
    re.IGNORECASE,
)
_BRACKETED = re.compile(rf"(?:[(\[]|\*\*|\b{_NAMED} )({_LETTER})(?:[)\]]|\*\*)?", re.IGNORECASE)
_STANDING = re.compile(rf"(?<![A-Za-z0-9'’])(?:(?!{_ARTICLE})([A-J])(?![A-Za-z0-9'’])|\(([a-j])\))")
_NOT_ALONE = re.compile(
    rf"[)\]}}*_$.]{{0,4}}[ \t]*(?:or|and|/|,|&)[ \t]*[(\[*]{{0,3}}{_LETTER}"
    r"|[)\]}*_$.]{0,4} (?:is|are) (?:not|wrong|incorrect)\b",
    re.IGNORECASE,
)
_NOT_CHOSEN = re.compile(
    rf"(?:\bor|\bnot|\bneither|\bnor|n['’]t|{_LETTER}[)\]*.,]{{0,3}} and)"
    rf"[ \t]+(?:be[ \t]+)?(?:{_NAMED}[ \t]+)?[(\[*]{{0,3}}\Z",
    re.IGNORECASE,
)
"""It stands before a letter that is denied, or one of several."""
_NEGATION = re.compile(r"\b(?:not|neither)\b|n['’]t\b", re.IGNORECASE)
_DROPPED = re.compile(r"\{,\}|(?<=[0-9]),(?=[0-9]{3})|[\s$*_\\{}()\[\]]|(?:mathrm|text)(?=\{)|[.;,!]\Z")


def score(text: str, answer: Mapping[str, Any]) -> dict[str, float]:
    """Return the part of a completion's reward.

    Raises KeyError without letter or options, ValueError when they do not fit each other.
    """
    options = [str(option) for option in answer["options"]]
    letter = str(answer["answer"]).strip().upper()
    if len(letter) != 1 or letter not in LETTERS[: len(options)]:
        raise ValueError(f"answer = {answer['answer']!r}: must be one of the letters {LETTERS[: len(options)]}")
    given = last_letter(text, options) if is_natural(answer) else None
    if given is None:
        given = stated_letter(text, options)
    return {"correctness": float(given == letter)}


def stated_letter(text: str, options: Sequence[str]) -> str | None:
    """Return the letter of the option that the text states as its answer; None when it states none, or several."""
    stated = stated_answer(text, _STATED)
    return None if stated is None else named_option(stated, options)


def last_letter(text: str, options: Sequence[str]) -> str | None:
    """Return the last letter in the text that is an option's and stands alone, the article ``A`` left out.

    None when that letter is denied, or one of several.
    """
    known = LETTERS[: len(options)]
    named = [match for match in _STANDING.finditer(text) if (match[1] or match[2]).upper() in known]
    if not named:
        return None
    last = named[-1]
    start = last.start(1) if last[1] else last.start()
    is_chosen = not _NOT_CHOSEN.search(text[max(0, start - 40) : start]) and not _NOT_ALONE.match(text, last.end())
    return (last[1] or last[2]).upper() if is_chosen else None


def named_option(stated: str, options: Sequence[str]) -> str | None:
    """Return the letter of the option that a stated answer names; None unless it is exactly one."""
    texts = [normalize(option) for option in options]
    known = LETTERS[: len(options)]
    same = [letter for letter, text in zip(known, texts, strict=True) if text == normalize(stated)]
    if len(same) == 1 and len(normalize(stated)) > 1:  # ``B cells`` is what option A says, not option B
        return same[0]
    leading = _LEADING.match(stated)
    if leading is not None and (letter := leading["letter"].upper()) in known:
        rest = stated[leading.end() :]
        is_same = normalize(rest) == texts[known.index(letter)]
        is_contradicted = normalize(rest) in texts or _NOT_ALONE.match(stated, leading.end("letter"))
        return letter if is_same or not is_contradicted else None
    if same:
        return same[0] if len(same) == 1 else None
    bracketed = {letter.upper() for letter in _BRACKETED.findall(stated)} & set(known)
    return bracketed.pop() if len(bracketed) == 1 and not _NEGATION.search(stated) else None


def normalize(text: str) -> str:
    """Return an option's text without case, spaces, brackets, dollars, thousands commas and the full stop."""
    return _DROPPED.sub("", text.strip()).casefold()
