"""Grade the number game: the last guess must be the number. The environment ends a game that is won."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

PARTS = ("correctness",)
GUESS = re.compile(r"<guess>\s*([0-9]{1,10})\s*</guess>")


def score(text: str, answer: Mapping[str, Any]) -> dict[str, float]:
    """Return the parts of a completion's reward. Raises KeyError if ``answer`` has no number."""
    number, guesses = int(answer["number"]), GUESS.findall(text)
    return {"correctness": float(bool(guesses) and int(guesses[-1]) == number)}


def check_reference(answer: Mapping[str, Any]) -> str | None:
    """Return why no guess could be right; None if one can."""
    return None if isinstance(answer.get("number"), int) else "number is not a whole number"


def explain(text: str, answer: Mapping[str, Any]) -> str:
    """Return why the text is not right."""
    return f"the number is {answer['number']}"
