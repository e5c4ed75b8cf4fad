from __future__ import annotations

import contextlib
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rewards.parsing.arithmetic import MAX_DEPTH, parse
from rewards.parsing.tokens import MAX_CHARACTERS, MAX_TOKENS, ExpressionError

Written = tuple[str, Fraction, int]
"""An expression's text, its value, and how tightly its last operation binds: 0 sum, 1 product, 2 atom."""


def _atom(number: int) -> Written:
    return str(number), Fraction(number), 2


def _join(left: Written, operator: str, right: Written) -> Written | None:
    level = 0 if operator in "+-" else 1
    if operator == "/" and right[1] == 0:
        return None
    value = {"+": Fraction.__add__, "-": Fraction.__sub__, "*": Fraction.__mul__, "/": Fraction.__truediv__}[operator](
        left[1], right[1]
    )
    left_text = f"({left[0]})" if left[2] < level else left[0]
    right_text = f"({right[0]})" if right[2] <= level else right[0]
    return f"{left_text}{operator}{right_text}", value, level


@st.composite
def written_expressions(draw: st.DrawFn) -> Written:
    """Write them with the fewest parentheses, so that precedence and associativity decide the value."""
    number = _atom(draw(st.integers(0, 99)))
    for _ in range(draw(st.integers(0, 6))):
        atom = _atom(draw(st.integers(0, 99)))
        operator = draw(st.sampled_from("+-*/"))
        joined = _join(number, operator, atom) if draw(st.booleans()) else _join(atom, operator, number)
        number = joined or number
    return number


@settings(deadline=None)
@given(written_expressions(), st.sampled_from(["", " ", "\n"]))
def test_value_is_that_of_an_independent_generator(written: Written, space: str) -> None:
    text, value, _ = written
    spaced = "".join(f"{space}{character}{space}" if character in "+-*/()" else character for character in text)
    assert parse(spaced).value() == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("7", 7),
        ("2 + 3 * 4", 14),
        ("20 - 5 - 3", 12),
        ("100 / 10 / 5", 2),
        ("(1 + 2) / (3 * 5)", Fraction(1, 5)),
        ("1 / 3 * 3", 1),
        ("2 × 3 ÷ 4 − 1", Fraction(1, 2)),
        (r"(58 \div 64) \times 64", 58),
        (r"2\times3", 6),
        (r"2 \cdot \left(3 · 4\right)", 24),
        ("\n ( 49 )\t", 49),
    ],
)
def test_values(text: str, value: Fraction) -> None:
    assert parse(text).value() == value


def test_numbers_keep_their_order_and_repeats() -> None:
    assert parse("7 * (3 - 7) + 12").numbers == (7, 3, 7, 12)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "   ",
        "()",
        "1 +",
        "* 2",
        "-7 + 3",
        "+7",
        "3 - -2",
        "(1 + 2",
        "1 + 2)",
        "1 2",
        "2(3)",
        "(2)(3)",
        "2 ** 3",
        "9**9**9",
        "2 // 3",
        "2 ^ 3",
        "7 % 3",
        "1.5 + 2",
        "1e3",
        "1_000",
        "0x10",
        "nan",
        "inf",
        "None",
        "__import__('os').system('true')",
        "٣ + ٤",
        "１ + ２",
        "²",
        "3\u00a0+ 4",
        "3 + 4\x00",
        r"\frac{1}{2}",
        r"\timesheet",
        "1" * 11,
        "(" * 10**6,
        "(" * 10**6 + ")" * 10**6,
        "9" * 10**6,
        "1+" * 10**6 + "1",
        "(" * (MAX_DEPTH + 1) + "1" + ")" * (MAX_DEPTH + 1),
        "+".join(["1"] * MAX_TOKENS),
    ],
    ids=lambda text: repr(text[:20]),
)
def test_refused_with_the_typed_error(text: str) -> None:
    with pytest.raises(ExpressionError):
        parse(text)


def test_deepest_and_longest_allowed_are_parsed() -> None:
    assert parse("(" * MAX_DEPTH + "1" + ")" * MAX_DEPTH).value() == 1
    count = MAX_TOKENS // 2
    assert parse("+".join(["1"] * count)).value() == count
    assert parse("5".rjust(MAX_CHARACTERS)).value() == 5


@pytest.mark.parametrize(
    ("text", "value"),
    [("6 / 3", 2), ("0 / 3", 0), ("7 * 6 / 3", 14), ("7 / 3", None), ("7 / 3 * 3", None), ("6 / (1 / 2)", None)],
)
def test_exact_division_refuses_a_quotient_that_is_not_whole(text: str, value: int | None) -> None:
    expression = parse(text)
    if value is None:
        with pytest.raises(ExpressionError, match="is not whole"):
            expression.value(exact_division=True)
    else:
        assert expression.value(exact_division=True) == value


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("1 / 0", "division by zero"),
        ("1 / (2 - 2)", "division by zero"),
        ("0 / 0", "division by zero"),
        ("*".join(["9999999999"] * 4), "larger than 1e30"),
        ("1" + "/9999999999" * 4, "larger than 1e30"),
    ],
)
def test_parses_but_has_no_value(text: str, why: str) -> None:
    expression = parse(text)
    with pytest.raises(ExpressionError, match=why):
        expression.value()


def _parse_or_refuse(text: str) -> None:
    with contextlib.suppress(ExpressionError):
        parse(text).value()


@settings(deadline=None)
@given(st.text(max_size=200))
def test_any_text_is_parsed_or_refused(text: str) -> None:
    _parse_or_refuse(text)


@settings(deadline=None)
@given(st.text(alphabet=r"0123456789+-*/()×÷−\timesdv ", max_size=600))
def test_any_text_of_the_alphabet_is_parsed_or_refused(text: str) -> None:
    _parse_or_refuse(text)


@settings(deadline=None)
@given(written_expressions(), st.data())
def test_mutated_expressions_are_parsed_or_refused(written: Written, data: st.DataObject) -> None:
    text = written[0]
    position = data.draw(st.integers(0, len(text)))
    _parse_or_refuse(text[:position] + data.draw(st.text(max_size=5)) + text[position + data.draw(st.integers(0, 2)) :])
