"""Rewards of whole groups, in this project's signature and in TRL's, as recipes pay them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from rewards.config import RewardsConfig
from rewards.function import missing_column
from rewards.registry import functions_of
from rewards.signature import kind_of
from rewards.workers.failures import RewardFailure
from rollout.types.completions import Group, Reward, RewardPart
from tests.support import trl_rewards
from tests.support.reward_workers import rewards_of

MakeGroup = Callable[..., Group]
TEXTS = ["no", "maybe so", "no"]


def recipe(*functions: str, **settings: Any) -> RewardsConfig:
    weights = {path.partition(":")[2]: 1.0 for path in functions}
    return RewardsConfig(**{"weights": weights, "functions": functions, "max_failed_share": 1.0, **settings})


def paid(config: RewardsConfig, group: Group) -> list[float]:
    (rewards,) = rewards_of(config, group)
    assert all(reward.status == "ok" for reward in rewards), rewards
    return [reward.total for reward in rewards]


def statuses(rewards: tuple[Reward, ...]) -> list[str]:
    return [reward.status for reward in rewards]


def chat(group: Group) -> Group:
    messages = ({"role": "user", "content": "What is 2 + 2?"},)
    return replace(group, prompt=replace(group.prompt, messages=messages))


PAID = {
    "waiting_rewards:unique": [0.0, 1.0, 0.0],
    "waiting_rewards:rank": [0.0, 1.0, 0.5],
    "trl_rewards:more_characters": [2.0, 8.0, 2.0],
    "trl_rewards:more_tokens": [2.0, 2.0, 2.0],
    "trl_rewards:more_tokens_as_once_spelt": [2.0, 2.0, 2.0],
    "trl_rewards:waits": [1.0, 1.0, 1.0],
    "trl_rewards:brief": [-2.0, -8.0, -2.0],
    "trl_rewards:up_to_three": [1.0, 0.0, 1.0],
}


def test_functions_of_a_group_pay_each_completion(make_group: MakeGroup) -> None:
    """Several at once, each under its own name."""
    (rewards,) = rewards_of(recipe(*PAID), make_group(TEXTS))
    for path, expected in PAID.items():
        assert [reward.value(path.partition(":")[2]) for reward in rewards] == expected, path
    assert statuses(rewards) == ["ok", "ok", "ok"]


def test_columns_are_the_entries_of_the_answer(make_group: MakeGroup) -> None:
    group = make_group([r"\boxed{4}", r"\boxed{5}", "4"], answer={"ground_truth": "4"})
    assert paid(recipe("trl_rewards:boxed"), group) == [1.0, 0.0, 0.0]


def test_a_column_that_no_answer_has_is_named_before_anything_is_graded() -> None:
    (boxed,) = functions_of("none", recipe("trl_rewards:boxed"))
    (given,) = functions_of("none", recipe("trl_rewards:boxed", parameters={"boxed": {"ground_truth": ["4"]}}))
    kinds = {"boxed": kind_of(trl_rewards.boxed)}
    says = "trl_rewards:boxed needs ground_truth, and the answers of sums have answer, steps: add a column of the data"
    assert says in str(missing_column({"boxed": boxed}, kinds, {"sums": ["steps", "answer"]}))
    assert missing_column({"boxed": boxed}, kinds, {"sums": ["ground_truth"]}) is None
    assert missing_column({"boxed": given}, kinds, {"sums": ["answer"]}) is None


def test_prompts_of_a_chat_template_come_as_messages(make_group: MakeGroup) -> None:
    group = make_group(["a</think><answer>1</answer>", "b"], assistant_prefix="<think>")
    assert paid(recipe("trl_rewards:thinks_then_answers"), chat(group)) == [1.0, 0.0]
    (rewards,) = rewards_of(recipe("trl_rewards:thinks_then_answers"), group)  # plain text is no list of messages
    assert statuses(rewards) == ["error", "error"]


def test_none_does_not_apply_and_the_others_pay(make_group: MakeGroup) -> None:
    config = recipe("trl_rewards:of_math", "trl_rewards:of_code")
    math, code = (make_group(["a", "b"], answer={"task": task}, prompt_id=task) for task in ("math", "code"))
    assert (paid(config, math), paid(config, code)) == ([1.0, 1.0], [0.5, 0.5])
    ((reward, _),) = rewards_of(config, code)
    assert [part.name for part in reward.parts] == ["of_code"]


def test_what_nothing_applies_to_has_failed_and_is_not_worth_0(make_group: MakeGroup) -> None:
    config = recipe("trl_rewards:of_math", "waiting_rewards:sometimes", weights={"of_math": 1.0})
    group = make_group(["a"], answer={"task": "poetry"})
    ((reward,),) = rewards_of(config, group)
    assert reward.parts[0] == RewardPart("of_math", 0.0, "error")
    stop = config.model_copy(update={"on_error": "stop"})
    with pytest.raises(RewardFailure, match="every part that is weighed is None for it"):
        rewards_of(stop, group)


def test_an_ensemble_is_made_of_the_parts_that_apply(make_group: MakeGroup) -> None:
    members = {"best": {"by": "max", "weights": {"of_math": 1.0, "sometimes": -1.0}}}
    config = recipe("trl_rewards:of_math", "waiting_rewards:sometimes", weights={"best": 1.0}, ensembles=members)
    assert paid(config, make_group(["a", "longer"], answer={"task": "math"})) == [1.0, 1.0]
    assert paid(config, make_group(["a"], answer={"task": "code"})) == [-1.0]


def test_figures_are_logged_and_the_prompt_is_read_by_name(make_group: MakeGroup) -> None:
    config = recipe("trl_rewards:logs", "waiting_rewards:asked")
    ((first, _, _),) = rewards_of(config, make_group(TEXTS))
    assert first.logged == {"letters": 4.0, "asked_characters": len("question")}


@pytest.mark.parametrize(
    ("function", "answer", "says"),
    [
        ("trl_rewards:one_too_few", {}, "it returned 2 values for 3 completions"),
        ("trl_rewards:boxed", {"target": 4}, "needs ground_truth, and a group has target, prompts, completions"),
    ],
)
def test_a_function_that_fails_fails_for_the_whole_group_and_says_why(
    make_group: MakeGroup, function: str, answer: dict[str, Any], says: str
) -> None:
    config = recipe(function, "waiting_rewards:unique", on_error="stop")
    with pytest.raises(RewardFailure, match=says):
        rewards_of(config, make_group(TEXTS, answer=answer))
    ((first, second, _),) = rewards_of(recipe(function, "waiting_rewards:unique"), make_group(TEXTS, answer=answer))
    assert (first.parts[-1], first.status, second.total) == (RewardPart("unique", 0.0), "error", 1.0)


def test_a_group_that_hangs_is_late_and_others_are_graded(make_group: MakeGroup) -> None:
    config = recipe("waiting_rewards:hangs_at_stop", deadline_s=0.3, weights={"hangs_at_stop": 1.0})
    hanging, fine = make_group(["stop", "go"], prompt_id="train/1"), make_group(["go"], prompt_id="train/2")
    late, graded = rewards_of(config, hanging, fine)
    assert (statuses(late), statuses(graded)) == (["timeout", "timeout"], ["ok"])
    assert sum(reward.seconds["hangs_at_stop"] for reward in late) == pytest.approx(0.3)


def test_a_recipe_sets_the_parameters_of_a_function_of_a_group(make_group: MakeGroup) -> None:
    config = recipe("waiting_rewards:unique", parameters={"unique": {"case": False}})
    assert paid(config, make_group(["No", "no", "yes"])) == [0.0, 0.0, 1.0]
