"""Synthetic games of `guess`, for a warm start before GRPO.

A trace is a game. The text in `<hint>` tags is from the environment::

    <hint>1 to 32</hint><guess>20</guess><hint>lower</hint><guess>7</guess><hint>right</hint>

Some players ignore the hints and guess at random each time. The others guess a random number in the range that the
hints leave. Nobody halves the range, so reinforcement learning can find that using hints is rewarded, and which
numbers are best to guess.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

from rollout.config import TracesConfig
from rollout.prompts.config import PromptsConfig
from rollout.tasks.base import Problem
from rollout.tasks.game import source


def traces(prompts: PromptsConfig, config: TracesConfig, seed: int) -> Iterator[tuple[Problem, tuple[str, ...]]]:
    """Yield endless games that are not held out, each with a complete game as its trace.

    It uses two settings of `config`: `give_up_rate`, the share of players who ignore hints, and `max_lines`, the
    largest number of guesses.
    """
    rng = random.Random(f"traces/{seed}")
    problems = source(prompts.settings, prompts.num_held_out, prompts.seed)
    while True:
        problem = problems.draw(rng)
        uses_hints = rng.random() >= config.give_up_rate
        yield problem, game(problem.answer["number"], problem.answer["highest"], config.max_lines, uses_hints, rng)


def game(number: int, highest: int, max_guesses: int, uses_hints: bool, rng: random.Random) -> tuple[str, ...]:
    """Return a game of at most `max_guesses`: an empty first turn of the policy, then hints and guesses in turn."""
    low, high = 1, highest
    texts = ["", f"<hint>1 to {highest}</hint>"]
    for count in range(1, max_guesses + 1):
        guess = rng.randint(low, high) if uses_hints else rng.randint(1, highest)
        texts.append(f"<guess>{guess}</guess>")
        if guess == number or count == max_guesses:
            break
        texts.append(f"<hint>{'higher' if guess < number else 'lower'}</hint>")
        low, high = (max(low, guess + 1), high) if guess < number else (low, min(high, guess - 1))
    return tuple(texts)
