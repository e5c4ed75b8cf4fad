"""Figures of an evaluation, from scored groups."""

import re
from dataclasses import replace
from math import isfinite
from typing import ClassVar

import pytest

from orchestrator.config.recipe import ConfigError, load
from orchestrator.evaluate.evaluation import (
    by_label,
    check_held_out,
    evaluate,
    held_out_evaluations,
    held_out_metrics,
    held_out_prompts,
    summarize,
)
from orchestrator.evaluate.statistics import wilson
from orchestrator.records.meanings.table import find_metric
from orchestrator.records.trackers.terminal import evaluation_line
from orchestrator.report.summary import summary_table
from rollout.types.completions import Group, Reward, RewardPart
from tests.support.groups import scored_group
from tests.support.paths import WARM_START


def paid(prompt_id: str, *periods: float) -> Group:
    """A group of a task whose answers are neither right nor wrong."""
    group = scored_group(prompt_id, [False] * len(periods))
    return group.scored(tuple(Reward(value, (RewardPart("periods", value),)) for value in periods))


def with_parts(group: Group, **parts: float) -> Group:
    """The group with other parts beside the correctness of each completion."""
    added = tuple(RewardPart(name, value) for name, value in parts.items())
    return group.scored(tuple(Reward(reward.total, (*reward.parts[:1], *added)) for reward in group.rewards))


def labelled(group: Group, difficulty: str, source: str = "") -> Group:
    return replace(group, prompt=replace(group.prompt, difficulty=difficulty, source=source))


def test_an_evaluation_counts_right_well_formed_and_length() -> None:
    sampled = [scored_group("a", [True, True, False, False]), scored_group("b", [False] * 4, tokens=5)]
    greedy = [scored_group("a", [True]), scored_group("b", [False])]
    metrics = summarize(sampled, greedy, (1, 2, 4)).metrics()
    assert metrics["eval/pass_at_1"] == 0.25
    assert metrics["eval/pass_at_2"] == pytest.approx((5 / 6 + 0) / 2)
    assert metrics["eval/pass_at_4"] == 0.5
    assert metrics["eval/greedy_pass_at_1"] == 0.5
    assert metrics["eval/greedy_pass_at_1_ci95"] == wilson(0.5, 2).half_width
    assert metrics["eval/format_rate"] == 1.0
    assert metrics["eval/completion_tokens"] == 4.0
    assert metrics["eval/right_completion_tokens"] == 3.0
    assert metrics["eval/wrong_completion_tokens"] == pytest.approx((2 * 3 + 4 * 5) / 6)
    assert metrics["eval/truncated"] == 0.0
    assert metrics["eval/reward"] == pytest.approx((2 * 1.0 + 6 * 0.1) / 8)
    assert metrics["eval/reward_ci95"] > 0


def test_of_one_prompt_no_interval_of_the_reward_is_claimed() -> None:
    metrics = summarize([scored_group("a", [True, False])], [scored_group("a", [True])]).metrics()
    assert "eval/reward_ci95" not in metrics and all(map(isfinite, metrics.values()))
    assert "± " in evaluation_line("before training", metrics, "eval/")
    plain = summarize([paid("a", 1.0, 2.0)]).metrics()
    assert evaluation_line("before training", plain, "eval/").count("±") == 0
    assert summary_table([{"step": 0, **plain}, {"step": 1, **plain}]).row_count


def test_lengths_of_what_did_not_happen_are_absent() -> None:
    metrics = summarize([scored_group("a", [False, False])]).metrics()
    assert "eval/right_completion_tokens" not in metrics
    assert metrics["eval/wrong_completion_tokens"] == 3.0


def test_markers_are_shares_of_completions() -> None:
    sampled = [
        scored_group("a", [True, False], text="Let me check: 3 * 4 = 12. Wait, that is wrong."),
        scored_group("b", [True, False], text="12"),
    ]
    shown = summarize(sampled).markers
    assert shown["verification"] == shown["backtracking"] == shown["shows_calculation"] == 0.5
    assert shown["step_by_step"] == 0.0


def test_the_format_rate_is_the_strict_part_where_the_recipe_weighs_it_else_the_tags() -> None:
    group = scored_group("a", [True, False])
    assert summarize([with_parts(group, format=1.0, answer_tags=0.0)]).format_rate.mean == 1.0
    assert summarize([with_parts(group, answer_tags=1.0)]).format_rate.mean == 1.0
    assert summarize([with_parts(group, answer_tags=0.5)]).format_rate.mean == 0.0  # half the tags are not the format
    assert summarize([with_parts(group)]).format_rate is None


def test_a_task_without_right_answers_has_a_mean_reward_and_nothing_made_up() -> None:
    metrics = summarize([paid("a", 1.0, 3.0), paid("b", 4.0, 4.0)]).metrics()
    assert metrics["eval/reward"] == 3.0
    plain = {key for key in metrics if not key.startswith("eval/marker/")}
    assert plain == {"eval/reward", "eval/reward_ci95", "eval/completion_tokens", "eval/truncated", "eval/unmarked"}


class Sampling:
    """Generators that note what they are asked, and answer with groups of a kind."""

    def __init__(self, group=lambda prompt, size: scored_group(prompt, [True] * size)) -> None:
        self.calls: list = []
        self._group = group

    def collect(self, request):
        self.calls.append((request.sampling, request.group_size))
        return [self._group(prompt, request.group_size) for prompt in request.prompts]


