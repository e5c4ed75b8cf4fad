"""Measure how good a policy is on the held-out prompts, with the uncertainty of each figure."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from math import isfinite

import numpy as np

from orchestrator.config.recipe import ConfigError
from orchestrator.config.schema import RunConfig
from orchestrator.evaluate.statistics import Estimate, average, pass_at_k, rate
from orchestrator.fleet.protocols import Rollouts
from rewards.parts.markers import marker_shares
from rollout.prompts.stream import PromptStream
from rollout.types.completions import Completion, Group, Reward
from rollout.types.prompts import Prompt, PromptFormat
from rollout.types.sampling import SamplingRequest

FORMAT_PARTS = ("format", "answer_tags")
"""Reward parts that say if a completion is in the format asked for; the first that there is counts."""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The figures of one evaluation. pass@k counts a problem as solved when one of k completions is right."""

    reward: Estimate
    """Mean weighted reward of the sampled completions, in the units of `rewards.weights`."""
    pass_at: dict[int, Estimate]
    """pass@k of the sampled completions, by k. Empty when the task's answers are not right or wrong."""
    greedy: Estimate | None
    """pass@1 of the greedy completions. None when the task's answers are not right or wrong."""
    format_rate: Estimate | None
    """Share of completions in the required format. None if the recipe requires none."""
    completion_tokens: float
    right_tokens: float | None
    """Mean length of right completions; None when there is none."""
    wrong_tokens: float | None
    truncated: float
    unmarked: float
    """Share of the sampled completions without a grade, for a deadline or an error of a reward; they count as wrong."""
    markers: dict[str, float]
    """Share of completions that show each behaviour."""
    groups: tuple[Group, ...]
    """The sampled groups with their rewards."""
    greedy_groups: tuple[Group, ...]
    """Groups of one completion with its reward; empty where nothing was sampled greedily."""

    def metrics(self, prefix: str = "eval") -> dict[str, float]:
        """Return every figure as `<prefix>/<name>`, and what is known of its uncertainty as `<prefix>/<name>_ci95`."""
        estimates = {"reward": self.reward} | {f"pass_at_{k}": estimate for k, estimate in self.pass_at.items()}
        rates = {"greedy_pass_at_1": self.greedy, "format_rate": self.format_rate}
        estimates |= {name: found for name, found in rates.items() if found is not None}
        values = {name: estimate.mean for name, estimate in estimates.items()}
        # Of one prompt's reward no interval is known.
        half_widths = {f"{name}_ci95": estimate.half_width for name, estimate in estimates.items()}
        widths = {name: half_width for name, half_width in half_widths.items() if isfinite(half_width)}
        lengths = {"right_completion_tokens": self.right_tokens, "wrong_completion_tokens": self.wrong_tokens}
        plain = {"completion_tokens": self.completion_tokens, "truncated": self.truncated, "unmarked": self.unmarked}
        plain |= {name: length for name, length in lengths.items() if length is not None}
        plain |= {f"marker/{name}": share for name, share in self.markers.items()}
        return {f"{prefix}/{name}": value for name, value in (values | widths | plain).items()}


def check_held_out(prompts: PromptStream, config: RunConfig) -> None:
    """Render the prompts of a run's evaluations before anything starts, rather than at the first evaluation.

    Raises ValueError for a prompt that does not fit or cannot be encoded, and ConfigError when too few are held out.
    """
    shown = ("one_shot",) if config.prompts.one_shot_steps else ()
    for format in (*config.measured_formats, *shown):
        held_out_prompts(prompts, format, config)


def held_out_evaluations(rollouts: Rollouts, prompts: PromptStream, config: RunConfig) -> list[Evaluation]:
    """Evaluate on the held-out prompts in each format of `config.measured_formats`, the recipe's own first."""
    return [evaluate(rollouts, held_out_prompts(prompts, format, config), config) for format in config.measured_formats]


def held_out_metrics(evaluations: Sequence[Evaluation], config: RunConfig) -> dict[str, float]:
    """Return `eval/` metrics of the recipe's own format, and `eval/<format>/` metrics of the others that it names."""
    prefixes = ["eval", *(f"eval/{format}" for format in config.measured_formats[1:])]
    found = zip(prefixes, evaluations, strict=True)
    return {key: value for prefix, each in found for key, value in each.metrics(prefix).items()}


def held_out_prompts(prompts: PromptStream, format: PromptFormat, config: RunConfig) -> Sequence[Prompt]:
    """Return the held-out prompts to ask: all, or `evaluation.num_prompts` of them, the same ones in every format.

    Raises ConfigError when fewer are held out.
    """
    held_out, count = prompts.held_out(format), config.evaluation.num_prompts
    if count > len(held_out):
        raise ConfigError(
            f"evaluation.num_prompts = {count}, but {len(held_out)} problems are held out: lower it. Raising "
            "prompts.num_held_out instead holds out problems that a model trained before may have been trained on"
        )
    if count in (0, len(held_out)):
        return held_out
    chosen = random.Random(f"evaluation/{config.evaluation.seed}").sample(range(len(held_out)), count)
    return [held_out[position] for position in sorted(chosen)]


