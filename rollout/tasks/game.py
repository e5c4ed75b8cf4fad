"""Rounds of a game that an environment runs: each problem is a seed, or the number to guess."""

from __future__ import annotations

from random import Random

from pydantic import BaseModel, Field

from rollout.tasks.base import DrawnProblems, Problem, WorkedExample

TEMPLATE = NATURAL_TEMPLATE = "Play the game that follows."
EXAMPLE = WorkedExample(fields={}, completion="<guess>2</guess>")
NUM_SEEDS = 2**31


class GameConfig(BaseModel, frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False):
    """Game: what `prompts.environment` plays. `prompts.template` says how a move is written."""

    highest: int = Field(default=0, ge=0, le=10**9)
    """With `prompts.environment = "guess"`: the numbers are from 1 to this, and answers are right or wrong. Halving
    finds one in as many guesses as this has binary digits. 0: another game, whose environment alone tells how it went.
    """

    @property
    def grader(self) -> str:
        return "guess" if self.highest else "game"


SETTINGS = GameConfig
TRACES = "rollout.supervised.guess"
EXAMPLE_QUESTION = "1"


def fields(config: GameConfig) -> tuple[tuple[str, ...], ...]:
    return ()


def check_traces(config: GameConfig) -> None:
    if config.highest == 0:
        raise ValueError(
            "prompts.game.highest = 0: synthetic traces for a warm start are there for the number game only; set it, "
            "or warm_start.num_steps = 0"
        )


def check_max_integer(config: GameConfig, max_integer: int) -> None:
    if config.highest > max_integer:
        raise ValueError(
            f"prompts.game.highest = {config.highest} is above model.build.max_integer = {max_integer}, the largest "
            "number that the tokenizer knows: lower it, or raise model.build.max_integer"
        )


def read_question(question: str, answer: str | None, config: GameConfig) -> Problem:
    """Return the round with that number to guess, or with that seed. Raises ValueError for anything else."""
    highest = config.highest or NUM_SEEDS
    if not (question.isascii() and question.isdecimal() and len(question) <= 10 and 1 <= int(question) <= highest):
        what = "to be guessed" if config.highest else "that is the game's seed"
        raise ValueError(f"prompts.task = 'game' asks with a number {what}, from 1 to {highest}: {question!r} is none")
    number = int(question)
    numbers = {"number": number, "highest": highest} if config.highest else {}
    return Problem(fields={}, answer={"seed": number, **numbers}, key=question)


def source(config: GameConfig, num_held_out: int, seed: int) -> DrawnProblems:
    """Return the rounds. Two with the same number are two problems."""

    def draw(rng: Random) -> Problem:
        answer = {"seed": rng.randrange(NUM_SEEDS)}
        if config.highest:
            answer |= {"number": rng.randint(1, config.highest), "highest": config.highest}
        return Problem(fields={}, answer=answer, key=str(answer["seed"]))

    return DrawnProblems(draw, num_held_out, seed, widen="hold out fewer")
