"""Word problems of one to several steps, made by a small grammar: GSM8K in a vocabulary of a hundred words.

    Mia has 4 apples. Mia buys 5 more apples. Tom has 3 times as many apples as Mia. Tom packs all apples equally into 3
    bags and keeps one bag. How many apples does Tom have now?

Each sentence after the first is one step. Every number on the way is whole, at least 1 and at most `max_number`.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import NamedTuple, Self

from pydantic import BaseModel, Field, model_validator

from rollout.tasks.base import DrawnProblems, Problem, WorkedExample

TEMPLATE = (
    "{question}\nShow your work in <think> </think> tags. And return the final answer, a whole number, in <answer> "
    "</answer> tags, for example <answer>12</answer>."
)
NATURAL_TEMPLATE = "{question}\nThink step by step, and end with the final answer, a whole number."
EXAMPLE = WorkedExample(
    fields={
        "question": "Ben has 7 pears. Lea gives Ben 5 more pears. Ben sells 4 pears. How many pears does Ben have now?"
    },
    completion="7 + 5 = 12 and 12 - 4 = 8.</think>\n<answer>8</answer>",
)

NAMES = ("Mia", "Tom", "Ben", "Lea", "Sam", "Ida", "Max", "Eva", "Leo", "Zoe", "Jim", "Kim")
THINGS = ("apples", "pears", "nuts", "eggs", "coins", "books", "pens", "cards", "shells", "stones", "beads", "stamps")
BOXES = ("bags", "boxes", "baskets", "jars")
BOX = {"bags": "bag", "boxes": "box", "baskets": "basket", "jars": "jar"}
GAINS = ("buys", "finds", "wins", "collects", "makes")
LOSSES = ("sells", "loses", "breaks", "hides", "drops")
MAX_FACTOR = 6
"""Largest factor of `times as many`, and largest number of boxes; the smallest is 2."""


class WordProblemsConfig(BaseModel, frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False):
    """Word problems: arithmetic told as a story, made from a small grammar, graded as GSM8K is."""

    min_steps: int = Field(default=2, ge=1, le=100)
    """Fewest steps of a problem, each a sentence."""
    max_steps: int = Field(default=4, ge=1, le=100)
    """Most steps of a problem."""
    max_number: int = Field(default=30, ge=10, le=10**9)
    """Largest number in a problem, its solution and its answer."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.min_steps > self.max_steps:
            raise ValueError(
                f"min_steps = {self.min_steps} is above max_steps = {self.max_steps}: lower it or raise max_steps"
            )
        return self


SETTINGS = WordProblemsConfig
GRADER = "gsm8k"
TRACES = "rollout.supervised.word_problems"


class StoryStep(NamedTuple):
    """A sentence, and what it does to the number that is asked for."""

    sentence: str
    arithmetic: str
    """The step as an equation, such as ``4+5=9``."""
    value: int
    owner: str
    """The person whose number is followed from here on."""


def fields(config: WordProblemsConfig) -> tuple[tuple[str, ...], ...]:
    return (("question",),)


def source(config: WordProblemsConfig, num_held_out: int, seed: int) -> DrawnProblems:
    """Return the problems that `config` describes. Raises ValueError when there are too few."""
    return DrawnProblems(
        draw=lambda rng: draw_problem(config, rng),
        num_held_out=num_held_out,
        seed=seed,
        widen="raise prompts.word_problems.max_steps or max_number",
    )


def draw_problem(config: WordProblemsConfig, rng: random.Random) -> Problem:
    """Draw a problem. Each number of steps is equally likely."""
    thing, owner = rng.choice(THINGS), rng.choice(NAMES)
    value = rng.randint(2, config.max_number // 2)
    sentences, steps = [f"{owner} has {value} {thing}."], []
    for _ in range(rng.randint(config.min_steps, config.max_steps)):
        step = rng.choice(list(possible_steps(owner, thing, value, config.max_number, rng)))
        owner, value = step.owner, step.value
        sentences.append(step.sentence)
        steps.append(step.arithmetic)
    question = " ".join([*sentences, f"How many {thing} does {owner} have now?"])
    return Problem(
        fields={"question": question},
        answer={"answer": str(value), "steps": steps},
        key=question,
        difficulty=f"{len(steps)} steps" if len(steps) > 1 else "1 step",
    )


def possible_steps(owner: str, thing: str, value: int, max_number: int, rng: random.Random) -> Iterator[StoryStep]:
    """Yield a gain, a loss, a multiple and a share, as far as they keep the number between 1 and `max_number`."""
    other = rng.choice([name for name in NAMES if name != owner])
    if value + 2 <= max_number:
        more = rng.randint(2, max_number - value)
        sentence = rng.choice(
            [f"{owner} {rng.choice(GAINS)} {more} more {thing}.", f"{other} gives {owner} {more} more {thing}."]
        )
        yield StoryStep(sentence, f"{value}+{more}={value + more}", value + more, owner)
    if value > 2:
        less = rng.randint(2, value - 1)
        sentence = rng.choice(
            [f"{owner} {rng.choice(LOSSES)} {less} {thing}.", f"{owner} gives {other} {less} {thing}."]
        )
        yield StoryStep(sentence, f"{value}-{less}={value - less}", value - less, owner)
    if 2 * value <= max_number:
        factor = rng.randint(2, min(MAX_FACTOR, max_number // value))
        sentence = f"{other} has {factor} times as many {thing} as {owner}."
        yield StoryStep(sentence, f"{value}*{factor}={value * factor}", value * factor, other)
    if divisors := [divisor for divisor in range(2, MAX_FACTOR + 1) if value % divisor == 0]:
        divisor, boxes = rng.choice(divisors), rng.choice(BOXES)
        sentence = f"{owner} packs all {thing} equally into {divisor} {boxes} and keeps one {BOX[boxes]}."
        yield StoryStep(sentence, f"{value}/{divisor}={value // divisor}", value // divisor, owner)
