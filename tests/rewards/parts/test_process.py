"""The general part `process`: the share of a worked solution's steps."""

from __future__ import annotations

import re
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewards.parts.process import process
from tests.support.shared_data import needs_shared_data, read_rows

SOLUTION = "48/2 = <<48/2=24>>24 clips in May, so 48+24 = 72 altogether."


@pytest.mark.parametrize(
    ("text", "steps", "value"),
    [
        (SOLUTION, ["24", "72"], 1.0),
        (SOLUTION, [24, 72], 1.0),
        (SOLUTION, ["48/2=24", "48+24=72"], 1.0),
        (SOLUTION, ["24", "73"], 0.5),
        (SOLUTION, ["72", "24"], 0.5),
        ("72, because half of 48 is 24.", ["24", "72"], 0.5),
        ("124 and 720", ["24", "72"], 0.0),
        ("", ["24", "72"], 0.0),
        ("24.00 and 1,200.", ["24", "$1200.00"], 1.0),
        ("the half, .5, of 0.2", ["0.50", "1/5=.2"], 1.0),
        ("24", ["24", "24"], 0.5),
        ("24 24", ["24", "24"], 1.0),
        ("anything", [], 0.0),
    ],
)
def test_share_of_the_steps_in_order(text: str, steps: list[str | int], value: float) -> None:
    assert process(text, {"steps": steps}) == pytest.approx(value)


@given(st.lists(st.integers(0, 4), max_size=7), st.lists(st.integers(0, 4), min_size=1, max_size=5))
def test_the_longest_common_subsequence_by_brute_force(numbers: list[int], steps: list[int]) -> None:
    def is_in_order(chosen: tuple[int, ...]) -> bool:
        rest = iter(numbers)
        return all(step in rest for step in chosen)

    most = max(size for size in range(len(steps) + 1) if any(map(is_in_order, combinations(steps, size))))
    assert process(" ".join(map(str, numbers)), {"steps": steps}) == pytest.approx(most / len(steps))


def test_a_task_without_steps_is_told_so() -> None:
    with pytest.raises(KeyError, match="worked solution"):
        process("24", {"answer": "72"})
    with pytest.raises(ValueError, match="must have a number"):
        process("24", {"steps": ["half"]})


@pytest.mark.timeout(120)
@pytest.mark.parametrize("piece", [" 1", "1,", "1", ".1", "1,234,", "3+4=7 "], ids=repr)
def test_a_hostile_repetition_ends(piece: str) -> None:
    """Without bounds it would be hours."""
    assert 0 <= process(piece * (200_000 // len(piece)), {"steps": [1, 7, 3] * 100}) <= 1


@needs_shared_data
def test_right_solutions_of_real_models_show_far_more_steps_than_wrong_ones() -> None:
    rows = read_rows("gsm8k_model_solutions.jsonl")
    shares: dict[bool, list[float]] = {True: [], False: []}
    for row in rows:
        steps = re.findall(r"<<[^<>]*=([^<>]*)>>", row["ground_truth"])
        shares[row["is_correct"]].append(process(row["solution"], {"steps": steps}))
    right, wrong = (sum(values) / len(values) for values in (shares[True], shares[False]))
    assert right > 0.9
    assert wrong < 0.4
