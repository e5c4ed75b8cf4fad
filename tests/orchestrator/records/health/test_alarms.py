"""Each alarm on rows of a run that is not learning, and none on rows of one that is."""

from __future__ import annotations

import random
from math import inf, nan
from typing import Any

import pytest

from orchestrator.config.recipe import load
from orchestrator.config.schema import RunConfig
from orchestrator.records.health.limits import HealthLimits
from orchestrator.records.health.monitor import ALARMS
from orchestrator.records.health.replay import replay
from orchestrator.records.health.signal import share_without_signal

HEALTHY = {
    "reward/total": 0.5,
    "reward/correctness": 0.4,
    "reward/answer_tags": 1.0,
    "reward/std/total": 0.3,
    "reward/std/correctness": 0.4,
    "reward/std/answer_tags": 0.0,
    "reward/right_untagged": 0.0,
    "reward/failed/correctness": 0.0,
    "reward/failed/answer_tags": 0.0,
    "reward/timeouts": 0.0,
    "reward/errors": 0.0,
    "rollout/groups_without_spread": 0.2,
    "rollout/groups_all_right": 0.1,
    "rollout/groups_all_wrong": 0.1,
    "rollout/replaced_groups": 0.0,
    "rollout/truncated": 0.02,
    "rollout/completion_tokens": 50.0,
    "rollout/logprob_gap": 2e-7,
    "rollout/logprob_gap_first_third": 2e-7,
    "rollout/logprob_gap_last_third": 2e-7,
    "optim/entropy": 0.5,
    "optim/grad_norm": 0.1,
    "optim/skipped_updates": 0.0,
    "optim/masked_completions": 0.0,
    "time/step_s": 10.0,
    "time/reward_wait_s": 0.1,
    "time/grading/countdown_s": 0.2,
    "time/grading/answer_tags_s": 0.1,
}
WRONG = {
    "reward/total": 0.0,
    "reward/correctness": 0.0,
    "reward/std/total": 0.0,
    "reward/std/correctness": 0.0,
    "rollout/groups_without_spread": 1.0,
    "rollout/groups_all_right": 0.0,
    "rollout/groups_all_wrong": 1.0,
}
RIGHT = WRONG | {
    "reward/total": 1.0,
    "reward/correctness": 1.0,
    "rollout/groups_all_right": 1.0,
    "rollout/groups_all_wrong": 0.0,
}


def rows(*steps: dict[str, float]) -> list[dict[str, float]]:
    """Rows of a run: healthy but for what each step says."""
    return [{"step": float(step)} | HEALTHY | change for step, change in enumerate(steps, start=1)]


def alarms(*steps: dict[str, float], overrides: tuple[str, ...] = ()) -> dict[str, tuple[int, str]]:
    return replay(rows(*steps), load("countdown-tiny", overrides))


