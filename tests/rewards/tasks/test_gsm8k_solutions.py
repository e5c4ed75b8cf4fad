"""1,200 solutions that real language models wrote, each with its true label, and 1,000 reference solutions."""

from __future__ import annotations

import re
from typing import Any

import pytest

from rewards.tasks.gsm8k import score, stated_number
from tests.support.shared_data import needs_shared_data, read_rows

pytestmark = needs_shared_data

STYLES = [
    "#### {}",
    "The answer is {}.",
    "<answer>{}</answer>",
    "So we get \\boxed{{{}}}.",
    "**Answer:** ${}",
    "A: {} in all",
]
"""Other ways to state what the solutions state after `A:`."""


@pytest.fixture(scope="module")
def solutions() -> list[dict[str, Any]]:
    return read_rows("gsm8k_model_solutions.jsonl")


@pytest.mark.parametrize("extraction", ["tags", "natural"])
def test_every_label_is_reproduced(solutions: list[dict[str, Any]], extraction: str) -> None:
    grades = [score(row["solution"], {"answer": row["ground_truth"], "extraction": extraction}) for row in solutions]
    wrong = [
        i
        for i, (row, grade) in enumerate(zip(solutions, grades, strict=True))
        if grade["correctness"] != row["is_correct"]
    ]
    assert len(solutions) == 1200
    assert wrong == []


@pytest.mark.parametrize("style", STYLES)
def test_the_labels_do_not_depend_on_the_style(solutions: list[dict[str, Any]], style: str) -> None:
    for row in solutions:
        before, announced, stated = row["solution"].rpartition("A:")
        text = before + style.format(stated.strip()) if announced else row["solution"]
        assert score(text, {"answer": row["ground_truth"]})["correctness"] == row["is_correct"], text


def test_what_is_not_stated(solutions: list[dict[str, Any]]) -> None:
    """Line 1018 breaks off in the middle of an endless derivation; every other solution states a number."""
    assert [i for i, row in enumerate(solutions) if stated_number(row["solution"]) is None] == [1018]


def test_near_misses_are_misses(solutions: list[dict[str, Any]]) -> None:
    """Wrong answers within 2%, and those that differ by their sign: closeness is high, or not, and correctness 0."""
    near = {
        i: score(row["solution"], {"answer": row["ground_truth"]})
        for i, row in enumerate(solutions)
        if not row["is_correct"]
    }
    assert {i for i, grade in near.items() if grade["closeness"] > 1 / 1.2} == {
        917,
        1012,
        1165,
    }  # 140, 140, 318 for 142, 142, 319
    assert all(near[i]["correctness"] == 0.0 for i in (397, 493, 520))  # -10, -2, -9 for 10, 2, 10


def test_a_changed_final_number_is_wrong(solutions: list[dict[str, Any]]) -> None:
    for row in solutions:
        if row["is_correct"]:
            text, number = re.fullmatch(r"(.*A: *)(\S+)\s*", row["solution"], re.DOTALL).groups()  # type: ignore[union-attr]
            for changed in (f"{number}0", f"-{number}", f"1{number}", f"{number}.5", f"{number} or 0", f"{number}^2"):
                assert score(text + changed, {"answer": row["ground_truth"]})["correctness"] == (changed == "-0"), (
                    changed
                )


def test_every_reference_solution_marks_itself_right() -> None:
    rows = read_rows("gsm8k_train_1000.jsonl")
    assert len(rows) == 1000
    for row in rows:
        assert score(row["answer"], {"answer": row["answer"]}) == {"correctness": 1.0, "closeness": 1.0}
