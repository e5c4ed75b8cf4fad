"""How good a policy is on the held-out prompts, with the uncertainty of each figure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import comb, sqrt

import numpy as np

from orchestrator.config import EvaluationConfig
from orchestrator.fleet import Rollouts
from rollout.config import SamplingConfig
from rollout.types import Group, Prompt


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean over prompts, and half the width of its 95% interval."""

    mean: float
    half_width: float

    def __str__(self) -> str:
        return f"{100 * self.mean:.1f}% ± {100 * self.half_width:.1f}"


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The figures of one evaluation. pass@k counts a problem as solved when one of k completions is right."""

    reward: Estimate
    """Mean weighted reward of the sampled completions; not a rate, whatever the task pays."""
    pass_at: dict[int, Estimate]
    """Sampled, by k. Empty when the task's answers are not right or wrong."""
    greedy: Estimate | None
    """None for such a task too."""
    format_rate: Estimate | None
    """None when the task asks for no format."""
    mean_tokens: float
    truncated: float
    groups: tuple[Group, ...]
    """The sampled groups, scored."""

    def metrics(self) -> dict[str, float]:
        """`eval/` metrics."""
        estimates = {"reward": self.reward} | {f"pass_at_{k}": estimate for k, estimate in self.pass_at.items()}
        rates = {"greedy_pass_at_1": self.greedy, "format_rate": self.format_rate}
        estimates |= {name: rate for name, rate in rates.items() if rate is not None}
        values = {f"eval/{name}": estimate.mean for name, estimate in estimates.items()}
        widths = {f"eval/{name}_ci95": estimate.half_width for name, estimate in estimates.items()}
        lengths = {"eval/completion_tokens": self.mean_tokens, "eval/truncated": self.truncated}
        return values | widths | lengths


def evaluate(
    rollouts: Rollouts, prompts: Sequence[Prompt], config: EvaluationConfig, max_completion_tokens: int
) -> Evaluation:
    """Sample and score every prompt, `completions_per_prompt` times at the temperature, and once greedily where answers
    are right or wrong."""
    sampled = rollouts.collect(
        prompts,
        SamplingConfig(temperature=config.temperature, max_completion_tokens=max_completion_tokens),
        config.completions_per_prompt,
    )
    if not has_part(sampled, "correctness"):
        return summarize(sampled, ())
    greedy = rollouts.collect(prompts, SamplingConfig(temperature=0.0, max_completion_tokens=max_completion_tokens), 1)
    return summarize(sampled, greedy)


def summarize(sampled: Sequence[Group], greedy: Sequence[Group]) -> Evaluation:
    """The figures of scored groups, all of one size; `greedy` is empty when the task's answers are not right or wrong."""
    group_size = len(sampled[0].completions)
    completions = [completion for group in sampled for completion in group.completions]
    sizes = sorted({1, group_size}) if has_part(sampled, "correctness") else []
    return Evaluation(
        reward=estimate([float(group.totals.mean()) for group in sampled]),
        pass_at={k: estimate([pass_at_k(group_size, num_right(group), k) for group in sampled]) for k in sizes},
        greedy=estimate([num_right(group) for group in greedy]) if greedy else None,
        format_rate=estimate([mean_part(group, "format") for group in sampled])
        if has_part(sampled, "format")
        else None,
        mean_tokens=float(np.mean([completion.num_tokens for completion in completions])),
        truncated=float(np.mean([completion.is_truncated for completion in completions])),
        groups=tuple(sampled),
    )


def pass_at_k(n: int, right: int, k: int) -> float:
    """Chance that one of `k` out of `n` completions is right, `right` of them being so.

    Unbiased: 1 - C(n - c, k) / C(n, k), Chen et al. 2021 (arXiv:2107.03374), equation 1.
    """
    return 1.0 - comb(n - right, k) / comb(n, k)


def estimate(values: Sequence[float]) -> Estimate:
    """Mean and 95% interval (normal approximation) over prompts, which are independent; completions of one are not."""
    if len(values) < 2:
        return Estimate(float(np.mean(values)), float("nan"))
    return Estimate(float(np.mean(values)), 1.96 * float(np.std(values, ddof=1)) / sqrt(len(values)))


def has_part(groups: Sequence[Group], name: str) -> bool:
    return any(part.name == name for part in groups[0].rewards[0].parts)


def num_right(group: Group) -> int:
    return sum(reward.part("correctness").value == 1.0 for reward in group.rewards)


def mean_part(group: Group, name: str) -> float:
    return float(np.mean([reward.part(name).value for reward in group.rewards]))
