"""Synthetic completions for reasoning_gym's chain_sum, for a warm start before GRPO.

A trace is the text of one completion. Each line adds one more term to the running total. Here the sum is
4 + 3 - 9 + 5::

    4+3=7
    7-9=-2
    -2+5=3
    </think><answer>3</answer>

Every line is right, but many traces stop after a line or two and answer with the total so far. So the policy can
continue to the end of the sum but seldom does, and reinforcement learning can find that continuing is rewarded.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

from rollout.config import TracesConfig
from rollout.prompts.config import PromptsConfig
from rollout.tasks.base import Problem
from rollout.tasks.reasoning_gym import source


def traces(prompts: PromptsConfig, config: TracesConfig, seed: int) -> Iterator[tuple[Problem, str]]:
    """Yield endless problems that are not held out, each with a complete or an incomplete sum.

    It uses `give_up_rate` and `give_up_within` of `config`. Raises ValueError for other data sets than chain_sum.
    """
    if others := {dataset.name for dataset in prompts.settings.datasets} - {"chain_sum"}:
        raise ValueError(
            f"prompts.reasoning_gym.datasets has {sorted(others)}: synthetic traces for a warm start exist only for "
            "chain_sum; set warm_start.data to a JSONL file of prompt and completion, or warm_start.num_steps = 0"
        )
    rng = random.Random(f"traces/{seed}")
    problems = source(prompts.settings, prompts.num_held_out, prompts.seed)
    while True:
        problem = problems.draw(rng)
        expression = problem.answer["metadata"]["expression"]
        num_lines = rng.randint(1, config.give_up_within) if rng.random() < config.give_up_rate else None
        yield problem, sum_trace(expression, num_lines)


def sum_trace(expression: str, num_lines: int | None = None) -> str:
    """Return a completion that computes a sum such as ``4 + 3 - 9``, or only its first ``num_lines`` lines."""
    first, *rest = expression.split()
    total, lines = int(first), []
    for operator, term in list(zip(rest[0::2], rest[1::2], strict=True))[:num_lines]:
        result = total + int(term) if operator == "+" else total - int(term)
        lines.append(f"{total}{operator}{term}={result}\n")
        total = result
    return f"{''.join(lines)}</think><answer>{total}</answer>"
