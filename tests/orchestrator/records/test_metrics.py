"""The metrics of a step."""

from dataclasses import replace

import pytest

from orchestrator.config.recipe import load
from orchestrator.records.health.replay import replay
from orchestrator.records.metrics import Clock, rollout_metrics
from rewards.function import RIGHT_UNTAGGED
from rollout.types.completions import Reward, RewardPart
from tests.support.groups import reward, scored_group


def test_rollout_metrics_count_what_they_say() -> None:
    groups = [scored_group("a", [True, False]), scored_group("b", [False, False], tokens=5, status="timeout")]
    metrics = rollout_metrics(groups)
    assert metrics["reward/total"] == pytest.approx((1.0 + 0.1 * 3) / 4)
    assert metrics["reward/correctness"] == 0.25
    assert metrics["reward/timeouts"] == 2
    assert metrics["rollout/sampled_tokens"] == 16
    assert metrics["rollout/groups_without_spread"] == 0.5


def test_the_clock_accounts_for_all_of_a_step() -> None:
    clock = Clock()
    with clock("rollout"):
        sum(range(10_000))
    seconds = clock.seconds()
    assert seconds["time/step_s"] == pytest.approx(seconds["time/rollout_s"] + seconds["time/other_s"])


def test_groups_that_teach_nothing_are_told_apart() -> None:
    groups = [scored_group("a", [True] * 2), scored_group("b", [False] * 2), scored_group("c", [True, False])] * 2
    metrics = rollout_metrics([*groups, scored_group("d", [False, False])])
    assert metrics["rollout/groups_all_right"] == pytest.approx(2 / 7)
    assert metrics["rollout/groups_all_wrong"] == pytest.approx(3 / 7)


def test_what_never_varies_and_what_fails_is_seen_by_part() -> None:
    metrics = rollout_metrics([scored_group("a", [True, False]), scored_group("b", [False] * 2, status="error")])
    assert metrics["reward/std/answer_tags"] == 0.0 < metrics["reward/std/correctness"]
    assert metrics["reward/std/total"] == pytest.approx(0.9 * metrics["reward/std/correctness"])
    assert (metrics["reward/failed/correctness"], metrics["reward/failed/answer_tags"]) == (0.5, 0.0)


def test_a_part_that_never_varies_has_no_deviation_at_all_and_is_reported() -> None:
    """The alarms compare with 0, and np.std of 64 rewards of 0.1 is 1e-17."""
    config = load("countdown-tiny", ["rewards.weights.correctness=1", "health.steps=1"])
    groups = [scored_group(name, [False] * 32) for name in "ab"]
    metrics = rollout_metrics(groups)
    assert metrics["reward/total"] == pytest.approx(0.1) and metrics["reward/std/total"] == 0.0
    tenth = tuple(
        replace(each, total=each.total + 0.1, parts=(*each.parts, RewardPart("own", 0.1)))
        for each in scored_group("a", [True, False] * 32).rewards
    )
    varied = rollout_metrics([scored_group("a", [True, False] * 32).scored(tenth)])
    paid = config.model_copy(update={"rewards": config.rewards.model_copy(update={"weights": {"own": 1.0}})})
    assert "constant_part" in replay([varied | {"step": 1.0}], paid)


def test_an_entry_whose_answers_are_neither_right_nor_wrong_has_no_pass_rate() -> None:
    """A pass rate of 0 would say that all its answers are wrong."""
    named = [scored_group(name, [True, False]) for name in ("countdown", "essays")]
    one, other = (replace(group, prompt=replace(group.prompt, source=group.prompt.id)) for group in named)
    other = other.scored(tuple(Reward(0.5, (RewardPart("own", 0.5),)) for _ in other.completions))
    metrics = rollout_metrics([one, other])
    assert metrics["reward/correctness/countdown"] == metrics["rollout/share/essays"] == 0.5
    assert "reward/correctness/essays" not in metrics


def test_an_entry_that_a_step_has_no_prompts_of_has_the_share_0() -> None:
    """Left out, its mean over the steps would be that of the steps that have some."""
    group = scored_group("a", [True, False])
    group = replace(group, prompt=replace(group.prompt, source="countdown"))
    metrics = rollout_metrics([group], ("countdown", "essays"))
    assert (metrics["rollout/share/countdown"], metrics["rollout/share/essays"]) == (1.0, 0.0)
    assert metrics["reward/correctness/countdown"] == 0.5 and "reward/correctness/essays" not in metrics
    assert "rollout/share/countdown" not in rollout_metrics([group], ("countdown",))


def test_right_answers_without_tags_are_estimated_as_a_share_of_all_completions() -> None:
    untagged = [replace(reward(False), parts=(*reward(False).parts, RewardPart(RIGHT_UNTAGGED, x))) for x in (1.0, 0.0)]
    group = scored_group("a", [False] * 32)
    metrics = rollout_metrics([group.scored((*untagged, *group.rewards[:30]))])
    assert metrics["reward/right_untagged"] == 8 * 1 / 32
    assert "reward/std/right_untagged" not in metrics
    assert rollout_metrics([group])["reward/right_untagged"] == 0.0


def test_the_seconds_of_each_grader_are_added_up() -> None:
    group = scored_group("a", [False] * 2)
    timed = group.scored(tuple(replace(each, seconds={"countdown": 0.5, "own": 2.0}) for each in group.rewards))
    metrics = rollout_metrics([timed, timed])
    assert metrics["time/grading/countdown_s"] == 2.0 and metrics["time/grading/own_s"] == 8.0


def test_calls_that_helped_and_what_calling_gains() -> None:
    def called(is_right: bool, calls: float, used: float) -> Reward:
        return replace(reward(is_right), parts=(*reward(is_right).parts, *tool(calls, used)))

    def tool(calls: float, used: float) -> tuple[RewardPart, ...]:
        return RewardPart("tool_called", calls), RewardPart("tool_used", used)

    mixed = [called(True, 1, 1), called(True, 1, 0), called(False, 1, 1), called(False, 0, 0)]
    alike = [called(True, 1, 1)] * 4
    groups = [scored_group(name, [False] * 4).scored(tuple(each)) for name, each in (("a", mixed), ("b", alike))]
    metrics = rollout_metrics(groups)
    assert metrics["rollout/calls_helped"] == pytest.approx((1 + 4) / 7)
    assert metrics["rollout/calls_gain"] == pytest.approx(2 / 3 - 0)  # of the first group: the other has no other
    without = rollout_metrics([scored_group("c", [True, False])])
    assert not {"rollout/calls_helped", "rollout/calls_gain"} & without.keys()
