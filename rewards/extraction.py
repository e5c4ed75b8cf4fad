r"""Where an answer stands in a text: in tags, in a LaTeX box, or after words that announce one.

Every function is linear in the text, which is untrusted and may be long: tags are found by plain string search, boxes
in one pass, and a pattern's quantifiers are not nested.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

ANNOUNCED = re.compile(
    r"\banswers?\b[*_]{0,3}(?: \([^()\n]{0,40}\)| (?:to|for|of)\b[^\n.:=]{0,60}?)?[*_]{0,3}"
    r"[ \t]{0,3}(?:(?:is|are|was|would be|should be|will be|must be)\b|[:=])[ \t*_:]{0,8}",
    re.IGNORECASE,
)
r"""``The answer is``, ``**Final answer:**``, ``The answer to the question is``: the answer is the rest of the line."""

_BRACE = re.compile(r"\\boxed[ \t]?\{|\\fbox[ \t]?\{|\\[\\{}]|[{}]")
_LINE = re.compile(r"\s*([^\n]*)")


class Marked(NamedTuple):
    """An answer and where it stands, mark and all."""

    start: int
    end: int
    text: str


def extract_answer(text: str) -> str | None:
    """What the last complete pair of answer tags holds, without the box; None when there is no such pair.

    A later ``<answer>`` that is never closed does not count, as for TinyZero's pattern: what a completion that was cut
    off would have answered is not known. Of nested tags the innermost pair counts.
    """
    before_last_closing, _, _ = text.rpartition("</answer>")
    _, opening, rest = before_last_closing.rpartition("<answer>")
    # `rest` is more than the answer when stray closing tags follow the pair.
    return unboxed(rest.partition("</answer>")[0].strip()) if opening else None


def unboxed(answer: str) -> str:
    """The answer without a LaTeX box around all of it: 312 of 316 real tagged Countdown answers have one."""
    box = last_box(answer)
    return box.text if box is not None and (box.start, box.end) == (0, len(answer)) else answer


def last_box(text: str) -> Marked | None:
    r"""The last ``\boxed{…}`` (or ``\fbox{…}``) whose braces balance; of nested boxes the outermost. None without one.

    A box that was cut off does not count, nor do escaped braces.
    """
    found: tuple[int, int, int, int] | None = None  # positions: only the last box is cut out of the text
    opened: list[tuple[bool, int, int]] = []
    for match in _BRACE.finditer(text):
        brace = match[0]
        if brace.startswith("\\") and len(brace) == 2:
            continue
        if brace != "}":
            opened.append((len(brace) > 1, match.start(), match.end()))
        elif opened:
            is_box, start, inside = opened.pop()
            if is_box:
                found = start, match.end(), inside, match.start()
    return Marked(found[0], found[1], text[found[2] : found[3]].strip()) if found else None


def last_announced(text: str, announced: re.Pattern[str] = ANNOUNCED) -> Marked | None:
    """What follows the last announcement, to the end of its line, or of the next line where its own is empty."""
    last = None
    for last in announced.finditer(text):  # noqa: B007  only the last one matters
        pass
    if last is None:
        return None
    rest = _LINE.match(text, last.end())
    assert rest is not None  # it matches the empty text too
    return Marked(last.start(), rest.end(), rest[1].strip())


def marked_answer(text: str, announced: re.Pattern[str] = ANNOUNCED) -> str | None:
    """The answer that the text marks as its answer; None when it marks none.

    A complete pair of tags decides alone. Without one, of the last box and the last announcement the later counts.
    """
    tagged = extract_answer(text)
    if tagged is not None:
        return tagged
    marks = [mark for mark in (last_box(text), last_announced(text, announced)) if mark is not None]
    return max(marks).text if marks else None


def is_natural(answer: Mapping[str, Any]) -> bool:
    """Whether the prompt was worded without tags, so that no mark can be asked for."""
    return answer.get("extraction") == "natural"
