"""Grading of questions with options: letters, texts, the article, and AQuA's own rationales."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewards.tasks.multiple_choice import last_letter, score, stated_letter
from tests.support.paths import SHARED_DATA
from tests.support.shared_data import needs_shared_data, read_rows

SPEEDS = ["32400", "6000", "600", "60000", "10"]
CITIES = ["Paris", "New York", "A ship", "Paris", "All of A, B and C"]


@pytest.mark.parametrize(
    "text",
    [
        "<answer>B</answer>",
        "<answer>(b)</answer>",
        "<answer>b</answer>",
        "<answer>B) 6000</answer>",
        "<answer>B) 6,000</answer>",
        "<answer>b) 6000</answer>",
        "<answer>6000</answer>",
        "<answer>$6{,}000$</answer>",
        "<answer>Option (B)</answer>",
        "<answer>The correct answer is B</answer>",
        r"\boxed{B}",
        r"\boxed{\text{B}}",
        r"$\boxed{\textbf{(B)}}$",
        r"\boxed{6000}",
        "Answer: (B)",
        "ANSWER:B",
        "Answer B",
        "Answer - B",
        "It is 20% Answer B",
        "Ans: B",
        "Ans. B",
        "**Answer:** B",
        "Final answer: **B**",
        "The answer is B.",
        "the answer is b",
        "The answer is\n(B)",
        "The answer is B because A is too large",
        "The answer is 6000.",
        "Answer: 6000 (B)",
        "The correct option is **B**.",
        "CORRECT OPTION:OPTION B",
        "Choice B.",
        "Thus, B is the correct answer",
        "So option B is correct.",
        "Some work\nB",
        "Some work\nOption B",
        "The answer is A.\nNo: the answer is B.",
    ],
)
def test_names_b(text: str) -> None:
    assert score(text, {"answer": "B", "options": SPEEDS}) == {"correctness": 1.0}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "B or not",
        "I think B",
        "A train needs 5 hours",
        "The answer is a train",
        "The answer is A train",
        "<answer>A ship</answer>",
        "<answer>B or C</answer>",
        "<answer>B, C</answer>",
        "<answer>B and C</answer>",
        "<answer>B) 32400</answer>",
        "<answer>not (B)</answer>",
        "<answer></answer> Answer: B",
        "Answer: F",
        "Answer A is wrong",
        "Neither A nor B is correct",
        "Answer: e.g. 6000 mph",
        "<answer>6001</answer>",
        "Try answer choice B) first, as it is the middle one.\nIt is 30.",
    ],
)
def test_names_no_option(text: str) -> None:
    assert stated_letter(text, SPEEDS) is None
    assert [score(text, {"answer": letter, "options": SPEEDS}) for letter in "ABCDE"] == [{"correctness": 0.0}] * 5


def test_the_article_is_no_letter_but_the_letter_is() -> None:
    for text in (
        "The answer is A.",
        "Answer: A",
        "So A is correct",
        "The answer is A because it is",
        "<answer>A</answer>",
    ):
        assert stated_letter(text, SPEEDS) == "A", text


def test_a_text_that_two_options_share_names_neither() -> None:
    assert stated_letter("<answer>Paris</answer>", CITIES) is None
    assert stated_letter("<answer>new york.</answer>", CITIES) == "B"
    assert stated_letter("<answer>A ship</answer>", CITIES) == "C"
    assert stated_letter("<answer>E) All of A, B and C</answer>", CITIES) == "E"


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("First B, then C. So D", "D"),
        ("It is (b)", "B"),
        ("Only C works. A train is fast.", "C"),
        ("Plan B fails, so it is A.", "A"),
        ("F is no option, C is", "C"),
        ("nothing here", None),
        ("It is not C.", None),
        ("It can't be option C", None),
        ("A or B or C", None),
        ("So (A) and (C)", None),
        ("So C is not right", None),
        ("It is not B but C", "C"),
    ],
)
def test_the_last_letter_counts_in_the_natural_format(text: str, letter: str | None) -> None:
    assert last_letter(text, SPEEDS) == letter
    expected = float(letter == "C")
    assert score(text, {"answer": "C", "options": SPEEDS, "extraction": "natural"}) == {"correctness": expected}


def test_without_a_letter_the_natural_format_takes_the_text() -> None:
    assert (
        score("So the answer is 600.", {"answer": "C", "options": SPEEDS, "extraction": "natural"})["correctness"]
        == 1.0
    )


@pytest.mark.parametrize("letter", ["F", "", "AB", "1"])
def test_a_reference_that_is_no_option_is_refused(letter: str) -> None:
    with pytest.raises(ValueError, match="one of the letters ABCDE"):
        score("Answer: A", {"answer": letter, "options": SPEEDS})


@given(st.text() | st.text(alphabet="ABCDE()*<>/answer option is:.\n"), st.booleans())
def test_any_text_names_at_most_one_option(text: str, natural: bool) -> None:
    extraction = {"extraction": "natural"} if natural else {}
    grades = [score(text, {"answer": letter, "options": SPEEDS} | extraction)["correctness"] for letter in "ABCDE"]
    assert sum(grades) in (0.0, 1.0)


UNSTATED = {2, 16, 19, 39, 67, 78, 107, 113, 119, 136, 139, 200, 214, 216, 220, 239, 248}
"""Rationales that end in a value (`Total is 50.`) or in a letter that nothing announces: `This gives us B` (16),
`250=D` (139) and `12-5=7 C` (239)."""


@needs_shared_data
class TestAqua:
    """254 rationales that people wrote, with the option they are for."""

    rows = read_rows("aqua_dev.jsonl") if SHARED_DATA.exists() else []

    def answer(self, row: dict[str, object]) -> dict[str, object]:
        return {"answer": row["correct"], "options": [option.partition(")")[2] for option in row["options"]]}  # type: ignore[attr-defined]

    def test_every_stated_answer_is_the_right_one(self) -> None:
        stated = [stated_letter(row["rationale"], self.answer(row)["options"]) for row in self.rows]  # type: ignore[arg-type]
        assert len(self.rows) == 254
        assert {i for i, letter in enumerate(stated) if letter is None} == UNSTATED
        assert all(letter in (None, row["correct"]) for row, letter in zip(self.rows, stated, strict=True))

    def test_the_last_letter_finds_three_more(self) -> None:
        found = [last_letter(row["rationale"], row["options"]) for row in self.rows]
        right = {i for i, (row, letter) in enumerate(zip(self.rows, found, strict=True)) if letter == row["correct"]}
        assert {16, 139, 239} <= right
        assert set(range(254)) - UNSTATED <= right

    def test_each_option_is_told_by_letter_and_by_text(self) -> None:
        for row in self.rows:
            answer = self.answer(row)
            for letter, text in zip("ABCDE", answer["options"], strict=True):  # type: ignore[call-overload]
                is_right = float(letter == row["correct"])
                for stated in (letter, f"({letter}) {text}"):
                    assert score(f"<answer>{stated}</answer>", answer)["correctness"] == is_right, (row, stated)
                by_text = score(f"The answer is unclear. <answer>{text}</answer>", answer)["correctness"]
                assert by_text in (0.0, is_right)
