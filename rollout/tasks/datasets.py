"""Problems from the rows of a local file or a hub data set. Errors name the setting, or the row and the column."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import BaseModel, field_validator

from rollout.problems.listed import RowFault
from rollout.rows.files import file_rows, format_of
from rollout.rows.hub import hub_rows
from rollout.rows.row import LocatedRow, Row, RowError
from rollout.tasks.base import ListedProblems, Problem
from rollout.types.paths import from_home

logger = logging.getLogger(__name__)

ParseRow = Callable[[Row, str], Problem | None]
"""(row, where it is, for errors) -> its problem; None for a row that cannot be graded. Raises RowError."""

MAX_NAMED = 5
"""Rows that a warning names."""
MAX_SHOWN = 300
"""Characters of a row that an error shows."""


def is_file(source: str) -> bool:
    """Return whether the source is a local file: its name ends as one does, or it is there."""
    return format_of(source) is not None or Path(from_home(source)).is_file()


def read_rows(source: str, key: str, subset: str = "", split: str = "train", hint: str = "") -> Iterator[LocatedRow]:
    """Return the rows of a local .jsonl, .json, .csv or .parquet file, or of a split of a hub data set, as they are.

    Args:
        source: the file's path, or the data set's name such as `openai/gsm8k`.
        key: the setting that holds it, for errors, such as `prompts.gsm8k.source`.
        subset: the hub data set's configuration, such as `main`; empty for its only one. Files have none.
        split: the hub data set's split. A file is one split.
        hint: what else the setting may be, for the error about the hub.

    Raises FileNotFoundError for a file that is not there, ValueError for one that cannot be read or has no rows,
    RowError for a row behind which nothing can be read, ConnectionError when the hub data set cannot be loaded.
    """
    return file_rows(source, key) if is_file(source) else hub_rows(source, key, subset, split, hint)


def column(row: Row, names: str | Sequence[str], where: str) -> Any:
    """Return the value of the first of the columns that the row has. Raises RowError when it has none of them."""
    names = [names] if isinstance(names, str) else names
    for name in names:
        if row.get(name) is not None:
            return row[name]
    wanted = " or ".join(map(repr, names))
    raise RowError(f"{where}: no {wanted}; it has {sorted(row)}: {shown(row)}")


def text_column(row: Row, names: str | Sequence[str], where: str) -> str:
    """Return such a column's text, stripped. Raises RowError when it is no text, or empty."""
    value = column(row, names, where)
    if not isinstance(value, str) or not value.strip():
        wanted = names if isinstance(names, str) else " or ".join(names)
        raise RowError(f"{where}: `{wanted}` must be text and not empty: {shown(row)}")
    return value.strip()


def shown(row: Row) -> str:
    """Return the row as an error shows it: cut after MAX_SHOWN characters."""
    text = str(dict(row))
    return text if len(text) <= MAX_SHOWN else text[:MAX_SHOWN] + "…"


def same_question(question: str) -> str:
    """Return the question's words in lower case: the key of rows that differ in spaces and capitals only."""
    return " ".join(question.casefold().split())


class ParsedRows(NamedTuple):
    """What became of rows."""

    problems: list[Problem]
    faults: list[RowFault]
    """The rows that make none."""
    ungradable: list[RowFault]
    """The rows that are fine, and that no grader can grade."""


def parse_rows(rows: Iterable[LocatedRow], parse: ParseRow, source: str) -> ParsedRows:
    """Return what becomes of rows. Log what was merged or left out."""
    found = ParsedRows([], [], [])
    problems, faults, ungradable = found
    for each in rows:
        try:
            problem = parse(each.row, each.where)
        except RowError as error:
            faults.append(row_fault(each, str(error).removeprefix(each.where)))
        except (ValueError, TypeError, LookupError, AttributeError) as error:  # a value of a kind that nobody foresaw
            faults.append(row_fault(each, f": {type(error).__name__}: {error}"))
        else:
            if problem is None:
                ungradable.append(row_fault(each, " cannot be graded"))
            else:
                problems.append(replace(problem, where=each.where))
    if ungradable:
        total = len(problems) + len(faults) + len(ungradable)
        logger.info("%s: %d of %d rows cannot be graded and are left out", source, len(ungradable), total)
    log_merged(source, problems)
    return found


def row_fault(row: LocatedRow, reason: str) -> RowFault:
    """Return the fault of a row."""
    if isinstance(row.found, RowError):
        return RowFault(row.where, reason, reason)
    return RowFault(row.where, reason, json.dumps(dict(row.found), sort_keys=True, default=str))


def log_merged(source: str, problems: Sequence[Problem]) -> None:
    """Log how many rows ask what another one asks, and so are one problem. Warn of those with another answer."""
    first: dict[str, Problem] = {}
    contradicting = []
    for problem in problems:
        other = first.setdefault(problem.key, problem)
        if other.answer.get("answer") != problem.answer.get("answer"):
            contradicting.append(f"{other.where} and {problem.where.rpartition(', ')[2]}")
    if len(first) < len(problems):
        logger.info("%s: %d rows, %d different problems", source, len(problems), len(first))
    if contradicting:
        logger.warning(
            "%s: %d rows ask what another row asks and have another answer; one of the two counts. Fix or remove: %s",
            source,
            len(contradicting),
            "; ".join(contradicting[:MAX_NAMED]) + "; …" * (len(contradicting) > MAX_NAMED),
        )


class ListedConfig(BaseModel, frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False):
    """The rows of a task. A local file is one split: `subset` and the splits are for hub data sets."""

    source: str
    """A local .jsonl or .parquet file, or a hub data set."""
    subset: str = ""
    """Subset (configuration) of the hub data set `source`. Empty: its only one."""
    split: str = "train"
    """Split of the hub data set to train on."""
    held_out_source: str = ""
    """Another file or hub data set for the held-out problems. Empty: `source`."""
    held_out_split: str = "test"
    """Split of the hub data set to hold problems out of. Empty: `split`. Of one file, or one split, the held-out
    problems are those of the smallest hashes of their keys, left out of training."""

    @field_validator("source", "held_out_source")
    @classmethod
    def _expand_home(cls, source: str) -> str:
        return from_home(source)


def listed_problems(config: ListedConfig, task: str, parse: ParseRow, num_held_out: int, seed: int) -> ListedProblems:
    """Return the problems of the rows that `config` names. A question that stands twice is one problem.

    Args:
        task: the name of the task, for errors.
        parse: makes a row a problem.

    Raises what `read_rows` raises, and ValueError when there are too few problems. Malformed rows are among the
    `faults` of what is returned.
    """
    faults: list[RowFault] = []
    ungradable: list[RowFault] = []

    def problems(source: str, key: str, subset: str, split: str) -> list[Problem]:
        found = parse_rows(read_rows(source, f"prompts.{task}.{key}", subset, split), parse, source)
        faults.extend(found.faults)
        ungradable.extend(found.ungradable)
        return found.problems

    held_out = None
    held_out_split = config.held_out_split or config.split
    if config.held_out_source:
        held_out = problems(config.held_out_source, "held_out_source", "", held_out_split)
    elif held_out_split != config.split and not is_file(config.source):
        held_out = problems(config.source, "source", config.subset, held_out_split)
    train = problems(config.source, "source", config.subset, config.split)
    return ListedProblems(train, num_held_out, seed, config.source, held_out, faults=faults, ungradable=ungradable)
