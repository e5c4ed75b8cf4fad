r"""Parse expressions in untrusted text, and evaluate arithmetic exactly.

This is the only parser of expressions: a recursive descent parser with bounded recursion, over tokens.py. A Grammar
defines what an expression may contain; Countdown uses ARITHMETIC, and rewards/parsing/formulas.py has a larger grammar.
rewards/parsing/equations.py finds the expressions in running text.

    expression = term    (("+" | "-") term)*
    term       = operand (("*" | "/") operand)*
    operand    = atom                                        without signs
               | ("+" | "-") operand | atom ["**" operand]   with signs
    atom       = number | name | function "(" expression ")" | "(" expression ")"

A number is a sequence of ASCII digits. ARITHMETIC has no unary minus: Countdown combines the given numbers by binary
operations. With signs, -7 would be a number that is not given, and "- -" could be inserted freely. It has no powers, no
decimals and no implicit multiplication.

Spellings. In the 384 real completions that this was checked on, 52 write ``\times`` and 42 ``\div`` (six of them in a
tagged answer); models that write plain text use × ÷ and − (13, 7 and 8 of 1,200 GSM8K solutions). Other models write
``\cdot``, · and ``\left(``, similar signs (⋅ ∙ ∗ ∕ –) and Markdown's escapes (``\*``). Each of them has only one
meaning and is accepted. ``\frac`` (two answers, both wrong) would need a grammar with braces, and ``x`` is a letter, so
they are not accepted.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from rewards.parsing.tokens import ExpressionError, Grammar, Token, tokenize

MAX_DEPTH = 32
"""Largest nesting of parentheses, signs and powers."""
MAX_EXPONENT = 20
MAX_MAGNITUDE = 10**30
"""Largest numerator or denominator of an intermediate value. Six numbers up to 100 stay below 10**12."""

NEGATE = "negate"
"""The token for a minus sign in a parsed expression."""

_EXPONENT = re.compile(rf"n(?:{NEGATE})?(?:n(?:{NEGATE})?/)?")

OPERATOR_SIGNS = "-+*/×·⋅∙∗÷∕−–"
OPERATOR_COMMANDS = r"\\times|\\cdot|\\ast|\\div|\\left\(|\\right\)|\\[-+*/]"
ARITHMETIC = Grammar(
    re.compile(rf"(?P<whole>[0-9]+)|{OPERATOR_COMMANDS}|[{OPERATOR_SIGNS}()]"),
    {
        **dict.fromkeys([*"×·⋅∙∗", "\\times", "\\cdot", "\\ast", "\\*"], "*"),
        **dict.fromkeys([*"÷∕", "\\div", "\\/"], "/"),
        **dict.fromkeys([*"−–", "\\-"], "-"),
        **{"\\+": "+", "\\left(": "(", "\\right)": ")"},
    },
)
"""Countdown's expressions."""
CALCULATIONS = Grammar(
    re.compile(
        rf"(?P<decimal>[0-9]{{0,10}}\.[0-9]{{1,15}})|(?P<whole>[0-9]+)|\*\*|\^|{OPERATOR_COMMANDS}|[{OPERATOR_SIGNS}()]"
    ),
    {**ARITHMETIC.spellings, "^": "**"},
    has_signs=True,
)
"""Countdown's expressions with signs, decimals and powers, for calculators."""


@dataclass(frozen=True, slots=True)
class Expression:
    """A parsed expression."""

    postfix: tuple[Token, ...]
    """The tokens in postfix order, so that evaluation uses a stack and needs no recursion."""

    @property
    def numbers(self) -> tuple[int, ...]:
        """The whole numbers, in the order of the text."""
        return tuple(token for token in self.postfix if isinstance(token, int))

    def value(self, exact_division: bool = False) -> Fraction:
        """Return the exact value of an expression without names or functions.

        Raises ExpressionError on division by zero and for values past MAX_MAGNITUDE. With ``exact_division``, the rule
        of the television game, it also raises if a quotient is not whole.
        """
        stack: list[Fraction] = []
        for token in self.postfix:
            if isinstance(token, int):
                stack.append(Fraction(token))
            elif isinstance(token, float):
                stack.append(Fraction(repr(token)))  # the exact decimal number in the text
            elif token == NEGATE:
                stack.append(-stack.pop())
            else:
                right = stack.pop()
                left = stack.pop()
                stack.append(_apply(token, left, right))
                if exact_division and token == "/" and stack[-1].denominator != 1:
                    raise ExpressionError(f"{left} / {right} is not whole")
        return stack.pop()


