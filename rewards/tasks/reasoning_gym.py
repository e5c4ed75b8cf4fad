"""Grade problems of the library reasoning_gym with the scorers of its data sets.

The answer to a prompt is ``{"answer": "9", "dataset": "chain_sum", "settings": {}, "metadata": {…}}``, from
rollout/tasks/reasoning_gym.py. The content of the last complete pair of answer tags is graded; in the natural format it
is the last line that is not blank. Two parts:

- ``score``: the library's score, from 0 to 1. Many data sets give partial credit, some (countdown, jugs) even 0.01 to
  0.05 for a well-formed wrong answer: see each data set's ``score_answer``.
- ``correctness``: 1 if that score is 1, otherwise 0.

The text is untrusted, but the library trusts it. Therefore this module differs in these points:

- binary_matrix, n_queens, spiral_matrix and string_insertion pass an answer to Python's eval, because they give partial
  credit for a list in Python's notation. Here they call ``ast.literal_eval``, which reads lists and runs nothing.
- simple_integration, intermediate_integration, polynomial_multiplication and countdown pass an answer to sympy's
  parse_expr, which calls eval. Here they only get arithmetic over numbers and, except for countdown, variables and a
  few functions (rewards/parsing/formulas.py). One in seven reference answers of intermediate_integration is an
  ``Integral`` that sympy could not solve; that is not an answer here.
- puzzle24 calls parse_expr too, accepts any four numbers as the given ones, and accepts 24.9 as 24.
  game_of_life_halting accepts every text that is not empty. coin_flip gives ``0`` partial credit, because 0.25 begins
  with the same character. This module grades these three itself, with 1 or 0. complex_arithmetic gives 1 for ``nan``,
  so it never gets such an answer.
- Some scorers raise on an answer with an unexpected shape (prime_factorization, game_of_life, boxnet): it is wrong.

number_sorting accepts an error of up to 1 in each number; that is unchanged. Slow scorers: codeio compares JSON by a
tree edit distance, rubiks_cube makes every move of an answer (``F999999999``), and the integrations call sympy's
simplify. The worker's deadline and memory limit them.
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
"""Longest answer that is graded; a longer answer is wrong. The longest right answers, in tower_of_hanoi, have about
5,000."""

CALLS_EVAL = frozenset({"binary_matrix", "n_queens", "spiral_matrix", "string_insertion"})
CALLS_SYMPY = frozenset({"simple_integration", "intermediate_integration", "polynomial_multiplication", "countdown"})
MALFORMED = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)
"""Errors that the library's scorers raise on answers with an unexpected shape."""

LONG_EXPONENT = re.compile(r"[eE][-+]?[0-9_]{3}")


def score(text: str, answer: Mapping[str, Any]) -> dict[str, float]:
    """Return the parts of a completion's reward. Raises KeyError if ``answer`` is not an entry of reasoning_gym."""
    given = last_line(text) if is_natural(answer) else extract_answer(text)
    if given is None or len(given) > MAX_CHARACTERS:
        return {"correctness": 0.0, "score": 0.0}
    value = score_answer(given, answer)
    return {"correctness": float(value == 1.0), "score": value}


def check_reference(answer: Mapping[str, Any]) -> str | None:
    """Return what is wrong with an entry whose own answer is graded wrong, such as an integral that was not solved.

    Data sets that grade by a rule, such as the colours of a graph, have no reference answer, which is not an error.
    """
    given = answer["answer"]
    if given is None or given == "" or score_answer(str(given), answer) == 1.0:
        return None
    return f"the reference {str(given)[:100]!r} cannot be matched: even a copy of it is graded wrong"


def last_line(text: str) -> str | None:
    """Return the last line that is not blank."""
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), None)


def score_answer(given: str, answer: Mapping[str, Any]) -> float:
    """Return the score from 0 to 1, by the data set's scorer, or by this module's if that one cannot be trusted."""
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
    """Return whether it is safe to pass this answer to the library's scorer."""
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
    """Return the letters that an answer may contain."""
    if name == "countdown":
        return set()
    return {"C"} | {character for character in answer["answer"] if character.isalpha()}


def entry(name: str, answer: Mapping[str, Any]) -> dict[str, Any]:
    """Return the entry in the library's own form.

    ARC's scorers need boards as tuples, which JSON does not have; all other scorers accept lists.
    """
    metadata = answer["metadata"]
    if name in ("arc_agi", "rearc"):
        metadata = {**metadata, "output": tuple(tuple(row) for row in metadata["output"])}
    return {"answer": answer["answer"], "metadata": metadata}


@lru_cache(maxsize=64)
def dataset(name: str, settings: str) -> Any:
    """Return the library's data set with these settings (JSON), with its scorer made safe."""
    prepare()
    from reasoning_gym.factory import create_dataset

    created = create_dataset(name, **json.loads(settings))
    if name in CALLS_EVAL:
        # A global name in a module hides the builtin function with that name.
        vars(sys.modules[type(created).__module__])["eval"] = ast.literal_eval
    return created


def prepare() -> None:
    """Import the library, which takes seconds, before any deadline starts."""
    import reasoning_gym  # noqa: F401


def makes_24(given: str, answer: Mapping[str, Any]) -> bool:
    """Grade puzzle24: an expression must use each of the four numbers once and equal 24."""
    return check(given, answer["metadata"]["numbers"], 24).is_correct


def is_same_word(given: str, answer: Mapping[str, Any]) -> bool:
    """Grade game_of_life_halting: ``True`` or ``False``."""
    return given.lower() == str(answer["answer"]).lower()


def is_near(given: str, answer: Mapping[str, Any], tolerance: float = 1e-4) -> bool:
    """Grade coin_flip: a probability, as a decimal or a fraction, to four decimals."""
    # With a longer exponent a few characters could make a number with a billion digits.
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
"""Data sets that this module grades itself, by name."""
