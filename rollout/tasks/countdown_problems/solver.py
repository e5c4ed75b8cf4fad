"""Find every way to make a target out of numbers. It tells how hard a problem is, and checks how answers are graded.

Two expressions are the same solution when they are the same function of the numbers, equal numbers being
interchangeable: when one becomes the other by reordering and regrouping sums and products, signs included. `9 + 3 - 7`,
`3 - (7 - 9)` and `9 - 7 + 3` are one solution, `(9 - 3) * (7 - 5)` and `(3 - 9) * (5 - 7)` another; `9 * 1` and `9 / 1`
are two. The sign of a zero result does not count: `9 - 3 * 3` is `3 * 3 - 9`. So two different numbers have 5
expressions by + - * /, three 47, four 733 and five 15,907, if no zero comes up.

Each solution is written once, regrouped so that no intermediate result is negative and factors come before divisors. So
`a - (b - c)` is written with a `+` even where only `-` was allowed.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from functools import lru_cache
from itertools import combinations, islice
from typing import NamedTuple

Value = int | Fraction
"""Exact; an int wherever it is whole, which is several times faster than a Fraction."""


class Form(NamedTuple):
    """A sum or a product of parts, in no order."""

    value: Value
    """Of a sum: 0 or more. One below 0 is turned around, and its sign left to what it is a part of."""
    plain: tuple[str, ...]
    """Terms that are added, or factors; sorted."""
    inverse: tuple[str, ...] = ()
    """Terms that are subtracted, or divisors; sorted."""
    odd: tuple[str, ...] = ()
    """Terms or factors that are their own negative, such as `5 - 5`: their sign says nothing. Sorted."""

    def joined(self, other: Form, value: Value) -> Form:
        """Return a form with the parts of both."""
        return Form(
            value,
            tuple(sorted(self.plain + other.plain)),
            tuple(sorted(self.inverse + other.inverse)),
            tuple(sorted(self.odd + other.odd)),
        )

    def inverted(self) -> Form:
        """Exchange added and subtracted terms, or factors and divisors. The value stays: callers replace it."""
        return Form(self.value, self.inverse, self.plain, self.odd)

    def text(self, plain: str, inverse: str) -> str:
        """Return the form as text, written with these operators."""
        return f" {plain} ".join(self.plain + self.odd) + "".join(f" {inverse} {part}" for part in self.inverse)


Forms = dict[Value, set[Form]]
"""By value."""


def solutions(
    numbers: Sequence[int],
    target: int,
    operators: str = "+-*/",
    must_use_all: bool = True,
    exact_division: bool = False,
) -> Iterator[str]:
    """Yield the different expressions of `numbers` with the value `target`, such as `(9 - 3) * 7`; easy ones first.

    Four numbers take milliseconds and five tenths of a second. Six take seconds and 200 MB until the search ends, but
    those with many solutions give the first hundreds at once: take as many as you need, with `itertools.islice`.

    Args:
        numbers: positive, at most six.
        must_use_all: whether every number must be used.
        exact_division: whether every quotient must be whole.
    """
    if not 1 <= len(numbers) <= 6 or min(numbers) < 1:
        raise ValueError(f"numbers = {list(numbers)}: give one to six of 1 or more")
    search = _Search(operators, exact_division)
    whole = tuple(sorted(numbers))
    fewest = len(whole) if must_use_all else 1
    for count in range(fewest, len(whole) + 1):
        for chosen in dict.fromkeys(combinations(whole, count)):
            yield from search.hits(chosen, target)


def count_solutions(
    numbers: Sequence[int],
    target: int,
    operators: str = "+-*/",
    must_use_all: bool = True,
    exact_division: bool = False,
    *,
    limit: int,
) -> int:
    """Return the number of different solutions; counting stops at `limit`."""
    found = solutions(numbers, target, operators, must_use_all, exact_division)
    return sum(1 for _ in islice(found, limit))


class _Search:
    """Forms of parts of the numbers, kept for the whole search. Numbers are sorted tuples throughout."""

    def __init__(self, operators: str, exact_division: bool) -> None:
        self._operators = operators
        self._exact_division = exact_division
        self._sums = lru_cache(maxsize=None)(self._all_sums)
        self._products = lru_cache(maxsize=None)(self._all_products)
        self._terms = lru_cache(maxsize=None)(self._all_terms)
        self._factors = lru_cache(maxsize=None)(self._all_factors)
        self._summands = lru_cache(maxsize=None)(self._all_summands)
        self._multiplicands = lru_cache(maxsize=None)(self._all_multiplicands)

    def hits(self, numbers: tuple[int, ...], target: int) -> Iterator[str]:
        """Yield the expressions of all the numbers that have the value `target`."""
        if len(numbers) == 1:
            yield from [str(target)] * (numbers[0] == target)
            return
        found: set[str] = set()
        # What halves make is quickly known, so that a caller who needs only a few solutions gets them at once.
        for left, right in sorted(splits(numbers), key=lambda parts: max(map(len, parts))):
            for text in (*self._sums_of(left, right, target), *self._products_of(left, right, target)):
                if text not in found:
                    found.add(text)
                    yield text

    def _sums_of(self, left: tuple[int, ...], right: tuple[int, ...], target: int) -> Iterator[str]:
        rest = self._summands(right)
        for a in flat(self._terms(left)):
            for wanted in {target - a.value, a.value - target, a.value + target}:
                for b in rest.get(wanted, ()):
                    yield from (form.text("+", "-") for form in self._added(a, b) if form.value == target)

    def _products_of(self, left: tuple[int, ...], right: tuple[int, ...], target: int) -> Iterator[str]:
        rest = self._multiplicands(right)
        for a in flat(self._factors(left)):
            # All that is multiplied with 0 gives 0; else only three values of the rest can give the target.
            wanted = {a.value * target} | ({ratio(target, a.value), ratio(a.value, target or 1)} if a.value else set())
            for b in flat(rest) if target == 0 else (b for value in wanted for b in rest.get(value, ())):
                yield from (form.text("*", "/") for form in self._multiplied(a, b) if form.value == target)

    def _all_sums(self, numbers: tuple[int, ...]) -> Forms:
        return grouped(
            form
            for left, right in splits(numbers)
            for a in flat(self._terms(left))
            for b in flat(self._summands(right))
            for form in self._added(a, b)
        )

    def _all_products(self, numbers: tuple[int, ...]) -> Forms:
        return grouped(
            form
            for left, right in splits(numbers)
            for a in flat(self._factors(left))
            for b in flat(self._multiplicands(right))
            for form in self._multiplied(a, b)
        )

    def _all_terms(self, numbers: tuple[int, ...]) -> Forms:
        """Return what can stand in a sum as one part: a number or a product."""
        if len(numbers) == 1:
            return number(numbers[0])
        products = flat(self._products(numbers))
        if self._exact_division:
            products = (form for form in products if isinstance(form.value, int))
        return grouped(part(form.value, form.text("*", "/"), is_odd=bool(form.odd)) for form in products)

    def _all_factors(self, numbers: tuple[int, ...]) -> Forms:
        """Return what can stand in a product as one part: a number or a sum."""
        if len(numbers) == 1:
            return number(numbers[0])
        sums = flat(self._sums(numbers))
        return grouped(part(form.value, f"({form.text('+', '-')})", is_odd=form.plain == form.inverse) for form in sums)

    def _all_summands(self, numbers: tuple[int, ...]) -> Forms:
        """Return what a term can be joined with to make a sum: another term, or a sum of several."""
        return self._terms(numbers) if len(numbers) == 1 else merged(self._terms(numbers), self._sums(numbers))

    def _all_multiplicands(self, numbers: tuple[int, ...]) -> Forms:
        return self._factors(numbers) if len(numbers) == 1 else merged(self._factors(numbers), self._products(numbers))

    def _added(self, a: Form, b: Form) -> Iterator[Form]:
        if "+" in self._operators or b.inverse:
            yield a.joined(b, simplest(a.value + b.value))
        if "-" in self._operators:
            difference = a.value - b.value
            form = a.joined(b.inverted(), simplest(max(difference, -difference)))
            if difference == 0:
                yield max(form, form.inverted())
            else:
                yield form if difference > 0 else form.inverted()

    def _multiplied(self, a: Form, b: Form) -> Iterator[Form]:
        if "*" in self._operators or b.inverse:
            yield a.joined(b, simplest(a.value * b.value))
        if "/" in self._operators:
            if b.value:
                yield a.joined(b.inverted(), ratio(a.value, b.value))
            if a.value:
                yield b.joined(a.inverted(), ratio(b.value, a.value))


def splits(numbers: tuple[int, ...]) -> Iterator[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Yield every way to divide the numbers in two. The first number stays on the left, or each would come twice."""
    seen = set()
    rest = numbers[1:]
    for count in range(len(rest)):
        for places in combinations(range(len(rest)), count):
            left = (numbers[0], *(rest[place] for place in places))
            if left not in seen:  # some numbers are equal
                seen.add(left)
                yield left, tuple(value for place, value in enumerate(rest) if place not in places)


def number(value: int) -> Forms:
    return {value: {part(value, str(value), is_odd=False)}}


def part(value: Value, text: str, *, is_odd: bool) -> Form:
    """Return a form of one part."""
    return Form(value, (), (), (text,)) if is_odd else Form(value, (text,))


def grouped(forms: Iterable[Form]) -> Forms:
    result: Forms = defaultdict(set)
    for form in forms:
        result[form.value].add(form)
    return dict(result)


def merged(first: Forms, second: Forms) -> Forms:
    return {value: first.get(value, set()) | second.get(value, set()) for value in first.keys() | second.keys()}


def flat(forms: Forms) -> Iterator[Form]:
    return (form for same in forms.values() for form in same)


def ratio(a: Value, b: Value) -> Value:
    return a // b if isinstance(a, int) and isinstance(b, int) and a % b == 0 else simplest(Fraction(a) / Fraction(b))


def simplest(value: Value) -> Value:
    return int(value) if value.denominator == 1 else value
