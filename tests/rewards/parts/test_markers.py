from __future__ import annotations

import pytest

from rewards.parts.markers import markers
from tests.support.shared_data import needs_shared_data, read_rows

TRACE_HIT = "9+3=12: 12*7=84 yes\n</think><answer>(9+3)*7</answer>"
TRACE_SEARCH = "9+3=12: 12*7=84 no, 12-7=5 no\n9*3=27: 27-7=20 yes\n</think><answer>(9*3)-7</answer>"
TRACE_GIVES_UP = "9+3=12: 12*7=84 no\n</think><answer>(9+3)*7</answer>"
SEARCH = {"verification", "step_by_step", "exploration", "backtracking", "shows_calculation"}


def shown(text: str) -> set[str]:
    return {name for name, is_shown in markers(text).items() if is_shown}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (TRACE_HIT, {"verification", "step_by_step", "shows_calculation"}),
        (TRACE_SEARCH, SEARCH),
        (TRACE_GIVES_UP, {"verification", "step_by_step", "shows_calculation"}),
        ("9+3=12 no\n</think>", {"verification", "shows_calculation"}),
        ("(9+3)*7</think><answer>(9+3)*7</answer>", set()),
        ("", set()),
        ("Let me check: 3 + 4 is 7.", {"verification"}),
        ("Let's double-check whether 7 is used.", {"verification"}),
        ("Checking that each number is used once.", {"verification"}),
        ("This is not equal to 70.", {"verification"}),
        ("This is close to 98, but too low.", {"verification"}),
        ("Indeed that is correct!", {"verification"}),
        ("This works.", {"verification"}),
        ("The answer is large.", set()),
        ("I waited for a step.", set()),
        ("Wait, 5 is already used.", {"backtracking"}),
        ("But wait, maybe I can add.", {"backtracking"}),
        ("Hmm. We go back to 3.", {"backtracking"}),
        ("Oops, I made a mistake.", {"backtracking"}),
        ("This does not work. Let's try another approach.", {"verification", "backtracking", "exploration"}),
        ("We can try 3 + 4.", set()),
        ("Try 3 + 4. Then try 3 * 4.", {"exploration"}),
        ("Trying to use 3. Alternatively, use 4.", {"exploration"}),
        ("1. Add 3 to 4.\n2. Add 5.", {"step_by_step"}),
        ("Step 1: add.", {"step_by_step"}),
        ("- 98 - 29 = 69\n- 69 + 1 = 70", {"shows_calculation"}),
        ("59 * 13 = 767\n767 + 21 = 788", {"step_by_step", "shows_calculation"}),
    ],
)
def test_markers(text: str, expected: set[str]) -> None:
    assert shown(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "Paul will wait for 10 minutes.",
        "They had to wait. Then the bus came.",
        "In hours, this is equal to 180/60.",
        "He saved for 2 years, which is equal to 24 months.",
        "Going back to the starting point takes 3 hours.",
        "30 students who try to escape, and 4 more who try to climb.",
        "The doctor spends 180 minutes checking on patients.",
        "She has a checking account.",
        "He works 5 days. It works for 3 hours.",
        "This is right next to the house.",
        "A right triangle: that is right angled.",
        "She can use a different bus.",
    ],
)
def test_the_same_words_about_something_else_are_no_marker(text: str) -> None:
    assert shown(text) == set()


@pytest.mark.parametrize(
    "text",
    [
        "12 * 7 = 84",
        r"\[ 12 \times 7 = 84 \]",
        "20 x 3 = 60",
        "2 × 4 ≈ 8",
        "3 * (4 + 5) = 27",
        "$3000 - $100 = $2900",
        "3 hours * 60 minutes = 180 minutes",
        "48/2 = <<48/2=24>>24",
        "2 - .5 = 1.5",
    ],
)
def test_an_operation_and_its_result_are_a_calculation(text: str) -> None:
    assert "shows_calculation" in shown(text)


@pytest.mark.parametrize("text", ["12 * 7", "x = 84", "12 and 7 make 84", "The max = 3", "1. 7 = seven", "12 * y = 84"])
def test_less_than_that_is_none(text: str) -> None:
    assert "shows_calculation" not in shown(text)


@needs_shared_data
@pytest.mark.parametrize(
    ("name", "field"),
    [("gsm8k_model_solutions", "solution"), ("gsm8k_train_1000", "answer"), ("aqua_dev", "rationale")],
)
def test_worked_solutions_calculate_and_neither_check_nor_give_up(name: str, field: str) -> None:
    """Read by hand: one AQuA rationale has a paragraph headed Verification; no other checks, gives up or explores."""
    texts = [row[field] for row in read_rows(f"{name}.jsonl")]
    seen = [shown(text) for text in texts]
    assert sum("verification" in names for names in seen) == (1 if name == "aqua_dev" else 0)
    assert not any({"backtracking", "exploration"} & names for names in seen)
    assert sum("shows_calculation" in names for names in seen) > (0.6 if name == "aqua_dev" else 0.99) * len(seen)


@needs_shared_data
@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (48, {"verification", "exploration", "shows_calculation"}),
        (29, {"verification", "backtracking", "exploration", "shows_calculation"}),
        (165, {"backtracking", "exploration", "shows_calculation"}),
        (44, set()),
    ],
)
def test_real_countdown_completions_read_by_hand(line: int, expected: set[str]) -> None:
    text = read_rows("countdown_completions.jsonl")[line]["completion"]
    assert shown(text) - {"step_by_step"} == expected


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    "text",
    [
        *(
            "try",
            "=1 no\n",
            "=1 no, ",
            "=1: ",
            "= 1 ",
            "=    1    ",
            "wait",
            " ",
            "\n        ",
            "this is ",
            "1,1",
            "=1,",
        ),
        *("+1", "*1.", "+1 a", "x 1 ", ". wait ", "check", "+      (", "let me "),
    ],
    ids=repr,
)
def test_a_hostile_repetition_ends(text: str) -> None:
    """Quadratic time would be an hour."""
    assert set(markers(text * (200_000 // len(text)))) == set(markers(""))
