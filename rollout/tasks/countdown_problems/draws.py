"""Draw numbers, and a target that they can make, at random."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import combinations

from rollout.tasks.base import MAX_DRAWS
from rollout.tasks.countdown_problems.settings import CountdownConfig
from rollout.tasks.countdown_problems.solver import count_solutions


def draw_solvable(config: CountdownConfig, rng: random.Random, *, for_held_out: bool = False) -> tuple[list[int], int]:
    """Draw numbers, and one of the targets that they can make, each equally likely.

    Args:
        for_held_out: with `even_held_out`, draw even numbers only (true), or never even numbers only (false).

    Raises:
        ValueError: MAX_DRAWS draws held no such problem.
    """
    for _ in range(MAX_DRAWS):
        numbers = draw_numbers(config, rng)
        if config.even_held_out and are_even(numbers) != for_held_out:
            continue
        values = reachable(tuple(sorted(numbers)), config.operators, config.max_intermediate, config.must_use_all)
        targets = [value for value in sorted(values) if config.min_target <= value <= config.max_target]
        if not targets:
            continue
        target = rng.choice(targets)
        if has_right_number_of_solutions(config, numbers, target):
            return numbers, target
    raise ValueError(
        f"no solvable problem in {MAX_DRAWS} draws of prompts.countdown: numbers {config.number_range}, targets "
        f"{config.min_target} to {config.max_target}, operators {config.operators!r}, min_solutions "
        f"{config.min_solutions}, max_solutions {config.max_solutions}: widen the ranges or raise max_intermediate"
    )


def draw_numbers(config: CountdownConfig, rng: random.Random) -> list[int]:
    """Draw as many numbers as a problem has, each of the choices equally likely."""
    count = config.numbers_per_problem
    if config.min_numbers_per_problem is not None:
        count = rng.randint(config.min_numbers_per_problem, count)
    choices = config.number_range
    return [rng.choice(choices) for _ in range(count)] if config.repeat_numbers else rng.sample(choices, count)


def are_even(numbers: Sequence[int]) -> bool:
    return all(number % 2 == 0 for number in numbers)


def has_right_number_of_solutions(config: CountdownConfig, numbers: Sequence[int], target: int) -> bool:
    fewest, most = config.min_solutions, config.max_solutions
    if fewest == 1 and most is None:
        return True  # it is solvable
    rules = (config.operators, config.must_use_all, config.exact_division)
    found = counted(tuple(sorted(numbers)), target, *rules, limit=fewest if most is None else most + 1)
    return fewest <= found and (most is None or found <= most)


# Small numbers make few different problems, and most draws are refused where many solutions are asked for.
counted = lru_cache(maxsize=10_000)(count_solutions)


# Not more: of five or six numbers an entry is tens of kilobytes, and hardly any is asked for again.
@lru_cache(maxsize=10_000)
def reachable(numbers: tuple[int, ...], operators: str, max_intermediate: int, must_use_all: bool) -> frozenset[int]:
    """Return every value that the sorted `numbers` make with all results whole and within 0 and `max_intermediate`."""
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
    """Yield the results of one operation on `small` <= `large` that are whole and not negative."""
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
