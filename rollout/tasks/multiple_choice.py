"""Questions with options: AQuA, ARC, LogiQA, or any file of `question`, `options` and `answer`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

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
    "{question}\n{options}\nShow your work in <think> </think> tags. And return the letter of the right option in "
    "<answer> </answer> tags, for example <answer>B</answer>."
)
NATURAL_TEMPLATE = "{question}\n{options}\nThink step by step, and end with the letter of the right option."
EXAMPLE = WorkedExample(
    fields={
        "question": "A train covers 150 miles in 2 hours and 30 minutes. What is its average speed?",
        "options": "A) 50 mph\nB) 55 mph\nC) 60 mph\nD) 65 mph\nE) 75 mph",
    },
    completion="2 hours and 30 minutes are 2.5 hours, and 150 / 2.5 = 60. 60 mph is option C.</think>\n"
    "<answer>C</answer>",
)

LETTERS = "ABCDEFGHIJ"
ANSWER_COLUMNS = ("answerKey", "correct", "correct_option", "answer", "label")
"""Names of the answer's column in ARC, AQuA, LogiQA and files of one's own, first come first."""
LABELLED = re.compile(r"\s*\(?([A-J])[).:]\s*")


class MultipleChoiceConfig(ListedConfig, frozen=True):
    """AQuA, ARC, LogiQA, or other questions with options."""

    source: str = "deepmind/aqua_rat"
    """A local .jsonl or .parquet file, or a hub data set such as `allenai/ai2_arc` or `lucasmccabe/logiqa`. Columns:
    `question` (or `query`), optionally `context`; `options` (or `choices`), a list of texts; and `answer` (or
    `answerKey`, `correct`, `correct_option`, `label`), the letter of the right option, its position from 0, or its
    text."""
    subset: str = "raw"
    """Subset (configuration) of the hub data set `source`, such as `ARC-Challenge`. Empty: its only one."""


SETTINGS = MultipleChoiceConfig


def fields(config: MultipleChoiceConfig) -> tuple[tuple[str, ...], ...]:
    return (("question",), ("options",))


def source(config: MultipleChoiceConfig, num_held_out: int, seed: int) -> ListedProblems:
    """Return the problems that `config` describes. Raises as `listed_problems` does."""
    return listed_problems(config, "multiple_choice", parse_row, num_held_out, seed)


def parse_row(row: Row, where: str) -> Problem:
    """Return the problem of a row. Its options get the letters from A on, instead of their own labels.

    Raises RowError for a malformed row.
    """
    question = text_column(row, ("question", "query"), where)
    if row.get("context"):
        question = f"{str(row['context']).strip()}\n{question}"
    options, labels = options_of(row, where)
    index = right_option(column(row, ANSWER_COLUMNS, where), options, labels)
    if index is None:
        raise RowError(f"{where}: the answer is none of the {len(options)} options: {shown(row)}")
    return Problem(
        fields={
            "question": question,
            "options": "\n".join(f"{letter}) {option}" for letter, option in zip(LETTERS, options, strict=False)),
        },
        answer={"answer": LETTERS[index], "options": options},
        key=same_question("\n".join([question, *options])),  # "Which of these is a mineral?" is many questions
        difficulty=str(row.get("difficulty") or row.get("level") or ""),
    )


def options_of(row: Row, where: str) -> tuple[list[str], list[str]]:
    """Return the options' texts and labels. ARC has both in a struct; AQuA writes the label into the text, `A)32400`.

    Raises RowError for options that are no such list.
    """
    value = column(row, ("options", "choices"), where)
    labels: list[str] = []
    if isinstance(value, dict):
        labels = [str(label) for label in value.get("label") or ()]
        value = value.get("text")
    is_list = isinstance(value, list | tuple) and all(isinstance(option, str | int | float) for option in value)
    if not is_list or not 2 <= len(value) <= len(LETTERS):
        raise RowError(f"{where}: the options must be a list of 2 to {len(LETTERS)} texts: {shown(row)}")
    texts = [str(option).strip() for option in value]
    written = [LABELLED.match(text) for text in texts]
    if all(match and match[1] == letter for match, letter in zip(written, LETTERS, strict=False)):
        texts = [LABELLED.sub("", text, count=1) for text in texts]
    if labels and len(labels) != len(texts):
        raise RowError(f"{where}: {len(labels)} labels for {len(texts)} options: {shown(row)}")
    return texts, labels or list(LETTERS[: len(texts)])


def right_option(answer: Any, options: Sequence[str], labels: Sequence[str]) -> int | None:
    """Return the position of the option that the row's answer names; None when it names none.

    A number is a position from 0. A text is a label, or an option's text, or such a position.
    """
    if isinstance(answer, str):
        name = answer.strip()
        if name.upper() in labels:
            return labels.index(name.upper())
        if list(options).count(name) == 1:
            return options.index(name)
        answer = int(name) if name.isdecimal() else None
    is_position = isinstance(answer, int) and not isinstance(answer, bool)
    return answer if is_position and 0 <= answer < len(options) else None
