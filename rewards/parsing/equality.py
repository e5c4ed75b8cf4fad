r"""Parse rewritten LaTeX like math-verify, and decide in bounded time whether two expressions are equal.

latex2sympy, the parser of math-verify, parses the complete text or nothing, and evaluates nothing. Numbers and formulas
are compared by their values (values.py). Lists, tuples, intervals, unions, matrices and relations are compared part by
part. Other pairs, such as a set and an inequality, are left to math-verify if they are small.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import math_verify
import sympy
from latex2sympy2_extended.latex2sympy2 import ConversionConfig, latex2sympy
from latex2sympy2_extended.logic import And
from latex2sympy2_extended.math_normalization import NormalizationConfig, normalize_latex
from math_verify.grader import is_assignment_relation, is_relation, take_first_relation, take_last_relation
from sympy.core.relational import Relational

from rewards.parsing.values import NUM_POINTS, agree, same_values, values_at_points

# Hide its warning that it has no time limit: the worker's deadline limits the time.
logging.getLogger("math_verify").setLevel(logging.ERROR)

MAX_SMALL = 40
"""Most operations in an expression that is left to math-verify, which solves and simplifies."""
MAX_ELEMENTS = 40

_NORMALIZATION = NormalizationConfig(
    basic_latex=True, units=False, malformed_operators=True, nits=True, boxed="none", equations=False
)
_UNREADABLE = re.compile(
    r"\\(?:dots|max|min|angle)(?![A-Za-z])|'|[0-9]\s+[0-9]|[0-9]\.[0-9]*\.|[0-9]\s*\\?%\s*\\?%|[\^_]\s*\Z|\.\s*[0-9]+\s*_"
)
_THOUSANDS = re.compile(r"(?<![0-9.,])[0-9]{1,3}(?: [0-9]{3})+(?![0-9])")
_RELATIONS = {sympy.Eq: "=", sympy.Ne: "!=", sympy.Lt: "<", sympy.Le: "<=", sympy.Gt: ">", sympy.Ge: ">="}
_FLIPPED = {"<": ">", "<=": ">=", ">": "<", ">=": "<="}


@lru_cache(maxsize=2048)
def parsed(latex: str, fold_case: bool = True) -> Any:
    """Return the SymPy object for the complete text; None if it cannot be parsed."""
    latex = _THOUSANDS.sub(lambda match: match[0].replace(" ", ""), latex)
    if not latex or _UNREADABLE.search(latex):
        return None
    try:
        return latex2sympy(
            normalize_latex(latex, _NORMALIZATION),
            is_real=True,
            normalization_config=None,
            conversion_config=ConversionConfig(lowercase_symbols=fold_case),
        )
    except Exception:  # noqa: BLE001  the parser reports failures only by exceptions, which are not documented
        return None


def is_same(expected: Any, given: Any) -> bool:
    """Return whether a given expression equals the expected one. May raise any error of SymPy on nonsense."""
    expected, given = _without_names(expected, given)
    if sympy.nan in (expected, given) or sympy.zoo in (expected, given):
        return False
    if expected == given:
        return True
    if isinstance(expected, sympy.MatrixBase) or isinstance(given, sympy.MatrixBase):
        return getattr(expected, "shape", None) == getattr(given, "shape", 0) and all(map(is_same, expected, given))
    if is_relation(expected) and is_relation(given):
        return _same_relations(expected, given)
    if isinstance(expected, sympy.Expr) and isinstance(given, sympy.Expr):
        return same_values(expected, given) or _same_names(expected, given)
    if isinstance(expected, sympy.Interval) and isinstance(given, sympy.Interval):
        return _same_intervals(expected, given)
    parts = [_parts(side) for side in (expected, given)]
    if parts[0] is not None and parts[1] is not None:
        is_ordered = not all(isinstance(side, sympy.FiniteSet) for side in (expected, given))
        return _same_parts(parts[0], parts[1], is_ordered)
    if isinstance(expected, sympy.Union) and isinstance(given, sympy.Union):
        return _same_parts(expected.args, given.args, is_ordered=False) or _small_verify(expected, given)
    return _small_verify(expected, given)


def _without_names(expected: Any, given: Any) -> tuple[Any, Any]:
    """Return both sides. If one is ``x = 5`` and the other is not an equation, use 5, as math-verify does."""
    if _is_named(expected) and not _has_relation(given):
        return take_last_relation(expected).rhs, given
    if not _has_relation(expected) and (_is_named(given) or _is_calculation(given)):
        return expected, take_last_relation(given).rhs
    pair = [
        sympy.Eq(take_first_relation(side).lhs, take_last_relation(side).rhs, evaluate=False)
        if _is_named(side) and isinstance(side, And)
        else side
        for side in (expected, given)
    ]
    return pair[0], pair[1]


def _is_named(side: Any) -> bool:
    return bool(is_assignment_relation(side))


def _is_calculation(side: Any) -> bool:
    """Return whether the side is a calculation such as ``48 + 24 = 72``."""
    relations = side.args if isinstance(side, And) else (side,)
    return all(isinstance(each, sympy.Eq) and not each.lhs.free_symbols for each in relations)


def _has_relation(side: Any) -> bool:
    return bool(is_relation(side))


def _parts(side: Any) -> Sequence[Any] | None:
    """Return the elements of a list or a tuple, in the order of the text; an open interval may be a pair."""
    if isinstance(side, sympy.FiniteSet):
        return getattr(side, "_unsorted_args", side.args)
    if isinstance(side, sympy.Tuple):
        return side.args
    if isinstance(side, sympy.Interval) and side.left_open and side.right_open:
        return (side.start, side.end)
    return None


def _same_parts(expected: Sequence[Any], given: Sequence[Any], is_ordered: bool) -> bool:
    if len(expected) != len(given):
        expected, given = list(dict.fromkeys(expected)), list(dict.fromkeys(given))
    if len(expected) != len(given) or len(expected) > MAX_ELEMENTS:
        return False
    names = [{take_first_relation(each).lhs for each in side if _is_named(each)} for side in (expected, given)]
    is_named = [len(names) == len(side) for names, side in zip(names, (expected, given), strict=True)]
    # ``a = 1, b = 2`` equals 1, 2 only in this order; ``x = 1, x = 2`` equals 1, 2 in any order.
    if is_ordered or (is_named[0] != is_named[1] and max(map(len, names)) == len(expected)):
        return all(map(is_same, expected, given))
    left = list(given)
    for each in expected:
        match = next((other for other in left if is_same(each, other)), None)
        if match is None:
            return False
        left.remove(match)
    return True


def _same_intervals(expected: sympy.Interval, given: sympy.Interval) -> bool:
    return (
        expected.left_open == given.left_open
        and expected.right_open == given.right_open
        and is_same(expected.start, given.start)
        and is_same(expected.end, given.end)
    )


def _same_names(expected: sympy.Expr, given: sympy.Expr) -> bool:
    r"""Return whether both are the same word, such as ``\text{ab}`` and ``ab``, or Euler's number and the letter e."""
    if not (isinstance(expected, sympy.Symbol) or isinstance(given, sympy.Symbol)):
        return False
    return bool(math_verify.verify(expected, given, timeout_seconds=None))


