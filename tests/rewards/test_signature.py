"""How a function wants to be called is read off its signature."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import trl_rewards
import waiting_rewards

from rewards.function import RewardFunction, check_parameters
from rewards.parts.length import length
from rewards.signature import Kind, kind_of


def named_as_one_likes(completion, reference):  # type: ignore[no-untyped-def]
    return 0.0


def with_a_parameter_of_that_name(text, answer, *, completions=8):  # type: ignore[no-untyped-def]
    return 0.0


def takes_everything(**kwargs):  # type: ignore[no-untyped-def]
    return [0.0] * len(kwargs["completions"])


@pytest.mark.parametrize(
    ("function", "kind"),
    [
        (length, Kind("completion")),
        (named_as_one_likes, Kind("completion")),
        (with_a_parameter_of_that_name, Kind("completion")),
        (len, Kind("completion")),
        (waiting_rewards.waiting, Kind("completion", is_async=True)),
        (waiting_rewards.unique, Kind("group")),
        (waiting_rewards.rank, Kind("group", is_async=True)),
        (trl_rewards.more_tokens, Kind("columns")),
        (trl_rewards.more_tokens_as_once_spelt, Kind("columns")),
        (trl_rewards.boxed, Kind("columns", needs=("ground_truth",))),
        (trl_rewards.waits, Kind("columns", is_async=True)),
        (trl_rewards.brief, Kind("columns")),
        (trl_rewards.up_to_three, Kind("columns")),
        (takes_everything, Kind("columns")),
    ],
)
def test_kinds(function: Callable[..., Any], kind: Kind) -> None:
    assert kind_of(function) == kind


@pytest.mark.parametrize(
    ("function", "parameters", "says"),
    [
        (trl_rewards.asks_the_trainer, {}, "asks for trainer_state, which TRL has and no reward worker"),
        (waiting_rewards.unique, {"caze": 1}, r"rewards\.parameters\.mine\.caze.*did you mean 'case'"),
        (named_as_one_likes, {"case": 1}, r"rewards\.parameters\.mine\.case.*no such parameter"),
    ],
)
def test_what_cannot_be_given_is_said_when_it_is_loaded(
    function: Callable[..., Any], parameters: dict[str, Any], says: str
) -> None:
    declared = RewardFunction("mine", "m:mine", ("mine",), parameters=parameters)
    with pytest.raises(TypeError, match=says):
        check_parameters(declared, function)


@pytest.mark.parametrize(
    "function",
    [
        lambda: 0.0,
        lambda text: 0.0,
        lambda texts: [0.0],
        lambda text, **more: 0.0,
        lambda *, text, answer: 0.0,
        lambda text, answer, bonus, /: 0.0,
        lambda completions, /, **columns: [0.0],
    ],
)
def test_what_cannot_take_a_text_and_an_answer_is_refused_with_what_it_may_be(function: Callable[..., Any]) -> None:
    with pytest.raises(TypeError, match=r"m:mine\(.*\(text, answer\), \(texts, answer\) of a whole group"):
        check_parameters(RewardFunction("mine", "m:mine", ("mine",)), function)


def test_a_parameter_without_a_default_is_asked_for_beside_any_others() -> None:
    def function(text: str, answer: Any, *, bonus: float, **more: Any) -> float:
        return bonus

    with pytest.raises(TypeError, match=r"needs its parameter bonus: set rewards\.parameters\.mine\.bonus"):
        check_parameters(RewardFunction("mine", "m:mine", ("mine",)), function)
    check_parameters(RewardFunction("mine", "m:mine", ("mine",), parameters={"bonus": 1, "x": 2}), function)


@pytest.mark.parametrize("function", [lambda *given: 0.0, lambda text, answer, *more, prompt: 0.0, max])
def test_what_can_take_them_is_not_refused(function: Callable[..., Any]) -> None:
    check_parameters(RewardFunction("mine", "m:mine", ("mine",)), function)


def test_a_task_is_graded_one_completion_at_a_time() -> None:
    declared = RewardFunction("mine", "m:score", ("correctness",), grades_task=True)
    with pytest.raises(TypeError, match="a task is graded one completion at a time"):
        check_parameters(declared, waiting_rewards.unique)


def test_what_is_offered_by_name_needs_no_parameter_of_the_recipe() -> None:
    check_parameters(RewardFunction("asked", "m:asked", ("asked",)), waiting_rewards.asked)
