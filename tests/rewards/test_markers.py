from __future__ import annotations

import time

import pytest

from rewards.markers import markers

TRACE_HIT = "9+3=12: 12*7=84 yes\n</think><answer>(9+3)*7</answer>"
TRACE_SEARCH = "9+3=12: 12*7=84 no, 12-7=5 no\n9*3=27: 27-7=20 yes\n</think><answer>(9*3)-7</answer>"
TRACE_GIVES_UP = "9+3=12: 12*7=84 no\n</think><answer>(9+3)*7</answer>"


def shown(text: str) -> set[str]:
    return {name for name, is_shown in markers(text).items() if is_shown}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (TRACE_HIT, {"verification", "step_by_step"}),
        (TRACE_SEARCH, {"verification", "step_by_step", "exploration", "backtracking"}),
        (TRACE_GIVES_UP, {"verification", "step_by_step"}),
        ("9+3=12 no\n</think>", {"verification"}),
        ("(9+3)*7</think><answer>(9+3)*7</answer>", set()),
        ("", set()),
        ("Let me check: 3 + 4 is 7.", {"verification"}),
        ("This is not equal to 70.", {"verification"}),
        ("The answer is large.", set()),
        ("I waited for a step.", set()),
        ("Wait, 5 is already used.", {"backtracking"}),
        ("This does not work. Let's try another approach.", {"verification", "backtracking", "exploration"}),
        ("We can try 3 + 4.", set()),
        ("Try 3 + 4. Then try 3 * 4.", {"exploration"}),
        ("1. Add 3 to 4.\n2. Add 5.", {"step_by_step"}),
        ("Step 1: add.", {"step_by_step"}),
        ("- 98 - 29 = 69\n- 69 + 1 = 70", set()),
        ("59 * 13 = 767\n767 + 21 = 788", {"step_by_step"}),
    ],
)
def test_markers(text: str, expected: set[str]) -> None:
    assert shown(text) == expected


@pytest.mark.parametrize(
    "text",
    ["try", "=1 no\n", "=1 no, ", "=1: ", "= 1 ", "=    1    ", "wait", " ", "\n        ", "this is ", "1,1", "=1,"],
    ids=repr,
)
def test_time_is_linear_in_length(text: str) -> None:
    start = time.process_time()
    markers(text * (300_000 // len(text)))
    assert time.process_time() - start < 1.5
