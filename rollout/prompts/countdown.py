"""Countdown problems: make the target out of the numbers. Generated, from a file, or from the hub."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import combinations
from pathlib import Path
from typing import Any

from rollout.config import CountdownConfig
from rollout.prompts.problems import MAX_DRAWS, DrawnProblems, Problem, ProblemSource

Key = tuple[tuple[int, ...], int]
"""What makes two problems the same: the sorted numbers and the target."""


def problem(numbers: Sequence[int], target: int, must_use_all: bool) -> Problem:
    """The problem of these numbers, in this order."""
    return Problem(
        fields={
            "numbers": "[" + ", ".join(map(str, numbers)) + "]",
            "numbers_spaced": " ".join(map(str, numbers)),
            "target": str(target),
        },
        answer={"numbers": list(numbers), "target": target, "must_use_all": must_use_all},
    )


def source(config: CountdownConfig, num_held_out: int, seed: int) -> ProblemSource:
    """The problems that `config` describes. Raises ValueError when there are too few or a row is malformed."""
    if config.source == "generated":
        return GeneratedProblems(config, num_held_out, seed)
    return ListedProblems(read_rows(config.source), config, num_held_out, seed)


class GeneratedProblems(DrawnProblems):
    """Problems drawn at random among the solvable ones.

    Numbers are drawn independently, with repetition, and the target uniformly among those that they can make.
    """

    def __init__(self, config: CountdownConfig, num_held_out: int, seed: int) -> None:
        super().__init__(
            draw=lambda rng: problem(*draw_solvable(config, rng), config.must_use_all),
            key=lambda drawn: key(drawn.answer["numbers"], drawn.answer["target"]),
            num_held_out=num_held_out,
            seed=seed,
            widen="widen prompts.countdown's ranges",
        )


class ListedProblems:
    """Problems out of rows: shuffled anew each epoch, all those like a held-out one left out."""

    def __init__(
        self, rows: Iterable[Mapping[str, Any]], config: CountdownConfig, num_held_out: int, seed: int
    ) -> None:
        pairs = [parse_row(row, position, config.source) for position, row in enumerate(rows)]
        order = random.Random(f"held_out/{seed}").sample(range(len(pairs)), len(pairs))
        held_out: dict[Key, int] = {}
        for position in order:
            if len(held_out) == num_held_out:
                break
            held_out.setdefault(key(*pairs[position]), position)
        self.held_out = [problem(*pairs[position], config.must_use_all) for position in held_out.values()]
        self._train = [
            problem(numbers, target, config.must_use_all)
            for numbers, target in pairs
            if key(numbers, target) not in held_out
        ]
        if len(held_out) < num_held_out or not self._train:
            raise ValueError(
                f"{config.source} has {len(pairs)} rows, too few for prompts.num_held_out = {num_held_out} and at "
                "least one to train on: lower it"
            )
        self._shuffled = lru_cache(maxsize=1)(
            lambda epoch: random.Random(f"train/{seed}/{epoch}").sample(self._train, len(self._train))
        )

    def train(self, index: int) -> Problem:
        epoch, position = divmod(index, len(self._train))
        return self._shuffled(epoch)[position]


def draw_solvable(config: CountdownConfig, rng: random.Random) -> tuple[list[int], int]:
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


def key(numbers: Sequence[int], target: int) -> Key:
    return tuple(sorted(numbers)), target


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
