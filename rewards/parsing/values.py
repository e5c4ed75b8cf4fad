"""Decide whether two numbers or formulas are equal by their values at a few points, never by transforming them.

Formulas that agree at these points are equal, except with a probability far below that of a wrong reference (Schwartz,
"Fast probabilistic algorithms for verification of polynomial identities", 1980). No expansion can take long.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import sympy

NUM_POINTS = 4
DIGITS = 20
"""Number of digits in which two formulas must agree at a point. For decimals, which are rounded, see ROUNDING."""
ROUNDING = sympy.Float("5e-7")
"""A decimal equals a value that rounds to the same six decimal places (0.333333 is 1/3) and agrees in five digits."""


def same_values(expected: sympy.Expr, given: sympy.Expr) -> bool:
    """Return whether two expressions agree at every point at which both have a value, and whether such points exist."""
    is_rounded = expected.has(sympy.Float) or given.has(sympy.Float)
    if not (expected.free_symbols or given.free_symbols):
        values = _value(expected, {}), _value(given, {})
        return None not in values and agree(values[0], values[1], is_rounded)
    num_values = 0
    for a, b in values_at_points(expected, given):
        if not agree(a, b, is_rounded=False, digits=12 if is_rounded else DIGITS - 4):
            return False
        num_values += 1
    return num_values >= NUM_POINTS // 2


def values_at_points(*expressions: sympy.Expr) -> Iterator[tuple[Any, ...]]:
    """Yield the values of the expressions at common points; only real values unless one contains the imaginary unit."""
    names = sorted({str(symbol) for expression in expressions for symbol in expression.free_symbols})
    is_complex = any(expression.has(sympy.I) for expression in expressions) or "i" in names
    for number in range(NUM_POINTS):
        generator = random.Random(number)
        values = {name: sympy.Rational(generator.randint(100, 3000), 997) for name in names}
        if number % 2:
            values = {name: value * generator.choice((1, -1, -1)) for name, value in values.items()}
        values["i"] = sympy.I
        at_point = [_value(expression, values) for expression in expressions]
        if None not in at_point and (is_complex or all(value.is_real for value in at_point)):
            yield tuple(at_point)


def _value(expression: sympy.Expr, values: dict[str, Any]) -> Any:
    """Return the value of an expression at a point; None if it is not a number there."""
    point = {symbol: values[str(symbol)] for symbol in expression.free_symbols}
    try:
        value = sympy.N(expression, DIGITS + 10, subs=point, maxn=200, chop=False)
    except Exception:  # noqa: BLE001  division by zero, overflow, or any other error of SymPy
        return None
    if value in (sympy.oo, -sympy.oo):
        return value
    return value if value.is_number and value.is_finite and not value.free_symbols else None


def agree(a: Any, b: Any, is_rounded: bool, digits: int = DIGITS) -> bool:
    if a == b:
        return True
    if not (a.is_finite and b.is_finite):
        return False
    difference, size = abs(a - b), max(abs(a), abs(b))
    if getattr(size, "_prec", 2) == 1:  # both are zero within the precision
        return True
    if is_rounded:
        return bool(difference <= ROUNDING and difference <= size * sympy.Float("1e-5"))
    return bool(difference <= size * sympy.Float(10) ** -digits)
