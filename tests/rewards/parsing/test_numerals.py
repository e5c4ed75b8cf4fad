"""Numbers as people and models write them."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rewards.parsing.numerals import begins_with_number, last_number, numbers


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("7", ["7"]),
        ("7.0", ["7"]),
        ("007", ["7"]),
        (".5", ["1/2"]),
        ("7.", ["7"]),
        ("$1,234.50", ["2469/2"]),
        (r"\$1,234.50", ["2469/2"]),
        ("Rs.72", ["72"]),
        ("72 clips, 3 boxes", ["72", "3"]),
        ("50%", ["50"]),
        (r"50\%", ["50"]),
        ("1/2", ["1/2"]),
        ("7/14", ["1/2"]),
        ("2 1/2 cups", ["5/2"]),
        (r"\frac{1}{2}", ["1/2"]),
        (r"-\dfrac12", ["-1/2"]),
        (r"2\frac{1}{2}", ["5/2"]),
        ("12{,}000", ["12000"]),
        (r"12\,000", ["12000"]),
        ("12\u202f000", ["12000"]),
        ("1'234", ["1234"]),
        ("1.5 million", ["1500000"]),
        ("2e3", ["2000"]),
        ("1e-05", ["1/100000"]),
        ("8.333333333333334", ["8333333333333334/1000000000000000"]),
        (r"72\text{ clips}", ["72"]),
        (r"\(72\)", ["72"]),
        ("$72$", ["72"]),
        ("**72**", ["72"]),
        ("72 km/h", ["72"]),
        ("$7/hour", ["7"]),
        ("12:30", ["12", "30"]),
        ("5 m^2", ["5"]),
        ("5 m²", ["5"]),
        ("x2, H2O, v1.2", []),
        ("seventy-two", []),
        ("٧٢", []),
        (r"5 \times 3", ["5", "3"]),
    ],
)
def test_spellings(text: str, values: list[str]) -> None:
    assert numbers(text) == [Fraction(value) for value in values]


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("-5", [-5]),
        ("− 5", [-5]),
        ("-$5", [-5]),
        ("$-5", [-5]),
        ("negative 5", [-5]),
        ("minus 5", [-5]),
        ("it is -5", [-5]),
        ("= -5", [-5]),
        ("= - 5", [-5]),
        ("(-5)", [-5]),
        ("**-5**", [-5]),
        ("10 - 5", [10, 5]),
        ("10-5", [10, 5]),
        ("10 -5", [10, 5]),
        ("pages 10–15", [10, 15]),
        ("$10-$5", [10, 5]),
        ("(3)-5", [3, 5]),
        ("40 * -5", [40, -5]),
    ],
)
def test_a_minus_is_a_sign_only_where_it_is_no_operator(text: str, values: list[int]) -> None:
    assert numbers(text) == values


@pytest.mark.parametrize(
    "text",
    ["1,2,3", "1,23", "1,2345", "1.2.3", "5/0", "10^2", "10**2", "10²", "7٢", "3/4/2024", "9" * 41, "1..5", "10^{2}"],
)
def test_what_cannot_be_read_is_no_other_number(text: str) -> None:
    assert numbers(text) == [None]
    assert last_number(f"first 7, then {text}") is None


@pytest.mark.parametrize(
    ("text", "begins"),
    [("72", True), ("$72", True), (r"\(-72", True), ("**72**", True), ("x = 72", False), ("", False)],
)
def test_begins_with_number(text: str, begins: bool) -> None:
    assert begins_with_number(text) is begins


@given(
    st.integers(-(10**15), 10**15), st.sampled_from(["{}", "{:,}", "${:,}", "{}.00", "so {} apples", r"\boxed{{{}}}"])
)
def test_every_integer_in_every_style(value: int, style: str) -> None:
    assert numbers(style.format(value)) == [value]


@given(st.decimals(min_value=-(10**9), max_value=10**9, allow_nan=False, places=4))
def test_every_decimal_exactly(value: object) -> None:
    assert numbers(f"= {value}") == [Fraction(str(value))]


@settings(deadline=None)
@given(st.text(alphabet="0123456789.,/-+eE^*$ _'’%\\{}()xm²٧frac\n"))
def test_any_text_has_numbers_or_none(text: str) -> None:
    found = numbers(text)
    assert last_number(text) == (found[-1] if found else None)


@pytest.mark.parametrize(
    "text", ["1" * 300_000, "1," * 150_000, "1 1/" * 80_000, "- " * 150_000, "\\frac{" * 50_000, "a_" * 150_000]
)
@pytest.mark.timeout(60)
def test_hostile_repetitions_do_not_hang(text: str) -> None:
    """A quadratic scan of 300,000 characters would take many minutes."""
    assert last_number(text) in (None, 1)
