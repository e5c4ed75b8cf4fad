r"""Find the answer in a text: in tags, in a LaTeX box, or after words that announce it.

Every function takes time linear in the text, which is untrusted and may be long: tags are found by plain string search,
boxes in one pass, and no pattern has nested quantifiers.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

ANNOUNCED = re.compile(
    r"\banswers?\b[*_]{0,3}(?:"
    r"(?: \([^()\n]{0,40}\)| (?:to|for|of)\b[^\n.:=]{0,60}?)?[*_]{0,3}"
    r"[ \t]{0,3}(?:(?:is|are|was|would be|should be|will be|must be)\b|[:=])[ \t*_:]{0,8}"
    r"|(?P<heading>[ \t]{0,3}(?=\n\s{0,8}[^\s#])))",
    re.IGNORECASE,
)
r"""``The answer is``, ``**Final answer:**``, ``The answer to the question is``: the answer is the rest of the line.
Under a heading, ``## Answer``, it is the next line."""
_HEADING = re.compile(r"[ \t]{0,3}(?:#{1,6}[ \t]{1,3})?[*_]{0,3}(?:(?:the|my|final|correct)[ \t]){0,3}", re.IGNORECASE)
"""The beginning of a line that may be a heading."""

_REMARK = re.compile(
    r"(?:(?:indeed|also|then|therefore|clearly) )?"
    r"(?:correct|right|wrong|incorrect|reasonable|plausible|sensible|consistent|valid|verified|supported|confirmed|accurate|clear)\b",
    re.IGNORECASE,
)
"""A remark on an answer, not an answer: ``So the answer is correct.``"""
_WRAPPINGS = (
    *(("$$", "$$"), ("$", "$"), ("\\(", "\\)"), ("\\[", "\\]"), ("**", "**"), ("```", "```"), ("`", "`")),
    *(('"', '"'), ("'", "'"), ("“", "”"), ("‘", "’")),
)
_WRAPPING_SIGNS = frozenset(opening[0] for opening, _ in _WRAPPINGS)
_FENCE_LANGUAGE = re.compile(r"[A-Za-z0-9]{1,16}[ \t]*\n")
_APART = r"(?:[ \t$~]|\\[()\[\],;:! ]|\\q?quad(?![A-Za-z])){0,12}"
_JOINT = re.compile(
    rf"(?:{_APART}(?:,|;|&|,? ?\band\b|,? ?\bor\b|\\text\{{ ?(?:for [^{{}}]{{1,30}} )?(?:and|or) ?\}}"
    rf"|(?!not?\b|wait\b|wrong\b|now\b)[a-z]{{2,12}} and ){_APART}(?:[A-Za-z](?:_\{{?[A-Za-z0-9]\}}?)? ?= ?)?)"
)
"""The text between two boxes that together are one answer."""
_BRACE = re.compile(r"\\boxed[ \t]?\{|\\fbox[ \t]?\{|\\[\\{}]|[{}]")
_DENIED = re.compile(
    r"(?:\b(?:not|never|neither|nor|other than|instead of|rather than|anything but|except)|n['’]t)"
    r"\s{1,3}(?:be\s{1,3}|equal\s{1,3}|to\s{1,3}|the\s{1,3}|just\s{1,3}){0,3}[$\s*]{0,4}\Z|(?:\\neq?|≠)[$\s]{0,4}\Z",
    re.IGNORECASE,
)
"""Words before a box that is not an answer: ``\\boxed{2}, not \\boxed{3}``."""
_ANOTHER = r"[-−$(\[*\\\"]{0,4}(?:[0-9]|(?-i:[A-J])\b|boxed)"
_RETRACTION = (
    r"(?:(?:oh|ah|but|hmm+)\b[\s,.]{1,3})?(?:no\b[\s,.:;!—–-]{1,3}(?:wait|actually|sorry)\b|wait\b[\s,.—–-]{1,3}no\b"
    rf"|(?:no|nope)\b(?:[.,:!—–-]|(?=\s?\Z|\s(?:(?:it|that|this|the answer|i|make|should|rather)\b|{_ANOTHER})))"
    r"|(?:scratch|strike|forget) that\b|make that\b|correction\b|my (?:mistake|bad)\b|(?:on|upon) second thoughts?\b"
    r"|i (?:mean|meant|was wrong|take (?:it|that) back|made (?:a|an) (?:mistake|error))\b"
    r"|(?:that|this|it)(?:['’]?s| is| was) (?:wrong|incorrect|not (?:right|correct|true|it)|a mistake)\b"
    rf"|(?:wait|actually|sorry|oops|rather(?! than)|hmm+)\b[\s,.:!—–-]{{1,3}}"
    rf"(?=(?:it|that|this|the|i|no|should)\b|{_ANOTHER}))[\s,.:;!—–-]{{0,4}}"
)
_RETRACTED = re.compile(
    rf"(?:[.,;:?!)\]}}$*_\n—–-][\s$]{{0,3}}|\s(?=no,? wait|wait,? no|scratch that|make that)){_RETRACTION}",
    re.IGNORECASE,
)
_RETRACTED_NEXT = re.compile(rf"[\s.,;:?!)\]}}$*_—–-]{{1,6}}{_RETRACTION}([^\n]*)", re.IGNORECASE)
_ANSWER_BEFORE = re.compile(r"(?:[0-9$)}]|\b[A-J])\s{0,3}(?:\bor\b|\band\b|,|;|/)[\s$]{0,4}\Z")
MAX_JOINED = 20
_LINE = re.compile(r"\s*(\$\$[^$\n]{0,300}\n[^$]{0,300}\$\$|\\\[\s{0,9}\n[^\]]{0,300}\\\]|[^\n]*)")
r"""The rest of a line, or a displayed formula: ``\[``, the formula and ``\]`` on three lines."""


