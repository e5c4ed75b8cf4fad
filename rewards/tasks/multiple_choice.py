r"""Grade questions with options, such as AQuA's, ARC's and LogiQA's.

The answer to a prompt is ``{"answer": "B", "options": ["32400", "6000", …]}``: the letter of the right option, and the
options' texts in the order of their letters.

The answer of a text is the content of its last pair of answer tags. Without tags it is the last of these:
``\boxed{B}``, ``Answer: (B)``, ``Ans B``, ``The correct option is B``, ``B is the correct answer``, or a last line that
is only ``B`` or ``Option B``. In the natural format the last option's letter in the text comes before all of these,
unless it is denied (``not C``) or one of several (``A or C``).

An answer names an option by its letter, first (``B``, ``(b)``, ``**B**. 6000``) or in brackets later (``6000 (B)``), or
by its complete text if no other option has the same text. ``B or C``, ``B C`` and a copied list of options name no
option; nor does a letter with the text of another option, or a denied letter (``B isn't right``). In ``B, no wait, C``
the last letter counts. ``A`` before a word in lower case is the article: ``A train needs 5 hours`` names no option.

- ``correctness``: 1 if the option is right, otherwise 0.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from rewards.parsing.extraction import (
    ANNOUNCED,
    after_retraction,
    from_box,
    is_natural,
    retracted,
    stated_answer,
    unwrapped,
)

PARTS = ("correctness",)
LETTERS = "ABCDEFGHIJ"
TAIL_CHARACTERS = 200
"""The last letter is first searched in this many characters at the end of a text."""

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
_ARTICLE = r"A(?=[ \t]+(?!(?:is|isn|was|as|and|or|nor|but|because|since|for|with|does|cannot|seems|fails)\b)[a-z])"
_LEADING = re.compile(
    r"(?:(?:option|choice|letter|answer|ans|is|must|be|the|correct|it|it['’]s|i|choose|pick|select|my|final|so|thus|therefore"
    r"|hence)\b[ \t:,]{0,3}){0,5}"
    r"[(\[{*_$\\\"]{0,5}(?:(?:text|math)(?:bf|rm|it)?\{)?"
    rf"(?!(?-i:{_ARTICLE}))(?P<letter>{_LETTER}|[a-j](?=[)\].:]+(?:\s|$)|\W{{0,6}}\Z))[)\]}}*_$\\.:,;–-]{{0,6}}",
    re.IGNORECASE,
)
_BRACKETED = re.compile(rf"(?:[(\[]|\*\*|\b{_NAMED} )({_LETTER})(?:[)\]]|\*\*)?", re.IGNORECASE)
_STANDING = re.compile(rf"(?<![A-Za-z0-9'’])(?:(?!{_ARTICLE})([A-J])(?![A-Za-z0-9'’])|\(([a-j])\))")
_VERB = r"(?:is|are|was|were|does|do|did|can|could|would|will|should|has|seems?|looks?|must)"
_DENIAL = (
    rf"(?:{_VERB}(?:n['’]t|[ \t]+(?:not|never))\b|(?:cannot|can['’]t|won['’]t|never|fails?)\b"
    rf"|(?:{_VERB}[ \t]+)?(?:be[ \t]+)?(?:(?:also|clearly|definitely|obviously|both)[ \t]+)?(?:wrong|incorrect|false"
    r"|impossible|eliminated|excluded|ruled out|invalid|out\b|too (?:small|large|big|low|high|long|short)))"
)
"""Words that deny the letter before them."""
_OTHER = rf"(?!(?-i:{_ARTICLE}))(?:[(\[*\"]{{0,3}}(?P<other>{_LETTER})|[(\[]?(?P<small>[a-j])[)\]])"
_REMARKED = rf"[)\]*]{{0,3}}[ \t]+{_VERB}\b(?![ \t]+(?:also|correct|right|possible|fine))"
_CLOSED = r"[)\]}*_$.\"]{0,4}"
_DENIED_AFTER = re.compile(rf"{_CLOSED}[ \t]*{_DENIAL}", re.IGNORECASE)
_ANOTHER_AFTER = re.compile(
    rf"{_CLOSED}(?:[ \t,(/&;|+?]|\b(?:or|and|maybe|perhaps|possibly|also|even|either)\b){{0,12}}(?:{_NAMED}[ \t]+)?"
    rf"{_OTHER}(?!{_REMARKED})|{_CLOSED}\s{{0,4}}\n\s{{0,4}}(?P<next>{_LETTER})[)\]*.\s]{{0,4}}(?:\n|\Z)",
    re.IGNORECASE,
)
"""Another letter after a letter, with only words such as ``or`` between them: the first is one of several."""
_ANOTHER_BEFORE = re.compile(rf"({_LETTER})[)\]*]{{0,3}}[ \t]*[,;/&|+]?[ \t]*[(\[*]{{0,3}}\Z")
_NOT_CHOSEN = re.compile(
    r"(?:\bor|\bnot|\bneither|\bnor|\bnever|\bexcept|\bthan|\binstead of|\banything but|n['’]t"
    rf"|{_LETTER}[)\]*.,]{{0,3}} and)[ \t]+(?:be[ \t]+)?(?:the[ \t]+)?(?:{_NAMED}[ \t]+)?[(\[*]{{0,3}}\Z",
    re.IGNORECASE,
)
"""Words that deny the letter after them, or make it one of several."""
_NEGATION = re.compile(r"\b(?:not|neither|never|except|anything but)\b|n['’]t\b", re.IGNORECASE)
_DENIED_BEFORE = re.compile(
    rf"\b(?:not|rather than|instead of)[ \t]+(?:\$?\\boxed\{{)?(?:{_NAMED}[ \t]+)?{_OTHER}[)\]}}*]{{0,3}}"
    r"[ \t,;]*(?:but\b)?",
    re.IGNORECASE,
)
_LISTED = re.compile(r"(?<![A-Za-z0-9])([A-J])[)\].:]")
_PIECE = re.compile(r"\b(?:or|and)\b|[,;/\n]")
_DROPPED = re.compile(r"\{,\}|(?<=[0-9]),(?=[0-9]{3})|[\s$*_\\{}()\[\]]|(?:mathrm|text)(?=\{)|[.;,!]\Z")


def score(text: str, answer: Mapping[str, Any]) -> dict[str, float]:
    """Return the part of a completion's reward.

    Raises KeyError without the letter or the options, ValueError if the letter is not the letter of an option.
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
    """Return the letter of the option that the text states as its answer; None if it states none, or several."""
    stated = stated_answer(text, _STATED)
    return None if stated is None else named_option(stated, options)


