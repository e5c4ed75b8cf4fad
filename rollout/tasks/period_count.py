"""Openings of sentences, such as `the old cat`, that a policy continues; every full stop is rewarded.

It demonstrates RLHF on a reward that can be checked by eye. Openings do not end in a space: as in most tokenizers, a
word's token begins with its space, and `sleeps` after `the old cat` is the token ` sleeps`.
"""

from __future__ import annotations

import random
from typing import Self

from pydantic import BaseModel, Field, model_validator

from rollout.tasks.base import DrawnProblems, Problem, WorkedExample

TEMPLATE = NATURAL_TEMPLATE = "{opening}"
EXAMPLE = WorkedExample(fields={"opening": "the old cat"}, completion=" sleeps quietly. my brave dog runs.")

DETERMINERS = ("the", "my", "your", "that")
ADJECTIVES = (
    *("old", "young", "small", "big", "red", "gray"),
    *("brave", "quiet", "happy", "hungry", "clever", "tired"),
)
NOUNS = ("cat", "dog", "bird", "fox", "horse", "mouse", "child", "farmer", "sailor", "teacher")


class PeriodCountConfig(BaseModel, frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False):
    """Period count: continue the opening of a sentence; every full stop is rewarded.

    It checks the whole loop without any data, and needs no reasoning. The sentence lengths are those of the warm
    start's traces.
    """

    max_adjectives: int = Field(default=2, ge=1, le=3)
    """An opening is a determiner, 1 to this many adjectives, and a noun. With 2 there are 5,760 openings."""
    min_words: int = Field(default=4, ge=3, le=1_000)
    """Shortest sentence of a trace, words; a long opening makes it longer."""
    max_words: int = Field(default=12, ge=4, le=1_000)
    """Longest sentence of a trace, words. `sampling.max_completion_tokens` should hold `max_sentences` of them."""
    max_sentences: int = Field(default=4, ge=1, le=1_000)
    """A trace has 1 to this many sentences, each number equally often. The policy can learn to use the rest of the
    limit."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        shortest = max(self.min_words, self.max_adjectives + 3)
        if self.max_words < shortest:
            raise ValueError(
                f"max_words = {self.max_words} is below {shortest}, which min_words and max_adjectives + 3 ask for: "
                "raise it"
            )
        return self


SETTINGS = PeriodCountConfig
TRACES = "rollout.supervised.period_count"


def fields(config: PeriodCountConfig) -> tuple[tuple[str, ...], ...]:
    return (("opening",),)


def source(config: PeriodCountConfig, num_held_out: int, seed: int) -> DrawnProblems:
    """Return the openings that `config` describes. Raises ValueError when there are too few."""
    return DrawnProblems(
        draw=lambda rng: problem(draw_opening(config.max_adjectives, rng)),
        num_held_out=num_held_out,
        seed=seed,
        widen="raise prompts.period_count.max_adjectives",
    )


def problem(opening: str) -> Problem:
    """Return the problem to continue `opening`. Its grader needs no reference, so the answer is empty."""
    return Problem(fields={"opening": opening}, answer={}, key=opening)


def draw_opening(max_adjectives: int, rng: random.Random) -> str:
    """Draw an opening: a determiner, 1 to `max_adjectives` different adjectives, and a noun."""
    adjectives = rng.sample(ADJECTIVES, rng.randint(1, max_adjectives))
    return " ".join([rng.choice(DETERMINERS), *adjectives, rng.choice(NOUNS)])
