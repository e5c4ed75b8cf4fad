"""Questions whose answer is a word or a few: bAbI, or any file of `question`, `answer` and perhaps `passage`."""

from __future__ import annotations

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
    "{question}\nShow your work in <think> </think> tags. And return the final answer, as short as it can be, in "
    "<answer> </answer> tags, for example <answer>garden</answer>."
)
NATURAL_TEMPLATE = "{question}\nThink step by step, and end with the final answer, as short as it can be."
EXAMPLE = WorkedExample(
    fields={
        "question": "Nina went to the attic. Paul took the lamp. Nina travelled to the cellar. Paul went to the "
        "attic.\nWhere is the lamp?"
    },
    completion="Paul took the lamp, and then Paul went to the attic, so the lamp is there.</think>\n"
    "<answer>attic</answer>",
)

PATH_FINDING = "19"
"""The bAbI task whose answers are paths such as `s,e`, where the order matters."""
DIRECTIONS = {"n": "north", "e": "east", "s": "south", "w": "west"}


class ExactMatchConfig(ListedConfig, frozen=True):
    """bAbI, or other questions whose answer is compared as text."""

    source: str = "Muennighoff/babi"
    """A local .jsonl or .parquet file, or a hub data set. Columns: `question`; `answer`, a text, or a list of texts of
    which any is right; optionally `passage` (or `context`), which the question is about, and bAbI's `task`, a
    number."""


SETTINGS = ExactMatchConfig


def fields(config: ExactMatchConfig) -> tuple[tuple[str, ...], ...]:
    return (("question",),)


def source(config: ExactMatchConfig, num_held_out: int, seed: int) -> ListedProblems:
    """Return the problems that `config` describes. Raises as `listed_problems` does."""
    return listed_problems(config, "exact_match", parse_row, num_held_out, seed)


def parse_row(row: Row, where: str) -> Problem:
    """Return the problem of a row, its passage before its question. Raises RowError for a malformed row."""
    question = text_column(row, "question", where)
    passage = str(row.get("passage") or row.get("context") or "").strip()
    question = f"{passage}\n{question}" if passage else question
    answer = column(row, "answer", where)
    answers = list(answer) if isinstance(answer, list | tuple) else [answer]
    references = [str(each).strip() for each in answers if isinstance(each, str | int | float)]
    if not references or not all(references) or len(references) < len(answers):
        raise RowError(f"{where}: `answer` must be text and not empty, or a list of such: {shown(row)}")
    task = str(row.get("task") or "")
    is_path = task == PATH_FINDING and all(step in DIRECTIONS for step in references[0].split(","))
    if is_path:
        references.append(",".join(DIRECTIONS[step] for step in references[0].split(",")))
    return Problem(
        fields={"question": question},
        answer={"answer": references if len(references) > 1 else references[0]}
        | ({"ordered": True} if is_path else {}),
        key=same_question(question),
        difficulty=f"task {task}" if task else "",
    )
