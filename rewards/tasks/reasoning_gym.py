"""Grade problems of the library reasoning_gym by the scorers of its data sets.

The answer to a prompt is ``{"answer": "9", "dataset": "chain_sum", "settings": {}, "metadata": {…}}``, as
rollout/tasks/reasoning_gym.py makes it. What is graded is the content of the last complete pair of answer tags; in the
natural format it is the last line that is not blank. Two parts:

- ``score``: the library's score, from 0 to 1. Many data sets pay partly right answers, some (countdown, jugs) even a
  well-formed wrong one 0.01 to 0.05: see each data set's ``score_answer``.
- ``correctness``: 1 when that score is 1, otherwise 0.

The text is untrusted, and the library trusts it. What is done otherwise here:

- Python's eval reads an answer in binary_matrix, n_queens, spiral_matrix and string_insertion, which pay a list in
  Python's notation a part. They get ``ast.literal_eval`` instead: it reads lists and runs nothing.
- sympy's parse_expr, which is eval in disguise, reads one in simple_integration, intermediate_integration,
  polynomial_multiplication and countdown. They only see arithmetic over numbers and, but for countdown, variables and a
  few functions (rewards/parsing/formulas.py). One in seven of intermediate_integration's own answers is an ``Integral``
  that sympy left as it was; that is no answer here.
- puzzle24 calls it too, takes any four numbers for the given ones, and 24.9 for 24. game_of_life_halting holds every
  text that is not empty to be right; coin_flip pays ``0`` for its common beginning with 0.25. These three are graded
  here, 1 or 0. complex_arithmetic gives 1 for ``nan``, which it never sees.
- Some scorers raise on an answer of another shape than they expect (prime_factorization, game_of_life, boxnet): it is
  wrong.

number_sorting forgives an error of up to 1 in each number; that is left as it is. Slow scorers: codeio compares JSON by
a tree edit distance, rubiks_cube makes every move of an answer (``F999999999``), the integrations call sympy's
simplify. They are bounded by the worker's deadline and memory.
"""

from __future__ import annotations

import ast
import contextlib
import json
import re
import sys
from collections.abc import Callable, Mapping
from fractions import Fraction
from functools import lru_cache
from typing import Any

from rewards.parsing.extraction import extract_answer, is_natural
from rewards.parsing.formulas import check_formula
from rewards.parsing.tokens import ExpressionError
from rewards.tasks.countdown import check

PARTS = ("correctness", "score")

MAX_CHARACTERS = 20_000
"""Longest answer that is looked at; a longer one is wrong. The longest right ones, of tower_of_hanoi, have some
5,000."""

CALLS_EVAL = frozenset({"binary_matrix", "n_queens", "spiral_matrix", "string_insertion"})
CALLS_SYMPY = frozenset({"simple_integration", "intermediate_integration", "polynomial_multiplication", "countdown"})
MALFORMED = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)
"""Raised by the library's scorers on answers of another shape."""

LONG_EXPONENT = re.compile(r"[eE][-+]?[0-9_]{3}")


def score(text: str, answer: Mapping[str, Any]) -> dict[str, float]:
    """Return the parts of a completion's reward. Raises KeyError when ``answer`` is not an entry of reasoning_gym."""
    given = last_line(text) if is_natural(answer) else extract_answer(text)
    if given is None or len(given) > MAX_CHARACTERS:
        return {"correctness": 0.0, "score": 0.0}
    value = score_answer(given, answer)
    return {"correctness": float(value == 1.0), "score": value}


def check_reference(answer: Mapping[str, Any]) -> str | None:
    """Return what is wrong with an entry whose own answer is not right, such as an integral that was not found.

    Data sets that grade by a rule, such as the colours of a graph, have no answer of their own: nothing is wrong.
    """
    given = answer["answer"]
    if given is None or given == "" or score_answer(str(given), answer) == 1.0:
        return None
    return f"the reference {str(given)[:100]!r} cannot be matched: even a copy of it is graded wrong"


def last_line(text: str) -> str | None:
    """Return the last line that is not blank."""
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), None)


def score_answer(given: str, answer: Mapping[str, Any]) -> float:
    """Return the score of a data set, or of this module where the data set's own must not be trusted; from 0 to 1."""
    name = answer["dataset"]
    if name in OWN_SCORERS:
        return float(OWN_SCORERS[name](given, answer))
    if not may_be_read(name, given, answer):
        return 0.0
    scorer = dataset(name, json.dumps(answer["settings"]))
    try:
        with contextlib.redirect_stdout(None):  # tower_of_hanoi prints every wrong move
            return min(1.0, max(0.0, float(scorer.score_answer(given, entry(name, answer)))))
    except MALFORMED:
        return 0.0


def may_be_read(name: str, given: str, answer: Mapping[str, Any]) -> bool:
    """Return whether the library's scorer may see this answer."""
    if name == "complex_arithmetic":
        return "nan" not in given.lower()
    if name not in CALLS_SYMPY:
        return True
    try:
        check_formula(given, variables_of(name, answer))
    except ExpressionError:
        return False
    return True


def variables_of(name: str, answer: Mapping[str, Any]) -> set[str]:
    """Return the letters that an answer may hold."""
    if name == "countdown":
        return set()
    return {"C"} | {character for character in answer["answer"] if character.isalpha()}


def entry(name: str, answer: Mapping[str, Any]) -> dict[str, Any]:
    """Return the entry as the library made it.

    ARC's boards are tuples there, which JSON lacks; no other scorer minds lists.
    """
    metadata = answer["metadata"]
    if name in ("arc_agi", "rearc"):
        metadata = {**metadata, "output": tuple(tuple(row) for row in metadata["output"])}
    return {"answer": answer["answer"], "metadata": metadata}


@lru_cache(maxsize=64)
def dataset(name: str, settings: str) -> Any:
    """Return the library's data set with these settings (JSON), made safe to score with."""
    prepare()
    from reasoning_gym.factory import create_dataset

    made = create_dataset(name, **json.loads(settings))
    if name in CALLS_EVAL:
        # A name in a module hides the builtin of that name.
        vars(sys.modules[type(made).__module__])["eval"] = ast.literal_eval
    return made


def prepare() -> None:
    """Import the library, which takes seconds, before a deadline runs."""
    import reasoning_gym  # noqa: F401


def makes_24(given: str, answer: Mapping[str, Any]) -> bool:
    """Grade puzzle24: an expression must use each of the four numbers once and equal 24."""
    return check(given, answer["metadata"]["numbers"], 24).is_correct


def is_same_word(given: str, answer: Mapping[str, Any]) -> bool:
    """Grade game_of_life_halting: ``True`` or ``False``."""
    return given.lower() == str(answer["answer"]).lower()


def is_near(given: str, answer: Mapping[str, Any], tolerance: float = 1e-4) -> bool:
    """Grade coin_flip: a probability, as a decimal or a fraction, to four decimals."""
    # With a longer exponent a few characters would name a number of a billion digits.
    if len(given) > 100 or LONG_EXPONENT.search(given):
        return False
    try:
        return abs(Fraction(given) - Fraction(answer["answer"])) <= tolerance
    except (ValueError, ZeroDivisionError):
        return False


OWN_SCORERS: Mapping[str, Callable[[str, Mapping[str, Any]], bool]] = {
    "puzzle24": makes_24,
    "game_of_life_halting": is_same_word,
    "coin_flip": is_near,
}
"""Data sets whose own scorer is not called."""
