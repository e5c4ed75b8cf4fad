"""Synthetic completions for word problems, for a warm start before GRPO.

A trace is the text of one completion. Each line computes one sentence of the story::

    4+5=9
    9*3=27
    27/3=9
    </think><answer>9</answer>

Every line is right, but many traces stop after a sentence or two and answer with the number so far. So the policy can
read a story to its end but seldom does, and reinforcement learning can find that reading to the end is rewarded.

With the calculator as environment, all traces read to the end. Those that would have stopped compute without it; the
others call it. Reinforcement learning can find that calls help, because the numbers are too large to add without it::

    <calc>412+579</calc><result>991</result>
    </think><answer>991</answer>
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

from rollout.config import TracesConfig
from rollout.prompts.config import PromptsConfig
from rollout.tasks.base import Problem
from rollout.tasks.word_problems import source


def traces(prompts: PromptsConfig, config: TracesConfig, seed: int) -> Iterator[tuple[Problem, str | tuple[str, ...]]]:
    """Yield endless problems that are not held out, each with a complete or incomplete solution, or one with calls.

    It uses `give_up_rate` and `give_up_within` of `config`; the latter counts steps. With the calculator,
    `give_up_rate` is the share of solutions without calls.
    """
    rng = random.Random(f"traces/{seed}")
    problems = source(prompts.settings, prompts.num_held_out, prompts.seed)
    may_call = prompts.environment == "calculator"
    while True:
        problem = problems.draw(rng)
        steps, gives_up = problem.answer["steps"], rng.random() < config.give_up_rate
        if may_call:
            yield problem, solution(steps) if gives_up else solution_with_calls(steps)
        else:
            yield problem, solution(steps, rng.randint(1, config.give_up_within) if gives_up else None)


def solution(steps: Sequence[str], num_steps: int | None = None) -> str:
    """Return a completion of steps such as ``4+5=9``, or of only the first ``num_steps`` of them."""
    first_steps = steps[:num_steps]
    _, _, answer = first_steps[-1].partition("=")
    return "".join(f"{step}\n" for step in first_steps) + f"</think><answer>{answer}</answer>"


def solution_with_calls(steps: Sequence[str]) -> tuple[str, ...]:
    """Return a completion that calls the calculator for each step: texts of the policy and the calculator in turn."""
    texts, lead, value = [], "", ""
    for step in steps:
        expression, _, value = step.partition("=")
        texts += [f"{lead}<calc>{expression}</calc>", f"<result>{value}</result>"]
        lead = "\n"
    return (*texts, f"\n</think><answer>{value}</answer>")
