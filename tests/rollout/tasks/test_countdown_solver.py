"""Every solution, each once: against a brute force that knows nothing of sums and products, and against the grader."""

import random
from fractions import Fraction
from itertools import islice, permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewards.tasks.countdown import check
from rollout.tasks.countdown_problems.draws import reachable
from rollout.tasks.countdown_problems.solver import count_solutions, solutions

PRIME = 2**61 - 1


def expressions(items, operators, exact):
    """All binary trees over all orders: values, and the function of the numbers at a random point modulo a prime."""
    if len(items) == 1:
        yield items[0]
        return
    for i, j in permutations(range(len(items)), 2):
        rest = [item for place, item in enumerate(items) if place not in (i, j)]
        (a, f), (b, g) = items[i], items[j]
        for operator in operators:
            if operator == "/" and (b == 0 or (exact and (a / b).denominator != 1)):
                continue
            value = {"+": a + b, "-": a - b, "*": a * b}[operator] if operator != "/" else a / b
            yield from expressions([*rest, (value, combine(f, g, operator))], operators, exact)


def combine(f, g, operator):
    apply = {
        "+": lambda x, y: x + y,
        "-": lambda x, y: x - y,
        "*": lambda x, y: x * y,
        "/": lambda x, y: x * pow(y, -1, PRIME),
    }[operator]
    return tuple(apply(x, y) % PRIME for x, y in zip(f, g, strict=True))


def number_of_functions(numbers, target, operators="+-*/", exact=False) -> int:
    """Different functions of the numbers with the value; equal numbers may change places, and a zero its sign."""
    rng = random.Random(5)
    symbols = [rng.randrange(2, PRIME) for _ in numbers]
    places = range(len(numbers))
    renamings = [p for p in permutations(places) if all(numbers[i] == numbers[p[i]] for i in places)]
    items = [(Fraction(numbers[i]), tuple(symbols[p[i]] for p in renamings)) for i in places]
    found = set()
    for value, function in expressions(items, operators, exact):
        if value == target:
            found.add(frozenset([*function, *(-x % PRIME for x in function)] if target == 0 else function))
    return len(found)


@given(
    st.lists(st.integers(1, 6), min_size=1, max_size=3),
    st.integers(0, 14),
    st.sampled_from(["+-*/", "+-*", "+-", "+*", "+", "*/"]),
    st.booleans(),
)
def test_as_many_as_there_are_different_functions_of_the_numbers(numbers, target, operators, exact) -> None:
    found = list(solutions(numbers, target, operators, exact_division=exact))
    assert len(set(found)) == len(found) == number_of_functions(numbers, target, operators, exact)


@pytest.mark.parametrize(
    ("numbers", "target"), [([9, 1, 2, 7], 4), ([2, 2, 3, 8], 6), ([6, 5, 1, 2], 20), ([5, 5, 3, 7], 7)]
)
@pytest.mark.parametrize("exact", [True, False])
def test_four_numbers_too(numbers, target, exact) -> None:
    assert len(list(solutions(numbers, target, exact_division=exact))) == number_of_functions(
        numbers, target, exact=exact
    )


@pytest.mark.parametrize("operators", ["-", "*/", "/", "+*", "-/"])
@pytest.mark.parametrize("target", [1, 2, 3, 6, 11])
def test_operators_that_are_not_allowed_are_not_used(operators, target) -> None:
    for numbers in ([1, 2], [1, 2, 6], [2, 3, 12], [3, 4, 12]):
        found = list(solutions(numbers, target, operators))
        assert len(found) == number_of_functions(numbers, target, operators), numbers


@given(st.lists(st.integers(1, 12), min_size=2, max_size=4), st.integers(0, 60), st.booleans(), st.booleans())
def test_the_marking_finds_every_solution_right(numbers, target, must_use_all, exact) -> None:
    for expression in solutions(numbers, target, "+-*/", must_use_all, exact):
        verdict = check(expression, numbers, target, must_use_all, exact)
        assert verdict.is_correct, (expression, verdict.reason)


def test_all_that_is_reachable_has_a_solution_and_nothing_else() -> None:
    rng = random.Random(2)
    for _ in range(5):
        numbers = sorted(rng.randint(1, 9) for _ in range(3))
        within = {value for value in reachable(tuple(numbers), "+-*/", 1000, True) if value < 120}
        assert within == {t for t in range(120) if next(solutions(numbers, t, exact_division=True), None)}


def test_solutions_read_as_people_write_them() -> None:
    assert list(solutions([9, 3, 7], 42, "+-*")) == ["(9 - 3) * 7"]
    assert set(solutions([2, 3, 4], 6)) == {"(4 - 2) * 3", "3 * 4 / 2"}
    assert set(solutions([3, 7, 9], 7, "+", must_use_all=False)) == {"7"}
    assert list(solutions([3, 3, 8, 8], 24)) == ["8 / (3 - 8 / 3)"]
    assert list(solutions([3, 3, 8, 8], 24, exact_division=True)) == []


def test_counting_stops_at_the_limit_so_that_six_numbers_are_no_wait() -> None:
    numbers = [2, 3, 4, 5, 6, 7]
    assert count_solutions(numbers, 30, limit=200) == 200
    some = list(islice(solutions(numbers, 30), 50))
    assert len(set(some)) == 50 and all(check(expression, numbers, 30).is_correct for expression in some)


@pytest.mark.parametrize("numbers", [[], [1, 0], [1] * 7])
def test_numbers_that_it_cannot_search_are_refused(numbers) -> None:
    with pytest.raises(ValueError, match="one to six of 1 or more"):
        next(solutions(numbers, 5))
