"""Openings of sentences to continue to a given number of words: the closer, the higher the reward. Needs no data."""

from __future__ import annotations

from dataclasses import replace
from random import Random

from pydantic import BaseModel, Field

from rollout.tasks import period_count
from rollout.tasks.base import DrawnProblems, Problem, WorkedExample

TEMPLATE = "Continue in exactly {target_words} words: {opening}"
NATURAL_TEMPLATE = TEMPLATE
EXAMPLE = WorkedExample(
    fields={"opening": "the old cat", "target_words": "8"}, completion=" sleeps quietly near the river and waits again."
)


class TextLengthConfig(BaseModel, frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False):
    """Text length: continue the opening of a sentence, to a given number of words."""

    target_words: int = Field(default=40, ge=1, le=1_000_000)
    """Words that a completion should have."""
    max_adjectives: int = Field(default=2, ge=1, le=3)
    """As in `prompts.period_count`: with 2 there are 5,760 openings."""


SETTINGS = TextLengthConfig


def fields(config: TextLengthConfig) -> tuple[tuple[str, ...], ...]:
    return (("opening",), ("target_words", "opening"))


def source(config: TextLengthConfig, num_held_out: int, seed: int) -> DrawnProblems:
    """Return the openings of Period count. Raises ValueError when there are too few."""

    def draw(rng: Random) -> Problem:
        opening = period_count.problem(period_count.draw_opening(config.max_adjectives, rng))
        target = config.target_words
        return replace(opening, fields={**opening.fields, "target_words": str(target)}, answer={"target_words": target})

    return DrawnProblems(draw, num_held_out, seed, widen="raise prompts.text_length.max_adjectives")
