from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rewards.tasks.countdown import check, closeness, score

PROBLEM = {"numbers": [3, 7, 9], "target": 33}


def correctness(text: str, answer: Mapping[str, Any]) -> float:
    return score(text, answer)["correctness"]


@pytest.mark.parametrize(
    "text",
    [
        "3*9=27 … no, 9-7</think><answer>3 * (9 + 7) - 15</answer>",
        "9+3=12, 12*7=84 off 51 no\n</think><answer>(9+3)*7</answer>",
        "</think><answer>33</answer>",
        "</think><answer>1/0</answer>",
        "</think><answer>thirty-three</answer>",
        "</think><answer></answer>",
        "</think><answer> \n </answer>",
        "</think><answer>\\boxed{ }</answer>",
        "</think><answer>3 * 9 + 7 - 1",
        "",
    ],
)
def test_wrong_completions(text: str) -> None:
    assert correctness(text, PROBLEM) == 0.0


@pytest.mark.parametrize(
    "text", ["3 * 9 + 7", "</think>the answer is 3*9+7", "</think><answer>3*9+7", "3*9+7</answer>"]
)
def test_an_answer_must_stand_in_its_tags(text: str) -> None:
    assert correctness(text, {"numbers": [3, 7, 9], "target": 34}) == 0.0


@pytest.mark.parametrize(
    ("numbers", "target", "expression"),
    [
        ([3, 7, 9], 34, "3 * 9 + 7"),
        ([24, 24, 34], 34, "34 - 24 + 24"),
        ([28, 23, 28], 23, "(28 * 23) / 28"),
        ([3, 7, 9], 34, r"\boxed{3 \times 9 + 7}"),
        ([3, 7, 9], 34, r"\boxed{\left(3 \cdot 9\right) + 7}"),
        ([3, 7, 9], 34, "3 * 9 + 7 = 34"),
        ([1, 5, 5, 5], 24, "5 * (5 - 1 / 5)"),
    ],
)
def test_right_completions(numbers: list[int], target: int, expression: str) -> None:
    text = f"…</think>\n<answer>{expression}</answer>"
    assert score(text, {"numbers": numbers, "target": target}) == {"correctness": 1.0, "closeness": 1.0}


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
    assert correctness(text, {"numbers": [3, 7, 9], "target": 34}) == 1.0


@pytest.mark.parametrize(
    ("expression", "target", "closeness"),
    [
        ("3 * 9 + 7", 34, 1.0),
        ("3 * 9 + 7 = 35", 34, 1.0),  # near is what the expression gives, whatever it is said to give
        ("3 * 9 + 7", 40, 0.4),
        ("3 * 9 + 7", 17, 1 / 11),
        ("3 - 9 - 7", 13, 1 / 21),
        ("7 / (9 - 3)", 1, 0.375),
        ("9 - 7 - 3", 0, 1 / 11),
        ("3 * 9", 27, 0.0),
        ("34", 34, 0.0),
        ("7 / (9 - 3 * 3)", 34, 0.0),
        ("close to 34", 34, 0.0),
    ],
)
def test_closeness_falls_with_the_distance_from_the_target(expression: str, target: int, closeness: float) -> None:
    parts = score(f"<answer>{expression}</answer>", {"numbers": [3, 7, 9], "target": target})
    assert parts["closeness"] == pytest.approx(closeness)


@given(st.integers(-1000, 1000), st.integers(0, 1000), st.integers(0, 1000))
def test_nearer_is_never_worth_less(target: int, distance: int, further: int) -> None:
    near, far = (closeness(Fraction(target + step), target) for step in (distance, distance + further))
    assert 0 < far <= near <= 1
    assert (near == 1) == (distance == 0)


def test_of_many_answers_only_the_last_counts() -> None:
    problem = {"numbers": [3, 7, 9], "target": 34}
    assert correctness("</think><answer>3*9+7</answer><answer>3*9-7</answer>", problem) == 0.0
    assert correctness("</think><answer>3*9-7</answer><answer>3*9+7</answer>", problem) == 1.0
    assert correctness("</think><answer>3*9+7</answer><answer></answer>", problem) == 0.0


def test_settings_that_travel_with_the_answer() -> None:
    text = "…</think><answer>27 + 7</answer>"
    some: dict[str, Any] = {"numbers": [27, 7, 9], "target": 34}
    assert correctness(text, some) == 0.0
    assert correctness(text, {**some, "must_use_all": False}) == 1.0


@pytest.mark.parametrize(
    ("expression", "is_whole"),
    [("6 / 3 * 2", True), ("2 * 6 / 3", True), ("2 / 3 * 6", False), ("6 / (3 / 2)", False)],
)
def test_exact_division_forbids_fractions_on_the_way(expression: str, is_whole: bool) -> None:
    problem = {"numbers": [2, 3, 6], "target": 4}
    assert correctness(f"<answer>{expression}</answer>", problem) == 1.0
    strict = score(f"<answer>{expression}</answer>", {**problem, "exact_division": True})
    assert strict == {"correctness": float(is_whole), "closeness": float(is_whole)}


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
        ("3 * 9 + 7 = 34 = 34", "not an expression: one side of '=' must be a number, or '=' left out"),
        ("= 34", "not an expression: empty"),
        ("3 * 9 + 7 = ٣٤", "not an expression: one side of '=' must be a number, or '=' left out"),
    ],
)
def test_reasons_for_people(expression: str, reason: str) -> None:
    verdict = check(expression, [3, 7, 9], 34)
    assert verdict.reason == reason
    assert verdict.is_correct == (reason == "correct")


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


@pytest.mark.timeout(120)
@pytest.mark.parametrize("expression", HOSTILE, ids=lambda text: repr(text[:16]))
def test_hostile_answers_are_marked(expression: str) -> None:
    assert score(f"</think><answer>{expression}</answer>", PROBLEM)["correctness"] == 0.0
    verdict = check(expression, [3, 7, 9], 33)
    assert len(verdict.reason) < 200


PIECES = ["</think>", "<answer>", "</answer>", "3", "9", "7", "33", "*", "+", "-", "/", "(", ")", "=", " ", "**", "x"]


@settings(deadline=None)
@given(st.lists(st.sampled_from(PIECES), max_size=25), st.booleans(), st.booleans())
def test_any_completion_is_right_or_wrong(pieces: list[str], must_use_all: bool, is_natural: bool) -> None:
    options = {"must_use_all": must_use_all} | ({"extraction": "natural"} if is_natural else {})
    parts = score("".join(pieces), {**PROBLEM, **options})
    assert parts["correctness"] in (0.0, 1.0)
    assert parts["correctness"] <= parts["closeness"] <= 1.0


@settings(deadline=None)
@given(st.text(max_size=300))
def test_any_answer_gets_a_verdict(text: str) -> None:
    verdict = check(text, [3, 7, 9], 33)
    assert verdict.reason and (verdict.is_correct == (verdict.reason == "correct"))
