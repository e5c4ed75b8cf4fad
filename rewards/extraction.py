"""Finds the answer in a completion: the shape of its ending, and nothing about what the answer means.

A well-formed completion closes its reasoning once and ends with an answer:

    …reasoning…</think> <answer>(9 + 3) * 7</answer>

- The prompt usually ends with an opened ``<think>``, so the completion need not hold the opening tag; it may.
- An ``<answer>`` before ``</think>`` is part of the reasoning. If it counted, a model could try many.
- Text between ``</think>`` and the answer is allowed: chat models restate the solution there.
- Of several answers the last one counts, and nothing may follow it but white space and the tokenizer's end markers.
  TinyZero (answer on the last line) and the widely copied nano-aha-moment pattern (``</answer>$``) demand the same: a
  model that goes on talking costs its whole token budget.
"""

from __future__ import annotations

import re

_END_MARKERS = re.compile(r"(?:\s|<[|｜][^<>|｜\s]{1,40}[|｜]>|</s>|<eos>|<pad>)*")
_BOX = "\\boxed{"


def final_answer(text: str, think_tag: str = "think") -> str | None:
    """The text inside the last answer tags of a well-formed completion, stripped; None when it is not well-formed.

    ``think_tag`` is the name of the tag that the prompt opened; empty when the prompt asked for no reasoning block.
    """
    ending = _after_reasoning(text, think_tag) if think_tag else text
    if ending is None:
        return None
    before, closing, rest = ending.rpartition("</answer>")
    if not closing or not _END_MARKERS.fullmatch(rest):
        return None
    _, opening, answer = before.rpartition("<answer>")
    return answer.strip() if opening and "</answer>" not in answer else None


def unboxed(answer: str) -> str:
    """The answer without a LaTeX box around all of it: 373 of 384 real completions wrap theirs in one."""
    if answer.startswith(_BOX) and answer.endswith("}"):
        return answer[len(_BOX) : -1].strip()
    return answer


def _after_reasoning(text: str, think_tag: str) -> str | None:
    """What follows the reasoning block; None unless it was closed exactly once."""
    opening, closing = f"<{think_tag}>", f"</{think_tag}>"
    _, closed, ending = text.partition(closing)
    if not closed or opening in ending or closing in ending:
        return None
    return ending