def test_prompts_are_sampled_with_the_recipes_limit_and_stop_texts_and_once_greedily() -> None:
    rollouts = Sampling()
    config = load(
        "countdown-tiny",
        ['sampling.stop=["</answer>"]', "evaluation.temperature=0.6", "evaluation.completions_per_prompt=3"],
    )
    result = evaluate(rollouts, ["a", "b"], config)
    asked = [(s.temperature, s.max_completion_tokens, s.stop, n) for s, n in rollouts.calls]
    limit = config.sampling.max_completion_tokens
    assert asked == [(0.6, limit, ("</answer>",), 3), (0.0, limit, ("</answer>",), 1)]
    assert sorted(result.pass_at) == [1, 3]


def test_a_task_without_right_answers_is_not_sampled_greedily() -> None:
    rollouts = Sampling(lambda prompt, size: paid(prompt, *[1.0] * size))
    evaluate(rollouts, ["a"], load("countdown-tiny"))
    assert [(sampling.temperature, size) for sampling, size in rollouts.calls] == [(1.0, 8)]


class Stream:
    """Held-out prompts of which only the number and the format are known."""

    asked: ClassVar[list] = []

    def held_out(self, format=None):
        self.asked.append(format)
        return [f"{format}/{index}" for index in range(20)]


def measured(rollouts, config) -> dict[str, float]:
    return held_out_metrics(held_out_evaluations(rollouts, Stream(), config), config)


def test_the_recipes_own_format_keeps_the_plain_keys_and_others_have_theirs() -> None:
    config = load("countdown-tiny", ['evaluation.formats=["natural", "zero_shot"]', "evaluation.num_prompts=5"])
    metrics = measured(Sampling(), config)
    assert {"eval/pass_at_1", "eval/pass_at_8", "eval/natural/pass_at_1", "eval/natural/completion_tokens"} <= set(
        metrics
    )
    assert not [key for key in metrics if key.startswith("eval/zero_shot/") or "one_shot" in key]
    plain = measured(Sampling(), load("countdown-tiny"))
    assert not [key for key in plain if "natural" in key or "zero_shot" in key]


def test_every_evaluation_metric_has_its_meaning() -> None:
    group = lambda prompt, size: scored_group(prompt, [True] * (size - 1) + [False])  # noqa: E731
    metrics = measured(Sampling(group), load("countdown-tiny", ['evaluation.formats=["one_shot", "natural"]']))
    assert {"eval/pass_at_8", "eval/natural/reward_ci95", "eval/marker/exploration"} <= metrics.keys()
    for key in metrics:
        found = find_metric(re.sub("^eval/(one_shot|natural)/", "eval/", key))
        assert found and found.key != "eval/<format>/<figure>", key


def test_a_bounded_evaluation_asks_the_same_prompts_in_every_format_and_every_time() -> None:
    config = load("countdown-tiny", ["evaluation.num_prompts=6"])
    chosen = [
        [prompt.partition("/")[2] for prompt in held_out_prompts(Stream(), format, config)]
        for format in ("natural", "zero_shot")
    ]
    assert chosen[0] == chosen[1] and len({*chosen[0]}) == 6
    other = load("countdown-tiny", ["evaluation.num_prompts=6", "evaluation.seed=1"])
    assert [prompt.partition("/")[2] for prompt in held_out_prompts(Stream(), "natural", other)] != chosen[0]
    # The tasks of a mixture stand one after the other: the first six would all be of one task.
    assert max(int(index) for index in chosen[0]) > 10


def test_more_prompts_than_are_held_out_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"evaluation.num_prompts = 21, but 20 problems are held out: lower it"):
        held_out_prompts(Stream(), "natural", load("countdown-tiny", ["evaluation.num_prompts=21"]))


def test_a_run_finds_out_what_it_cannot_ask_before_it_starts() -> None:
    from orchestrator.base_model import load_tokenizer
    from rollout.prompts.stream import PromptStream

    tokenizer = load_tokenizer(str(WARM_START))

    def check(*overrides: str) -> None:
        config = load("countdown-tiny", ['evaluation.formats=["natural"]', *overrides])
        check_held_out(PromptStream(config.prompts, tokenizer), config)

    check()
    with pytest.raises(ValueError, match="cannot encode"):
        check('prompts.natural_template="Make {target} of {numbers}, please"')
    with pytest.raises(ConfigError, match=r"evaluation\.num_prompts = 300"):
        check("evaluation.num_prompts=300")


def test_accuracy_by_label_in_natural_order() -> None:
    groups = [
        labelled(scored_group("a", [True, False]), "10 numbers"),
        labelled(scored_group("b", [True, True]), "3 numbers"),
        labelled(scored_group("c", [False, False]), "3 numbers"),
    ]
    found = by_label(groups, lambda prompt: prompt.difficulty)
    assert list(found) == ["3 numbers", "10 numbers"]
    assert [(count, estimate.mean) for count, estimate in found.values()] == [(2, 0.5), (1, 0.5)]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "evaluation.pass_at=[1, 9]",
            r"pass_at holds 9, above completions_per_prompt = 8: .* raise completions_per_prompt",
        ),
        ("evaluation.pass_at=[0]", "greater than 0"),
        ('evaluation.formats=["few_shot"]', "'zero_shot', 'one_shot' or 'natural'"),
        ("evaluation.num_prompts=-1", "greater than or equal to 0"),
    ],
)
def test_wrong_settings_name_key_value_and_fix(override, message) -> None:
    with pytest.raises(ConfigError, match=message):
        load("countdown-tiny", [override])


def test_a_completion_of_which_nobody_knows_if_it_is_right_is_not_counted_as_right() -> None:
    """A game that was cut short gave no part; a function returned None."""
    whole = scored_group("a", [True, True, False, False])
    group = whole.scored((Reward(0.0, ()), *whole.rewards[1:]))
    assert group.pass_rate == 0.25 and paid("b", 1.0).pass_rate is None
    metrics = summarize([group], [], (1,)).metrics()
    assert metrics["eval/pass_at_1"] == 0.25
