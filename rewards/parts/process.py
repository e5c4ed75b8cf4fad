"""A general part that rewards intermediate steps, for problems with a worked solution."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from decimal import Decimal
from typing import Any

MAX_STEPS = 64
MAX_NUMBERS = 10_000
"""Largest number of numbers in a text, and of steps in a solution, that are read: together they limit the time."""

_NUMBER = re.compile(
    r"(?<![0-9])(?:[0-9]{1,3}(?:,[0-9]{3}){1,4}(?![0-9])|[0-9]{1,18}(?![0-9]))(?:\.[0-9]{1,18}(?![0-9]))?|\.[0-9]{1,18}"
)


def process(text: str, answer: Mapping[str, Any]) -> float:
    """Return the share of the steps in ``answer["steps"]`` whose results the text writes in order, from 0 to 1.

    A step is a number, or text such as ``"48/2=24"`` or ``"$1,200.00"`` (from GSM8K's ``<<48/2=24>>``), whose last
    number is the result. Numbers are compared by value, without sign. The text may skip steps and write other numbers
    between them: the share is that of the longest common subsequence. If the list of steps is empty, it is 0.0 for
    every text.

    It follows the step-wise reasoning accuracy reward of R1-VL (arXiv:2503.12937), the share of key steps that occur
    in the reasoning. A policy can learn to list numbers for it, so use a small weight.

    Raises KeyError if the task gives no steps, ValueError for a step without a number.
    """
    if "steps" not in answer:
        raise KeyError(
            "steps: the reward part `process` is for tasks with a worked solution, such as gsm8k; leave it out"
        )
    steps = [_result(step) for step in answer["steps"][:MAX_STEPS]]
    return _common(steps, _numbers(text)) / len(steps) if steps else 0.0


def _result(step: Any) -> Decimal:
    numbers = list(_numbers(str(step)))
    if not numbers:
        raise ValueError(f"answer['steps'] holds {step!r}: a step must have a number, its result")
    return numbers[-1]


def _numbers(text: str) -> Iterator[Decimal]:
    for count, match in enumerate(_NUMBER.finditer(text)):
        if count == MAX_NUMBERS:
            return
        yield Decimal(match[0].replace(",", ""))


def _common(steps: list[Decimal], numbers: Iterable[Decimal]) -> int:
    """Return the length of the longest common subsequence."""
    expected = set(steps)
    longest = [0] * (len(steps) + 1)  # [i]: the longest with the first i steps, and the numbers so far
    for number in numbers:
        if number not in expected:
            continue
        diagonal = 0
        for i, step in enumerate(steps, start=1):
            above = longest[i]
            longest[i] = diagonal + 1 if step == number else max(above, longest[i - 1])
            diagonal = above
    return longest[-1]
