"""Synthetic completions for word problems: what a warm start imitates before GRPO.

A trace is the text of one completion. Each line works out one sentence of the story::

    4+5=9
    9*3=27
    27/3=9
    </think><answer>9</answer>

Every line is right, but many traces stop after a sentence or two and answer with the number that they have by then. So
the policy can read a story to its end and seldom does, and reinforcement learning finds that reading on pays.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

from rollout.config import TracesConfig
from rollout.prompts.config import PromptsConfig
from rollout.tasks.base import Problem
from rollout.tasks.word_problems import source


def traces(prompts: PromptsConfig, config: TracesConfig, seed: int) -> Iterator[tuple[Problem, str]]:
    """Yield endless problems that are not held out, each with a solution, whole or not.

    Of `config`, `give_up_rate` and `give_up_within` are used; the latter counts steps.
    """
    rng = random.Random(f"traces/{seed}")
    problems = source(prompts.settings, prompts.num_held_out, prompts.seed)
    while True:
        problem = problems.draw(rng)
        num_steps = rng.randint(1, config.give_up_within) if rng.random() < config.give_up_rate else None
        yield problem, solution(problem.answer["steps"], num_steps)


def solution(steps: Sequence[str], num_steps: int | None = None) -> str:
    """Return a completion that takes the steps, such as ``4+5=9``, or only the first ``num_steps`` of them."""
    taken = steps[:num_steps]
    _, _, answer = taken[-1].partition("=")
    return "".join(f"{step}\n" for step in taken) + f"</think><answer>{answer}</answer>"
