"""General parts about tags: whether a turn thinks in ``<think>`` and answers in ``<answer>``.

In the natural format the prompt requires no tags, so ``strict`` and ``answer_tags`` give 1.0 to every text that says
anything, and ``tag_pairs`` counts on as always.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from rewards.parsing.extraction import extract_answer, is_natural, unboxed

LEAD_IN = "Let me solve this step by step."
"""TinyZero's and nano-aha-moment's prompts write this before ``<think>``, in the assistant's name."""

_TAGS = ("<think>", "</think>", "<answer>", "</answer>")
_END_OF_TURN = re.compile(r"(?:\s|<\|[A-Za-z_]{1,40}\|>|</s>)*")
_WORD = re.compile(r"\\[A-Za-z]+|[^\W\d_]+")


def strict(text: str, answer: Mapping[str, Any], *, lead_in: str = LEAD_IN, answer_characters: str = "") -> float:
    """Return 1.0 when the whole turn is ``<think>…</think>``, a line break and ``<answer>…</answer>``, each tag once.

    It is 0.5 when the answer has words around it instead of being bare, and 0.0 for all else, an answer that says
    nothing included. Before ``<think>`` nothing may stand but ``lead_in``, after ``</answer>`` nothing but space and
    the tokens that end a turn. The rule is nano-aha-moment's format reward.

    An answer is bare when it has no more words than the reference answer (``answer["answer"]``, or
    ``answer["target"]``): none for a number or an expression, one for a letter. LaTeX commands are no words. Without a
    reference, or with one of several lines such as a program, 0.5 does not occur. ``answer_characters``, when given,
    are the only characters, besides space, of a bare answer instead: ``"0123456789+-*/()."`` is nano-aha-moment's rule.
    """
    if is_natural(answer):
        return float(_says_something(text))
    if any(text.count(tag) != 1 for tag in _TAGS):
        return 0.0
    before, _, rest = text.partition("<think>")
    _, _, rest = rest.partition("</think>\n<answer>")
    inside, closing, after = rest.partition("</answer>")
    is_framed = closing and before.strip() in ("", lead_in.strip()) and not _says_something(after)
    if not is_framed or not unboxed(inside.strip()):
        return 0.0
    return 1.0 if _is_bare(inside, answer, answer_characters) else 0.5


def answer_tags(text: str, answer: Mapping[str, Any]) -> float:
    """Return 1.0 when the turn holds a complete pair of answer tags with anything in it, wherever it stands; else 0.0.

    TinyZero's lenient format reward, and Logic-RL's and others' starting point. An empty box is nothing.
    """
    return float(_says_something(text) if is_natural(answer) else bool(extract_answer(text)))


def tag_pairs(text: str, answer: Mapping[str, Any]) -> float:
    """Return how many of the pairs ``<think>…</think>`` and ``<answer>…</answer>`` are right: 0, 1 or 2.

    A pair is right when each of its tags stands once, in order. Of two pairs that overlap, or stand the wrong way
    round, only one is right. Similar: open-r1's ``tag_count_reward``, a quarter for each of the four tags.
    """
    places = [text.find(tag) if text.count(tag) == 1 else -1 for tag in _TAGS]
    thinks, answers = (0 <= opening < closing for opening, closing in (places[:2], places[2:]))
    if thinks and answers:
        return 2.0 if places[1] < places[2] else 1.0
    return float(thinks or answers)


def _says_something(text: str) -> bool:
    return not _END_OF_TURN.fullmatch(text)


def _is_bare(inside: str, answer: Mapping[str, Any], characters: str) -> bool:
    if characters:
        return not set("".join(inside.split())) - set(characters)
    reference = answer.get("answer", answer.get("target"))
    aliases = reference if isinstance(reference, list | tuple) else [reference]
    if not all(isinstance(alias, str | int | float) and "\n" not in str(alias).strip() for alias in aliases):
        return True
    return _num_words(inside) <= max((_num_words(str(alias)) for alias in aliases), default=0)


def _num_words(text: str) -> int:
    return sum(not match[0].startswith("\\") for match in _WORD.finditer(text))
