"""Your own questions and answers: a file or a hub data set, the names of its columns, and the name of a grader.

A file's values are taken as they are written (rollout/rows/): `"007"` is text, and `7` a number beside `2.50` too.
A column is named as the rows name it, or by a path into a nested one: `reward_model.ground_truth`, `prompt.0.content`.
Of its values

- the question, the key and the difficulty must be text, a number or a truth value;
- the answer, and what `answer_columns` adds to it, goes to the grader as it is, nested or not, and must not be empty;
- every column is a field of the template by its own name: text as it is, an empty value as no text, all else as JSON.
  The field `{question}` is the question, for any name of its column.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Self

from pydantic import Field, model_validator

from rollout.rows.json_text import json_text
from rollout.tasks.base import ANY_FIELD, ListedProblems, Problem, WorkedExample
from rollout.tasks.datasets import ListedConfig, Row, RowError, listed_problems, same_question
from rollout.types.names import closest

TEMPLATE = (
    "{question}\nShow your work in <think> </think> tags. And return the final answer in <answer> </answer> tags."
)
NATURAL_TEMPLATE = "{question}\nThink step by step, and end with the final answer."
EXAMPLE = WorkedExample(
    fields={"question": "How many days are in two weeks and a day?"},
    completion="A week has 7 days, so two weeks have 2 * 7 = 14. One more makes 15.</think>\n<answer>15</answer>",
)


class JsonlConfig(ListedConfig, frozen=True):
    """jsonl: any file of questions and answers, or a hub data set, graded by any of the graders."""

    source: str = ""
    """A local .jsonl or .parquet file, or a hub data set such as `openai/gsm8k`. Must be set."""
    held_out_split: str = ""
    """Split of a hub data set to hold problems out of, such as `test`. Empty: `split`. Of one file, or one split, the
    held-out problems are those of the smallest hashes of their keys, left out of training."""
    question_column: str = "question"
    """Column of the question."""
    answer_column: str = "answer"
    """Column of the reference answer, in a form that the grader reads."""
    answer_columns: dict[str, str] = Field(default_factory=dict)
    """Other data for the grader: entry of its answer -> column, such as `{ options = "choices" }`."""
    difficulty_column: str = ""
    """Column of a label that evaluations group by. Empty: none."""
    key_column: str = ""
    """Column of a key: rows with the same key are one problem. Empty: all that the template shows."""
    reward: str = "exact_match"
    """Grader of the answers: `exact_match`, `gsm8k`, `math`, `multiple_choice` or any other module of rewards/tasks, a
    name in `rewards.tasks`, or the dotted path of a module of your own. Each says in its docstring how the answer must
    be given."""

    @property
    def grader(self) -> str:
        """The grader of the answers."""
        return self.reward

    @model_validator(mode="after")
    def _check(self) -> Self:
        if "answer" in self.answer_columns:
            raise ValueError("answer_columns names 'answer': set answer_column instead")
        return self


SETTINGS = JsonlConfig


def fields(config: JsonlConfig) -> tuple[tuple[str, ...], ...]:
    return (tuple(dict.fromkeys(("question", config.question_column, ANY_FIELD))),)


def source(config: JsonlConfig, num_held_out: int, seed: int) -> ListedProblems:
    """Return the problems of questions that a template shows alone; see `source_showing`."""
    return source_showing(config, num_held_out, seed, ())


def source_showing(config: JsonlConfig, num_held_out: int, seed: int, shown: Collection[str]) -> ListedProblems:
    """Return the problems that `config` describes, as templates with the fields `shown` ask them.

    Raises as `listed_problems` does, and ValueError when there is no source.
    """
    if not config.source:
        raise ValueError("prompts.jsonl.source is not set: name a .jsonl or .parquet file, or a hub data set")
    return listed_problems(config, "jsonl", lambda row, where: problem(row, where, config, shown), num_held_out, seed)


def problem(row: Row, where: str, config: JsonlConfig, shown: Collection[str] = ()) -> Problem:
    """Return the problem of a row, told apart from others by the fields `shown`, or by its key column.

    Raises RowError, beginning with `where`, for a missing, empty or nested column.
    """
    question = text_at(row, config.question_column, where)
    if not question.strip():
        raise empty_column(config.question_column, where)
    references = {"answer": config.answer_column, **config.answer_columns}
    fields = {**{column: as_text(value) for column, value in row.items()}, "question": question}
    others = sorted({*shown} - {"question", config.question_column})
    for name in others:
        refuse_bytes(row.get(name), name, where)
    asked = [same_question(question), *(f"{name} = {same_question(fields.get(name, ''))}" for name in others)]
    return Problem(
        fields=fields,
        answer={entry: plain(value_at(row, column, where)) for entry, column in references.items()},
        key=text_at(row, config.key_column, where) if config.key_column else "\n".join(asked),
        difficulty=text_at(row, config.difficulty_column, where) if config.difficulty_column else "",
    )


def text_at(row: Row, column: str, where: str) -> str:
    """Return a column's text. Raises RowError when there is none, or it is nested."""
    value = value_at(row, column, where)
    if isinstance(value, Mapping | list | tuple):
        inside = [f"{column}.{key}" for key in (value if isinstance(value, Mapping) else range(len(value)))]
        raise RowError(f"{where}: column {column!r} is nested; name a part of it, one of {inside}")
    return as_text(value)


def value_at(row: Row, column: str, where: str) -> Any:
    """Return a column's value, by its name or by a path. Raises RowError when there is none, or it is empty."""
    found: Any = row
    for part in [column] if column in row else column.split("."):
        if isinstance(found, list | tuple):
            found = dict(zip(map(str, range(len(found))), found, strict=True))
        if not isinstance(found, Mapping) or part not in found:
            raise RowError(f"{where}: no column {column!r}; {columns_of(row, column)}")
        found = found[part]
    if found is None or found == "":
        raise empty_column(column, where)
    refuse_bytes(found, column, where)
    return found


def empty_column(column: str, where: str) -> RowError:
    return RowError(f"{where}: column {column!r} is empty; leave the row out, or name another column")


def refuse_bytes(value: Any, column: str, where: str) -> None:
    """Raise RowError for bytes, which are not known to be text."""
    if isinstance(value, bytes):
        raise RowError(f"{where}: column {column!r} holds bytes: save it as text, in Parquet with the type string")


def columns_of(row: Row, column: str) -> str:
    """Return a hint: the column that was probably meant, and all there are."""
    close = closest(column, row)
    return (f"did you mean {close!r}? " if close else "") + f"there are {', '.join(map(repr, row))}"


def as_text(value: Any) -> str:
    """Return the text that a template shows for a value."""
    if value is None:
        return ""
    value = plain(value)
    return value if isinstance(value, str) else json_text(value)


def plain(value: Any) -> Any:
    """Return the value as JSON holds it. A value that JSON has no type for, such as a date, becomes text."""
    if isinstance(value, Mapping):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    return value if value is None or isinstance(value, str | bool | int | float) else str(value)
