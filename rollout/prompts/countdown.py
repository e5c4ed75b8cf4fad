"""Countdown problems: make the target out of the numbers. Generated, from a file, or from the hub."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import combinations
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, Field, model_validator

from rollout.prompts.problems import MAX_DRAWS, DrawnProblems, ListedProblems, Problem, ProblemSource, WorkedExample

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
    numbers_per_problem: int = Field(default=3, ge=2, le=6)
    """How many numbers a generated problem has."""
    min_number: int = Field(default=1, ge=1)
    """Smallest number of a generated problem."""
    max_number: int = Field(default=10, ge=1)
    """Largest number of a generated problem."""
    min_target: int = Field(default=1, ge=0)
    """Smallest target of a generated problem."""
    max_target: int = Field(default=40, ge=1)
    """Largest target of a generated problem."""
    operators: str = "+-*"
    """Operators with which a generated problem must be solvable, out of `+-*/` (division exact)."""
    max_intermediate: int = Field(default=60, ge=1)
    """A generated problem is solvable with every intermediate result within 0 and this."""
    must_use_all: bool = True
    """Every number exactly once (true), or each at most once (false)."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.min_number > self.max_number:
            raise ValueError(
                f"min_number = {self.min_number} is above max_number = {self.max_number}: lower it or raise max_number"
            )
        if self.min_target > self.max_target:
            raise ValueError(
                f"min_target = {self.min_target} is above max_target = {self.max_target}: lower it or raise max_target"
            )
        if unknown := set(self.operators) - set("+-*/"):
            raise ValueError(f"operators = {self.operators!r} holds {sorted(unknown)}: use only + - * /")
        return self


def fields(config: Config) -> tuple[tuple[str, ...], ...]:
    return (("target",), ("numbers", "numbers_spaced"))


def problem(numbers: Sequence[int], target: int, must_use_all: bool) -> Problem:
    """The problem of these numbers, in this order."""
    return Problem(
        fields={
            "numbers": "[" + ", ".join(map(str, numbers)) + "]",
            "numbers_spaced": " ".join(map(str, numbers)),
            "target": str(target),
        },
        answer={"numbers": list(numbers), "target": target, "must_use_all": must_use_all},
        key=f"{' '.join(map(str, sorted(numbers)))} = {target}",
        difficulty=f"{len(numbers)} numbers",
    )


def source(config: Config, num_held_out: int, seed: int) -> ProblemSource:
    """The problems that `config` describes. Raises ValueError when there are too few or a row is malformed."""
    if config.source == "generated":
        return GeneratedProblems(config, num_held_out, seed)
    return listed(read_rows(config.source), config, num_held_out, seed)


class GeneratedProblems(DrawnProblems):
    """Problems drawn at random among the solvable ones.

    Numbers are drawn independently, with repetition, and the target uniformly among those that they can make.
    """

    def __init__(self, config: Config, num_held_out: int, seed: int) -> None:
        super().__init__(
            draw=lambda rng: problem(*draw_solvable(config, rng), config.must_use_all),
            num_held_out=num_held_out,
            seed=seed,
            widen="widen prompts.countdown's ranges",
        )


def listed(rows: Iterable[Mapping[str, Any]], config: Config, num_held_out: int, seed: int) -> ListedProblems:
    """Problems out of rows. Raises ValueError for a malformed row, and when there are too few."""
    problems = [
        problem(*parse_row(row, position, config.source), config.must_use_all) for position, row in enumerate(rows)
    ]
    return ListedProblems(problems, num_held_out, seed, config.source)


def draw_solvable(config: Config, rng: random.Random) -> tuple[list[int], int]:
    """Numbers and a target that they can make. Raises ValueError when the ranges hold no such pair."""
    for _ in range(MAX_DRAWS):
        numbers = [rng.randint(config.min_number, config.max_number) for _ in range(config.numbers_per_problem)]
        values = reachable(tuple(sorted(numbers)), config.operators, config.max_intermediate, config.must_use_all)
        targets = [value for value in sorted(values) if config.min_target <= value <= config.max_target]
        if targets:
            return numbers, rng.choice(targets)
    raise ValueError(
        f"no solvable problem in {MAX_DRAWS} draws of prompts.countdown: numbers {config.min_number} to "
        f"{config.max_number}, targets {config.min_target} to {config.max_target}, operators {config.operators!r}: "
        "widen the ranges or raise max_intermediate"
    )


@lru_cache(maxsize=100_000)
def reachable(numbers: tuple[int, ...], operators: str, max_intermediate: int, must_use_all: bool) -> frozenset[int]:
    """Every value that the sorted `numbers` make with all results within 0 and `max_intermediate`."""
    if len(numbers) == 1:
        return frozenset(numbers)
    values: set[int] = set()
    for i, j in combinations(range(len(numbers)), 2):
        rest = numbers[:i] + numbers[i + 1 : j] + numbers[j + 1 :]
        for result in combined(numbers[i], numbers[j], operators):
            if result <= max_intermediate:
                values |= reachable(tuple(sorted((*rest, result))), operators, max_intermediate, must_use_all)
    if not must_use_all:
        for i in range(len(numbers)):
            values |= reachable(numbers[:i] + numbers[i + 1 :], operators, max_intermediate, must_use_all)
    return frozenset(values)


def combined(small: int, large: int, operators: str) -> Iterator[int]:
    """Results of one operation on `small` <= `large` that are whole and not negative."""
    if "+" in operators:
        yield small + large
    if "-" in operators:
        yield large - small
    if "*" in operators:
        yield small * large
    if "/" in operators:
        if small and large % small == 0:
            yield large // small
        if large and small % large == 0:
            yield small // large


def read_rows(name: str) -> Iterable[Mapping[str, Any]]:
    """Rows of a local .jsonl or .parquet file, or of a hub data set's `train` split.

    Raises FileNotFoundError for a file that is not there, ConnectionError when the hub cannot be reached.
    """
    import datasets

    suffix = Path(name).suffix
    if suffix in {".jsonl", ".parquet"}:
        if not Path(name).is_file():
            raise FileNotFoundError(f"prompts.countdown.source = {name!r}: no such file")
        return datasets.load_dataset("json" if suffix == ".jsonl" else "parquet", data_files=name, split="train")
    try:
        return datasets.load_dataset(name, split="train")
    except Exception as error:
        raise ConnectionError(
            f"prompts.countdown.source = {name!r}: neither a .jsonl or .parquet file nor a hub data set that can be "
            f"loaded from here ({type(error).__name__}: {error}). Check the name and the network, or use "
            'source = "generated"'
        ) from error


def parse_row(row: Mapping[str, Any], position: int, name: str) -> tuple[list[int], int]:
    """Numbers and target of one row. Raises ValueError naming the row and the column."""
    for column in ("nums", "target"):
        if row.get(column) is None:
            raise ValueError(f"{name}, row {position}: no {column!r}; a Countdown row has `nums` and `target`: {row}")
    numbers, target = row["nums"], row["target"]
    is_whole = isinstance(numbers, list | tuple) and all(type(value) is int for value in (*numbers, target))
    if not is_whole or not numbers:
        raise ValueError(f"{name}, row {position}: `nums` must be a list of whole numbers and `target` one: {row}")
    return list(numbers), target
