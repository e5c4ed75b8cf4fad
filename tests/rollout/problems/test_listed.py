"""Problems of a list: which are held out, and in which order the others come."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rollout.problems.listed import ListedProblems
from rollout.problems.problem import Problem


def problem(key: str, answer: str = "1") -> Problem:
    return Problem({"question": key}, {"answer": answer}, key)


def keys(problems) -> set[str]:
    return {each.key for each in problems}


def listed(names, num_held_out: int = 50, seed: int = 0, **others) -> ListedProblems:
    return ListedProblems([problem(name) for name in names], num_held_out, seed, "rows.jsonl", **others)


NAMES = [f"question {number}" for number in range(500)]


def test_the_order_of_the_rows_decides_nothing() -> None:
    shuffled = random.Random(1).sample(NAMES, len(NAMES))
    first, other = listed(NAMES), listed(shuffled)
    assert first.held_out == other.held_out and len(first.held_out) == 50
    assert [first.train(index) for index in range(900)] == [other.train(index) for index in range(900)]


@given(st.integers(0, 10**6), st.integers(1, 60))
@settings(max_examples=60)
def test_a_row_added_or_removed_moves_at_most_one_other(number, num_held_out) -> None:
    before = listed(NAMES, num_held_out)
    added = listed([*NAMES, f"new {number}"], num_held_out)
    removed = listed([name for name in NAMES if name != NAMES[number % 500]], num_held_out)
    # One that is held out in its place, and the row itself.
    assert len(keys(before.held_out) - keys(added.held_out)) <= 1
    assert keys(added.held_out) - keys(before.held_out) <= {f"new {number}"}
    assert keys(before.held_out) - keys(removed.held_out) <= {NAMES[number % 500]}
    assert len(keys(removed.held_out) - keys(before.held_out)) <= 1


def test_the_seed_decides_which_are_held_out() -> None:
    assert keys(listed(NAMES).held_out) != keys(listed(NAMES, seed=1).held_out)


def test_of_one_key_the_same_row_stays_whatever_their_order() -> None:
    rows = [problem("a", "1"), problem("a", "2"), problem("b"), problem("c")]
    first, other = (ListedProblems(order, 1, 0, "rows.jsonl") for order in (rows, rows[::-1]))
    assert first.num_problems == 2 and first.held_out == other.held_out
    assert sorted(map(str, first.different)) == sorted(map(str, other.different))


def test_a_run_that_began_by_position_keeps_to_it() -> None:
    """What versions before format 2 of a checkpoint's prompts held out, and asked, of these rows."""
    old = listed([f"q{number}" for number in range(12)], num_held_out=3)
    old.split("by_position")
    held_out = [f"q{position}" for position in random.Random("held_out/0").sample(range(12), 12)[:3]]
    rest = [name for name in (f"q{number}" for number in range(12)) if name not in held_out]
    assert [each.key for each in old.held_out] == held_out
    assert [old.train(index).key for index in range(9)] == random.Random("train/0/0").sample(rest, 9)


def test_a_label_is_for_held_out_problems_after_a_new_split_too() -> None:
    from dataclasses import replace

    labelled = listed(NAMES, 5, label=lambda each: replace(each, difficulty="hard"))
    for rule in ("by_key", "by_position"):
        labelled.split(rule)
        assert {each.difficulty for each in labelled.held_out} == {"hard"}
        assert labelled.train(0).difficulty == ""


def test_too_few_different_problems_are_counted() -> None:
    with pytest.raises(
        ValueError, match=r"rows.jsonl has 10 rows, 2 different problems, too few for prompts.num_held_out = 2"
    ):
        listed(["a", "b"] * 5, num_held_out=2)
