"""Word problems whose answer is a number: GSM8K, or any file of `question` and `answer`."""

from __future__ import annotations

import re
from decimal import Decimal

from rollout.tasks.base import ListedProblems, Problem, WorkedExample
from rollout.tasks.datasets import (
    ListedConfig,
    Row,
    RowError,
    column,
    listed_problems,
    same_question,
    shown,
    text_column,
)

TEMPLATE = (
    "{question}\nShow your work in <think> </think> tags. And return the final answer, a number without its unit, in "
    "<answer> </answer> tags, for example <answer>72</answer>."
)
NATURAL_TEMPLATE = "{question}\nThink step by step, and end with the final answer, a number."
EXAMPLE = WorkedExample(
    fields={
        "question": "A baker fills 6 trays with 12 rolls each. She sells 45 rolls in the morning and gives a third of "
        "the rest to her neighbour. How many rolls does she have left?"
    },
    completion=(
        "6 trays of 12 rolls are 6 * 12 = 72 rolls. After the morning 72 - 45 = 27 are left. A third of them is "
        "27 / 3 = 9, so she keeps 27 - 9 = 18.</think>\n<answer>18</answer>"
    ),
)

STEP = re.compile(r"<<[^<>]{0,200}=([^<>=]{1,40})>>")
"""GSM8K's calculator annotation, `<<48/2=24>>`, and the result in it."""
NUMBER = re.compile(r"[-−]?\$?(?:[0-9][0-9,]*(?:\.[0-9]+)?|\.[0-9]+)(?:/[1-9][0-9]*)?%?")


class Gsm8kConfig(ListedConfig, frozen=True):
    """GSM8K, or other word problems whose answer is a number."""

    source: str = "openai/gsm8k"
    """A local .jsonl or .parquet file, or a hub data set, with the columns `question` and `answer`: a number, or a
    solution that ends in `#### 72`."""
    subset: str = "main"
    """Subset (configuration) of the hub data set `source`; `socratic` has the same problems. Empty: its only one."""


SETTINGS = Gsm8kConfig


def fields(config: Gsm8kConfig) -> tuple[tuple[str, ...], ...]:
    return (("question",),)


def source(config: Gsm8kConfig, num_held_out: int, seed: int) -> ListedProblems:
    """Return the problems that `config` describes. Raises as `listed_problems` does."""
    return listed_problems(config, "gsm8k", parse_row, num_held_out, seed)


def parse_row(row: Row, where: str) -> Problem:
    """Return the problem of a row: its number, and the results of its solution's steps.

    Raises RowError for a malformed row.
    """
    question = text_column(row, "question", where)
    answer = column(row, "answer", where)
    is_number = isinstance(answer, int | float) and not isinstance(answer, bool)
    # Of a number the digits that the row gives: 2.50 is not 2.5 to a reader, and 1e3 is 1000.
    text = format(Decimal(str(answer)), "f") if is_number else str(answer)
    solution, _, reference = text.rpartition("####")
    reference = reference.strip().rstrip(".")
    if not (is_number or isinstance(answer, str)) or not NUMBER.fullmatch(reference):
        raise RowError(f"{where}: `answer` must be a number, or a solution that ends in `#### 72`: {shown(row)}")
    steps = [result.strip() for result in STEP.findall(solution) if re.search("[0-9]", result)]
    return Problem(
        fields={"question": question},
        answer={"answer": reference, "steps": steps},
        key=same_question(question),
        difficulty=f"{len(steps)} steps" if steps else "",
    )