class StatedAnswer(NamedTuple):
    """An answer and its position, which includes its box or the words that announce it."""

    start: int
    end: int
    text: str


def extract_answer(text: str) -> str | None:
    """Return the result of ``tagged``, stripped and without a box."""
    inside = tagged(text)
    return None if inside is None else unboxed(inside.strip())


def tagged(text: str) -> str | None:
    """Return the content of the last complete pair of answer tags; None if there is no such pair.

    A later ``<answer>`` that is never closed does not count, as in TinyZero's pattern: the final answer of a truncated
    completion is unknown. Of nested tags, the innermost pair counts.
    """
    before_last_closing, _, _ = text.rpartition("</answer>")
    _, opening, rest = before_last_closing.rpartition("<answer>")
    # `rest` is longer than the answer if additional closing tags follow the pair.
    return rest.partition("</answer>")[0] if opening else None


def unboxed(answer: str) -> str:
    """Return the answer without a LaTeX box around all of it: 312 of 316 real tagged Countdown answers have a box."""
    bare = unwrapped(answer)
    box = last_box(bare)
    return box.text if box is not None and (box.start, box.end) == (0, len(bare)) else answer


def unwrapped(answer: str) -> str:
    """Return the answer without a final full stop, and without math mode, bold type, code or quotes around it."""
    for _ in range(2 * len(_WRAPPINGS)):
        before = answer = answer.strip()
        answer = answer.removesuffix(".")
        for opening, closing in _WRAPPINGS if answer[:1] in _WRAPPING_SIGNS else ():
            inside = answer[len(opening) : -len(closing)]
            if len(answer) > len(opening + closing) and answer == opening + inside + closing and opening not in inside:
                language = _FENCE_LANGUAGE.match(inside) if opening == "```" else None
                answer = inside[language.end() :] if language else inside
                break
        if answer == before:
            break
    return answer


