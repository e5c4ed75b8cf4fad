"""Openings of sentences, such as `the old cat`, that a policy goes on from; every full stop is paid.

The demonstration of RLHF on a reward that anybody can check by eye. Openings do not end in a space: as in most
tokenizers, a word's token begins with its space, and `sleeps` after `the old cat` is the token ` sleeps`.
"""

from __future__ import annotations

import random

from rollout.config import PeriodCountConfig
from rollout.prompts.problems import DrawnProblems, Problem

DETERMINERS = ("the", "my", "your", "that")
ADJECTIVES = (
    *("old", "young", "small", "big", "red", "gray"),
    *("brave", "quiet", "happy", "hungry", "clever", "tired"),
)
NOUNS = ("cat", "dog", "bird", "fox", "horse", "mouse", "child", "farmer", "sailor", "teacher")


def source(config: PeriodCountConfig, num_held_out: int, seed: int) -> DrawnProblems:
    """The openings that `config` describes. Raises ValueError when there are too few."""
    return DrawnProblems(
        draw=lambda rng: problem(draw_opening(config.max_adjectives, rng)),
        key=lambda drawn: drawn.fields["opening"],
        num_held_out=num_held_out,
        seed=seed,
        widen="raise prompts.period_count.max_adjectives",
    )


def problem(opening: str) -> Problem:
    """The problem to go on from `opening`. Its reward needs to know nothing: the answer is empty."""
    return Problem(fields={"opening": opening}, answer={})


def draw_opening(max_adjectives: int, rng: random.Random) -> str:
    """A determiner, 1 to `max_adjectives` different adjectives, and a noun."""
    adjectives = rng.sample(ADJECTIVES, rng.randint(1, max_adjectives))
    return " ".join([rng.choice(DETERMINERS), *adjectives, rng.choice(NOUNS)])
