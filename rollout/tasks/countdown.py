"""Countdown problems: make the target out of the numbers. Generated, from a file, or from the hub."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Annotated, Self

from pydantic import BaseModel, Field, model_validator

from rollout.tasks.base import MAX_DRAWS, DrawnProblems, ListedProblems, Problem, ProblemSource, WorkedExample
from rollout.tasks.countdown_problems.draws import are_even, draw_solvable
from rollout.tasks.countdown_problems.solver import count_solutions
from rollout.tasks.datasets import Row, RowError, column, read_rows, shown

MAX_COUNTED = 4
"""Most numbers of a problem whose solutions are counted; with five it takes too long for hundreds of problems."""

TEMPLATE = (
    "Using the numbers {numbers}, create an equation that equals {target}. You can use basic arithmetic "
    "operations (+, -, *, /) and each number can only be used once. Show your work in <think> </think> tags. "
    "And return the final equation in <answer> </answer> tags, for example <answer>(1 + 2) / (3 * 5)</answer>."
)
NATURAL_TEMPLATE = (
    "Using the numbers {numbers}, create an equation that equals {target}. You can use basic arithmetic operations "
    "(+, -, *, /) and each number can only be used once. Think step by step, and end with the final equation."
)
EXAMPLE = WorkedExample(
    fields={"numbers": "[19, 36, 55, 7]", "numbers_spaced": "19 36 55 7", "target": "65"},
    completion=(
        "I look for two numbers that come close to 65. 55 + 19 = 74, which is 9 too much. I have 36 and 7 left: "
        "36 - 7 = 29, no. 55 + 36 = 91, which is 26 too much, and 19 + 7 = 26. So 55 + 36 - 19 - 7 = 65.</think>\n"
        "<answer>55 + 36 - 19 - 7</answer>"
    ),
)


class Config(BaseModel, frozen=True, extra="forbid", use_attribute_docstrings=True):
    """Countdown: combine the numbers with arithmetic so that they make the target."""

    source: str = "generated"
    """`generated`, a local .jsonl or .parquet file, or a hub data set such as
    `Jiayi-Pan/Countdown-Tasks-3to4`. Files and data sets need the columns `nums` and `target`."""
    subset: str = ""
    """Subset (configuration) of the hub data set `source`. Empty: its only one."""
    split: str = "train"
    """Split of the hub data set; the held-out problems are drawn from it and left out of training."""
    numbers_per_problem: int = Field(default=3, ge=2, le=6)
    """How many numbers a generated problem has."""
    min_numbers_per_problem: int | None = Field(default=None, ge=2, le=6)
    """Set to have this many to `numbers_per_problem` numbers, each count as often."""
    min_number: int = Field(default=1, ge=1)
    """Smallest number of a generated problem."""
    max_number: int = Field(default=10, ge=1)
    """Largest number of a generated problem."""
    number_choices: tuple[Annotated[int, Field(ge=1)], ...] = ()
    """Draw numbers out of these, such as [1, 2, 5, 10, 25, 50, 75, 100], and not out of all from `min_number` to
    `max_number`."""
    repeat_numbers: bool = True
    """Whether a number may come twice in a generated problem. If not, as often as `number_choices` lists it."""
    min_target: int = Field(default=1, ge=0)
    """Smallest target of a generated problem."""
    max_target: int = Field(default=40, ge=1)
    """Largest target of a generated problem."""
    operators: str = "+-*"
    """Operators with which a generated problem must be solvable, out of `+-*/` (division exact)."""
    max_intermediate: int = Field(default=60, ge=1)
    """A generated problem is solvable with every intermediate result within 0 and this."""
    min_solutions: int = Field(default=1, ge=1)
    """Fewest different solutions of a generated problem; rollout/tasks/countdown_problems/solver.py says what counts as one."""
    max_solutions: int | None = Field(default=None, ge=1)
    """Most different solutions of a generated problem. 1: the hard ones."""
    num_problems: int | None = Field(default=None, ge=1)
    """Generate so many different problems and train on them epoch after epoch. Not set: no end of them."""
    even_held_out: bool = False
    """Held-out problems have even numbers only, and training problems never do: does it generalize?"""
    must_use_all: bool = True
    """Every number exactly once (true), or each at most once (false)."""
    exact_division: bool = False
    """Whether an answer with a quotient that is not whole is wrong, as in the game on television."""

    @property
    def number_range(self) -> Sequence[int]:
        """What the numbers of a generated problem are drawn from."""
        return self.number_choices or range(self.min_number, self.max_number + 1)

    @property
    def largest_integer(self) -> int:
        """The largest that a generated problem, or a solution within `max_intermediate`, holds."""
        return max(*self.number_range, self.max_target, self.max_intermediate)

    @model_validator(mode="after")
    def _check(self) -> Self:
        for mistake in self._mistakes():
            raise ValueError(mistake)
        return self

    def _mistakes(self) -> Iterator[str]:
        for low, high in (
            ("min_number", "max_number"),
            ("min_target", "max_target"),
            ("min_numbers_per_problem", "numbers_per_problem"),
            ("min_solutions", "max_solutions"),
        ):
            least, most = getattr(self, low), getattr(self, high)
            if least is not None and most is not None and least > most:
                yield f"{low} = {least} is above {high} = {most}: lower it or raise {high}"
        if unknown := set(self.operators) - set("+-*/"):
            yield f"operators = {self.operators!r} holds {sorted(unknown)}: use only + - * /"
        if not self.repeat_numbers and len(self.number_range) < self.numbers_per_problem:
            yield (
                f"repeat_numbers = false with {len(self.number_range)} numbers to draw numbers_per_problem = "
                f"{self.numbers_per_problem} from: set it to true, or give more numbers"
            )
        counts_solutions = self.min_solutions > 1 or self.max_solutions is not None
        if counts_solutions and self.numbers_per_problem > MAX_COUNTED:
            yield (
                f"min_solutions = {self.min_solutions} and max_solutions = {self.max_solutions} with numbers_per_problem = "
                f"{self.numbers_per_problem}: counting takes too long above {MAX_COUNTED} numbers; lower it or leave them out"
            )
        if self.source != "generated" and (counts_solutions or self.num_problems is not None):
            yield f"num_problems, min_solutions and max_solutions are for generated problems: leave them out with source = {self.source!r}"


def fields(config: Config) -> tuple[tuple[str, ...], ...]:
    return (("target",), ("numbers", "numbers_spaced"))


def source(config: Config, num_held_out: int, seed: int) -> ProblemSource:
    """The problems that `config` describes. Raises ValueError when there are too few or a row is malformed."""
    problems: DrawnProblems | ListedProblems
    if config.source == "generated":
        drawn = problems = GeneratedProblems(config, num_held_out, seed)
        if config.num_problems is not None:
            train = distinct(drawn, config.num_problems)
            problems = ListedProblems(train, num_held_out, seed, "prompts.countdown", held_out=drawn.held_out)
    else:
        problems = listed(rows_of(config), config, num_held_out, seed)
    problems.held_out = [replace(each, difficulty=difficulty(each, config)) for each in problems.held_out]
    return problems


def problem(numbers: Sequence[int], target: int, must_use_all: bool, exact_division: bool = False) -> Problem:
    """The problem of these numbers, in this order."""
    answer = {"numbers": list(numbers), "target": target, "must_use_all": must_use_all}
    return Problem(
        fields={
            "numbers": "[" + ", ".join(map(str, numbers)) + "]",
            "numbers_spaced": " ".join(map(str, numbers)),
            "target": str(target),
        },
        answer=answer | {"exact_division": True} if exact_division else answer,
        key=f"{' '.join(map(str, sorted(numbers)))} = {target}",
        difficulty=f"{len(numbers)} numbers",
    )


def difficulty(problem: Problem, config: Config) -> str:
    """Such as `3 numbers, 1 solution`. Counted for held-out problems only: it takes milliseconds for each."""
    numbers, target = problem.answer["numbers"], problem.answer["target"]
    if not 2 <= len(numbers) <= MAX_COUNTED or min(numbers) < 1:
        return problem.difficulty
    operators = config.operators if config.source == "generated" else "+-*/"
    found = count_solutions(numbers, target, operators, config.must_use_all, config.exact_division, limit=3)
    return f"{problem.difficulty}, {('no solution', '1 solution', '2 solutions', '3+ solutions')[found]}"


class GeneratedProblems(DrawnProblems):
    """Problems drawn at random among the solvable ones: numbers independently, then one of the targets they can make."""

    def __init__(self, config: Config, num_held_out: int, seed: int) -> None:
        def draw(rng: random.Random, for_held_out: bool = False) -> Problem:
            numbers, target = draw_solvable(config, rng, for_held_out=for_held_out)
            return problem(numbers, target, config.must_use_all, config.exact_division)

        super().__init__(
            draw=draw,
            num_held_out=num_held_out,
            seed=seed,
            widen="widen prompts.countdown's ranges",
            draw_held_out=lambda rng: draw(rng, for_held_out=True),
        )


def distinct(drawn: DrawnProblems, count: int) -> list[Problem]:
    """The first `count` different training problems. Raises ValueError when there seem to be fewer."""
    found: dict[str, Problem] = {}
    repeats = 0
    for index in itertools.count():
        fresh = drawn.train(index)
        repeats = repeats + 1 if fresh.key in found else 0
        found.setdefault(fresh.key, fresh)
        if len(found) == count:
            break
        if repeats == MAX_DRAWS:
            raise ValueError(
                f"prompts.countdown.num_problems = {count}: only {len(found)} different ones were found besides the "
                "held-out ones; lower it, or widen prompts.countdown's ranges"
            )
    return list(found.values())


def rows_of(config: Config) -> Iterable[Row]:
    """Raises FileNotFoundError for a file that is not there, ConnectionError when the hub cannot be reached."""
    hint = 'use source = "generated"'
    return read_rows(config.source, "prompts.countdown.source", config.subset, config.split, hint)


def listed(rows: Iterable[Row], config: Config, num_held_out: int, seed: int) -> ListedProblems:
    """Problems out of rows. Raises ValueError for a malformed row, and when there are too few."""
    problems = [
        problem(*parse_row(row, f"{config.source}, row {position}"), config.must_use_all, config.exact_division)
        for position, row in enumerate(rows)
    ]
    if not config.even_held_out:
        return ListedProblems(problems, num_held_out, seed, config.source)
    even = [each for each in problems if are_even(each.answer["numbers"])]
    others = [each for each in problems if not are_even(each.answer["numbers"])]
    name = f"{config.source}, with even numbers only,"
    return ListedProblems(others, num_held_out, seed, name, held_out=even)


def parse_row(row: Row, where: str) -> tuple[list[int], int]:
    """Numbers and target of one row. Raises RowError naming the row and the column."""
    numbers, target = column(row, "nums", where), column(row, "target", where)
    is_whole = isinstance(numbers, list | tuple) and all(type(value) is int for value in (*numbers, target))
    if not is_whole or not numbers:
        raise RowError(f"{where}: `nums` must be a list of whole numbers and `target` one: {shown(row)}")
    return list(numbers), target
