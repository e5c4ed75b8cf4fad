"""Which formulas sympy may see."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewards.parsing.formulas import check_formula
from rewards.parsing.tokens import ExpressionError


@pytest.mark.parametrize(
    "text",
    [
        "x**3/3 + C",
        "-2*x",
        "+1.5",
        "sin(2*x)*exp(x) - log(x)/2",
        "x**(3/2)",
        "x**(-1/2)",
        "x**-2",
        "sqrt(x + pi)",
        " x ",
    ],
)
def test_formulas_are_admitted(text) -> None:
    check_formula(text, {"x", "C"})


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "empty"),
        ("y + 1", "y is not arithmetic"),
        ("x.real", r"unexpected '\.'"),
        ("__import__('os')", "character"),
        ("open('f')", "is not arithmetic"),
        ("(lambda: 1)()", "lambda is not arithmetic"),
        ("sin(x, x)", "unexpected ','"),
        ("sin(x=x)", "unexpected '='"),
        ("sin(*x)", r"'\*' where a number should be"),
        ("[x]", r"unexpected '\['"),
        ("'x'", "unexpected"),
        ("True", "is not arithmetic"),
        ("1j", "is not arithmetic"),
        ("x if x else x", "is not arithmetic"),
        ("x // 2", "'/' where a number should be"),
        ("x; x", "unexpected ';'"),
        ("x\nimport os", "character"),
        ("x**21", "exponent"),
        ("2**x", "exponent"),
        ("x**(9*9)", "exponent"),
        ("(x**9)**9", "power of a power"),
        ("(1 + x**9)**9", "power of a power"),
        ("10000000000", "11 digits"),
        ("1000000001", "above 1000000000"),
        ("1e400", "above 1000000000"),
        ("x**" * 40 + "2", "nested deeper"),
        ("-" * 40 + "x", "nested deeper"),
        ("x**2**3", "exponent"),
        ("x**2.5", "exponent"),
        ("012", "unexpected '0'"),
        ("3x", "after a complete expression"),
        ("sin", "where a number should be"),
        ("x + " * 200 + "x", "801 characters"),
        ("(" * 300, "nested deeper"),
        ("9" * 400, "400 digits"),
    ],
)
def test_anything_else_is_refused_with_the_reason(text, reason) -> None:
    with pytest.raises(ExpressionError, match=reason):
        check_formula(text, {"x", "C"})


def test_without_variables_only_the_four_operations_are_left() -> None:
    check_formula("-1 + 72*(89 - 77)/1", set())
    for text in ("2**3", "sin(1)", "pi", "x", "9.5 + 1", "1e3", "True"):
        with pytest.raises(ExpressionError):
            check_formula(text, set())


@given(st.text(alphabet="x1+-*/().,=[]{}'\\ \x00#:@~^%eé", max_size=60))
def test_no_text_raises_anything_else(text) -> None:
    try:
        check_formula(text, {"x"})
    except ExpressionError:
        return
    assert set(text) <= set("x1+-*/(). e")
