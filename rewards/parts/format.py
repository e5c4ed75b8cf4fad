"""General parts about tags: they check that a turn thinks in ``<think>`` and answers in ``<answer>``.

In the natural format the prompt requires no tags, so ``strict`` and ``answer_tags`` give 1.0 to every text that is not
empty; ``tag_pairs`` does not change.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from rewards.parsing.extraction import extract_answer, is_natural, unboxed

LEAD_IN = "Let me solve this step by step."
"""The beginning of the assistant's turn, before ``<think>``, in the prompts of TinyZero and nano-aha-moment."""

_TAGS = ("<think>", "</think>", "<answer>", "</answer>")
_END_OF_TURN = re.compile(r"(?:\s|<\|[A-Za-z_]{1,40}\|>|</s>)*")
_WORD = re.compile(r"\\[A-Za-z]+|[^\W\d_]+")


def strict(text: str, answer: Mapping[str, Any], *, lead_in: str = LEAD_IN, answer_characters: str = "") -> float:
    """Return 1.0 if the whole turn is ``<think>…</think>``, a line break and ``<answer>…</answer>``, each tag once.

    It is 0.5 if the answer is not bare, that is, has words around it, and 0.0 in all other cases, also for an empty
    answer. Only ``lead_in`` may come before ``<think>``, and only space and end-of-turn tokens after ``</answer>``. The
    rule is nano-aha-moment's format reward.

    An answer is bare if it has no more words than the reference answer (``answer["answer"]``, or
    ``answer["target"]``): none for a number or an expression, one for a letter. LaTeX commands do not count as words.
    Without a reference, or with several lines in it, such as a program, every answer is bare. If ``answer_characters``
    are given, an answer is bare if it has only these characters and space: ``"0123456789+-*/()."`` is nano-aha-moment's
    rule.
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
    """Return 1.0 if the turn contains, anywhere, a complete pair of answer tags with content; else 0.0.

    This is TinyZero's lenient format reward, and the starting point of Logic-RL and others. An empty box is no content.
    """
    return float(_says_something(text) if is_natural(answer) else bool(extract_answer(text)))


def tag_pairs(text: str, answer: Mapping[str, Any]) -> float:
    """Return how many of the pairs ``<think>…</think>`` and ``<answer>…</answer>`` are right: 0, 1 or 2.

    A pair is right if each of its tags occurs once, in order. If two pairs overlap, or are in the wrong order, only one
    counts. open-r1's ``tag_count_reward`` is similar: a quarter for each of the four tags.
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
