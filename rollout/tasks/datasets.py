"""Problems out of the rows of a local file or a hub data set. Errors name the setting, or the row and the column."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from rollout.tasks.base import ListedProblems, Problem

logger = logging.getLogger(__name__)

Row = Mapping[str, Any]
ParseRow = Callable[[Row, str], Problem | None]
"""(row, where it is, for errors) -> its problem; None for a row that cannot be graded. Raises RowError."""

BUILDERS = {".jsonl": "json", ".json": "json", ".parquet": "parquet"}
"""File names' endings -> the loader of `datasets`."""
MAX_SHOWN = 300
"""Characters of a row that an error shows."""


class RowError(ValueError):
    """A row that makes no problem; the message names the source, the row and the column."""


def is_file(source: str) -> bool:
    """Return whether the source is a local file, judged by the ending of its name."""
    return Path(source).suffix in BUILDERS


def read_rows(source: str, key: str, subset: str = "", split: str = "train", hint: str = "") -> Iterable[Row]:
    """Return the rows of a local .jsonl, .json or .parquet file, or of a split of a hub data set.

    Args:
        source: the file's path, or the data set's name such as `openai/gsm8k`.
        key: the setting that holds it, for errors, such as `prompts.gsm8k.source`.
        subset: the hub data set's configuration, such as `main`; empty for its only one. Files have none.
        split: the hub data set's split. A file is one split.
        hint: what else the setting may be, for the error about the hub.

    Raises FileNotFoundError for a file that is not there, ValueError for one that cannot be read, ConnectionError when
    the hub data set cannot be loaded.
    """
    import datasets

    if is_file(source):
        if not Path(source).is_file():
            raise FileNotFoundError(f"{key} = {source!r}: no such file")
        try:
            rows: Iterable[Row] = datasets.load_dataset(BUILDERS[Path(source).suffix], data_files=source, split="train")
        except Exception as error:
            raise ValueError(f"{key} = {source!r} cannot be read ({type(error).__name__}: {error})") from error
        return rows
    where = f"{source!r}" + f", subset {subset!r}" * bool(subset) + f", split {split!r}"
    try:
        hub_rows: Iterable[Row] = datasets.load_dataset(source, subset or None, split=split)
    except Exception as error:
        raise ConnectionError(
            f"{key} = {where}: neither a .jsonl, .json or .parquet file nor a hub data set that can be loaded from "
            f"here ({type(error).__name__}: {error}). Check the name, its subset and split, and the network"
            + (f", or {hint}" if hint else "")
        ) from error
    return hub_rows


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


class ListedConfig(BaseModel, frozen=True, extra="forbid", use_attribute_docstrings=True):
    """The rows of a task. A local file is one split: `subset` and the splits are for hub data sets."""

    source: str
    """A local .jsonl or .parquet file, or a hub data set."""
    subset: str = ""
    """Subset (configuration) of the hub data set `source`. Empty: its only one."""
    split: str = "train"
    """Split of the hub data set to train on."""
    held_out_source: str = ""
    """Another file or hub data set to hold problems out of. Empty: `source`."""
    held_out_split: str = "test"
    """Split of the hub data set to hold problems out of. Empty: `split`. Of one file, or one split, the held-out
    problems are drawn at random and left out of training."""


def listed_problems(config: ListedConfig, task: str, parse: ParseRow, num_held_out: int, seed: int) -> ListedProblems:
    """Return the problems of the rows that `config` names. A question that stands twice is one problem.

    Args:
        task: the name of the task, for errors.
        parse: makes a row a problem.

    Raises what `read_rows` raises, RowError for a malformed row, and ValueError when there are too few problems.
    """

    def problems(source: str, key: str, subset: str, split: str) -> list[Problem]:
        rows = read_rows(source, f"prompts.{task}.{key}", subset, split)
        parsed = [parse(row, f"{source}, row {position}") for position, row in enumerate(rows)]
        found = [problem for problem in parsed if problem is not None]
        if len(found) < len(parsed):
            logger.info(
                "%s: %d of %d rows cannot be graded and are left out", source, len(parsed) - len(found), len(parsed)
            )
        return found

    held_out = None
    held_out_split = config.held_out_split or config.split
    if config.held_out_source:
        held_out = problems(config.held_out_source, "held_out_source", "", held_out_split)
    elif held_out_split != config.split and not is_file(config.source):
        held_out = problems(config.source, "source", config.subset, held_out_split)
    train = problems(config.source, "source", config.subset, config.split)
    return ListedProblems(train, num_held_out, seed, config.source, held_out)