FROM_THE_START = {
    "too hard": (
        WRONG,
        "no_spread",
        ["100% of the groups are all wrong", "too hard", "prompts.curriculum", "group_size"],
    ),
    "too easy": (RIGHT, "no_spread", ["100% all right", "too easy", "end the run"]),
    "limit too short": (WRONG | {"rollout/truncated": 1.0}, "no_spread", ["sampling.max_completion_tokens = 448"]),
    "skipped": (
        {"optim/skipped_updates": 1.0},
        "no_spread",
        ["In 5 of the last 5 steps every update was skipped", "gradient was not finite", "learner.learning_rate"],
    ),
    "masked": (
        {"optim/masked_completions": 1.0, "rollout/truncated": 1.0},
        "no_spread",
        ['left out of the loss (learner.algorithm.overlong = "mask")', "sampling.max_completion_tokens = 448"],
    ),
    "failing": (
        WRONG | {"reward/failed/correctness": 0.9},
        "no_spread",
        ["90% of the completions could not be graded"],
    ),
    "cut off": (
        {"rollout/truncated": 0.6},
        "cut_off",
        ["60%", "sampling.max_completion_tokens = 448", "sampling.stop"],
    ),
    "out of turns": (
        {"rollout/truncated": 0.6, "rollout/out_of_turns": 0.5},
        "cut_off",
        ["60%", "environment.max_turns = 8"],
    ),
    "wrong tags": (
        {"reward/answer_tags": 0.01, "reward/correctness": 0.01, "reward/right_untagged": 0.4},
        "wrong_format",
        ["40%", "prompts.format", "one_shot", "natural"],
    ),
    "wrong tags, no spread": (WRONG | {"reward/right_untagged": 0.4}, "no_spread", ["tags that the reward reads"]),
    "a part that is never earned": (
        {"reward/correctness": 0.0, "reward/std/correctness": 0.0},
        "constant_part",
        ["correctness = 0", "rewards.weights.correctness"],
    ),
    "KL to a target": (
        {"optim/kl_k3": 0.2},
        "kl_runaway",
        ["0.2 nats", "limit 0.1", "learner.algorithm.kl_beta = 0.1"],
    ),
    "KL within a step": ({"optim/update_kl_k3": 0.5}, "kl_runaway", ["learner.updates_per_step"]),
    "gap by position": (
        {"rollout/logprob_gap_first_third": 1e-6, "rollout/logprob_gap_last_third": 6e-4},
        "gap_by_position",
        ["by position", "0.0006 in the last", "rope"],
    ),
    "a grader that fails": (
        {"reward/failed/correctness": 0.08, "reward/errors": 20.0},
        "failing_grader",
        ["8%", "correctness", "raises", "rewards.max_failed_share = 0.2"],
    ),
    "a grader that times out": (
        {"reward/failed/answer_tags": 0.08, "reward/timeouts": 20.0},
        "failing_grader",
        ["answer_tags", "rewards.deadline_s = 10"],
    ),
    "a slow grader": (
        {"time/reward_wait_s": 4.0, "time/grading/countdown_s": 9.0},
        "slow_grader",
        ["slowest grader is countdown", "99%", "rewards.num_workers = 1"],
    ),
}
SETTINGS = {"KL to a target": ("learner.algorithm.kl_beta=0.1", "learner.algorithm.kl_target=0.01")}


@pytest.mark.parametrize("case", FROM_THE_START)
def test_what_is_wrong_from_the_start_is_said_after_five_steps(case: str) -> None:
    change, name, words = FROM_THE_START[case]
    found = alarms(*[change] * 6, overrides=SETTINGS.get(case, ()))
    step, sentence = found[name]
    assert step == 5 and ("Likely cause" in sentence or name == "slow_grader"), sentence
    assert all(word in sentence for word in words), sentence
    assert name not in alarms(*[change] * 4, {}, *[change] * 4, overrides=SETTINGS.get(case, ()))


LATER = {
    "entropy": ({"optim/entropy": 0.04}, "entropy_collapse", ["from 0.5 to 0.04", "learner.learning_rate = 0.0004"]),
    "length": ({"rollout/completion_tokens": 4.0}, "length_collapse", ["from 50 to 4.0 tokens", "rewards.weights"]),
    "gradient": ({"optim/grad_norm": 5.0}, "gradient_runaway", ["from 0.1 to 5", "learner.max_grad_norm = 1"]),
    "gap": ({"rollout/logprob_gap": 4e-4}, "gap_by_version", ["by policy version", "versions 5 to 9", "model.dtype"]),
    "broken": (WRONG, "no_spread", ["an update broke the policy", "40%", "learner.learning_rate = 0.0004"]),
    "broken and rambling": (WRONG | {"rollout/truncated": 1.0}, "cut_off", ["an update broke the policy"]),
    "broken, with some tags": (
        {"reward/correctness": 0.0, "reward/std/correctness": 0.0},
        "constant_part",
        ["correctness = 0", "an update broke the policy"],
    ),
}


