"""Tell from an evaluation before training if a model can be trained on a task at all.

Group-relative advantages are 0 where all completions of a prompt get the same reward, so only groups with right and
wrong completions teach what is right (DAPO, arXiv:2503.14476, section 3.2, throws the others away for that reason).
What counts is therefore not the accuracy but how it is spread over the prompts.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import comb
from typing import Literal

from orchestrator.config.schema import RunConfig
from orchestrator.evaluate.evaluation import Evaluation, num_right
from orchestrator.evaluate.statistics import Estimate, rate
from rollout.types.completions import Group

ENOUGH_SPREAD = 0.3
"""Share of groups with spread from which a run learns at full speed; `rollout/groups_without_spread` is then below 0.7,
which docs/metrics.md calls healthy, and where countdown-tiny starts."""
LITTLE_SPREAD = 0.1
"""Below it nine tenths of the sampling are thrown away. At 32 prompts a step three groups are left, and the gradient is
mostly noise: the problems have to change, or the model."""
FEW_IN_FORMAT = 0.5
"""With fewer completions than this in the format asked for, the accuracy measures the format and not the task."""
MANY_TRUNCATED = 0.05
"""Share of truncated completions; docs/metrics.md calls less than this healthy."""
LARGEST_GROUP = 64
"""Largest group size that is advised."""

Verdict = Literal["trainable", "slow", "too hard", "too easy"]


@dataclass(frozen=True, slots=True)
class Trainability:
    """The verdict on how much GRPO could learn from."""

    verdict: Verdict
    never: float
    """Share of prompts that no sampled completion solved."""
    sometimes: float
    always: float
    group_size: int
    spread: Estimate
    """Expected share of groups with spread at the recipe's group size."""
    is_lower_bound: bool
    """True when fewer completions were sampled than a group has: then `spread` is too low rather than too high."""
    advice: tuple[str, ...]
    """Sentences that say what was found and what to do."""


def judge_trainability(evaluation: Evaluation, config: RunConfig) -> Trainability:
    """Judge an evaluation of the model that training would begin with, on a task whose answers are right or wrong."""
    # A group of one, as with a critic for a baseline, learns little more from prompts that are never or always solved.
    groups, size = evaluation.groups, max(2, config.group_size)
    num_completions = len(groups[0].completions)
    rates = [group.pass_rate for group in groups]
    never, always = rates.count(0.0) / len(rates), rates.count(1.0) / len(rates)
    spread = rate([chance_of_spread(group, size) for group in groups])
    verdict = verdict_on(spread.mean, never, always)
    return Trainability(
        verdict=verdict,
        never=never,
        sometimes=1 - never - always,
        always=always,
        group_size=size,
        spread=spread,
        is_lower_bound=num_completions < size,
        advice=tuple(advice(verdict, evaluation, config)),
    )


def sentences(found: Trainability) -> Iterator[str]:
    """Yield what was found, and what to do."""
    bound, spread = "at least " if found.is_lower_bound else "", found.spread
    yield (
        f"Of its prompts {100 * found.never:.1f}% were never solved, {100 * found.sometimes:.1f}% sometimes, "
        f"{100 * found.always:.1f}% always. In groups of {found.group_size}, {bound}{100 * spread.mean:.1f}% "
        f"[{100 * spread.low:.1f}, {100 * spread.high:.1f}] would have right and wrong completions."
    )
    yield from found.advice


def verdict_on(spread: float, never: float, always: float) -> Verdict:
    """Return the verdict on an expected share of groups with spread, and shares of prompts never and always solved."""
    if spread >= ENOUGH_SPREAD:
        return "trainable"
    if spread >= LITTLE_SPREAD:
        return "slow"
    return "too easy" if always > never else "too hard"


def chance_of_spread(group: Group, size: int) -> float:
    """Return the chance that of `size` completions drawn from the group some are right and some are not.

    Unbiased as pass@k is, 1 - (C(right, size) + C(wrong, size)) / C(n, size), where at least `size` were sampled. With
    fewer, they are drawn with replacement, which makes the chance too low.
    """
    n, right = len(group.rewards), num_right(group)
    if size <= n:
        return 1.0 - (comb(right, size) + comb(n - right, size)) / comb(n, size)
    return 1.0 - (right / n) ** size - (1 - right / n) ** size


def advice(verdict: Verdict, evaluation: Evaluation, config: RunConfig) -> Iterator[str]:
    """Yield what to do about it, the most important first."""
    yield VERDICTS[verdict]
    if verdict in ("slow", "too hard"):
        yield from larger_groups(evaluation.groups, max(2, config.group_size))
    if verdict == "slow":
        yield (
            "Groups without spread can be replaced as they come: learner.algorithm.resample_rounds, or "
            "prompts.curriculum.drop_solved_after where they are solved already."
        )
    format_rate = evaluation.format_rate
    if format_rate is not None and format_rate.mean < FEW_IN_FORMAT:
        yield (
            f"Only {100 * format_rate.mean:.0f}% of the completions are in the required format. If an answer is "
            'not found for that reason (read some below), show the format (prompts.format = "one_shot"), teach it '
            "(`rayzero sft`, or warm_start.data), reward it (a reward part for it), or require none "
            '(prompts.format = "natural").'
        )
    if evaluation.truncated > MANY_TRUNCATED:
        share = f"{100 * evaluation.truncated:.0f}%"
        yield f"{share} of the completions are truncated at {limit_reached(evaluation, config)}"


def limit_reached(evaluation: Evaluation, config: RunConfig) -> str:
    """Return the limit that most of the truncated completions reached, and what to do."""
    reasons = [completion.finish_reason for group in evaluation.groups for completion in group.completions]
    if 2 * reasons.count("turns") > evaluation.truncated * len(reasons):
        return f"environment.max_turns = {config.environment.max_turns}: raise it, or show in the prompt how to end."
    return (
        f"sampling.max_completion_tokens = {config.sampling.max_completion_tokens}: raise it, unless the model goes on "
        "after its answer; then set sampling.stop."
    )


def larger_groups(groups: Sequence[Group], size: int) -> Iterator[str]:
    """Yield the advice to take larger groups: the smallest size, by doubling, that would give enough spread."""
    larger = 2 * size
    while larger <= min(LARGEST_GROUP, len(groups[0].rewards)):
        spread = sum(chance_of_spread(group, larger) for group in groups) / len(groups)
        if spread >= ENOUGH_SPREAD:
            yield (
                f"With group_size = {larger} instead of {size}, {100 * spread:.0f}% of the groups would have spread: "
                "fewer prompts, more completions of each."
            )
            return
        larger *= 2


VERDICTS: dict[Verdict, str] = {
    "trainable": "This can be trained: enough groups have right and wrong completions to learn from.",
    "slow": "This can be trained, but slowly: most groups are right throughout or wrong throughout and teach nothing.",
    "too hard": (
        "This is too hard to train on as it is: nearly every group would be wrong throughout. Make the task easier or "
        "begin with easier problems (prompts.curriculum), teach the model first (`rayzero sft`, or warm_start.data), "
        "or take a larger or instruction-tuned model."
    ),
    "too easy": (
        "There is next to nothing left to learn here: nearly every group would be right throughout. Take a harder "
        "task, or harder problems of this one."
    ),
}
"""The meaning of each verdict."""
