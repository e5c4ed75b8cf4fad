"""Arithmetic found in prose."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rewards.parsing.equations import MAX_TAIL_CHARACTERS, equations


def sides(text: str) -> list[list[tuple[int, ...]]]:
    """Return the numbers of each side of each equation, in the text's order."""
    return [[side.numbers for side in equation] for equation in equations(text)][::-1]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("5 + 3", [[(5, 3)]]),
        ("as 5 + 3 = 8, and 8 * 2 = 16.", [[(5, 3), (8,)], [(8, 2), (16,)]]),
        ("8 = 5 + 3", [[(8,), (5, 3)]]),
        ("y = 5 + 3", [[(5, 3)]]),
        ("5 + 3 = 2 * 4 = 8", [[(5, 3), (2, 4), (8,)]]),
        ("5 + 3 = about 8", [[(5, 3)]]),
        ("5 + 3 = 8.5", [[(5, 3)]]),
        ("- 5 + 3\n* 5 - 3\n+ 5 * 3\n• 5 / 3\n2) 5 + 4\n3. 5 + 5", [[(5, n)] for n in (3, 3, 3, 3, 4, 5)]),
        ("**5 + 3 = 8** so **5 - 3**", [[(5, 3), (8,)], [(5, 3)]]),
        ("**5 + 3**, `5 - 3`, $5 * 3$, \\(5 / 3\\), \\[5 + 4\\]", [[(5, n)] for n in (3, 3, 3, 3, 4)]),
        ("\\boxed{5 \\times 3} \\left(5 + 3\\right) \\cdot 2", [[(5, 3)], [(5, 3, 2)]]),
        ("5 + 3 (or 8) and (a remark) 5 - 3", [[(5, 3)], [(5, 3)]]),
        ("(as 5 + 3) and ((5 + 3) * 2 works)", [[(5, 3)], [(5, 3, 2)]]),
        ("in14 + 3 and 14 + 3works", [[(14, 3)], [(14, 3)]]),
        ("是5+3", [[(5, 3)]]),
        ("<<48/2=24>>24", [[(48, 2), (24,)]]),
        ("$3 + $9 = $12", [[(3, 9), (12,)]]),
    ],
)
def test_found(text: str, found: list[list[tuple[int, ...]]]) -> None:
    assert sides(text) == found


@pytest.mark.parametrize(
    "text",
    [
        *("", "no arithmetic", "8", "8 = 8", "3, 7, 9", "+ - *", "= = ="),
        *("1.5 + 3", "5 + 3.25", "1,000 + 5", "5 + 1,000", ".5 + 3"),
        *("x^5 + 3", "5 + 3y", "2x + 3", "a5 + 3", "f(5 + 3)", "5 + 3^2", "2^{5 + 3}", "5 + 3²", "log5 + 3"),
        *("2 x 5 + 3", "5 + 3 x 2", "-5 + 3 = -2", "a - 5 + 3", "5 + 3%", r"5 + 3 \sqrt{2}", r"\frac{1}{2}5 + 3"),
        *("5 + 3 +", "5 +\n3", "5 - - 3", "2(5 + 3)", "5 3", "5 +** 3", "5 ** 3 + 1", "x**5 + 3"),
    ],
)
def test_not_taken_for_arithmetic(text: str) -> None:
    assert sides(text) == []


def test_only_the_end_of_a_long_text_is_searched() -> None:
    assert sides("5 + 3 " + "." * MAX_TAIL_CHARACTERS) == []
    assert sides("1" + "5 + 3".ljust(MAX_TAIL_CHARACTERS)) == []  # the 5 may be the end of 15
    assert sides("1" + " 5 + 3".ljust(MAX_TAIL_CHARACTERS)) == [[(5, 3)]]


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    "piece", ["1+1 ", "(", ")", "1=", "((1", "- ", "x", "1,", "**", "\n- ", "\\(", "=1+1 "], ids=repr
)
def test_a_hostile_repetition_ends(piece: str) -> None:
    """A rescan for each piece would be hours."""
    assert len(sides(piece * (1_000_000 // len(piece)))) <= MAX_TAIL_CHARACTERS


@settings(deadline=None)
@given(st.text(alphabet=r"0123456789+-*/()=.,x$\ab {}^" + "\n", max_size=80))
def test_any_text(text: str) -> None:
    for equation in sides(text):
        assert any(len(numbers) > 1 for numbers in equation)
