"""Detect reasoning behaviours in a completion's text.

A marker says that the text *shows* a behaviour, not that the behaviour is sound: a false "yes, this works" is a
verification too. Read the markers beside the accuracy, never instead of it.

They look for the words in which a solver speaks about its own work. A word problem is full of the same words about
something else (``will wait for 10 minutes``, ``try to escape``, ``which is equal to 24 months``), so the words around
count: on 2,454 solutions of GSM8K and AQuA, where nobody checks or gives up, they must stay silent.

Every pattern is linear: no quantifier is nested, and each one that could run on is bounded.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

_TRACE_VERDICT = r"=\d{1,9} (?:yes|no)\b"
"""The tiny recipe's traces judge an attempt like this: ``9+3=12: 12*7=84 no, 12-7=5 no``."""
_WE = r"(?:let me|let's|let us|we|i|i'll|we'll)(?: (?:will|can|could|should|must|need to|have to|also))?"
_IT = r"(?:this|that|it|which)"
_OPERATOR = r"(?:[-+*/×·÷−]|\\times|\\cdot|\\div|(?<![a-z])x(?![a-z]))"


def _any_of(words: tuple[str, ...], others: tuple[str, ...] = ()) -> re.Pattern[str]:
    # One \b before all that begin with a word makes it three times as fast, and so does lower case beforehand.
    return re.compile("|".join((rf"\b(?:{'|'.join(words)})", *others)))


_VERIFICATION = _any_of(
    (
        rf"{_WE} (?:double[- ])?(?:check|verify)\b",
        r"to (?:double[- ]check|verify)\b",
        r"checking (?:if|whether|that|this|our|my)\b",
        r"(?:check|checking|verify):",
        r"(?:double[- ]check(?:ing)?|verifying|verification)\b",
        rf"{_IT} (?:is|are) (?:not|exactly|indeed|still not|still) (?:equal|the target)\b",
        rf"{_IT} (?:is|are) (?:not |exactly |indeed |still )?(?:correct|incorrect|wrong|the target)\b",
        rf"{_IT} (?:is|are) (?:still )?too (?:high|low|large|small|big|far|close|much|little)\b",
        rf"{_IT} is (?:not |very |quite |still )?close (?:enough|but|to (?:the|our) target|to \d)",
        r"(?:this|that|it) is right\b(?! (?:now|next|after|before|in|on|angle|triangle|side|hand))",
        rf"{_IT} (?:does|does not|doesn't) (?:equal|give|match|work|reach)\b",
        rf"{_IT}(?: also)? (?:works|matches|fails)\b(?! (?:at|for|from|in|on|out|with|\d))",
    ),
    (_TRACE_VERDICT,),
)
_WAIT = r"wait(?:[,.!:…—–]| -| (?:a (?:minute|moment|second)|i|no|that|this|maybe|actually|but|let)\b)"
_BACKTRACKING = _any_of(
    (
        r"(?:hmm+|oops)\b",
        rf"(?:but|oh|no|so|okay|ok|and),? {_WAIT}",
        r"(?:try|start) (?:again|over)\b",
        r"(?:that|this|which) (?:does not|doesn't|did not|didn't|won't|will not) "
        r"(?:work|give|help|match|equal|reach)\b",
        rf"{_WE} (?:go|step) back\b",
        r"instead,",
        r"try (?:another|a different|some other)\b",
        r"(?:consider|use) (?:another|a different|some other) "
        r"(?:approach|way|method|combination|operation|number|pair)\b",
        r"i made (?:a mistake|an error)\b",
    ),
    (rf"(?:^|[.!?\n>,;:(*…-])[ \t]{{0,2}}{_WAIT}", r"=\d{1,9} no(?:,[ \t]|\n)[ \t]{0,4}\d"),
)
_STEP_BY_STEP = _any_of(
    (r"step[- ]by[- ]step\b", r"step \d{1,3}\b"),
    (
        r"=[ \t]{0,4}(\d{1,9})[ \t]{0,4}[,;:.\n][ \t\n]{0,4}\1[ \t]{0,4}[-+*/×÷−]",
        r"(?:^|\n)[ \t]{0,8}2[.)][ \t]",
    ),
)
_ATTEMPT = _any_of(
    (
        rf"{_WE} try\b",
        r"try(?:ing)?\b(?! to )",
        r"try(?:ing)? to "
        r"(?:get|use|make|reach|find|combine|add|subtract|multiply|divide|apply|start|form|solve|work|see)\b",
        r"(?:alternatively|another (?:way|approach|option|combination|possibility)|what if)\b",
    ),
    (_TRACE_VERDICT,),
)
_CALCULATION = re.compile(
    rf"{_OPERATOR}[ \t($]{{0,4}}\.?\d[\d.,]{{0,15}}%?[ \t]?[a-z]{{0,15}}[ \t)]{{0,4}}"
    rf"(?:=|≈|\\approx)[ \t$(<~-]{{0,6}}\.?\d"
)


def markers(text: str) -> dict[str, bool]:
    """Return which behaviours the text shows.

    - ``verification``: it passes a verdict on a result, or says that it checks one;
    - ``backtracking``: it gives an attempt up and turns to something else;
    - ``step_by_step``: it numbers its steps, or computes with the result of the step before;
    - ``exploration``: it makes more than one attempt;
    - ``shows_calculation``: it writes out an operation and its result, right or wrong: ``12 * 7 = 84``.
    """
    text = text.lower()
    return {
        "verification": bool(_VERIFICATION.search(text)),
        "backtracking": bool(_BACKTRACKING.search(text)),
        "step_by_step": bool(_STEP_BY_STEP.search(text)),
        "exploration": _num_attempts(text, at_most=2) > 1,
        "shows_calculation": bool(_CALCULATION.search(text)),
    }


def marker_shares(texts: Sequence[str]) -> dict[str, float]:
    """Return the share of the texts that show each behaviour, from 0 to 1."""
    found = [markers(text) for text in texts]
    return {name: sum(shown[name] for shown in found) / len(found) for name in found[0]}


def _num_attempts(text: str, at_most: int) -> int:
    count = 0
    for _ in _ATTEMPT.finditer(text):
        count += 1
        if count == at_most:
            break
    return count