def evaluate(rollouts: Rollouts, prompts: Sequence[Prompt], config: RunConfig) -> Evaluation:
    """Sample and grade every prompt: `completions_per_prompt` times at the evaluation's temperature, and once greedily.

    Where answers are not right or wrong, nothing is sampled greedily.
    """
    settings = config.evaluation
    sampling = config.sampling.model_copy(update={"temperature": settings.temperature})
    request = SamplingRequest(tuple(prompts), sampling, settings.completions_per_prompt, config.seed)
    sampled = rollouts.collect(request)
    greedy: Sequence[Group] = ()
    if is_graded(sampled):
        greedily = sampling.model_copy(update={"temperature": 0.0})
        greedy = rollouts.collect(replace(request, sampling=greedily, group_size=1))
    return summarize(sampled, greedy, settings.sizes)


def summarize(sampled: Sequence[Group], greedy: Sequence[Group] = (), sizes: Iterable[int] = (1,)) -> Evaluation:
    """Return the figures of graded groups, all of one size.

    Args:
        sampled: their completions were drawn at the evaluation's temperature.
        greedy: one completion a group; empty when the task's answers are not right or wrong.
        sizes: each k of pass@k.
    """
    group_size = len(sampled[0].completions)
    scored = [pair for group in sampled for pair in zip(group.completions, group.rewards, strict=True)]
    completions = [completion for completion, _ in scored]
    graded = is_graded(sampled)
    part = format_part(sampled[0].rewards[0])
    return Evaluation(
        reward=average([float(group.totals.mean()) for group in sampled]),
        pass_at={k: pass_at(sampled, k) for k in sizes} if graded else {},
        greedy=pass_at(greedy, 1) if greedy else None,
        format_rate=None if part is None else rate([share(group, part) for group in sampled], group_size),
        completion_tokens=float(np.mean([completion.num_tokens for completion in completions])),
        right_tokens=mean_tokens(completion for completion, reward in scored if graded and is_right(reward)),
        wrong_tokens=mean_tokens(completion for completion, reward in scored if graded and not is_right(reward)),
        truncated=float(np.mean([completion.is_truncated for completion in completions])),
        unmarked=float(np.mean([reward.status != "ok" for _, reward in scored])),
        markers=marker_shares(reward.markers for _, reward in scored),
        groups=tuple(sampled),
        greedy_groups=tuple(greedy),
    )


def is_graded(groups: Sequence[Group]) -> bool:
    """Return whether answers are right or wrong, as far as is known."""
    return any(group.pass_rate is not None for group in groups)


def pass_at(groups: Sequence[Group], k: int) -> Estimate:
    """Return pass@k over the groups, all of one size."""
    size = len(groups[0].completions)
    return rate([pass_at_k(size, num_right(group), k) for group in groups], size // k)


def by_label(groups: Sequence[Group], label: Callable[[Prompt], str]) -> dict[str, tuple[int, Estimate]]:
    """Return the number of prompts and pass@1 by a label of the prompt, such as its difficulty, in natural order."""
    labelled: dict[str, list[Group]] = {}
    for group in groups:
        labelled.setdefault(label(group.prompt), []).append(group)
    return {name: (len(labelled[name]), pass_at(labelled[name], 1)) for name in sorted(labelled, key=natural_order)}


def natural_order(label: str) -> list[tuple[int, str]]:
    """Return a sorting key by which `3 numbers` comes before `10 numbers`."""
    return [(int(piece), "") if piece.isdecimal() else (-1, piece) for piece in re.split(r"([0-9]+)", label)]


def num_right(group: Group) -> int:
    return sum(is_right(reward) for reward in group.rewards)


def is_right(reward: Reward) -> bool:
    """Return whether a completion is known to be right."""
    return reward.value("correctness") == 1.0


def format_part(reward: Reward) -> str | None:
    """Return the name of the reward part that says if a completion is in the format asked for; None without one."""
    names = {part.name for part in reward.parts}
    return next((name for name in FORMAT_PARTS if name in names), None)


def share(group: Group, part: str) -> float:
    """Return the share of the group's completions whose part is 1."""
    return float(np.mean([reward.value(part) == 1.0 for reward in group.rewards]))


def mean_tokens(completions: Iterable[Completion]) -> float | None:
    lengths = [completion.num_tokens for completion in completions]
    return float(np.mean(lengths)) if lengths else None
