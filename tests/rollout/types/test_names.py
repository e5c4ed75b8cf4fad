"""The hint about a name that nothing has."""

import pytest

from rollout.types.names import closest, nearest

KNOWN = {"learner", "rollout", "rewards"}


@pytest.mark.parametrize("name", ["lerner", "Learner", "learners"])
def test_a_name_that_is_nearly_right_gets_the_right_one(name: str) -> None:
    assert nearest(name, KNOWN) == "did you mean 'learner'?"


def test_a_name_like_no_other_gets_all_of_them_in_order() -> None:
    assert nearest("zebra", KNOWN) == "there are learner, rewards, rollout"
    assert nearest("zebra", []) == "there are none"
    assert closest("zebra", KNOWN) is None


def test_the_right_spelling_keeps_its_case() -> None:
    assert closest("score", ["Score"]) == "Score"
