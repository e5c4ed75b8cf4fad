"""Which formulas from a model may be handed to sympy, whose parser evaluates Python.

Python's own parser, which runs nothing, reads the text first. What is allowed is arithmetic over numbers, the given
variables, and functions of one argument; powers are bounded, since ``9**9**9`` is a short text and a long number.
"""

from __future__ import annotations

import ast
import warnings
from collections.abc import Iterator, Set

MAX_CHARACTERS = 500
MAX_NUMBER = 10**9
MAX_EXPONENT = 20

FUNCTIONS = frozenset({"sin", "cos", "tan", "asin", "acos", "atan", "sinh", "cosh", "tanh", "exp", "log", "ln", "sqrt"})
CONSTANTS = frozenset({"pi", "E"})
_OPERATORS = (ast.Add, ast.Sub, ast.Mult, ast.Div, ast.Pow)


class FormulaError(ValueError):
    """A text that is no formula, or one that might compute for long; the message says what is wrong."""


def check_formula(text: str, variables: Set[str]) -> None:
    """Raises FormulaError unless ``text`` is a formula over ``variables`` that may be evaluated.

    Without variables it must be arithmetic over whole numbers by ``+ - * /``: neither powers nor functions, and no
    decimals, where countdown would take 9.5 for a 9 and a 5.
    """
    if len(text) > MAX_CHARACTERS:
        raise FormulaError(f"{len(text)} characters, above {MAX_CHARACTERS}")
    # Underscores group digits and begin private names; line breaks and `#` are for programs.
    if not text.isascii() or any(character in text for character in "_\n\r#"):
        raise FormulaError("holds a character that formulas do not have")
    if not variables and "**" in text:
        raise FormulaError("holds a power")
    try:
        with warnings.catch_warnings(action="ignore"):  # such as that 3(4) calls a number
            tree = ast.parse(text.strip(), mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise FormulaError(f"not a formula: {error}") from error
    for node in nodes(tree.body):
        if not variables and not is_whole_number(node) and not isinstance(node, ast.UnaryOp | ast.BinOp):
            raise FormulaError(f"{ast.unparse(node)[:80]} is neither a whole number nor an operation")
        check_node(node, variables)


def nodes(root: ast.expr) -> Iterator[ast.expr]:
    """The parts of a formula, without the names of functions."""
    waiting = [root]
    while waiting:
        node = waiting.pop()
        yield node
        if isinstance(node, ast.BinOp):
            waiting += [node.left, node.right]
        elif isinstance(node, ast.UnaryOp):
            waiting.append(node.operand)
        elif isinstance(node, ast.Call):
            waiting += node.args


def is_whole_number(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and type(node.value) is int


def check_node(node: ast.expr, variables: Set[str]) -> None:
    """Raises FormulaError for anything but arithmetic."""
    match node:
        case ast.Constant(value=int() | float() as value) if not isinstance(value, bool) and abs(value) <= MAX_NUMBER:
            return
        case ast.Name(id=name) if name in variables or name in CONSTANTS:
            return
        case ast.Call(func=ast.Name(id=name), args=[_], keywords=[]) if name in FUNCTIONS:
            return
        case ast.UnaryOp(op=ast.UAdd() | ast.USub()):
            return
        case ast.BinOp(op=ast.Pow(), left=base, right=exponent):
            check_power(base, exponent)
        case ast.BinOp(op=operator) if isinstance(operator, _OPERATORS):
            return
        case _:
            raise FormulaError(f"{ast.unparse(node)[:80]} is not arithmetic over {sorted(variables)}")


def check_power(base: ast.expr, exponent: ast.expr) -> None:
    """Raises FormulaError for an exponent that is no small number, and for a power of a power."""
    sides = [exponent.left, exponent.right] if isinstance(exponent, ast.BinOp) else [exponent]
    for side in sides:
        number = side.operand if isinstance(side, ast.UnaryOp) else side
        if not isinstance(number, ast.Constant) or type(number.value) is not int or number.value > MAX_EXPONENT:
            raise FormulaError(f"the exponent {ast.unparse(exponent)[:80]} is not a number up to {MAX_EXPONENT}")
    if isinstance(exponent, ast.BinOp) and not isinstance(exponent.op, ast.Div):
        raise FormulaError(f"the exponent {ast.unparse(exponent)[:80]} is neither a number nor a fraction")
    if any(isinstance(node, ast.BinOp) and isinstance(node.op, ast.Pow) for node in nodes(base)):
        raise FormulaError("a power of a power")
