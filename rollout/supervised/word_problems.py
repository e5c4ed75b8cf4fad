"""Synthetic completions for word problems: what a warm start imitates before GRPO.

A trace is the text of one completion. Each line takes up one sentence of the story::

    4+5=9
    9*3=27
    27/3=9
    </think><answer>9</answer>

Every line is right, but the traces are hasty on purpose: many stop after a sentence or two and answer with the number that
they have by then. So the policy can read a story to its end and seldom does, and what reinforcement learning finds is that
reading on pays.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

from rollout.config import TracesConfig
from rollout.prompts.config import PromptsConfig
from rollout.tasks.base import Problem
from rollout.tasks.word_problems import BOX, BOXES, GAINS, LOSSES, NAMES, THINGS, source

TOKENS = (
    *NAMES,
    *(
        f" {word}"
        for words in (
            NAMES,
            THINGS,
            BOXES,
            tuple(BOX.values()),
            GAINS,
            LOSSES,
            (
                "has",
                "gives",
                "more",
                "times",
                "as",
                "many",
                "packs",
                "all",
                "equally",
                "into",
                "and",
                "keeps",
                "one",
                "does",
                "have",
                "now",
            ),
        )
        for word in words
    ),
    *("How", " How", " ", ".", "?", "\n", "+", "-", "*", "/", "=", "<think>", "</think>", "<answer>", "</answer>"),
)
"""`model.build.words` of a policy that reads these problems and writes these traces."""


def traces(prompts: PromptsConfig, config: TracesConfig, seed: int) -> Iterator[tuple[Problem, str]]:
    """Endless problems that are not held out, each with a solution, whole or not.

    Of `config`, `give_up_rate` and `give_up_within` are looked at: steps, here.
    """
    rng = random.Random(f"traces/{seed}")
    problems = source(prompts.word_problems, prompts.num_held_out, prompts.seed)
    while True:
        problem = problems.draw(rng)
        patience = rng.randint(1, config.give_up_within) if rng.random() < config.give_up_rate else None
        yield problem, solution(problem.answer["steps"], patience)


def solution(steps: Sequence[str], patience: int | None = None) -> str:
    """A completion that takes the steps, such as ``4+5=9``, or only the first ``patience`` of them."""
    taken = steps[:patience]
    _, _, answer = taken[-1].partition("=")
    return "".join(f"{step}\n" for step in taken) + f"</think><answer>{answer}</answer>"
