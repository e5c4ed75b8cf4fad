"""1,200 solutions that real language models wrote, each with its true label, and 1,000 reference solutions."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from rewards.tasks.gsm8k import score, stated_number
from tests.support.paths import SHARED_DATA

DATA = SHARED_DATA

pytestmark = pytest.mark.skipif(not DATA.exists(), reason=f"the shared solutions are not on this machine: {DATA}")

STYLES = [
    "#### {}",
    "The answer is {}.",
    "<answer>{}</answer>",
    "So we get \\boxed{{{}}}.",
    "**Answer:** ${}",
    "A: {} in all",
]
"""Other ways to state what the solutions state after `A:`."""


def lines(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (DATA / name).read_text().splitlines()]


@pytest.fixture(scope="module")
def solutions() -> list[dict[str, Any]]:
    return lines("gsm8k_model_solutions.jsonl")


@pytest.mark.parametrize("extraction", ["tags", "natural"])
def test_every_label_is_reproduced(solutions: list[dict[str, Any]], extraction: str) -> None:
    marks = [score(row["solution"], {"answer": row["ground_truth"], "extraction": extraction}) for row in solutions]
    wrong = [
        i
        for i, (row, mark) in enumerate(zip(solutions, marks, strict=True))
        if mark["correctness"] != row["is_correct"]
    ]
    assert len(solutions) == 1200
    assert wrong == []


@pytest.mark.parametrize("style", STYLES)
def test_the_labels_do_not_depend_on_the_style(solutions: list[dict[str, Any]], style: str) -> None:
    for row in solutions:
        before, mark, stated = row["solution"].rpartition("A:")
        text = before + style.format(stated.strip()) if mark else row["solution"]
        assert score(text, {"answer": row["ground_truth"]})["correctness"] == row["is_correct"], text


def test_what_is_not_stated(solutions: list[dict[str, Any]]) -> None:
    """Line 1018 breaks off in the middle of an endless derivation; every other solution states a number."""
    assert [i for i, row in enumerate(solutions) if stated_number(row["solution"]) is None] == [1018]


def test_near_misses_are_misses(solutions: list[dict[str, Any]]) -> None:
    """The wrong answers within 2%, and those that differ by their sign: closeness is high, or not, and correctness 0."""
    near = {
        i: score(row["solution"], {"answer": row["ground_truth"]})
        for i, row in enumerate(solutions)
        if not row["is_correct"]
    }
    assert {i for i, mark in near.items() if mark["closeness"] > 1 / 1.2} == {
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
    rows = lines("gsm8k_train_1000.jsonl")
    assert len(rows) == 1000
    for row in rows:
        assert score(row["answer"], {"answer": row["answer"]}) == {"correctness": 1.0, "closeness": 1.0}
