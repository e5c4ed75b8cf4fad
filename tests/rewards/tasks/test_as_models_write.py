"""Answers in the dress in which instruction-tuned models give them, and what only looks like the answer in it."""

import pytest

from rewards.parsing.extraction import last_box
from rewards.tasks import code, countdown, exact_match, gsm8k, math, multiple_choice

OPTIONS = ["1", "2", "3", "4"]
CELLS = ["B cells", "T cells", "red blood cells", "platelets"]
HORIZONS = ["A horizon", "B horizon", "O horizon", "C horizon"]
ADD = {"kind": "function", "functions": ["add"], "tests": "assert add(1, 2) == 3\nassert add(2, 2) == 4"}
PROGRAM = "def add(a, b):\n    return a + b"


@pytest.mark.parametrize(
    "text",
    [
        "```python\n{}\n```\n\nThis prints:\n\n```\n3\n```",
        "```python\n{}\n```\n\nExample usage:\n\n```python\nprint(add(1, 2))\n```",
        "```\n{}\n```\n\n```python\nprint(add(1, 2))\n```",
        "<answer>\n```python\n{}\n```\nOutput:\n```\n3\n```\n</answer>",
        "<answer>\n```python\n{}\n</answer>",
        "<answer>```python\n{}```</answer>",
    ],
)
def test_samples_of_use_and_output_are_not_the_program(text: str) -> None:
    assert code.extract_program(text.format(PROGRAM), functions=["add"]) == PROGRAM
    assert code.score(text.format(PROGRAM), ADD)["correctness"] == 1.0


def test_a_program_of_empty_lines_takes_no_time_to_find() -> None:
    """Else the test's deadline, in the pool, is what ends it: the square of these lines is 10^10 steps."""
    empty = "\n" * 100_000
    assert code.extract_program(f"```python{empty}x = 1\n```\n```python\n{PROGRAM}\n```", functions=["add"]) == PROGRAM


def test_of_two_programs_the_last_counts_and_without_a_name_the_last_that_is_python() -> None:
    wrong = PROGRAM.replace("+", "-")
    assert code.score(f"```python\n{PROGRAM}\n```\nNo:\n```python\n{wrong}\n```", ADD)["correctness"] == 0.0
    assert code.extract_program("```python\nx = 1\n```\nprints\n```\n1\n```") == "x = 1"


@pytest.mark.parametrize(
    ("text", "reference", "is_right"),
    [
        ("Factoring, we get\n$(x-1)(x+1)$.", "x^2-1", 1),
        ("So the point is $(1,2)$.", "(1,2)", 1),
        ("It is $1+2i$.", "1+2i", 1),
        ("There are $5!$ ways.", "120", 1),
        ("That makes $12{,}345$.", "12345", 1),
        ("so the line is $y = 2x+1$", "2x+1", 1),
        ("so the perimeter is $5x$.", "5", 0),
        ("so $x > 5$.", "5", 0),
        (r"\[ x^2 - 3 \]", "3", 0),
    ],
)
def test_dollars_stay_around_a_natural_answer_in_mathematics(text: str, reference: str, is_right: float) -> None:
    assert math.score(text, {"answer": reference, "extraction": "natural"})["correctness"] == is_right


@pytest.mark.parametrize(
    ("text", "reference", "is_right"),
    [
        (r"<answer>$\$18.90$</answer>", r"\$18.90", 1),
        (r"The answer is $\$5$.", "5", 1),
        (r"The roots are $\boxed{1}$ and $\boxed{2}$.", "1,2", 1),
        (r"<answer>\boxed{1} or \boxed{2}</answer>", "2", 0),
        (r"\boxed{5}, that is \boxed{5}", "5", 1),
        (r"\boxed{5}, \boxed{5}", "5", 1),
    ],
)
def test_amounts_of_money_and_several_boxes_in_mathematics(text: str, reference: str, is_right: float) -> None:
    assert math.score(text, {"answer": reference})["correctness"] == is_right


