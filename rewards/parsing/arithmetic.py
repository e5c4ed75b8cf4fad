"""Exact arithmetic over untrusted text: a tokenizer, a recursive-descent parser and a stack machine.
Where expressions stand in running prose is found by rewards/parsing/equations.py.

    expression = term   (("+" | "-") term)*
    term       = factor (("*" | "/") factor)*
    factor     = number | "(" expression ")"

A number is a run of ASCII digits. There is no unary minus: Countdown combines the given numbers by binary operations,
and with a sign -7 would be a number that was not given, a free "- -" a filler. No power, no decimals, no implicit
multiplication.

Spellings. Of the 384 real completions this was checked on, 52 write ``\\times`` and 42 ``\\div`` (six of them in a tagged answer);
models that write plain prose use × ÷ and − (13, 7 and 8 of 1,200 GSM8K solutions). ``\\cdot``, · and ``\\left(`` are
what other models write. All of them have one meaning only and are accepted. ``\\frac`` (two answers, both wrong) would
need a grammar of braces, and ``x`` is a letter: not accepted.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

MAX_CHARACTERS = 500
MAX_TOKENS = 100
MAX_DIGITS = 10
MAX_DEPTH = 32
MAX_MAGNITUDE = 10**30
"""Largest numerator or denominator of a value on the way. Six numbers of up to 100 stay below 10**12."""

_TOKEN = re.compile(r"([0-9]+)|(\\times|\\cdot|\\div|\\left\(|\\right\)|[-+*/()×·÷−])")
_SPACE = " \t\r\n"
_SPELLINGS = {
    **{"×": "*", "·": "*", "\\times": "*", "\\cdot": "*", "÷": "/", "\\div": "/", "−": "-"},
    **{"\\left(": "(", "\\right)": ")"},
}

Token = int | str
"""A number, or one of ``+ - * / ( )``."""


class ExpressionError(ValueError):
    """The text is not an expression that can be evaluated within the limits; the message says why."""


@dataclass(frozen=True, slots=True)
class Expression:
    """A parsed expression."""

    postfix: tuple[Token, ...]
    """In the order of a stack machine, so that nothing recurses over the depth of a tree."""

    @property
    def numbers(self) -> tuple[int, ...]:
        """The numbers in the order they were written."""
        return tuple(token for token in self.postfix if isinstance(token, int))

    def value(self, exact_division: bool = False) -> Fraction:
        """The exact value. Raises ExpressionError on division by zero and past MAX_MAGNITUDE.

        With ``exact_division`` also where a quotient is not whole, as in the game's rules on television.
        """
        stack: list[Fraction] = []
        for token in self.postfix:
            if isinstance(token, int):
                stack.append(Fraction(token))
            else:
                right = stack.pop()
                left = stack.pop()
                stack.append(_apply(token, left, right))
                if exact_division and token == "/" and stack[-1].denominator != 1:
                    raise ExpressionError(f"{left} / {right} is not whole")
        return stack.pop()


def parse(text: str) -> Expression:
    """Parses one expression that spans the whole text. Raises ExpressionError on anything else."""
    return _Parser(tokenize(text)).whole()


def tokenize(text: str) -> list[Token]:
    """Splits text into tokens. Raises ExpressionError on a character that has no place, and past the limits."""
    if len(text) > MAX_CHARACTERS:
        raise ExpressionError(f"{len(text)} characters, more than {MAX_CHARACTERS}")
    tokens: list[Token] = []
    position = 0
    while position < len(text):
        if text[position] in _SPACE:
            position += 1
            continue
        match = _TOKEN.match(text, position)
        if match is None:
            raise ExpressionError(f"unexpected {text[position]!r}")
        tokens.append(_token(match))
        position = match.end()
    if len(tokens) > MAX_TOKENS:
        raise ExpressionError(f"{len(tokens)} numbers and operators, more than {MAX_TOKENS}")
    return tokens


def _token(match: re.Match[str]) -> Token:
    digits, symbol = match.groups()
    if digits is None:
        return _SPELLINGS.get(symbol, symbol)
    if len(digits) > MAX_DIGITS:
        raise ExpressionError(f"a number of {len(digits)} digits, more than {MAX_DIGITS}")
    return int(digits)


class _Parser:
    """Recursive descent over tokens; recursion is bounded by MAX_DEPTH."""

    def __init__(self, tokens: list[Token]) -> None:
        self._tokens = tokens
        self._position = 0
        self._depth = 0
        self._postfix: list[Token] = []

    def whole(self) -> Expression:
        if not self._tokens:
            raise ExpressionError("empty")
        self._expression()
        if self._next is not None:
            raise ExpressionError(f"unexpected {self._next!r} after a complete expression")
        return Expression(tuple(self._postfix))

    @property
    def _next(self) -> Token | None:
        return self._tokens[self._position] if self._position < len(self._tokens) else None

    def _expression(self) -> None:
        self._term()
        while self._next in ("+", "-"):
            operator = self._take()
            self._term()
            self._postfix.append(operator)

    def _term(self) -> None:
        self._factor()
        while self._next in ("*", "/"):
            operator = self._take()
            self._factor()
            self._postfix.append(operator)

    def _factor(self) -> None:
        if self._next is None:
            raise ExpressionError("ends where a number should be")
        token = self._take()
        if isinstance(token, int):
            self._postfix.append(token)
        elif token == "(":
            self._parenthesized()
        else:
            raise ExpressionError(f"{token!r} where a number should be")

    def _parenthesized(self) -> None:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise ExpressionError(f"parentheses nested deeper than {MAX_DEPTH}")
        self._expression()
        if self._next != ")":
            raise ExpressionError("a parenthesis that is not closed")
        self._position += 1
        self._depth -= 1

    def _take(self) -> Token:
        token = self._tokens[self._position]
        self._position += 1
        return token


def _apply(operator: Token, left: Fraction, right: Fraction) -> Fraction:
    if operator == "+":
        value = left + right
    elif operator == "-":
        value = left - right
    elif operator == "*":
        value = left * right
    elif right == 0:
        raise ExpressionError("division by zero")
    else:
        value = left / right
    if max(abs(value.numerator), value.denominator) > MAX_MAGNITUDE:
        raise ExpressionError(f"a value on the way is larger than 1e{len(str(MAX_MAGNITUDE)) - 1}")
    return value