def parse(text: str, grammar: Grammar = ARITHMETIC) -> Expression:
    """Parse a text that is one expression. Raises ExpressionError for any other text, and past the limits."""
    return _Parser(tokenize(text, grammar), grammar).parse()


class _Parser:
    """A recursive descent parser; MAX_DEPTH bounds the recursion."""

    def __init__(self, tokens: list[Token], grammar: Grammar) -> None:
        self._tokens = tokens
        self._grammar = grammar
        self._operand = self._signed if grammar.has_signs else self._atom
        self._position = 0
        self._depth = 0
        self._postfix: list[Token] = []

    def parse(self) -> Expression:
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
        self._operand()
        while self._next in ("*", "/"):
            operator = self._take()
            self._operand()
            self._postfix.append(operator)

    def _signed(self) -> None:
        if self._next not in ("+", "-"):
            self._power()
            return
        sign = self._take()
        self._enter()
        self._signed()
        self._depth -= 1
        if sign == "-":
            self._postfix.append(NEGATE)

    def _power(self) -> None:
        start = len(self._postfix)
        self._atom()
        if self._next != "**":
            return
        if "**" in self._postfix[start:]:
            raise ExpressionError("a power of a power")
        self._position += 1
        exponent = len(self._postfix)
        self._enter()
        self._signed()
        self._depth -= 1
        _check_exponent(self._postfix[exponent:])
        self._postfix.append("**")

    def _atom(self) -> None:
        if self._next is None:
            raise ExpressionError("ends where a number should be")
        token = self._take()
        if token == "(":
            self._parenthesized()
        elif token in self._grammar.functions and self._next == "(":
            self._position += 1
            self._parenthesized()
            self._postfix.append(token)
        elif not isinstance(token, str) or token in self._grammar.names:
            self._postfix.append(token)
        else:
            raise ExpressionError(f"{token!r} where a number should be")

    def _parenthesized(self) -> None:
        self._enter()
        self._expression()
        if self._next != ")":
            raise ExpressionError("a parenthesis that is not closed")
        self._position += 1
        self._depth -= 1

    def _enter(self) -> None:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise ExpressionError(f"nested deeper than {MAX_DEPTH}")

    def _take(self) -> Token:
        token = self._tokens[self._position]
        self._position += 1
        return token


def _check_exponent(postfix: Sequence[Token]) -> None:
    """Raise ExpressionError unless an exponent is a whole number up to MAX_EXPONENT, or a fraction of two such ones."""
    shape = "".join(
        token if isinstance(token, str) else "n" if isinstance(token, int) and token <= MAX_EXPONENT else "x"
        for token in postfix
    )
    if not _EXPONENT.fullmatch(shape):
        raise ExpressionError(f"an exponent that is neither a whole number up to {MAX_EXPONENT} nor a fraction of two")


def _apply(operator: Token, left: Fraction, right: Fraction) -> Fraction:
    if operator == "+":
        value = left + right
    elif operator == "-":
        value = left - right
    elif operator == "*":
        value = left * right
    elif operator == "**":
        value = _raised(left, right)
    elif right == 0:
        raise ExpressionError("division by zero")
    else:
        value = left / right
    if max(abs(value.numerator), value.denominator) > MAX_MAGNITUDE:
        raise ExpressionError(f"a value on the way is larger than 1e{len(str(MAX_MAGNITUDE)) - 1}")
    return value


def _raised(base: Fraction, exponent: Fraction) -> Fraction:
    if exponent.denominator != 1:
        raise ExpressionError("a power whose exponent is not whole")
    if base == 0 and exponent < 0:
        raise ExpressionError("division by zero")
    return base ** int(exponent)  # _check_exponent has limited the exponent