@pytest.mark.parametrize(
    ("stated", "reference", "is_right"),
    [
        (r"\boxed{72\text{ ft}^2}", "72", 1),
        (r"72 \text{ m}^{2}", "72", 1),
        (r"72 \mathrm{~cm}^{3}", "72", 1),
        (r"90^\circ", "90", 1),
        (r"90^{\circ}", "90", 1),
        ("12 tacos", "12", 1),
        ("10^2", "10", 0),
        (r"\sqrt{72}", "72", 0),
        ("√72", "72", 0),
        (r"72\pi", "72", 0),
        ("log(72)", "72", 0),
        (r"\boxed{72} or \boxed{73}", "73", 0),
    ],
)
def test_units_in_latex_and_what_is_not_the_number_alone(stated: str, reference: str, is_right: float) -> None:
    assert gsm8k.score(f"<answer>{stated}</answer>", {"answer": reference})["correctness"] == is_right


def test_the_power_of_a_unit_is_not_the_answer() -> None:
    text = r"The area is $\boxed{72 \text{ cm}^2}$."
    found = [gsm8k.score(text, {"answer": answer, "extraction": "natural"})["correctness"] for answer in ("72", "2")]
    assert found == [1.0, 0.0]


def test_a_remark_on_the_answer_is_not_the_answer() -> None:
    c = {"answer": "C", "options": OPTIONS}
    assert math.score("\\boxed{5}. So the answer is correct.", {"answer": "5"})["correctness"] == 1.0
    assert multiple_choice.score("\\boxed{C}\n\nThe answer is reasonable.", c)["correctness"] == 1.0
    assert multiple_choice.score("The answer is C.\n\nThis answer is consistent with it.", c)["correctness"] == 1.0
    assert exact_match.score("\\boxed{kitchen}\n\nThe answer is correct.", {"answer": "kitchen"})["correctness"] == 1.0
    # But where it stands alone it may be one: left or right?
    assert exact_match.score("The answer is right.", {"answer": "right"})["correctness"] == 1.0


@pytest.mark.parametrize(
    "dress",
    [
        r"\boxed{{{}}}", "${}$", r"\({}\)", "$${}$$", r"$\boxed{{{}}}$", r"\[ \boxed{{{}}} \]", r"\boxed{{{}}}.",
        "{} = 42.", "**{}**", "`{}`", "$`{}`$.",
    ],
)  # fmt: skip
def test_an_expression_may_be_dressed_up_and_must_still_be_right(dress: str) -> None:
    answer = {"numbers": [3, 7, 9], "target": 42}
    for expression, is_right in ((r"(9 - 3) \times 7", 1.0), ("(9 - 3) + 7", 0.0), ("(9 - 3) * 7 $ 1", 0.0)):
        text = f"<answer>{dress.format(expression)}</answer>"
        assert countdown.score(text, answer)["correctness"] == is_right


@pytest.mark.parametrize(
    ("text", "answer", "options", "is_right"),
    [
        (r"<answer>$\boxed{C}$</answer>", "C", OPTIONS, 1),
        (r"<answer>\[ \boxed{C} \]</answer>", "C", OPTIONS, 1),
        (r"<answer>\boxed{\textbf{C}}</answer>", "C", OPTIONS, 1),
        (r"<answer>\boxed{\mathrm{C}}</answer>", "C", OPTIONS, 1),
        ('<answer>"C"</answer>', "C", OPTIONS, 1),
        ("So, the correct option is: C", "C", OPTIONS, 1),
        (r"\boxed{B} or \boxed{C}", "C", OPTIONS, 0),
        ("<answer>B cells</answer>", "A", CELLS, 1),
        ("<answer>B cells</answer>", "B", CELLS, 0),
        ("<answer>C horizon</answer>", "D", HORIZONS, 1),
        ("<answer>C</answer>", "C", HORIZONS, 1),
        ("<answer>C. O horizon</answer>", "C", HORIZONS, 1),
    ],
)
def test_options(text: str, answer: str, options: list[str], is_right: float) -> None:
    assert multiple_choice.score(text, {"answer": answer, "options": options})["correctness"] == is_right


@pytest.mark.parametrize(
    ("given_", "reference", "is_right"),
    [
        ("का", "की", 0),
        ("किताबें", "किताब", 0),
        ("किताब", "किताब", 1),
        ("ไม้", "ไม่", 0),
        ("Hudson’s Bay", "Hudson's Bay", 1),
    ],
)
def test_vowels_that_are_no_letters_count(given_: str, reference: str, is_right: float) -> None:
    assert exact_match.score(f"<answer>{given_}</answer>", {"answer": reference})["correctness"] == is_right


def test_many_boxes_in_a_row_are_read_in_one_pass() -> None:
    box = last_box(r"\boxed{1}, " * 20_000 + r"\boxed{2}")
    assert box is not None and box.text == "1, 2"