@pytest.mark.parametrize("case", LATER)
def test_what_goes_wrong_later_is_told_from_how_it_began(case: str) -> None:
    change, name, words = LATER[case]
    step, sentence = alarms(*[{}] * 5, *[change] * 6)[name]
    assert step == 10 and all(word in sentence for word in words), sentence
    assert name in ("no_spread", "cut_off", "constant_part") or name not in alarms(*[change] * 20)


def test_a_gradient_that_nothing_clips_runs_away_too() -> None:
    unclipped = ("learner.max_grad_norm=inf",)
    step, sentence = alarms(*[{}] * 5, *[{"optim/grad_norm": 5.0}] * 6, overrides=unclipped)["gradient_runaway"]
    assert step == 10 and "from 0.1 to 5 and nothing clips it" in sentence and "set learner.max_grad_norm" in sentence
    assert alarms(*[{"optim/grad_norm": 5.0}] * 20, overrides=unclipped) == {}


@pytest.mark.parametrize("first", [0.0, nan, inf])
def test_a_first_step_without_a_gradient_makes_no_later_one_large(first: float) -> None:
    assert alarms({"optim/grad_norm": first}, *[{"optim/grad_norm": 1.5}] * 20) == {}
    assert (
        "from 1.5 to 50"
        in alarms({"optim/grad_norm": first}, *[{"optim/grad_norm": 1.5}] * 5, *[{"optim/grad_norm": 50.0}] * 5)[
            "gradient_runaway"
        ][1]
    )


@pytest.mark.parametrize("seed", range(40))
def test_no_row_whatever_it_holds_ends_a_run(seed: int) -> None:
    rng = random.Random(seed)
    odd = (0.0, 1.0, 0.5, nan, inf, -inf, -1.0, 1e-12, 1e300)
    settings = rng.choice([(), ("learner.algorithm.kl_beta=0.1",), ("learner.max_grad_norm=inf", "health.steps=1")])
    keys = [key for key in HEALTHY if rng.random() < 0.8]
    steps = [{key: rng.choice(odd) for key in keys if rng.random() < 0.95} for _ in range(12)]
    kept = [{"step": float(step), "reward/total": 0.5} | change for step, change in enumerate(steps, start=1)]
    replay(kept, load("countdown-tiny", settings))


def test_every_alarm_has_a_case() -> None:
    assert {name for _, name, _ in [*FROM_THE_START.values(), *LATER.values()]} == set(ALARMS)


def test_a_run_that_learns_gives_none() -> None:
    """From one right completion in a hundred to nearly all, ever surer and briefer."""
    steps = []
    for step in range(100):
        right = 0.01 + 0.94 * step / 99
        change = {
            "reward/correctness": right,
            "reward/total": right,
            "rollout/groups_without_spread": max((1 - right) ** 8, right**8),
            "rollout/groups_all_wrong": (1 - right) ** 8,
            "rollout/groups_all_right": right**8,
            "rollout/truncated": 0.4 - 0.4 * step / 99,
            "optim/entropy": 0.5 * 0.95**step,
            "optim/grad_norm": 0.02 + 0.4 * right * (1 - right),
            "rollout/completion_tokens": 300.0 * 0.97**step,
        }
        steps.append(change)
    assert alarms(*steps) == {}


@pytest.mark.parametrize("change", [{"optim/entropy": 0.04}, {"rollout/completion_tokens": 4.0}])
def test_a_policy_that_is_sure_or_brief_and_right_has_not_collapsed(change: dict[str, float]) -> None:
    assert alarms(*[{}] * 5, *[change | {"reward/correctness": 0.95}] * 20) == {}
    rising = [change | {"reward/total": 0.5 + 0.01 * step} for step in range(20)]
    assert alarms(*[{}] * 5, *rising) == {}


