"""Split an expression into numbers, names and operators, as its grammar defines them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Set
from dataclasses import dataclass, field

MAX_CHARACTERS = 500
MAX_TOKENS = 100
MAX_DIGITS = 10
"""Most digits of a whole number."""

Token = int | float | str
"""A number, a name, or one of ``+ - * / ** ( )``."""

_SPACE = " \t\r\n"


class ExpressionError(ValueError):
    """The text is not an expression that can be evaluated within the limits; the message says why."""


@dataclass(frozen=True, slots=True)
class Grammar:
    """The tokens that an expression may contain."""

    token: re.Pattern[str]
    """Matches one token. It may have the groups ``whole``, ``decimal`` and ``name``; a match of none of these groups is
    an operator or a parenthesis."""
    spellings: Mapping[str, str] = field(default_factory=dict)
    """Other spellings of operators and parentheses."""
    names: Set[str] = frozenset()
    functions: Set[str] = frozenset()
    """Functions of one argument."""
    has_signs: bool = False
    max_tokens: int = MAX_TOKENS


def tokenize(text: str, grammar: Grammar) -> list[Token]:
    """Return the tokens of a text. Raises ExpressionError if it contains anything else, and past the limits."""
    if len(text) > MAX_CHARACTERS:
        raise ExpressionError(f"{len(text)} characters, more than {MAX_CHARACTERS}")
    tokens: list[Token] = []
    position = 0
    while position < len(text):
        if text[position] in _SPACE:
            position += 1
            continue
        match = grammar.token.match(text, position)
        if match is None:
            raise ExpressionError(f"unexpected {text[position]!r}")
        tokens.append(_token(match, grammar))
        position = match.end()
    if len(tokens) > grammar.max_tokens:
        raise ExpressionError(f"{len(tokens)} numbers and operators, more than {grammar.max_tokens}")
    return tokens


def _token(match: re.Match[str], grammar: Grammar) -> Token:
    text = match[0]
    match match.lastgroup:
        case "whole":
            if len(text) > MAX_DIGITS:
                raise ExpressionError(f"a number of {len(text)} digits, more than {MAX_DIGITS}")
            return int(text)
        case "decimal":
            return float(text)
        case "name":
            if text not in grammar.names and text not in grammar.functions:
                raise ExpressionError(f"{text[:80]} is not arithmetic over {sorted(grammar.names)}")
    return grammar.spellings.get(text, text)
