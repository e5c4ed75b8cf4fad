"""Countdown in the natural format: the answer is found in prose."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rewards.tasks.countdown import grade, score

PROBLEM = {"numbers": [3, 7, 9], "target": 34, "extraction": "natural"}


@pytest.mark.parametrize(
    "text",
    [
        "3 * 9 + 7",
        "3 * 9 + 7 = 34",
        "34 = 3 * 9 + 7",
        "3 * 9 + 7 = 27 + 7 = 34",
        "So the expression is 3 * 9 + 7.",
        "So the expression is (3 * 9) + 7, which is 34!",
        r"So \(3 \times 9 + 7 = 34\) works.",
        r"\[ 7 + \left(3 \cdot 9\right) = 34 \]",
        "**3 × 9 + 7 = 34**",
        "`3 * 9 + 7`",
        "- 3 * 9 + 7 = 34",
        "2) 3 * 9 + 7 = 34\n",
        "(because 3 * 9 + 7 = 34)",
        "using3 * 9 + 7 = 34",
        "3 * 9 + 7 = 34<|im_end|><|endoftext|>",
        "First 3 + 9 + 7 = 19, too low. Then 3 * 9 + 7 = 34.",
        "3 * 9 + 7 = 34. Check: 3 * 9 = 27, and 27 + 7 = 34. This uses 3, 7 and 9 once.",
        "3 * 9 + 7 = 34, so the answer is 34.",
        "3 * 9 + 7 = 34, so \\boxed{34}",
        "<answer>3 * 9 + 7</answer>",
        "The answer is 3 * 9 + 7 (not 3 + 9 + 7).",
        "3 + 9 + 7 is 19. Final answer: \\boxed{3 * 9 + 7}",
    ],
)
def test_found_and_right(text: str) -> None:
    assert score(text, PROBLEM) == {"correctness": 1.0, "closeness": 1.0}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "no expression in the text"),
        ("I do not know.", "no expression in the text"),
        ("34", "no expression in the text"),
        ("3, 7 and 9 make 34", "no expression in the text"),
        ("3 * 9 = 27, 27 + 7 = 34", "uses 27, which is not given"),
        ("3 * 9 + 7 = 34. No, 3 + 9 + 7 = 19.", "gives 19, not 34"),
        ("3 * 9 + 7 = 35", "gives 34, but says 35"),
        ("3 * 9 + 7 = 28 + 7 = 34", "gives 34, but says 35"),
        ("3 * 9 + 7 = 34, so the answer is 3 * 9.", "does not use 7"),
        ("3 * 9 + 7 = 34, so \\boxed{3 * 9}", "does not use 7"),
        ("3 * 9 + 7 = 34, so <answer>35</answer>", "uses 35, which is not given"),
        ("3 * 9 + 7 = 34, so the answer is **35**.", "uses 35, which is not given"),
        ("13 * 9 + 7 = 124", "uses 13, which is not given"),
        ("3 * 9 + 7.5 = 34.5", "no expression in the text"),
        ("3 * 9 + 7x = 34", "no expression in the text"),
        ("2 x 3 * 9 + 7 = 61", "no expression in the text"),
        ("-3 * 9 + 7 = -20", "no expression in the text"),
        ("3 * 9\n+ 7 = 34", "does not use 7"),
        ("3 / (9 - 9) + 7", "division by zero"),
    ],
)
def test_not_found_or_wrong(text: str, reason: str) -> None:
    verdict = grade(text, PROBLEM)
    assert verdict.reason == reason
    assert not verdict.is_correct


def test_without_all_numbers_the_last_fitting_expression_counts() -> None:
    some = {**PROBLEM, "target": 27, "must_use_all": False}
    assert grade("3 * 9 = 27", some).is_correct
    assert not grade("3 * 9 = 27 and 9 + 7 = 16", some).is_correct


def test_without_the_natural_format_prose_is_no_answer() -> None:
    tagged = {key: value for key, value in PROBLEM.items() if key != "extraction"}
    assert grade("3 * 9 + 7 = 34", tagged).reason == "no answer in tags"


PROSE = ["so ", "try ", ". ", "\n", "the answer is ", "$", "**", "= 34", "(", ") "]
EXPRESSIONS = ["3 * 9 + 7", "3 + 9 + 7", "(9 - 7) * 3", "3 * 9", "27 + 7"]


@settings(deadline=None)
@given(st.lists(st.sampled_from(PROSE), max_size=6).map("".join), st.sampled_from(EXPRESSIONS))
def test_an_announced_answer_decides_whatever_came_before(before: str, last: str) -> None:
    text = f"{before}\nThe answer is {last}."
    assert grade(text, PROBLEM).is_correct == (last == "3 * 9 + 7")
