"""A second checker of Countdown for tests. It shares no code with the package: Python's own grammar, signs allowed."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

LATEX = {"\\times": "*", "\\div": "/", "\\(": " ", "\\)": " ", "\\[": " ", "\\]": " "}


def tagged(line: Mapping[str, Any]) -> str:
    """Return the last answer, wherever it stands, in Python's spelling."""
    answers = re.findall(r"<answer>((?:(?!<answer>).)*?)</answer>", line["completion"], re.DOTALL)
    text = answers[-1].strip() if answers else ""
    box = re.fullmatch(r"\\boxed\{(.*)\}", text, re.DOTALL)
    return (box[1] if box else text).replace("\\times", "*").replace("\\div", "/").strip()


def grade_tagged(line: Mapping[str, Any]) -> tuple[bool, bool]:
    """Return (correct, parses), whatever stands before the answer."""
    found = parsed(f"({tagged(line)})")
    if found is None:
        return False, False
    numbers, value = found
    return numbers == sorted(line["numbers"]) and value == line["target"], True


def grade_prose(line: Mapping[str, Any]) -> bool:
    """Return whether the last expression over exactly the numbers hits the target.

    One in the answer's place comes first.
    """
    text = line["completion"]
    places = re.findall(r"<answer>(?:(?!<answer>).)*?</answer>", text, re.DOTALL) or re.findall(
        r"\\boxed\{[^{}]*\}", text
    )
    for place in [*places[-1:], text]:
        number = re.fullmatch(r"\D*(\d+)\D*", place)
        if number and int(number[1]) != line["target"]:
            return False
        found = pieces(place)
        over_the_numbers = [value for numbers, value in found if numbers == sorted(line["numbers"])]
        if found:
            return bool(over_the_numbers) and over_the_numbers[-1] == line["target"]
    return False


def pieces(text: str) -> list[tuple[list[int], Fraction]]:
    """Return sorted numbers and value of each operation in the text, in order."""
    for latex, python in LATEX.items():
        text = text.replace(latex, python)
    found = []
    for line in text.splitlines():
        for piece in re.split(r"[^0-9+*/() -]+", re.sub(r"^\s*[-*]\s", "", line)):
            tries = (parsed(attempt) for attempt in without_stray_brackets(piece.strip()))
            found += [next((result for result in tries if result is not None), None)]
    return [piece for piece in found if piece is not None and len(piece[0]) > 1]


def without_stray_brackets(piece: str) -> list[str]:
    """Return the piece, and what is left without up to three brackets at either end."""
    left = re.match(r"[( )]{0,3}", piece)
    right = re.search(r"[( )]{0,3}$", piece)
    assert left and right
    return [piece[i : len(piece) - j] for i in range(left.end() + 1) for j in range(len(right[0]) + 1)]


def parsed(text: str) -> tuple[list[int], Fraction] | None:
    """Return sorted numbers and value of a Python expression; None for what is not one."""
    try:
        tree = ast.parse(text, mode="eval").body
        numbers = sorted(
            node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and type(node.value) is int
        )
        return numbers, value_of(tree)
    except (SyntaxError, ValueError, TypeError, ZeroDivisionError, MemoryError, RecursionError):
        return None


def value_of(tree: ast.expr) -> Fraction:
    match tree:
        case ast.Constant(value=int(number)):
            return Fraction(number)
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -value_of(operand)
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return value_of(left) + value_of(right)
        case ast.BinOp(left=left, op=ast.Sub(), right=right):
            return value_of(left) - value_of(right)
        case ast.BinOp(left=left, op=ast.Mult(), right=right):
            return value_of(left) * value_of(right)
        case ast.BinOp(left=left, op=ast.Div(), right=right):
            return value_of(left) / value_of(right)
    raise ValueError(f"not in the whitelist: {ast.dump(tree)}")