def _same_relations(expected: Any, given: Any) -> bool:
    if isinstance(given, sympy.Eq) and isinstance(given.rhs, sympy.Set) and not isinstance(expected, sympy.Eq):
        return _small_verify(expected, given.rhs)  # ``x \in [1, 2]`` for ``1 \le x \le 2``
    sides = [side.args if isinstance(side, And) else (side,) for side in (expected, given)]
    if len(sides[0]) > 1 or len(sides[1]) > 1:
        return _same_parts(sides[0], sides[1], is_ordered=False)
    if _is_named(expected) and _is_named(given) and expected.lhs == given.lhs and is_same(expected.rhs, given.rhs):
        return True
    if not all(isinstance(side.lhs, sympy.Expr) and isinstance(side.rhs, sympy.Expr) for side in (expected, given)):
        return type(expected) is type(given) and is_same(expected.lhs, given.lhs) and is_same(expected.rhs, given.rhs)
    return _same_ratio(expected, given) or _small_verify(expected, given)


def _same_ratio(expected: Relational, given: Relational) -> bool:
    """Return whether ``lhs - rhs`` of both differ by a constant factor, positive if they point the same way."""
    signs = _RELATIONS.get(type(expected)), _RELATIONS.get(type(given))
    if signs[0] not in (signs[1], _FLIPPED.get(str(signs[1]))):
        return False
    both = list(values_at_points(expected.lhs - expected.rhs, given.lhs - given.rhs))
    if len(both) < NUM_POINTS // 2 or any(a == 0 or b == 0 for a, b in both):
        return False
    ratios = [a / b for a, b in both]
    if signs[0] in _FLIPPED and bool(ratios[0] > 0) is not (signs[0] == signs[1]):
        return False
    return all(agree(ratio, ratios[0], is_rounded=False, digits=12) for ratio in ratios)


def _small_verify(expected: Any, given: Any) -> bool:
    """Return math-verify's verdict on two small expressions, else False: it may need to solve or simplify them."""
    if not (_is_small(expected) and _is_small(given)):
        return False
    return bool(math_verify.verify(expected, given, timeout_seconds=None))


def _is_small(side: Any) -> bool:
    if not isinstance(side, sympy.Basic) or len(side.free_symbols) > 3:
        return False
    sides = [(part.lhs, part.rhs) for part in side.atoms(Relational)]
    formulas = [left - right for left, right in sides if isinstance(left, sympy.Expr) and isinstance(right, sympy.Expr)]
    return sympy.count_ops(side) <= MAX_SMALL and all(
        _is_low_degree(formula) and formula.is_rational_function(*formula.free_symbols) for formula in formulas
    )


def _is_low_degree(formula: sympy.Expr) -> bool:
    return all(abs(power.exp) <= 4 for power in formula.atoms(sympy.Pow) if power.exp.is_Integer)
