"""Reasoning behaviours, detected in a completion's text.

A marker says that the text *shows* a behaviour, not that the behaviour is sound: a false "yes, this works" is a
verification too. Read the markers beside the accuracy, never instead of it.

Every pattern is linear: no quantifier is nested, and each one that could run on is bounded.
"""

from __future__ import annotations

import re

_TRACE_VERDICT = r"=\d{1,9} (?:yes|no)\b"
"""How the tiny recipe's traces judge an attempt: ``9+3=12: 12*7=84 no, 12-7=5 no``."""


def _any_of(*patterns: str) -> re.Pattern[str]:
    return re.compile("|".join(patterns), re.IGNORECASE)


_VERIFICATION = _any_of(
    _TRACE_VERDICT,
    r"\b(?:let me|let's|let us|i will|i'll|to) (?:double[- ])?(?:check|verify)\b",
    r"\b(?:double[- ]check|checking|verifying|verification)\b",
    r"\b(?:this|that|it|which) (?:is|are) (?:not |exactly |still )?(?:equal|correct|right|wrong|incorrect|too|close|the target)\b",
    r"\b(?:this|that|it|which) (?:does|does not|doesn't) (?:equal|give|match|work|reach)\b",
    r"\b(?:this|that|it|which) (?:works|matches|fails)\b",
)
_BACKTRACKING = _any_of(
    r"=\d{1,9} no(?:,[ \t]|\n)[ \t]{0,4}\d",
    r"\b(?:wait|hmm|oops)\b[,.!:\u2026 -]",
    r"\b(?:try|start) (?:again|over)\b",
    r"\b(?:that|this|which) (?:does not|doesn't|did not|didn't|won't|will not) (?:work|give|help|match|equal)\b",
    r"\b(?:go|going|step|let's go) back\b",
    r"\binstead,",
    r"\b(?:try|consider|use) (?:another|a different|some other)\b",
    r"\bi made a mistake\b",
)
_STEP_BY_STEP = _any_of(
    r"\bstep[- ]by[- ]step\b",
    r"\bstep \d{1,3}\b",
    r"=[ \t]{0,4}(\d{1,9})[ \t]{0,4}[,;:.\n][ \t\n]{0,4}\1[ \t]{0,4}[-+*/×÷−]",
    r"(?:^|\n)[ \t]{0,8}2[.)][ \t]",
)
_ATTEMPT = _any_of(
    _TRACE_VERDICT,
    r"\b(?:try|trying|alternatively|another (?:way|approach|option|combination|possibility)|what if)\b",
)


def markers(text: str) -> dict[str, bool]:
    """Which behaviours the text shows:

    - ``verification``: it passes a verdict on a result, or says that it checks one;
    - ``backtracking``: it gives an attempt up and turns to something else;
    - ``step_by_step``: it numbers its steps, or computes with the result of the step before;
    - ``exploration``: it makes more than one attempt.
    """
    return {
        "verification": bool(_VERIFICATION.search(text)),
        "backtracking": bool(_BACKTRACKING.search(text)),
        "step_by_step": bool(_STEP_BY_STEP.search(text)),
        "exploration": _num_attempts(text, at_most=2) > 1,
    }


def _num_attempts(text: str, at_most: int) -> int:
    count = 0
    for _ in _ATTEMPT.finditer(text):
        count += 1
        if count == at_most:
            break
    return count
