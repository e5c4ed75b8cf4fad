"""Countdown: make the target from the numbers. Problems are generated, or come from a file or the hub."""

from __future__ import annotations

import itertools
import random
import re
from collections.abc import Iterable, Sequence
from dataclasses import replace

from rollout.tasks.base import MAX_DRAWS, DrawnProblems, ListedProblems, Problem, ProblemSource, WorkedExample
from rollout.tasks.countdown_problems.draws import are_even, draw_solvable
from rollout.tasks.countdown_problems.settings import MAX_COUNTED, CountdownConfig
from rollout.tasks.countdown_problems.solver import count_solutions
from rollout.tasks.datasets import LocatedRow, Row, RowError, column, parse_rows, read_rows, shown

SETTINGS = CountdownConfig
TRACES = "rollout.supervised.countdown"
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
EXAMPLE_QUESTION = "Using the numbers [4, 7, 3], create an equation that equals 25"


def fields(config: CountdownConfig) -> tuple[tuple[str, ...], ...]:
    return (("target",), ("numbers", "numbers_spaced"))


def source(config: CountdownConfig, num_held_out: int, seed: int) -> ProblemSource:
    """Return the problems that `config` describes. Raises ValueError when there are too few or a row is malformed."""
    problems: DrawnProblems | ListedProblems
    if config.source == "generated":
        drawn = problems = GeneratedProblems(config, num_held_out, seed)
        if config.num_problems is not None:
            train = distinct(drawn, config.num_problems)
            problems = ListedProblems(train, num_held_out, seed, "prompts.countdown", held_out=drawn.held_out)
    else:
        problems = listed(rows_of(config), config, num_held_out, seed)
    return problems


def check_traces(config: CountdownConfig) -> None:
    """Raise ValueError for problems without traces for a warm start."""
    if config.source != "generated" or config.numbers_per_problem > 3:
        raise ValueError(
            f"prompts.countdown has source = {config.source!r} and numbers_per_problem = {config.numbers_per_problem}: "
            "the warm start's traces are about generated problems of at most three numbers; change them or set "
            "warm_start.num_steps = 0"
        )


def check_max_integer(config: CountdownConfig, max_integer: int) -> None:
    """Raise ValueError when a generated problem or its solution may hold a number above `max_integer`."""
    if config.source == "generated" and config.largest_integer > max_integer:
        raise ValueError(
            f"model.build.max_integer = {max_integer}: the tokenizer has no token for {config.largest_integer}, which "
            "prompts.countdown's max_number, max_target or max_intermediate allows; raise it"
        )


def read_question(question: str, answer: str | None, config: CountdownConfig) -> Problem:
    """Return the problem of a question, whose last whole number is the target; those before it are the numbers.

    Raises ValueError when there are fewer than three numbers, and for an answer, which the question itself decides.
    """
    if answer is not None:
        raise ValueError("--answer is not for Countdown: what is right follows from the numbers and the target")
    found = [int(digits) for digits in re.findall(r"(?<![\d.])\d{1,9}(?!\d|\.\d)", question)]
    if len(found) < 3:
        raise ValueError(f'{question!r} does not name at least two numbers and a target: write "{EXAMPLE_QUESTION}"')
    return problem(found[:-1], found[-1], config.must_use_all, config.exact_division)


def problem(numbers: Sequence[int], target: int, must_use_all: bool, exact_division: bool = False) -> Problem:
    """Return the problem of these numbers, in this order."""
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


def labelled(problem: Problem, config: CountdownConfig) -> Problem:
    """Return the problem with a difficulty such as `3 numbers, 1 solution`.

    Counting takes milliseconds: it is for held-out problems only.
    """
    numbers, target = problem.answer["numbers"], problem.answer["target"]
    if not 2 <= len(numbers) <= MAX_COUNTED or min(numbers) < 1:
        return problem
    operators = config.operators if config.source == "generated" else "+-*/"
    found = count_solutions(numbers, target, operators, config.must_use_all, config.exact_division, limit=3)
    solutions = ("no solution", "1 solution", "2 solutions", "3+ solutions")[found]
    return replace(problem, difficulty=f"{problem.difficulty}, {solutions}")


class GeneratedProblems(DrawnProblems):
    """Solvable problems, drawn at random: the numbers independently, then one of the targets that they can make."""

    def __init__(self, config: CountdownConfig, num_held_out: int, seed: int) -> None:
        def draw(rng: random.Random, for_held_out: bool = False) -> Problem:
            numbers, target = draw_solvable(config, rng, for_held_out=for_held_out)
            return problem(numbers, target, config.must_use_all, config.exact_division)

        super().__init__(
            draw=draw,
            num_held_out=num_held_out,
            seed=seed,
            widen="widen prompts.countdown's ranges",
            draw_held_out=lambda rng: draw(rng, for_held_out=True),
            label=lambda problem: labelled(problem, config),
        )


def distinct(drawn: DrawnProblems, count: int) -> list[Problem]:
    """Return the first `count` different training problems. Raises ValueError when there seem to be fewer."""
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


def rows_of(config: CountdownConfig) -> Iterable[LocatedRow]:
    """Return the rows of `config.source`. Raises as `read_rows` does."""
    hint = 'use source = "generated"'
    return read_rows(config.source, "prompts.countdown.source", config.subset, config.split, hint)


def listed(rows: Iterable[LocatedRow], config: CountdownConfig, num_held_out: int, seed: int) -> ListedProblems:
    """Return the problems of rows. Raises ValueError when there are too few."""

    def parse(row: Row, where: str) -> Problem:
        return problem(*parse_row(row, where), config.must_use_all, config.exact_division)

    problems, faults, _ = parse_rows(rows, parse, config.source)

    def label(problem: Problem) -> Problem:
        return labelled(problem, config)

    if not config.even_held_out:
        return ListedProblems(problems, num_held_out, seed, config.source, label=label, faults=faults)
    even = [each for each in problems if are_even(each.answer["numbers"])]
    others = [each for each in problems if not are_even(each.answer["numbers"])]
    name = f"{config.source}, with even numbers only,"
    return ListedProblems(others, num_held_out, seed, name, held_out=even, label=label, faults=faults)


def parse_row(row: Row, where: str) -> tuple[list[int], int]:
    """Return the numbers and the target of a row. Raises RowError, which names the row and the column."""
    numbers, target = column(row, "nums", where), column(row, "target", where)
    is_whole = isinstance(numbers, list | tuple) and all(type(value) is int for value in (*numbers, target))
    if not is_whole or not numbers:
        raise RowError(f"{where}: `nums` must be a list of whole numbers and `target` one: {shown(row)}")
    return list(numbers), target
