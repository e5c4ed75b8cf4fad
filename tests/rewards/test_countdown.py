from __future__ import annotations

import time
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rewards.countdown import check, score

PROBLEM = {"numbers": [3, 7, 9], "target": 33}
RIGHT = {"correctness": 1.0, "format": 1.0}
TAGGED = {"correctness": 0.0, "format": 1.0}
NOTHING = {"correctness": 0.0, "format": 0.0}


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("3*9=27 … no, 9-7</think><answer>3 * (9 + 7) - 15</answer>", TAGGED),
        ("9+3=12, 12*7=84 off 51 no\n</think><answer>(9+3)*7</answer>", TAGGED),
        ("</think><answer>33</answer>", TAGGED),
        ("</think><answer>1/0</answer>", TAGGED),
        ("</think><answer>thirty-three</answer>", TAGGED),
        ("</think><answer></answer>", NOTHING),
        ("</think><answer> \n </answer>", NOTHING),
        ("</think><answer>\\boxed{ }</answer>", NOTHING),
        ("</think><answer>3 * 9 + 7", NOTHING),
        ("</think>the answer is 9*3+7-1", NOTHING),
        ("", NOTHING),
    ],
)
def test_wrong_completions(text: str, parts: dict[str, float]) -> None:
    assert score(text, PROBLEM) == parts


@pytest.mark.parametrize(
    ("numbers", "target", "expression"),
    [
        ([3, 7, 9], 34, "3 * 9 + 7"),
        ([24, 24, 34], 34, "34 - 24 + 24"),
        ([28, 23, 28], 23, "(28 * 23) / 28"),
        ([3, 7, 9], 34, r"\boxed{3 \times 9 + 7}"),
        ([3, 7, 9], 34, "3 * 9 + 7 = 34"),
        ([1, 5, 5, 5], 24, "5 * (5 - 1 / 5)"),
    ],
)
def test_right_completions_earn_both_parts(numbers: list[int], target: int, expression: str) -> None:
    text = f"…</think>\n<answer>{expression}</answer>"
    assert score(text, {"numbers": numbers, "target": target}) == RIGHT


@pytest.mark.parametrize(
    "text",
    [
        "<answer>3 * 9 + 7</answer>",
        "<think>3 * 9 = 27, and <answer>3 * 9 + 7</answer>",
        "…</think><answer>3 * 9 + 7</answer>\nUser: next",
        "…</think><answer>3 * 9 + 7</answer> No, <answer>3 * 9 -",
    ],
)
def test_where_the_answer_stands_does_not_matter(text: str) -> None:
    assert score(text, {"numbers": [3, 7, 9], "target": 34}) == RIGHT


def test_of_many_answers_only_the_last_counts() -> None:
    problem = {"numbers": [3, 7, 9], "target": 34}
    assert score("</think><answer>3*9+7</answer><answer>3*9-7</answer>", problem) == TAGGED
    assert score("</think><answer>3*9-7</answer><answer>3*9+7</answer>", problem) == RIGHT
    assert score("</think><answer>3*9+7</answer><answer></answer>", problem) == NOTHING


def test_settings_that_travel_with_the_answer() -> None:
    text = "…</think><answer>27 + 7</answer>"
    some: dict[str, Any] = {"numbers": [27, 7, 9], "target": 34}
    assert score(text, some) == TAGGED
    assert score(text, {**some, "must_use_all": False}) == RIGHT


def test_an_answer_without_numbers_is_an_error_whatever_the_text() -> None:
    with pytest.raises(KeyError):
        score("no answer here", {"target": 3})


@pytest.mark.parametrize(
    ("expression", "reason"),
    [
        ("3 * 9 + 7", "correct"),
        ("3 * 9 + 7 = 34", "correct"),
        ("3 + 9 + 7", "gives 19, not 34"),
        ("3 / 9 * 7", "gives 7/3, not 34"),
        ("3 * 9 + 7 = 35", "gives 34, but says 35"),
        ("3 + 9 + 7 = 34", "gives 19, not 34"),
        ("3 * 9 + 7 + 7 - 7", "uses 7 3 times"),
        ("7 + 7", "uses 7 twice"),
        ("3 * 9 + 8", "uses 8, which is not given"),
        ("3 * 9", "does not use 7"),
        ("34", "uses 34, which is not given"),
        ("3 / (9 - 9) + 7", "division by zero"),
        ("", "not an expression: empty"),
        ("3 * 9 + 7 = 34 = 34", "not an expression: '=' must be followed by one number, or left out"),
        ("= 34", "not an expression: empty"),
        ("3 * 9 + 7 = ٣٤", "not an expression: '=' must be followed by one number, or left out"),
    ],
)
def test_reasons_for_people(expression: str, reason: str) -> None:
    verdict = check(expression, [3, 7, 9], 34)
    assert verdict.reason == reason
    assert verdict.is_correct == (reason == "correct")
    assert verdict.is_well_formed == (not reason.startswith("not an expression"))


def test_repeated_numbers() -> None:
    assert check("5 * 5 + 5", [5, 5], 30).reason == "uses 5 3 times, given twice"
    assert check("5 + 1", [5, 5, 1], 6).reason == "does not use 5"
    assert check("5 + 1", [5, 5, 1], 6, must_use_all=False).is_correct
    assert check("5 + 5", [5, 1], 10, must_use_all=False).reason == "uses 5 twice"


def test_exact_not_nearly() -> None:
    """1/3 has no exact binary value; TinyZero accepts anything within 1e-5."""
    assert check("1 / 3 * 3", [1, 3, 3], 1).is_correct
    nearly = check("99999 / 100000", [99999, 100000], 1)
    assert not nearly.is_correct
    assert nearly.value == Fraction(99999, 100000)


HOSTILE = [
    "(" * 10**6,
    "9**9**9",
    "9" * 10**6,
    "1/0",
    "nan",
    "=" * 10**6,
    "1=" + "9" * 10**6,
    r"\boxed{" * 10**5 + "}" * 10**5,
    "٣ * ١١",
    "__import__('os')._exit(1)",
]


@pytest.mark.parametrize("expression", HOSTILE, ids=lambda text: repr(text[:16]))
def test_hostile_answers_are_marked_at_once(expression: str) -> None:
    start = time.process_time()
    assert score(f"</think><answer>{expression}</answer>", PROBLEM)["correctness"] == 0.0
    verdict = check(expression, [3, 7, 9], 33)
    assert time.process_time() - start < 0.5
    assert len(verdict.reason) < 200


PIECES = ["</think>", "<answer>", "</answer>", "3", "9", "7", "33", "*", "+", "-", "/", "(", ")", "=", " ", "**", "x"]


@settings(deadline=None)
@given(st.lists(st.sampled_from(PIECES), max_size=25), st.booleans())
def test_any_completion_earns_1_or_0_1_or_nothing(pieces: list[str], must_use_all: bool) -> None:
    parts = score("".join(pieces), {**PROBLEM, "must_use_all": must_use_all})
    assert parts in (RIGHT, TAGGED, NOTHING)


@settings(deadline=None)
@given(st.text(max_size=300))
def test_any_answer_gets_a_verdict(text: str) -> None:
    verdict = check(text, [3, 7, 9], 33)
    assert not verdict.is_correct or verdict.is_well_formed
    assert verdict.reason
