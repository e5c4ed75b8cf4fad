"""Competition mathematics whose answer is an expression: MATH, MATH-500, or any file of `problem` and `answer`."""

from __future__ import annotations

import re
from decimal import Decimal

from rollout.tasks.base import ListedProblems, Problem, WorkedExample
from rollout.tasks.datasets import ListedConfig, Row, RowError, listed_problems, same_question, shown, text_column

TEMPLATE = (
    "{problem}\nShow your work in <think> </think> tags. And return the final answer in LaTeX in <answer> </answer> "
    "tags, for example <answer>\\frac{{1}}{{2}}</answer>."
)
NATURAL_TEMPLATE = "{problem}\nReason step by step, and put your final answer within \\boxed{{}}."
EXAMPLE = WorkedExample(
    fields={"problem": "For which real numbers $x$ is $x^2 - 4x + 3 \\le 0$?"},
    completion=(
        "I factor: x^2 - 4x + 3 = (x - 1)(x - 3). The product is at most 0 where one factor is at most 0 and the other "
        "at least 0, so between the roots, the roots included.</think>\n<answer>[1, 3]</answer>"
    ),
)

PLAIN_BOX = re.compile(r"\\boxed\s+([^\s${}]+)")
"""An old style of LaTeX that some solutions of MATH use, `\\boxed 5`."""


class MathConfig(ListedConfig, frozen=True):
    """MATH, or other problems whose answer is a mathematical expression."""

    source: str = "DigitalLearningGmbH/MATH-lighteval"
    """A local .jsonl or .parquet file, or a hub data set, with the columns `problem` (or `question`) and `answer`, or a
    `solution` whose last box holds it; `level` is optional. `HuggingFaceH4/MATH-500` has a `test` split only: best as
    `held_out_source`, as those 500 problems stand in the test split of MATH."""


SETTINGS = MathConfig


def fields(config: MathConfig) -> tuple[tuple[str, ...], ...]:
    return (("problem",),)


def source(config: MathConfig, num_held_out: int, seed: int) -> ListedProblems:
    """Return the problems that `config` describes. Raises as `listed_problems` does."""
    return listed_problems(config, "math", parse_row, num_held_out, seed)


def parse_row(row: Row, where: str) -> Problem:
    """Return the problem of a row. Raises RowError for a malformed row."""
    problem = text_column(row, ("problem", "question"), where)
    answer = row.get("answer")
    if isinstance(answer, bool) or not isinstance(answer, str | int | float | Decimal | None):
        raise RowError(f"{where}: `answer` must be text or a number, one for each row: {shown(row)}")
    reference = boxed(text_column(row, "solution", where)) if answer is None else str(answer).strip()
    if not reference:
        raise RowError(f"{where}: no answer; set `answer`, or end `solution` in \\boxed{{…}}: {shown(row)}")
    level = str(row.get("level") or "").lower().removeprefix("level").strip()
    return Problem(
        fields={"problem": problem},
        answer={"answer": reference},
        key=same_question(problem),
        difficulty=f"level {level}" if level else "",
    )


def boxed(solution: str) -> str:
    """Return the content of the last box of a solution; an empty text when there is none whose braces match."""
    before, opening, rest = solution.rpartition("\\boxed{")
    plain = PLAIN_BOX.findall(solution, len(before))
    if not opening or plain:
        return plain[-1] if plain else ""
    depth = 1
    for position, character in enumerate(rest):
        depth += (character == "{") - (character == "}")
        if depth == 0:
            return rest[:position].strip()
    return ""