def last_box(text: str) -> StatedAnswer | None:
    r"""Return the last ``\boxed{…}`` (or ``\fbox{…}``) with balanced braces; None if there is none.

    Of nested boxes, the outermost counts. A truncated or denied box and escaped braces do not count. Boxes that are
    joined to it, as in ``\boxed{1} and \boxed{2}``, belong to it: the text then has all of them, with commas.
    """
    if "box" not in text:
        return None
    boxes: list[tuple[int, int, int, int]] = []  # positions, so that only the last boxes are cut out of the text
    opened: list[tuple[bool, int, int]] = []
    for match in _BRACE.finditer(text):
        brace = match[0]
        if brace.startswith("\\") and len(brace) == 2:
            continue
        if brace != "}":
            opened.append((len(brace) > 1, match.start(), match.end()))
        elif opened:
            is_box, start, inside = opened.pop()
            if is_box and not _DENIED.search(text[max(0, start - 40) : start]):
                is_joined = bool(boxes) and boxes[-1][1] <= start and _JOINT.fullmatch(text, boxes[-1][1], start)
                boxes = [*(boxes[-MAX_JOINED:] if is_joined else ()), (start, match.end(), inside, match.start())]
    if not boxes:
        return None
    insides = dict.fromkeys(text[start:end].strip() for _, _, start, end in boxes)
    return StatedAnswer(boxes[0][0], boxes[-1][1], ", ".join(insides))


def last_announced(text: str, announced: re.Pattern[str], remarks: bool = False) -> StatedAnswer | None:
    """Return the text after the last announcement, up to the end of its line, or of the next line if its own is empty.

    An announcement with only a remark after it, such as ``correct``, does not count. With ``remarks``, only such
    announcements count.
    """
    last = None
    for match in announced.finditer(text):
        if match["heading"] is not None and not _HEADING.fullmatch(
            text, text.rfind("\n", 0, match.start()) + 1, match.start()
        ):
            continue
        if bool(_REMARK.match(text, match.end())) is remarks:
            last = match
    if last is None:
        return None
    rest = _LINE.match(text, last.end())
    assert rest is not None  # it matches the empty text too
    return StatedAnswer(last.start(), rest.end(), rest[1].strip())


def after_retraction(stated: str) -> str:
    """Return the text after the last retraction, such as ``73`` of ``72? No, 73``; without a retraction, all of it.

    The result is empty if an answer is taken back without a new one.
    """
    last = None
    for match in _RETRACTED.finditer(stated):
        last = match
    return stated if last is None else stated[last.end() :]


def retracted(text: str, end: int) -> str | None:
    """Return the rest of the line after words that retract the answer ending at ``end``; None without such words."""
    match = _RETRACTED_NEXT.match(text, end)
    return None if match is None else match[1]


def from_box(stated: str) -> str:
    r"""Return a stated answer from its last box on, without the box: ``72 cm`` of ``6 + 66 is \boxed{72} cm``.

    Return all of it if there is no box, or if another answer is joined to the box: ``71 or \boxed{72}``.
    """
    box = last_box(stated)
    if box is None or _ANSWER_BEFORE.search(stated, max(0, box.start - 20), box.start):
        return stated
    return f"{box.text} {stated[box.end :]}"


def stated_answer(text: str, announced: re.Pattern[str] = ANNOUNCED) -> str | None:
    """Return the answer that the text states as its own; None if it states none.

    A complete pair of tags decides alone. Without tags, the last box or the last announcement counts, whichever is
    later. If the text retracts that answer right after it, the new answer counts. An announcement that looks like a
    remark on the answer counts only if there is nothing else.
    """
    tagged = extract_answer(text)
    if tagged is not None:
        return tagged
    candidates = [answer for answer in (last_box(text), last_announced(text, announced)) if answer is not None]
    last = max(candidates) if candidates else last_announced(text, announced, remarks=True)
    if last is None:
        return None
    instead = retracted(text, last.end)
    return last.text if instead is None else instead


def is_natural(answer: Mapping[str, Any]) -> bool:
    """Return whether the prompt does not ask for tags, so that they must not be required."""
    return answer.get("extraction") == "natural"
