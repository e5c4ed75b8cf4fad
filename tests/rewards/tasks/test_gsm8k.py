"""Grading of word problems: what names a number, what does not, and how near it is."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewards.tasks.gsm8k import PARTS, closeness, reference, score, stated_number


@pytest.mark.parametrize(
    "text",
    [
        "A: 72",
        "A:72.0",
        "  **A:** 72",
        "#### 72",
        "####72",
        "#### $72.00",
        "#### A: 72",
        "The answer is 72.",
        "the final answer is: **72** clips!",
        "**Answer:** 72",
        "**Final Answer:**\n72",
        "The answer to the question is 72 dollars",
        "Answer = 72",
        "The answer is $72$.",
        r"Answer: \(72\)",
        r"So \boxed{72}.",
        r"\boxed{\$72}",
        r"\boxed{72\text{ clips}}",
        r"\boxed{72\%}",
        r"\boxed{x = 72}",
        "<answer>72</answer>",
        "<answer> $72 </answer> A: 5",
        r"<answer>\boxed{72}</answer>",
        "<answer>24 + 48 = 72</answer>",
        "<answer>The answer is 72</answer>",
        "<answer>144/2</answer>",
        "A: 72 = 144/2",
        "A: 24 x 3 = 72 clips",
        "A: 72 (48 + 24 = 72)",
        "A: 72 (since 24 = 48/2)",
        "The answer is 72. She sold 48 in April.",
        "The answer is 72 because 48 + 24 = 72",
        "A: 71\nA: 72",
        "#### 71\nWait. The answer is 72.",
        "A: 72\nThe answer is clear now.",
        "The answer is 72\n#### Step 5: celebrate",
        "The answer is 72\n#### 5. Celebrate",
    ],
)
def test_names_72(text: str) -> None:
    assert score(text, {"answer": "72"}) == {"correctness": 1.0, "closeness": 1.0}


@pytest.mark.parametrize(
    "text",
    [
        "72",
        "So she sold 48 + 24 = 72 clips.",
        "A: 72 or 73",
        "<answer>72 and 73</answer>",
        "<answer>not 72</answer>",
        "The answer isn't 72",
        "A: 48 + 24",
        "A: 72 clips = 6 dozen",
        "A: 72 hours 30 minutes",
        "A: She sold 48 in April. So 72.",
        "#### Step 2: the total is 72",
        "#### 72. Compute the total",
        "<answer></answer> A: 72",
        "<answer>72",
        "A: 7,2",
        "A: 72^1",
        "A: 72.0.0",
        "A: 72²",
        "To answer this we need 72",
        "A: seventy-two",
        "",
    ],
)
def test_names_no_number(text: str) -> None:
    assert stated_number(text) is None
    assert score(text, {"answer": "72"}) == {"correctness": 0.0, "closeness": 0.0}


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("#### -5", "-5"),
        ("#### 5", "5.0"),
        ("#### 1,234.5", "$1,234.50"),
        ("#### 0.5", "1/2"),
        (r"\boxed{\frac{1}{2}}", "0.5"),
        ("#### 1.5 million", "1500000"),
        ("#### 5", 5),
        ("#### 0.1", 0.1),
        ("#### 18", "16 - 3 - 4 = <<16-3-4=9>>9\n9 * 2 = 18\n#### 18"),
        ("#### 18", "9 * 2 = 18\nA: 18"),
    ],
)
def test_references(text: str, answer: object) -> None:
    assert score(text, {"answer": answer})["correctness"] == 1.0


@pytest.mark.parametrize("answer", ["", "many", "72 or 73", "10^2"])
def test_a_reference_that_is_no_number_is_refused(answer: str) -> None:
    with pytest.raises(ValueError, match="reference must be one number"):
        score("A: 5", {"answer": answer})


def test_the_sign_and_the_scale_matter() -> None:
    for text in ("A: -72", "A: 0.72", "A: 7,200", "A: 72 million", "A: 720"):
        assert score(text, {"answer": "72"})["correctness"] == 0.0


@pytest.mark.parametrize(
    ("text", "is_right"),
    [
        ("So she sold 72 clips.", 1),
        ("72 clips in 2 months", 0),
        ("A: 5\nso 72!", 1),
        ("<answer>72</answer>", 1),
        ("", 0),
    ],
)
def test_in_the_natural_format_the_last_number_counts(text: str, is_right: float) -> None:
    assert score(text, {"answer": "72", "extraction": "natural"})["correctness"] == is_right


def test_closeness_falls_with_the_relative_error() -> None:
    assert [closeness(Fraction(x), Fraction(100)) for x in (100, 110, 90, 200)] == [1.0, 0.5, 0.5, 1 / 11]
    assert closeness(Fraction(0), Fraction(0)) == 1.0
    assert closeness(Fraction(10**60), Fraction(1)) >= 0.0


@given(st.fractions(), st.fractions(), st.fractions())
def test_closeness_orders_answers_by_their_error(first: Fraction, second: Fraction, expected: Fraction) -> None:
    nearer, farther = sorted((first, second), key=lambda given: abs(given - expected))
    assert 0.0 <= closeness(farther, expected) <= closeness(nearer, expected) <= 1.0
    assert closeness(expected, expected) == 1.0


@given(st.text() | st.text(alphabet="A:#$72.,- \n<>/answer\\boxed{}="), st.integers(-1000, 1000), st.booleans())
def test_any_text_gets_both_parts(text: str, answer: int, natural: bool) -> None:
    parts = score(text, {"answer": answer} | ({"extraction": "natural"} if natural else {}))
    assert tuple(parts) == PARTS
    assert parts["correctness"] in (0.0, 1.0)
    assert (parts["closeness"] == 1.0) == (parts["correctness"] == 1.0)


def test_a_reference_is_read_once_and_right() -> None:
    assert reference("1,234") == 1234
