"""Synthetic games of `guess`: what a warm start imitates before GRPO.

A trace is a game. What stands in `<hint>` tags the environment says::

    <hint>1 to 32</hint><guess>20</guess><hint>lower</hint><guess>7</guess><hint>right</hint>

Some players guess at random each time and ignore the hints; the others choose within the range that the hints leave,
any number of that. Nobody halves, so reinforcement learning finds that listening pays, and what to ask for.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

from rollout.config import TracesConfig
from rollout.prompts.config import PromptsConfig
from rollout.tasks.base import Problem
from rollout.tasks.game import source


def traces(prompts: PromptsConfig, config: TracesConfig, seed: int) -> Iterator[tuple[Problem, tuple[str, ...]]]:
    """Yield endless games that are not held out, each as it is played.

    Of `config`, `give_up_rate` is used: the share of players who do not listen; and `max_lines`: the most guesses.
    """
    rng = random.Random(f"traces/{seed}")
    problems = source(prompts.settings, prompts.num_held_out, prompts.seed)
    while True:
        problem = problems.draw(rng)
        listens = rng.random() >= config.give_up_rate
        yield problem, game(problem.answer["number"], problem.answer["highest"], config.max_lines, listens, rng)


def game(number: int, highest: int, most: int, listens: bool, rng: random.Random) -> tuple[str, ...]:
    """Return a game of `most` guesses at most: nothing of the policy, then hint and guess in turn."""
    low, high = 1, highest
    texts = ["", f"<hint>1 to {highest}</hint>"]
    for count in range(1, most + 1):
        guess = rng.randint(low, high) if listens else rng.randint(1, highest)
        texts.append(f"<guess>{guess}</guess>")
        if guess == number or count == most:
            break
        texts.append(f"<hint>{'higher' if guess < number else 'lower'}</hint>")
        low, high = (max(low, guess + 1), high) if guess < number else (low, min(high, guess - 1))
    return tuple(texts)