def last_letter(text: str, options: Sequence[str]) -> str | None:
    """Return the last separate letter of an option in the text; the article ``A`` does not count.

    None if that letter is denied or taken back, or one of several.
    """
    known = LETTERS[: len(options)]
    last = _last_standing(text, known, max(0, len(text) - TAIL_CHARACTERS)) or _last_standing(text, known, 0)
    if last is None:
        return None
    start = last.start(1) if last[1] else last.start()
    before = text[max(0, start - 40) : start]
    letter = (last[1] or last[2]).upper()
    another = _ANOTHER_BEFORE.search(before, max(0, len(before) - 12))
    is_chosen = not _NOT_CHOSEN.search(before) and (another is None or another[1] == letter)
    is_kept = not _DENIED_AFTER.match(text, last.end()) and retracted(text, last.end()) is None
    return letter if is_chosen and is_kept else None


def _last_standing(text: str, known: str, start: int) -> re.Match[str] | None:
    last = None
    for match in _STANDING.finditer(text, start):
        if (match[1] or match[2]).upper() in known:
            last = match
    return last


def named_option(stated: str, options: Sequence[str]) -> str | None:
    """Return the letter of the option that a stated answer names; None unless it names exactly one."""
    stated = unwrapped(stated)
    texts = _normalized(tuple(options))
    known = LETTERS[: len(options)]
    whole = normalize(stated)
    same = [letter for letter, text in zip(known, texts, strict=True) if text == whole]
    if len(same) == 1 and len(whole) > 1:  # ``B cells`` may be the text of option A, and then it is not option B
        return same[0]
    if (copied := _copied_option(stated.strip(), known, texts)) is not None:
        return copied
    stated = _DENIED_BEFORE.sub(" ", after_retraction(from_box(stated))).strip()
    if (copied := _copied_option(stated, known, texts)) is not None:
        return copied
    leading = _LEADING.match(stated)
    if leading is not None and (letter := leading["letter"].upper()) in known:
        rest = stated[leading.end() :]
        own = texts[known.index(letter)]
        is_alone = not (
            _DENIED_AFTER.match(stated, leading.end("letter"))
            or _other_letter(stated, leading.end("letter")) not in (None, letter)
            or any(text in texts and text != own for text in (normalize(rest), *_pieces(rest)))
            or _lists_another(rest, letter, texts)
        )
        return letter if is_alone else None
    if same:
        return same[0] if len(same) == 1 else None
    bracketed = {letter.upper() for letter in _BRACKETED.findall(stated)} & set(known)
    return bracketed.pop() if len(bracketed) == 1 and not _NEGATION.search(stated) else None


def _copied_option(stated: str, known: str, texts: Sequence[str]) -> str | None:
    """Return the letter of an answer that is a letter, alone or with its option's text (which may be ``No``)."""
    leading = _LEADING.match(stated)
    if leading is None or (letter := leading["letter"].upper()) not in known:
        return None
    rest = stated[leading.end() :]
    return letter if not rest or normalize(rest) == texts[known.index(letter)] else None


def _pieces(rest: str) -> list[str]:
    pieces = _PIECE.split(rest)
    return [normalize(piece) for piece in pieces] if len(pieces) > 1 else []


def _other_letter(stated: str, end: int) -> str | None:
    """Return another letter right after the letter that ends at ``end``; None if there is none."""
    match = _ANOTHER_AFTER.match(stated, end)
    return None if match is None else next(letter for letter in match.groups() if letter).upper()


def _lists_another(rest: str, letter: str, texts: Sequence[str]) -> bool:
    """Return whether the rest of an answer contains another option's letter and text, as a copied list does."""
    for match in _LISTED.finditer(rest):
        other = match[1]
        own = texts[LETTERS.index(other)] if other != letter and other in LETTERS[: len(texts)] else ""
        if own and normalize(rest[match.end() : match.end() + 2 * len(own) + 20]).startswith(own):
            return True
    return False


@lru_cache(maxsize=256)
def _normalized(options: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(normalize(option) for option in options)


def normalize(text: str) -> str:
    """Return an option's text in lower case, without spaces, brackets, dollars, thousands commas and full stop."""
    return _DROPPED.sub("", text.strip()).casefold()
