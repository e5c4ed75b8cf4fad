"""Which formulas sympy may see."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewards.parsing.formulas import FormulaError, check_formula


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
        ("", "not a formula"),
        ("y + 1", "y is not arithmetic"),
        ("x.real", "is not arithmetic"),
        ("__import__('os')", "character"),
        ("open('f')", "is not arithmetic"),
        ("(lambda: 1)()", "is not arithmetic"),
        ("sin(x, x)", "is not arithmetic"),
        ("sin(x=x)", "is not arithmetic"),
        ("sin(*x)", "is not arithmetic"),
        ("[x]", "is not arithmetic"),
        ("'x'", "is not arithmetic"),
        ("True", "is not arithmetic"),
        ("1j", "is not arithmetic"),
        ("x if x else x", "is not arithmetic"),
        ("x // 2", "is not arithmetic"),
        ("x; x", "not a formula"),
        ("x\nimport os", "character"),
        ("x**21", "exponent"),
        ("2**x", "exponent"),
        ("x**(9*9)", "exponent"),
        ("(x**9)**9", "power of a power"),
        ("(1 + x**9)**9", "power of a power"),
        ("10000000000", "is not arithmetic"),
        ("x + " * 200 + "x", "801 characters"),
        ("(" * 300, "not a formula"),
        ("9" * 400, "is not arithmetic"),
    ],
)
def test_anything_else_is_refused_with_the_reason(text, reason) -> None:
    with pytest.raises(FormulaError, match=reason):
        check_formula(text, {"x", "C"})


def test_without_variables_only_the_four_operations_are_left() -> None:
    check_formula("-1 + 72*(89 - 77)/1", set())
    for text in ("2**3", "sin(1)", "pi", "x", "9.5 + 1", "1e3", "True"):
        with pytest.raises(FormulaError):
            check_formula(text, set())


@given(st.text(alphabet="x1+-*/().,=[]{}'\\ \x00#:@~^%eé", max_size=60))
def test_no_text_raises_anything_else(text) -> None:
    try:
        check_formula(text, {"x"})
    except FormulaError:
        return
    assert set(text) <= set("x1+-*/(). e")
