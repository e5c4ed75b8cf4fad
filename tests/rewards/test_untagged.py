"""A right answer outside of the tags that were asked for is noticed, and never paid."""

from __future__ import annotations

from typing import Any

import pytest

from rewards.config import RewardsConfig
from rewards.function import RIGHT_UNTAGGED, Outcome, RewardFunction, call
from rewards.registry import functions_of
from rewards.score import compose


@pytest.fixture(autouse=True)
def read_all(monkeypatch) -> None:
    monkeypatch.setattr("rewards.function.UNTAGGED_ONE_IN", 1)


COUNTDOWN = {"numbers": [3, 7, 9], "target": 42}


def graded(grader: str, text: str, answer: dict[str, Any]) -> dict[str, float]:
    (function,) = (each for each in functions_of(grader, RewardsConfig()) if each.grades_task)
    return dict(call(function, function.load(), text, answer).grades)


@pytest.mark.parametrize(
    ("grader", "text", "answer"),
    [
        ("countdown", "9-3=6: 7*6=42 yes</think><ans>7*(9-3)</ans>", COUNTDOWN),
        ("countdown", "\ud800 7*(9-3) = 42", COUNTDOWN),
        ("countdown", "so 7*(9-3) = 42 </think><answer>  </answer>", COUNTDOWN),
        ("gsm8k", "48 / 2 = 24, 48 + 24 = 72", {"answer": "72"}),
        ("math", "so x is \\boxed{72}", {"answer": "72"}),
        ("multiple_choice", "so I choose B", {"answer": "B", "options": ["1", "2", "3"]}),
        ("exact_match", "it is Paris", {"answer": "Paris"}),
    ],
)
def test_the_right_answer_without_tags_is_told_from_a_wrong_one(grader, text, answer) -> None:
    assert graded(grader, text, answer)[RIGHT_UNTAGGED] == 1.0
    assert graded(grader, "I do not know", answer)[RIGHT_UNTAGGED] == 0.0


def test_nothing_is_said_of_what_has_its_tags_or_needs_none() -> None:
    assert RIGHT_UNTAGGED not in graded("countdown", "7*(9-3) <answer>3</answer>", COUNTDOWN)
    assert RIGHT_UNTAGGED not in graded("countdown", "7*(9-3)", COUNTDOWN | {"extraction": "natural"})


def test_one_in_eight_is_read_whichever_they_are_and_the_same_ones_again(monkeypatch) -> None:
    monkeypatch.setattr("rewards.function.UNTAGGED_ONE_IN", 8)
    texts = [f"attempt {number}: 7*(9-3) = 42" for number in range(2000)]
    read = [RIGHT_UNTAGGED in graded("countdown", text, COUNTDOWN) for text in texts]
    assert sum(read) == pytest.approx(2000 / 8, rel=0.2)
    assert read[:200] == [RIGHT_UNTAGGED in graded("countdown", text, COUNTDOWN) for text in texts[:200]]


def test_programs_and_a_users_grader_are_called_once() -> None:
    settings = RewardsConfig(tasks={"countdown": "tests.support.scored_groups:score"})
    assert not any(each.finds_untagged for each in functions_of("code", RewardsConfig()))
    assert not any(each.finds_untagged for each in functions_of("countdown", settings))


def test_a_second_look_that_fails_leaves_the_grade_as_it_is() -> None:
    def score(text, answer):
        if "extraction" in answer:
            raise ValueError("no")
        return {"correctness": 0.0}

    function = RewardFunction("own", "own:score", ("correctness",), grades_task=True, finds_untagged=True)
    assert call(function, score, "text", {}) == Outcome("ok", {"correctness": 0.0, RIGHT_UNTAGGED: 0.0})


def test_it_is_a_part_without_weight() -> None:
    functions = functions_of("countdown", RewardsConfig())
    outcomes = [call(each, each.load(), "7*(9-3) = 42", COUNTDOWN) for each in functions]
    reward = compose(functions, outcomes, RewardsConfig())
    assert reward.total == 0.0 and reward.value(RIGHT_UNTAGGED) == 1.0


def test_a_reward_carries_how_long_each_function_took() -> None:
    functions = functions_of("countdown", RewardsConfig())
    outcomes = [Outcome("ok", {"correctness": 1.0, "closeness": 1.0}, seconds=0.25), Outcome("timeout", {})]
    assert compose(functions, outcomes, RewardsConfig()).seconds == {"countdown": 0.25, "answer_tags": 10.0}