def test_a_part_that_all_have_in_full_is_learned_and_not_broken() -> None:
    assert alarms(*[{"reward/answer_tags": 1.0}] * 20) == {}
    for name, best in (("tool_called", 1.0), ("tool_used", 1.0), ("tool_failures", 0.0)):
        config = load("calculator-tiny", [f"rewards.weights.{name}=0.1"])
        constant = {f"reward/{name}": best, f"reward/std/{name}": 0.0}
        assert "constant_part" not in replay(rows(*[constant] * 20), config)
    own = ("rewards.weights={correctness=1.0,mine=0.5}", 'rewards.functions=["tests.support.hostile_rewards:mine"]')
    constant = {"reward/mine": 1.0, "reward/std/mine": 0.0}
    sentence = alarms(*[constant] * 5, overrides=own)["constant_part"][1]
    assert "mine = 1" in sentence and "the model always earns it" in sentence


def test_with_staleness_a_gap_is_held_against_the_limit_of_stale_tokens() -> None:
    stale = [{"rollout/logprob_gap": 0.02, "rollout/logprob_gap_last_third": 0.05}] * 10
    assert alarms({}, *stale, overrides=("max_staleness=1",)) == {}
    found = alarms({}, *[{"rollout/logprob_gap": 0.3}] * 10, overrides=("max_staleness=1",))
    assert "max_staleness = 1" in found["gap_by_version"][1]


@pytest.mark.parametrize(
    ("overrides", "steps", "without_spread"),
    [
        ([], 5, 0.9227),
        (["group_size=2"], 5, 0.9802),
        (["group_size=64", "prompts_per_step=4"], 16, 0.9),
        (["health.steps=3", "health.without_spread=0.7"], 3, 0.7),
    ],
)
def test_defaults_follow_from_group_size_and_prompts(overrides, steps, without_spread) -> None:
    limits = HealthLimits.of(load("countdown-tiny", overrides))
    assert limits.steps == steps and limits.without_spread == pytest.approx(without_spread, abs=1e-4)


def test_other_defaults_follow_from_the_limits_that_stop_a_run() -> None:
    limits = HealthLimits.of(load("countdown-tiny", ["rewards.max_failed_share=0.4", "learner.max_logprob_gap=0.02"]))
    assert (limits.failed, limits.gap) == (0.1, 0.005)


def share(overrides: list[str], **metrics: Any) -> float:
    config: RunConfig = load("countdown-tiny", overrides)
    return share_without_signal({key.replace("__", "/"): value for key, value in metrics.items()}, config)


def test_groups_that_replaced_others_teach() -> None:
    """32 groups with spread out of 96 that were sampled."""
    dapo = ["learner.algorithm.preset=dapo"]
    assert share(dapo, rollout__groups_without_spread=64 / 96, rollout__replaced_groups=64.0) == 0.0
    assert share(dapo, rollout__groups_without_spread=80 / 96, rollout__replaced_groups=64.0) == 0.5


def test_with_a_critic_or_a_batch_mean_groups_need_no_spread() -> None:
    for preset in ("ppo", "reinforce_pp"):
        settings = [f"learner.algorithm.preset={preset}", "group_size=1"]
        assert share(settings, rollout__groups_without_spread=1.0, reward__std__total=0.3) == 0.0
        assert share(settings, rollout__groups_without_spread=1.0, reward__std__total=0.0) == 1.0


def test_a_teacher_teaches_whatever_the_rewards_are() -> None:
    distill = ["learner.algorithm.preset=distill", "model.teacher=t"]
    assert share(distill, rollout__groups_without_spread=1.0, reward__std__total=0.0) == 0.0
    assert share(distill, optim__masked_completions=1.0) == 1.0


def test_what_is_masked_or_skipped_teaches_nothing() -> None:
    assert share([], rollout__groups_without_spread=0.0, optim__masked_completions=1.0) == 1.0
    assert share([], rollout__groups_without_spread=0.0, optim__skipped_updates=1.0) == 1.0
    assert share(["learner.updates_per_step=2"], optim__skipped_updates=1.0) == 0.0
