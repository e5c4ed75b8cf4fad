"""Tasks whose problems are rows of a file or a hub data set: where the rows are, and how they become problems."""

from __future__ import annotations

import logging
from collections.abc import Callable

from pydantic import BaseModel

from rollout.tasks.base import ListedProblems, Problem
from rollout.tasks.datasets import Row, is_file, read_rows

logger = logging.getLogger(__name__)

Parse = Callable[[Row, str], Problem | None]
"""(row, where it is, for errors) -> its problem; None for a row that cannot be marked. Raises RowError."""


class ListedConfig(BaseModel, frozen=True, extra="forbid", use_attribute_docstrings=True):
    """Where the rows of a task are. A local file is one split: `subset` and the splits are a hub data set's."""

    source: str
    """A local .jsonl or .parquet file, or a hub data set."""
    subset: str = ""
    """Subset (configuration) of the hub data set `source`. Empty: its only one."""
    split: str = "train"
    """Split of the hub data set to train on."""
    held_out_source: str = ""
    """Another file or hub data set to hold problems out of. Empty: `source`."""
    held_out_split: str = "test"
    """Split of the hub data set to hold problems out of. Empty: `split`. Of one file, or one split, the held-out problems
    are drawn at random and left out of training."""


def listed_problems(config: ListedConfig, task: str, parse: Parse, num_held_out: int, seed: int) -> ListedProblems:
    """The problems of the rows that `config` names. A question that stands twice is one problem.

    Raises what `read_rows` raises, RowError for a malformed row, and ValueError when there are too few.
    """

    def problems(source: str, key: str, subset: str, split: str) -> list[Problem]:
        rows = read_rows(source, f"prompts.{task}.{key}", subset, split)
        parsed = [parse(row, f"{source}, row {position}") for position, row in enumerate(rows)]
        found = [problem for problem in parsed if problem is not None]
        if len(found) < len(parsed):
            logger.info(
                "%s: %d of %d rows cannot be marked and are left out", source, len(parsed) - len(found), len(parsed)
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
